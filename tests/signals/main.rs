//! What signals do to whole runtimes. Signals belong to the process, so each of these tests has one: this program again
//! (`process.rs`), which plays a part and says what it sees.

mod coexistence;
mod dumps;
mod fire;
mod latency;
mod process;
mod suspend;
mod sysrq;
mod trial;
