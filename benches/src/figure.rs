//! From one measurement to several rows.

use crate::side::Side;
use crate::{Better, Goal, Row, Settings};

/// One figure of a measurement `T`, which makes one row.
pub(crate) struct Figure<T> {
    bench: String,
    unit: &'static str,
    better: Better,
    goal: Goal,
    of: Box<dyn Fn(&T) -> f64>,
}

impl<T> Figure<T> {
    pub(crate) fn new(
        bench: String,
        (unit, better): (&'static str, Better),
        goal: Goal,
        of: impl Fn(&T) -> f64 + 'static,
    ) -> Self {
        Figure {
            bench,
            unit,
            better,
            goal,
            of: Box::new(of),
        }
    }
}

/// The figures of a measurement that somebody asked for.
pub(crate) struct Figures<T> {
    suite: &'static str,
    wanted: Vec<Figure<T>>,
}

impl<T> Figures<T> {
    /// `None` if no one is wanted: then nothing need be measured.
    pub(crate) fn wanted(
        suite: &'static str,
        settings: &Settings,
        mut all: Vec<Figure<T>>,
    ) -> Option<Self> {
        all.retain(|figure| settings.wants(suite, &figure.bench));
        (!all.is_empty()).then_some(Figures { suite, wanted: all })
    }

    /// Measures our `side` and tokio by turns: forwards, backwards, forwards, so that a steady drift cancels out.
    pub(crate) fn compare(
        self,
        side: Side,
        turns: u32,
        mut turn: impl FnMut(Side) -> T,
        give: &mut dyn FnMut(Row),
    ) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for nth in 0..turns {
            if nth % 2 == 0 {
                ours.push(turn(side));
                theirs.push(turn(Side::Tokio));
            } else {
                theirs.push(turn(Side::Tokio));
                ours.push(turn(side));
            }
        }
        self.give(&ours, &theirs, give);
    }

    /// The rows of what has been measured, one item for each turn.
    pub(crate) fn give(self, ours: &[T], theirs: &[T], give: &mut dyn FnMut(Row)) {
        for figure in self.wanted {
            give(Row {
                suite: self.suite,
                bench: figure.bench,
                peer: "tokio",
                unit: figure.unit,
                better: figure.better,
                goal: figure.goal,
                ours: ours.iter().map(&figure.of).collect(),
                theirs: theirs.iter().map(&figure.of).collect(),
            });
        }
    }
}
