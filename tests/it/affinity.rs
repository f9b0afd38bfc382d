//! Tasks that may run on some workers only, and workers that may run on one core only.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};

use polity::{
    Attributes, BoxPolicy, BuildError, DsqId, Host, JoinHandle, Pin, Policy, Position, Runtime,
    TaskView, WorkerId, WorkerMask,
};
use polity_policies::{Fifo, Priority, Vtime};
use polity_tests::{builder, check_without_spares as check, receive, wait_for, wait_until, within};

use crate::support::{Blocker, Threads, noted, yield_until};

/// May run on these workers only.
pub(crate) fn only(workers: impl IntoIterator<Item = u16>) -> Attributes {
    let mask: WorkerMask = workers.into_iter().map(WorkerId::new).collect();
    Attributes::new().affinity(mask)
}

/// The thread of each worker.
pub(crate) fn workers_of(runtime: &Runtime) -> Vec<ThreadId> {
    let count = runtime.worker_count() as u16;
    let threads: Vec<ThreadId> = (0..count)
        .map(|worker| {
            let task = runtime.spawn_with(only([worker]), async { thread::current().id() });
            wait_for("a task on each worker", task.unwrap()).unwrap()
        })
        .collect();
    for (n, thread) in threads.iter().enumerate() {
        assert!(!threads[..n].contains(thread), "one thread is one worker");
    }
    threads
}

/// Each policy that is meant to be used, and none.
pub(crate) fn each_policy(check: impl Fn(Option<BoxPolicy>)) {
    check(None);
    check(Some(BoxPolicy::new(Fifo::new())));
    check(Some(BoxPolicy::new(Fifo::per_worker())));
    check(Some(BoxPolicy::new(Priority::new())));
    check(Some(BoxPolicy::new(Vtime::new())));
}

pub(crate) fn load(runtime: &Runtime, policy: Option<BoxPolicy>) {
    if let Some(policy) = policy {
        runtime.load(policy).unwrap();
    }
}

#[test]
fn worker_k_of_a_mask_is_worker_k_of_the_host() {
    check(3, |runtime| {
        struct Compare(Arc<Mutex<Vec<(u64, WorkerId)>>>);
        impl Policy for Compare {
            type Task = ();

            fn name(&self) -> &str {
                "compare"
            }
            fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
                let worker = host.worker().unwrap();
                self.0.lock().unwrap().push((task.tag(), worker));
            }
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        runtime.load(Compare(Arc::clone(&seen))).unwrap();
        let tasks: Vec<_> = (0..300u16)
            .map(|n| {
                let attributes = only([n % 3]).tag(u64::from(n % 3));
                runtime
                    .spawn_with(attributes, async {
                        for _ in 0..5 {
                            polity::yield_now().await;
                        }
                    })
                    .unwrap()
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        let seen = seen.lock().unwrap();
        assert!(seen.len() >= 300);
        for (tag, worker) in seen.iter() {
            assert_eq!(*tag, worker.index() as u64);
        }
    });
}

#[test]
fn a_restricted_task_that_yields_stays_on_its_worker() {
    each_policy(|policy| {
        check(3, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let tasks: Vec<_> = (0..30u16)
                .map(|n| {
                    let threads = Threads::default();
                    let body = noted(&threads, async {
                        for _ in 0..100 {
                            polity::yield_now().await;
                        }
                    });
                    let task = runtime.spawn_with(only([n % 3]), body).unwrap();
                    (workers[usize::from(n % 3)], threads, task)
                })
                .collect();
            for (worker, threads, task) in tasks {
                wait_for("the task", task).unwrap();
                assert_eq!(threads.all(), [worker].into());
            }
        });
    });
}

#[test]
fn a_mask_of_two_workers_keeps_a_task_off_the_third() {
    each_policy(|policy| {
        check(3, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let tasks: Vec<_> = (0..60u16)
                .map(|n| {
                    let not = n % 3;
                    let threads = Threads::default();
                    let body = noted(&threads, async {
                        for _ in 0..50 {
                            polity::yield_now().await;
                        }
                    });
                    let mask = only((0..3).filter(|worker| *worker != not));
                    let task = runtime.spawn_with(mask, body).unwrap();
                    (workers[usize::from(not)], threads, task)
                })
                .collect();
            for (not, threads, task) in tasks {
                wait_for("the task", task).unwrap();
                assert!(!threads.all().contains(&not));
            }
        });
    });
}

/// A task that is polled for each wake until `rounds` wakes were seen, and the slot with its current waker.
fn woken(rounds: usize) -> (impl Future<Output = ()> + Send, Arc<Rounds>) {
    let shared = Arc::new(Rounds {
        waker: Mutex::new(None),
        sent: AtomicUsize::new(0),
    });
    let slot = Arc::clone(&shared);
    let future = poll_fn(move |context| {
        *slot.waker.lock().unwrap() = Some(context.waker().clone());
        if slot.sent.load(Ordering::SeqCst) >= rounds {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    (future, shared)
}

struct Rounds {
    waker: Mutex<Option<Waker>>,
    sent: AtomicUsize,
}

impl Rounds {
    fn wake(&self) {
        self.sent.fetch_add(1, Ordering::SeqCst);
        if let Some(waker) = &*self.waker.lock().unwrap() {
            waker.wake_by_ref();
        }
    }
}

#[test]
fn a_restricted_task_stays_on_its_worker_whoever_wakes_it() {
    each_policy(|policy| {
        check(2, |runtime| {
            const WAKES: usize = 600;
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let mut tasks: Vec<(ThreadId, Threads, JoinHandle<()>)> = Vec::new();
            let mut all = Vec::new();
            for n in 0..8u16 {
                let threads = Threads::default();
                let (future, rounds) = woken(WAKES);
                let body = noted(&threads, future);
                let task = runtime.spawn_with(only([n % 2]), body).unwrap();
                tasks.push((workers[usize::from(n % 2)], threads, task));
                all.push(rounds);
            }
            // From outside, and from tasks on both workers.
            let all = Arc::new(all);
            let inside: Vec<_> = (0..2)
                .map(|worker| {
                    let all = Arc::clone(&all);
                    let waking = async move {
                        for _ in 0..WAKES / 3 {
                            all.iter().for_each(|rounds| rounds.wake());
                            polity::yield_now().await;
                        }
                    };
                    runtime.spawn_with(only([worker]), waking).unwrap()
                })
                .collect();
            for _ in 0..WAKES / 3 {
                all.iter().for_each(|rounds| rounds.wake());
            }
            for task in inside {
                wait_for("a waking task", task).unwrap();
            }
            for (worker, threads, task) in tasks {
                wait_for("a woken task", task).unwrap();
                assert_eq!(threads.all(), [worker].into());
            }
        });
    });
}

#[test]
fn a_restricted_task_waits_for_its_busy_worker_while_the_others_go_on() {
    each_policy(|policy| {
        check(2, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let blocker = Blocker::with(|body| runtime.spawn_with(only([1]), body).unwrap());
            assert_eq!(blocker.thread, workers[1]);
            let threads = Threads::default();
            let (future, rounds) = woken(1);
            let restricted = runtime
                .spawn_with(only([1]), noted(&threads, future))
                .unwrap();
            rounds.wake();
            for _ in 0..200 {
                wait_for("a free task", runtime.spawn(async {})).unwrap();
            }
            // Where nobody gets ahead for a while, the watchdog does the work of the busy one.
            let stood_in = || runtime.metrics().stand_ins > 0;
            assert!(!restricted.is_finished() || stood_in());
            assert!(threads.all().is_empty() || stood_in());
            blocker.end();
            wait_for("the restricted task", restricted).unwrap();
            assert!(threads.all() == [workers[1]].into() || stood_in());
        });
    });
}

#[test]
fn a_thief_takes_from_a_blocked_worker_only_what_it_may_run() {
    each_policy(|policy| {
        check(2, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let (free, stays) = (Threads::default(), Threads::default());
            let (note_free, note_stays) = (free.clone(), stays.clone());
            let release = Arc::new(AtomicBool::new(false));
            let (begun, has_begun) = channel();
            let may_end = Arc::clone(&release);
            // Spawns on its own worker, and then holds it.
            let blocker = runtime
                .spawn_with(only([0]), async move {
                    let mut tasks = Vec::new();
                    for n in 0..40 {
                        let body = async {};
                        if n % 2 == 0 {
                            let free = noted(&note_free, body);
                            let free = polity::spawn_with(Attributes::detached(), free);
                            tasks.push(free.unwrap());
                        } else {
                            let body = noted(&note_stays, body);
                            tasks.push(polity::spawn_with(only([0]), body).unwrap());
                        }
                    }
                    begun.send(()).unwrap();
                    wait_until("the blocker may end", || may_end.load(Ordering::SeqCst));
                    tasks
                })
                .unwrap();
            receive("the blocker", &has_begun);
            // Pairs with nothing but the thief: no wake comes from here.
            wait_until("the other worker has run one", || !free.all().is_empty());
            assert!(!free.all().contains(&workers[0]), "{free:?}");
            assert!(stays.all().is_empty(), "{stays:?}");
            release.store(true, Ordering::SeqCst);
            for task in wait_for("the blocker", blocker).unwrap() {
                wait_for("a task", task).unwrap();
            }
            assert_eq!(stays.all(), [workers[0]].into());
        });
    });
}

#[test]
fn a_policy_cannot_place_a_task_where_it_may_not_run() {
    struct AllOnZero;
    impl Policy for AllOnZero {
        type Task = ();

        fn name(&self) -> &str {
            "all_on_zero"
        }
        fn select_worker(&self, _host: &Host<'_>, _task: &TaskView<'_>) -> WorkerId {
            WorkerId::new(0)
        }
        fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
            let zero = DsqId::LocalOn(WorkerId::new(0));
            host.insert(task.id(), zero, Position::Tail);
        }
    }
    check(2, |runtime| {
        let workers = workers_of(&runtime);
        runtime.load(AllOnZero).unwrap();
        for _ in 0..200 {
            let threads = Threads::default();
            let body = noted(&threads, async {
                polity::yield_now().await;
            });
            let task = runtime.spawn_with(only([1]), body).unwrap();
            wait_for("the task", task).unwrap();
            assert_eq!(threads.all(), [workers[1]].into());
        }
        assert!(
            runtime.policy_status().is_some(),
            "it is no reason to eject"
        );
    });
}

#[test]
fn masks_hold_while_policies_come_and_go() {
    check(3, |runtime| {
        let workers = workers_of(&runtime);
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..24u16)
            .map(|n| {
                let threads = Threads::default();
                let body = noted(&threads, yield_until(&stop));
                let task = runtime.spawn_with(only([n % 3]), body).unwrap();
                (workers[usize::from(n % 3)], threads, task)
            })
            .collect();
        for _ in 0..20 {
            each_policy(|policy| match policy {
                Some(policy) => drop(runtime.load(policy).unwrap()),
                None => drop(runtime.unload()),
            });
        }
        stop.store(true, Ordering::Relaxed);
        for (worker, threads, task) in tasks {
            wait_for("a task", task).unwrap();
            assert_eq!(threads.all(), [worker].into());
        }
    });
}

#[test]
fn an_aborted_restricted_task_is_dropped_where_it_may_run_or_with_its_runtime() {
    check(2, |runtime| {
        let workers = workers_of(&runtime);
        let threads = Threads::default();
        let (future, _rounds) = woken(1);
        let task = runtime
            .spawn_with(only([1]), noted(&threads, future))
            .unwrap();
        wait_until("the first poll", || !threads.all().is_empty());
        task.abort();
        assert!(wait_for("the task", task).unwrap_err().is_cancelled());
        assert_eq!(threads.all(), [workers[1]].into());
    });
}

// --- cores ---

/// Pinned runtimes share the count of cores in use, so tests that look at it go one by one.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cores_of_this_thread() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let mut cores: Vec<usize> = cores.into_iter().map(|core| core.id).collect();
    cores.sort_unstable();
    cores
}

/// Under a quota, or in a sandbox without masks, [`Pin::Auto`] does not pin.
fn can_pin() -> bool {
    let cores = cores_of_this_thread().len();
    cores > 0 && thread::available_parallelism().is_ok_and(|allowed| allowed.get() >= cores)
}

/// Whether two runtimes, or a worker and something else, can have a core each.
fn can_pin_two() -> bool {
    let can = can_pin() && cores_of_this_thread().len() >= 2;
    if !can {
        eprintln!("skipped: pinning needs two cores, and no quota");
    }
    can
}

/// The cores of each worker's thread.
fn cores_of_workers(runtime: &Runtime) -> Vec<Vec<usize>> {
    (0..runtime.worker_count() as u16)
        .map(|worker| {
            let task = runtime.spawn_with(only([worker]), async { cores_of_this_thread() });
            wait_for("a task on each worker", task.unwrap()).unwrap()
        })
        .collect()
}

#[test]
fn each_worker_stays_on_one_core_of_its_own() {
    let _alone = alone();
    within(|| {
        let ours = cores_of_this_thread();
        let runtime = builder(ours.len()).pin(Pin::Auto).build().unwrap();
        let mut cores = cores_of_workers(&runtime);
        cores.sort_unstable();
        if can_pin() {
            let each: Vec<Vec<usize>> = ours.iter().map(|core| vec![*core]).collect();
            assert_eq!(cores, each);
        } else {
            assert!(cores.iter().all(|cores| *cores == ours), "{cores:?}");
        }
    });
}

#[test]
fn more_workers_than_cores_are_not_pinned() {
    let _alone = alone();
    within(|| {
        let ours = cores_of_this_thread();
        let runtime = builder(ours.len() + 1).pin(Pin::Auto).build().unwrap();
        for cores in cores_of_workers(&runtime) {
            assert_eq!(cores, ours);
        }
    });
}

#[test]
fn a_worker_that_has_to_share_its_core_goes_where_there_is_room() {
    let _alone = alone();
    within(|| {
        if !can_pin_two() {
            return;
        }
        let ours = cores_of_this_thread();
        let runtime = builder(1).pin(Pin::Auto).build().unwrap();
        let cores = cores_of_workers(&runtime).remove(0);
        // Ends the thread also if the test fails.
        let (over, is_over) = channel::<()>();
        thread::scope(|scope| {
            let core = core_affinity::CoreId { id: cores[0] };
            scope.spawn(move || {
                core_affinity::set_for_current(core);
                while is_over.try_recv() == Err(TryRecvError::Empty) {}
            });
            let _over = over;
            let task = runtime.spawn(async move {
                while cores_of_this_thread() == cores {
                    polity::yield_now().await;
                }
                cores_of_this_thread()
            });
            let now = wait_for("the worker to leave its core", task);
            assert_eq!(now.unwrap(), ours);
        });
    });
}

#[test]
fn two_runtimes_take_different_cores_and_give_them_back() {
    let _alone = alone();
    within(|| {
        if !can_pin_two() {
            return;
        }
        let one = || builder(1).pin(Pin::Auto).build().unwrap();
        for _ in 0..3 {
            let (first, second) = (one(), one());
            let cores = [cores_of_workers(&first), cores_of_workers(&second)];
            assert_ne!(cores[0], cores[1]);
            drop(first);
            // Its core is the least used one now.
            let third = one();
            assert_eq!(cores_of_workers(&third), cores[0]);
        }
    });
}

#[test]
fn named_cores_are_used_in_the_order_in_which_they_are_named() {
    let _alone = alone();
    within(|| {
        let mut named = cores_of_this_thread();
        if named.is_empty() {
            return eprintln!("skipped: no affinity masks here");
        }
        named.reverse();
        let runtime = builder(named.len())
            .pin(Pin::Cores(named.clone()))
            .build()
            .unwrap();
        let each: Vec<Vec<usize>> = named.iter().map(|core| vec![*core]).collect();
        assert_eq!(cores_of_workers(&runtime), each);
    });
}

#[test]
fn an_unknown_core_is_refused_and_named() {
    let error = builder(1).pin(Pin::Cores(vec![9999])).build().unwrap_err();
    assert!(matches!(error, BuildError::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains("9999"), "{error}");
}

#[test]
fn unpinned_workers_have_the_cores_of_the_process() {
    check(2, |runtime| {
        for cores in cores_of_workers(&runtime) {
            assert_eq!(cores, cores_of_this_thread());
        }
    });
}

#[test]
fn blocking_calls_are_not_held_on_the_core_of_the_worker_that_asked() {
    let _alone = alone();
    within(|| {
        let ours = cores_of_this_thread();
        let runtime = builder(1).pin(Pin::Auto).build().unwrap();
        let call = runtime.spawn(async {
            let call = polity::spawn_blocking(cores_of_this_thread);
            call.await.unwrap()
        });
        assert_eq!(wait_for("the call", call).unwrap(), ours);
    });
}
