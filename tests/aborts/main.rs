//! What native code cannot contain: it ends the process, with polity as without. Not wishes but limits, written down so
//! that nobody takes them for promises, and so that we notice should one of them move.
//!
//! Each of these tests dies in a process of its own: this program again, told by `INSIDE` to go through with it.
//! `panic = "abort"` is missing: it is a matter of the whole build, and this one unwinds.

use std::alloc::{Layout, handle_alloc_error};
use std::cell::RefCell;
use std::env;
use std::hint::black_box;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Command, ExitStatus, Stdio};
use std::thread;

use polity::{ExitInfo, Host, Policy, Runtime, TaskView};
use polity_tests::{runtime, wait_for, wait_until};

const INSIDE: &str = "POLITY_TESTS_INSIDE_AN_ABORT";

/// How a process ended, and what it wrote to stderr.
struct Death {
    status: ExitStatus,
    stderr: String,
}

/// Runs `body` in a process of its own, which must not survive it. `test` is the name of the test that calls this.
#[track_caller]
fn death_of(test: &str, body: impl FnOnce(Runtime)) -> Death {
    if env::var_os(INSIDE).is_some() {
        body(runtime(2));
        println!("alive");
        process::exit(0);
    }
    let mut child = Command::new("sh")
        .args(["-c", r#"ulimit -c 0; exec "$@""#, "sh"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        // Looking up symbols on the way out takes so long that the callback counts as stuck.
        .env("RUST_BACKTRACE", "0")
        .env(INSIDE, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stderr.take().unwrap();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let mut status = None;
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("the process has died", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
    }));
    if ended.is_err() {
        // A test that fails must not leave its child behind.
        let _ = child.kill();
        let _ = child.wait();
    }
    let stderr = reader.join().unwrap();
    let status = status.unwrap_or_else(|| panic!("{test} hangs: {stderr}"));
    Death { status, stderr }
}

impl Death {
    #[track_caller]
    fn by(self, signal: i32, messages: &[&str]) {
        let Death { status, stderr } = self;
        assert_eq!(status.signal(), Some(signal), "{status}: {stderr}");
        for message in messages {
            assert!(stderr.contains(message), "{message:?} is not in {stderr}");
        }
    }

    #[track_caller]
    fn with_code(self, code: i32) {
        let Death { status, stderr } = self;
        assert_eq!(status.code(), Some(code), "{status}: {stderr}");
    }
}

/// In a poll of a task.
fn in_poll(body: impl FnOnce() + Send + 'static) -> impl FnOnce(Runtime) {
    |runtime| drop(wait_for("the task", runtime.spawn(async { body() })))
}

/// A policy that does one thing in one place.
struct Does<E, X> {
    in_enqueue: E,
    in_exit: X,
}

impl<E, X> Policy for Does<E, X>
where
    E: Fn() + Send + Sync + 'static,
    X: Fn() + Send + Sync + 'static,
{
    type Task = ();

    fn name(&self) -> &str {
        "deadly"
    }

    fn enqueue(&self, _host: &Host<'_>, _task: &TaskView<'_>) {
        (self.in_enqueue)();
    }

    fn exit(&self, _info: &ExitInfo) {
        (self.in_exit)();
    }
}

/// In a callback on a worker.
fn in_callback(body: fn()) -> impl FnOnce(Runtime) {
    move |runtime| {
        let deadly = Does {
            in_enqueue: body,
            in_exit: || (),
        };
        runtime.load(deadly).unwrap();
        drop(wait_for("the task", runtime.spawn(async {})));
    }
}

/// In `exit`, on a thread that may be lost.
fn in_exit(body: fn()) -> impl FnOnce(Runtime) {
    move |runtime| {
        let deadly = Does {
            in_enqueue: || (),
            in_exit: body,
        };
        runtime.load(deadly).unwrap();
        // Which waits for the end of the policy.
        drop(runtime);
        wait_until("exit is through", || false);
    }
}

// ---- a panic during the unwinding of another ----

struct PanicsAlsoWhileUnwinding;

impl Drop for PanicsAlsoWhileUnwinding {
    fn drop(&mut self) {
        panic!("the second panic");
    }
}

fn panic_twice() {
    let _second = PanicsAlsoWhileUnwinding;
    panic!("the first panic");
}

const TWICE: [&str; 3] = ["the first panic", "the second panic", "aborting"];

#[test]
fn a_second_panic_while_a_poll_unwinds_aborts_the_process() {
    let test = "a_second_panic_while_a_poll_unwinds_aborts_the_process";
    death_of(test, in_poll(panic_twice)).by(libc::SIGABRT, &TWICE);
}

#[test]
fn a_second_panic_while_a_callback_unwinds_aborts_the_process() {
    let test = "a_second_panic_while_a_callback_unwinds_aborts_the_process";
    death_of(test, in_callback(panic_twice)).by(libc::SIGABRT, &TWICE);
}

#[test]
fn a_second_panic_while_exit_unwinds_aborts_the_process() {
    let test = "a_second_panic_while_exit_unwinds_aborts_the_process";
    death_of(test, in_exit(panic_twice)).by(libc::SIGABRT, &TWICE);
}

/// A future with two fields that panic when dropped: the second one does so while the first one's panic unwinds.
#[test]
fn two_panics_in_the_drop_of_one_future_abort_the_process() {
    let test = "two_panics_in_the_drop_of_one_future_abort_the_process";
    let death = death_of(test, |runtime| {
        let task = runtime.spawn(async {
            let _both = (PanicsAlsoWhileUnwinding, PanicsAlsoWhileUnwinding);
        });
        drop(wait_for("the task", task));
    });
    death.by(libc::SIGABRT, &["the second panic", "aborting"]);
}

/// Its panic cannot be caught by anybody: std does not let it leave the thread's end.
#[test]
fn a_panic_in_the_drop_of_a_thread_local_aborts_the_process() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("at the end of the thread");
        }
    }
    thread_local! {
        static LEFT_BEHIND: RefCell<Option<Bomb>> = const { RefCell::new(None) };
    }
    let test = "a_panic_in_the_drop_of_a_thread_local_aborts_the_process";
    let death = death_of(test, |runtime| {
        let task = runtime.spawn(async { LEFT_BEHIND.set(Some(Bomb)) });
        wait_for("the task", task).unwrap();
        drop(runtime);
    });
    let messages = ["at the end of the thread", "thread local panicked on drop"];
    death.by(libc::SIGABRT, &messages);
}

// ---- the stack ----

fn overflow() {
    /// Deeper each time, and not a loop.
    fn deeper(depth: u64) -> u64 {
        let frame = black_box([depth; 64]);
        if black_box(depth) == u64::MAX {
            return 0;
        }
        deeper(depth + 1) + frame[black_box(0)]
    }
    black_box(deeper(0));
}

const OVERFLOWED: [&str; 2] = ["thread 'polity-worker'", "has overflowed its stack"];

#[test]
fn a_stack_overflow_in_a_poll_ends_the_process_and_names_the_thread() {
    let test = "a_stack_overflow_in_a_poll_ends_the_process_and_names_the_thread";
    death_of(test, in_poll(overflow)).by(libc::SIGABRT, &OVERFLOWED);
}

#[test]
fn a_stack_overflow_in_a_callback_ends_the_process_and_names_the_thread() {
    let test = "a_stack_overflow_in_a_callback_ends_the_process_and_names_the_thread";
    death_of(test, in_callback(overflow)).by(libc::SIGABRT, &OVERFLOWED);
}

#[test]
fn a_stack_overflow_in_exit_ends_the_process_and_names_the_thread() {
    let test = "a_stack_overflow_in_exit_ends_the_process_and_names_the_thread";
    let messages = ["thread 'polity-exit'", "has overflowed its stack"];
    death_of(test, in_exit(overflow)).by(libc::SIGABRT, &messages);
}

// ---- memory, and the process itself ----

fn fail_to_allocate() {
    handle_alloc_error(Layout::new::<[u8; 4096]>());
}

#[test]
fn a_failed_allocation_in_a_poll_aborts_the_process() {
    let test = "a_failed_allocation_in_a_poll_aborts_the_process";
    let message = "memory allocation of 4096 bytes failed";
    death_of(test, in_poll(fail_to_allocate)).by(libc::SIGABRT, &[message]);
}

#[test]
fn a_failed_allocation_in_a_callback_aborts_the_process() {
    let test = "a_failed_allocation_in_a_callback_aborts_the_process";
    let message = "memory allocation of 4096 bytes failed";
    death_of(test, in_callback(fail_to_allocate)).by(libc::SIGABRT, &[message]);
}

#[test]
fn an_exit_in_a_poll_ends_the_process_with_its_code() {
    let test = "an_exit_in_a_poll_ends_the_process_with_its_code";
    death_of(test, in_poll(|| process::exit(42))).with_code(42);
}

#[test]
fn an_exit_in_a_callback_ends_the_process_with_its_code() {
    let test = "an_exit_in_a_callback_ends_the_process_with_its_code";
    death_of(test, in_callback(|| process::exit(43))).with_code(43);
}

#[test]
fn an_abort_in_a_callback_ends_the_process() {
    let test = "an_abort_in_a_callback_ends_the_process";
    death_of(test, in_callback(|| process::abort())).by(libc::SIGABRT, &[]);
}
