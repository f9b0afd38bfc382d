//! The smallest program: build a runtime, spawn a task, wait for it.
//!
//! `cargo run --example hello`. The next step is `own_policy.rs`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    // One worker per core. Without a policy, tasks run first come, first served.
    let runtime = polity::Runtime::new()?;

    // `block_on` drives a future on this thread; what is spawned runs on the workers.
    let answer = runtime.block_on(async {
        let task = polity::spawn(async { 6 * 7 });
        task.await // an error would say that the task panicked or was aborted
    })?;

    println!("a worker says {answer}");
    Ok(())
}
