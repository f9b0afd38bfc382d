//! What the tests of policies share: policies made of closures, one that checks every call it gets, and loads.

mod keeper;
mod mixed;
mod record;
mod recorder;
mod script;
mod spy;

use std::hash::{BuildHasher, RandomState};
use std::panic;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use polity::{Attributes, ExitInfo, Generation, Handle, JoinHandle, Runtime};
use polity_tests::{DEADLINE, receive, wait_for};

pub(crate) use keeper::{GiveBack, Keeper};
pub(crate) use mixed::Mixed;
pub(crate) use record::Record;
pub(crate) use recorder::Recorder;
pub(crate) use script::Script;

/// For what tests lock; a panic elsewhere must not hide behind a second one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps panics that a test has ordered off stderr. Their text must say so: "as ordered".
pub(crate) fn expect_ordered_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.to_string().contains("as ordered") {
                default(info);
            }
        }));
    });
}

/// Waits for the exit info of a policy.
#[track_caller]
pub(crate) fn exit_of(runtime: &Handle, generation: Generation) -> Arc<ExitInfo> {
    match runtime.wait_exit(generation, DEADLINE) {
        Some(info) => info,
        None => panic!("generation {generation} did not end within {DEADLINE:?}"),
    }
}

/// splitmix64: the same numbers for the same seed.
pub(crate) struct Random(u64);

impl Random {
    /// From `POLITY_SEED`, or a new one; printed either way, and shown when the test fails.
    pub(crate) fn from_env(test: &str) -> Random {
        let seed = match std::env::var("POLITY_SEED") {
            Ok(seed) => seed.parse().expect("POLITY_SEED is a number"),
            Err(_) => RandomState::new().hash_one(0),
        };
        println!("{test}: POLITY_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The only worker in one long poll: what is spawned meanwhile is offered in this order when it ends.
pub(crate) struct Held {
    release: Sender<()>,
    task: JoinHandle<()>,
}

impl Held {
    pub(crate) fn new(runtime: &Runtime) -> Held {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let task = runtime.spawn(async move {
            begun.send(()).unwrap();
            let _ = released.recv();
        });
        receive("the long poll to begin", &has_begun);
        Held { release, task }
    }

    pub(crate) fn end(self) {
        drop(self.release);
        wait_for("the end of a long poll", self.task).unwrap();
    }
}

/// Spawns a task with this tag.
pub(crate) fn tagged<F>(runtime: &Handle, tag: u64, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    runtime
        .spawn_with(Attributes::new().tag(tag), future)
        .unwrap()
}
