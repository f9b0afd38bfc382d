//! A runtime: its threads, and their end.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::thread::{self, JoinHandle as ThreadHandle};
use std::time::Duration;

use polity_core::SeatId;

use crate::builder::{self, Builder};
use crate::control::Request;
use crate::error::BuildError;
use crate::handle::{Handle, Shared};
use crate::machine::now;
use crate::report;
use crate::sys::tls;
use crate::threads;
use crate::watch::{self, Watch};

/// A running polity runtime. All of [`Handle`]'s methods can be called on it.
///
/// Several runtimes in one process are fine: they share nothing but the signal and report threads.
///
/// **Dropping it** closes it: no task is spawned any more, workers finish the poll that they are in, and every
/// task that is left is dropped, on a worker. The drop waits for that, and for blocking calls that have begun; not if it
/// happens on a worker of this runtime or in another async context, where waiting could never end.
///
/// ```
/// let runtime = polity::Runtime::new()?;
/// let sum = runtime.block_on(async { polity::spawn(async { 1 + 1 }).await });
/// assert_eq!(sum.unwrap(), 2);
/// # Ok::<(), polity::BuildError>(())
/// ```
pub struct Runtime {
    handle: Handle,
    shared: Arc<Shared>,
    seated: Vec<(SeatId, ThreadHandle<()>)>,
    watchdog: Option<ThreadHandle<()>>,
    watch: Arc<Watch>,
    control: Option<ThreadHandle<()>>,
}

/// How long to wait for an end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Forever,
    For(Duration),
    No,
}

impl Runtime {
    /// A runtime with the defaults of [`Builder`].
    ///
    /// # Errors
    /// As for [`Builder::build`].
    pub fn new() -> Result<Runtime, BuildError> {
        Builder::new().build()
    }

    pub(crate) fn new_without_workers(
        handle: Handle,
        shared: Arc<Shared>,
        control: ThreadHandle<()>,
        watch: Arc<Watch>,
    ) -> Self {
        Runtime {
            handle,
            shared,
            seated: Vec::new(),
            watchdog: None,
            watch,
            control: Some(control),
        }
    }

    /// Starts spares, watchdog and workers, in this order: what must be there when a worker gets stuck comes first.
    pub(crate) fn start_threads(
        &mut self,
        config: threads::Config,
        spares: usize,
    ) -> io::Result<()> {
        let config = Arc::new(config);
        let workers = self.shared.core.worker_count();
        for index in workers..workers + spares {
            let seat = SeatId::new(index as u16);
            let thread = threads::start_spare(self.handle.clone(), Arc::clone(&config), seat)?;
            self.seated.push((seat, thread));
        }
        if !polity_core::WATCHED {
            return self.start_workers(&config);
        }
        let watchdog = watch::start(
            Arc::clone(&self.watch),
            self.handle.clone(),
            self.shared.control.clone(),
        )?;
        self.watchdog = Some(watchdog);
        self.start_workers(&config)
    }

    fn start_workers(&mut self, config: &Arc<threads::Config>) -> io::Result<()> {
        for index in 0..self.shared.core.worker_count() {
            let seat = SeatId::new(index as u16);
            let thread = threads::start_worker(self.handle.clone(), Arc::clone(config), seat)?;
            self.seated.push((seat, thread));
        }
        Ok(())
    }

    pub(crate) fn subscribe(&self) {
        builder::subscribe(&self.shared);
    }

    /// A handle to be cloned and passed around.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Closes the runtime, as dropping it does, and waits at most `timeout`. What has not ended by then (a task that does
    /// not return from its poll, a blocking call) is left behind with its thread.
    pub fn shutdown_timeout(mut self, timeout: Duration) {
        self.shut_down(Wait::For(timeout));
    }

    /// Closes the runtime without waiting. May be called from a task.
    pub fn shutdown_background(mut self) {
        self.shut_down(Wait::No);
    }

    fn shut_down(&mut self, wait: Wait) {
        let Some(control) = self.control.take() else {
            return;
        };
        let core = self.shared.core;
        core.close();
        let on_own_worker = tls::with_local(|local| local.is_some());
        let in_tokio = tokio::runtime::Handle::try_current().is_ok();
        let wait = if on_own_worker || in_tokio {
            Wait::No
        } else {
            wait
        };
        let finish = Finish {
            seated: std::mem::take(&mut self.seated),
            watchdog: self.watchdog.take(),
            watch: Arc::clone(&self.watch),
            control,
            shared: Arc::clone(&self.shared),
        };
        match wait {
            Wait::Forever => finish.run(Duration::MAX),
            Wait::For(timeout) => finish.run_within(timeout),
            Wait::No => finish.run_behind(),
        }
    }
}

/// The rest of a shutdown, once workers have been told to stop.
struct Finish {
    seated: Vec<(SeatId, ThreadHandle<()>)>,
    watchdog: Option<ThreadHandle<()>>,
    watch: Arc<Watch>,
    control: ThreadHandle<()>,
    shared: Arc<Shared>,
}

/// How often the end of a runtime looks whether a thread it waits for has ended, or been convicted.
const LOOK_EVERY: Duration = Duration::from_millis(1);

impl Finish {
    fn run(self, blocking_calls: Duration) {
        // The watchdog goes on: a worker that is stuck in a policy is replaced, and its heir leaves for it.
        let spares = &self.shared.spares;
        let workers = self.shared.core.worker_count();
        // If no worker was ever started, no last one will say that all is over.
        let mut closed = !{ self.seated.iter() }.any(|(seat, _)| seat.index() < workers);
        if closed {
            spares.close();
        }
        for (seat, thread) in self.seated {
            while !thread.is_finished() {
                if !closed && self.shared.core.is_over() {
                    spares.close();
                    closed = true;
                }
                if closed && spares.is_stuck(seat) {
                    break;
                }
                thread::park_timeout(LOOK_EVERY);
            }
            if thread.is_finished() {
                // A worker that panicked has said so on stderr.
                let _ = thread.join();
            }
        }
        self.watch.stop();
        if let Some(watchdog) = self.watchdog {
            // As a worker it may have got stuck itself.
            while !watchdog.is_finished() && !self.watch.is_stuck() {
                thread::park_timeout(LOOK_EVERY);
            }
            if watchdog.is_finished() {
                let _ = watchdog.join();
            }
        }
        // tokio adds it to its clock, which has an end.
        let blocking_calls = blocking_calls.min(Duration::from_secs(u64::from(u32::MAX)));
        self.shared
            .core
            .machine()
            .driver
            .shutdown(Some(blocking_calls));
        let _ = self.shared.control.send(Request::Shutdown);
        let _ = self.control.join();
        report::flush(Duration::from_millis(100));
    }

    fn run_within(self, timeout: Duration) {
        let start = now();
        let (done, ended) = std::sync::mpsc::channel();
        let spawned = thread::Builder::new()
            .name("polity-shutdown".to_owned())
            .spawn(move || {
                self.run(timeout.saturating_sub(now() - start));
                let _ = done.send(());
            });
        if spawned.is_ok() {
            let _ = ended.recv_timeout(timeout);
        }
    }

    fn run_behind(self) {
        // Without a thread for it the rest is left to the end of the process.
        let _ = thread::Builder::new()
            .name("polity-shutdown".to_owned())
            .spawn(move || self.run(Duration::ZERO));
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shut_down(Wait::Forever);
    }
}

impl Deref for Runtime {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}
