//! The bounded dispatch loop (`SCX_DSP_MAX_LOOPS` of sched_ext, `scx_dispatch_sched` in kernel/sched/ext/ext.c).
//!
//! A round that inserted or moved something but gave this worker nothing to run is followed by another one, 32 in all.
//! Then the worker does *not* ask again in place: it completes its cycle as if idle, so that driver, control and sysrq
//! have their turn also on a runtime with one worker, and begins anew with a fresh count. That is the deferred
//! self-kick. A policy that goes on like this for the whole stall timeout, without a poll or a park in between, is
//! ejected.

use std::sync::Arc;

use polity_policy::ExitKind;

use crate::hosting::Generation;
use crate::hosting::call::Verdict;
use crate::machine::Machine;
use crate::task::entry::Entry;
use crate::worker::find::Found;
use crate::worker::{Worker, local};

use std::sync::atomic::Ordering;

/// Rounds of `dispatch` in one cycle.
const MAX_ROUNDS: usize = 32;
/// Two cuts further apart than this are counted as this far apart: time in which the process was stopped, or the worker
/// got no processor, is not the policy's.
const LONGEST_GAP_NS: u64 = 20_000_000;

/// How long this worker has been exhausting the loop.
#[derive(Debug, Default)]
pub(super) struct LoopCuts {
    last_at: Option<u64>,
    sum_ns: u64,
}

impl LoopCuts {
    /// The worker has polled or parked.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.last_at = None;
    }

    /// One more; returns for how long it has gone on.
    fn note(&mut self, now: u64) -> u64 {
        self.sum_ns = match self.last_at {
            None => 0,
            Some(last) => self.sum_ns + now.saturating_sub(last).min(LONGEST_GAP_NS),
        };
        self.last_at = Some(now);
        self.sum_ns
    }
}

impl<M: Machine> Worker<M> {
    pub(super) fn by_dispatch(&mut self, generation: &Arc<Generation>) -> Found {
        self.end_search();
        // Ordering: Relaxed; we filled the slot ourselves.
        let prev = Entry::peek(self.seat.prev.load(Ordering::Relaxed)).map(|header| header.view());
        for _ in 0..MAX_ROUNDS {
            self.stats.dispatches += 1;
            self.notes.next.want();
            let verdict = self.host_call(generation).ask_for_work(prev.as_ref());
            self.collect_notes();
            if verdict == Verdict::Revoked {
                self.forfeit();
                return Found::Nothing;
            }
            self.recheck_kept(generation);
            let next = self.notes.next.take();
            let next = next.or_else(|| self.take_local());
            if let Some(token) = next.or_else(|| self.take_global()) {
                if let Some(prev) = local::take(&self.seat.prev) {
                    self.local.ingress.push(prev);
                }
                return Found::Task(token);
            }
            if verdict == Verdict::Dropped || !self.notes.progress.get() {
                return self.keep_last();
            }
        }
        self.stats.dispatch_loops_cut += 1;
        match self.keep_last() {
            Found::Task(token) => return Found::Task(token),
            _ => self.note_loop_cut(generation),
        }
        Found::LoopCut
    }

    /// Nothing else was found: the task polled before goes on.
    fn keep_last(&mut self) -> Found {
        let Some(entry) = local::take(&self.seat.prev) else {
            return Found::Nothing;
        };
        self.stats.kept_last += 1;
        self.seat.activity.note_went_without(self.fresh_clock());
        Found::Task(entry.redeem())
    }

    fn note_loop_cut(&mut self, generation: &Arc<Generation>) {
        let now = self.look_at_the_clock();
        let gone_on = self.loop_cuts.note(now);
        if gone_on >= generation.stall_after_ns {
            let message = format!(
                "{MAX_ROUNDS} rounds in each cycle for {} ms, and nothing to run",
                gone_on / 1_000_000
            );
            self.host_call(generation)
                .end(ExitKind::DispatchLoop, 0, &message);
        }
    }
}
