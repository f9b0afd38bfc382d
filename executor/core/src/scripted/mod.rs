//! The whole of core on a machine that does what the test says: nothing is left to chance, and no test waits.

mod accounting;
mod custom;
mod kicks;
mod lengths;
mod lifo;
mod news;
mod next;
mod pace;
mod unasked;
mod unwritten;
mod vtimes;
pub(crate) mod world;
