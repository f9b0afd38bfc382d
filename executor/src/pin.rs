//! Which worker runs on which core, and how many workers there are.
//!
//! Not the act of starting threads, and not a word to the user: `Placement::why_unpinned` says what the runtime
//! should report, once. Nothing here touches a thread that is not the caller's own.
//! `default_workers` and `plan` are called by the builder, on a thread that is not pinned;
//! `Placement::pin_current_thread` by each worker at its start. None holds a lock of the runtime.
//! Invariant: core_affinity is only ever given a core that the kernel itself has named (it panics at 1024), and
//! what it claims to have done is looked at afterwards. Every planned core is counted until its `Placement` drops.
//! Rejected: worker `n` to core `n`. The second runtime of a process, and the second process of a container, would
//! share core 0 while others idle; masks (`taskset`, cpusets) need not contain core 0 at all.

use std::env;
use std::error::Error;
use std::fmt;
use std::num::NonZeroU16;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;

use core_affinity::CoreId;

mod hold;

pub(crate) use hold::Holds;

/// Whether each worker stays on one core.
///
/// Pinning pays when the runtime has the machine, or its share of it, to itself: caches stay warm, and a worker's
/// queue is worked on where its tasks were. It hurts where cores are shared with others.
///
/// Two traps. Threads and processes that a task starts inherit the one core of the worker that ran it. And a runtime
/// that is built on a thread which the application has pinned knows only that thread's cores: they are read once per
/// process, when the first runtime is built.
///
/// Where pinning is not possible or not wise ([`Pin::Auto`] says when), workers run unpinned and one warning says
/// why. `POLITY_PIN=0` in the environment turns pinning off whatever the program asked for.
///
/// ```
/// use polity::Pin;
/// assert_eq!(Pin::default(), Pin::Auto);
/// let two_workers_on_the_second_socket = Pin::Cores(vec![8, 9]);
/// assert_ne!(two_workers_on_the_second_socket, Pin::Off);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pin {
    /// One core for each worker: those that the runtimes of this process use least. A worker that has to wait for its
    /// core, because others run there, lets go of it: for 10 seconds, and for twice as long each time, up to 10 minutes.
    /// (It has to wait if that took 10 of 100 ms, and a tenth of the time for which it wanted to run. Each change is said
    /// by `tracing`, at level debug.)
    ///
    /// Not if there are more workers than cores, and not under a CPU quota (`docker run --cpus=2` on a machine of
    /// 64): there the cores are shared with other containers, whose processes choose the same ones.
    #[default]
    Auto,
    /// Workers go where the kernel puts them.
    Off,
    /// Worker `n` runs on the `n`-th of these cores, also under a quota, whoever else runs there. A runtime is not built
    /// if one of them does not exist or is not allowed, or if there are fewer than workers. Name a core twice to let two
    /// workers share it.
    Cores(Vec<usize>),
}

/// How many workers a runtime has that was not told a number: `POLITY_WORKERS`, else `TOKIO_WORKER_THREADS` (so that
/// a deployment that tuned tokio need not be told about us), else the cores that the affinity mask and the cgroup's
/// quota allow. An empty variable is one that is not set.
///
/// # Errors
///
/// A variable that is set and is no number from 1 to 65535: variable and value, in a sentence.
pub(crate) fn default_workers() -> Result<usize, String> {
    for name in ["POLITY_WORKERS", "TOKIO_WORKER_THREADS"] {
        if let Some(workers) = workers_from(name, variable(name))? {
            return Ok(workers);
        }
    }
    Ok(Cores::of_this_process().allowed)
}

fn workers_from(name: &str, value: Option<String>) -> Result<Option<usize>, String> {
    let Some(value) = value else { return Ok(None) };
    match value.trim().parse::<NonZeroU16>() {
        Ok(workers) => Ok(Some(workers.get().into())),
        Err(_) => Err(format!(
            "{name}={value}: the number of workers is from 1 to 65535"
        )),
    }
}

/// An environment variable, unless it is missing or blank.
fn variable(name: &str) -> Option<String> {
    let value = env::var_os(name)?.to_string_lossy().into_owned();
    (!value.trim().is_empty()).then_some(value)
}

/// Why a runtime's workers cannot be placed as it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PinError {
    /// `Pin::Cores` names a core that does not exist, or that this process may not use.
    Unknown {
        /// The first such core.
        core: usize,
        /// Those that may be named.
        known: Vec<usize>,
    },
    /// `Pin::Cores` names fewer cores than there are workers.
    TooFew {
        /// How many it names.
        cores: usize,
        /// How many workers there are to be.
        workers: usize,
    },
    /// `POLITY_PIN` is set to this, which is neither on nor off.
    Variable(String),
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PinError::Unknown { core, known } => {
                write!(
                    f,
                    "Pin::Cores names core {core}; this process may use {}",
                    list(known)
                )
            }
            PinError::TooFew { cores, workers } => {
                write!(f, "Pin::Cores names {cores} cores for {workers} workers")
            }
            PinError::Variable(value) => {
                write!(
                    f,
                    "POLITY_PIN={value}: known are 0 (off) and 1 (as the program asks)"
                )
            }
        }
    }
}

impl Error for PinError {}

/// The plan for one runtime's workers. Its cores are given back when it drops: keep it as long as the workers live.
#[derive(Debug)]
pub(crate) struct Placement {
    /// Worker `n` runs on the `n`-th; empty if the workers are not pinned.
    cores: Vec<usize>,
    /// Nobody has named them.
    may_let_go: bool,
    why_unpinned: Option<String>,
    in_use: &'static InUse,
}

/// Makes the plan for `workers` workers and counts its cores as used. Pins nothing.
///
/// # Errors
///
/// `Pin::Cores` that cannot be meant, or a `POLITY_PIN` that is not understood.
pub(crate) fn plan(pin: &Pin, workers: usize) -> Result<Placement, PinError> {
    static IN_USE: InUse = InUse::new();
    Cores::of_this_process().plan(pin, workers, variable("POLITY_PIN").as_deref(), &IN_USE)
}

impl Placement {
    /// The core of this worker, if it has one.
    pub(crate) fn core_of(&self, worker: usize) -> Option<usize> {
        self.cores.get(worker).copied()
    }

    /// Those that workers let go of if they have to wait for them.
    pub(crate) fn holds(&self) -> Holds {
        Holds::new(if self.may_let_go { &self.cores } else { &[] })
    }

    /// Pins the calling thread to the core of `worker`, and checks that it is there. Without a core: does nothing.
    ///
    /// # Errors
    ///
    /// What the kernel did instead, in a sentence. The thread can go on as a worker.
    pub(crate) fn pin_current_thread(&self, worker: usize) -> Result<(), String> {
        let Some(core) = self.core_of(worker) else {
            return Ok(());
        };
        if !core_affinity::set_for_current(CoreId { id: core }) {
            return Err(format!(
                "the kernel refused to pin worker {worker} to core {core}"
            ));
        }
        // "Done" is not always done: sandboxes accept the call and ignore it.
        match read_mask() {
            Some(mask) if mask == [core] => Ok(()),
            Some(mask) => Err(format!(
                "worker {worker} was pinned to core {core} but may run on {}",
                list(&mask)
            )),
            None => Err(format!(
                "worker {worker} was pinned to core {core} but its affinity mask cannot be read"
            )),
        }
    }

    /// What to tell the user if workers are not pinned although pinning was asked for: half a sentence, to stand
    /// after "workers are not pinned: ". `None` also if the program itself asked for [`Pin::Off`].
    pub(crate) fn why_unpinned(&self) -> Option<&str> {
        self.why_unpinned.as_deref()
    }
}

impl Drop for Placement {
    fn drop(&mut self) {
        self.in_use.give_back(&self.cores);
    }
}

/// The cores of the process, as they were before anything was pinned.
#[derive(Debug)]
struct Cores {
    /// The affinity mask, ascending; `None` where it cannot be read.
    mask: Option<Vec<usize>>,
    /// How many threads can run at once: the mask's size, or less under a cgroup's quota.
    allowed: usize,
}

impl Cores {
    /// Read once, by whoever builds the first runtime. Both values are those of the *calling thread*: on a worker of
    /// ours they would say "one core" to the second runtime.
    fn of_this_process() -> &'static Cores {
        static CORES: OnceLock<Cores> = OnceLock::new();
        CORES.get_or_init(|| {
            let mask = read_mask();
            let allowed = match thread::available_parallelism() {
                Ok(allowed) => allowed.get(),
                Err(_) => mask.as_ref().map_or(1, Vec::len),
            };
            Cores { mask, allowed }
        })
    }

    fn plan(
        &self,
        pin: &Pin,
        workers: usize,
        variable: Option<&str>,
        in_use: &'static InUse,
    ) -> Result<Placement, PinError> {
        let unpinned = |why_unpinned| {
            Ok(Placement {
                cores: Vec::new(),
                may_let_go: false,
                why_unpinned,
                in_use,
            })
        };
        if *pin == Pin::Off {
            return unpinned(None);
        }
        match variable {
            None | Some("1" | "on") => {}
            Some(off @ ("0" | "off")) => return unpinned(Some(format!("POLITY_PIN is {off}"))),
            Some(other) => return Err(PinError::Variable(other.to_owned())),
        }
        let Some(mask) = &self.mask else {
            return unpinned(Some("the affinity mask cannot be read".to_owned()));
        };
        let cores = match pin {
            Pin::Off => Vec::new(),
            Pin::Cores(cores) => in_use.take(named(cores, workers, mask)?),
            Pin::Auto if self.allowed < mask.len() => {
                return unpinned(Some(format!(
                    "a CPU quota allows {} of {} cores",
                    self.allowed,
                    mask.len()
                )));
            }
            Pin::Auto if workers > mask.len() => {
                return unpinned(Some(format!("{workers} workers for {}", list(mask))));
            }
            Pin::Auto => in_use.take_least_used(workers, mask),
        };
        Ok(Placement {
            cores,
            may_let_go: *pin == Pin::Auto,
            why_unpinned: None,
            in_use,
        })
    }
}

/// Checks the cores that a program names, and returns those that its workers get.
fn named(cores: &[usize], workers: usize, mask: &[usize]) -> Result<Vec<usize>, PinError> {
    if let Some(&core) = cores.iter().find(|core| !mask.contains(core)) {
        return Err(PinError::Unknown {
            core,
            known: mask.to_vec(),
        });
    }
    match cores.get(..workers) {
        Some(cores) => Ok(cores.to_vec()),
        None => Err(PinError::TooFew {
            cores: cores.len(),
            workers,
        }),
    }
}

/// How many workers of this process are planned for each core: in the process there is one.
#[derive(Debug)]
struct InUse(Mutex<Vec<usize>>);

impl InUse {
    const fn new() -> Self {
        InUse(Mutex::new(Vec::new()))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vec<usize>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, cores: Vec<usize>) -> Vec<usize> {
        self.change(|used| count(used, &cores));
        cores
    }

    /// Takes `workers` different cores out of `mask`, the least used and then the lowest ones; ascending, so that
    /// neighbouring workers are neighbours. Choosing and counting is one step: two builders must not choose the same.
    fn take_least_used(&self, workers: usize, mask: &[usize]) -> Vec<usize> {
        self.change(|used| {
            let mut cores = mask.to_vec();
            cores.sort_by_key(|&core| (used.get(core).copied(), core));
            cores.truncate(workers);
            cores.sort_unstable();
            count(used, &cores);
            cores
        })
    }

    fn give_back(&self, cores: &[usize]) {
        self.change(|used| {
            for &core in cores {
                used[core] -= 1;
            }
        });
    }
}

fn count(used: &mut Vec<usize>, cores: &[usize]) {
    for &core in cores {
        if used.len() <= core {
            used.resize(core + 1, 0);
        }
        used[core] += 1;
    }
}

/// The affinity mask of the calling thread, ascending.
fn read_mask() -> Option<Vec<usize>> {
    let mut mask: Vec<usize> = core_affinity::get_core_ids()?
        .into_iter()
        .map(|core| core.id)
        .collect();
    mask.sort_unstable();
    Some(mask)
}

/// Cores in a sentence: "cores 0-3, 8"; a machine of 192 must not fill the screen. `cores` ascend.
fn list(cores: &[usize]) -> String {
    let ranges: Vec<String> = cores
        .chunk_by(|before, core| before + 1 == *core)
        .map(|range| match range {
            [first, .., last] => format!("{first}-{last}"),
            _ => range[0].to_string(),
        })
        .collect();
    match cores {
        [] => "no cores".to_owned(),
        [core] => format!("core {core}"),
        _ => format!("cores {}", ranges.join(", ")),
    }
}

#[cfg(test)]
mod tests;
