//! How polls are timed.

/// Whether and how polls are timed for [`TaskView::ran`](crate::TaskView::ran).
///
/// ```
/// assert_eq!(polity_policy::Accounting::default(), polity_policy::Accounting::None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Accounting {
    /// Not at all: `ran` is zero, and costs nothing.
    #[default]
    None,
    /// By the runtime's tick, for one load per poll: a poll in which the tick moved is charged how far it moved (5 ms on
    /// most machines), any other nothing. Right on average over hundreds of milliseconds, whatever the length of the polls,
    /// unless they are in step with the tick; says nothing about one poll. As the kernel accounts by timer tick. Not for a runtime without a watchdog (a
    /// simulation's choice): there `ran` stays zero.
    Coarse,
    /// By the clock, read before and after each poll: about 50 ns. It is time by the wall clock, so what the operating
    /// system takes from a thread in the middle of a poll counts too. Time for which a task has said that it blocks its thread
    /// (`block_in_place`) does not.
    Exact,
}
