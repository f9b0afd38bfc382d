//! The threads that sit down in seats: workers, spares, and at the very worst the watchdog.
//!
//! | thread | what it does |
//! |---|---|
//! | worker | sits down at once, pinned; after a conviction, from which it may come back, it waits as a spare |
//! | spare | waits; sits down when the watchdog assigns its seat; waits again when it is dismissed |

use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use polity_core::{Core, Pass, SeatId, Worker};

use crate::context;
use crate::handle::Handle;
use crate::local::Resident;
use crate::machine::{self, RealMachine};
use crate::pin::Placement;
use crate::report::{self, Report};
use crate::spares::{Spares, Waited};
use crate::sys::{affinity, thread as sys_thread, tls};

type Hook = Arc<dyn Fn() + Send + Sync>;

thread_local! {
    /// The runtime in whose seat this thread sits. Not `context`'s: a task may enter another runtime.
    static RUNTIME: RefCell<Option<Handle>> = const { RefCell::new(None) };
}

/// The runtime in whose seat this thread sits.
pub(crate) fn seated_in() -> Option<Handle> {
    RUNTIME.with_borrow(Clone::clone)
}

/// What the application wants to run on worker threads.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) start: Option<Hook>,
    pub(crate) stop: Option<Hook>,
}

/// What these threads have in common.
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) stack_size: Option<usize>,
    pub(crate) hooks: Hooks,
    pub(crate) placement: Placement,
    pub(crate) spares: Arc<Spares>,
}

/// Starts the thread of one worker.
pub(crate) fn start_worker(
    handle: Handle,
    config: Arc<Config>,
    seat: SeatId,
) -> io::Result<JoinHandle<()>> {
    let name = config.name.clone();
    start(name, handle, config, seat, |thread| {
        if let Err(why) = thread
            .config
            .placement
            .pin_current_thread(thread.seat.index())
        {
            let seat = thread.seat;
            report::send(Report::Warn(format!("worker {seat} is not pinned: {why}")));
        }
        thread.begin();
        thread.sit();
        thread.wait_as_spare();
    })
}

/// Starts the thread of one spare.
pub(crate) fn start_spare(
    handle: Handle,
    config: Arc<Config>,
    seat: SeatId,
) -> io::Result<JoinHandle<()>> {
    let name = format!("{}-spare", config.name);
    start(name, handle, config, seat, |thread| {
        // It was started by whoever builds the runtime, perhaps a pinned thread.
        affinity::restore();
        thread.wait_as_spare();
    })
}

fn start(
    name: String,
    handle: Handle,
    config: Arc<Config>,
    seat: SeatId,
    body: impl FnOnce(&mut Seated) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let mut builder = thread::Builder::new().name(name);
    if let Some(bytes) = config.stack_size {
        builder = builder.stack_size(bytes);
    }
    builder.spawn(move || {
        let mut thread = Seated {
            resident: Resident::new(&handle, seat),
            handle,
            config,
            seat,
            begun: false,
            end: None,
        };
        body(&mut thread);
        thread.end();
        // What is still bound to it goes with the thread.
        drop(thread.resident);
    })
}

/// A hook that panics must not cost the runtime a worker.
fn run_hook(name: &str, hook: &(dyn Fn() + Send + Sync)) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(hook)) {
        // Not dropped: its drop may panic too. The panic hook has printed what it said.
        std::mem::forget(payload);
        report::send(Report::Warn(format!(
            "the {name} hook panicked; its thread goes on"
        )));
    }
}

/// One such thread.
struct Seated {
    resident: Resident,
    handle: Handle,
    config: Arc<Config>,
    seat: SeatId,
    /// The start hook has run.
    begun: bool,
    /// How it left its seat last.
    end: Option<Pass>,
}

impl Seated {
    fn begin(&mut self) {
        if !self.begun
            && let Some(start) = &self.config.hooks.start
        {
            run_hook("on_thread_start", &**start);
        }
        self.begun = true;
    }

    fn end(&self) {
        if self.begun
            && let Some(stop) = &self.config.hooks.stop
        {
            run_hook("on_thread_stop", &**stop);
        }
    }

    fn sit(&mut self) {
        let nice = sys_thread::nice(sys_thread::current());
        self.end = sit(&self.handle, self.seat, &self.resident);
        if self.end == Some(Pass::Revoked) && !come_back(&self.config.spares, self.seat, nice) {
            self.end = None;
        }
    }

    fn wait_as_spare(&mut self) {
        while matches!(self.end, None | Some(Pass::Dismissed | Pass::Revoked)) {
            if self.begun && self.end.is_none() {
                return;
            }
            let resident = &self.resident;
            match self.config.spares.wait(self.seat, || resident.has_mail()) {
                Waited::Assigned => {
                    self.begin();
                    self.sit();
                }
                Waited::Mail => resident.open_letters_as_spare(),
                Waited::Closed => return,
            }
        }
    }
}

/// The thread, which was convicted, is out of the callback after all. `false`: it could not be made as nice as it was,
/// and is of no use to anybody.
pub(crate) fn come_back(spares: &Spares, seat: SeatId, nice: i32) -> bool {
    spares.came_back(seat);
    // Its core is another thread's now.
    affinity::restore();
    let thread = sys_thread::current();
    sys_thread::nice(thread) <= nice || sys_thread::set_nice(thread, nice)
}

/// Does the work of the worker for whom the seat was prepared, until told otherwise. `None`: the seat cannot be used again.
pub(crate) fn sit(handle: &Handle, seat: SeatId, resident: &Resident) -> Option<Pass> {
    let core: &'static Core<RealMachine> = handle.core();
    let machine = core.machine();
    machine.adopt(seat);
    // Entered first and left last: tasks are polled and dropped inside.
    let _context = context::enter(handle);
    if !machine::install_budget(&machine.driver) && seat.index() == 0 {
        let text = "this version of tokio does not let polity give tasks a cooperative budget: a loop over an \
                    always-ready tokio channel or socket will not yield by itself";
        report::send(Report::Warn(text.to_owned()));
    }
    let mut worker = Worker::new(core, seat);
    let seated = tls::sit(worker.local());
    RUNTIME.set(Some(handle.clone()));
    resident.works_for(worker.local().id());
    let end = pass_until_told(&mut worker, machine, resident);
    RUNTIME.set(None);
    if end == Pass::Stop {
        // While what they wake still finds this worker.
        resident.close();
    }
    let local = if end == Pass::Revoked {
        worker.give_up()
    } else {
        worker.leave()
    };
    drop(seated);
    core.clear_seat(local).then_some(end)
}

fn pass_until_told(
    worker: &mut Worker<RealMachine>,
    machine: &RealMachine,
    resident: &Resident,
) -> Pass {
    loop {
        match worker.pass() {
            Pass::Ran => {
                if worker.drive_due() {
                    machine.drive(worker);
                }
            }
            Pass::Drive => machine.drive(worker),
            Pass::Park(park) => machine.park(worker, park),
            end @ (Pass::Stop | Pass::Dismissed | Pass::Revoked) => return end,
        }
        // After a park, never between its announcement and itself.
        if resident.has_mail() {
            resident.open_letters();
        }
    }
}
