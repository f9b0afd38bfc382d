//! Wakers, joiners and aborters on other threads.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Wake, Waker};
use std::thread;

use super::{Drops, ROUNDS, Runtime, poll_join};

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
