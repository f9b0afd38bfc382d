//! Futures that are bound to a thread: polled and dropped there, whoever does the worker's work.

mod adrift;
mod sets;
mod storm;
mod tasks;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use polity::{Attributes, BoxPolicy, Runtime, WorkerId, WorkerMask};
use polity_policies::{Fifo, Priority, Vtime};
use polity_tests::wait_until;

fn on(worker: usize) -> Attributes {
    Attributes::new().affinity(WorkerMask::from_iter([WorkerId::new(worker as u16)]))
}

/// Nobody, and policies that use the global, the local and custom DSQs.
fn policies() -> [Option<BoxPolicy>; 5] {
    [
        None,
        Some(BoxPolicy::new(Fifo::new())),
        Some(BoxPolicy::new(Fifo::per_worker())),
        Some(BoxPolicy::new(Priority::new())),
        Some(BoxPolicy::new(Vtime::new())),
    ]
}

/// How many [`Bound`] there are, and how often one was touched by a thread that it does not belong to.
#[derive(Clone, Default)]
struct Bounds(Arc<Counts>);

#[derive(Default)]
struct Counts {
    made: AtomicUsize,
    dropped: AtomicUsize,
    strayed: AtomicUsize,
}

/// What must not leave its thread. An `Rc`, so the compiler knows too; where that is got around, it counts.
struct Bound {
    thread: ThreadId,
    touched: Rc<Cell<usize>>,
    bounds: Bounds,
}

impl Bounds {
    fn bind(&self) -> Bound {
        self.0.made.fetch_add(1, Ordering::SeqCst);
        Bound {
            thread: thread::current().id(),
            touched: Rc::default(),
            bounds: self.clone(),
        }
    }

    fn dropped(&self) -> usize {
        self.0.dropped.load(Ordering::SeqCst)
    }

    /// All that were made have been dropped, and touched by nobody else.
    #[track_caller]
    fn check(&self) {
        assert_eq!(self.0.strayed.load(Ordering::SeqCst), 0);
        assert_eq!(self.dropped(), self.0.made.load(Ordering::SeqCst));
        assert_ne!(self.dropped(), 0);
    }

    /// The same, if it may take a while.
    #[track_caller]
    fn wait(&self) {
        wait_until("what is bound is dropped", || {
            self.dropped() == self.0.made.load(Ordering::SeqCst)
        });
        self.check();
    }
}

impl Bound {
    fn touch(&self) {
        if thread::current().id() != self.thread {
            self.bounds.0.strayed.fetch_add(1, Ordering::SeqCst);
        }
        self.touched.set(self.touched.get() + 1);
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        self.touch();
        self.bounds.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn stand_in_has_left(runtime: &Runtime) {
    wait_until("the stand-in has gone home", || {
        !runtime.dump().to_string().contains("a spare")
    });
}
