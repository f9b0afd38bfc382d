//! The custody word: who has the runnable task?
//!
//! ```text
//! 63         32 31   28 27     12 11   4 3     0
//! |  sequence  | early |  index  |  tag |  state |
//! ```
//!
//! ```text
//!              wake, spawn                offered            verdict: local, global
//!   (waiting) ------------> Ingress ---------------> Offered ------------------------> Local / Global --> Running
//!                              ^  no policy: polled      | no verdict      claim            ^
//!                              |                         +-----------> Held ----------------+
//!                              |                         |               | insert           |
//!                              |                         +-----------> Queued --------------+
//!                              +---- sweep, abort: compare-and-swap from Held or Queued
//! ```
//!
//! A claim goes by way of `InHand`, for as long as the callback that made it lasts. A thread that is convicted of
//! never returning loses what it has in `Offered`, `InHand` or `Running` (`seat/call_word.rs`).
//!
//! `tag` names the generation that has the task in `Offered`, `Held` and `Queued`; `index` is the worker or the custom
//! DSQ; `early` is not zero for an early claim. A queue entry carries the slot and the *sequence*; an entry whose sequence is not the word's is dropped when
//! it is popped, so abort and sweep never search a queue. The sequence wraps after four thousand million moves of one
//! task; a stale entry would have to sit in a custom DSQ all that time to be believed again.
//!
//! **Race.** `Held` and `Queued` are the states in which several may want the task at once: a dispatch on each
//! worker, an abort, a sweep. All of them compare-and-swap away from the word they have read, so one wins and the
//! others see a changed state or sequence.
//!
//! **The early claim.** A policy may write down the id of a task in `enqueue`, and its `dispatch` on another worker may
//! claim it before that `enqueue` has returned: the task is still `Offered`. Refusing would lose it for the policy, and
//! waiting would wait for a policy. So the claim is noted in the word by compare-and-swap, and the worker that offers
//! carries it out: it goes from `Offered` to `Held` by compare-and-swap too, so it cannot miss one. (sched_ext waits here:
//! `SCX_OPSS_QUEUEING`.) A verdict of `enqueue` itself overrides it, with a plain store.
//!
//! In all other states the token holder alone writes, with plain stores.

use polity_policy::{DsqId, Position, WorkerId};

use crate::sync::{AtomicU64, Ordering};

/// Who has a runnable task.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// Nobody: it waits, or the slot is free.
    Free = 0,
    /// An ingress queue, injector shard or pinned inbox.
    Ingress = 1,
    /// A worker that is offering it to the policy.
    Offered = 2,
    /// The policy, as an id in its own memory.
    Held = 3,
    /// The policy, in a custom DSQ.
    Queued = 4,
    /// A local DSQ.
    Local = 5,
    /// The global DSQ.
    Global = 6,
    /// A worker that polls it, or tells a policy that it does. The index is the seat.
    Running = 7,
    /// A worker whose policy has just claimed it, until the callback has returned. The index is the seat.
    InHand = 8,
}

impl State {
    const ALL: [State; 9] = [
        State::Free,
        State::Ingress,
        State::Offered,
        State::Held,
        State::Queued,
        State::Local,
        State::Global,
        State::Running,
        State::InHand,
    ];
}

const EARLY_LOCAL: u64 = 1 << 28;
const EARLY_GLOBAL: u64 = 2 << 28;
const EARLY_CUSTOM: u64 = 3 << 28;
const EARLY_KIND: u64 = 3 << 28;
const EARLY_HEAD: u64 = 1 << 30;

/// A decoded custody word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u64);

impl Owner {
    #[inline]
    fn new(state: State, tag: u8, index: u16, sequence: u32) -> Self {
        Owner(
            u64::from(sequence) << 32 | u64::from(index) << 12 | u64::from(tag) << 4 | state as u64,
        )
    }

    #[inline]
    pub(crate) fn state(self) -> State {
        State::ALL
            .get((self.0 & 15) as usize)
            .copied()
            .unwrap_or(State::Free)
    }

    #[inline]
    pub(crate) fn tag(self) -> u8 {
        (self.0 >> 4) as u8
    }

    #[inline]
    pub(crate) fn sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The early claim on an offered task, if there is one: into which DSQ, at which end.
    pub(crate) fn early_claim(self) -> Option<(DsqId, Position)> {
        let index = (self.0 >> 12) as u16;
        let at = if self.0 & EARLY_HEAD == 0 {
            Position::Tail
        } else {
            Position::Head
        };
        match self.0 & EARLY_KIND {
            EARLY_LOCAL => Some((DsqId::LocalOn(WorkerId::new(index)), at)),
            EARLY_GLOBAL => Some((DsqId::Global, at)),
            EARLY_CUSTOM => Some((DsqId::Custom(index.into()), at)),
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn index(self) -> u16 {
        (self.0 >> 12) as u16
    }

    /// Whether the thread in this seat has claimed the task for the generation with this tag, and not put it anywhere yet.
    #[inline]
    pub(crate) fn is_in_hand_of(self, tag: u8, seat: u16) -> bool {
        self.state() == State::InHand && self.tag() == tag && self.index() == seat
    }

    /// Whether the generation with this tag has the task, in its own memory or in a custom DSQ.
    #[inline]
    pub(crate) fn is_kept_by(self, tag: u8) -> bool {
        self.tag() == tag && matches!(self.state(), State::Held | State::Queued)
    }
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (state, tag, sequence) = (self.state(), self.tag(), self.sequence());
        write!(
            f,
            "{state:?} tag {tag} index {} seq {sequence}",
            (self.0 >> 12) as u16
        )
    }
}

/// See the [module](self).
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Custody(AtomicU64);

impl Custody {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Custody(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn load(&self) -> Owner {
        // Ordering: Acquire pairs with the Release in `set` and `claim`: the reader may go on to read the header.
        Owner(self.0.load(Ordering::Acquire))
    }

    /// Moves the task to a new owner. For the token holder, in states that nobody else may leave. Returns the
    /// sequence for the queue entry.
    #[inline]
    pub(crate) fn set(&self, state: State, tag: u8, index: u16) -> u32 {
        // Ordering: Relaxed; the token holder wrote this word last, or received the token through a queue.
        let sequence = (self.0.load(Ordering::Relaxed) >> 32) as u32;
        let sequence = sequence.wrapping_add(1);
        // Ordering: Release pairs with the Acquire in `load` and `claim`.
        self.0
            .store(Owner::new(state, tag, index, sequence).0, Ordering::Release);
        sequence
    }

    /// Moves the task away from `seen`, a state that several may want to end, if nobody was faster. The winner has the
    /// token. Returns the sequence for the queue entry.
    #[inline]
    pub(crate) fn claim(&self, seen: Owner, state: State, tag: u8, index: u16) -> Option<u32> {
        debug_assert!(
            matches!(
                seen.state(),
                State::Held | State::Queued | State::InHand | State::Offered
            ),
            "claiming from {seen:?}"
        );
        let sequence = seen.sequence().wrapping_add(1);
        let new = Owner::new(state, tag, index, sequence);
        // Ordering: Acquire pairs with the Release in `set`: the winner may touch what the previous token holder
        // wrote. Release pairs with the Acquire in `load`. Loom: `a_held_task_is_claimed_once`.
        self.0
            .compare_exchange(seen.0, new.0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
            .then_some(sequence)
    }

    /// Notes a claim on the offered task that `seen` shows, to be carried out by the worker that offers it.
    pub(crate) fn claim_early(&self, seen: Owner, dsq: DsqId, at: Position) -> bool {
        debug_assert_eq!(seen.state(), State::Offered);
        let (kind, index) = match dsq {
            DsqId::LocalOn(worker) => (EARLY_LOCAL, worker.index() as u64),
            DsqId::Custom(number) => (EARLY_CUSTOM, u64::from(number)),
            _ => (EARLY_GLOBAL, 0),
        };
        let head = if at == Position::Head { EARLY_HEAD } else { 0 };
        // One that is noted already wins.
        seen.early_claim().is_none()
            // Ordering: Relaxed; the worker that offers has the task and wants only these bits, which the word carries.
            && self
                .0
                .compare_exchange(seen.0, seen.0 | kind | head | index << 12, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// From `Offered` to `Held`, for the token holder; or the claim that came first, which it is to carry out.
    #[inline]
    pub(crate) fn hold(&self, tag: u8) -> Result<(), (DsqId, Position)> {
        // Ordering: Relaxed; the token holder wrote the word, all but the early bits.
        let seen = Owner(self.0.load(Ordering::Relaxed));
        if let Some(early) = seen.early_claim() {
            return Err(early);
        }
        let held = Owner::new(State::Held, tag, 0, seen.sequence().wrapping_add(1));
        // Ordering: Release pairs with the Acquire in `claim`. It can fail only for an early claim.
        // Loom: `an_early_claim_is_carried_out_or_refused`.
        match self
            .0
            .compare_exchange(seen.0, held.0, Ordering::Release, Ordering::Relaxed)
        {
            Ok(_) => Ok(()),
            Err(now) => Err(Owner(now)
                .early_claim()
                .expect("only an early claim changes the word of an offered task")),
        }
    }
}
