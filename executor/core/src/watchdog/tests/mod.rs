//! The watchdog on a scripted machine: what it finds, at which tick, and whom it blames.

mod accounting;
mod calls;
mod hogs;
mod in_place;
mod kicks;
mod pace;
mod sleep;
mod stall;
mod vtimes;
mod world;
