//! What every suite of `versus` is told.

use crate::Row;

/// How often, with how many workers, and which rows.
///
/// ```
/// use polity_benches::Settings;
///
/// let settings = Settings { reps: 3, workers: 2, only: vec!["echo".to_owned()] };
/// assert!(settings.wants("io", "echo_64x64"));
/// assert!(!settings.wants("tokio_rt", "yield_many"));
/// ```
#[derive(Clone, Debug)]
pub struct Settings {
    /// Measured turns of each contender.
    pub reps: u32,
    /// Workers of each contender.
    pub workers: usize,
    /// Only rows whose `suite/bench` contains one of these; all, if there is none.
    pub only: Vec<String>,
}

impl Settings {
    /// Whether a row is asked for.
    pub fn wants(&self, suite: &str, bench: &str) -> bool {
        let whole = format!("{suite}/{bench}");
        self.only.is_empty() || self.only.iter().any(|part| whole.contains(part))
    }
}

/// Rows that belong together: measures those that are wanted, and gives each one away as soon as it is known.
pub type Suite = fn(&Settings, &mut dyn FnMut(Row));
