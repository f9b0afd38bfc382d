//! What polity costs, next to what its peers cost.
//!
//! Each workload is written once against [`Peer`] and runs on every runtime: same futures, same channels (tokio's
//! oneshot), same allocator, same worker count, each runtime with its own defaults. The release profile is the
//! plain one, as users build it.
//!
//! | command | answers |
//! |---|---|
//! | `cargo bench -p polity-benches` | did this commit make a workload slower? Criterion compares with its last run |
//! | `cargo run --release -p polity-benches --bin versus` | how do we stand against the peers *right now*? |
//!
//! # How to read the figures
//!
//! **Quote ratios, from one `versus` run; never two figures from two runs.** Criterion measures one contender after
//! the other, seconds apart, and on a virtual machine the speed itself drifts by tens of percent in between;
//! `versus` takes turns, so that drift meets all contenders alike. Believe a ratio that is well outside the
//! quartiles printed beside it, and distrust 10 % on a machine that does anything else.
//!
//! The tasks of the [workloads](Workload) are empty. That is what makes the scheduler visible, and it is not a service:
//! with tasks of a few microseconds all contenders come out about equal. [`io`] and [`tail`] measure servers under load
//! and latencies, [`scale`] many tasks, [`idle`] none; their parts run in [processes of their own](played_a_role).
//!
//! Two defaults differ and are left so: polity pins its workers, the peers do not; and polity has a watchdog.
//!
//! ```
//! use polity_benches::{Peer, Tokio};
//!
//! let peer = Tokio::start(1);
//! let four = peer.block_on(async { Tokio::join(Tokio::spawn(async { 2 + 2 })).await });
//! assert_eq!(four, 4);
//! ```

#![forbid(unsafe_code)]

mod child;
mod clock;
mod figure;
mod idle;
mod io;
mod latencies;
mod peer;
mod plot;
mod policies;
mod process;
mod row;
mod scale;
mod settings;
mod side;
mod side_by_side;
mod slices;
mod tail;
mod workload;

pub use child::played_a_role;
pub use idle::idle;
pub use io::io;
pub use peer::{AsyncExecutor, AsyncStatic, Peer, Polity, Tokio};
pub use plot::{draw_ratios, draw_tails};
pub use policies::{Empty, POLICIES, UnderPolicy};
pub use row::{Better, Goal, Row, geometric_mean, quartiles};
pub use scale::scale;
pub use settings::{Settings, Suite};
pub use side_by_side::{bench_policies, bench_runtimes, settings};
pub use tail::tail;
pub use workload::{Round, Workload, all, named};
