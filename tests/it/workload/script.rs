//! A policy made of closures.

use polity::{DequeueReason, ExitInfo, Host, InitError, Policy, Stopped, TaskView, WorkerId};

type OnTask = Box<dyn Fn(&Host<'_>, &TaskView<'_>) + Send + Sync>;
type OnSelect = Box<dyn Fn(&Host<'_>, &TaskView<'_>) -> WorkerId + Send + Sync>;
type OnDequeue = Box<dyn Fn(&Host<'_>, &TaskView<'_>, DequeueReason) + Send + Sync>;
type OnDispatch = Box<dyn Fn(&Host<'_>, WorkerId, Option<&TaskView<'_>>) + Send + Sync>;
type OnStopping = Box<dyn Fn(&Host<'_>, &TaskView<'_>, Stopped) + Send + Sync>;
type OnInit = Box<dyn Fn(&Host<'_>) -> Result<(), InitError> + Send + Sync>;
type OnInitTask = Box<dyn Fn(&Host<'_>, &TaskView<'_>) -> Result<(), InitError> + Send + Sync>;
type OnExit = Box<dyn Fn(&ExitInfo) + Send + Sync>;
type OnDrop = Box<dyn Fn() + Send + Sync>;

/// A policy made of closures. What is not given is the contract's default.
pub(crate) struct Script {
    name: String,
    init: Option<OnInit>,
    exit: Option<OnExit>,
    init_task: Option<OnInitTask>,
    exit_task: Option<OnTask>,
    select_worker: Option<OnSelect>,
    enqueue: Option<OnTask>,
    dequeue: Option<OnDequeue>,
    dispatch: Option<OnDispatch>,
    runnable: Option<OnTask>,
    running: Option<OnTask>,
    stopping: Option<OnStopping>,
    quiescent: Option<OnTask>,
    set_weight: Option<OnTask>,
    set_affinity: Option<OnTask>,
    dropped: Option<OnDrop>,
}

macro_rules! setters {
    ($($name:ident: ($($argument:ty),*) $(-> $answer:ty)?;)*) => {
        $(pub(crate) fn $name(
            mut self,
            body: impl Fn($($argument),*) $(-> $answer)? + Send + Sync + 'static,
        ) -> Self {
            self.$name = Some(Box::new(body));
            self
        })*
    };
}

impl Script {
    pub(crate) fn new(name: impl Into<String>) -> Script {
        Script {
            name: name.into(),
            init: None,
            exit: None,
            init_task: None,
            exit_task: None,
            select_worker: None,
            enqueue: None,
            dequeue: None,
            dispatch: None,
            runnable: None,
            running: None,
            stopping: None,
            quiescent: None,
            set_weight: None,
            set_affinity: None,
            dropped: None,
        }
    }

    setters! {
        init: (&Host<'_>) -> Result<(), InitError>;
        exit: (&ExitInfo);
        init_task: (&Host<'_>, &TaskView<'_>) -> Result<(), InitError>;
        exit_task: (&Host<'_>, &TaskView<'_>);
        select_worker: (&Host<'_>, &TaskView<'_>) -> WorkerId;
        enqueue: (&Host<'_>, &TaskView<'_>);
        dequeue: (&Host<'_>, &TaskView<'_>, DequeueReason);
        dispatch: (&Host<'_>, WorkerId, Option<&TaskView<'_>>);
        runnable: (&Host<'_>, &TaskView<'_>);
        running: (&Host<'_>, &TaskView<'_>);
        stopping: (&Host<'_>, &TaskView<'_>, Stopped);
        quiescent: (&Host<'_>, &TaskView<'_>);
        set_weight: (&Host<'_>, &TaskView<'_>);
        set_affinity: (&Host<'_>, &TaskView<'_>);
        dropped: ();
    }
}

/// What the contract does by itself.
struct Defaults;

impl Policy for Defaults {
    type Task = ();

    fn name(&self) -> &str {
        "defaults"
    }
}

impl Policy for Script {
    type Task = ();

    fn name(&self) -> &str {
        &self.name
    }
    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.init.as_ref().map_or(Ok(()), |init| init(host))
    }
    fn exit(&self, info: &ExitInfo) {
        if let Some(exit) = &self.exit {
            exit(info);
        }
    }
    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<(), InitError> {
        self.init_task
            .as_ref()
            .map_or(Ok(()), |init| init(host, task))
    }
    fn exit_task(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(exit) = &self.exit_task {
            exit(host, task);
        }
    }
    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_>) -> WorkerId {
        match &self.select_worker {
            Some(select) => select(host, task),
            None => Defaults.select_worker(host, task),
        }
    }
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        match &self.enqueue {
            Some(enqueue) => enqueue(host, task),
            None => Defaults.enqueue(host, task),
        }
    }
    fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_>, reason: DequeueReason) {
        if let Some(dequeue) = &self.dequeue {
            dequeue(host, task, reason);
        }
    }
    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_>>) {
        if let Some(dispatch) = &self.dispatch {
            dispatch(host, worker, prev);
        }
    }
    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(runnable) = &self.runnable {
            runnable(host, task);
        }
    }
    fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(running) = &self.running {
            running(host, task);
        }
    }
    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_>, stopped: Stopped) {
        if let Some(stopping) = &self.stopping {
            stopping(host, task, stopped);
        }
    }
    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(quiescent) = &self.quiescent {
            quiescent(host, task);
        }
    }
    fn set_weight(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(set_weight) = &self.set_weight {
            set_weight(host, task);
        }
    }
    fn set_affinity(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(set_affinity) = &self.set_affinity {
            set_affinity(host, task);
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped();
        }
    }
}
