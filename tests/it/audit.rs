//! The audit: thousands of swaps, unloads and ejections under load, by good policies and by bad ones, lose no task and
//! run none twice.
//!
//! What would show a loss: a task that does not move any more although nothing holds it back, or does not end. What
//! would show a double: two polls of one task at once, a poll after the end, two ends, a message that comes twice.
//!
//! `POLITY_AUDIT` sets the number of rounds, 10,000 without it (about ten seconds, unoptimised, on two cores):
//! `POLITY_AUDIT=1000000 cargo test --release -p polity-tests --test it audit` for a night. `POLITY_SEED` repeats the
//! choices of a run, though not its interleaving.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use polity::{BoxPolicy, Handle, JoinHandle, LoadError, yield_now};
use polity_policies::{Callback, Fault, Faulty, Fifo, Priority, Vtime};
use polity_tests::{builder, now, wait_for, wait_until};
use tokio::sync::mpsc;

use crate::support::yield_until;
use crate::workload::{GiveBack, Keeper, Random, Record, Recorder, expect_ordered_panics, tagged};

/// What one task did.
#[derive(Default)]
struct Account {
    polls: AtomicUsize,
    in_poll: AtomicBool,
    ends: AtomicUsize,
    doubles: AtomicUsize,
}

impl Account {
    fn polls(&self) -> usize {
        self.polls.load(Ordering::SeqCst)
    }
}

/// A future that keeps an account.
struct Audited<F> {
    account: Arc<Account>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Audited<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let account = Arc::clone(&self.account);
        if account.in_poll.swap(true, Ordering::SeqCst) || account.ends.load(Ordering::SeqCst) > 0 {
            account.doubles.fetch_add(1, Ordering::SeqCst);
        }
        account.polls.fetch_add(1, Ordering::SeqCst);
        let answer = self.future.as_mut().poll(context);
        account.in_poll.store(false, Ordering::SeqCst);
        answer
    }
}

impl<F> Drop for Audited<F> {
    fn drop(&mut self) {
        if self.account.in_poll.load(Ordering::SeqCst) {
            self.account.doubles.fetch_add(1, Ordering::SeqCst);
        }
        self.account.ends.fetch_add(1, Ordering::SeqCst);
    }
}

/// The tasks, and their accounts.
#[derive(Default)]
struct Books {
    stop: Arc<AtomicBool>,
    accounts: Vec<Arc<Account>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Books {
    fn open(&mut self) -> Arc<Account> {
        let account = Arc::<Account>::default();
        self.accounts.push(Arc::clone(&account));
        account
    }

    fn spawn(&mut self, runtime: &Handle, future: impl Future<Output = ()> + Send + 'static) {
        let (account, tag) = (self.open(), self.tasks.len() as u64);
        let future = Box::pin(future);
        self.tasks
            .push(tagged(runtime, tag, Audited { account, future }));
    }

    fn yielding(&mut self, runtime: &Handle) {
        let yields = yield_until(&self.stop);
        self.spawn(runtime, yields);
    }

    fn ticking(&mut self, runtime: &Handle) {
        let stop = Arc::clone(&self.stop);
        self.spawn(runtime, async move {
            while !stop.load(Ordering::Relaxed) {
                // A timer of the driver is what is tested, not a wait for luck.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    /// A pair that counts together: each message is the one after the last, so none may be lost or come twice.
    fn talking(&mut self, runtime: &Handle) {
        let stop = Arc::clone(&self.stop);
        let (there, mut at_the_other) = mpsc::channel(2);
        let (back, mut at_the_first) = mpsc::channel(2);
        self.spawn(runtime, async move {
            let mut next = 0u64;
            while !stop.load(Ordering::Relaxed) {
                there.send(next).await.unwrap();
                assert_eq!(at_the_first.recv().await, Some(next));
                next += 1;
            }
        });
        self.spawn(runtime, async move {
            let mut next = 0;
            while let Some(number) = at_the_other.recv().await {
                assert_eq!(number, next);
                next += 1;
                back.send(number).await.unwrap();
            }
        });
    }

    /// Starts short tasks and aborts some of them, at all stages of their lives.
    fn aborting(&mut self, runtime: &Handle, mut random: Random) {
        let stop = Arc::clone(&self.stop);
        let handle = runtime.clone();
        self.spawn(runtime, async move {
            while !stop.load(Ordering::Relaxed) {
                let accounts: Vec<Arc<Account>> = (0..4).map(|_| Arc::default()).collect();
                let children: Vec<_> = accounts
                    .iter()
                    .map(|account| {
                        let waits = random.below(2) == 0;
                        let future = Box::pin(async move {
                            yield_now().await;
                            if waits {
                                std::future::pending().await
                            }
                        });
                        let account = Arc::clone(account);
                        let child = handle.spawn(Audited { account, future });
                        (child, waits)
                    })
                    .collect();
                for _ in 0..random.below(4) {
                    yield_now().await;
                }
                for (child, waits) in children {
                    let abort = waits || random.below(2) == 0;
                    if abort {
                        child.abort();
                    }
                    let ended = child.await;
                    assert!(ended.is_ok() || abort);
                    assert!(ended.is_err() || !waits);
                }
                for account in accounts {
                    assert_eq!(account.doubles.load(Ordering::SeqCst), 0);
                    assert_eq!(account.ends.load(Ordering::SeqCst), 1);
                }
            }
        });
    }

    /// Every task has moved since, now that nobody holds it back.
    fn check_all_move(&self) {
        let before: Vec<usize> = self
            .accounts
            .iter()
            .map(|account| account.polls())
            .collect();
        wait_until("every task has been polled again", || {
            let mut accounts = self.accounts.iter().zip(&before);
            accounts.all(|(account, before)| account.polls() > *before)
        });
    }

    fn close(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            wait_for("the end of an audited task", task).unwrap();
        }
        for account in self.accounts {
            assert_eq!(account.doubles.load(Ordering::SeqCst), 0);
            assert_eq!(account.ends.load(Ordering::SeqCst), 1);
        }
    }
}

fn rounds() -> usize {
    match std::env::var("POLITY_AUDIT") {
        Ok(rounds) => rounds.parse().expect("POLITY_AUDIT is a number of rounds"),
        Err(_) => 10_000,
    }
}

fn any_fault(random: &mut Random) -> Fault {
    let n = random.below(200) + 1;
    let callback = Callback::ALL[random.below(Callback::ALL.len() as u64) as usize];
    match random.below(12) {
        0 => Fault::ErrorAfterEnqueues(n),
        1 => Fault::DispatchEndlesslyAfter(n),
        2..5 => Fault::Panic { callback, call: n },
        5 => Fault::ForgetEveryNth(n),
        6 => Fault::RefuseInit,
        7 => Fault::InsertUnknownDsq(n),
        8 => Fault::InsertDestroyedDsq(n),
        9 => Fault::InsertTwice(n),
        10 => Fault::InsertOtherTask(n),
        _ => Fault::SelectWorkerOutOfRange(n),
    }
}

fn any_policy(random: &mut Random) -> BoxPolicy {
    match random.below(8) {
        0 => BoxPolicy::new(Fifo::new()),
        1 => BoxPolicy::new(Fifo::per_worker()),
        2 => BoxPolicy::new(Priority::new()),
        3 => BoxPolicy::new(Vtime::new()),
        4 => {
            let how = GiveBack::ALL[random.below(5) as usize];
            BoxPolicy::new(Keeper::new(how))
        }
        _ => BoxPolicy::new(Faulty::new(any_fault(random))),
    }
}

#[test]
fn thousands_of_swaps_and_ejections_under_load_lose_and_double_no_task() {
    expect_ordered_panics();
    let mut random = Random::from_env("audit");
    let runtime = builder(2)
        .watchdog(Duration::from_millis(50))
        .build()
        .unwrap();
    let mut books = Books::default();
    for _ in 0..8 {
        books.yielding(&runtime);
        books.ticking(&runtime);
        books.talking(&runtime);
        books.aborting(&runtime, Random::new(random.next()));
    }
    let rounds = rounds();
    let (mut loads, mut ejections) = (0, 0);
    let mut records: Vec<Arc<Record>> = Vec::new();
    for round in 0..rounds {
        match random.below(8) {
            0 => ejections += usize::from(runtime.eject("as ordered").is_some()),
            1 => ejections += usize::from(runtime.unload().is_some()),
            _ => {
                let (policy, record) = Recorder::new(any_policy(&mut random), 2);
                match runtime.load(policy) {
                    Ok(_) => {
                        loads += 1;
                        records.push(record);
                    }
                    // `RefuseInit`, and a panic in `init`.
                    Err(error) => assert!(matches!(error, LoadError::Refused(_)), "{error}"),
                }
            }
        }
        if random.below(2) == 0 {
            // Let it run for a while, or until it has stopped everything.
            let polls = runtime.metrics().polls + random.below(500);
            let until = now() + Duration::from_millis(1);
            wait_until("it has run a little", || {
                runtime.metrics().polls >= polls || now() >= until
            });
        }
        if round % 250 == 249 {
            runtime.unload();
            books.check_all_move();
            wait_until("every policy but the present one has had its exit", || {
                records.iter().all(|record| record.exits() == 1)
            });
            for record in records.drain(..) {
                record.check();
            }
        }
    }
    println!("{rounds} rounds: {loads} loads, {ejections} ejections from outside");
    runtime.unload();
    books.check_all_move();
    books.close();
}
