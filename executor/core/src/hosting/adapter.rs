//! A policy in the shape in which the door calls it: its type forgotten, and with what it keeps for each task.
//!
//! Called from `call.rs` only, so by a thread that is inside the generation and has the task's token.
//!
//! **Order.** `init_task` comes right before the first `runnable` in this generation, `exit_task` after the last `quiescent`.
//! Once the generation has ended nothing more is said, and what it keeps is dropped with it: see `task/data.rs`.

use std::any::{Any, TypeId};
use std::sync::Arc;

use polity_policy::{
    BoxPolicy, EnqueueReason, ExitInfo, Host, InitError, Optional, Policy, Stopped, TaskView,
    WorkerId,
};

use crate::callback::Callback;
use crate::core::Changed;
use crate::hosting::batch::{Departed, News, Notes, Told};
use crate::hosting::panic_text;
use crate::hosting::unwritten::Known;
use crate::seat::{Activity, Place};
use crate::task::data::{Keeps, TaskData};

/// The call that is being made.
pub(crate) struct Door<'a> {
    pub(crate) host: &'a Host<'a>,
    pub(crate) activity: &'a Activity,
    /// The generation has ended: nothing more is said.
    pub(crate) ended: &'a dyn Fn() -> bool,
    /// What need not be called.
    pub(crate) unwritten: Known,
}

impl Door<'_> {
    #[inline]
    fn enter(&self, callback: Callback) {
        self.activity.set_place(Place::Callback(callback));
    }
}

/// A policy whose type is forgotten: batches in, so that the loop over tasks is inside.
pub(crate) trait Callbacks: Send + Sync {
    fn init(&self, host: &Host<'_>) -> Result<(), InitError>;
    fn exit(&self, info: &ExitInfo);
    /// Drops what is kept for tasks. Returns what a panic in it said.
    fn drop_task_data(&mut self) -> Option<String>;
    /// The type of the policy, inside a box if it is in one.
    fn kind(&self) -> TypeId;
    /// Whether something is kept for tasks.
    fn keeps_values(&self) -> bool;
    /// The policy itself, to be downcast.
    fn policy(&self) -> Arc<dyn Any + Send + Sync>;
    /// `init_task`, `runnable`, `select_worker` and `enqueue` for each task, as far as they are due, until the end of the generation.
    fn offer(&self, door: &Door<'_>, notes: &Notes);
    fn dequeue(&self, door: &Door<'_>, departed: &[Departed]);
    fn dispatch(&self, door: &Door<'_>, worker: WorkerId, prev: Option<&TaskView<'_>>);
    /// `runnable`, and `init_task` before it if that is news.
    fn runnable(&self, door: &Door<'_>, task: &TaskView<'_>, news: News);
    fn running(&self, door: &Door<'_>, task: &TaskView<'_>);
    /// `stopping`, and `quiescent` if the task is not runnable any more, and `exit_task` if it is done.
    fn stopping(&self, door: &Door<'_>, task: &TaskView<'_>, stopped: Stopped);
    /// `quiescent` and `exit_task`.
    fn cancelled(&self, door: &Door<'_>, task: &TaskView<'_>);
    fn exit_task(&self, door: &Door<'_>, task: &TaskView<'_>);
    fn timer(&self, door: &Door<'_>, worker: WorkerId);
    /// `set_weight` or `set_affinity` for each task. Not by whoever has its token, so nothing that is kept for it is shown.
    fn changed(&self, door: &Door<'_>, changed: &[Told]);
}

pub(super) fn callback_for(what: Changed) -> Callback {
    match what {
        Changed::Weight => Callback::SetWeight,
        Changed::Affinity => Callback::SetAffinity,
    }
}

/// Gives a policy the shape of [`Callbacks`].
pub(crate) struct Adapter<P: Policy> {
    /// Shared with typed handles, which keep the policy from being dropped, and nothing else.
    policy: Arc<P>,
    data: TaskData<P::Task>,
}

impl<P: Policy> Adapter<P> {
    pub(crate) fn new(policy: P) -> Self {
        let boxed = (&policy as &dyn Any).downcast_ref::<BoxPolicy>();
        let keeps = match boxed {
            Some(boxed) if !boxed.keeps_task_data() => Keeps::Nothing,
            _ => Keeps::Values,
        };
        Adapter {
            policy: Arc::new(policy),
            data: TaskData::new(keeps),
        }
    }

    /// The task, with what the policy keeps for it. `None` cannot be for a task that the generation has met; then the policy is not
    /// told, which is better than a panic in its name.
    #[inline]
    fn view<'a>(&'a self, task: &TaskView<'a>) -> Option<TaskView<'a, P::Task>> {
        let data = self.data.get(task.id());
        debug_assert!(data.is_some(), "{:?} was never introduced", task.id());
        data.map(|data| task.with_data(data))
    }

    /// `false`: nothing more is to be said, the policy has ended itself. Kept out of the loop of `offer`, which is faster without it.
    #[cold]
    fn init_task(&self, door: &Door<'_>, task: &TaskView<'_>) -> bool {
        door.enter(Callback::InitTask);
        match self.policy.init_task(door.host, task) {
            Ok(value) => {
                if !self.data.put(task.id(), value) {
                    door.host.error("no memory for what is kept for the task");
                }
            }
            Err(error) => door.host.error(&error.to_string()),
        }
        !(door.ended)()
    }

    #[inline]
    fn part(&self, door: &Door<'_>, task: &TaskView<'_>) {
        door.enter(Callback::ExitTask);
        if let Some(view) = self.view(task) {
            self.policy.exit_task(door.host, &view);
        }
        // After the end it goes with all the rest.
        if self.data.keeps_values() && !(door.ended)() {
            self.data.drop_one(task.id());
        }
    }
}

impl<P: Policy> Callbacks for Adapter<P> {
    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.policy.init(host)
    }

    fn exit(&self, info: &ExitInfo) {
        self.policy.exit(info);
    }

    fn drop_task_data(&mut self) -> Option<String> {
        let payload = self.data.clear()?;
        let text = panic_text(&*payload);
        std::mem::forget(payload); // its drop may panic too
        Some(text)
    }

    fn kind(&self) -> TypeId {
        (*self.policy()).type_id()
    }

    fn keeps_values(&self) -> bool {
        self.data.keeps_values()
    }

    fn policy(&self) -> Arc<dyn Any + Send + Sync> {
        match (&*self.policy as &dyn Any).downcast_ref::<BoxPolicy>() {
            Some(boxed) => boxed.inner(),
            None => Arc::clone(&self.policy) as _,
        }
    }

    fn offer(&self, door: &Door<'_>, notes: &Notes) {
        let (policy, host) = (&*self.policy, door.host);
        for (index, offered) in notes.batch.iter().enumerate() {
            notes.at_hand.set(index);
            door.activity.set_task(Some(offered.view.id()));
            if offered.news == News::Met
                && !door.unwritten.lacks(Optional::InitTask)
                && !self.init_task(door, &offered.view)
            {
                return;
            }
            let Some(view) = self.view(&offered.view) else {
                return;
            };
            if offered.news != News::None && !door.unwritten.lacks(Optional::Runnable) {
                door.enter(Callback::Runnable);
                policy.runnable(host, &view);
                if (door.ended)() {
                    return;
                }
            }
            if matches!(view.reason(), EnqueueReason::Spawn | EnqueueReason::Wake)
                && !door.unwritten.lacks(Optional::SelectWorker)
            {
                door.enter(Callback::SelectWorker);
                let selected = policy.select_worker(host, &view);
                notes.select(offered, selected);
                if selected.index() >= host.worker_count() {
                    // Through the host, like any other wrong value: it names the callback and ends the policy.
                    host.kick(selected);
                }
                if (door.ended)() {
                    return;
                }
            }
            if offered.verdict.get().is_none() {
                door.enter(Callback::Enqueue);
                policy.enqueue(host, &view);
            }
            if (door.ended)() {
                return;
            }
        }
    }

    fn dequeue(&self, door: &Door<'_>, departed: &[Departed]) {
        for departed in departed {
            if (door.ended)() {
                return;
            }
            door.activity.set_task(Some(departed.view.id()));
            if let Some(view) = self.view(&departed.view) {
                self.policy.dequeue(door.host, &view, departed.reason);
            }
        }
    }

    fn dispatch(&self, door: &Door<'_>, worker: WorkerId, prev: Option<&TaskView<'_>>) {
        let prev = prev.and_then(|prev| self.view(prev));
        self.policy.dispatch(door.host, worker, prev.as_ref());
    }

    fn runnable(&self, door: &Door<'_>, task: &TaskView<'_>, news: News) {
        if news == News::Met {
            if !self.init_task(door, task) {
                return;
            }
            door.enter(Callback::Runnable);
        }
        if let Some(view) = self.view(task) {
            self.policy.runnable(door.host, &view);
        }
    }

    fn running(&self, door: &Door<'_>, task: &TaskView<'_>) {
        if let Some(view) = self.view(task) {
            self.policy.running(door.host, &view);
        }
    }

    fn stopping(&self, door: &Door<'_>, task: &TaskView<'_>, stopped: Stopped) {
        let Some(view) = self.view(task) else {
            return;
        };
        if !door.unwritten.lacks(Optional::Stopping) {
            self.policy.stopping(door.host, &view, stopped);
        }
        if stopped == Stopped::StillRunnable || (door.ended)() {
            return;
        }
        if !door.unwritten.lacks(Optional::Quiescent) {
            door.enter(Callback::Quiescent);
            self.policy.quiescent(door.host, &view);
        }
        if stopped == Stopped::Finished && !(door.ended)() {
            self.part(door, task);
        }
    }

    fn cancelled(&self, door: &Door<'_>, task: &TaskView<'_>) {
        if let Some(view) = self.view(task) {
            self.policy.quiescent(door.host, &view);
        }
        if !(door.ended)() {
            self.part(door, task);
        }
    }

    fn exit_task(&self, door: &Door<'_>, task: &TaskView<'_>) {
        self.part(door, task);
    }

    fn timer(&self, door: &Door<'_>, worker: WorkerId) {
        self.policy.timer(door.host, worker);
    }

    fn changed(&self, door: &Door<'_>, changed: &[Told]) {
        for Told { view, what } in changed {
            if (door.ended)() {
                return;
            }
            door.activity.set_task(Some(view.id()));
            door.enter(callback_for(*what));
            match what {
                Changed::Weight => self.policy.set_weight(door.host, view),
                Changed::Affinity => self.policy.set_affinity(door.host, view),
            }
        }
    }
}
