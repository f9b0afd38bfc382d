//! Models of the publication protocol (`published.rs`).

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::published::Published;
use crate::model::check;
use crate::task::custody::{Custody, State};

/// A generation: a tag, and a policy whose `exit` must come after all calls. `true`: `exit` has run.
struct Generation {
    tag: u8,
    policy: UnsafeCell<bool>,
}

fn generation(tag: u8) -> Arc<Generation> {
    Arc::new(Generation {
        tag,
        policy: UnsafeCell::new(false),
    })
}

impl Generation {
    /// A callback.
    fn call(&self) {
        self.policy.with(|exited| {
            // SAFETY: dereferencing requires a valid pointer and nobody who writes: it is a live cell's, and loom fails
            // the model if somebody does.
            assert!(!unsafe { *exited }, "called after exit");
        });
    }

    fn exit(&self) {
        self.policy.with_mut(|exited| {
            // SAFETY: as in `call`, with nobody else at all.
            unsafe { *exited = true }
        });
    }
}

struct Runtime {
    published: Published<Generation>,
    custody: Custody,
}

impl Runtime {
    fn new() -> Arc<Self> {
        let runtime = Runtime {
            published: Published::new(),
            custody: Custody::new(),
        };
        assert!(runtime.published.publish(Some(generation(1))).is_none());
        Arc::new(runtime)
    }

    /// As `recheck_kept` and `sweep`. `true`: the caller has the task.
    fn take_back(&self, tag: u8) -> bool {
        let seen = self.custody.load();
        seen.is_kept_by(tag) && self.custody.claim(seen, State::Offered, 0, 0).is_some()
    }
}

/// DESIGN section 5 (a). A worker keeps a task for the generation that it has cached, while control publishes another one
/// and sweeps. Two threads. Exhaustive.
#[test]
fn a_task_kept_across_a_publication_is_found() {
    check(None, || {
        let runtime = Runtime::new();
        let worker = {
            let runtime = Arc::clone(&runtime);
            thread::spawn(move || {
                // As `Worker::follow`: the epoch first, then the slot.
                let epoch = runtime.published.epoch();
                let tag = runtime.published.load()?.tag;
                runtime.custody.set(State::Held, tag, 0);
                let still = runtime.published.still(epoch);
                Some((tag, !still && runtime.take_back(tag)))
            })
        };
        let old = runtime.published.publish(Some(generation(2)));
        let swept = runtime.take_back(old.expect("published above").tag);
        let (tag, taken_back) = worker.join().unwrap().expect("never unpublished");
        match tag {
            // Kept for the old one: exactly one of them has it.
            1 => assert!(swept != taken_back),
            // Kept for the new one. It may have been taken back for nothing, if the epoch came after the slot.
            _ => assert!(!swept),
        }
        drop(runtime.published.publish(None));
    });
}

/// DESIGN section 5 (b). A worker calls into the generation that it has cached, follows the epoch, and calls again; control
/// withdraws it and lets it exit when its own reference is the last. Two threads. Exhaustive.
///
/// Loom's `strong_count` synchronises, which std's does not: `Retired::is_quiet` needs a fence of its own.
#[test]
fn a_call_in_flight_keeps_its_generation_alive() {
    check(None, || {
        let runtime = Runtime::new();
        let worker = {
            let runtime = Arc::clone(&runtime);
            thread::spawn(move || {
                let (mut epoch, mut cached) = (0, None);
                for _ in 0..2 {
                    if runtime.published.epoch() != epoch {
                        epoch = runtime.published.epoch();
                        drop(cached.take());
                        cached = runtime.published.load();
                    }
                    if let Some(generation) = &cached {
                        generation.call();
                    }
                }
            })
        };
        let old = runtime.published.publish(None).expect("published above");
        while Arc::strong_count(&old) > 1 {
            thread::yield_now();
        }
        old.exit();
        worker.join().unwrap();
    });
}

/// What a worker did with a task that it had to place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Placed {
    /// In the bypass that it follows it runs the task itself.
    Ran,
    /// The policy has it, unless somebody has swept it since.
    Kept,
    /// It has the task again.
    TakenBack,
}

impl Runtime {
    /// As `Worker::follow`, `offer` with no verdict, and `recheck_kept`.
    fn keep(&self, epoch: u64, tag: u8) -> Placed {
        self.custody.set(State::Held, tag, 0);
        let current = self.published.still(epoch) || self.accepts(tag);
        if !current && self.take_back(tag) {
            Placed::TakenBack
        } else {
            Placed::Kept
        }
    }

    /// As `Core::accepts`.
    fn accepts(&self, tag: u8) -> bool {
        let current = self.published.load();
        current.is_some_and(|current| current.tag == tag) && self.published.bypasses() == 0
    }

    /// A worker that follows what is current when it looks; before it looks, generation 1 at its epoch.
    fn follow_and_keep(&self) -> Placed {
        let (epoch, tag, bypassed) = match self.published.follow() {
            Some((epoch, generation, bypassed)) => {
                let generation = generation.expect("never unpublished");
                (epoch, generation.tag, bypassed)
            }
            None => (FIRST_EPOCH, 1, false),
        };
        if bypassed {
            return Placed::Ran;
        }
        self.keep(epoch, tag)
    }
}

/// Of the generation that `Runtime::new` publishes.
const FIRST_EPOCH: u64 = 4;

/// A worker keeps a task for the generation that it follows, while another thread enters a bypass and sweeps. One of them
/// has the task, and while the bypass lasts it is not held. Two threads. Exhaustive.
#[test]
fn a_task_kept_when_a_bypass_begins_is_found_by_one() {
    check(None, || {
        let runtime = Runtime::new();
        assert_eq!(runtime.published.epoch(), FIRST_EPOCH);
        let worker = {
            let runtime = Arc::clone(&runtime);
            thread::spawn(move || runtime.follow_and_keep())
        };
        assert!(runtime.published.enter_bypass());
        let swept = runtime.take_back(1);
        let placed = worker.join().unwrap();
        match placed {
            Placed::Ran | Placed::TakenBack => assert!(!swept, "found twice: {placed:?}"),
            Placed::Kept => assert!(swept, "held in the bypass"),
        }
    });
}

/// The same, and the bypass is left at once: the task may stay with the policy, which is not bypassed any more, but not
/// through the next bypass. Two threads, three preemptions.
#[test]
fn a_task_kept_across_two_short_bypasses_is_found_by_one() {
    check(Some(3), || {
        let runtime = Runtime::new();
        let worker = {
            let runtime = Arc::clone(&runtime);
            thread::spawn(move || runtime.follow_and_keep())
        };
        assert!(runtime.published.enter_bypass());
        let swept = runtime.take_back(1);
        assert!(runtime.published.leave_bypass());
        assert!(runtime.published.enter_bypass());
        let swept_next = runtime.take_back(1);
        let placed = worker.join().unwrap();
        match placed {
            Placed::Ran | Placed::TakenBack => assert!(!swept && !swept_next, "{placed:?}"),
            Placed::Kept => assert!(swept != swept_next, "found by {swept} {swept_next}"),
        }
    });
}

/// The first of two bypasses is left while the second is entered: nobody sweeps for the second if it came first, and
/// then the worker that follows the time before both takes its task back by itself. Three threads, two of which only
/// change the depth; two preemptions.
#[test]
fn a_task_kept_when_one_bypass_gives_way_to_another_is_found_by_one() {
    check(Some(2), || {
        let runtime = Runtime::new();
        let enter_and_sweep =
            |runtime: &Runtime| runtime.published.enter_bypass() && runtime.take_back(1);
        let worker = {
            let runtime = Arc::clone(&runtime);
            thread::spawn(move || runtime.keep(FIRST_EPOCH, 1))
        };
        let second = {
            let runtime = Arc::clone(&runtime);
            thread::spawn(move || enter_and_sweep(&runtime))
        };
        let first = enter_and_sweep(&runtime);
        runtime.published.leave_bypass();
        let second = second.join().unwrap();
        let placed = worker.join().unwrap();
        assert_eq!(runtime.published.bypasses(), 1);
        assert!(!(first && second));
        match placed {
            Placed::Kept => assert!(first != second, "held in the bypass"),
            _ => assert!(!first && !second, "found twice: {placed:?}"),
        }
    });
}

/// A worker keeps a task for generation 1 while one thread enters a bypass and sweeps what is current, and control
/// publishes generation 2 and sweeps what it replaced. One of the three has the task. Two preemptions.
#[test]
fn a_task_kept_when_a_bypass_meets_a_publication_is_found_by_one() {
    check(Some(2), || {
        let runtime = Runtime::new();
        let worker = {
            let runtime = Arc::clone(&runtime);
            thread::spawn(move || runtime.keep(FIRST_EPOCH, 1))
        };
        let bypass = {
            let runtime = Arc::clone(&runtime);
            thread::spawn(move || {
                assert!(runtime.published.enter_bypass());
                let current = runtime.published.load().expect("never unpublished");
                runtime.take_back(current.tag)
            })
        };
        let old = runtime.published.publish(Some(generation(2)));
        let by_control = runtime.take_back(old.expect("published above").tag);
        let by_bypass = bypass.join().unwrap();
        let placed = worker.join().unwrap();
        assert!(!(by_control && by_bypass));
        match placed {
            Placed::Kept => assert!(by_control != by_bypass, "held by a generation that is gone"),
            _ => assert!(!by_control && !by_bypass, "found twice: {placed:?}"),
        }
        drop(runtime.published.publish(None));
    });
}

/// Whoever follows an epoch knows whether it is bypassed. Two threads. Exhaustive.
#[test]
fn a_worker_that_follows_the_epoch_of_a_bypass_knows_of_the_bypass() {
    check(None, || {
        let runtime = Runtime::new();
        let worker = {
            let runtime = Arc::clone(&runtime);
            thread::spawn(move || runtime.published.follow())
        };
        assert!(runtime.published.enter_bypass());
        let during = runtime.published.epoch();
        assert!(runtime.published.leave_bypass());
        if let Some((epoch, _, bypassed)) = worker.join().unwrap() {
            assert_eq!(epoch == during, bypassed, "at epoch {epoch}");
        }
    });
}
