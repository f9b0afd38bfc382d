//! Load, swap, unload, sweep: what control asks for. Nothing here waits for a policy.
//!
//! The order of an ejection: the exit info is claimed, the generation withdrawn (one store: from then on new work runs
//! FIFO), and only then is what it held swept back. `exit` comes when no worker has the generation cached any more.

use std::error::Error;
use std::fmt;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use polity_policy::{
    EnqueueReason, ExitInfo, ExitKind, Generation as GenerationNumber, Host, Policy, Wakes,
    WorkerId,
};

use crate::callback::Callback;
use crate::core::Core;
use crate::dump;
use crate::hosting::adapter::Adapter;
use crate::hosting::init_host::InitHost;
use crate::hosting::{Generation, LoadedPolicy, SHOWN, Terms, panic_text};
use crate::machine::Machine;
use crate::task::slab;
use crate::task::token::{Resting, claim};

/// Why a policy was not loaded. The previous one, if any, runs on.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LoadRefused {
    /// The name is empty, longer than 128 bytes, or has characters that are not printable.
    Name {
        /// The name, escaped.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The policy's own stall timeout is not from 10 ms to 30 s.
    StallTimeout(Duration),
    /// `name`, `stall_timeout`, `slice`, `accounting`, `wakes` or `init` panicked.
    Panicked {
        /// Which of them.
        callback: Callback,
        /// What the panic said.
        message: String,
    },
    /// `init` returned an error, or ended the policy through the host.
    Init(String),
    /// 255 policies that were removed have calls that never returned.
    TooManyAbandoned,
    /// The runtime is shutting down.
    Closing,
}

impl fmt::Display for LoadRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadRefused::Name { name, why } => write!(f, "policy name \"{name}\" {why}"),
            LoadRefused::StallTimeout(timeout) => write!(
                f,
                "policy asks for a stall timeout of {timeout:?}, but it must be from 10 ms to 30 s"
            ),
            LoadRefused::Panicked { callback, message } => {
                write!(f, "policy panicked in {callback}: {message}")
            }
            LoadRefused::Init(message) => write!(f, "policy refused to start: {message}"),
            LoadRefused::TooManyAbandoned => f.write_str(
                "255 removed policies have calls that never returned; no more can be loaded",
            ),
            LoadRefused::Closing => f.write_str("the runtime is shutting down"),
        }
    }
}

impl Error for LoadRefused {}

/// Asks a policy, whose answer may be a panic.
fn ask<R>(callback: Callback, question: impl FnOnce() -> R) -> Result<R, LoadRefused> {
    catch_unwind(AssertUnwindSafe(question)).map_err(|payload| {
        let message = panic_text(&*payload);
        std::mem::forget(payload); // its drop may panic too
        LoadRefused::Panicked { callback, message }
    })
}

/// What a stall timeout may be.
pub const STALL_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(30);

fn check_name(name: &str) -> Result<(), LoadRefused> {
    let why = if name.is_empty() {
        "is empty"
    } else if name.len() > 128 {
        "is longer than 128 bytes"
    } else if name.chars().any(|c| c.is_control() || c == '\u{fffd}') {
        "has characters that are not printable"
    } else {
        return Ok(());
    };
    // Cut, so that a bad name cannot flood a log.
    let name = name
        .chars()
        .take(160)
        .flat_map(char::escape_debug)
        .collect();
    Err(LoadRefused::Name { name, why })
}

/// A policy that has been checked, and not started.
pub struct PendingLoad<M: Machine> {
    core: &'static Core<M>,
    generation: Option<Arc<Generation>>,
}

impl<M: Machine> PendingLoad<M> {
    fn generation(&self) -> &Arc<Generation> {
        self.generation
            .as_ref()
            .expect("there until published or dropped")
    }

    /// The number that the load will have.
    pub fn number(&self) -> GenerationNumber {
        self.generation().number
    }

    /// The policy's name.
    pub fn name(&self) -> &str {
        &self.generation().name
    }

    /// Runs `init`. Foreign code: call it on a thread that may be lost.
    ///
    /// # Errors
    /// If it returns an error, panics, or ends the policy through the host.
    pub fn init(&self) -> Result<(), LoadRefused> {
        let generation = self.generation();
        let host = InitHost {
            core: self.core,
            generation,
        };
        let result = catch_unwind(AssertUnwindSafe(|| {
            generation
                .callbacks
                .init(&Host::new(&host))
                .map_err(|error| error.to_string())
        }));
        match result {
            Err(payload) => {
                let message = panic_text(&*payload);
                std::mem::forget(payload); // its drop may panic too
                Err(LoadRefused::Panicked {
                    callback: Callback::Init,
                    message,
                })
            }
            Ok(Err(message)) => Err(LoadRefused::Init(message)),
            Ok(Ok(())) => match generation.exit_info() {
                Some(info) => Err(LoadRefused::Init(info.message.clone())),
                None => Ok(()),
            },
        }
    }
}

impl<M: Machine> Drop for PendingLoad<M> {
    fn drop(&mut self) {
        if let Some(generation) = self.generation.take() {
            self.core.tags.give_back(generation.tag);
            // Runs the policy's drop, on whatever thread refused it.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(generation))) {
                std::mem::forget(payload); // its drop may panic too
            }
        }
    }
}

/// A generation that is not current any more.
pub struct Retired<M: Machine> {
    core: &'static Core<M>,
    generation: Arc<Generation>,
}

impl<M: Machine> Retired<M> {
    /// Which load it was.
    pub fn number(&self) -> GenerationNumber {
        self.generation.number
    }

    /// The policy's name.
    pub fn name(&self) -> &str {
        &self.generation.name
    }

    /// Why it ended.
    pub fn exit_info(&self) -> Option<Arc<ExitInfo>> {
        self.generation.exit_info()
    }

    /// Takes back the tasks that it holds, oldest first. Returns how many.
    pub fn sweep(&self) -> usize {
        self.core.sweep(&self.generation)
    }

    /// Completes the exit info: with a dump, unless the policy went in good order because the application wanted it.
    pub fn complete_exit_info(&self) {
        let dump = self.generation.exit_info().and_then(|info| {
            let unremarkable = matches!(
                info.kind,
                ExitKind::Unload | ExitKind::Swap | ExitKind::Shutdown
            );
            (!unremarkable).then(|| self.core.dump_of(&self.generation).to_string().into())
        });
        self.generation.complete_exit(dump);
    }

    /// Whether no worker is inside the policy, and none will be: ours and the list's are the only references left.
    pub fn is_quiet(&self) -> bool {
        // Ours, and the one by which the watchdog finds it.
        let quiet = Arc::strong_count(&self.generation) == 2;
        if quiet {
            // Ordering: Acquire fence; the count is read relaxed. Pairs with the Release of each `Arc` that was dropped:
            // `exit` comes after their calls.
            fence(Ordering::Acquire);
        }
        quiet
    }

    /// Runs `exit`, the drops of what the policy keeps for tasks, and the policy's own, unless a typed handle holds it. Foreign
    /// code: call it when quiet, on a thread that may be lost. Returns what panics in them said.
    pub fn finish(self) -> Option<String> {
        // What a worker moved into custody after the first sweep, it took back itself; this is the second look that
        // makes that certain before the tag is given to another generation.
        self.sweep();
        let info = self.generation.exit_info();
        let tag = self.generation.tag;
        let mut generation = self.generation;
        self.core.forget(&generation);
        // The watchdog may be looking at it right now. The last reference must be ours: the drop is foreign code.
        while Arc::strong_count(&generation) > 1 {
            std::thread::yield_now();
        }
        let exit = catch_unwind(AssertUnwindSafe(|| {
            if let Some(info) = info {
                generation.callbacks.exit(&info);
            }
        }));
        // Before the policy, which comes first in the life of everything that is kept here. Nobody else has it, so this is `Some`.
        let data = Arc::get_mut(&mut generation).and_then(|it| it.callbacks.drop_task_data());
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(generation)));
        self.core.tags.give_back(tag);
        // Neither payload is dropped: that may panic too.
        let [exit, dropped] = [exit, dropped].map(|result| {
            let payload = result.err()?;
            let text = panic_text(&*payload);
            std::mem::forget(payload);
            Some(text)
        });
        let texts: Vec<String> = [exit, data, dropped].into_iter().flatten().collect();
        (!texts.is_empty()).then(|| texts.join(", and "))
    }
}

/// Why held tasks are taken back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SweptBy {
    /// The generation is not told: it gets `exit` instead.
    Ejection,
    /// It is told by `dequeue`, task for task, by the workers that meet them next.
    Bypass,
}

impl<M: Machine> Core<M> {
    /// Checks a policy and gives it a generation number.
    ///
    /// # Errors
    /// If the name is unusable, `name` panics, or the runtime is closing.
    pub fn prepare(&'static self, policy: impl Policy) -> Result<PendingLoad<M>, LoadRefused> {
        let terms = match self.examine(&policy) {
            Ok(terms) => terms,
            Err(refused) => {
                // Its drop is foreign code, on whatever thread called.
                std::mem::forget(catch_unwind(AssertUnwindSafe(|| drop(policy))));
                return Err(refused);
            }
        };
        // Ordering: Relaxed; only uniqueness counts.
        let number =
            GenerationNumber::new(self.last_generation.fetch_add(1, Ordering::Relaxed) + 1);
        // Where nothing is kept for tasks, this asks for the default once, which is foreign code.
        let callbacks = match ask(Callback::InitTask, || Box::new(Adapter::new(policy))) {
            Ok(callbacks) => callbacks,
            Err(refused) => {
                self.tags.give_back(terms.tag);
                return Err(refused);
            }
        };
        let seats = self.seats.len();
        let generation = Generation::new(number, terms, callbacks, self.worker_count(), seats);
        Ok(PendingLoad {
            core: self,
            generation: Some(Arc::new(generation)),
        })
    }

    /// Asks a policy what has to be known before it is given a number, and takes a tag for it.
    fn examine(&self, policy: &impl Policy) -> Result<Terms, LoadRefused> {
        if !self.is_open() {
            return Err(LoadRefused::Closing);
        }
        let name = ask(Callback::Name, || policy.name().to_owned())?;
        check_name(&name)?;
        let stall_after_ns = match ask(Callback::StallTimeout, || policy.stall_timeout())? {
            None => self.config.stall_after_ns,
            Some(timeout) if STALL_TIMEOUTS.contains(&timeout) => timeout.as_nanos() as u64,
            Some(timeout) => return Err(LoadRefused::StallTimeout(timeout)),
        };
        let slice = ask(Callback::Slice, || policy.slice())?;
        let accounting = ask(Callback::Accounting, || policy.accounting())?;
        let wakes = ask(Callback::Wakes, || policy.wakes())?;
        let tag = self.tags.take().ok_or(LoadRefused::TooManyAbandoned)?;
        Ok(Terms {
            tag,
            name,
            stall_after_ns,
            slice,
            accounting,
            wakes,
        })
    }

    /// Makes a started policy current. What the previous one held is offered to this one; there is no moment under the
    /// built-in FIFO in between.
    pub fn publish(&'static self, mut pending: PendingLoad<M>) -> LoadedPolicy {
        let new = pending.generation.take().expect("not published yet");
        new.note_published(self.machine.now());
        self.remember(&new);
        // Before it is current: each wake from then on is recorded for it.
        let recording = match new.wakes {
            Wakes::Recorded => new.number.number(),
            Wakes::Ignored => 0,
        };
        // Ordering: Relaxed; whoever follows the new generation comes after the change of the slot, and with it after this. A
        // wake by a thread that does not is recorded for the generation that it sees here.
        self.recording.store(recording, Ordering::Relaxed);
        // The exit comes before the swap, as in every ejection: whoever sees that a generation is not current, and takes
        // back what it kept without a `dequeue`, must find it ended, so that it is not told of those tasks again.
        if let Some(old) = self.published.load() {
            let info = ExitInfo::new(ExitKind::Swap, &old.name, old.number);
            let message = format!("by policy {:?} (generation {})", new.name, new.number);
            old.claim_exit(info.with_message(message));
        }
        // Only control publishes, so what is replaced is what was found, unless it has ended by itself meanwhile.
        if let Some(old) = self.published.publish(Some(Arc::clone(&new))) {
            self.retire(old);
        }
        LoadedPolicy(new)
    }

    /// Makes the built-in FIFO current. `None`: no policy was.
    pub fn unload(&self, kind: ExitKind, message: &str) -> Option<Arc<ExitInfo>> {
        let current = self.published.load()?;
        let info = ExitInfo::new(kind, &current.name, current.number).with_message(message);
        self.end_policy(&current, info);
        current.exit_info()
    }

    /// Core runs every task from now on, in the order in which they became runnable. The policy that is loaded, if any,
    /// stays loaded and is told of polls. Bypasses nest: tasks go back to the policy when the last one is left.
    ///
    /// Complexity: the first one looks at each slot of the process.
    pub fn enter_bypass(&self) {
        if self.published.enter_bypass() {
            if let Some(current) = self.published.load() {
                self.sweep_for(&current, SweptBy::Bypass);
            }
            self.kick_all();
        }
    }

    /// Ends one bypass.
    pub fn leave_bypass(&self) {
        if self.published.leave_bypass() {
            self.kick_all();
        }
    }

    /// How many bypasses have been entered and not left.
    pub fn bypass_depth(&self) -> u64 {
        self.published.bypasses()
    }

    /// Whether this generation may hold tasks: it is current, and not bypassed.
    pub(crate) fn accepts(&self, generation: &Generation) -> bool {
        self.is_current(generation) && self.published.bypasses() == 0
    }

    /// Whether this generation is the one in the slot. The epoch alone cannot tell: it is bumped after the slot, so a
    /// worker may follow a generation one bump early. The slot's lock orders as the fence of `Published::still` does.
    pub(crate) fn is_current(&self, generation: &Generation) -> bool {
        self.published
            .load()
            .is_some_and(|current| current.number == generation.number)
    }

    pub(super) fn withdraw(&self, generation: &Arc<Generation>) {
        // Ordering: Relaxed, as in `publish`.
        let number = generation.number.number();
        let _ = self
            .recording
            .compare_exchange(number, 0, Ordering::Relaxed, Ordering::Relaxed);
        if self.published.withdraw(generation) {
            self.retire(Arc::clone(generation));
        }
    }

    fn retire(&self, generation: Arc<Generation>) {
        self.retiring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(generation);
    }

    /// The generations that have stopped being current since the last call. Control sweeps and finishes them.
    pub fn take_retired(&'static self) -> Vec<Retired<M>> {
        let retiring =
            std::mem::take(&mut *self.retiring.lock().unwrap_or_else(PoisonError::into_inner));
        retiring
            .into_iter()
            .map(|generation| Retired {
                core: self,
                generation,
            })
            .collect()
    }

    /// Complexity: one look at each slot of the process, then a sort of what was found.
    pub(super) fn sweep(&self, generation: &Generation) -> usize {
        self.sweep_for(generation, SweptBy::Ejection)
    }

    fn sweep_for(&self, generation: &Generation, swept_by: SweptBy) -> usize {
        let mut found = Vec::new();
        for header in slab::all() {
            let seen = header.custody.load();
            if seen.is_kept_by(generation.tag)
                && self.owns(header)
                && let Some(token) = claim(header, seen)
            {
                found.push((header.runnable_at(), seen, token));
            }
        }
        found.sort_by_key(|(runnable_at, ..)| *runnable_at);
        let count = found.len();
        if swept_by == SweptBy::Ejection && count > 0 {
            let now = self.machine.now();
            let oldest = found.iter().take(SHOWN);
            let lines = oldest.map(|(_, seen, token)| dump::task_line(token.header(), *seen, now));
            generation.note_swept(count, lines.collect());
        }
        let mut entries = Vec::with_capacity(count);
        for (_, _, token) in found {
            token.header().set_reason(EnqueueReason::Inherited);
            if swept_by == SweptBy::Bypass {
                token.header().note_owes_dequeue();
            }
            if token.header().is_restricted() {
                self.push_inbox(token);
            } else {
                entries.push(token.into_entry(Resting::Ingress));
            }
        }
        if !entries.is_empty() {
            self.injector.extend_in_order(entries);
            for _ in 0..count.min(self.worker_count()) {
                self.notify(WorkerId::new(0));
            }
        }
        count
    }
}
