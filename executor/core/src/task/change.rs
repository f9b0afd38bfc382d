//! Attributes that change while the task lives.

use std::error::Error;
use std::fmt;

use polity_policy::{Attributes, TaskId, WorkerMask};

/// What is to be changed.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Weight(u32),
    Affinity(WorkerMask),
}

impl Change {
    pub(crate) fn apply(self, to: Attributes) -> Attributes {
        match self {
            Change::Weight(weight) => to.weight(weight),
            Change::Affinity(mask) => to.affinity(mask),
        }
    }
}

/// Why the attributes of a task were not changed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ChangeError {
    /// The weight is not in 1..=10,000.
    Weight(u32),
    /// The affinity mask names no worker of the task's runtime.
    Affinity {
        /// The mask.
        mask: WorkerMask,
        /// How many workers there are, counted from 0.
        workers: usize,
    },
    /// The task has ended.
    Finished(TaskId),
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::Weight(weight) => write_weight(f, *weight),
            ChangeError::Affinity { mask, workers } => write_affinity(f, mask, *workers),
            ChangeError::Finished(task) => {
                write!(
                    f,
                    "task {task} has ended: its attributes cannot be changed any more"
                )
            }
        }
    }
}

impl Error for ChangeError {}

pub(crate) fn write_weight(f: &mut fmt::Formatter<'_>, weight: u32) -> fmt::Result {
    write!(
        f,
        "attribute weight is {weight}, but must be from 1 to 10000"
    )
}

pub(crate) fn write_affinity(
    f: &mut fmt::Formatter<'_>,
    mask: &WorkerMask,
    workers: usize,
) -> fmt::Result {
    match workers {
        0 => write!(f, "attribute affinity is {mask}, but must name a worker"),
        _ => write!(
            f,
            "attribute affinity is {mask}, but must name one of the {workers} workers, which are counted from 0"
        ),
    }
}
