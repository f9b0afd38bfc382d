//! Errors, for the person who can act: what, which value, what to do.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use polity_core::LoadRefused;

/// Why a runtime was not built.
#[derive(Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// An argument or an environment variable makes no sense; the text names it and its value.
    Invalid(String),
    /// The operating system refused a thread, a descriptor or the like.
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The policy given to the builder was not loaded.
    Load(LoadError),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BuildError::Invalid(text) => f.write_str(text),
            BuildError::Io { doing, error } => write!(f, "{doing}: {error}"),
            BuildError::Load(error) => error.fmt(f),
        }
    }
}

impl Error for BuildError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            BuildError::Invalid(_) => None,
            BuildError::Io { error, .. } => Some(error),
            BuildError::Load(error) => Some(error),
        }
    }
}

/// Why a policy was not loaded. The previous one, if there was one, never stopped running.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// The policy itself: its name, its `init`.
    Refused(LoadRefused),
    /// `load` was called from inside a policy's callback.
    InCallback,
    /// `init` did not return in time. If it ever does, its answer is dropped.
    InitTimedOut {
        /// The deadline.
        after: Duration,
    },
    /// Sysrq or a shutdown came before the load was published.
    Cancelled,
    /// No thread could be had for `init`.
    NoThread(String),
}

impl From<LoadRefused> for LoadError {
    fn from(refused: LoadRefused) -> Self {
        LoadError::Refused(refused)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Refused(refused) => refused.fmt(f),
            LoadError::InCallback => {
                f.write_str("a policy cannot be loaded from inside a policy's callback; do it from a thread or task")
            }
            LoadError::InitTimedOut { after } => write!(f, "the policy's init did not return within {after:?}"),
            LoadError::Cancelled => f.write_str("the load was cancelled by sysrq or shutdown"),
            LoadError::NoThread(error) => write!(f, "no thread could be started for the policy's init: {error}"),
        }
    }
}

impl Error for LoadError {}

/// This thread has no runtime: it is neither a worker nor inside `block_on` or `enter`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TryCurrentError(pub(crate) ());

impl fmt::Display for TryCurrentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "there is no polity runtime on this thread: call this from a task, or inside `Runtime::block_on` or \
             `Runtime::enter`",
        )
    }
}

impl Error for TryCurrentError {}
