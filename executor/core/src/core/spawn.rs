//! From a future to a token in a queue.

use std::future::Future;
use std::panic::Location;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use polity_policy::{Attributes, Position};

use crate::core::Core;
use crate::core::attributes::SpawnError;
use crate::machine::Machine;
use crate::task::JoinHandle;
use crate::task::attributes::Given;
use crate::task::join;
use crate::task::token::{Resting, Token};
use crate::worker::Local;

impl<M: Machine> Core<M> {
    /// Spawns a task that inherits all its attributes. After a shutdown has begun the handle answers "cancelled".
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
        self.machine.with_local(|local| {
            let local = local.filter(|local| local.core == self.id);
            self.spawn_given(local, self.to_inherit(local), spawned_at, future)
        })
    }

    /// Spawns a task with attributes.
    ///
    /// # Errors
    /// If the weight is out of range, the affinity mask names no worker, or the deadline has passed.
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
        self.check_attributes(&attributes)?;
        Ok(self.machine.with_local(|local| {
            let local = local.filter(|local| local.core == self.id);
            let given = self.resolve(attributes, self.to_inherit(local));
            self.spawn_given(local, given, spawned_at, future)
        }))
    }

    #[inline]
    fn spawn_given<F>(
        &'static self,
        local: Option<&Local>,
        given: Given,
        spawned_at: &'static Location<'static>,
        future: F,
    ) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let slot = match local {
            Some(local) => local.slots.borrow_mut().take(),
            None => self.take_slot(),
        };
        let (token, handle) = join::create(slot, self.as_owner(), given, spawned_at, future);
        if let Some(local) = local {
            token.header().set_last_worker(local.id);
        }
        if self.is_recording() {
            self.record_spawn(local, token.header());
        }
        self.admit(local, token);
        handle
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
