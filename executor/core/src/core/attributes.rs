//! What a task is given: what its author set, over what it inherits.
//!
//! The rule is in the contract ([`Attributes`]). Here a set that a task inherits is an id that is copied from its parent's
//! header: no lock, no reference count, no look at the attributes.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use polity_policy::{Attributes, WorkerId, WorkerMask};

use crate::core::Core;
use crate::machine::Machine;
use crate::task::attributes::{self, Given};
use crate::task::change::{write_affinity, write_weight};
use crate::worker::Local;

/// Why a task could not be spawned, or a scope not be opened, with these attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SpawnError {
    /// The weight is not in 1..=10,000.
    Weight(u32),
    /// The affinity mask names no worker of this runtime.
    Affinity {
        /// The mask.
        mask: WorkerMask,
        /// How many workers there are, counted from 0; 0 if that was not known.
        workers: usize,
    },
    /// The deadline has passed.
    Deadline {
        /// Since then.
        late_by: Duration,
    },
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::Weight(weight) => write_weight(f, *weight),
            SpawnError::Affinity { mask, workers } => write_affinity(f, mask, *workers),
            SpawnError::Deadline { late_by } => {
                write!(
                    f,
                    "attribute deadline is {late_by:?} in the past, but must be in the future"
                )
            }
        }
    }
}

impl Error for SpawnError {}

/// The attributes that tasks inherit while a scope is open on a thread, instead of those of the task that spawns them. Made
/// by [`Core::scope`], and given to core by [`Machine::open_scope`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scope {
    core: u64,
    given: Given,
}

impl<M: Machine> Core<M> {
    /// Checks what can be checked without a task.
    ///
    /// # Errors
    /// If the weight is out of range, the affinity mask names no worker, or the deadline has passed.
    pub fn check_attributes(&self, attributes: &Attributes) -> Result<(), SpawnError> {
        check_weight(attributes.get_weight()).map_err(SpawnError::Weight)?;
        let workers = self.worker_count();
        if let Some(mask) = attributes.get_affinity()
            && !self.any_in(mask)
        {
            let mask = mask.clone();
            return Err(SpawnError::Affinity { mask, workers });
        }
        if let Some(deadline) = attributes.get_deadline() {
            // Read only for those who set a deadline.
            let (now, deadline) = (self.machine.now(), self.machine.at(deadline));
            if deadline <= now {
                let late_by = Duration::from_nanos(now - deadline);
                return Err(SpawnError::Deadline { late_by });
            }
        }
        Ok(())
    }

    /// What tasks of this runtime inherit while a scope with `attributes` is open on this thread, inside of what they would
    /// inherit now. The attributes were checked, perhaps for another runtime: a mask that names no worker of this one is left
    /// out.
    pub fn scope(&self, attributes: Attributes) -> Scope {
        Scope {
            core: self.id,
            given: self.resolve(attributes, self.inherited_here()),
        }
    }

    /// What tasks inherit that are spawned on this thread now: two equal answers lead to equal scopes.
    pub fn scope_here(&self) -> Scope {
        Scope {
            core: self.id,
            given: self.inherited_here(),
        }
    }

    fn inherited_here(&self) -> Given {
        self.machine
            .with_local(|local| self.to_inherit(local.filter(|local| local.core == self.id)))
    }

    /// The same, on the worker with this `Local`.
    #[inline]
    pub(super) fn to_inherit(&self, local: Option<&Local>) -> Given {
        match self.machine.open_scope() {
            Some(scope) if scope.core == self.id => scope.given,
            _ => local.map_or_else(Given::default, Local::to_inherit),
        }
    }

    /// What is set in `attributes`, and the rest of what is inherited.
    pub(super) fn resolve(&self, attributes: Attributes, inherited: Given) -> Given {
        let inherited = match attributes.inherits() {
            true => inherited,
            false => Given::default(),
        };
        let tag = match attributes.sets_tag() {
            true => attributes.get_tag(),
            false => inherited.tag,
        };
        let deadline = match attributes.get_deadline() {
            Some(deadline) => self.machine.at(deadline).max(1),
            None => inherited.deadline,
        };
        let set = attributes.over(attributes::get(inherited.id));
        let id = attributes::intern(self.without_idle_mask(set));
        Given { id, tag, deadline }
    }

    /// A mask that names all workers, or none, is no restriction here.
    pub(super) fn without_idle_mask(&self, set: Attributes) -> Attributes {
        let restricts =
            |mask: &WorkerMask| self.any_in(mask) && !self.workers().all(|it| mask.contains(it));
        match set.get_affinity() {
            Some(mask) if !restricts(mask) => set.affinity(WorkerMask::all()),
            _ => set,
        }
    }

    pub(super) fn any_in(&self, mask: &WorkerMask) -> bool {
        self.workers().any(|worker| mask.contains(worker))
    }

    fn workers(&self) -> impl Iterator<Item = WorkerId> {
        (0..self.worker_count()).map(|index| WorkerId::new(index as u16))
    }
}

/// The weight back if it is out of range.
pub(super) fn check_weight(weight: u32) -> Result<(), u32> {
    match weight {
        1..=10_000 => Ok(()),
        _ => Err(weight),
    }
}
