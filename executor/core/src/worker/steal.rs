//! Other workers' tasks, and who is in one long poll.
//!
//! Ingress is always fair game: under a policy it is offered after the theft. A local DSQ is the policy's placement and
//! is stolen from only when its owner has been in one poll for long; so is the LIFO slot, whose use is that it stays. Without a policy local DSQs hold only what the last one left.
//!
//! Victims are visited from a random start, so that thieves spread.

use crate::machine::Machine;
use crate::task::token::{Resting, Token};
use crate::worker::{Look, Worker, local};

/// In one poll for longer than this: others take over the ingress.
const STALE_INGRESS_NS: u64 = 50_000;
/// In one poll for longer than this: the LIFO slot may be taken.
const STALE_SLOT_NS: u64 = 100_000;
/// In one poll for longer than this: the local DSQ may be taken from, under a policy.
const STALE_LOCAL_NS: u64 = 200_000;

/// Since when each other worker has been seen in the same poll. No stamp is written on the fast path for this.
#[derive(Debug)]
pub(super) struct Sightings {
    seen: Vec<Sighting>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    polls: u64,
    since: u64,
}

impl Sightings {
    pub(super) fn new(workers: usize) -> Self {
        Sightings {
            seen: vec![Sighting::default(); workers],
        }
    }

    /// Notes the poll count of a worker; returns for how long it has been seen in this very poll.
    fn note(&mut self, worker: usize, polls: u64, now: u64) -> u64 {
        let seen = &mut self.seen[worker];
        if seen.polls != polls {
            *seen = Sighting { polls, since: now };
        }
        if polls % 2 == 1 {
            now.saturating_sub(seen.since)
        } else {
            0
        }
    }
}

impl<M: Machine> Worker<M> {
    /// A task to run. Stolen ingress beyond it, or all of it under a policy, lies in our own ingress afterwards.
    pub(super) fn steal(&mut self, look: Look) -> Option<Token> {
        let seats = self.core.seats_in_use();
        if seats == 1 {
            return None;
        }
        if look == Look::First && !self.searcher {
            if !self.core.sleepers.begin_search(self.local.seat_id.index()) {
                return None;
            }
            self.searcher = true;
        }
        let now = self.look_at_the_clock();
        let start = self.next_random() as usize % seats;
        for nth in 0..seats {
            let victim = (start + nth) % seats;
            if victim == self.local.seat_id.index() {
                continue;
            }
            if let Some(token) = self.steal_from(victim, now) {
                self.stats.steals += 1;
                return Some(token);
            }
            if !self.local.ingress.is_empty() {
                self.stats.steals += 1;
                return None;
            }
        }
        None
    }

    /// Takes over what lies behind other workers' long polls, also when this worker has enough of its own: else those
    /// tasks would wait for a worker that has nothing. Called whenever the clock is read; touches one line of each worker.
    pub(super) fn look_behind_long_polls(&mut self, now: u64) {
        for victim in 0..self.core.seats_in_use() {
            let seat = &self.core.seats[victim];
            let polls = seat.activity.polls();
            let in_poll_for = self.sightings.note(victim, polls, now);
            if victim == self.local.seat_id.index() || in_poll_for < STALE_INGRESS_NS {
                continue;
            }
            let mut stolen =
                !seat.ingress.is_empty() && seat.ingress.steal_batch(&self.local.ingress);
            if in_poll_for >= STALE_SLOT_NS
                && let Some(entry) = local::take(&seat.lifo)
            {
                self.local.ingress.push(entry);
                stolen = true;
            }
            let Some(placed) = self.core.served_by(victim) else {
                self.stats.steals += u64::from(stolen);
                continue;
            };
            if in_poll_for >= STALE_SLOT_NS
                && !placed.inbox.is_empty()
                && let Some(entry) = placed.inbox.pop_for(self.local.id)
            {
                self.placed.inbox.extend([entry]);
                stolen = true;
            }
            if in_poll_for >= STALE_LOCAL_NS
                && !placed.local.is_empty()
                && let Some(entry) = placed.local.pop_for(self.local.id)
            {
                let here = Resting::Local(self.local.id);
                let entry = entry.redeem().into_entry(here);
                self.placed.local.insert_by_age(entry);
                stolen = true;
            }
            self.stats.steals += u64::from(stolen);
        }
    }

    fn steal_from(&mut self, victim: usize, now: u64) -> Option<Token> {
        let seat = &self.core.seats[victim];
        let by_policy = !self.local.built_in.get();
        let in_poll_for = self.sightings.note(victim, seat.activity.polls(), now);
        self.watch.note_poll_age(in_poll_for);
        if by_policy {
            if seat.ingress.steal_batch(&self.local.ingress) {
                return None;
            }
        } else if let Some(entry) = seat.ingress.steal_batch_and_pop(&self.local.ingress) {
            return Some(entry.redeem());
        }
        if let Some(placed) = self.core.served_by(victim) {
            if let Some(entry) = placed.inbox.pop_for(self.local.id) {
                return self.stolen(entry.redeem(), by_policy);
            }
            if (!by_policy || in_poll_for >= STALE_LOCAL_NS)
                && let Some(entry) = placed.local.pop_for(self.local.id)
            {
                return Some(entry.redeem());
            }
        }
        if in_poll_for >= STALE_SLOT_NS {
            let entry = local::take(&seat.lifo)?;
            return self.stolen(entry.redeem(), by_policy);
        }
        None
    }

    /// Without a policy it runs; with one it has to be offered first.
    fn stolen(&mut self, token: Token, by_policy: bool) -> Option<Token> {
        if !by_policy {
            return Some(token);
        }
        self.core.push_ingress(&self.local, token);
        None
    }

    /// Gives up the role of searcher, before any poll, callback or park.
    #[inline]
    pub(super) fn end_search(&mut self) {
        if self.searcher {
            self.searcher = false;
            self.core.sleepers.end_search();
        }
    }

    /// xorshift64: thieves need spread, not quality.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
