//! How a runtime is built.

use std::fmt;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use polity_core::{Core, CoreConfig, STALL_TIMEOUTS, SeatId};
use polity_policy::{Generation, Policy};

use crate::control::{Control, Exits};
use crate::driver::Driver;
use crate::error::{BuildError, LoadError};
use crate::handle::{Handle, Shared};
use crate::machine::RealMachine;
use crate::panics;
use crate::pin::{self, Pin};
use crate::report::{self, Report};
use crate::runtime::Runtime;
use crate::signals::{self, Signals, Subscribed, Sysrq};
use crate::spares::Spares;
use crate::sys::affinity;
use crate::threads::{self, Hooks};
use crate::watch::Watch;

/// Loads the policy to start with, whose type it knows: a box for it would cost a virtual call in each callback.
type LoadFirst = Box<dyn FnOnce(&Handle) -> Result<Generation, LoadError> + Send + Sync>;

/// Configures a [`Runtime`]. The names are tokio's where tokio has them.
///
/// ```
/// let runtime = polity::Builder::new().worker_threads(2).thread_name("svc").build()?;
/// assert_eq!(runtime.worker_count(), 2);
/// # Ok::<(), polity::BuildError>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct Builder {
    worker_threads: Option<usize>,
    thread_name: String,
    thread_stack_size: Option<usize>,
    max_blocking_threads: Option<usize>,
    hooks: Hooks,
    pin: Pin,
    policy: Option<LoadFirst>,
    watchdog: Duration,
    hog_threshold: Duration,
    spares: Option<usize>,
    dump_limit: usize,
    signals: Signals,
}

impl Builder {
    /// A worker per core, pinned; no policy; SIGQUIT ejects.
    pub fn new() -> Self {
        Builder {
            worker_threads: None,
            thread_name: "polity-worker".to_owned(),
            thread_stack_size: None,
            max_blocking_threads: None,
            hooks: Hooks::default(),
            pin: Pin::Auto,
            policy: None,
            watchdog: Duration::from_secs(5),
            hog_threshold: Duration::from_millis(100),
            spares: None,
            dump_limit: 32 * 1024,
            signals: Signals::On,
        }
    }

    /// The number of workers, 1 to 1024. Default: `POLITY_WORKERS`, else `TOKIO_WORKER_THREADS`, else the cores that
    /// the affinity mask and the cgroup's quota allow.
    pub fn worker_threads(mut self, workers: usize) -> Self {
        self.worker_threads = Some(workers);
        self
    }

    /// The name of the worker threads. The kernel shows the first 15 bytes; a zero byte is refused.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        self
    }

    /// The stack size of the worker threads, in bytes, 16 KiB to 1 GiB. Default: that of `std`.
    pub fn thread_stack_size(mut self, bytes: usize) -> Self {
        self.thread_stack_size = Some(bytes);
        self
    }

    /// The most threads that [`spawn_blocking`](crate::spawn_blocking) uses, at least one. Default: tokio's, 512.
    pub fn max_blocking_threads(mut self, threads: usize) -> Self {
        self.max_blocking_threads = Some(threads);
        self
    }

    /// Runs on each worker thread before its first task.
    pub fn on_thread_start(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks.start = Some(Arc::new(hook));
        self
    }

    /// Runs on each worker thread after its last task.
    pub fn on_thread_stop(mut self, hook: impl Fn() + Send + Sync + 'static) -> Self {
        self.hooks.stop = Some(Arc::new(hook));
        self
    }

    /// Whether workers stay on one core each.
    pub fn pin(mut self, pin: Pin) -> Self {
        self.pin = pin;
        self
    }

    /// The policy to start with. Without one, the built-in FIFO runs until [`Handle::load`].
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.policy = Some(Box::new(|handle| handle.load(policy)));
        self
    }

    /// The stall timeout of policies that name none of their own ([`Policy::stall_timeout`]), 10 ms to 30 s, default 5 s. A
    /// policy that lets a runnable task wait for so long while a worker could have run it is ejected, at most 20 ms later;
    /// so is one whose `dispatch` keeps a worker busy for so long without giving it anything to run.
    pub fn watchdog(mut self, timeout: Duration) -> Self {
        self.watchdog = timeout;
        self
    }

    /// From when on one poll is reported, by a warning and in [`Metrics::hogs`](crate::Metrics::hogs): 1 ms to one hour, default
    /// 100 ms. Once per poll; the policy is not blamed. A poll whose thread was kept from running by other processes for most
    /// of that time is not reported.
    pub fn hog_threshold(mut self, threshold: Duration) -> Self {
        self.hog_threshold = threshold;
        self
    }

    /// The number of spare threads, 0 to 1024, which take over from workers that are stuck in a policy or in one long poll, or
    /// [block in place](crate::block_in_place()).
    /// Default: twice as many as workers, at least 4 and at most 32. They are created beforehand and sleep.
    ///
    /// With none left, stuck workers stay stuck, but for one whose work the watchdog does itself.
    pub fn spares(mut self, spares: usize) -> Self {
        self.spares = Some(spares);
        self
    }

    /// The size of a dump in bytes, at most; default 32 KiB. What does not fit is cut off, and the dump says so.
    pub fn dump_limit(mut self, bytes: usize) -> Self {
        self.dump_limit = bytes;
        self
    }

    /// Whether SIGQUIT ejects the policy of this runtime, and SIGTSTP and SIGCONT bypass it.
    pub fn signals(mut self, signals: Signals) -> Self {
        self.signals = signals;
        self
    }

    /// What `std` and tokio would panic over, or say without a name.
    fn check_threads(&self) -> Result<(), String> {
        if self.thread_name.contains('\0') {
            let name = self.thread_name.escape_debug();
            return Err(format!(
                "thread_name is \"{name}\", but must not have a zero byte"
            ));
        }
        if let Some(bytes) = self.thread_stack_size
            && !(16 << 10..=1 << 30).contains(&bytes)
        {
            return Err(format!(
                "thread_stack_size is {bytes} bytes, but must be from 16 KiB to 1 GiB"
            ));
        }
        if self.max_blocking_threads == Some(0) {
            return Err("max_blocking_threads is 0, but must be at least 1".to_owned());
        }
        Ok(())
    }

    /// Starts the runtime.
    ///
    /// # Errors
    /// If an argument or environment variable makes no sense, the system refuses a thread, or the policy is not loaded.
    pub fn build(self) -> Result<Runtime, BuildError> {
        let workers = match self.worker_threads {
            Some(workers) => workers,
            None => self.default_workers()?,
        };
        if !(1..=1024).contains(&workers) {
            return Err(BuildError::Invalid(format!(
                "worker_threads is {workers}, but must be from 1 to 1024"
            )));
        }
        if !STALL_TIMEOUTS.contains(&self.watchdog) {
            let watchdog = self.watchdog;
            return Err(BuildError::Invalid(format!(
                "watchdog is {watchdog:?}, but must be from 10 ms to 30 s"
            )));
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&self.hog_threshold) {
            let threshold = self.hog_threshold;
            return Err(BuildError::Invalid(format!(
                "hog_threshold is {threshold:?}, but must be from 1 ms to 1 h"
            )));
        }
        if let Some(spares @ 1025..) = self.spares {
            return Err(BuildError::Invalid(format!(
                "spares is {spares}, but must be from 0 to 1024"
            )));
        }
        self.check_threads().map_err(BuildError::Invalid)?;
        let signals = self.signals.resolve().map_err(BuildError::Invalid)?;
        // Before any thread of ours exists, so that none of them has a worker's mask.
        affinity::remember();
        panics::install_hook();
        report::start();
        let placement = pin::plan(&self.pin, workers)
            .map_err(|error| BuildError::Invalid(error.to_string()))?;
        if let Some(why) = placement.why_unpinned() {
            report::send(Report::Warn(format!("workers are not pinned: {why}")));
        }
        let blocking_name = format!("{}-blocking", self.thread_name);
        let driver = Driver::new(self.max_blocking_threads, &blocking_name)
            .map_err(io_error("starting the I/O and timer driver"))?;

        let tokio = driver.handle().expect("just started");
        let (control, requests) = channel();
        let mut config = CoreConfig::new(workers);
        config.stall_after_ns = self.watchdog.as_nanos() as u64;
        let spare_count = self.spares.unwrap_or_else(|| (2 * workers).clamp(4, 32));
        config.dump_limit = self.dump_limit;
        // One seat is kept for the watchdog.
        config.spares = spare_count + 1;
        let last_seat = SeatId::new((workers + spare_count) as u16);
        let seats = workers + config.spares;
        let core = Core::new(RealMachine::new(seats, driver, control.clone()), config);
        let exits = Arc::new(Exits::default());
        let sysrqs = Arc::new(AtomicU64::new(0));
        let spares = Arc::new(Spares::default());
        let watch = Arc::new(Watch::new(
            core,
            Arc::clone(&spares),
            last_seat,
            self.hog_threshold,
            placement.holds(),
        ));
        let shared = Arc::new(Shared {
            core,
            control: control.clone(),
            exits: Arc::clone(&exits),
            sysrqs: Arc::clone(&sysrqs),
            spares: Arc::clone(&spares),
            watch: Arc::clone(&watch),
            tokio,
        });
        let control = Control::new(core, requests, control, exits, sysrqs, Arc::clone(&watch));
        let control = thread::Builder::new()
            .name("polity-control".to_owned())
            .spawn(move || control.run())
            .map_err(io_error("starting the control thread"))?;

        let handle = Handle::new(Arc::clone(&shared));
        let threads = threads::Config {
            name: self.thread_name,
            stack_size: self.thread_stack_size,
            hooks: self.hooks,
            placement,
            spares,
        };
        // From here on, dropping the runtime takes back whatever was started.
        let mut runtime = Runtime::new_without_workers(handle, shared, control, watch);
        runtime
            .start_threads(threads, spare_count)
            .map_err(io_error("starting a worker, spare or watchdog thread"))?;
        if signals == Signals::On {
            runtime.subscribe();
        }
        if let Some(load) = self.policy {
            load(&runtime).map_err(BuildError::Load)?;
        }
        Ok(runtime)
    }

    fn default_workers(&self) -> Result<usize, BuildError> {
        match &self.pin {
            Pin::Cores(cores) if !cores.is_empty() => Ok(cores.len()),
            _ => pin::default_workers().map_err(BuildError::Invalid),
        }
    }
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> BuildError {
    move |error| BuildError::Io { doing, error }
}

/// Registers for SIGQUIT, once per process.
pub(crate) fn subscribe(shared: &Arc<Shared>) {
    let weak: Weak<dyn Sysrq> = Arc::<Shared>::downgrade(shared);
    match signals::subscribe(weak) {
        Subscribed::Registered | Subscribed::AlreadyHandledByProcess => {}
        Subscribed::Failed(error) => {
            report::send(Report::Warn(format!(
                "SIGQUIT will not eject policies: {error}"
            )));
        }
    }
}

impl Default for Builder {
    fn default() -> Self {
        Builder::new()
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("worker_threads", &self.worker_threads)
            .field("thread_name", &self.thread_name)
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}
