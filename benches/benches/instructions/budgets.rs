//! How many instructions an operation of each row may take: what was measured, and [`MARGIN_PERCENT`].
//!
//! After a change that is worth its price, or a new compiler, remake the table with
//!
//! ```sh
//! cargo bench -p polity-benches --features instructions --bench instructions | awk '
//!     $1 ~ /::row$/ { row = $2; sub(/:.*/, "", row) }
//!     $1 == "Instructions:" { printf "    (\"%s\", %.0f),\n", row, $2 / 1000 }'
//! ```
//!
//! A row that has become better is to be entered too, or others may spend what was gained.

use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig};

use crate::scenes::OPS;

/// Runs do not differ at all; this is for what the compiler does otherwise when something nearby has changed: half a per cent
/// was seen. One allocation more in `spawn` is 12 to 33 % of its rows, and fails; one fence more is one instruction, which is
/// shown and does not.
const MARGIN_PERCENT: u64 = 8;

/// Instructions per operation.
const MEASURED: [(&str, u64); 16] = [
    ("spawn_local", 826),
    ("spawn_outside", 990),
    ("spawn_chained", 797),
    ("spawn_fifo", 1275),
    ("wake_pair", 486),
    ("wake_outside", 1045),
    ("wake_parked", 1676),
    ("yield_waker", 476),
    ("yield_own", 485),
    ("yield_fifo", 991),
    ("yield_fifo_per_worker", 1392),
    ("yield_priority", 1866),
    ("yield_vtime", 2387),
    ("yield_custom_fifo", 1731),
    ("join_finished", 199),
    ("join_unfinished", 1253),
];

/// Makes the row of this name fail if it takes more. What an earlier run has left in `target` is shown beside the new
/// counts, and is no limit.
pub(crate) fn within_budget(row: &str) -> LibraryBenchmarkConfig {
    let measured = MEASURED.iter().find(|(name, _)| *name == row);
    let (_, per_operation) = measured.unwrap_or_else(|| panic!("no budget for {row}"));
    let limit = per_operation * OPS as u64 * (100 + MARGIN_PERCENT) / 100;
    // Caches are simulated unless one says no: slower, and of a machine that nobody has.
    let mut callgrind = Callgrind::with_args(["--cache-sim=no"]);
    callgrind.hard_limits([(EventKind::Ir, limit)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}
