//! What the integration tests share: runtimes that keep out of each other's way, and waits that end.
//!
//! Nothing here waits for luck: each wait has an event, and a deadline so generous that only a hang misses it.

mod stage;

use std::env;
use std::future::Future;
use std::hint;
use std::panic::{Location, resume_unwind};
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use polity::{Builder, Pin, Runtime, Signals};

pub use stage::alone;

/// Nothing that works takes this long, on whatever machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The clock.
#[expect(clippy::disallowed_methods, reason = "tests measure")]
pub fn now() -> Instant {
    Instant::now()
}

/// A builder that neither pins (tests run side by side) nor listens to signals (which belong to the process).
pub fn builder(workers: usize) -> Builder {
    Builder::new()
        .worker_threads(workers)
        .pin(Pin::Off)
        .signals(Signals::Off)
}

/// A runtime from [`builder`].
#[track_caller]
pub fn runtime(workers: usize) -> Runtime {
    builder(workers).build().expect("the runtime starts")
}

/// Runs `body` on a thread of its own, and panics if it takes longer than [`DEADLINE`].
#[track_caller]
pub fn within<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    ends_or(body, String::new)
}

/// [`within`]; `post_mortem` is said of a body that hangs.
#[track_caller]
fn ends_or<R: Send + 'static>(
    body: impl FnOnce() -> R + Send + 'static,
    post_mortem: impl FnOnce() -> String,
) -> R {
    let caller = Location::caller();
    let _place = stage::enter();
    let (done, ended) = channel::<()>();
    let thread = thread::Builder::new()
        .name("test-body".to_owned())
        .spawn(move || {
            stage::join();
            // Dropped when `body` has ended, in whichever way.
            let _done = done;
            body()
        })
        .expect("a thread for the body of the test");
    if ended.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
        panic!("the body at {caller} hangs\n{}", post_mortem());
    }
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// Runs `body` with a runtime of so many workers, which it may drop; [`within`] the deadline.
#[track_caller]
pub fn check(workers: usize, body: impl FnOnce(Runtime) + Send + 'static) {
    check_with(builder(workers), body);
}

/// The same without spares: each worker is one thread, also on a machine that keeps threads waiting for so long that they
/// seem stuck.
#[track_caller]
pub fn check_without_spares(workers: usize, body: impl FnOnce(Runtime) + Send + 'static) {
    check_with(builder(workers).spares(0), body);
}

/// Who hangs is shown with the state of its runtime.
#[track_caller]
fn check_with(builder: Builder, body: impl FnOnce(Runtime) + Send + 'static) {
    let runtime = builder.build().expect("the runtime starts");
    let handle = runtime.handle().clone();
    ends_or(move || body(runtime), move || handle.dump().to_string());
}

/// Lets so much time pass, for a test whose subject that is. No wait for luck: what happens is waited for with
/// [`wait_until`].
pub fn pass(time: Duration) {
    let until = now() + time;
    while let Some(left) = until
        .checked_duration_since(now())
        .filter(|it| !it.is_zero())
    {
        thread::park_timeout(left);
    }
}

/// Keeps the processor for so long.
pub fn burn(time: Duration) {
    let until = now() + time;
    while now() < until {
        hint::spin_loop();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls `future` on this thread until it is done, without the help of any runtime; panics after [`DEADLINE`].
#[track_caller]
pub fn wait_for<F: Future>(what: &str, future: F) -> F::Output {
    let until = now() + DEADLINE;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        let left = until.saturating_duration_since(now());
        assert!(!left.is_zero(), "waited {DEADLINE:?} for {what}");
        thread::park_timeout(left);
    }
}

/// The next message; panics after [`DEADLINE`].
#[track_caller]
pub fn receive<T>(what: &str, from: &Receiver<T>) -> T {
    match from.recv_timeout(DEADLINE) {
        Ok(message) => message,
        Err(error) => panic!("waiting for {what}: {error}"),
    }
}

/// Looks again and again until `condition` holds; panics after [`DEADLINE`]. For what tells nobody when it happens.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let until = now() + DEADLINE;
    while !condition() {
        assert!(now() < until, "waited {DEADLINE:?} until {what}");
        thread::park_timeout(Duration::from_micros(200));
    }
}

/// Runs `body` in a process of its own, where nothing else happens. `test` is the full name of the test that calls this.
#[track_caller]
pub fn in_a_process_of_its_own(test: &str, body: impl FnOnce()) {
    const INSIDE: &str = "POLITY_TESTS_INSIDE";
    if env::var_os(INSIDE).is_some() {
        return body();
    }
    let _place = stage::enter();
    let program = env::current_exe().expect("a test has a program");
    let output = Command::new(program)
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("the program of this test starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{test} in a process of its own: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
