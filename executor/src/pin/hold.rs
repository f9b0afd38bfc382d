//! A worker that has to wait for its core lets go of it, and takes it back later.
//!
//! Pinning is worth something to a worker that has its core to itself. If somebody else runs there too (a sidecar, the
//! clients of a server on the same machine, a compiler), the worker waits for time slices of several milliseconds, with
//! all that lies in its queues, while the core beside it may be idle: the kernel would have moved it there. It knows how
//! long a thread has waited for a processor (`/proc/self/task/<id>/schedstat`), so that is asked forty times a second while
//! the runtime does anything.
//!
//! Called by whoever has the watchdog's duty, one thread at a time. Rejected: no pinning where there are as many workers as
//! cores. Nobody knows whether others will come, and alone a pinned worker is better off. Involuntary context switches as
//! the sign: a kernel thread that runs for some microseconds makes one too. Half a pin (a mask of two cores): the second
//! one is another worker's.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::sys::affinity;

/// Between two looks.
const LOOK_EVERY_NS: u64 = 25_000_000;
/// What happened in so much time is judged together.
const WINDOW_NS: u64 = 100_000_000;
/// After a longer time without a look the runtime was idle, and what happened in between says nothing.
const STALE_NS: u64 = 200_000_000;
/// Waiting for so long in one window is too much,
const TOO_LONG_NS: u64 = 10_000_000;
/// if it is also so much of the time in which the worker wanted to run.
const PART_OF_DEMAND: u64 = 10;
/// How long it stays away from its core, the first time; and at most.
const AWAY_NS: u64 = 10_000_000_000;
const LONGEST_AWAY_NS: u64 = 600_000_000_000;

/// How long a thread has run, and how long it has waited to run, since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Times {
    ran_ns: u64,
    waited_ns: u64,
}

impl Times {
    /// Three numbers: run, waited, how often. `None`: the kernel does not say.
    fn parse(schedstat: &str) -> Option<Times> {
        let mut numbers = schedstat
            .split_ascii_whitespace()
            .map(|word| word.parse().ok());
        Some(Times {
            ran_ns: numbers.next()??,
            waited_ns: numbers.next()??,
        })
    }
}

/// What a worker should do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    LetGo,
    TakeBack,
}

/// What is known of one worker and its core.
#[derive(Debug)]
struct Hold {
    /// When the present window began, and when the last look was.
    began: Option<(u64, Times)>,
    looked: u64,
    /// Away from the core until then.
    away_until: Option<u64>,
    /// How long it stays away the next time.
    away_ns: u64,
}

impl Hold {
    fn new() -> Self {
        Hold {
            began: None,
            looked: 0,
            away_until: None,
            away_ns: AWAY_NS,
        }
    }

    fn judge(&mut self, now: u64, times: Times) -> Option<Change> {
        let idle = now.saturating_sub(self.looked) > STALE_NS;
        self.looked = now;
        if let Some(until) = self.away_until {
            if now < until {
                return None;
            }
            self.away_until = None;
            // What it waited for elsewhere is not this core's fault.
            self.began = None;
            return Some(Change::TakeBack);
        }
        let (began, before) = *self.began.get_or_insert((now, times));
        let waited = times.waited_ns.saturating_sub(before.waited_ns);
        let wanted = waited + times.ran_ns.saturating_sub(before.ran_ns);
        if idle || waited < TOO_LONG_NS || waited < wanted / PART_OF_DEMAND {
            if idle || now.saturating_sub(began) >= WINDOW_NS {
                self.began = Some((now, times));
            }
            return None;
        }
        self.began = None;
        self.away_until = Some(now + self.away_ns);
        self.away_ns = (self.away_ns * 2).min(LONGEST_AWAY_NS);
        Some(Change::LetGo)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Holds {
    /// In the order of their seats; `None` for those whose thread was replaced.
    workers: Vec<Option<Worker>>,
    next_look: u64,
}

#[derive(Debug)]
struct Worker {
    core: usize,
    hold: Hold,
    /// The thread that was pinned, and where the kernel says how it fares.
    thread: Option<(i32, File)>,
}

impl Holds {
    /// Worker `n` is pinned to the `n`-th of these cores.
    pub(crate) fn new(cores: &[usize]) -> Self {
        let worker = |core: &usize| {
            Some(Worker {
                core: *core,
                hold: Hold::new(),
                thread: None,
            })
        };
        Holds {
            workers: cores.iter().map(worker).collect(),
            next_look: 0,
        }
    }

    /// How many workers may let go.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.workers.len()
    }

    /// Looks, if it is time. `thread_of` names the thread in a worker's own seat, if there is one; `say` hears what changes.
    /// Complexity: reads one small file for each worker.
    pub(crate) fn look(
        &mut self,
        now: u64,
        thread_of: impl Fn(usize) -> Option<i32>,
        mut say: impl FnMut(String),
    ) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK_EVERY_NS;
        for (index, worker) in self.workers.iter_mut().enumerate() {
            let Some(worker) = worker else { continue };
            let Some((thread, times)) = worker.ask(|| thread_of(index)) else {
                continue;
            };
            let core = worker.core;
            match worker.hold.judge(now, times) {
                Some(Change::LetGo) if affinity::release(thread) => say(format!(
                    "worker {index} lets go of core {core}: others run there, and it had to wait"
                )),
                Some(Change::TakeBack) if affinity::pin(thread, core) => {
                    say(format!("worker {index} takes core {core} back"));
                }
                _ => {}
            }
        }
    }

    /// The thread in this seat was convicted: if it comes back, it is a spare.
    pub(crate) fn forget(&mut self, seat: usize) {
        if let Some(worker) = self.workers.get_mut(seat) {
            *worker = None;
        }
    }
}

impl Worker {
    fn ask(&mut self, thread: impl FnOnce() -> Option<i32>) -> Option<(i32, Times)> {
        if self.thread.is_none() {
            let thread = thread()?;
            let file = File::open(format!("/proc/self/task/{thread}/schedstat")).ok()?;
            self.thread = Some((thread, file));
        }
        let (thread, file) = self.thread.as_ref()?;
        // Three numbers of 20 digits at most.
        let mut text = [0; 64];
        let length = file.read_at(&mut text, 0).ok()?;
        let times = Times::parse(std::str::from_utf8(&text[..length]).ok()?)?;
        Some((*thread, times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// A worker that is looked at every 25 ms.
    struct Looked {
        hold: Hold,
        now: u64,
        times: Times,
    }

    impl Looked {
        fn new() -> Self {
            let times = Times {
                ran_ns: 0,
                waited_ns: 0,
            };
            let mut looked = Looked {
                hold: Hold::new(),
                now: 0,
                times,
            };
            assert_eq!(looked.after(0, 0), None);
            looked
        }

        /// One more look; it has run and waited for so many milliseconds since the last one.
        fn after(&mut self, ran_ms: u64, waited_ms: u64) -> Option<Change> {
            self.now += LOOK_EVERY_NS;
            self.times.ran_ns += ran_ms * MS;
            self.times.waited_ns += waited_ms * MS;
            self.hold.judge(self.now, self.times)
        }

        /// How long it is away, if it is; it has its processor to itself meanwhile.
        fn away_ms(&mut self) -> u64 {
            let began = self.now;
            while self.after(25, 0) != Some(Change::TakeBack) {}
            (self.now - began) / MS
        }
    }

    #[test]
    fn a_worker_lets_go_when_it_waits_for_ten_milliseconds_in_a_window_and_a_tenth_of_what_it_wants()
     {
        for (looks, ran, waited, expected) in [
            (8, 25, 0, None),
            (8, 23, 2, None),
            (3, 22, 3, None),
            (4, 22, 3, Some(Change::LetGo)),
            (1, 15, 10, Some(Change::LetGo)),
            (1, 16, 9, None),
            (1, 0, 25, Some(Change::LetGo)),
            (8, 0, 2, None),
            (4, 1, 3, Some(Change::LetGo)),
            (1, 91, 10, None),
        ] {
            let mut worker = Looked::new();
            let changes: Vec<_> = (0..looks).map(|_| worker.after(ran, waited)).collect();
            assert_eq!(changes.last(), Some(&expected), "{looks} {ran} {waited}");
            assert!(changes[..looks - 1].iter().all(Option::is_none));
        }
    }

    #[test]
    fn a_worker_that_is_away_comes_back_after_ten_seconds_and_stays_away_for_twice_as_long_each_time()
     {
        let mut worker = Looked::new();
        for away_s in [10, 20, 40, 80, 160, 320, 600, 600] {
            assert_eq!(worker.after(10, 15), Some(Change::LetGo));
            assert_eq!(worker.away_ms(), away_s * 1_000);
            assert_eq!(worker.after(10, 15), None, "the first look only notes");
        }
    }

    #[test]
    fn what_a_worker_waits_for_elsewhere_changes_nothing() {
        let mut worker = Looked::new();
        assert_eq!(worker.after(10, 15), Some(Change::LetGo));
        for _ in 0..399 {
            assert_eq!(worker.after(2, 23), None);
        }
        assert_eq!(worker.after(2, 23), Some(Change::TakeBack));
        assert_eq!(worker.after(2, 23), None);
        assert_eq!(worker.after(25, 0), None);
    }

    #[test]
    fn what_was_before_an_idle_time_does_not_count() {
        let mut worker = Looked::new();
        worker.now += STALE_NS;
        assert_eq!(worker.after(10, 15), None);
        assert_eq!(worker.after(10, 15), Some(Change::LetGo));
    }

    #[test]
    fn a_kernel_that_does_not_say_how_long_a_thread_has_waited_is_not_believed_to_have_said_zero() {
        let times = Times {
            ran_ns: 12,
            waited_ns: 34,
        };
        assert_eq!(Times::parse("12 34 5\n"), Some(times));
        for other in ["", "12", "12 x 5", "\n"] {
            assert_eq!(Times::parse(other), None, "{other:?}");
        }
    }
}
