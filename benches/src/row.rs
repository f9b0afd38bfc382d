//! One comparison: polity and one peer, by turns, and whether the goal is met.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which figures are the better ones.
///
/// ```
/// use polity_benches::Better;
/// assert_ne!(Better::Less, Better::More);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Times, for one.
    Less,
    /// Throughput, for one.
    More,
}

/// What a row is meant to show.
///
/// ```
/// use polity_benches::Goal;
/// assert_eq!(Goal::Ratio(2.0).to_string(), ">= 2.00");
/// assert_eq!(Goal::Cost(5.0).to_string(), "<= +5");
/// ```
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Polity is better by at least this factor.
    Ratio(f64),
    /// Ours is above the peer's by at most this much, in the unit of the row.
    Cost(f64),
    /// Nothing: the row is there to be seen.
    None,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::Ratio(ratio) => write!(f, ">= {ratio:.2}"),
            Goal::Cost(cost) => write!(f, "<= +{cost}"),
            Goal::None => f.write_str("-"),
        }
    }
}

/// The lower quartile, the median, the upper quartile.
///
/// ```
/// let [low, median, high] = polity_benches::quartiles([3.0, 1.0, 2.0]);
/// assert_eq!((low, median, high), (1.0, 2.0, 2.0));
/// ```
///
/// # Panics
///
/// If there is nothing.
pub fn quartiles(of: impl IntoIterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = of.into_iter().collect();
    assert!(!sorted.is_empty(), "nothing was measured");
    sorted.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| sorted[(sorted.len() - 1) * quarter / 4])
}

/// One line of the table of `versus`.
///
/// ```
/// use polity_benches::{Better, Goal, Row};
///
/// let row = Row {
///     suite: "tokio_rt",
///     bench: "yield_many".to_owned(),
///     peer: "tokio",
///     unit: "ns",
///     better: Better::Less,
///     goal: Goal::Ratio(2.0),
///     ours: vec![10.0, 11.0, 9.0],
///     theirs: vec![30.0, 31.0, 29.0],
/// };
/// assert_eq!(row.ratio(), 3.0);
/// assert_eq!(row.is_met(), Some(true));
/// ```
#[derive(Clone, Debug)]
pub struct Row {
    /// Whose bench it is, or what it is about.
    pub suite: &'static str,
    /// Its name there.
    pub bench: String,
    /// Who is compared with.
    pub peer: &'static str,
    /// Of the figures.
    pub unit: &'static str,
    /// Which figures are good.
    pub better: Better,
    /// What is meant to be reached.
    pub goal: Goal,
    /// One figure for each repetition.
    pub ours: Vec<f64>,
    /// The same of the peer, taken by turns with ours.
    pub theirs: Vec<f64>,
}

impl Row {
    /// How many times better we are, by the medians: above 1 is good, whichever figures are the better ones.
    pub fn ratio(&self) -> f64 {
        let [_, ours, _] = quartiles(self.ours.iter().copied());
        let [_, theirs, _] = quartiles(self.theirs.iter().copied());
        self.better_by(ours, theirs)
    }

    fn better_by(&self, ours: f64, theirs: f64) -> f64 {
        match self.better {
            // Nobody is better, be it that both do nothing at all.
            _ if ours == theirs => 1.0,
            Better::Less => theirs / ours,
            Better::More => ours / theirs,
        }
    }

    /// The quartiles of the ratios of single repetitions.
    pub fn ratio_quartiles(&self) -> [f64; 3] {
        let pairs = self.ours.iter().zip(&self.theirs);
        quartiles(pairs.map(|(ours, theirs)| self.better_by(*ours, *theirs)))
    }

    /// By how much our median is above the peer's.
    pub fn cost(&self) -> f64 {
        let [_, ours, _] = quartiles(self.ours.iter().copied());
        let [_, theirs, _] = quartiles(self.theirs.iter().copied());
        ours - theirs
    }

    /// Whether the goal is reached. `None`: there is none.
    pub fn is_met(&self) -> Option<bool> {
        match self.goal {
            Goal::Ratio(goal) => Some(self.ratio() >= goal),
            Goal::Cost(goal) => Some(self.cost() <= goal),
            Goal::None => None,
        }
    }

    /// What stands above the lines.
    pub fn header() -> String {
        format!(
            "{:<16}{:<30}{:<16}{:>11}{:>11} {:<9}{:>7}  {:<15}{:>9}  met",
            "suite", "bench", "peer", "ours", "peer's", "unit", "ratio", "quartiles", "goal"
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [_, ours, _] = quartiles(self.ours.iter().copied());
        let [_, theirs, _] = quartiles(self.theirs.iter().copied());
        let [low, _, high] = self.ratio_quartiles();
        let met = match self.is_met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        let (quartiles, goal) = (format!("({low:.2}-{high:.2})"), self.goal.to_string());
        write!(
            f,
            "{:<16}{:<30}{:<16}{ours:>11.1}{theirs:>11.1} {:<9}{:>7.2}  {quartiles:<15}{goal:>9}  {met}",
            self.suite,
            self.bench,
            self.peer,
            self.unit,
            self.ratio(),
        )
    }
}

/// The geometric mean of the ratios; `None` of nothing.
///
/// ```
/// assert_eq!(polity_benches::geometric_mean([2.0, 8.0]), Some(4.0));
/// assert_eq!(polity_benches::geometric_mean([]), None);
/// ```
pub fn geometric_mean(ratios: impl IntoIterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = ratios.into_iter().map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}
