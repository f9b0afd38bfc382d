//! The only unsafe code of this crate, one small file for each reason.

pub(crate) mod affinity;
pub(crate) mod fence;
pub(crate) mod signal;
pub(crate) mod thread;
pub(crate) mod tls;
