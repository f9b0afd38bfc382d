//! How many instructions core's paths take, by callgrind: a guard against regressions, and no claim about time.
//!
//! **Use it** after any change to core or to a policy that ships: it shows every instruction more, whatever else the machine
//! does, and takes seconds. **Not for** choosing between two designs: a fence and a read-modify-write are one instruction
//! each, a missing cache line is none, and nobody else is there. That is what the other benches are for.
//!
//! ```sh
//! cargo install --locked gungraun-runner --version 0.20.0 # as in `Cargo.lock`; valgrind has to be there too
//! cargo bench -p polity-benches --features instructions --bench instructions
//! ```
//!
//! `.ci/run` does both, where there is a valgrind.
//!
//! | row | an operation is |
//! |---|---|
//! | `spawn_local`, `spawn_outside`, `spawn_chained` | an empty task, spawned, run and freed: many by one task; many by a thread that is no worker; each by the one before it |
//! | `spawn_fifo` | the first of these under `Fifo::new` |
//! | `wake_pair` | a task wakes another one and waits |
//! | `wake_outside` | a thread that is no worker wakes a task, which ends |
//! | `wake_parked` | the same, and the worker had parked |
//! | `yield_waker`, `yield_own` | a poll and a yield: by the task's waker; as `polity::yield_now` does it |
//! | `yield_*` | the first of these under each policy |
//! | `join_finished`, `join_unfinished` | a task is awaited that has ended; one that has to run, which is counted too |
//!
//! A row that exceeds its budget (`budgets.rs`) makes the bench fail, and is named. Each row has a fresh process, a fresh core
//! and one thread, so the counts of two runs are equal. They are those of one compiler and one C library: a third of
//! `spawn_local` is `malloc` and `free`. What a real machine adds to core's paths is left out (`world.rs`).

#![expect(
    missing_docs,
    reason = "gungraun's macros make public items, and write no docs"
)]

mod budgets;
mod scenes;
mod world;

use gungraun::{library_benchmark, library_benchmark_group, main};
use polity_benches::CustomFifo;
use polity_policies::{Fifo, Priority, Vtime};

use budgets::within_budget;
use scenes::Act;
use world::World;

/// Lets the scene happen once uncounted, so that queues have grown and memory has been asked for; then prepares it again.
fn staged(mut world: World, scene: fn(&mut World) -> Act) -> (World, Act) {
    scene(&mut world)(&mut world);
    let act = scene(&mut world);
    (world, act)
}

fn check(world: World) {
    world.assert_policy_stands();
}

#[library_benchmark(setup = staged, teardown = check)]
#[bench::spawn_local(args = (World::built_in(), scenes::spawn_local), config = within_budget("spawn_local"))]
#[bench::spawn_outside(args = (World::built_in(), scenes::spawn_outside), config = within_budget("spawn_outside"))]
#[bench::spawn_chained(args = (World::built_in(), scenes::spawn_chained), config = within_budget("spawn_chained"))]
#[bench::spawn_fifo(args = (World::under(Fifo::new()), scenes::spawn_local), config = within_budget("spawn_fifo"))]
#[bench::wake_pair(args = (World::built_in(), scenes::wake_pair), config = within_budget("wake_pair"))]
#[bench::wake_outside(args = (World::built_in(), scenes::wake_outside), config = within_budget("wake_outside"))]
#[bench::wake_parked(args = (World::built_in(), scenes::wake_parked), config = within_budget("wake_parked"))]
#[bench::yield_waker(args = (World::built_in(), scenes::yield_waker), config = within_budget("yield_waker"))]
#[bench::yield_own(args = (World::built_in(), scenes::yield_own), config = within_budget("yield_own"))]
#[bench::yield_fifo(args = (World::under(Fifo::new()), scenes::yield_waker), config = within_budget("yield_fifo"))]
#[bench::yield_fifo_per_worker(args = (World::under(Fifo::per_worker()), scenes::yield_waker), config = within_budget("yield_fifo_per_worker"))]
#[bench::yield_priority(args = (World::under(Priority::new()), scenes::yield_waker), config = within_budget("yield_priority"))]
#[bench::yield_vtime(args = (World::under(Vtime::new()), scenes::yield_waker), config = within_budget("yield_vtime"))]
#[bench::yield_custom_fifo(args = (World::under(CustomFifo { batch: 32 }), scenes::yield_waker), config = within_budget("yield_custom_fifo"))]
#[bench::join_finished(args = (World::built_in(), scenes::join_finished), config = within_budget("join_finished"))]
#[bench::join_unfinished(args = (World::built_in(), scenes::join_unfinished), config = within_budget("join_unfinished"))]
fn row((mut world, act): (World, Act)) -> World {
    act(&mut world);
    world
}

library_benchmark_group!(name = core, benchmarks = row);
main!(library_benchmark_groups = core);
