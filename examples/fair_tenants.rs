//! Two tenants share the processors by weight, and the weights are changed while both run.
//!
//! `cargo run --release --example fair_tenants` (three seconds).
//!
//! Both tenants would take all the time there is: on each worker two tasks of each compute, up to a millisecond between two
//! `yield_now`s, and those of `blue` five times as long as those of `gold`. Without a policy time goes by turns, and so to the one with
//! the longer polls. Under `Vtime` it goes by weight, however long the polls are. Ten times a second the shares are printed.
//!
//! On a machine that is busy with other things some lines are off: what the system takes from a worker counts, too.

// The seams that this lint guards are the runtime's. Tenants measure what they get.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use polity::{Attributes, JoinHandle, Runtime};
use polity_policies::Vtime;

const WORKERS: usize = 2;
const TASKS_PER_WORKER: usize = 2;

struct Tenant {
    name: &'static str,
    used_ns: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = polity::Builder::new().worker_threads(WORKERS).build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let gold = start(&runtime, "gold", Duration::from_micros(200), &stop)?;
    let blue = start(&runtime, "blue", Duration::from_millis(1), &stop)?;

    watch("no policy: by turns", &gold, &blue);
    runtime.load(Vtime::new())?;
    set_weights(&gold, 300, &blue, 100)?;
    watch("vtime, gold 300 : blue 100", &gold, &blue);
    set_weights(&gold, 100, &blue, 300)?; // no restart, no lock, not even a pause
    watch("vtime, gold 100 : blue 300", &gold, &blue);

    stop.store(true, Relaxed);
    for task in gold.tasks.into_iter().chain(blue.tasks) {
        runtime.block_on(task)?;
    }
    Ok(())
}

fn start(
    runtime: &Runtime,
    name: &'static str,
    poll: Duration,
    stop: &Arc<AtomicBool>,
) -> Result<Tenant, Box<dyn Error>> {
    let used_ns = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..WORKERS * TASKS_PER_WORKER {
        let future = compute(poll, Arc::clone(&used_ns), Arc::clone(stop));
        tasks.push(runtime.spawn_with(Attributes::new().name(name), future)?);
    }
    Ok(Tenant {
        name,
        used_ns,
        tasks,
    })
}

/// Never waits: it computes, says how long, and lets others have a turn.
async fn compute(poll: Duration, used_ns: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    while !stop.load(Relaxed) {
        let began = Instant::now();
        while began.elapsed() < poll {
            black_box((0..1000).fold(0_u64, |sum, n| sum ^ black_box(n)));
        }
        used_ns.fetch_add(began.elapsed().as_nanos() as u64, Relaxed);
        polity::yield_now().await;
    }
}

/// A weight is a task's. What it is changed to holds from its next poll on.
fn set_weights(
    gold: &Tenant,
    of_gold: u32,
    blue: &Tenant,
    of_blue: u32,
) -> Result<(), Box<dyn Error>> {
    for (tenant, weight) in [(gold, of_gold), (blue, of_blue)] {
        for task in &tenant.tasks {
            task.set_weight(weight)?;
        }
    }
    Ok(())
}

/// Prints for a second who got how much.
fn watch(title: &str, gold: &Tenant, blue: &Tenant) {
    let used = || [gold, blue].map(|tenant| tenant.used_ns.load(Relaxed));
    let percent = |before: [u64; 2], after: [u64; 2]| {
        let [gold, blue] = [after[0] - before[0], after[1] - before[1]];
        100.0 * gold as f64 / (gold + blue).max(1) as f64
    };
    println!("{title}");
    let first = used();
    let mut before = first;
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(100));
        let after = used();
        let part = percent(before, after);
        before = after;
        let bar = "#".repeat((part / 2.0).round() as usize);
        println!(
            "  {} {part:4.1} %  {bar:.<50}  {:4.1} % {}",
            gold.name,
            100.0 - part,
            blue.name,
        );
    }
    println!("  {:.1} % in all\n", percent(first, used()));
}
