//! The latencies of `/ping` over time, as fine as a picture can show and no finer: what is kept are the cells of a grid
//! (an eight-hundredth of the run by a fortieth of a decade) that at least one request fell into. So a run of an hour
//! takes no more memory than one of seconds, and the one slow request among ten thousand is still there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const COLUMNS: u32 = 800;
const ROWS_PER_DECADE: f64 = 40.0;
/// Of how many columns one median is taken.
const COLUMNS_PER_MEDIAN: u32 = 10;

#[derive(Clone)]
pub(crate) struct Timeline {
    begun: Instant,
    column: Duration,
    /// How many requests fell into (column, row).
    cells: BTreeMap<(u32, u32), u32>,
}

/// A point of the picture.
#[derive(Clone, Copy)]
pub(crate) struct Point {
    /// When the request was due, in seconds from the beginning.
    pub(crate) at_s: f64,
    pub(crate) latency_us: f64,
}

impl Timeline {
    pub(crate) fn new(begun: Instant, run: Duration) -> Timeline {
        Timeline {
            begun,
            column: run / COLUMNS,
            cells: BTreeMap::new(),
        }
    }

    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    pub(crate) fn add(&mut self, due: Instant, latency: Duration) {
        let at = due.saturating_duration_since(self.begun);
        let column = at.as_secs_f64() / self.column.as_secs_f64();
        let row = (latency.as_micros().max(1) as f64).log10() * ROWS_PER_DECADE;
        *self.cells.entry((column as u32, row as u32)).or_default() += 1;
    }

    /// One for each cell.
    pub(crate) fn points(&self) -> impl Iterator<Item = Point> {
        self.cells
            .keys()
            .map(|&(column, row)| self.point(f64::from(column) + 0.5, row))
    }

    /// The course of the median.
    pub(crate) fn medians(&self) -> Vec<Point> {
        let mut spans: BTreeMap<u32, BTreeMap<u32, u32>> = BTreeMap::new();
        for (&(column, row), count) in &self.cells {
            let rows = spans.entry(column / COLUMNS_PER_MEDIAN).or_default();
            *rows.entry(row).or_default() += count;
        }
        let middle = |span| (f64::from(span) + 0.5) * f64::from(COLUMNS_PER_MEDIAN);
        spans
            .iter()
            .map(|(span, rows)| self.point(middle(*span), median(rows)))
            .collect()
    }

    fn point(&self, column: f64, row: u32) -> Point {
        Point {
            at_s: column * self.column.as_secs_f64(),
            latency_us: 10f64.powf((f64::from(row) + 0.5) / ROWS_PER_DECADE),
        }
    }
}

/// `rows` are not empty.
fn median(rows: &BTreeMap<u32, u32>) -> u32 {
    let half = rows.values().sum::<u32>().div_ceil(2);
    let mut so_far = 0;
    for (row, count) in rows {
        so_far += count;
        if so_far >= half {
            return *row;
        }
    }
    unreachable!("all rows together reach the half of all rows")
}
