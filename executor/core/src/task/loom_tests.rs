//! Models of the lifecycle, custody and join words. The future, the header's other fields and the output are loom cells:
//! two owners at once, or a missing happens-before, is an error there.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread;
use polity_policy::{DsqId, Position};

use super::custody::{Custody, State};
use super::join_word::{Completed, Found, JoinWord};
use super::lifecycle::{Aborted, Lifecycle, Woken};
use crate::model::check;
use crate::sync::{AtomicU64, Ordering, fence};

/// Runs `Lifecycle::finish` or `open` on a copy and puts the result into the word by a swap. In the real ones it is a plain
/// store, for which loom would also try orders that cannot be: it does not know that nothing comes between the two halves
/// of somebody else's read-modify-write, so it lets later readers see an increment that the store has buried.
fn put<R>(lifecycle: &Lifecycle, change: impl FnOnce(&Lifecycle) -> R) -> R {
    let copy = Lifecycle::new();
    word(&copy).store(word(lifecycle).load(Ordering::Relaxed), Ordering::Relaxed);
    let result = change(&copy);
    let new = word(&copy).load(Ordering::Relaxed);
    word(lifecycle).swap(new, Ordering::Release);
    result
}

fn word(lifecycle: &Lifecycle) -> &AtomicU64 {
    // SAFETY: the cast requires the same layout, which `repr(transparent)` gives; the lifetime is that of the borrow.
    unsafe { &*std::ptr::from_ref(lifecycle).cast() }
}

/// A future that sums up what its wakers have written; `None` once it is dropped.
type Future = UnsafeCell<Option<usize>>;

struct Task {
    lifecycle: Lifecycle,
    future: Future,
    /// Stands for the other fields, which the token holder writes before, during and after a poll.
    header: UnsafeCell<usize>,
    /// What the two wakers write before they wake.
    written: [AtomicUsize; 2],
}

impl Task {
    /// Born runnable: the caller has the token.
    fn new() -> Arc<Self> {
        let task = Task {
            lifecycle: Lifecycle::new(),
            future: Future::new(Some(0)),
            header: UnsafeCell::new(0),
            written: [AtomicUsize::new(0), AtomicUsize::new(0)],
        };
        assert_eq!(task.lifecycle.open(), 1);
        Arc::new(task)
    }

    /// A task that waits: no token exists.
    fn waiting() -> Arc<Self> {
        let task = Task::new();
        task.run();
        task
    }

    /// With the token: polls until the task waits, or drops the future of an aborted one. The token ends here.
    fn run(&self) {
        loop {
            let seen = self.lifecycle.begin_poll();
            if seen.aborted {
                assert_eq!(self.written[1].load(Ordering::Relaxed), 1);
                self.with_future(|future| assert!(future.take().is_some(), "dropped twice"));
                put(&self.lifecycle, Lifecycle::finish);
                return;
            }
            let sum = self.written.iter().map(|w| w.load(Ordering::Relaxed)).sum();
            self.with_future(|future| *future.as_mut().expect("polled after its drop") = sum);
            self.write_header();
            if !self.lifecycle.end_poll(seen) {
                return;
            }
        }
    }

    /// What a waker does.
    fn write_and_wake(&self, which: usize) {
        self.written[which].store(1, Ordering::Relaxed);
        if self.lifecycle.wake() == Woken::Won {
            self.write_header();
            self.run();
        }
    }

    fn abort(&self) {
        self.written[1].store(1, Ordering::Relaxed);
        if self.lifecycle.abort(1) == Aborted::Won {
            self.write_header();
            self.run();
        }
    }

    /// In the code these are relaxed stores: not undefined if the order is missing, but lost.
    fn write_header(&self) {
        self.header.with_mut(|header| {
            // SAFETY: as in `with_future`.
            unsafe { *header += 1 }
        });
    }

    /// Loom checks that nobody else is inside.
    fn with_future<R>(&self, f: impl FnOnce(&mut Option<usize>) -> R) -> R {
        self.future.with_mut(|future| {
            // SAFETY: dereferencing requires a valid pointer and nobody else inside: it is a live cell's, and loom
            // fails the model if somebody is.
            f(unsafe { &mut *future })
        })
    }
}

fn spawn<T: 'static, R: 'static>(
    shared: &Arc<T>,
    body: impl FnOnce(&T) -> R + 'static,
) -> thread::JoinHandle<R> {
    let shared = Arc::clone(shared);
    thread::spawn(move || body(&shared))
}

/// Three threads: a poll and two wakers. Whoever has the token polls. Exhaustive.
#[test]
fn wakes_during_a_poll_are_not_lost() {
    check(None, || {
        let task = Task::new();
        let wakers = [0, 1].map(|which| spawn(&task, move |task| task.write_and_wake(which)));
        task.run();
        for waker in wakers {
            waker.join().unwrap();
        }
        assert_eq!(task.with_future(|future| *future), Some(2));
    });
}

/// Three threads: two wakers of a waiting task, and one more wake. Exhaustive.
#[test]
fn exactly_one_waker_wins_the_token() {
    check(None, || {
        let task = Task::waiting();
        let wake = |task: &Task| task.lifecycle.wake() == Woken::Won;
        let wakers = [spawn(&task, wake), spawn(&task, wake)];
        let mut won = usize::from(wake(&task));
        for waker in wakers {
            won += usize::from(waker.join().unwrap());
        }
        assert_eq!(won, 1);
    });
}

/// Three threads: a poll, an abort, a wake. Exhaustive.
#[test]
fn an_abort_during_a_poll_is_seen() {
    check(None, || {
        let task = Task::new();
        let others = [
            spawn(&task, |task| task.abort()),
            spawn(&task, |task| task.write_and_wake(0)),
        ];
        task.run();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(task.with_future(|future| *future), None);
        assert!(!task.lifecycle.is(1));
    });
}

/// Two threads: the end of a task and two wakes of it. Exhaustive.
#[test]
fn a_wake_of_a_finished_task_wins_nothing() {
    check(None, || {
        let task = Task::new();
        let waker = spawn(&task, |task| {
            let won = [task.lifecycle.wake(), task.lifecycle.wake()];
            assert_eq!(won, [Woken::Already; 2]);
        });
        put(&task.lifecycle, Lifecycle::finish);
        waker.join().unwrap();
        assert_eq!(task.lifecycle.wake(), Woken::Already);
    });
}

/// A stale waker and a stale abort handle meet the slot's next tenant, which waits and is woken: one token, no abort.
/// Three threads. Exhaustive.
#[test]
fn a_stale_wake_or_abort_does_the_next_tenant_no_harm() {
    check(None, || {
        let task = Task::new();
        let stale = [
            spawn(&task, |task| task.write_and_wake(0)),
            spawn(&task, |task| {
                // Before the end of the first tenant it is marked, and the mark ends with that tenant.
                assert_ne!(task.lifecycle.abort(1), Aborted::Won);
            }),
        ];
        put(&task.lifecycle, Lifecycle::finish);
        assert_eq!(put(&task.lifecycle, Lifecycle::open), 2);
        task.run();
        for stale in stale {
            stale.join().unwrap();
        }
        assert!(task.lifecycle.is(2));
        assert!(
            task.with_future(|future| future.is_some()),
            "the next tenant was aborted"
        );
    });
}

/// A runnable task in a policy's custody, with something in its header that the holder wrote before.
struct Kept {
    lifecycle: Lifecycle,
    custody: Custody,
    header: UnsafeCell<u32>,
}

const TAG: u8 = 3;

impl Kept {
    fn new() -> Arc<Self> {
        let kept = Kept {
            lifecycle: Lifecycle::new(),
            custody: Custody::new(),
            header: UnsafeCell::new(0),
        };
        kept.lifecycle.open();
        Arc::new(kept)
    }

    /// The offer and its end without a verdict, as `Token::note_offered` and `hold`.
    fn hold(&self) {
        self.write_header();
        self.custody.set(State::Offered, TAG, 0);
        assert!(self.custody.hold(TAG).is_ok(), "nobody claims early here");
    }

    /// As `Token::queue`.
    fn queue(&self) {
        self.write_header();
        self.custody.set(State::Queued, TAG, 9);
    }

    /// As `token::claim`. `true`: the caller has the token.
    fn claim(&self) -> bool {
        let seen = self.custody.load();
        let won = seen.is_kept_by(TAG) && self.custody.claim(seen, State::Offered, 0, 0).is_some();
        if won {
            self.write_header();
        }
        won
    }

    /// What only the token holder may do.
    fn write_header(&self) {
        self.header.with_mut(|header| {
            // SAFETY: as in `Task::with_future`.
            unsafe { *header += 1 }
        });
    }
}

/// Two dispatches and a sweep (or an abort, which does the same) want one task, which is being held meanwhile: one of
/// them may find it, and another one only if the first put it back. Three threads. Exhaustive.
#[test]
fn a_held_task_is_claimed_once() {
    for keep in [Kept::hold, Kept::queue] {
        check(None, move || {
            let kept = Kept::new();
            let others = [spawn(&kept, Kept::claim), spawn(&kept, Kept::claim)];
            keep(&kept);
            let mut won = usize::from(kept.claim());
            for other in others {
                won += usize::from(other.join().unwrap());
            }
            assert_eq!(won, 1);
        });
    }
}

/// A claim by what was seen in an earlier custody period fails, although state and tag are the same again. Two threads.
/// Exhaustive.
#[test]
fn a_claim_of_an_earlier_custody_period_is_refused() {
    check(None, || {
        let kept = Kept::new();
        kept.hold();
        let seen = kept.custody.load();
        let other = spawn(&kept, move |kept| {
            let won = kept.custody.claim(seen, State::Offered, 0, 0).is_some();
            if won {
                kept.hold();
            }
            won
        });
        let won = kept.custody.claim(seen, State::Offered, 0, 0).is_some();
        if won {
            kept.hold();
        }
        assert!(won != other.join().unwrap());
    });
}

/// Abort and hold cross: the aborter finds no custody to take the task from, the worker has looked for the mark before the
/// callback. One of the two second looks finds it: `Core::now_aborted` and `Worker::recheck_kept`, whose fences are
/// partners. Two threads. Exhaustive.
#[test]
fn an_abort_during_an_offer_does_not_wait_for_the_policy() {
    check(None, || {
        let kept = Kept::new();
        kept.custody.set(State::Offered, TAG, 0);
        let aborter = spawn(&kept, |kept| {
            assert_eq!(kept.lifecycle.abort(1), Aborted::Marked);
            fence(Ordering::SeqCst);
            kept.claim()
        });
        kept.hold();
        fence(Ordering::SeqCst);
        let worker = kept.lifecycle.is_aborted() && kept.claim();
        assert!(worker != aborter.join().unwrap());
    });
}

/// A claim from the `dispatch` of another worker meets the end of the offer: it is carried out by the worker that offers,
/// or takes the task out of custody, or is refused because it came too soon. Two threads. Exhaustive.
#[test]
fn an_early_claim_is_carried_out_or_refused() {
    check(None, || {
        let kept = Kept::new();
        let claimer = spawn(&kept, |kept| {
            let seen = kept.custody.load();
            match seen.state() {
                State::Offered => kept
                    .custody
                    .claim_early(seen, DsqId::Custom(9), Position::Head)
                    .then_some(State::Offered),
                _ => kept.claim().then_some(State::Held),
            }
        });
        kept.write_header();
        kept.custody.set(State::Offered, TAG, 0);
        let held = kept.custody.hold(TAG);
        if held.is_err() {
            assert_eq!(held, Err((DsqId::Custom(9), Position::Head)));
            kept.write_header();
        }
        let claimed = claimer.join().unwrap();
        assert_eq!(held.is_err(), claimed == Some(State::Offered));
    });
}

/// The cell, as far as the join word guards it. `None`: not written, or freed.
struct Joined {
    word: JoinWord,
    output: UnsafeCell<Option<u32>>,
    waker: UnsafeCell<Option<thread::Thread>>,
    /// Whether the waker unparks. Loom's `unpark` is a happens-before of its own, which would hide what the word lacks.
    unparks: bool,
    freed: AtomicUsize,
}

impl Joined {
    fn new(unparks: bool) -> Arc<Self> {
        Arc::new(Joined {
            word: JoinWord::new(),
            output: UnsafeCell::new(None),
            waker: UnsafeCell::new(None),
            unparks,
            freed: AtomicUsize::new(0),
        })
    }

    /// As `CellPtr::complete`.
    fn complete(&self) {
        set(&self.output, Some(7));
        let free = match self.word.complete() {
            Completed::Nothing => return,
            Completed::Free => true,
            Completed::Wake => {
                let waker = self.waker.with(|waker| {
                    // SAFETY: as in `Task::with_future`, for reading.
                    unsafe { (*waker).clone() }
                });
                let waker = waker.expect("registered");
                if self.unparks {
                    waker.unpark();
                }
                self.word.done()
            }
        };
        if free {
            self.free();
        }
    }

    /// As `CellPtr::poll_join`, with a waker that is another one each time.
    fn poll_join(&self) -> Option<u32> {
        let waiting = match self.word.look() {
            Found::Complete => false,
            Found::Unregistered => self.register(),
            Found::Registered => self.word.unregister() && self.register(),
        };
        if waiting {
            return None;
        }
        self.output.with_mut(|output| {
            // SAFETY: as in `Task::with_future`.
            unsafe { (*output).take() }
        })
    }

    fn register(&self) -> bool {
        set(&self.waker, Some(thread::current()));
        self.word.register()
    }

    /// As `CellPtr::leave`.
    fn leave(&self) {
        if self.word.leave() {
            self.free();
        }
    }

    /// Loom finds a use of the cell that does not happen before this.
    fn free(&self) {
        set(&self.output, None);
        set(&self.waker, None);
        assert_eq!(self.freed.fetch_add(1, Ordering::Relaxed), 0, "freed twice");
    }
}

fn set<T>(cell: &UnsafeCell<T>, value: T) {
    cell.with_mut(|place| {
        // SAFETY: as in `Task::with_future`.
        unsafe { *place = value }
    });
}

/// The handle polls none, one, two or three times (a waker registered, then replaced), and leaves without waiting. Two
/// threads. Exhaustive.
#[test]
fn the_last_one_frees_exactly_once() {
    for polls in 0..4 {
        check(None, move || {
            let joined = Joined::new(false);
            let worker = spawn(&joined, Joined::complete);
            for _ in 0..polls {
                if joined.poll_join().is_some() {
                    break;
                }
            }
            joined.leave();
            worker.join().unwrap();
            assert_eq!(joined.freed.load(Ordering::Relaxed), 1);
        });
    }
}

/// The handle waits for the output; a lost wake-up is a deadlock. `early` polls replace the waker before the wait. Two
/// threads. Exhaustive.
#[test]
fn a_joiner_is_woken_or_sees_the_output() {
    for early in 0..2 {
        check(None, move || {
            let joined = Joined::new(true);
            let worker = spawn(&joined, Joined::complete);
            let mut output = None;
            for _ in 0..early {
                output = output.or_else(|| joined.poll_join());
            }
            while output.is_none() {
                output = joined.poll_join();
                if output.is_none() {
                    thread::park();
                }
            }
            assert_eq!(output, Some(7));
            joined.leave();
            worker.join().unwrap();
            assert_eq!(joined.freed.load(Ordering::Relaxed), 1);
        });
    }
}
