//! Who was polled, who ended, and how often.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use polity::{Attributes, Handle, JoinHandle};
use polity_tests::wait_for;

/// What one task did.
#[derive(Default)]
struct Account {
    in_poll: AtomicBool,
    ready: AtomicUsize,
    drops: AtomicUsize,
    /// Polls beside another one, or after the end.
    wrong: AtomicUsize,
}

struct Accounted<F> {
    account: Arc<Account>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Accounted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let account = Arc::clone(&self.account);
        let over = account.ready.load(Ordering::SeqCst) + account.drops.load(Ordering::SeqCst) > 0;
        if account.in_poll.swap(true, Ordering::SeqCst) || over {
            account.wrong.fetch_add(1, Ordering::SeqCst);
        }
        let answer = self.future.as_mut().poll(context);
        if answer.is_ready() {
            account.ready.fetch_add(1, Ordering::SeqCst);
        }
        account.in_poll.store(false, Ordering::SeqCst);
        answer
    }
}

impl<F> Drop for Accounted<F> {
    fn drop(&mut self) {
        if self.account.in_poll.load(Ordering::SeqCst) {
            self.account.wrong.fetch_add(1, Ordering::SeqCst);
        }
        self.account.drops.fetch_add(1, Ordering::SeqCst);
    }
}

/// Tasks that have to end exactly once, each with the number that it was given.
#[derive(Default)]
pub(crate) struct Ledger {
    finishing: Vec<(usize, JoinHandle<usize>)>,
    aborted: Vec<(usize, JoinHandle<usize>)>,
    accounts: Vec<Arc<Account>>,
}

impl Ledger {
    fn open<F>(
        &mut self,
        runtime: &Handle,
        attributes: Attributes,
        future: F,
    ) -> (usize, JoinHandle<usize>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let number = self.accounts.len();
        let account = Arc::<Account>::default();
        self.accounts.push(Arc::clone(&account));
        let future = Box::pin(async move {
            future.await;
            number
        });
        let future = Accounted { account, future };
        (number, runtime.spawn_with(attributes, future).unwrap())
    }

    /// A task that will finish.
    pub(crate) fn spawn<F>(&mut self, runtime: &Handle, attributes: Attributes, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let opened = self.open(runtime, attributes, future);
        self.finishing.push(opened);
    }

    /// A task that will not, and has to be aborted.
    pub(crate) fn spawn_endless(&mut self, runtime: &Handle, attributes: Attributes) {
        let opened = self.open(runtime, attributes, std::future::pending());
        self.aborted.push(opened);
    }

    /// Aborts those that do not finish.
    pub(crate) fn abort(&self) {
        for (_, task) in &self.aborted {
            task.abort();
        }
    }

    /// Aborts them all, also those that would finish.
    pub(crate) fn abort_all(&self) {
        for (_, task) in self.finishing.iter().chain(&self.aborted) {
            task.abort();
        }
    }

    /// Waits for all tasks, which finish or not.
    #[track_caller]
    pub(crate) fn settle_aborted(&mut self) {
        self.abort();
        let tasks = self.finishing.drain(..).chain(self.aborted.drain(..));
        for (number, task) in tasks {
            match wait_for("a task that may have been aborted", task) {
                Ok(output) => assert_eq!(output, number),
                Err(error) => assert!(error.is_cancelled()),
            }
        }
        self.check();
    }

    /// Waits for all tasks. Afterwards [`Ledger::check`] can be asked again and again.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        for (number, task) in self.finishing.drain(..) {
            let output = wait_for("a task that finishes", task).unwrap();
            assert_eq!(output, number);
        }
        for (_, task) in self.aborted.drain(..) {
            let ended = wait_for("an aborted task", task);
            assert!(ended.unwrap_err().is_cancelled());
        }
        self.check();
    }

    /// Every task that was not refused has ended, once: its runtime has gone.
    #[track_caller]
    pub(crate) fn check_dropped(&mut self) {
        self.finishing.clear();
        self.aborted.clear();
        self.check();
    }

    /// Every task has ended, once.
    #[track_caller]
    pub(crate) fn check(&self) {
        for (number, account) in self.accounts.iter().enumerate() {
            let count = |count: &AtomicUsize| count.load(Ordering::SeqCst);
            assert_eq!(count(&account.wrong), 0, "task {number} polled wrongly");
            assert_eq!(count(&account.drops), 1, "drops of task {number}");
            assert!(count(&account.ready) <= 1, "task {number} finished twice");
        }
    }
}
