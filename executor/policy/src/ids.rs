//! The names by which a policy speaks of tasks, workers and queues: small `Copy` tokens that own nothing.

use std::fmt;

/// A task, as a policy may know it: a token, not an owner.
///
/// An id stays with one task for its whole life and is not given to another one afterwards (the slot is reused,
/// its generation differs; the 31-bit generation wraps after two thousand million tenants of one slot). Speaking of a
/// task that has ended is harmless everywhere.
///
/// ```
/// use polity_policy::TaskId;
/// let id = TaskId::from_parts(12, 3);
/// assert_eq!((id.slot(), id.tenant()), (12, 3));
/// assert_eq!(id.to_string(), "12.3");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(u64);

impl TaskId {
    /// The id of the `tenant`-th task that lives in `slot`. Core makes these; an invented one is refused at use.
    ///
    /// ```
    /// assert_ne!(polity_policy::TaskId::from_parts(1, 1), polity_policy::TaskId::from_parts(1, 2));
    /// ```
    #[inline]
    pub const fn from_parts(slot: u32, tenant: u32) -> Self {
        TaskId((tenant as u64) << 32 | slot as u64)
    }

    /// Where the task lives in the process-wide slab. Dense and small: fit for indexing a side table.
    ///
    /// ```
    /// assert_eq!(polity_policy::TaskId::from_parts(12, 3).slot(), 12);
    /// ```
    #[inline]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// Which of the slot's successive tasks this is.
    ///
    /// ```
    /// assert_eq!(polity_policy::TaskId::from_parts(12, 3).tenant(), 3);
    /// ```
    #[inline]
    pub const fn tenant(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot(), self.tenant())
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskId({self})")
    }
}

/// A worker of one runtime, counted from 0.
///
/// ```
/// use polity_policy::WorkerId;
/// assert_eq!(WorkerId::new(3).index(), 3);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct WorkerId(u16);

impl WorkerId {
    /// Names a worker. Whether it exists is checked where the id is used.
    ///
    /// ```
    /// assert_eq!(polity_policy::WorkerId::new(0), polity_policy::WorkerId::default());
    /// ```
    #[inline]
    pub const fn new(index: u16) -> Self {
        WorkerId(index)
    }

    /// The index, for tables with one entry per worker.
    ///
    /// ```
    /// assert_eq!(polity_policy::WorkerId::new(1).index(), 1);
    /// ```
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerId({self})")
    }
}

/// A dispatch queue.
///
/// ```
/// use polity_policy::{DsqId, WorkerId};
/// assert_eq!(DsqId::Custom(4).to_string(), "custom 4");
/// assert_eq!(DsqId::LocalOn(WorkerId::new(1)).to_string(), "local of worker 1");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DsqId {
    /// In `dispatch`, the local DSQ of the worker to be filled. In `select_worker` and `enqueue`, that of the
    /// worker that `select_worker` chose (in `select_worker` itself: of the worker that it will return); where
    /// `select_worker` was skipped, that of the task's last worker.
    Local,
    /// The local DSQ of this worker.
    LocalOn(WorkerId),
    /// One per runtime. Every worker takes from it by itself when its local DSQ is empty (and in every 32nd cycle
    /// before that), several at a time when many wait. A task whose affinity forbids that worker is passed over and keeps its place.
    Global,
    /// One that the policy created with [`Host::create_dsq`](crate::Host::create_dsq), by the number it chose,
    /// from 0 to [`DsqId::MAX_CUSTOM`].
    Custom(u32),
}

impl DsqId {
    /// The largest number of a custom DSQ: 4095.
    ///
    /// ```
    /// assert_eq!(polity_policy::DsqId::MAX_CUSTOM, 4095);
    /// ```
    pub const MAX_CUSTOM: u32 = 4095;
}

impl fmt::Display for DsqId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DsqId::Local => f.write_str("local"),
            DsqId::LocalOn(worker) => write!(f, "local of worker {worker}"),
            DsqId::Global => f.write_str("global"),
            DsqId::Custom(number) => write!(f, "custom {number}"),
        }
    }
}

/// Which end of a FIFO DSQ.
///
/// ```
/// assert_ne!(polity_policy::Position::Head, polity_policy::Position::Tail);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Position {
    /// After everything that waits there.
    Tail,
    /// Before everything that waits there. Head inserts among themselves come out last-in first-out.
    Head,
}

/// One load of a policy. Counts up from 1 within a runtime and is never reused there.
///
/// ```
/// let generation = polity_policy::Generation::new(4);
/// assert_eq!(generation.to_string(), "4");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Generation(u32);

impl Generation {
    /// Names a load. Core makes these.
    ///
    /// ```
    /// assert!(polity_policy::Generation::new(1) < polity_policy::Generation::new(2));
    /// ```
    pub const fn new(number: u32) -> Self {
        Generation(number)
    }

    /// The number.
    ///
    /// ```
    /// assert_eq!(polity_policy::Generation::new(4).number(), 4);
    /// ```
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
