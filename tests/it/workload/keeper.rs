//! A policy that has every task in its custody.

use std::sync::Mutex;

use polity::{DsqId, Host, InitError, Policy, Position, TaskId, TaskView, WorkerId};

use super::lock;

/// How a [`Keeper`] gives tasks back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GiveBack {
    /// From its own hands to the worker that asks.
    Local,
    /// From its own hands to the local DSQ of another worker.
    Elsewhere,
    /// From its own hands to the global DSQ.
    Global,
    /// Through a custom DSQ: into it in `enqueue`, out of it in `dispatch`.
    Custom,
    /// From its own hands into a custom DSQ, both in `dispatch`.
    HandsThenCustom,
}

impl GiveBack {
    pub(crate) const ALL: [GiveBack; 5] = [
        GiveBack::Local,
        GiveBack::Elsewhere,
        GiveBack::Global,
        GiveBack::Custom,
        GiveBack::HandsThenCustom,
    ];
}

/// Has every task in its custody, first come, first served.
pub(crate) struct Keeper {
    how: GiveBack,
    kept: Mutex<Vec<TaskId>>,
}

impl Keeper {
    pub(crate) fn new(how: GiveBack) -> Keeper {
        Keeper {
            how,
            kept: Mutex::default(),
        }
    }
}

const KEEPERS_DSQ: DsqId = DsqId::Custom(7);

impl Policy for Keeper {
    type Task = ();

    fn name(&self) -> &str {
        "keeper"
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        host.create_dsq(7)?;
        Ok(())
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if self.how == GiveBack::Custom {
            host.insert(task.id(), KEEPERS_DSQ, Position::Tail);
        } else {
            lock(&self.kept).push(task.id());
        }
    }

    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, _prev: Option<&TaskView<'_>>) {
        let next = |index| WorkerId::new(((index + 1) % host.worker_count()) as u16);
        let dsq = match self.how {
            GiveBack::Local => DsqId::Local,
            GiveBack::Elsewhere => DsqId::LocalOn(next(worker.index())),
            GiveBack::Global => DsqId::Global,
            GiveBack::Custom | GiveBack::HandsThenCustom => KEEPERS_DSQ,
        };
        let mut kept = lock(&self.kept);
        let some = kept.len().min(4);
        let given: Vec<TaskId> = kept.drain(..some).collect();
        drop(kept);
        for task in given {
            host.insert(task, dsq, Position::Tail);
        }
        if dsq == KEEPERS_DSQ {
            host.move_to_local(dsq, 2);
        }
    }
}
