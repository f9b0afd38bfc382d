//! What a task's author says about it, for policies to read.

use std::borrow::Cow;

use crate::WorkerId;

/// What a task carries for policies to read: name, weight, tag, affinity.
///
/// Equal sets are kept once for the life of the process, so a set should describe a *kind* of task. What differs
/// from task to task (a tenant, a request number) belongs in the tag, which is kept per task.
///
/// ```
/// use polity_policy::Attributes;
/// let ping = Attributes::new().name("ping").weight(1000).tag(42);
/// assert_eq!((ping.get_name(), ping.get_weight(), ping.get_tag()), (Some("ping"), 1000, 42));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    name: Option<Cow<'static, str>>,
    weight: u32,
    tag: u64,
    affinity: Option<WorkerMask>,
}

impl Attributes {
    /// The weight of a task about which nobody said anything: 100.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::DEFAULT_WEIGHT, 100);
    /// ```
    pub const DEFAULT_WEIGHT: u32 = 100;

    /// No name, default weight, tag 0, free to run on every worker.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().get_weight(), 100);
    /// ```
    pub const fn new() -> Self {
        Attributes {
            name: None,
            weight: Self::DEFAULT_WEIGHT,
            tag: 0,
            affinity: None,
        }
    }

    /// Names the kind of task, for reports.
    ///
    /// ```
    /// let attributes = polity_policy::Attributes::new().name("compaction");
    /// assert_eq!(attributes.get_name(), Some("compaction"));
    /// ```
    #[must_use]
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The task's share, 1 to 10,000. Spawning with another value fails, naming field and value.
    ///
    /// ```
    /// let attributes = polity_policy::Attributes::new().weight(500);
    /// assert_eq!(attributes.get_weight(), 500);
    /// ```
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// A word of the application's own (tenant, class, request), kept per task. Core does not look at it.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().tag(9).get_tag(), 9);
    /// ```
    #[must_use]
    pub fn tag(mut self, tag: u64) -> Self {
        self.tag = tag;
        self
    }

    /// Restricts the task to these workers. Core enforces it, whatever a policy says. Spawning with a mask that
    /// names no worker of the runtime fails.
    ///
    /// ```
    /// use polity_policy::{Attributes, WorkerId, WorkerMask};
    /// let only_1 = Attributes::new().affinity(WorkerMask::from_iter([WorkerId::new(1)]));
    /// assert!(only_1.allows(WorkerId::new(1)) && !only_1.allows(WorkerId::new(0)));
    /// ```
    #[must_use]
    pub fn affinity(mut self, workers: WorkerMask) -> Self {
        self.affinity = Some(workers);
        self
    }

    /// The name, if one was given.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().get_name(), None);
    /// ```
    pub fn get_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The weight.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().get_weight(), 100);
    /// ```
    pub const fn get_weight(&self) -> u32 {
        self.weight
    }

    /// The tag.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().get_tag(), 0);
    /// ```
    pub const fn get_tag(&self) -> u64 {
        self.tag
    }

    /// The affinity mask, if the task is restricted.
    ///
    /// ```
    /// assert!(polity_policy::Attributes::new().get_affinity().is_none());
    /// ```
    pub const fn get_affinity(&self) -> Option<&WorkerMask> {
        self.affinity.as_ref()
    }

    /// Whether the task may run on `worker`.
    ///
    /// ```
    /// assert!(polity_policy::Attributes::new().allows(polity_policy::WorkerId::new(77)));
    /// ```
    pub fn allows(&self, worker: WorkerId) -> bool {
        match &self.affinity {
            None => true,
            Some(mask) => mask.contains(worker),
        }
    }
}

impl Default for Attributes {
    fn default() -> Self {
        Attributes::new()
    }
}

/// A set of workers. An array of words, so the number of workers is not bounded by one of them.
///
/// ```
/// use polity_policy::{WorkerId, WorkerMask};
/// let mask = WorkerMask::from_iter([WorkerId::new(0), WorkerId::new(70)]);
/// assert!(mask.contains(WorkerId::new(70)) && !mask.contains(WorkerId::new(1)));
/// assert_eq!(mask.iter().count(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct WorkerMask {
    // No trailing zero words: equal sets are equal values.
    words: Vec<u64>,
}

impl WorkerMask {
    /// Whether `worker` is in the set.
    ///
    /// ```
    /// assert!(!polity_policy::WorkerMask::default().contains(polity_policy::WorkerId::new(0)));
    /// ```
    #[inline]
    pub fn contains(&self, worker: WorkerId) -> bool {
        let (word, bit) = (worker.index() / 64, worker.index() % 64);
        self.words.get(word).is_some_and(|w| w >> bit & 1 == 1)
    }

    /// The workers in the set, ascending.
    ///
    /// ```
    /// use polity_policy::{WorkerId, WorkerMask};
    /// let mask = WorkerMask::from_iter([WorkerId::new(2), WorkerId::new(1)]);
    /// assert_eq!(mask.iter().next(), Some(WorkerId::new(1)));
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let bits = self.words.len() * 64;
        (0..bits)
            .map(|index| WorkerId::new(index as u16))
            .filter(|worker| self.contains(*worker))
    }
}

impl FromIterator<WorkerId> for WorkerMask {
    fn from_iter<I: IntoIterator<Item = WorkerId>>(workers: I) -> Self {
        let mut words = Vec::new();
        for worker in workers {
            let (word, bit) = (worker.index() / 64, worker.index() % 64);
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << bit;
        }
        WorkerMask { words }
    }
}
