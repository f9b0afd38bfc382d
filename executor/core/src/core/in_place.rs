//! A thread says that it is about to block inside its poll.
//!
//! What such a thread holds is within reach of others as it is; but they would find out only after a while. So it puts what lies
//! in its LIFO slot, which others leave alone at first, into its ingress, and from then on wakes and spawns on it go where
//! those of foreign threads go: past its own queue, with a look at who is parked. A stand-in is the business of whoever calls
//! this ([`Watchdog::serves`](crate::Watchdog::serves)). The time is neither the poll's nor the slice's: its worker was another
//! thread's meanwhile.
//!
//! **No protocol.** The word that says so (`Place::Blocked`) is read by the thread itself, and as a sample by the watchdog, which
//! may be one tick late: then the poll counts as 5 ms longer than it should, or a stand-in stays for 5 ms more.

use std::sync::atomic::Ordering;

use crate::core::Core;
use crate::machine::Machine;
use crate::seat::{Place, SeatId};
use crate::task::entry::Entry;

impl<M: Machine> Core<M> {
    /// For a thread that is about to block. `Some`: it sits there, in the middle of a poll, and has to call
    /// [`end_in_place`](Core::end_in_place) when it blocks no more. `None`: it holds nobody up, or has said so already.
    pub fn begin_in_place(&self) -> Option<SeatId> {
        self.machine.with_local(|local| {
            let local = local.filter(|local| local.core == self.id)?;
            if local.place() != Place::Poll {
                return None;
            }
            local.set_place(Place::Blocked);
            local.blocks_since.set(self.machine.now());
            // Ordering: Relaxed would do: only this thread fills the slot. Acquire, as wherever it is emptied.
            if let Some(last) = Entry::from_bits(local.seat.lifo.swap(0, Ordering::Acquire)) {
                local.ingress.push(last);
            }
            if !local.ingress.is_empty() {
                self.notify(local.id);
            }
            Some(local.seat_id)
        })
    }

    /// The thread does not block any more, and its poll goes on.
    pub fn end_in_place(&self) {
        self.machine.with_local(|local| {
            let local = local.filter(|local| local.core == self.id);
            if let Some(local) = local.filter(|local| local.place() == Place::Blocked) {
                local.set_place(Place::Poll);
                let for_ns = self.machine.now().saturating_sub(local.blocks_since.get());
                local.blocked_ns.set(local.blocked_ns.get() + for_ns);
            }
        });
    }
}
