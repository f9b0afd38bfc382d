//! What a program may rely on, tested from outside, on the real machine.

mod affinity;
mod attributes;
mod audit;
mod bad_input;
mod bypass;
mod changes;
mod contract;
mod dispatch_loop;
mod dump;
mod join;
mod panics;
mod policy_life;
mod runtime;
mod scheduling;
mod spares;
mod stuck;
mod support;
mod tasks;
mod tokio_compat;
mod wakes;
mod watchdog;
mod workload;
