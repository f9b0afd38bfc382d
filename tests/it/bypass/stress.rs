//! Bypasses from several threads at once, while tasks come, go, wait, yield and are aborted.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread;

use polity::{BoxPolicy, Bypass, Handle, JoinHandle, yield_now};
use polity_policies::{Fifo, Priority, Vtime};
use polity_tests::{check, wait_for, wait_until};

use crate::workload::{GiveBack, Keeper, Mixed, Random, Recorder, lock, tagged};

/// What happened to one task.
#[derive(Default)]
struct Life {
    in_poll: AtomicBool,
    completed: AtomicUsize,
    dropped: AtomicUsize,
    doubles: AtomicUsize,
}

/// A future that notes in `Life` what is done to it.
struct Watched<F> {
    life: Arc<Life>,
    future: Pin<Box<F>>,
}

impl<F: Future<Output = ()>> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let life = Arc::clone(&self.life);
        if life.in_poll.swap(true, Ordering::SeqCst) || life.completed.load(Ordering::SeqCst) > 0 {
            life.doubles.fetch_add(1, Ordering::SeqCst);
        }
        let answer = self.future.as_mut().poll(context);
        life.completed
            .fetch_add(usize::from(answer.is_ready()), Ordering::SeqCst);
        life.in_poll.store(false, Ordering::SeqCst);
        answer
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        self.life.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// A task that yields and waits, and is aborted or not.
struct Entrant {
    life: Arc<Life>,
    task: JoinHandle<()>,
    wake: Option<tokio::sync::oneshot::Sender<()>>,
    aborted: bool,
}

impl Entrant {
    fn new(runtime: &Handle, random: &mut Random) -> Entrant {
        let life = Arc::<Life>::default();
        let (wake, woken) = tokio::sync::oneshot::channel();
        let yields = random.below(4);
        let future = Box::pin(async move {
            for _ in 0..yields {
                yield_now().await;
            }
            woken.await.unwrap();
            for _ in 0..yields {
                yield_now().await;
            }
        });
        let watched = Watched {
            life: Arc::clone(&life),
            future,
        };
        Entrant {
            life,
            task: tagged(runtime, random.below(3), watched),
            wake: Some(wake),
            aborted: false,
        }
    }

    fn wake(&mut self) {
        if let Some(wake) = self.wake.take() {
            // It may have been aborted.
            let _ = wake.send(());
        }
    }

    fn abort(&mut self) {
        self.aborted = true;
        self.task.abort();
    }

    #[track_caller]
    fn finish(mut self) {
        self.wake();
        let ended = wait_for("a task of the stress", self.task);
        match ended {
            Ok(()) => assert_eq!(self.life.completed.load(Ordering::SeqCst), 1),
            Err(error) => assert!(error.is_cancelled() && self.aborted),
        }
        assert_eq!(self.life.doubles.load(Ordering::SeqCst), 0);
        wait_until("its future is dropped", || {
            self.life.dropped.load(Ordering::SeqCst) == 1
        });
    }
}

fn any_policy(random: &mut Random) -> BoxPolicy {
    match random.below(9) {
        0 => BoxPolicy::new(Fifo::new()),
        1 => BoxPolicy::new(Fifo::per_worker()),
        2 => BoxPolicy::new(Priority::new()),
        3 => BoxPolicy::new(Vtime::new()),
        n => BoxPolicy::new(Keeper::new(GiveBack::ALL[n as usize - 4])),
    }
}

/// Enters and leaves until told to stop; guards go from hand to hand.
fn toggle(runtime: &Handle, shared: &Mutex<Vec<Bypass>>, stop: &AtomicBool, mut random: Random) {
    let mut mine = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        match random.below(6) {
            0 | 1 => mine.push(runtime.bypass()),
            2 => lock(shared).extend(mine.pop()),
            3 => drop(lock(shared).pop()),
            // Often enough there is none at all.
            _ => mine.clear(),
        }
        if random.below(4) == 0 {
            lock(shared).clear();
            mine.clear();
            for _ in 0..random.below(50) {
                thread::yield_now();
            }
        }
    }
}

/// Starts, wakes and aborts tasks while bypasses come and go, and checks the life of each.
fn stress(runtime: &Handle, random: &mut Random, rounds: usize) {
    let (shared, stop) = (Mutex::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..3 {
            let random = Random::new(random.next());
            let (shared, stop) = (&shared, &stop);
            scope.spawn(move || toggle(runtime, shared, stop, random));
        }
        let stopping = Stopping(&stop);
        for round in 0..rounds {
            let mixed = (round % 10 == 0).then(|| Mixed::start(runtime, 2));
            let mut entrants: Vec<_> = (0..30).map(|_| Entrant::new(runtime, random)).collect();
            for _ in 0..30 {
                let entrant = &mut entrants[random.below(30) as usize];
                match random.below(3) {
                    0 => entrant.abort(),
                    _ => entrant.wake(),
                }
            }
            for entrant in entrants {
                entrant.finish();
            }
            if let Some(mixed) = mixed {
                mixed.finish();
            }
        }
        drop(stopping);
    });
    lock(&shared).clear();
    assert_eq!(runtime.bypass_depth(), 0);
}

/// Also when an assertion fails: the other threads of the scope are waited for.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn bypasses_from_several_threads_lose_no_task_and_every_call_of_one_policy_pairs() {
    let mut random = Random::from_env("bypasses_from_several_threads");
    for _ in 0..4 {
        let (policy, mut random) = (any_policy(&mut random), Random::new(random.next()));
        check(2, move |runtime| {
            let (policy, record) = Recorder::new(policy, 2);
            runtime.load(policy).unwrap();
            stress(&runtime, &mut random, 30);
            wait_until("the last task is quiescent", || {
                record.known_runnable() == 0
            });
            let kept = record.kept.load(Ordering::Relaxed);
            assert_eq!(record.dequeues.load(Ordering::Relaxed), kept);
            assert_eq!(record.exits(), 0);
            record.check();
        });
    }
}
