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
