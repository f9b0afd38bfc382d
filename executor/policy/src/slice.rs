//! How long a task goes on before others have a turn.

use std::fmt;
use std::time::Duration;

/// How long a task that stays runnable goes on on its worker before its policy is asked for another one.
///
/// It does not interrupt a poll: nothing can. It ends between polls, and a poll that wants to end in time asks
/// `polity::yield_if_due()` now and then. A task that yields by itself ends its slice.
///
/// ```
/// use std::time::Duration;
/// use polity_policy::Slice;
/// assert!(Slice::new(Duration::from_micros(200)) < Slice::INFINITE);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slice(u64);

impl Slice {
    /// One poll, however long it takes: the policy is asked after each.
    ///
    /// ```
    /// assert_eq!(polity_policy::Slice::POLL.get(), Some(std::time::Duration::ZERO));
    /// ```
    pub const POLL: Slice = Slice(0);

    /// Until the task waits, yields, or ends. A task that never does keeps its worker: if others were put into that worker's
    /// local DSQ, the watchdog ejects the policy for it.
    ///
    /// ```
    /// assert_eq!(polity_policy::Slice::INFINITE.get(), None);
    /// ```
    pub const INFINITE: Slice = Slice(u64::MAX);

    /// So long. Less than a microsecond makes little sense, and more than 584 years is infinite.
    ///
    /// ```
    /// use std::time::Duration;
    /// assert_eq!(polity_policy::Slice::new(Duration::from_millis(1)).get(), Some(Duration::from_millis(1)));
    /// ```
    pub const fn new(length: Duration) -> Slice {
        let nanos = length.as_nanos();
        if nanos >= u64::MAX as u128 {
            return Slice::INFINITE;
        }
        Slice(nanos as u64)
    }

    /// How long; `None`: infinite.
    ///
    /// ```
    /// assert!(polity_policy::Slice::default().get().is_some());
    /// ```
    pub const fn get(self) -> Option<Duration> {
        match self.0 {
            u64::MAX => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }
}

/// [`Slice::POLL`].
impl Default for Slice {
    fn default() -> Self {
        Slice::POLL
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            None => f.write_str("infinite"),
            Some(Duration::ZERO) => f.write_str("one poll"),
            Some(length) => write!(f, "{length:?}"),
        }
    }
}
