//! The token: the right to a runnable task, as a value that can be moved but not copied.
//!
//! Exactly one exists while a task is runnable (see [`task`](super)): in somebody's hands as a [`Token`], in a queue as
//! an [`Entry`], or, while a policy has the task, in the custody word alone, from where [`claim`] brings it back for one
//! caller. So "polled by two workers" is a type error, except at the two places where a token is made from a word:
//! winning the lifecycle transition, and winning the compare-and-swap in `claim`.
//!
//! **Invariant.** Tokens and entries are made here only. Dropping one would lose a task; nothing in core does.

use std::task::Context;

use polity_policy::{DsqId, Position, TaskId, WorkerId};

use super::cell::CellPtr;
use super::custody::{Owner, State};
use super::entry::Entry;
use super::header::Header;
use super::lifecycle::{Aborted, Seen};
use super::slab;

/// See the [module](self).
#[must_use]
pub(crate) struct Token(&'static Header);

/// Where an entry is going to lie, outside a policy's custody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resting {
    Ingress,
    Local(WorkerId),
    Global,
}

impl Token {
    /// For the winner of the lifecycle transition, and for the creator of the task.
    pub(super) fn won(header: &'static Header) -> Self {
        Token(header)
    }

    #[inline]
    pub(crate) fn header(&self) -> &'static Header {
        self.0
    }

    /// Puts the right into an entry for a core queue.
    #[inline]
    pub(crate) fn into_entry(self, resting: Resting) -> Entry {
        let (state, index) = match resting {
            Resting::Ingress => (State::Ingress, 0),
            Resting::Local(worker) => (State::Local, worker.index() as u16),
            Resting::Global => (State::Global, 0),
        };
        let sequence = self.0.custody.set(state, 0, index);
        Entry::new(self.0, sequence)
    }

    /// The task is being shown to the generation with this tag.
    #[inline]
    pub(crate) fn note_offered(&self, tag: u8) {
        self.0.custody.set(State::Offered, tag, 0);
    }

    /// A callback that follows is about this task, which has been claimed: until it has returned, the custody word says so.
    #[inline]
    pub(crate) fn note_in_hand(&self, tag: u8, seat: u16) {
        self.0.custody.set(State::InHand, tag, seat);
    }

    /// Gives the right to the generation with this tag, which has been shown the task; [`claim`] takes it back. `Err`: it
    /// has been claimed already, for that DSQ.
    #[inline]
    pub(crate) fn hold(self, tag: u8) -> Result<&'static Header, (Token, DsqId, Position)> {
        match self.0.custody.hold(tag) {
            Ok(()) => Ok(self.0),
            Err((dsq, at)) => Err((self, dsq, at)),
        }
    }

    /// The same, with an entry for its custom DSQ `number`.
    #[inline]
    pub(crate) fn queue(self, tag: u8, number: u32) -> Entry {
        let sequence = self.0.custody.set(State::Queued, tag, number as u16);
        Entry::new(self.0, sequence)
    }

    /// A poll begins on `worker`, by the thread in seat `seat`.
    #[inline]
    pub(crate) fn begin_poll(&self, worker: WorkerId, seat: u16) -> Seen {
        self.0.custody.set(State::Running, 0, seat);
        self.0.set_last_worker(worker);
        self.0.lifecycle.begin_poll()
    }

    /// Polls the future. `true`: it is done (or panicked); call `finish` next.
    #[inline]
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let id = self.0.id();
        // SAFETY: `poll` requires the token: we are it, and `&mut` keeps others of this thread out.
        unsafe { self.0.cell().poll(id, context) }
    }

    /// Ends a poll that did not finish the task. `Some`: it was woken meanwhile and is runnable still.
    #[inline]
    pub(crate) fn end_poll(self, seen: Seen) -> Option<Token> {
        self.0.lifecycle.end_poll(seen).then_some(self)
    }

    /// Hands over the output and ends the task. Returns the slot, which is free.
    #[inline]
    pub(crate) fn finish(self) -> u32 {
        let cell: CellPtr = self.0.cell();
        let slot = self.0.slot();
        // First, so that a woken joiner finds the task ended. Nobody gets the slot before our caller gives it away.
        self.0.lifecycle.finish();
        // SAFETY: `complete` requires the token, whose cell this was until a line ago and which nobody else has had;
        // and that the output is in place, which `poll` or `cancel` has said.
        unsafe { cell.complete() };
        slot
    }

    /// Drops the future, tells the joiner "cancelled", and ends the task. Returns the slot, which is free.
    pub(crate) fn cancel(self) -> u32 {
        let id = self.0.id();
        // SAFETY: `cancel` requires the token: we are it, and end with it.
        unsafe { self.0.cell().cancel(id) };
        self.finish()
    }
}

/// Takes a task out of a policy's custody, if it is there as `seen` says and nobody is faster.
#[inline]
pub(crate) fn claim(header: &'static Header, seen: Owner) -> Option<Token> {
    header
        .custody
        .claim(seen, State::Offered, 0, 0)
        .map(|_| Token(header))
}

/// The same for a policy's claim, made in a callback on seat `seat`: until that returns, the custody word says so.
#[inline]
pub(crate) fn claim_in_hand(
    header: &'static Header,
    seen: Owner,
    tag: u8,
    seat: u16,
) -> Option<Token> {
    header
        .custody
        .claim(seen, State::InHand, tag, seat)
        .map(|_| Token(header))
}

/// Moves a held task to custom DSQ `number` of the generation that holds it, in one step: in between, somebody else could
/// take the token of a thread that is being convicted.
#[inline]
pub(crate) fn requeue_held(
    header: &'static Header,
    seen: Owner,
    tag: u8,
    number: u32,
) -> Option<Entry> {
    header
        .custody
        .claim(seen, State::Queued, tag, number as u16)
        .map(|sequence| Entry::new(header, sequence))
}

/// Takes the task that a convicted thread was about to poll, or had just polled, inside a callback. For whoever has
/// convicted the thread in `seat`, which has lost its right to `task` by that: see `seat/call_word.rs`.
pub(crate) fn inherit(task: TaskId, seat: u16) -> Option<Token> {
    let header = slab::get(task.slot())?;
    let seen = header.custody.load();
    let is_its = seen.state() == State::Running && seen.index() == seat;
    (is_its && header.lifecycle.is(task.tenant())).then_some(Token(header))
}

/// Marks `tenant` of the slot as aborted. `Ok`: it was waiting, and this is its token. `Err`: somebody else has the
/// token and will see the mark, or the task is gone.
pub(crate) fn abort(header: &'static Header, tenant: u32) -> Result<Token, Aborted> {
    match header.lifecycle.abort(tenant) {
        Aborted::Won => Ok(Token(header)),
        other => Err(other),
    }
}

impl Entry {
    /// The right, back from a core queue.
    #[inline]
    pub(crate) fn redeem(self) -> Token {
        let header = self.header();
        debug_assert_eq!(
            header.custody.load().sequence(),
            self.sequence(),
            "{self:?}: {:?}",
            header.custody
        );
        Token(header)
    }

    /// The right, back from a custom DSQ of the generation with this tag, in a callback on seat `seat`; `None` if abort or sweep were faster.
    #[inline]
    pub(crate) fn claim_in_hand(self, tag: u8, seat: u16) -> Option<Token> {
        let header = self.header();
        let seen = header.custody.load();
        if seen.sequence() != self.sequence() || !seen.is_kept_by(tag) {
            return None;
        }
        claim_in_hand(header, seen, tag, seat)
    }
}
