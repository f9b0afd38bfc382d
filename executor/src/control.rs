//! Control: one serial thread for each runtime that loads, sweeps and retires policies.
//!
//! Not a worker, and never inside a policy: `init`, `exit` and the drop of a policy run on a disposable thread each,
//! `init` with a deadline. Nothing here takes a lock that a policy or a subscriber of `tracing` may hold.
//!
//! | state | what control does |
//! |---|---|
//! | a load is asked for | starts `init` on a thread; later ones wait their turn |
//! | `init` answered | publishes; the previous policy is retired |
//! | `init` missed its deadline, or sysrq came | answers the caller; what `init` says later is dropped |
//! | a generation is retired | sweeps what it held; when no worker can be inside it any more, `exit` on a thread |
//!
//! **Invariant.** An ejection does not wait for control: whoever finds the fault withdraws the policy. Control only cleans
//! up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use polity_core::{Core, LoadRefused, PendingLoad, Retired};
use polity_policy::{ExitInfo, ExitKind, Generation};

use crate::context;
use crate::error::LoadError;
use crate::guard::Guard;
use crate::machine::{RealMachine, now};
use crate::report::{self, Report};
use crate::watch::Watch;

/// How long `init` may take.
pub(crate) const INIT_DEADLINE: Duration = Duration::from_secs(5);
/// How often control looks whether workers have left a retired policy.
const LOOK_EVERY: Duration = Duration::from_millis(1);
const LOOK_OFTEN_FOR: Duration = Duration::from_millis(100);
const LOOK_SELDOM: Duration = Duration::from_millis(100);
/// Exit infos that are kept.
const KEPT_EXITS: usize = 64;

/// What control is asked for.
pub(crate) enum Request {
    Load(Load),
    /// From a disposable thread: the result of `init`.
    InitDone {
        load: u64,
        result: Result<PendingLoad<RealMachine>, LoadRefused>,
    },
    /// A policy was withdrawn: sweep and retire it.
    PolicyEnded,
    /// Sysrq, and how many there have been with this one: a load that was asked for before must not be published.
    CancelLoads(u64),
    /// Print what sysrq has thrown out.
    PrintDump,
    /// The watchdog is awake: look after it.
    WorkBegan,
    Shutdown,
}

/// A load, and who waits for it.
pub(crate) struct Load {
    pub(crate) pending: PendingLoad<RealMachine>,
    pub(crate) reply: SyncSender<Result<Generation, LoadError>>,
    /// How many sysrqs there had been when it was asked for: a later one cancels it.
    pub(crate) sysrqs: u64,
}

/// The exit infos of past generations; written by control, read by anybody.
#[derive(Default)]
pub(crate) struct Exits {
    kept: Mutex<VecDeque<Arc<ExitInfo>>>,
    added: Condvar,
}

impl Exits {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<ExitInfo>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, info: Arc<ExitInfo>) {
        let mut kept = self.lock();
        if kept.len() == KEPT_EXITS {
            kept.pop_front();
        }
        kept.push_back(info);
        self.added.notify_all();
    }

    pub(crate) fn get(&self, generation: Generation) -> Option<Arc<ExitInfo>> {
        find(&self.lock(), generation)
    }

    pub(crate) fn wait(&self, generation: Generation, timeout: Duration) -> Option<Arc<ExitInfo>> {
        let missing = |kept: &mut VecDeque<_>| find(kept, generation).is_none();
        let waited = self.added.wait_timeout_while(self.lock(), timeout, missing);
        let (kept, _) = waited.unwrap_or_else(PoisonError::into_inner);
        find(&kept, generation)
    }
}

fn find(kept: &VecDeque<Arc<ExitInfo>>, generation: Generation) -> Option<Arc<ExitInfo>> {
    kept.iter()
        .find(|info| info.generation == generation)
        .cloned()
}

/// The load whose `init` runs.
struct Loading {
    number: u64,
    sysrqs: u64,
    name: String,
    deadline: Instant,
    reply: SyncSender<Result<Generation, LoadError>>,
}

pub(crate) struct Control {
    core: &'static Core<RealMachine>,
    requests: Receiver<Request>,
    /// For the answers of disposable threads.
    to_self: Sender<Request>,
    exits: Arc<Exits>,
    sysrqs: Arc<AtomicU64>,
    loading: Option<Loading>,
    waiting: VecDeque<Load>,
    retiring: Vec<Retiring>,
    loads: u64,
    /// What sysrq has thrown out, until it has been printed.
    to_print: Option<Arc<ExitInfo>>,
    guard: Guard,
}

/// A generation that has been swept, and since when.
struct Retiring {
    retired: Retired<RealMachine>,
    since: Instant,
}

impl Control {
    pub(crate) fn new(
        core: &'static Core<RealMachine>,
        requests: Receiver<Request>,
        to_self: Sender<Request>,
        exits: Arc<Exits>,
        sysrqs: Arc<AtomicU64>,
        watch: Arc<Watch>,
    ) -> Self {
        Control {
            guard: Guard::new(watch, now()),
            core,
            requests,
            to_self,
            exits,
            sysrqs,
            loading: None,
            waiting: VecDeque::new(),
            retiring: Vec::new(),
            loads: 0,
            to_print: None,
        }
    }

    /// The thread's main function.
    pub(crate) fn run(mut self) {
        loop {
            match self.next_request() {
                Some(Request::Load(load)) => self.waiting.push_back(load),
                Some(Request::InitDone { load, result }) => self.init_done(load, result),
                Some(Request::CancelLoads(sysrqs)) => self.cancel_loads(sysrqs),
                Some(Request::PrintDump) => {
                    self.collect_retired();
                    self.print_dump();
                }
                Some(Request::Shutdown) => break,
                Some(Request::PolicyEnded | Request::WorkBegan) | None => {}
            }
            self.check_deadline();
            self.start_next_load();
            self.collect_retired();
            self.finish_quiet();
        }
        self.cancel_loads(u64::MAX);
        self.collect_retired();
        // All workers are gone: nobody is inside.
        self.finish_quiet();
    }

    /// Waits for a request; not longer than to the next look at what is pending.
    fn next_request(&mut self) -> Option<Request> {
        let retiring = self.retiring_pace();
        let deadline = { self.loading.as_ref() }
            .map(|loading| loading.deadline.saturating_duration_since(now()));
        let waits = [retiring, deadline, self.guard.look(now())];
        let Some(wait) = waits.into_iter().flatten().min() else {
            // Nothing is pending: no wake-ups.
            return Some(self.requests.recv().unwrap_or(Request::Shutdown));
        };
        match self.requests.recv_timeout(wait) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Request::Shutdown),
        }
    }

    /// How soon to look again whether workers have left a retired policy. One that is abandoned is looked at now and then.
    fn retiring_pace(&self) -> Option<Duration> {
        let newest = self.retiring.iter().map(|retiring| retiring.since).max()?;
        Some(if now() - newest < LOOK_OFTEN_FOR {
            LOOK_EVERY
        } else {
            LOOK_SELDOM
        })
    }

    fn start_next_load(&mut self) {
        if self.loading.is_some() {
            return;
        }
        let Some(Load {
            pending,
            reply,
            sysrqs,
        }) = self.waiting.pop_front()
        else {
            return;
        };
        self.loads += 1;
        let number = self.loads;
        let name = pending.name().to_owned();
        let answer = self.to_self.clone();
        let started = disposable("polity-init", move || {
            let result = pending.init();
            // A refused policy is dropped here, on the thread that may be lost.
            let result = result.map(|()| pending);
            let _ = answer.send(Request::InitDone {
                load: number,
                result,
            });
        });
        match started {
            Ok(()) => {
                self.loading = Some(Loading {
                    number,
                    sysrqs,
                    name,
                    deadline: now() + INIT_DEADLINE,
                    reply,
                });
            }
            Err(error) => drop(reply.try_send(Err(LoadError::NoThread(error.to_string())))),
        }
    }

    fn init_done(&mut self, number: u64, result: Result<PendingLoad<RealMachine>, LoadRefused>) {
        let Some(loading) = self.loading.take_if(|loading| loading.number == number) else {
            // Too late: the caller has been told. The policy's drop is foreign code.
            let _ = disposable("polity-exit", move || drop(result));
            return;
        };
        let reply = match result {
            Err(refused) => Err(LoadError::from(refused)),
            Ok(pending) => self.publish(pending, &loading),
        };
        let _ = loading.reply.try_send(reply);
    }

    fn publish(
        &mut self,
        pending: PendingLoad<RealMachine>,
        loading: &Loading,
    ) -> Result<Generation, LoadError> {
        let before = self
            .core
            .current_policy()
            .map(|policy| policy.name().to_owned());
        let loaded = self.core.publish(pending);
        self.core.kick_all();
        // Ordering: SeqCst, with the increment in `Shared::sysrq`. That one is before its unload, this load after our
        // publication: either the unload finds this policy, or we find the sysrq.
        if self.sysrqs.load(Ordering::SeqCst) != loading.sysrqs {
            self.core
                .unload(ExitKind::Sysrq, "it came while the policy was being loaded");
            return Err(LoadError::Cancelled);
        }
        report::send(Report::Loaded {
            policy: loading.name.clone(),
            generation: loaded.generation(),
            swapped_from: before,
        });
        Ok(loaded.generation())
    }

    fn check_deadline(&mut self) {
        if let Some(late) = self.loading.take_if(|loading| loading.deadline <= now()) {
            let _ = late.reply.try_send(Err(LoadError::InitTimedOut {
                after: INIT_DEADLINE,
            }));
        }
    }

    /// Those that were asked for before there had been so many sysrqs.
    fn cancel_loads(&mut self, sysrqs: u64) {
        let loading = self.loading.take_if(|loading| loading.sysrqs < sysrqs);
        let (waiting, later): (Vec<Load>, Vec<Load>) = self
            .waiting
            .drain(..)
            .partition(|load| load.sysrqs < sysrqs);
        self.waiting.extend(later);
        let replies = loading.map(|loading| loading.reply);
        for reply in replies
            .into_iter()
            .chain(waiting.iter().map(|load| load.reply.clone()))
        {
            let _ = reply.try_send(Err(LoadError::Cancelled));
        }
        if !waiting.is_empty() {
            let _ = disposable("polity-exit", move || drop(waiting));
        }
    }

    /// Sweeps the generations that have just been withdrawn.
    fn collect_retired(&mut self) {
        let retired = self.core.take_retired();
        if retired.is_empty() {
            return;
        }
        for retired in retired {
            retired.sweep();
            retired.complete_exit_info();
            if let Some(info) = retired.exit_info() {
                report::send(Report::Ended(Arc::clone(&info)));
                if info.kind == ExitKind::Sysrq {
                    self.to_print = Some(Arc::clone(&info));
                }
                self.exits.add(info);
            }
            let since = now();
            self.retiring.push(Retiring { retired, since });
        }
        // Parked workers keep the old generation cached until they pass through their cycle.
        self.core.kick_all();
    }

    /// For the person who sent the signal. Indented, so that it can be told from other lines.
    fn print_dump(&mut self) {
        if let Some(dump) = self.to_print.take().and_then(|info| info.dump.clone()) {
            let lines: Vec<String> = dump.lines().map(|line| format!("  {line}")).collect();
            report::send(Report::Stderr(lines.join("\n")));
        }
    }

    /// `exit` and drop for those that no worker can be inside of any more.
    fn finish_quiet(&mut self) {
        let quiet: Vec<_> = self
            .retiring
            .extract_if(.., |retiring| retiring.retired.is_quiet())
            .collect();
        for retired in quiet {
            // Shared, so that it comes back if there is no thread for it.
            let place = Arc::new(Mutex::new(Some(retired)));
            let on_thread = Arc::clone(&place);
            if disposable("polity-exit", move || finish(&on_thread)).is_err() {
                self.retiring.extend(take(&place));
            }
        }
    }
}

fn take(place: &Mutex<Option<Retiring>>) -> Option<Retiring> {
    place.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The end of a policy, on a disposable thread.
fn finish(place: &Mutex<Option<Retiring>>) {
    let Some(Retiring { retired, .. }) = take(place) else {
        return;
    };
    let name = retired.name().to_owned();
    if let Some(message) = retired.finish() {
        report::send(Report::Warn(format!(
            "policy {name:?} panicked in exit or drop: {message}"
        )));
    }
}

/// Runs foreign code on a thread that may be lost.
fn disposable(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let builder = thread::Builder::new().name(name.to_owned());
    builder.spawn(move || context::in_policy(body)).map(drop)
}
