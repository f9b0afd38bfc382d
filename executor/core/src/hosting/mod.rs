//! A loaded policy: what it is, when it is current, the door to its callbacks, what it may say.
//!
//! Not a place for scheduling decisions: those are the policy's, or the built-in FIFO's in `worker`.
//!
//! | file | what it holds |
//! |---|---|
//! | `published.rs` | which generation is current, and the race between a swap and a worker |
//! | `generation.rs` | one load: name, tag, custom DSQs, the first exit info |
//! | `batch.rs` | what is being offered, and the verdicts |
//! | `early.rs` | the vtimes of claims on tasks that are still being offered |
//! | `census.rs` | how many tasks it has, by age |
//! | `timers.rs` | when it wants to be called |
//! | `unwritten.rs` | which callbacks it does without |
//! | `call.rs` | the only door to a policy |
//! | `adapter.rs` | a policy whose type is forgotten, with what it keeps for each task |
//! | `host.rs` | what a policy may say, each value checked |
//! | `claims.rs` | tasks that it takes back into its hands |
//! | `init_host.rs` | what it may say in `init` |

pub(crate) mod adapter;
pub(crate) mod batch;
pub(crate) mod call;
pub(crate) mod census;
mod claims;
pub(crate) mod early;
pub(crate) mod generation;
pub(crate) mod host;
pub(crate) mod init_host;
pub(crate) mod published;
pub(crate) mod timers;
pub(crate) mod unwritten;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use polity_policy::{ExitInfo, Generation as GenerationNumber, Policy};

pub(crate) use generation::{Generation, SHOWN, Tags, Terms};

/// A generation, as the control side holds it.
#[derive(Clone)]
pub struct LoadedPolicy(pub(crate) Arc<Generation>);

impl LoadedPolicy {
    /// The policy's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Which load it is.
    pub fn generation(&self) -> GenerationNumber {
        self.0.number
    }

    /// Why it ended, once it has.
    pub fn exit_info(&self) -> Option<Arc<ExitInfo>> {
        self.0.exit_info()
    }

    /// The policy itself, if it is of this type, also inside a [`BoxPolicy`](polity_policy::BoxPolicy).
    pub fn policy<P: Policy>(&self) -> Option<Arc<P>> {
        self.0.callbacks.policy().downcast().ok()
    }

    /// When it was published, in the machine's nanoseconds.
    pub fn published_at(&self) -> u64 {
        self.0.published_at()
    }
}

impl fmt::Debug for LoadedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedPolicy")
            .field("name", &self.name())
            .field("generation", &self.generation())
            .finish()
    }
}

/// The text of a panic, if it is text.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "(a panic payload that is not text)".to_owned()
    }
}
