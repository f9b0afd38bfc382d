//! The picture: the latency of `/ping` over time. What a table cannot show is that the harm a bad policy does has an end,
//! and when.
//!
//! Grey and white are the phases; a dot is a request, or several that fell on the same spot; the line is the median; a red
//! band is the time from a fault to the ejection; a vertical line is the end of a policy.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use plotters::coord::Shift;
use plotters::coord::combinators::{IntoLogRange, LogCoord};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use polity::ExitKind;

use crate::phases::Outcome;
use crate::record::{Seen, Tally};

const SIZE: (u32, u32) = (1_400, 640);
const FONT: &str = "sans-serif";

const POINT: RGBColor = RGBColor(70, 140, 200);
const MEDIAN: RGBColor = RGBColor(12, 44, 82);
const SHADE: RGBColor = RGBColor(238, 238, 238);
const FAULT: RGBColor = RGBColor(250, 205, 200);
const ERROR: RGBColor = RGBColor(190, 20, 20);
const ORDERLY: RGBColor = RGBColor(20, 110, 60);
const TEXT: RGBColor = RGBColor(60, 60, 60);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, LogCoord<f64>>>;
/// What drawing fails with: the file cannot be written.
type Drawn = Result<(), Box<dyn Error>>;

/// Writes the picture to `path`, and makes the folder that it lies in.
pub(crate) fn draw(path: &Path, outcomes: &[Outcome], seen: &Seen) -> Drawn {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    let picture = Picture::new(outcomes, seen);
    picture.draw(&area)?;
    area.present()?;
    Ok(())
}

struct Picture<'a> {
    outcomes: &'a [Outcome],
    seen: &'a Seen,
    end_s: f64,
    lowest_us: f64,
    /// Above it are labels, and no points.
    highest_us: f64,
    top_us: f64,
}

/// A text in one of the lines of the space above the points.
struct Label {
    at_s: f64,
    line: i32,
    text: String,
    color: RGBColor,
    /// Which end of the text is at `at_s`.
    side: HPos,
}

impl<'a> Picture<'a> {
    fn new(outcomes: &'a [Outcome], seen: &'a Seen) -> Self {
        let latencies = || seen.pings.points().map(|point| point.latency_us);
        let lowest_us = latencies().fold(1e4, f64::min);
        let highest_us = latencies().fold(1e4, f64::max) * 1.3;
        let mut picture = Picture {
            outcomes,
            seen,
            end_s: 0.0,
            lowest_us: lowest_us / 1.3,
            highest_us,
            // The labels take the upper sixth.
            top_us: highest_us * (highest_us / lowest_us).powf(0.2),
        };
        picture.end_s = picture.phase_ends().last().copied().unwrap_or(1.0);
        picture
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        area.fill(&WHITE)?;
        let tallies = &self.seen.tallies;
        let requests: u64 = tallies.iter().map(Tally::requests).sum();
        let errors: u64 = tallies.iter().map(|tally| tally.errors).sum();
        let title = format!("Latency of /ping; {errors} of {requests} requests failed");
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .caption(title, (FONT, 22))
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..self.end_s, (self.lowest_us..self.top_us).log_scale())?;
        self.draw_phases(&mut chart)?;
        self.draw_axes(&mut chart)?;
        self.draw_points(&mut chart)?;
        self.draw_ends(&mut chart)
    }

    fn draw_axes(&self, chart: &mut Chart<'_, '_>) -> Drawn {
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(BLACK.mix(0.15))
            .light_line_style(TRANSPARENT)
            .label_style((FONT, 16).into_font().color(&TEXT))
            .x_labels(20)
            .x_label_formatter(&|second| format!("{second} s"))
            .y_label_formatter(&|us| time(*us))
            .x_desc("when the request was due. Dots: requests; line: median; red: from a fault to the ejection")
            .axis_desc_style((FONT, 16).into_font().color(&TEXT))
            .draw()?;
        Ok(())
    }

    /// Background, red bands and names.
    fn draw_phases(&self, chart: &mut Chart<'_, '_>) -> Drawn {
        let mut begin = self.seconds(self.seen.tallies[0].begun + self.seen.tallies[0].length);
        for (nth, (outcome, end)) in self.outcomes.iter().zip(self.phase_ends()).enumerate() {
            if nth % 2 == 0 {
                self.fill(chart, begin, end, SHADE)?;
            }
            if let (Some(fault), Some((_, ended))) = (outcome.fault, outcome.ended) {
                self.fill(chart, self.seconds(fault), self.seconds(ended), FAULT)?;
            }
            let middle = f64::midpoint(begin, end);
            let label = |line, text: &str| Label {
                at_s: middle,
                line,
                text: text.to_owned(),
                color: TEXT,
                side: HPos::Center,
            };
            self.write(chart, label(0, outcome.phase.name()))?;
            self.write(chart, label(1, &outcome.policy))?;
            begin = end;
        }
        Ok(())
    }

    fn draw_points(&self, chart: &mut Chart<'_, '_>) -> Drawn {
        let points = self.seen.pings.points();
        chart.draw_series(points.map(|point| {
            Circle::new((point.at_s, point.latency_us), 2, POINT.mix(0.5).filled())
        }))?;
        let medians = self.seen.pings.medians();
        let line = medians.iter().map(|point| (point.at_s, point.latency_us));
        chart.draw_series(LineSeries::new(line, MEDIAN.stroke_width(2)))?;
        Ok(())
    }

    fn draw_ends(&self, chart: &mut Chart<'_, '_>) -> Drawn {
        for (kind, at) in self.outcomes.iter().filter_map(|outcome| outcome.ended) {
            let at_s = self.seconds(at);
            let color = if kind.is_error() { ERROR } else { ORDERLY };
            let line = vec![(at_s, self.lowest_us), (at_s, self.highest_us)];
            chart.draw_series([PathElement::new(line, color.stroke_width(2))])?;
            // A swap ends with its phase, and the next phase's label needs the place on the other side.
            let side = match kind {
                ExitKind::Swap => HPos::Right,
                _ => HPos::Center,
            };
            let label = Label {
                at_s,
                line: 2,
                text: kind.as_str().to_owned(),
                color,
                side,
            };
            self.write(chart, label)?;
        }
        Ok(())
    }

    fn fill(&self, chart: &mut Chart<'_, '_>, from: f64, to: f64, color: RGBColor) -> Drawn {
        let corners = [(from, self.lowest_us), (to, self.top_us)];
        chart.draw_series([Rectangle::new(corners, color.filled())])?;
        Ok(())
    }

    fn write(&self, chart: &mut Chart<'_, '_>, label: Label) -> Drawn {
        let style = (FONT, 16)
            .into_font()
            .color(&label.color)
            .pos(Pos::new(label.side, VPos::Top));
        let below = (0, 6 + 20 * label.line);
        let text = Text::new(label.text, below, style);
        chart.draw_series([EmptyElement::at((label.at_s, self.top_us)) + text])?;
        Ok(())
    }

    /// Of the phases; the warm-up has no place in the picture's background.
    fn phase_ends(&self) -> Vec<f64> {
        let phases = &self.seen.tallies[1..];
        let ends = phases.iter().map(|tally| tally.begun + tally.length);
        ends.map(|end| self.seconds(end)).collect()
    }

    fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.seen.pings.begun())
            .as_secs_f64()
    }
}

/// A round number of microseconds, in the unit that one reads it in.
fn time(us: f64) -> String {
    match us {
        ..1e3 => format!("{us:.0} µs"),
        ..1e6 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.0} s", us / 1e6),
    }
}
