//! The tails: which share of the tasks took longer than so long. The further down and left a line, the better; where it
//! ends is the longest that occurred.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use super::{Drawn, FONT, TEXT};
use crate::Settings;
use crate::latencies::Latencies;
use crate::side::Side;
use crate::tail::{BesideBlocked, blocked, sliced};

const SIZE: (u32, u32) = (1_200, 900);
const LONGEST_US: f64 = 1e5;
const SMALLEST_SHARE: f64 = 1e-4;

/// One panel: lines with a color each, pooled over all turns.
struct Panel {
    title: &'static str,
    lines: Vec<(Side, Latencies)>,
}

/// Measures the suite `tail` anew and draws what its rows cut down to one figure.
///
/// ```no_run
/// let settings = polity_benches::Settings { reps: 3, workers: 2, only: Vec::new() };
/// polity_benches::draw_tails(&settings, "tails.svg".as_ref())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If the file cannot be written.
pub fn draw_tails(settings: &Settings, to: &Path) -> Drawn {
    let panels = measure(settings);
    let area = SVGBackend::new(to, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    for (panel, part) in panels.iter().zip(area.split_evenly((2, 2))) {
        panel.draw(&part)?;
    }
    area.present()?;
    Ok(())
}

/// Takes turns, as the suite does, and pools them.
fn measure(settings: &Settings) -> [Panel; 4] {
    let empty = |sides: &[Side]| {
        sides
            .iter()
            .map(|side| (*side, Latencies::default()))
            .collect()
    };
    let (both, all) = (
        [Side::Polity, Side::Tokio],
        [Side::Polity, Side::PolityByPriority, Side::Tokio],
    );
    let panel = |title, sides| Panel {
        title,
        lines: empty(sides),
    };
    let mut panels = [
        panel(
            "One worker blocked 10 ms in 20: spawned from outside",
            &both[..],
        ),
        panel("One worker blocked 10 ms in 20: sleeping 5 ms", &both),
        panel(
            "One worker blocked 10 ms in 20: woken by who blocks it",
            &both,
        ),
        panel("Pings beside a load in slices of 100 us", &all),
    ];
    for _ in 0..settings.reps {
        for (nth, side) in both.into_iter().enumerate() {
            let BesideBlocked {
                spawned,
                sleeping,
                woken,
            } = blocked(side, settings.workers);
            for (panel, latencies) in panels.iter_mut().zip([spawned, sleeping, woken]) {
                panel.lines[nth].1.merge(&latencies);
            }
        }
        for (side, pooled) in &mut panels[3].lines {
            pooled.merge(&sliced(*side, settings.workers).pings);
        }
    }
    panels
}

impl Panel {
    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
        let mut chart = ChartBuilder::on(area)
            .margin(16)
            .margin_right(32)
            .caption(self.title, (FONT, 17))
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(
                (1.0..LONGEST_US).log_scale(),
                (SMALLEST_SHARE..1.0).log_scale(),
            )?;
        chart
            .configure_mesh()
            .bold_line_style(BLACK.mix(0.12))
            .light_line_style(TRANSPARENT)
            .label_style((FONT, 13).into_font().color(&TEXT))
            .x_label_formatter(&|us| time(*us))
            .x_desc("latency")
            .y_desc("share that took longer")
            .draw()?;
        for (side, latencies) in &self.lines {
            let (name, color) = legend(*side);
            let line = LineSeries::new(latencies.longer(), color.stroke_width(2));
            chart.draw_series(line)?.label(name).legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
            });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .label_font((FONT, 14).into_font().color(&TEXT))
            .background_style(WHITE.mix(0.8))
            .draw()?;
        Ok(())
    }
}

fn legend(side: Side) -> (&'static str, RGBColor) {
    match side {
        Side::Polity => ("polity, built-in FIFO", RGBColor(20, 90, 170)),
        Side::PolityByPriority => ("polity, Priority", RGBColor(40, 150, 90)),
        Side::Tokio => ("tokio", RGBColor(200, 90, 40)),
    }
}

/// A power of ten of microseconds, in the unit that one reads it in.
fn time(us: f64) -> String {
    if us < 1e3 {
        format!("{us} us")
    } else {
        format!("{} ms", us / 1e3)
    }
}
