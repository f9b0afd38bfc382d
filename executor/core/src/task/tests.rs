//! Tokens, cells and handles without a runtime: a fake owner keeps the entries, the test polls by hand.
//!
//! Fit for Miri, AddressSanitizer and valgrind: no timing, little output, and what lives for ever stays reachable.

use std::any::Any;
use std::collections::{HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, Location, catch_unwind, panic_any};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use polity_policy::{Attributes, TaskId, WorkerId, WorkerMask};

use super::attributes::{self, Given};
use super::change::{Change, ChangeError};
use super::custody::{Custody, State};
use super::entry::Entry;
use super::header::{Header, Owner};
use super::join::{self, JoinError, JoinHandle};
use super::lifecycle::{Lifecycle, Woken};
use super::slab::{self, SlotCache};
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

// Output

#[test]
fn a_joiner_gets_the_output() {
    let mut runtime = Runtime::new();
    let mut handle = runtime.spawn(async { "hello".to_owned() });
    assert!(!handle.is_finished());
    assert!(poll_join(&mut handle, Waker::noop()).is_pending());
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert!(handle.is_finished());
    assert_eq!(joined(&mut handle).unwrap(), "hello");
}

#[test]
fn a_joiner_gets_the_panic() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let kept = drops.one();
    let mut handle = runtime.spawn(async move {
        let _kept = kept;
        panic_any("no luck");
    });
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(drops.count(), 1);
    let answer: Result<(), _> = joined(&mut handle);
    assert_eq!(panic_of(answer), "no luck");
}

#[test]
fn a_joiner_is_woken_once_and_through_the_waker_that_it_gave_last() {
    let mut runtime = Runtime::new();
    let mut handle = runtime.spawn(async {});
    let (first, last) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
    for bell in [&first, &first, &last] {
        assert!(poll_join(&mut handle, &Waker::from(Arc::clone(bell))).is_pending());
    }
    runtime.turns();
    assert_eq!((first.rings(), last.rings()), (0, 1));
    joined(&mut handle).unwrap();
}

#[test]
#[should_panic(expected = "not polled after it has answered")]
fn a_join_handle_answers_once() {
    let mut runtime = Runtime::new();
    let mut handle = runtime.spawn(async {});
    runtime.turns();
    joined(&mut handle).unwrap();
    let _ = joined(&mut handle);
}

// Wakes

#[test]
fn a_task_that_wakes_itself_is_polled_again_once() {
    let mut runtime = Runtime::new();
    let mut handle = runtime.spawn(second_poll(|waker| {
        waker.wake_by_ref();
        waker.wake_by_ref();
    }));
    assert_eq!(runtime.turns(), [Turn::RunsOn, Turn::Ended]);
    joined(&mut handle).unwrap();
}

#[test]
fn many_wakes_of_a_waiting_task_put_it_into_the_queue_once() {
    let mut runtime = Runtime::new();
    let waker = Arc::new(Mutex::new(None));
    let given = Arc::clone(&waker);
    let handle = runtime.spawn(second_poll(move |waker| {
        *given.lock().unwrap() = Some(waker.clone());
    }));
    assert_eq!(runtime.turns(), [Turn::Waits]);
    let waker = waker.lock().unwrap().take().unwrap();
    for _ in 0..3 {
        waker.wake_by_ref();
    }
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert!(handle.is_finished());
}

// Abort

#[test]
fn a_task_aborted_before_its_first_poll_is_dropped_unpolled() {
    let mut runtime = Runtime::new();
    let (drops, polls) = (Drops::default(), Drops::default());
    let (kept, polled) = (drops.one(), polls.one());
    let mut handle = runtime.spawn(async move {
        std::mem::forget(polled);
        waits_for_ever(kept).await;
    });
    handle.abort();
    handle.abort();
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert_eq!((drops.count(), polls.count()), (1, 1));
    assert!(joined(&mut handle).unwrap_err().is_cancelled());
}

#[test]
fn a_waiting_task_that_is_aborted_becomes_runnable_and_is_dropped() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let mut handle = runtime.spawn(waits_for_ever(drops.one()));
    let bell = Arc::new(Bell::default());
    assert!(poll_join(&mut handle, &Waker::from(Arc::clone(&bell))).is_pending());
    assert_eq!(runtime.turns(), [Turn::Waits]);
    handle.abort_handle().abort();
    assert_eq!(
        (drops.count(), bell.rings()),
        (0, 0),
        "a worker drops it, not the aborter"
    );
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert_eq!((drops.count(), bell.rings()), (1, 1));
    assert!(joined(&mut handle).unwrap_err().is_cancelled());
}

#[test]
fn a_task_aborted_during_its_poll_is_dropped_at_its_next_turn() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let kept = drops.one();
    let abort = Arc::new(Mutex::new(None::<super::AbortHandle>));
    let own = Arc::clone(&abort);
    let mut handle = runtime.spawn(async move {
        own.lock().unwrap().take().unwrap().abort();
        waits_for_ever(kept).await;
    });
    *abort.lock().unwrap() = Some(handle.abort_handle());
    assert_eq!(runtime.turns(), [Turn::RunsOn, Turn::Dropped]);
    assert_eq!(drops.count(), 1);
    assert!(joined(&mut handle).unwrap_err().is_cancelled());
}

#[test]
fn a_task_that_ends_in_the_poll_in_which_it_is_aborted_answers_normally() {
    let mut runtime = Runtime::new();
    let abort = Arc::new(Mutex::new(None::<super::AbortHandle>));
    let own = Arc::clone(&abort);
    let mut handle = runtime.spawn(async move {
        own.lock().unwrap().take().unwrap().abort();
        7
    });
    *abort.lock().unwrap() = Some(handle.abort_handle());
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(joined(&mut handle).unwrap(), 7);
}

#[test]
fn an_abort_after_the_end_changes_nothing() {
    let mut runtime = Runtime::new();
    let mut handle = runtime.spawn(async { 7 });
    runtime.turns();
    handle.abort();
    assert_eq!(runtime.turns(), []);
    assert_eq!(joined(&mut handle).unwrap(), 7);
}

#[test]
fn a_task_that_a_policy_holds_can_be_aborted_and_its_old_claims_fail() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let mut handle = runtime.spawn(waits_for_ever(drops.one()));
    let queued = runtime.next().unwrap().queue(TAG, 9);
    let seen = queued.header().custody.load();
    assert_eq!(seen.state(), State::Queued);
    handle.abort();
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert_eq!(drops.count(), 1);
    let header = queued.header();
    assert!(queued.claim_in_hand(TAG, 0).is_none());
    assert!(claim(header, seen).is_none());
    assert!(joined(&mut handle).unwrap_err().is_cancelled());
}

#[test]
fn a_queued_task_is_claimed_by_its_own_generation_only() {
    let mut runtime = Runtime::new();
    let _handle = runtime.spawn(async {});
    let entry = runtime.next().unwrap().queue(TAG, 9);
    let copy = Entry::from_bits(entry.into_bits()).unwrap();
    let bits = copy.into_bits();
    assert!(
        Entry::from_bits(bits)
            .unwrap()
            .claim_in_hand(TAG + 1, 0)
            .is_none()
    );
    let token = Entry::from_bits(bits)
        .unwrap()
        .claim_in_hand(TAG, 0)
        .expect("held by it");
    assert!(
        Entry::from_bits(bits)
            .unwrap()
            .claim_in_hand(TAG, 0)
            .is_none(),
        "claimed twice"
    );
    runtime.fake.now_runnable(token);
    assert_eq!(runtime.turns(), [Turn::Ended]);
}

// Drops

#[test]
fn future_and_output_are_dropped_once_whenever_the_handle_goes() {
    // (the handle's drop comes after so many turns, is the output taken before that?)
    for (turns, takes) in [(0, false), (1, false), (2, false), (2, true)] {
        let mut runtime = Runtime::new();
        let (future, output) = (Drops::default(), Drops::default());
        let (kept, result) = (future.one(), output.one());
        let mut handle = Some(runtime.spawn(async move {
            second_poll(Waker::wake_by_ref).await;
            drop(kept);
            result
        }));
        for turn in 0..=2 {
            if turn == turns {
                let mut handle = handle.take().unwrap();
                if takes {
                    drop(joined(&mut handle).unwrap_or_else(|_| panic!("it ended well")));
                }
            }
            runtime.turn();
        }
        assert_eq!((future.count(), output.count()), (1, 1), "{turns} {takes}");
    }
}

#[test]
fn a_detached_task_that_is_aborted_drops_its_future_once() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let handle = runtime.spawn(waits_for_ever(drops.one()));
    let abort = handle.abort_handle();
    drop(handle);
    assert_eq!(runtime.turns(), [Turn::Waits]);
    assert!(!abort.is_finished());
    abort.abort();
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert_eq!(drops.count(), 1);
    assert!(abort.is_finished());
}

#[test]
fn a_handle_that_leaves_with_its_waker_registered_is_not_woken_after_its_drop_is_over() {
    let mut runtime = Runtime::new();
    let bell = Arc::new(Bell::default());
    let mut handle = runtime.spawn(async {});
    assert!(poll_join(&mut handle, &Waker::from(Arc::clone(&bell))).is_pending());
    drop(handle);
    runtime.turns();
    assert_eq!(bell.rings(), 0);
    assert_eq!(
        Arc::strong_count(&bell),
        1,
        "the cell and its waker are freed"
    );
}

#[test]
fn a_task_may_drop_its_own_handle() {
    let mut runtime = Runtime::new();
    let handle = Arc::new(Mutex::new(None::<JoinHandle<Counted>>));
    let (own, drops) = (Arc::clone(&handle), Drops::default());
    let result = drops.one();
    let spawned = runtime.spawn(async move {
        drop(own.lock().unwrap().take());
        result
    });
    *handle.lock().unwrap() = Some(spawned);
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(drops.count(), 1);
}

// Panics in foreign drops and wakers

#[test]
fn a_panic_in_the_drop_of_an_ended_future_is_the_tasks_panic() {
    let mut runtime = Runtime::new();
    let (future, output) = (Drops::default(), Drops::default());
    let (bomb, result) = (Bomb(future.clone()), output.one());
    let mut result = Some(result);
    // Not an async block: that would drop its captures before it is ready.
    let mut handle = runtime.spawn(poll_fn(move |_| {
        let _keep = &bomb;
        Poll::Ready(result.take().unwrap())
    }));
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!((future.count(), output.count()), (1, 1));
    assert_eq!(panic_of(joined(&mut handle)), "bomb");
}

#[test]
fn a_panic_in_the_drop_of_an_aborted_future_is_the_tasks_panic() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let mut handle = runtime.spawn(waits_for_ever(Bomb(drops.clone())));
    assert_eq!(runtime.turns(), [Turn::Waits]);
    handle.abort();
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert_eq!(drops.count(), 1);
    assert_eq!(panic_of(joined(&mut handle)), "bomb");
}

#[test]
fn a_panic_in_the_drop_of_an_output_that_nobody_wants_ends_nowhere() {
    for detach_first in [true, false] {
        let mut runtime = Runtime::new();
        let drops = Drops::default();
        let bomb = Bomb(drops.clone());
        let mut handle = Some(runtime.spawn(async move { bomb }));
        if detach_first {
            handle = None;
        }
        assert_eq!(runtime.turns(), [Turn::Ended]);
        drop(handle);
        assert_eq!(drops.count(), 1);
    }
}

/// Panics when it is woken, and when it is dropped.
struct BadWaker(Drops);

impl Wake for BadWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        panic_any("woken");
    }
}

impl Drop for BadWaker {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        panic_any("bomb");
    }
}

#[test]
fn a_joiner_whose_waker_panics_hurts_nobody() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let mut handle = runtime.spawn(async { 7 });
    let waker = Waker::from(Arc::new(BadWaker(drops.clone())));
    assert!(poll_join(&mut handle, &waker).is_pending());
    // The cell has the last clone.
    drop(waker);
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(joined(&mut handle).unwrap(), 7);
    drop(handle);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_waker_whose_drop_panics_when_it_is_replaced_panics_in_the_joiner_only() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let mut handle = runtime.spawn(async { 7 });
    let waker = Waker::from(Arc::new(BadWaker(drops.clone())));
    assert!(poll_join(&mut handle, &waker).is_pending());
    drop(waker);
    let replaced = catch_unwind(AssertUnwindSafe(|| {
        poll_join(&mut handle, Waker::noop()).is_pending()
    }));
    assert_eq!(text(&*replaced.unwrap_err()), "bomb");
    assert_eq!(drops.count(), 1);
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(joined(&mut handle).unwrap(), 7);
}

// Slots

/// Ends a task whose waker has been kept. Returns the waker, and the id.
fn ended_task(runtime: &mut Runtime) -> (Waker, TaskId) {
    let kept = Arc::new(Mutex::new(None));
    let given = Arc::clone(&kept);
    let handle = runtime.spawn(second_poll(move |waker| {
        waker.wake_by_ref();
        *given.lock().unwrap() = Some(waker.clone());
    }));
    assert_eq!(runtime.turns(), [Turn::RunsOn, Turn::Ended]);
    let waker = kept.lock().unwrap().take().unwrap();
    (waker, handle.id())
}

#[test]
fn a_slots_next_task_has_another_id() {
    let mut runtime = Runtime::new();
    let mut ids = HashSet::new();
    let mut slots = HashSet::new();
    for _ in 0..10 {
        let (_, id) = ended_task(&mut runtime);
        assert!(ids.insert(id));
        slots.insert(id.slot());
    }
    assert_eq!(slots.len(), 1, "the slot given back last is taken first");
}

#[test]
fn a_stale_waker_of_a_free_slot_does_nothing() {
    let mut runtime = Runtime::new();
    let (waker, _) = ended_task(&mut runtime);
    waker.wake_by_ref();
    waker.wake();
    assert_eq!(runtime.turns(), []);
}

#[test]
fn a_stale_waker_polls_the_slots_next_task_once_more_at_worst() {
    let mut runtime = Runtime::new();
    let (waker, old) = ended_task(&mut runtime);
    waker.wake_by_ref();
    let mut handle = runtime.spawn(waits_for_ever(()));
    assert_eq!(handle.id().slot(), old.slot());
    waker.wake_by_ref();
    assert_eq!(runtime.turns(), [Turn::Waits], "it was runnable anyway");
    waker.wake_by_ref();
    assert_eq!(runtime.turns(), [Turn::Waits]);
    handle.abort();
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert!(joined(&mut handle).unwrap_err().is_cancelled());
}

#[test]
fn a_stale_abort_handle_does_the_slots_next_task_no_harm() {
    let mut runtime = Runtime::new();
    let stale = runtime.spawn(async {}).abort_handle();
    runtime.turns();
    let mut handle = runtime.spawn(async { 7 });
    assert_eq!(handle.id().slot(), stale.id().slot());
    stale.abort();
    assert!(stale.is_finished());
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(joined(&mut handle).unwrap(), 7);
}

#[test]
fn every_slot_has_a_header_of_its_own_across_the_bounds_of_chunks() {
    // Past the second bound: 1024, 3072.
    let count = 3_200;
    let mut cache = SlotCache::default();
    let slots: Vec<u32> = (0..count).map(|_| cache.take()).collect();
    let headers: HashSet<*const Header> = slots
        .iter()
        .map(|slot| std::ptr::from_ref(slab::get(*slot).expect("handed out")))
        .collect();
    assert_eq!(headers.len(), slots.len());
    assert_eq!(slots.iter().collect::<HashSet<_>>().len(), slots.len());
    assert!(!slots.contains(&0), "slot 0 stays unused");
    for slot in slots {
        cache.give(slot);
    }
}

#[test]
fn any_number_may_be_looked_up() {
    let bounds = (0..=22).map(|nth| ((1_u64 << nth) - 1) * 1024);
    for bound in bounds {
        for slot in bound.saturating_sub(2)..bound + 2 {
            // Within a chunk neighbours are neighbours, so an offset that is wrong by one shows.
            let Ok(slot) = u32::try_from(slot) else {
                continue;
            };
            let pair = [slab::get(slot), slot.checked_add(1).and_then(slab::get)];
            if let [Some(this), Some(next)] = pair
                && u64::from(slot) + 1 != bound
            {
                let (this, next) = (std::ptr::from_ref(this), std::ptr::from_ref(next));
                assert_eq!(next.addr() - this.addr(), size_of::<Header>());
            }
        }
    }
    assert!(slab::get(u32::MAX).is_none());
}

// Words

#[test]
fn custody_moves_count_on_and_name_their_owner() {
    let custody = Custody::new();
    assert_eq!(custody.load().state(), State::Free);
    let mut last = custody.load().sequence();
    for state in [State::Ingress, State::Offered, State::Held] {
        let sequence = custody.set(state, TAG, 9);
        assert_eq!(sequence, last + 1);
        let now = custody.load();
        assert_eq!(
            (now.state(), now.tag(), now.sequence()),
            (state, TAG, sequence)
        );
        assert_eq!(now.is_kept_by(TAG), state == State::Held);
        assert!(!now.is_kept_by(TAG + 1));
        last = sequence;
    }
}

#[test]
fn a_wake_during_a_poll_is_not_lost_when_there_were_two_thousand_million_before() {
    let lifecycle = Lifecycle::new();
    lifecycle.open();
    // SAFETY: the cast requires the same layout, which `repr(transparent)` gives; the lifetime is that of the borrow.
    let word = unsafe { &*std::ptr::from_ref(&lifecycle).cast::<std::sync::atomic::AtomicU64>() };
    word.fetch_add((1 << 31) - 1, Ordering::Relaxed);
    let seen = lifecycle.begin_poll();
    assert_eq!(lifecycle.wake(), Woken::Already);
    assert!(lifecycle.woken_since(seen));
    assert!(
        lifecycle.end_poll(seen),
        "the token is gone, and the wake with it"
    );
}

// Threads

/// Wakers on other threads against the poll, the joiner on another thread against the completion, an abort against both.
#[test]
fn wakes_joins_and_aborts_from_other_threads_lose_nothing() {
    for round in 0..ROUNDS {
        let mut runtime = Runtime::new();
        let (drops, output) = (Drops::default(), Drops::default());
        let (kept, result) = (drops.one(), output.one());
        let written = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&written);
        let (send, wakers) = std::sync::mpsc::channel::<Waker>();
        let mut result = Some(result);
        let mut handle = runtime.spawn(poll_fn(move |context| {
            let _keep = &kept;
            if seen.load(Ordering::Relaxed) == 2 {
                return Poll::Ready(result.take().unwrap());
            }
            let _ = send.send(context.waker().clone());
            Poll::Pending
        }));
        let abort = handle.abort_handle();
        let waking = thread::spawn(move || {
            for waker in wakers.iter().take(2) {
                written.fetch_add(1, Ordering::Relaxed);
                waker.wake();
            }
        });
        let joining = thread::spawn(move || {
            let parked = Waker::from(Arc::new(Unpark(thread::current())));
            loop {
                match poll_join(&mut handle, &parked) {
                    Poll::Ready(answer) => break answer.is_ok(),
                    Poll::Pending if round % 4 == 0 => break false, // leaves
                    Poll::Pending => thread::park(),
                }
            }
        });
        let aborting = (round % 3 == 0).then(|| {
            let abort = abort.clone();
            thread::spawn(move || abort.abort())
        });
        while !abort.is_finished() {
            if runtime.turn().is_none() {
                thread::yield_now();
            }
        }
        waking.join().unwrap();
        let delivered = joining.join().unwrap();
        if let Some(aborting) = aborting {
            aborting.join().unwrap();
        } else if round % 4 != 0 {
            assert!(delivered);
        }
        assert_eq!((drops.count(), output.count()), (1, 1));
        assert_eq!(runtime.turns(), [], "a token is left");
    }
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

// --- attributes ---

fn header_of<T>(handle: &JoinHandle<T>) -> &'static Header {
    slab::get(handle.id().slot()).unwrap()
}

#[test]
fn attributes_change_for_the_present_tenant_and_keep_what_is_not_changed() {
    let mut runtime = Runtime::new();
    let given = Given {
        id: attributes::intern(Attributes::new().name("kept")),
        tag: 3,
        deadline: 9,
    };
    let handle = runtime.spawn_given(given, async {});
    let header = header_of(&handle);
    handle.set_weight(7).unwrap();
    handle.set_weight(8).unwrap();
    assert!(!header.is_restricted());
    handle
        .set_affinity(WorkerMask::from_iter([WORKER]))
        .unwrap();
    assert!(header.is_restricted() && !header.allows(WorkerId::new(1)));
    let view = header.view();
    assert_eq!(
        (view.name(), view.weight(), view.tag()),
        (Some("kept"), 8, 3)
    );
    assert_eq!(view.deadline().map(|at| at.as_nanos()), Some(9));
    handle.set_affinity(WorkerMask::all()).unwrap();
    assert!(!header.is_restricted());
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(
        handle.set_weight(7),
        Err(ChangeError::Finished(handle.id()))
    );
    let next = runtime.spawn(async {});
    assert_eq!(next.id().slot(), handle.id().slot());
    let view = header.view();
    assert_eq!(
        (view.name(), view.weight(), view.deadline()),
        (None, 100, None)
    );
    assert_eq!(runtime.turns(), [Turn::Ended]);
}

/// The task ends, and its slot has another tenant, while its attributes are being changed.
#[test]
fn a_change_that_comes_too_late_does_nothing_to_the_next_tenant() {
    let mut runtime = Runtime::new();
    let first = runtime.spawn(async {});
    let header = header_of(&first);
    let mut next = None;
    let changed = header.change(first.id().tenant(), |set| {
        assert_eq!(runtime.turns(), [Turn::Ended]);
        next = Some(runtime.spawn(async {}));
        set.weight(7).affinity(WorkerMask::from_iter([WORKER]))
    });
    assert!(!changed);
    let next = next.unwrap();
    assert_eq!(next.id().slot(), first.id().slot());
    assert_eq!(header.view().weight(), 100);
    assert!(!header.is_restricted());
    next.set_weight(8).unwrap();
    assert_eq!(header.view().weight(), 8);
    assert_eq!(runtime.turns(), [Turn::Ended]);
}

/// Whoever reads meanwhile sees one set or another, and each a whole one.
#[test]
fn attributes_are_changed_by_many_threads_at_once() {
    let mut runtime = Runtime::new();
    let handle = runtime.spawn(async {});
    let header = header_of(&handle);
    thread::scope(|scope| {
        for weight in [200, 300] {
            let handle = handle.abort_handle();
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    handle.set_weight(weight).unwrap();
                }
            });
        }
        for _ in 0..ROUNDS {
            assert!(matches!(header.view().weight(), 100 | 200 | 300));
        }
    });
    assert_eq!(runtime.turns(), [Turn::Ended]);
}
