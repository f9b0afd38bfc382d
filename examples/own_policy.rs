//! A policy of your own, loaded and unloaded while tasks run.
//!
//! `cargo run --example own_policy`. Four tasks share one worker and never wait: whenever one of them runs it writes
//! its letter and yields, so the letters are the order in which the worker ran them. Two are urgent (`u`), two are
//! batch work (`b`).

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use polity::{Attributes, DsqId, Host, InitError, Policy, Position, Runtime, TaskView, WorkerId};

const URGENT: DsqId = DsqId::Custom(0);
const OTHERS: DsqId = DsqId::Custom(1);

/// Runs a task that is not urgent only when no urgent one wants to run. (So batch work may wait for ever; for real
/// use take `polity_policies::Priority`, under which waiting tasks age.)
struct UrgentFirst;

impl Policy for UrgentFirst {
    type Task = ();

    fn name(&self) -> &str {
        "urgent_first"
    }

    /// Called once, before anything else. The two queues go when the policy goes.
    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        host.create_dsq(0)?;
        host.create_dsq(1)?;
        Ok(())
    }

    /// This task wants to run: put it somewhere.
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        let dsq = match task.name() {
            Some("urgent") => URGENT,
            _ => OTHERS,
        };
        host.insert(task.id(), dsq, Position::Tail);
    }

    /// This worker has nothing to run: give it something. One task at a time, so that the choice is a fresh one
    /// after every poll.
    fn dispatch(&self, host: &Host<'_>, _worker: WorkerId, _prev: Option<&TaskView<'_>>) {
        if host.move_to_local(URGENT, 1) == 0 {
            host.move_to_local(OTHERS, 1);
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = polity::Builder::new().worker_threads(1).build()?;
    let letters = Arc::new(Mutex::new(String::new()));

    for name in ["batch", "urgent", "batch", "urgent"] {
        let attributes = Attributes::new().name(name);
        // Dropping the handle detaches the task: it runs until the runtime goes.
        drop(runtime.spawn_with(attributes, write_for_ever(&name[..1], Arc::clone(&letters)))?);
    }

    println!("no policy     {}", listen(&runtime, &letters));
    let generation = runtime.load(UrgentFirst)?; // from here on the same tasks run in another order
    println!("urgent_first  {}", listen(&runtime, &letters));
    runtime.unload();
    println!("no policy     {}", listen(&runtime, &letters));

    if let Some(info) = runtime.exit_info(generation) {
        println!("{info}");
    }
    Ok(())
}

async fn write_for_ever(letter: &'static str, letters: Arc<Mutex<String>>) {
    loop {
        lock(&letters).push_str(letter);
        polity::yield_now().await;
    }
}

/// Lets the tasks run for a moment, and returns the last letters written.
fn listen(runtime: &Runtime, letters: &Mutex<String>) -> String {
    runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
    let mut letters = lock(letters);
    let last = letters.len().saturating_sub(40);
    letters.split_off(last)
}

fn lock(letters: &Mutex<String>) -> MutexGuard<'_, String> {
    letters.lock().unwrap_or_else(PoisonError::into_inner)
}
