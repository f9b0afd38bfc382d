//! Worker threads: start, pin, loop.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use polity_core::{Pass, SeatId, Worker};
use polity_policy::WorkerId;

use crate::context;
use crate::handle::Handle;
use crate::machine::{self, RealMachine};
use crate::pin::Placement;
use crate::report::{self, Report};
use crate::sys::tls;

type Hook = Arc<dyn Fn() + Send + Sync>;

/// What the application wants to run on worker threads.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) start: Option<Hook>,
    pub(crate) stop: Option<Hook>,
}

/// What worker threads have in common.
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) stack_size: Option<usize>,
    pub(crate) hooks: Hooks,
    pub(crate) placement: Placement,
}

/// Starts the thread of one worker.
pub(crate) fn start(
    handle: Handle,
    config: Arc<Config>,
    id: WorkerId,
) -> io::Result<JoinHandle<()>> {
    let mut builder = thread::Builder::new().name(config.name.clone());
    if let Some(bytes) = config.stack_size {
        builder = builder.stack_size(bytes);
    }
    builder.spawn(move || {
        if let Err(why) = config.placement.pin_current_thread(id.index()) {
            report::send(Report::Warn(format!("worker {id} is not pinned: {why}")));
        }
        if let Some(start) = &config.hooks.start {
            start();
        }
        run(&handle, id);
        if let Some(stop) = &config.hooks.stop {
            stop();
        }
    })
}

/// The life of a worker thread.
fn run(handle: &Handle, id: WorkerId) {
    let core = handle.core();
    let machine = core.machine();
    let seat = SeatId::new(id.index() as u16);
    machine.adopt(seat);
    // Entered first and left last: tasks are polled and dropped inside.
    let _context = context::enter(handle);
    if !machine::install_budget(&machine.driver) && id.index() == 0 {
        let text = "this version of tokio does not let polity give tasks a cooperative budget: a loop over an \
                    always-ready tokio channel or socket will not yield by itself";
        report::send(Report::Warn(text.to_owned()));
    }
    let mut worker = Worker::new(core, seat);
    let seated = tls::sit(worker.local());
    pass_until_closed(&mut worker, machine);
    let local = worker.leave();
    drop(seated);
    core.clear_seat(local);
}

fn pass_until_closed(worker: &mut Worker<RealMachine>, machine: &RealMachine) {
    loop {
        match worker.pass() {
            Pass::Ran => {
                if worker.drive_due() {
                    machine.drive(worker);
                }
            }
            Pass::Drive => machine.drive(worker),
            Pass::Park(park) => machine.park(worker, park.timeout_ns.map(Duration::from_nanos)),
            Pass::Stop | Pass::Dismissed | Pass::Revoked => return,
        }
    }
}
