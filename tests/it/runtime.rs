//! A runtime's beginning and end: what is refused, what a drop does, what is left behind.

mod afterwards;
mod begin;
mod drops;
mod shutdowns;
