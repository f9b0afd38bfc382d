//! The bars: how many times better we are in each row, on a logarithmic axis, so that twice and half are equally far
//! from one.

use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::combinators::{IntoLogRange, LogCoord};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde::Deserialize;

use super::{Drawn, FONT, TEXT};
use crate::Goal;

const WIDTH: u32 = 1_100;
const LABELS: u32 = 380;
const BAR: u32 = 20;
const MARGIN: u32 = 80;

const MET: RGBColor = RGBColor(40, 130, 80);
const MISSED: RGBColor = RGBColor(200, 70, 50);
const NO_GOAL: RGBColor = RGBColor(150, 160, 175);

/// What the last line of `versus --json` says of a row. What is not drawn is not read.
#[derive(Deserialize)]
struct JsonRow {
    suite: String,
    bench: String,
    peer: String,
    /// Missing where both figures are zero.
    ratio: Option<f64>,
    quartiles: [Option<f64>; 3],
    goal: Goal,
    met: Option<bool>,
}

#[derive(Deserialize)]
struct Table {
    rows: Vec<JsonRow>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<LogCoord<f64>, RangedCoordf64>>;

/// Draws the ratios of a table, the last line of `versus --json`: green where the goal is met, red where it is not, a
/// black mark where the goal is, a thin line from quartile to quartile.
///
/// Rows whose goal is a cost have no bar: there one of the figures may be zero.
///
/// ```
/// let table = r#"{"rows": [{"suite": "tokio", "bench": "yield_many", "peer": "tokio", "ratio": 3.0,
///     "quartiles": [2.5, 3.0, 3.5], "goal": {"ratio": 2.0}, "met": true}]}"#;
/// let path = std::env::temp_dir().join(format!("polity-ratios-{}.svg", std::process::id()));
/// polity_benches::draw_ratios(table, &path)?;
/// assert!(std::fs::read_to_string(&path)?.contains("yield_many"));
/// # std::fs::remove_file(path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If it is no such table, if it has no bars, or if the file cannot be written.
pub fn draw_ratios(table: &str, to: &Path) -> Drawn {
    let Table { mut rows } = serde_json::from_str(table)?;
    rows.retain(|row| {
        row.ratio.is_some_and(|ratio| ratio > 0.0) && !matches!(row.goal, Goal::Cost(_))
    });
    if rows.is_empty() {
        return Err("the table has no ratios".into());
    }
    let height = BAR * rows.len() as u32 + MARGIN;
    let area = SVGBackend::new(to, (WIDTH, height)).into_drawing_area();
    draw(&area, &rows)?;
    area.present()?;
    Ok(())
}

fn draw(area: &Area<'_>, rows: &[JsonRow]) -> Drawn {
    area.fill(&WHITE)?;
    let range = range(rows);
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .margin_right(24)
        .set_label_area_size(LabelAreaPosition::Left, LABELS)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        .build_cartesian_2d(range.clone().log_scale(), rows.len() as f64..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .label_style((FONT, 13).into_font().color(&TEXT))
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|ratio| ratio_label(*ratio))
        .x_desc("times better than the peer (logarithmic); black: the goal; thin: quartiles")
        .draw()?;
    for (nth, row) in rows.iter().enumerate() {
        bar(&mut chart, nth as f64, row)?;
    }
    let even = vec![(1.0, 0.0), (1.0, rows.len() as f64)];
    chart.draw_series([PathElement::new(even, BLACK.stroke_width(1))])?;
    labels(area, &chart, range.start, rows)
}

/// From the smallest to the largest thing that is drawn, with one inside, and some air.
fn range(rows: &[JsonRow]) -> Range<f64> {
    let goals = rows.iter().filter_map(goal);
    let ratios = rows.iter().filter_map(|row| row.ratio);
    let all = goals.chain(ratios).chain([1.0]);
    let (low, high) = all.fold((1.0_f64, 1.0_f64), |(low, high), at| {
        (low.min(at), high.max(at))
    });
    low / 1.5..high * 1.5
}

/// 0.1, 0.2, 0.5, 1 and so on: the other lines of the axis are too near to each other to be named.
fn ratio_label(ratio: f64) -> String {
    let digit = (ratio / 10_f64.powf(ratio.log10().floor())).round() as u32;
    match digit {
        1 | 2 | 5 | 10 => format!("{}", (ratio * 1e3).round() / 1e3),
        _ => String::new(),
    }
}

fn goal(row: &JsonRow) -> Option<f64> {
    match row.goal {
        Goal::Ratio(goal) => Some(goal),
        Goal::Cost(_) | Goal::None => None,
    }
}

fn bar(chart: &mut Chart<'_, '_>, top: f64, row: &JsonRow) -> Drawn {
    let color = match row.met {
        Some(true) => MET,
        Some(false) => MISSED,
        None => NO_GOAL,
    };
    let ratio = row.ratio.unwrap_or(1.0);
    let body = Rectangle::new(
        [(1.0, top + 0.2), (ratio, top + 0.8)],
        color.mix(0.8).filled(),
    );
    chart.draw_series([body])?;
    if let [Some(low), _, Some(high)] = row.quartiles {
        let line = vec![(low, top + 0.5), (high, top + 0.5)];
        chart.draw_series([PathElement::new(line, TEXT.stroke_width(1))])?;
    }
    if let Some(goal) = goal(row) {
        let mark = vec![(goal, top + 0.1), (goal, top + 0.9)];
        chart.draw_series([PathElement::new(mark, BLACK.stroke_width(3))])?;
    }
    Ok(())
}

/// Names, left of the bars.
fn labels(area: &Area<'_>, chart: &Chart<'_, '_>, left: f64, rows: &[JsonRow]) -> Drawn {
    let style = (FONT, 14)
        .into_font()
        .color(&TEXT)
        .pos(Pos::new(HPos::Right, VPos::Center));
    for (nth, row) in rows.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(left, nth as f64 + 0.5));
        let ratio = row.ratio.unwrap_or(1.0);
        let name = format!("{}/{}, {}: {ratio:.2}", row.suite, row.bench, row.peer);
        area.draw_text(&name, &style, (x - 8, y))?;
    }
    Ok(())
}
