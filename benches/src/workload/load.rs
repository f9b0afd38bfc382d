//! What keeps a runtime busy while something else is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::Peer;

/// Tasks that run until this is dropped; the drop returns when all of them have ended.
///
/// ```
/// use std::rc::Rc;
/// use polity_benches::{Peer, Tokio, named};
///
/// let (tokio, workload) = (Rc::new(Tokio::start(1)), named::<Tokio>("spawn_many_remote_busy1"));
/// let load = workload.load.expect("it has some")(&tokio);
/// (workload.prepare)(&tokio)();
/// drop(load);
/// ```
pub struct Load {
    on: Arc<AtomicBool>,
    ended: Receiver<()>,
}

/// What a task of the load keeps to its end.
struct Part {
    on: Arc<AtomicBool>,
    _ends: Sender<()>,
}

impl Part {
    fn goes_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }
}

impl Load {
    fn start(parts: usize, start: impl Fn(Part)) -> Self {
        let on = Arc::new(AtomicBool::new(true));
        let (ends, ended) = mpsc::channel();
        for _ in 0..parts {
            start(Part {
                on: Arc::clone(&on),
                _ends: ends.clone(),
            });
        }
        Load { on, ended }
    }

    /// Two tasks per worker that yield and stall in turn.
    pub(super) fn yielding<P: Peer>(peer: &P) -> Self {
        Load::start(2 * peer.workers(), |part| {
            P::detach(peer.spawn_from_outside(async move {
                while part.goes_on() {
                    tokio::task::yield_now().await;
                    stall();
                }
            }));
        })
    }

    /// A task per worker that stalls and then has its work go on in a new task.
    pub(super) fn respawning<P: Peer>(peer: &P) -> Self {
        fn link<P: Peer>(part: Part) {
            P::detach(P::spawn(async move {
                if part.goes_on() {
                    stall();
                    link::<P>(part);
                }
            }));
        }
        Load::start(peer.workers(), |part| {
            P::detach(peer.spawn_from_outside(async move { link::<P>(part) }));
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.on.store(false, Ordering::Relaxed);
        // Nobody sends: the answer is that the last sender is gone.
        let _ = self.ended.recv();
    }
}

/// Ten microseconds of a worker's time.
#[expect(clippy::disallowed_methods, reason = "it stalls by the clock")]
fn stall() {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(10) {
        thread::yield_now();
    }
}
