//! Which worker needs a second thread, and when it does not any more.
//!
//! A thread that sits in one poll holds up only what no other thread takes from it: tasks that may run nowhere else, and,
//! when all threads are in such polls, everything including the I/O driver. Then a spare does its work beside it:
//!
//! - something waits on this worker at two ticks in a row (other threads would have taken what they may take), or
//! - nobody else is free to run, or
//! - a backlog waits in the shared queues and nobody is parked who could take it.
//!
//! A thread that says beforehand that it is going to block (`core/in_place.rs`) gets a stand-in at once, if there is one, else by
//! these rules. When the poll returns, or the thread says that it blocks no more, the stand-in is dismissed. A thread convicted of a callback that does not return is replaced for
//! good. Stand-ins can get stuck too, so they form a stack for each worker, whose lowest member that is not stuck does the work.

use polity_policy::WorkerId;

use crate::core::{Cause, Core};
use crate::machine::Machine;
use crate::seat::SeatId;
use crate::watchdog::threads::Threads;
use crate::watchdog::{Finding, Others};

/// In one poll for so long: others may be held up. Two ticks.
const LONG_POLL_NS: u64 = 10_000_000;

/// Whether this thread may hold others up: it is in a long poll, or has said that it blocks in a short one.
fn holds_up(threads: &Threads, seat: SeatId) -> bool {
    threads.is_in_place(seat) || threads.in_poll_for(seat) >= LONG_POLL_NS
}

/// The threads of one worker.
#[derive(Debug)]
struct Post {
    /// Who does its work; the last one at present.
    stack: Vec<SeatId>,
    /// Dismissed, and not gone yet.
    leaving: Vec<SeatId>,
    /// Something waited on it at the last tick, behind a long poll.
    waited: bool,
    /// Its thread was convicted, and there is no other yet.
    orphaned: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct StandIns {
    posts: Vec<Post>,
}

impl StandIns {
    pub(super) fn new(workers: usize) -> Self {
        let post = |index| Post {
            stack: vec![SeatId::new(index)],
            leaving: Vec::new(),
            waited: false,
            orphaned: false,
        };
        StandIns {
            posts: (0..workers as u16).map(post).collect(),
        }
    }

    /// Nobody stands in for anybody, nor has to.
    pub(super) fn is_quiet(&self) -> bool {
        self.posts
            .iter()
            .all(|post| post.stack.len() == 1 && post.leaving.is_empty() && !post.orphaned)
    }

    pub(super) fn convicted<M: Machine>(&mut self, core: &Core<M>, worker: WorkerId, seat: SeatId) {
        let post = &mut self.posts[worker.index()];
        // If another thread does the work already, the place of this one goes; else its heir gets it.
        if post.stack.last() == Some(&seat) || !core.give_place_up() {
            post.orphaned = true;
        }
        post.stack.retain(|other| *other != seat);
        post.leaving.retain(|other| *other != seat);
    }

    /// Whether no other thread does this worker's work, or may come back to it.
    pub(super) fn is_alone(&self, worker: WorkerId) -> bool {
        let post = &self.posts[worker.index()];
        post.stack.is_empty() && post.leaving.is_empty()
    }

    /// Whether it is this thread that does the worker's work.
    pub(super) fn serves(&self, worker: WorkerId, seat: SeatId) -> bool {
        self.posts[worker.index()].stack.last() == Some(&seat)
    }

    pub(super) fn seated(&mut self, worker: WorkerId, seat: SeatId) {
        let post = &mut self.posts[worker.index()];
        post.orphaned = false;
        post.waited = false;
        post.stack.push(seat);
    }

    /// Sends those home whose worker is back.
    pub(super) fn dismiss<M: Machine>(&mut self, core: &Core<M>, threads: &Threads) {
        for post in &mut self.posts {
            post.leaving.retain(|seat| !core.is_vacant(*seat));
            let back = post.stack.iter().position(|seat| !holds_up(threads, *seat));
            if let Some(back) = back {
                while post.stack.len() > back + 1
                    && let Some(seat) = post.stack.pop()
                {
                    core.dismiss(seat, post.stack[back]);
                    post.leaving.push(seat);
                }
            }
            // Not while the heir of a stand-in is on its way, who takes turns too.
            if let [only] = post.stack[..]
                && post.leaving.is_empty()
                && !post.orphaned
            {
                core.end_turns(only);
            }
        }
    }

    pub(super) fn find_needs<M: Machine>(
        &mut self,
        core: &Core<M>,
        threads: &Threads,
        findings: &mut Vec<Finding>,
    ) {
        let taken = (0..core.seats_in_use())
            .map(|index| SeatId::new(index as u16))
            .filter(|seat| !core.is_vacant(*seat) && !core.is_convicted(*seat));
        let taken: Vec<SeatId> = taken.collect();
        let mut somebody_is_free = taken.iter().any(|seat| threads.has_moved(*seat));
        let others = if somebody_is_free {
            Others::Run
        } else {
            Others::AreStuckToo
        };
        let somebody_is_parked = taken.iter().any(|seat| threads.is_parked(*seat));
        let backlog = core.has_backlog();
        for (index, post) in self.posts.iter_mut().enumerate() {
            let worker = WorkerId::new(index as u16);
            if post.orphaned {
                somebody_is_free = true;
                findings.push(Finding::NeedsStandIn {
                    worker,
                    cause: Cause::Conviction,
                    others,
                });
                continue;
            }
            let Some(serving) = post.stack.last() else {
                continue;
            };
            if !holds_up(threads, *serving) {
                post.waited = false;
                continue;
            }
            let waits = core.has_waiting(worker, *serving);
            let waited = std::mem::replace(&mut post.waited, waits);
            if (waits && waited) || !somebody_is_free || (backlog && !somebody_is_parked) {
                // One is enough to begin with: at the next tick it is free.
                somebody_is_free = true;
                findings.push(Finding::NeedsStandIn {
                    worker,
                    cause: Cause::LongPoll,
                    others,
                });
            }
        }
    }
}
