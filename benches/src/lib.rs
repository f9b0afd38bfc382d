//! What polity costs, next to what its peers cost.
//!
//! Each workload is written once against [`Peer`] and runs on every runtime: same futures, same channels, same yields,
//! same allocator, same worker count, each runtime with its own defaults. The release profile is the plain one, as
//! users build it.
//!
//! | command | answers |
//! |---|---|
//! | `cargo run --release -p polity-benches --bin versus` | how do we stand against the peers *right now*, and are the goals met? |
//! | `... --bin versus -- --only tokio_rt --reps 31` | the same for some rows, with narrower quartiles |
//! | `... --bin versus -- --workers 2,4 --json` | a table for each number of workers; all of it again as JSON on the last line |
//! | `cargo run --release -p polity-benches --bin plots -- tails tails.svg` | how are the latencies of `tail` distributed? |
//! | `cargo run --release -p polity-benches --bin safety` | what does it cost to be watched? |
//! | `cargo bench -p polity-benches` | did this commit make a workload slower? Criterion compares with its last run |
//! | `cargo bench -p polity-benches --bench sync` | the same for one family: see the head of each file in `benches/` |
//! | `cargo bench -p polity-benches --features instructions --bench instructions` | does one of core's paths take more instructions than it may? Needs valgrind: see the head of `benches/instructions/main.rs` |
//!
//! # The suites of `versus`
//!
//! | suite | workloads of | peers | goal |
//! |---|---|---|---|
//! | `tokio_rt` | tokio's `rt_multi_threaded`, `spawn`, `remote_spawn` | tokio; async-executor's two to be seen | each row, and a geometric mean of 4 |
//! | `polity` | ours: what these leave out | the same | none |
//! | `tokio_sync` | tokio's `sync_*` | tokio | each row |
//! | `async-executor` | async-executor's `executor` | its `Executor` and its `StaticExecutor` | each row |
//! | `yatp` | yatp's future pool | tokio, since yatp is not on crates.io | each row |
//! | `policy_hop` | `yield_many`, `ping_pong`, `chained_spawn` of `tokio_rt` | polity without a policy; tokio | nanoseconds per task above the built-in FIFO; ratio to tokio |
//! | `io` | echo, hyper, timers: servers and their load in processes of their own | tokio | throughput, p99 and processor time per request, each |
//! | `tail` | short tasks beside ones that block or compute | tokio | each row |
//! | `scale` | spawn, wake and yield among many idle tasks; bytes per task | tokio | grows no faster |
//! | `idle` | 10,000 open connections with nothing to do | tokio | no more processor time, no more than a wake-up per second |
//!
//! Sizes are those of the peers' benches. Their worker counts differ from bench to bench (1, 4, 6, one per core), so all
//! run with the number that `--workers` says; tasks that keep the workers busy are as many *per worker* as there. tokio
//! is built with `parking_lot` and started with I/O and timers where its own bench does so, and without where not;
//! polity has them always.
//!
//! # How to read the figures
//!
//! **Quote ratios, from one `versus` run; never two figures from two runs.** Criterion measures one contender after
//! the other, seconds apart, and on a virtual machine the speed itself drifts by tens of percent in between;
//! `versus` takes turns, so that drift meets all contenders alike. Believe a ratio that is well outside the
//! quartiles printed beside it, and distrust 10 % on a machine that does anything else.
//!
//! A ratio above 1 is good for polity, whatever the unit; it is the quotient of the medians, and the quartiles are
//! those of the quotients of single turns. In `policy_hop` the row against `built-in` is about the difference of the two
//! columns before it.
//!
//! The tasks of the [workloads](Workload) are empty. That is what makes the scheduler visible, and it is not a service:
//! with tasks of a few microseconds all contenders come out about equal. [`io`] and [`tail`] measure servers under load
//! and latencies, [`scale`] many tasks, [`idle`] none; their parts run in [processes of their own](played_a_role).
//!
//! The machine has to be idle. polity pins its workers, the peers do not: what else runs on a worker's core is in
//! polity's figure to the full, while the kernel moves a peer's thread out of its way.
//!
//! Two defaults differ and are left so: the pinning, and polity has a watchdog.
//!
//! ```
//! use polity_benches::{Peer, Tokio};
//!
//! let peer = Tokio::start(1);
//! let four = peer.block_on(async { Tokio::join(Tokio::spawn(async { 2 + 2 })).await });
//! assert_eq!(four, 4);
//! ```

#![forbid(unsafe_code)]

mod against;
mod child;
mod clock;
mod figure;
mod idle;
mod io;
mod latencies;
mod peer;
mod plot;
mod policies;
mod policy_hop;
mod process;
mod row;
mod scale;
mod settings;
mod side;
mod side_by_side;
mod slices;
mod tail;
mod turns;
mod workload;

pub use against::{async_executor, own, tokio_rt, tokio_sync, yatp};
pub use child::played_a_role;
pub use idle::idle;
pub use io::io;
pub use peer::{AsyncExecutor, AsyncStatic, Peer, Polity, Tokio};
pub use plot::{draw_ratios, draw_tails};
pub use policies::{CustomFifo, Empty, POLICIES, UnderPolicy};
pub use policy_hop::policy_hop;
pub use row::{Better, Goal, Row, geometric_mean, quartiles};
pub use scale::scale;
pub use settings::{Settings, Suite};
pub use side_by_side::{bench_policies, bench_runtimes, bench_suite, settings};
pub use tail::tail;
pub use turns::{Contender, take_turns};
pub use workload::{Drivers, Load, Round, Workload, all, named};
