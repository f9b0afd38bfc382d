//! Models of what the watchdog takes, counts and sleeps through:
//! `RUSTFLAGS="--cfg polity_loom" cargo test -p polity-core --release --lib loom`.

#![allow(unsafe_code)] // loom's cells hand out raw pointers

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use loom::thread;

use super::call_word::CallWord;
use crate::idle::Sleepers;
use crate::model;
use crate::task::custody::{Custody, State};

/// loom has no `membarrier`: what the kernel does for the light fence, a full one does here.
fn both_fences() {
    fence(Ordering::SeqCst);
}

/// A seat whose thread has one task in its hands, and how often that has been taken on.
struct Seat {
    word: CallWord,
    in_hand: AtomicU64,
    taken: AtomicU64,
}

impl Seat {
    fn new() -> Arc<Self> {
        Arc::new(Seat {
            word: CallWord::new(),
            in_hand: AtomicU64::new(1),
            taken: AtomicU64::new(0),
        })
    }

    /// As `Core::convict` does.
    fn convict(&self, call: u64) {
        let found = self
            .word
            .revoke(call, both_fences, || self.in_hand.load(Ordering::Relaxed));
        if let Some(found) = found {
            self.taken.fetch_add(found, Ordering::Relaxed);
        }
    }

    /// As the door and its callers do.
    fn come_out(&self, call: u64) {
        let ours = self.word.leave(call, both_fences);
        // Either way the hands are empty now: carried out, or forgotten.
        self.in_hand.store(0, Ordering::Relaxed);
        self.taken.fetch_add(u64::from(ours), Ordering::Relaxed);
    }
}

#[test]
fn what_a_call_has_in_hand_is_carried_out_or_taken_but_not_both() {
    model::check(None, || {
        let seat = Seat::new();
        let call = seat.word.enter();
        let watchdog = {
            let seat = Arc::clone(&seat);
            thread::spawn(move || seat.convict(call))
        };
        seat.come_out(call);
        watchdog.join().unwrap();
        assert_eq!(seat.taken.load(Ordering::Relaxed), 1);
    });
}

/// A thread in a convicted call goes on claiming tasks: what it claims is found by the watchdog's walk, or given back by the
/// thread itself.
#[test]
fn a_claim_of_a_convicted_call_is_found_or_given_back() {
    const HELD: u64 = 1;
    const IN_HAND: u64 = 2;
    const FREE: u64 = 3;
    model::check(None, || {
        let seat = Seat::new();
        let custody = Arc::new(AtomicU64::new(HELD));
        let call = seat.word.enter();
        let claim = |from, custody: &AtomicU64| {
            custody
                .compare_exchange(from, FREE, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        let watchdog = {
            let (seat, custody) = (Arc::clone(&seat), Arc::clone(&custody));
            thread::spawn(move || {
                let found = seat.word.revoke(call, both_fences, || {
                    claim(IN_HAND, &custody) || claim(HELD, &custody)
                });
                // One look, as the walk over the slab; the model's thread never comes out before it.
                u64::from(found.expect("it has not come out"))
            })
        };
        let claimed = custody
            .compare_exchange(HELD, IN_HAND, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        both_fences();
        let mut taken = 0;
        if claimed && seat.word.is_revoked(call) {
            taken += u64::from(claim(IN_HAND, &custody));
        }
        taken += watchdog.join().unwrap();
        // Still in the hands of the thread, if the look came before the claim and the revocation after its fence: no.
        assert_eq!(taken, 1);
        assert_eq!(custody.load(Ordering::Relaxed), FREE);
    });
}

/// One runnable task, and a census with two seats: 0 offers it, 1 dispatches it.
struct Counted {
    custody: Custody,
    /// In the header, for the token holder: the task counts as waiting.
    counted: UnsafeCell<bool>,
    entered: [AtomicU32; 2],
    left: [AtomicU32; 2],
}

const TAG: u8 = 3;

impl Counted {
    fn new() -> Arc<Self> {
        Arc::new(Counted {
            custody: Custody::new(),
            counted: UnsafeCell::new(false),
            entered: [AtomicU32::new(0), AtomicU32::new(0)],
            left: [AtomicU32::new(0), AtomicU32::new(0)],
        })
    }

    /// As `census::add_one`: the seat's thread alone writes.
    fn add_one(count: &AtomicU32) {
        let before = count.load(Ordering::Relaxed);
        count.store(before.wrapping_add(1), Ordering::Relaxed);
    }

    /// As `Census::waiting`.
    fn waiting(&self) -> u32 {
        let sum = |counts: &[AtomicU32; 2]| -> u32 {
            counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed))
                .sum()
        };
        sum(&self.entered).wrapping_sub(sum(&self.left))
    }

    /// As `Worker::admit`, and the end of the offer without a verdict.
    fn offer_and_hold(&self) {
        Counted::add_one(&self.entered[0]);
        self.set_counted(true);
        self.custody.set(State::Offered, TAG, 0);
        assert!(self.custody.hold(TAG).is_ok(), "nobody claims early here");
    }

    /// As `token::claim`, for a dispatch and for a sweep. `true`: the caller has the token.
    fn claim(&self) -> bool {
        let seen = self.custody.load();
        seen.is_kept_by(TAG) && self.custody.claim(seen, State::Ingress, 0, 0).is_some()
    }

    /// As `Worker::leave_census`, with the token, by the thread in this seat.
    fn leave(&self, seat: usize) {
        assert!(
            self.set_counted(false),
            "counted out twice, or never counted in"
        );
        Counted::add_one(&self.left[seat]);
    }

    /// Returns what it was. Loom checks that nobody else is inside: only the token holder may be.
    fn set_counted(&self, counted: bool) -> bool {
        self.counted.with_mut(|cell| {
            // SAFETY: dereferencing requires a valid pointer and nobody else inside: it is a live cell's, and loom fails
            // the model if somebody is.
            std::mem::replace(unsafe { &mut *cell }, counted)
        })
    }
}

/// A worker counts a task in and gives it to its policy, another one dispatches it and counts it out, and the watchdog looks at
/// the counts and, if they say that somebody waits, takes what is held. Three threads. Exhaustive.
#[test]
fn a_counted_task_is_taken_once_or_still_counted() {
    model::check(None, || {
        let task = Counted::new();
        let dispatcher = {
            let task = Arc::clone(&task);
            thread::spawn(move || {
                let won = task.claim();
                if won {
                    task.leave(1);
                }
                won
            })
        };
        let watchdog = {
            let task = Arc::clone(&task);
            // Sums over counts that move may be wrong, in either direction: then it walks for nothing, or at a later tick.
            thread::spawn(move || task.waiting() != 0 && task.claim())
        };
        task.offer_and_hold();
        let dispatched = dispatcher.join().unwrap();
        let swept = watchdog.join().unwrap();
        assert!(!(dispatched && swept), "taken twice");
        if dispatched {
            assert_eq!(task.waiting(), 0);
            return;
        }
        // Swept, and not run yet; or held, and found at the next tick.
        assert_eq!(task.waiting(), 1);
        assert!(swept || task.claim(), "lost");
        task.leave(0);
        assert_eq!(task.waiting(), 0);
    });
}

/// A thread leaves its park (`Core::wake_the_watchdog`) while the watchdog falls asleep (`Watchdog::fall_asleep`): it stays
/// awake, or is woken. Two threads. Exhaustive.
#[test]
fn the_watchdog_does_not_sleep_through_the_beginning_of_work() {
    model::check(None, || {
        let shared = Arc::new((Sleepers::new(1), AtomicBool::new(false)));
        shared.0.announce(0);
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (sleepers, asleep) = &*shared;
                sleepers.retract(0);
                fence(Ordering::SeqCst);
                asleep.load(Ordering::Relaxed) && asleep.swap(false, Ordering::Relaxed)
            })
        };
        let (sleepers, asleep) = &*shared;
        asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let sleeps = sleepers.is_parked(0);
        let woken = worker.join().unwrap();
        assert!(!sleeps || woken);
    });
}
