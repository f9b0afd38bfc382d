//! What the machine charges for the steps that a scheduler is made of.
//!
//! **Use it** before you read any other figure: on a machine where a line takes 100 ns from core to core, and another where it takes
//! 30, the same scheduler is another one. **Not for** judging polity, of which nothing runs here.
//!
//! | function | what |
//! |---|---|
//! | `alone/read_modify_write`, `alone/fence` | one `fetch_add` on a line that nobody else wants, one `SeqCst` fence |
//! | `alone/mutex` | `std`'s, locked and unlocked |
//! | `alone/clock` | `Instant::now` |
//! | `alone/virtual_call` | a call through `dyn` |
//! | `alone/malloc` | a box of 256 bytes, made and freed |
//! | `alone/system_call` | `sched_yield`, with nobody to yield to |
//! | `alone/driver_entered`, `alone/driver_driven` | `block_on` of tokio's current-thread runtime, of a future that is ready, and of one that lets the driver look once |
//! | `two_threads/read_modify_write`, `two_threads/mutex` | the same as above while another core does it too |
//! | `two_threads/line` | a word that two spinning threads write by turns: there and back |
//! | `two_threads/park` | two threads that unpark each other and park: there and back |
//!
//! **Noise.** With fewer than two free cores the second group measures the kernel's scheduler. A core that was idle takes some 50 us to
//! come back on virtual machines; `two_threads/park` has that in it or not, from one run to the next.

use std::hint::{black_box, spin_loop};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;

fn main() {
    let mut criterion = polity_benches::settings();
    alone(&mut criterion);
    two_threads(&mut criterion);
    criterion.final_summary();
}

fn alone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("alone");
    let word = AtomicU64::new(0);
    group.bench_function("read_modify_write", |bencher| {
        bencher.iter(|| word.fetch_add(1, Ordering::AcqRel));
    });
    group.bench_function("fence", |bencher| {
        bencher.iter(|| fence(Ordering::SeqCst));
    });
    let mutex = Mutex::new(0_u64);
    group.bench_function("mutex", |bencher| bencher.iter(|| count(&mutex)));
    group.bench_function("clock", |bencher| bencher.iter(now));
    let call: Box<dyn Fn(u64) -> u64> = Box::new(|n| n + 1);
    let call = black_box(call);
    group.bench_function("virtual_call", |bencher| {
        bencher.iter(|| call(black_box(1)));
    });
    group.bench_function("malloc", |bencher| {
        bencher.iter(|| drop(black_box(Box::new([0_u8; 256]))));
    });
    group.bench_function("system_call", |bencher| bencher.iter(thread::yield_now));
    let driver = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    group.bench_function("driver_entered", |bencher| {
        bencher.iter(|| driver.block_on(async {}));
    });
    group.bench_function("driver_driven", |bencher| {
        bencher.iter(|| driver.block_on(tokio::task::yield_now()));
    });
    group.finish();
}

fn two_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two_threads");
    let word = AtomicU64::new(0);
    group.bench_function("read_modify_write", |bencher| {
        bencher.iter_custom(|times| {
            contended(times, &|| {
                word.fetch_add(1, Ordering::AcqRel);
            })
        });
    });
    let mutex = Mutex::new(0_u64);
    group.bench_function("mutex", |bencher| {
        bencher.iter_custom(|times| contended(times, &|| count(&mutex)));
    });
    group.bench_function("line", |bencher| {
        bencher.iter_custom(|times| by_turns(times, &spin_loop, &|_| {}));
    });
    group.bench_function("park", |bencher| {
        bencher.iter_custom(|times| by_turns(times, &thread::park, &thread::Thread::unpark));
    });
    group.finish();
}

#[expect(
    clippy::disallowed_methods,
    reason = "what the clock itself costs is asked here"
)]
fn now() -> Instant {
    Instant::now()
}

fn count(mutex: &Mutex<u64>) {
    *mutex.lock().expect("nobody panics here") += 1;
}

/// How long this thread takes for `times` steps while another one takes the same steps without end.
fn contended(times: u64, step: &(dyn Fn() + Sync)) -> Duration {
    let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                step();
                begun.store(true, Ordering::Relaxed);
            }
        });
        while !begun.load(Ordering::Relaxed) {
            spin_loop();
        }
        let start = now();
        for _ in 0..times {
            step();
        }
        let took = start.elapsed();
        over.store(true, Ordering::Relaxed);
        took
    })
}

/// How long it takes two threads to have `times` turns each at one word: who has not the turn waits by `wait`, and who gives it away
/// tells the other one by `tell`.
fn by_turns(
    times: u64,
    wait: &(dyn Fn() + Sync),
    tell: &(dyn Fn(&thread::Thread) + Sync),
) -> Duration {
    let word = AtomicU64::new(0);
    // Ordering: Release pairs with Acquire: what each thread does in its turn comes after what the other one did.
    let turns = |first: u64, other: &thread::Thread| {
        for nth in 0..times {
            let mine = 1 + 2 * nth + first;
            while word.load(Ordering::Acquire) != mine {
                wait();
            }
            word.store(mine + 1, Ordering::Release);
            tell(other);
        }
    };
    thread::scope(|scope| {
        let this = thread::current();
        let other = scope.spawn(move || turns(1, &this));
        let start = now();
        word.store(1, Ordering::Release);
        turns(0, other.thread());
        // The last turn is the other's.
        other.join().expect("it panics nowhere");
        start.elapsed()
    })
}
