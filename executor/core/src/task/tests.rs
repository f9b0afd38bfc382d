//! Tokens, cells and handles without a runtime: a fake owner keeps the entries, the test polls by hand.
//!
//! Fit for Miri, AddressSanitizer and valgrind: no timing, little output, and what lives for ever stays reachable.

mod aborts;
mod changes;
mod panics;
mod slots;
mod threads;
mod turns;
#[expect(unsafe_code, reason = "one look at a word from outside")]
mod words;

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{Location, panic_any};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use polity_policy::{TaskId, WorkerId};

use super::attributes::Given;
use super::change::{Change, ChangeError};
use super::entry::Entry;
use super::header::{Header, Owner};
use super::join::{self, JoinError, JoinHandle};
use super::slab::SlotCache;
use super::token::{Resting, Token, claim};
use super::waker::waker;

const WORKER: WorkerId = WorkerId::new(0);
/// Rounds of the tests with threads.
const ROUNDS: usize = if cfg!(miri) { 20 } else { 500 };

/// An owner with one queue.
#[derive(Default)]
struct Fake {
    entries: Mutex<VecDeque<Entry>>,
}

impl Fake {
    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner for Fake {
    fn now_runnable(&self, token: Token) {
        self.entries().push_back(token.into_entry(Resting::Ingress));
    }

    fn now_aborted(&self, header: &'static Header, _tenant: u32) {
        let seen = header.custody.load();
        if seen.is_kept_by(TAG)
            && let Some(token) = claim(header, seen)
        {
            self.now_runnable(token);
        }
    }

    fn change(
        &self,
        header: &'static Header,
        task: TaskId,
        change: Change,
    ) -> Result<(), ChangeError> {
        match header.change(task.tenant(), |set| change.apply(set)) {
            true => Ok(()),
            false => Err(ChangeError::Finished(task)),
        }
    }
}

/// Owners live for ever, as cores do. Kept here so that leak checkers know.
static OWNERS: Mutex<Vec<&'static &'static dyn Owner>> = Mutex::new(Vec::new());

/// The generation that holds tasks in these tests.
const TAG: u8 = 5;

/// A worker's hands.
struct Runtime {
    fake: &'static Fake,
    owner: &'static &'static dyn Owner,
    slots: SlotCache,
}

/// How a task's turn ended.
#[derive(PartialEq, Eq, Debug)]
enum Turn {
    Waits,
    RunsOn,
    Ended,
    Dropped,
}

impl Runtime {
    fn new() -> Self {
        let fake: &'static Fake = Box::leak(Box::default());
        let wide: &'static dyn Owner = fake;
        let owner: &'static &'static dyn Owner = Box::leak(Box::new(wide));
        OWNERS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(owner);
        Runtime {
            fake,
            owner,
            slots: SlotCache::default(),
        }
    }

    #[track_caller]
    fn spawn<F>(&mut self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_given(Given::default(), future)
    }

    #[track_caller]
    fn spawn_given<F>(&mut self, given: Given, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (slot, here) = (self.slots.take(), Location::caller());
        let (token, handle) = join::create(slot, self.owner, given, here, future);
        self.fake.now_runnable(token);
        handle
    }

    fn next(&self) -> Option<Token> {
        let entry = self.fake.entries().pop_front();
        entry.map(Entry::redeem)
    }

    /// One task's turn, as `Worker::run`. `None`: nothing is runnable.
    fn turn(&mut self) -> Option<Turn> {
        let mut token = self.next()?;
        let seen = token.begin_poll(WORKER, 0);
        if seen.aborted {
            self.slots.give(token.cancel());
            return Some(Turn::Dropped);
        }
        let waker = waker(token.header());
        if token.poll(&mut Context::from_waker(&waker)) {
            self.slots.give(token.finish());
            return Some(Turn::Ended);
        }
        match token.end_poll(seen) {
            None => Some(Turn::Waits),
            Some(token) => {
                self.fake.now_runnable(token);
                Some(Turn::RunsOn)
            }
        }
    }

    fn turns(&mut self) -> Vec<Turn> {
        std::iter::from_fn(|| self.turn()).collect()
    }
}

/// Counts its drops.
#[derive(Clone, Default)]
struct Drops(Arc<AtomicUsize>);

/// One thing to be dropped, once.
struct Counted(Drops);

impl Drops {
    fn one(&self) -> Counted {
        Counted(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Panics in its drop, after counting it.
struct Bomb(Drops);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        panic_any("bomb");
    }
}

/// Counts wakes.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Bell {
    fn rings(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Never ready; keeps `kept` until it is dropped.
async fn waits_for_ever(kept: impl Send) {
    std::future::pending::<()>().await;
    drop(kept);
}

/// Ready when polled for the second time; hands its waker to `hand_over` at the first.
fn second_poll(hand_over: impl FnOnce(&Waker) + Send) -> impl Future<Output = ()> + Send {
    let mut hand_over = Some(hand_over);
    poll_fn(move |context| match hand_over.take() {
        Some(hand_over) => {
            hand_over(context.waker());
            Poll::Pending
        }
        None => Poll::Ready(()),
    })
}

fn poll_join<T>(handle: &mut JoinHandle<T>, waker: &Waker) -> Poll<Result<T, JoinError>> {
    pin!(handle).poll(&mut Context::from_waker(waker))
}

/// What the handle answers now.
fn joined<T>(handle: &mut JoinHandle<T>) -> Result<T, JoinError> {
    match poll_join(handle, Waker::noop()) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the task has not ended"),
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .expect("these tests panic with text")
}

fn panic_of<T>(answer: Result<T, JoinError>) -> String {
    let Err(error) = answer else {
        panic!("the task did not panic");
    };
    text(&*error.into_panic()).to_owned()
}
