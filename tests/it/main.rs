//! What a program may rely on, tested from outside, on the real machine.

mod affinity;
mod audit;
mod bad_input;
mod bypass;
mod contract;
mod dispatch_loop;
mod dump;
mod join;
mod panics;
mod policy_life;
mod policy_ref;
mod runtime;
mod scheduling;
mod spares;
mod stuck;
mod support;
mod task_data;
mod tasks;
mod tokio_compat;
mod watchdog;
mod workload;
