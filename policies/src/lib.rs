//! Scheduling policies that come with polity: three that are meant to be used, and one that is wrong on purpose.
//!
//! Not needed to run tasks: without a policy polity schedules by a built-in FIFO with work stealing, which is the
//! faster choice while all tasks matter equally. Load one of these to say that they do not, or read them before you
//! write your own: they depend on the contract alone, as yours will.
//!
//! | policy | order | choose it when |
//! |---|---|---|
//! | [`Fifo`] | one queue, strictly first come, first served | order matters more than throughput |
//! | [`FifoPerWorker`] | one queue per worker, surplus shared | tasks wake each other and caches matter |
//! | [`Priority`] | eight levels by weight, with ageing | some tasks must not wait for others |
//! | [`Vtime`] | by processor time used, divided by weight | tasks are to share the processor in proportion |
//! | [`Faulty`] | none | you want to see an ejection |
//!
//! ```
//! use polity_policies::Priority;
//! use polity_policy::{DsqId, Policy, WorkerId, fake::FakeHost};
//!
//! let (fake, policy) = (FakeHost::new(1), Priority::new());
//! policy.init(&fake.host()).unwrap();
//! policy.enqueue(&fake.host(), &fake.task(1).weight(1).view());
//! policy.enqueue(&fake.host(), &fake.task(2).weight(10_000).view());
//!
//! policy.dispatch(&fake.host(), WorkerId::new(0), None);
//! assert_eq!(fake.run_next().unwrap().slot(), 2);
//! ```

#![forbid(unsafe_code)]

mod faulty;
mod fifo;
mod per_worker;
mod priority;
mod vtime;

pub use faulty::{Callback, Fault, Faulty, Release};
pub use fifo::{Fifo, FifoPerWorker};
pub use priority::Priority;
pub use vtime::{Vtime, VtimeError, VtimeStats, VtimeTask};

use polity_policy::BoxPolicy;

/// The policies that [`by_name`] knows. [`Faulty`] is not among them: nobody should load it by a typing error.
///
/// ```
/// assert!(polity_policies::names().contains(&"priority"));
/// ```
pub const fn names() -> &'static [&'static str] {
    &[
        "fifo",
        "fifo_per_worker",
        "priority",
        "vtime",
        "vtime_coarse",
    ]
}

/// The policy of that name, with its default settings, for choice at run time (a command line, a config file).
///
/// ```
/// use polity_policy::Policy;
/// let policy = polity_policies::by_name("fifo").unwrap();
/// assert_eq!(policy.name(), "fifo");
/// assert!(polity_policies::by_name("lottery").is_none());
/// ```
pub fn by_name(name: &str) -> Option<BoxPolicy> {
    match name {
        "fifo" => Some(BoxPolicy::new(Fifo::new())),
        "fifo_per_worker" => Some(BoxPolicy::new(Fifo::per_worker())),
        "priority" => Some(BoxPolicy::new(Priority::new())),
        "vtime" => Some(BoxPolicy::new(Vtime::new())),
        "vtime_coarse" => Some(BoxPolicy::new(Vtime::coarse())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use polity_policy::Policy;

    use super::*;

    #[test]
    fn every_listed_name_yields_a_policy_that_calls_itself_so() {
        for name in names() {
            let policy = by_name(name).expect("listed");
            assert_eq!(policy.name(), *name);
        }
    }

    #[test]
    fn the_faulty_policy_cannot_be_had_by_name() {
        assert!(by_name("faulty").is_none());
    }
}
