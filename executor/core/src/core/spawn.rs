//! From a future to a token in a queue.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use polity_policy::{Attributes, Position, WorkerId};

use crate::core::Core;
use crate::machine::Machine;
use crate::task::JoinHandle;
use crate::task::attributes::{self, AttributesId};
use crate::task::join;
use crate::task::token::{Resting, Token};
use crate::worker::Local;

/// Why a task could not be spawned with these attributes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SpawnError {
    /// The weight is not in 1..=10,000.
    Weight(u32),
    /// The affinity mask names no worker of this runtime.
    Affinity {
        /// How many workers there are, counted from 0.
        workers: usize,
    },
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpawnError::Weight(weight) => {
                write!(
                    f,
                    "attribute weight is {weight}, but must be from 1 to 10000"
                )
            }
            SpawnError::Affinity { workers } => {
                write!(
                    f,
                    "attribute affinity names none of the {workers} workers, which are counted from 0"
                )
            }
        }
    }
}

impl Error for SpawnError {}

impl<M: Machine> Core<M> {
    /// Spawns a task without attributes. After a shutdown has begun the handle answers "cancelled".
    #[inline]
    pub fn spawn<F>(
        &'static self,
        spawned_at: &'static Location<'static>,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_checked(AttributesId::default(), 0, spawned_at, future)
    }

    /// Spawns a task with attributes.
    ///
    /// # Errors
    /// If the weight is out of range, or the affinity mask names no worker.
    pub fn spawn_with<F>(
        &'static self,
        attributes: Attributes,
        spawned_at: &'static Location<'static>,
        future: F,
    ) -> Result<JoinHandle<F::Output>, SpawnError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if !(1..=10_000).contains(&attributes.get_weight()) {
            return Err(SpawnError::Weight(attributes.get_weight()));
        }
        let workers = self.worker_count();
        if !(0..workers).any(|index| attributes.allows(WorkerId::new(index as u16))) {
            return Err(SpawnError::Affinity { workers });
        }
        let tag = attributes.get_tag();
        Ok(self.spawn_checked(attributes::intern(attributes), tag, spawned_at, future))
    }

    fn spawn_checked<F>(
        &'static self,
        attributes: AttributesId,
        tag: u64,
        spawned_at: &'static Location<'static>,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.machine.with_local(|local| {
            let local = local.filter(|local| local.core == self.id);
            let slot = match local {
                Some(local) => local.slots.borrow_mut().take(),
                None => self.take_slot(),
            };
            let (token, handle) =
                join::create(slot, self.as_owner(), attributes, tag, spawned_at, future);
            if let Some(local) = local {
                token.header().set_last_worker(local.id);
            }
            self.admit(local, token);
            handle
        })
    }

    /// Queues a new task, or cancels it if the runtime is closing.
    fn admit(&self, local: Option<&Local>, token: Token) {
        match local {
            // A worker that is still seated has not begun to close.
            Some(local) if self.is_open() => self.push_runnable(local, token),
            Some(_) => self.give_slot(token.cancel()),
            None => {
                // The queues themselves say whether it is too late: between a look at the phase and a push, the last
                // worker could have left.
                let header = token.header();
                // Ordering: Relaxed; a coarse stamp.
                header.set_runnable_at(self.clock.load(Ordering::Relaxed));
                let entry = token.into_entry(Resting::Ingress);
                let pushed = if header.is_restricted() {
                    self.placed(self.eligible_worker(header))
                        .inbox
                        .push(entry, Position::Tail)
                } else {
                    self.injector.push(entry)
                };
                match pushed {
                    Ok(()) => self.notify_for(header),
                    Err(refused) => self.give_slot(refused.entry.redeem().cancel()),
                }
            }
        }
    }

    fn take_slot(&self) -> u32 {
        self.some_slots()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Takes a free slot back, on a thread that is not a worker.
    pub(super) fn give_slot(&self, slot: u32) {
        self.some_slots()
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .give(slot);
    }

    /// One of a few stocks, the same one for the same thread: so a thread's tasks lie together.
    fn some_slots(&self) -> &std::sync::Mutex<crate::task::slab::SlotCache> {
        // The address of a stack variable tells threads apart well enough, without a thread-local.
        let here = std::ptr::from_ref(&0u8).addr();
        &self.slots[(here >> 20) % self.slots.len()]
    }
}
