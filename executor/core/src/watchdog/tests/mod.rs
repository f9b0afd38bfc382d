//! The watchdog on a scripted machine: what it finds, at which tick, and whom it blames.

mod blocked;
mod calls;
mod hogs;
mod in_place;
mod sleep;
mod stall;
mod support;
