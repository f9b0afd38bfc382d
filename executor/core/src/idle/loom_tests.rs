//! Models of the park protocol (`README.md` beside this file). A worker that sleeps through a push is a deadlock, which
//! loom reports.
//!
//! Stand-ins: [`Queue`] for the locked FIFOs and for the ingress (a look costs a relaxed load and no lock: with the
//! lock alone the fences would have nothing to prove), [`Token`] for the machine's parker.

use std::collections::VecDeque;

use loom::sync::atomic::AtomicUsize;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::idle::Sleepers;
use crate::model::check;
use crate::sync::Ordering;

/// As `queue::Fifo`: the length is a hint that is read without the lock.
struct Queue {
    len: AtomicUsize,
    entries: Mutex<VecDeque<u32>>,
}

impl Queue {
    fn new() -> Self {
        Queue {
            len: AtomicUsize::new(0),
            entries: Mutex::new(VecDeque::new()),
        }
    }

    fn push(&self, entry: u32) {
        let mut entries = self.entries.lock().unwrap();
        entries.push_back(entry);
        self.len.store(entries.len(), Ordering::Relaxed);
    }

    fn pop(&self) -> Option<u32> {
        if self.len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut entries = self.entries.lock().unwrap();
        let entry = entries.pop_front();
        self.len.store(entries.len(), Ordering::Relaxed);
        entry
    }
}

/// As the machine's parker: tokens do not add up.
struct Token {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Token {
    fn new() -> Self {
        Token {
            set: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    fn unpark(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn park(&self) {
        let mut set = self.set.lock().unwrap();
        while !*set {
            set = self.changed.wait(set).unwrap();
        }
        *set = false;
    }
}

/// A runtime of which only one worker is modelled.
struct Shared {
    sleepers: Sleepers,
    queue: Queue,
    token: Token,
}

const WORKER: usize = 0;

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Shared {
            sleepers: Sleepers::new(1),
            queue: Queue::new(),
            token: Token::new(),
        })
    }

    /// The worker's cycle, reduced to its queue: as `Worker::look_once_more`, then the park. Returns what it found, and
    /// how often it announced itself.
    fn find(&self, mut searcher: bool) -> (u32, usize) {
        let mut announced = 0;
        loop {
            if let Some(found) = self.queue.pop() {
                return (found, announced);
            }
            if searcher {
                self.sleepers.end_search();
            }
            self.sleepers.announce(WORKER);
            announced += 1;
            if let Some(found) = self.queue.pop() {
                self.sleepers.retract(WORKER);
                return (found, announced);
            }
            self.token.park();
            self.sleepers.retract(WORKER);
            // As `Worker::unparked`.
            searcher = true;
        }
    }
}

/// Two threads. Exhaustive.
#[test]
fn a_push_is_never_slept_through() {
    check(None, || {
        let shared = Shared::new();
        let pusher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.queue.push(7);
                if let Some(worker) = shared.sleepers.wake_one(WORKER, |_| true) {
                    assert_eq!(worker, WORKER);
                    shared.token.unpark();
                }
            })
        };
        assert_eq!(shared.find(false).0, 7);
        pusher.join().unwrap();
    });
}

/// Two threads. Exhaustive.
#[test]
fn a_push_that_skips_because_of_a_searcher_is_found() {
    check(None, || {
        let shared = Shared::new();
        assert!(shared.sleepers.begin_search(WORKER));
        let pusher = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.queue.push(7);
                if shared.sleepers.wake_unless_searching(WORKER).is_some() {
                    shared.token.unpark();
                }
            })
        };
        assert_eq!(shared.find(true).0, 7);
        pusher.join().unwrap();
    });
}

/// A kick leaves nothing in a queue; what it must not miss is a word that the worker looks at in its cycle, here as in
/// `Worker::refresh`. Two threads. Exhaustive.
#[test]
fn a_kick_between_the_last_look_and_the_park_is_not_lost() {
    check(None, || {
        let shared = Shared::new();
        let epoch = Arc::new(AtomicUsize::new(0));
        let kicker = {
            let (shared, epoch) = (Arc::clone(&shared), Arc::clone(&epoch));
            thread::spawn(move || {
                epoch.store(1, Ordering::Relaxed);
                if shared.sleepers.wake_this(WORKER) {
                    shared.token.unpark();
                }
            })
        };
        loop {
            shared.sleepers.announce(WORKER);
            if epoch.load(Ordering::Relaxed) == 1 {
                shared.sleepers.retract(WORKER);
                break;
            }
            shared.token.park();
            shared.sleepers.retract(WORKER);
        }
        kicker.join().unwrap();
    });
}

/// Three threads, at most three preemptions.
#[test]
fn two_pushes_cost_one_unpark_for_each_announcement_and_both_are_found() {
    check(Some(3), || {
        let shared = Shared::new();
        let push = |entry| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.queue.push(entry);
                let woken = shared.sleepers.wake_one(WORKER, |_| true).is_some();
                if woken {
                    shared.token.unpark();
                }
                usize::from(woken)
            })
        };
        let pushers = [push(1), push(2)];
        let (first, announced) = shared.find(false);
        let (second, announced_again) = shared.find(false);
        assert_eq!(first + second, 3);
        let unparked: usize = pushers
            .into_iter()
            .map(|pusher| pusher.join().unwrap())
            .sum();
        assert!(unparked <= announced + announced_again);
    });
}

/// The bit is cleared once: by its worker or by one waker. Three threads. Exhaustive.
#[test]
fn one_caller_takes_an_announcement() {
    check(None, || {
        let shared = Shared::new();
        shared.sleepers.announce(WORKER);
        let wake = || {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.sleepers.wake_this(WORKER))
        };
        let wakers = [wake(), wake()];
        let taken_back = shared.sleepers.retract(WORKER);
        let woken = wakers
            .into_iter()
            .filter_map(|waker| waker.join().unwrap().then_some(()))
            .count();
        assert_eq!(usize::from(taken_back) + woken, 1);
    });
}

/// The parker of the real machine (`executor/src/machine.rs`), copied: loom cannot reach into that crate.
mod parker {
    use loom::thread::{self, Thread};

    use crate::model::check;
    use crate::sync::{AtomicU8, Ordering};
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    const EMPTY: u8 = 0;
    const PARKED: u8 = 1;
    const NOTIFIED: u8 = 3;

    struct Parker(AtomicU8);

    impl Parker {
        fn park(&self) {
            let announced =
                self.0
                    .compare_exchange(EMPTY, PARKED, Ordering::Release, Ordering::Acquire);
            if announced.is_ok() {
                while self.0.load(Ordering::Acquire) == PARKED {
                    thread::park();
                }
            }
            self.0.swap(EMPTY, Ordering::AcqRel);
        }

        fn unpark(&self, thread: &Thread) {
            if self.0.swap(NOTIFIED, Ordering::AcqRel) == PARKED {
                thread.unpark();
            }
        }
    }

    /// Two threads. Exhaustive.
    #[test]
    fn an_unpark_is_never_lost_and_shows_what_came_before_it() {
        check(None, || {
            let parker = Arc::new(Parker(AtomicU8::new(EMPTY)));
            let work = Arc::new(AtomicUsize::new(0));
            let worker = thread::current();
            let notifier = {
                let (parker, work) = (Arc::clone(&parker), Arc::clone(&work));
                thread::spawn(move || {
                    for round in 1..=2 {
                        work.store(round, Ordering::Relaxed);
                        parker.unpark(&worker);
                    }
                })
            };
            while work.load(Ordering::Relaxed) != 2 {
                parker.park();
            }
            notifier.join().unwrap();
        });
    }
}
