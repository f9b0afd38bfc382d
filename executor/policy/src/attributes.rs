//! What a task's author says about it, for policies to read.

use std::borrow::Cow;
use std::fmt;
use std::time::Instant;

use crate::WorkerId;

/// What a task carries for policies to read: name, weight, group, tag, deadline, affinity.
///
/// **What is not set is inherited.** A task that is spawned by another task, or inside a scope (`polity::with`), has what
/// its own attributes set; what they leave unset it takes from the scope, and else from the task that spawned it. A task
/// that is spawned from outside, or with [`detached`](Attributes::detached) attributes, has the defaults instead. What is
/// changed later on a parent does not reach children that exist already.
///
/// Name, weight, group and affinity are kept once for all tasks that have the same, for the life of the process, so
/// together they should describe a *kind* of task. What differs from task to task (a tenant, a request number) belongs in
/// the tag or the deadline, which are kept per task.
///
/// **When not to use it.** To pass data to a task: move it into the future. Core itself looks at the affinity only.
///
/// ```
/// use polity_policy::Attributes;
/// let ping = Attributes::new().name("ping").weight(1000).tag(42);
/// assert_eq!((ping.get_name(), ping.get_weight(), ping.get_tag()), (Some("ping"), 1000, 42));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    name: Option<Cow<'static, str>>,
    weight: Option<u32>,
    group: Option<u32>,
    tag: Option<u64>,
    deadline: Option<Instant>,
    affinity: Option<WorkerMask>,
    unset: Unset,
}

/// Where the value of a field comes from that was not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unset {
    Inherited,
    Default,
}

impl Attributes {
    /// The weight of a task about which nobody said anything: 100.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::DEFAULT_WEIGHT, 100);
    /// ```
    pub const DEFAULT_WEIGHT: u32 = 100;

    /// Nothing is set: all is inherited. With nothing to inherit: no name, default weight, no group, tag 0, no deadline, free
    /// to run on every worker.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().get_weight(), 100);
    /// ```
    pub const fn new() -> Self {
        Attributes {
            name: None,
            weight: None,
            group: None,
            tag: None,
            deadline: None,
            affinity: None,
            unset: Unset::Inherited,
        }
    }

    /// Nothing is set, and nothing is inherited: what is not set has its default. For a task that goes its own way, started
    /// by chance from within a scope or a request: a connection pool's janitor, say.
    ///
    /// ```
    /// use polity_policy::Attributes;
    /// let parent = Attributes::new().name("request").weight(10);
    /// let janitor = Attributes::detached().name("janitor").over(&parent);
    /// assert_eq!((janitor.get_name(), janitor.get_weight()), (Some("janitor"), 100));
    /// ```
    pub const fn detached() -> Self {
        Attributes {
            name: None,
            weight: None,
            group: None,
            tag: None,
            deadline: None,
            affinity: None,
            unset: Unset::Default,
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
        self.weight = Some(weight);
        self
    }

    /// The tenant, customer or class that the task works for: what a policy looks at that shares time between groups first and
    /// between their tasks second. 0, the default, means none. Use few: each set with another group is kept for ever.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().group(3).get_group(), 3);
    /// ```
    #[must_use]
    pub fn group(mut self, group: u32) -> Self {
        self.group = Some(group);
        self
    }

    /// A word of the application's own (a request number, say), kept per task. Core does not look at it.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().tag(9).get_tag(), 9);
    /// ```
    #[must_use]
    pub fn tag(mut self, tag: u64) -> Self {
        self.tag = Some(tag);
        self
    }

    /// When the task should be done, kept per task. A policy may run the most urgent first; core does not look at it, and
    /// cancels nothing. Spawning with a deadline in the past fails; one that passes while the task lives is normal.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// let soon = Instant::now() + Duration::from_millis(20);
    /// assert_eq!(polity_policy::Attributes::new().deadline(soon).get_deadline(), Some(soon));
    /// ```
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Restricts the task to these workers. Core enforces it, whatever a policy says. Spawning with a mask that
    /// names no worker of the runtime fails; one that names all of them is no restriction, so
    /// [`WorkerMask::all`] frees a task from a mask that it would inherit.
    ///
    /// A restricted task costs more to wake, and waits when its workers are busy: restrict few.
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

    /// What is set here, and the rest of `inherited`: the rule of the [type](Attributes)'s docs. The core applies it at each
    /// spawn; the result inherits as `inherited` would.
    ///
    /// ```
    /// use polity_policy::Attributes;
    /// let parent = Attributes::new().name("request").weight(300).tag(7);
    /// let child = Attributes::new().weight(50).over(&parent);
    /// assert_eq!((child.get_name(), child.get_weight(), child.get_tag()), (Some("request"), 50, 7));
    /// ```
    #[must_use]
    pub fn over(self, inherited: &Attributes) -> Attributes {
        if self.unset == Unset::Default {
            return self;
        }
        Attributes {
            name: self.name.or_else(|| inherited.name.clone()),
            weight: self.weight.or(inherited.weight),
            group: self.group.or(inherited.group),
            tag: self.tag.or(inherited.tag),
            deadline: self.deadline.or(inherited.deadline),
            affinity: self.affinity.or_else(|| inherited.affinity.clone()),
            unset: inherited.unset,
        }
    }

    /// What tasks of one kind share: without tag and deadline, and with nothing set to its default. Two tasks are of one
    /// kind if this is equal. What [`TaskView::attributes`](crate::TaskView::attributes) shows.
    ///
    /// ```
    /// use polity_policy::Attributes;
    /// let scan = Attributes::new().name("scan");
    /// assert_eq!(scan.clone().tag(4).weight(100).kind(), scan.kind());
    /// ```
    #[must_use]
    pub fn kind(self) -> Attributes {
        Attributes {
            name: self.name,
            weight: self.weight.filter(|weight| *weight != Self::DEFAULT_WEIGHT),
            group: self.group.filter(|group| *group != 0),
            tag: None,
            deadline: None,
            affinity: self.affinity.filter(|mask| *mask != WorkerMask::all()),
            unset: Unset::Inherited,
        }
    }

    /// The name, if one was given.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().get_name(), None);
    /// ```
    pub fn get_name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The weight; [`DEFAULT_WEIGHT`](Attributes::DEFAULT_WEIGHT) if none is set.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().get_weight(), 100);
    /// ```
    pub const fn get_weight(&self) -> u32 {
        match self.weight {
            Some(weight) => weight,
            None => Self::DEFAULT_WEIGHT,
        }
    }

    /// The group; 0 if none is set.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().get_group(), 0);
    /// ```
    pub const fn get_group(&self) -> u32 {
        match self.group {
            Some(group) => group,
            None => 0,
        }
    }

    /// The tag; 0 if none is set.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().get_tag(), 0);
    /// ```
    pub const fn get_tag(&self) -> u64 {
        match self.tag {
            Some(tag) => tag,
            None => 0,
        }
    }

    /// The deadline, if one is set. Policies ask [`TaskView::deadline`](crate::TaskView::deadline), on the host's clock.
    ///
    /// ```
    /// assert_eq!(polity_policy::Attributes::new().get_deadline(), None);
    /// ```
    pub const fn get_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The affinity mask, if the task is restricted.
    ///
    /// ```
    /// assert!(polity_policy::Attributes::new().get_affinity().is_none());
    /// ```
    pub const fn get_affinity(&self) -> Option<&WorkerMask> {
        self.affinity.as_ref()
    }

    /// Whether a tag is set, also if it is 0. For whoever keeps tags apart from the rest, as core does.
    ///
    /// ```
    /// use polity_policy::Attributes;
    /// assert!(Attributes::new().tag(0).sets_tag() && !Attributes::new().sets_tag());
    /// ```
    pub const fn sets_tag(&self) -> bool {
        self.tag.is_some()
    }

    /// Whether what is not set is inherited: not from [`detached`](Attributes::detached) ones.
    ///
    /// ```
    /// use polity_policy::Attributes;
    /// assert!(Attributes::new().inherits() && !Attributes::detached().inherits());
    /// ```
    pub const fn inherits(&self) -> bool {
        matches!(self.unset, Unset::Inherited)
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
    /// Every worker that there can be: runtimes have 1,024 at most.
    ///
    /// ```
    /// use polity_policy::{WorkerId, WorkerMask};
    /// assert!(WorkerMask::all().contains(WorkerId::new(1023)));
    /// ```
    pub fn all() -> Self {
        WorkerMask {
            words: vec![u64::MAX; 16],
        }
    }

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

/// The workers by number, the first eight of them.
///
/// ```
/// use polity_policy::{WorkerId, WorkerMask};
/// assert_eq!(WorkerMask::from_iter([WorkerId::new(7), WorkerId::new(9)]).to_string(), "{7, 9}");
/// ```
impl fmt::Display for WorkerMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (nth, worker) in self.iter().enumerate() {
            match nth {
                0 => write!(f, "{worker}")?,
                1..8 => write!(f, ", {worker}")?,
                _ => {
                    f.write_str(", ...")?;
                    break;
                }
            }
        }
        f.write_str("}")
    }
}
