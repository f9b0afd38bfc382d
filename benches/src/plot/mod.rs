//! Pictures of what `versus` measures, as SVG.

mod ratios;
mod tails;

use std::error::Error;

use plotters::style::RGBColor;

pub use ratios::draw_ratios;
pub use tails::draw_tails;

const FONT: &str = "sans-serif";
const TEXT: RGBColor = RGBColor(60, 60, 60);

/// What drawing fails with: the file cannot be written, most likely.
type Drawn = Result<(), Box<dyn Error>>;
