//! What [`Vtime`](super::Vtime) answers to a parameter that makes no sense.

use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A parameter that is out of range.
///
/// ```
/// use std::time::Duration;
/// let error = polity_policies::Vtime::new().set_credit(Duration::from_secs(2)).unwrap_err();
/// assert_eq!(error.to_string(), "credit of 2s: must be from 0ns to 1s");
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VtimeError {
    field: &'static str,
    value: Duration,
    range: RangeInclusive<Duration>,
}

impl fmt::Display for VtimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VtimeError {
            field,
            value,
            range,
        } = self;
        let (least, most) = (range.start(), range.end());
        write!(
            f,
            "{field} of {value:?}: must be from {least:?} to {most:?}"
        )
    }
}

impl Error for VtimeError {}

/// The value in nanoseconds, if it is in the range.
pub(super) fn check(
    field: &'static str,
    value: Duration,
    range: RangeInclusive<Duration>,
) -> Result<u64, VtimeError> {
    if range.contains(&value) {
        Ok(value.as_nanos() as u64)
    } else {
        Err(VtimeError {
            field,
            value,
            range,
        })
    }
}
