//! Pings beside batches that compute, in one process: what a priority costs, and what it is worth.
//!
//! `cargo run --release --example priorities` (some seconds).
//!
//! The story is that of tokio's issue 8085: a service has work that must answer at once, and work that takes all the processor there
//! is, and with one queue for both the first waits behind the second. The usual ways out are a second runtime, or threads of
//! another nice value. Here it is one runtime, and the answer to "who goes first?" is loaded while it runs.
//!
//! On each worker four batches compute, about 1 ms between two `yield_now`s. Two hundred times a second a thread outside sends a
//! ping to a task, and the time until the task has it is recorded: first under the built-in FIFO, then under `Priority`. Under FIFO a
//! ping waits for its turn behind the batches; under `Priority` for the end of one poll. **No policy makes it shorter than
//! that**: scheduling happens between polls. The batches should lose next to nothing by it.
//!
//! It is not a benchmark: on a machine that is busy with other things the kernel adds milliseconds of its own.

// The seams that this lint guards are the runtime's. A load generator lives by the clock.
#![allow(clippy::disallowed_methods)]

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use polity::{Attributes, JoinSet, Runtime};
use polity_policies::Priority;
use tokio::sync::mpsc;

/// Pings beside batches that compute, under the built-in FIFO and by priority.
#[derive(Parser)]
#[command(name = "priorities")]
struct Args {
    /// Length of each of the two phases.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// How many workers.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
}

const BATCHES_PER_WORKER: usize = 4;
const PINGS_PER_SECOND: u32 = 200;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let length = Duration::from_secs(args.seconds);
    let workers = usize::from(args.workers);
    let runtime = polity::Builder::new().worker_threads(workers).build()?;
    let stop = Arc::new(AtomicBool::new(false));
    let batches = Arc::new(AtomicU64::new(0));
    let mut tasks = start_batches(&runtime, &stop, &batches)?;
    let (pings, to_answer) = mpsc::unbounded_channel();
    let (answered, answers) = std::sync::mpsc::channel();
    // What is urgent about it is said once, where it is spawned. Without a policy nobody reads it.
    let urgent = Attributes::new().name("pings").weight(10_000);
    let pinged = runtime.spawn_with(urgent, answer(to_answer, answered))?;

    println!("policy          pings   p50        p99        batches/s");
    phase("built-in FIFO", length, &pings, &answers, &batches)?;
    runtime.load(Priority::new())?;
    phase("priority", length, &pings, &answers, &batches)?;

    // Ordering: Relaxed; it says nothing but "stop".
    stop.store(true, Ordering::Relaxed);
    drop(pings);
    runtime.block_on(async {
        while let Some(batch) = tasks.join_next().await {
            batch?;
        }
        pinged.await
    })?;
    Ok(())
}

/// Tasks that would take every processor there is.
fn start_batches(
    runtime: &Runtime,
    stop: &Arc<AtomicBool>,
    done: &Arc<AtomicU64>,
) -> Result<JoinSet<()>, Box<dyn Error>> {
    let _entered = runtime.enter();
    let mut tasks = JoinSet::new();
    for _ in 0..BATCHES_PER_WORKER * runtime.worker_count() {
        let (stop, done) = (Arc::clone(stop), Arc::clone(done));
        let low = Attributes::new().name("batch").weight(10);
        tasks.spawn_with(low, async move {
            // Ordering, here and below: Relaxed; a flag that stands alone, and a count.
            while !stop.load(Ordering::Relaxed) {
                compute_for(Duration::from_millis(1));
                done.fetch_add(1, Ordering::Relaxed);
                polity::yield_now().await;
            }
        })?;
    }
    Ok(tasks)
}

fn compute_for(time: Duration) {
    let begun = Instant::now();
    let mut state = 1u64;
    while begun.elapsed() < time {
        for _ in 0..1000 {
            state = black_box(state.wrapping_mul(6364136223846793005).wrapping_add(1));
        }
    }
}

/// Says of each ping how long it was under way.
async fn answer(
    mut pings: mpsc::UnboundedReceiver<Instant>,
    answered: std::sync::mpsc::Sender<Duration>,
) {
    while let Some(sent) = pings.recv().await {
        if answered.send(sent.elapsed()).is_err() {
            return;
        }
    }
}

/// Pings on a schedule, whether or not the earlier ones were answered, and prints a line.
fn phase(
    policy: &str,
    length: Duration,
    pings: &mpsc::UnboundedSender<Instant>,
    answers: &std::sync::mpsc::Receiver<Duration>,
    batches: &AtomicU64,
) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let batches_before = batches.load(Ordering::Relaxed);
    let count = length.as_secs() as u32 * PINGS_PER_SECOND;
    for ping in 0..count {
        let due = begun + Duration::from_secs(1) * ping / PINGS_PER_SECOND;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        pings.send(Instant::now())?;
    }
    let mut latencies = Histogram::<u64>::new(3)?;
    for _ in 0..count {
        let latency = answers.recv_timeout(Duration::from_secs(30))?;
        latencies.record(latency.as_nanos() as u64)?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let batches = (batches.load(Ordering::Relaxed) - batches_before) as f64 / seconds;
    let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e6;
    println!(
        "{policy:<15} {count:>5}  {:>6.2} ms  {:>6.2} ms  {batches:>9.0}",
        ms(0.5),
        ms(0.99)
    );
    Ok(())
}
