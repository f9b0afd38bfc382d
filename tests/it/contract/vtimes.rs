//! DSQs ordered by vtime: their order, what may be put into them, and that nothing waits in them for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{
    Accounting, Attributes, DequeueReason, DsqError, DsqId, ExitKind, Host, Policy, Position,
    Stopped, TaskView, WorkerId, WorkerMask, yield_now,
};
use polity_tests::{check, now, wait_for, wait_until};

use super::{W0, create};
use crate::workload::{Held, Mixed, Recorder, Script, exit_of, lock, tagged};

const QUEUE: DsqId = DsqId::Custom(4);
const FIFO: DsqId = DsqId::Custom(5);

/// `QUEUE` by vtime and `FIFO`, emptied one by one.
fn script(name: &str) -> Script {
    Script::new(name)
        .init(|host| {
            assert_eq!(host.create_vtime_dsq(4), Ok(QUEUE));
            create(host, 5)
        })
        .dispatch(|host, _, _| {
            if host.move_to_local(QUEUE, 1) == 0 {
                host.move_to_local(FIFO, 1);
            }
        })
}

/// In which order tasks run whose tags are their vtimes.
fn order_of(vtimes: &'static [u64], policy: Script) -> Vec<u64> {
    let log = Arc::<Mutex<Vec<u64>>>::default();
    let noted = Arc::clone(&log);
    check(1, move |runtime| {
        runtime.load(policy).unwrap();
        let held = Held::new(&runtime);
        let tasks: Vec<_> = vtimes
            .iter()
            .map(|vtime| {
                let log = Arc::clone(&noted);
                tagged(&runtime, *vtime, async move { lock(&log).push(*vtime) })
            })
            .collect();
        held.end();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert!(runtime.policy_status().is_some());
    });
    lock(&log).to_vec()
}

/// Across the end of the numbers.
const VTIMES: [u64; 6] = [3, u64::MAX, 1, u64::MAX - 5, 0, 2];
const IN_ORDER: [u64; 6] = [u64::MAX - 5, u64::MAX, 0, 1, 2, 3];

#[test]
fn tasks_leave_in_the_order_of_their_vtimes_also_where_these_wrap() {
    let policy = script("by_vtime").enqueue(|host, task| {
        assert!(host.insert_vtime(task.id(), QUEUE, task.tag()));
    });
    assert_eq!(order_of(&VTIMES, policy), IN_ORDER);
}

#[test]
fn select_worker_may_insert_by_vtime_too() {
    let policy = script("selects").select_worker(|host, task| {
        assert!(host.insert_vtime(task.id(), QUEUE, task.tag()));
        task.last_worker()
    });
    assert_eq!(order_of(&VTIMES, policy), IN_ORDER);
}

#[test]
fn so_do_tasks_that_the_policy_kept_and_inserts_in_dispatch() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let to_insert = Arc::clone(&kept);
    let policy = script("keeps")
        .enqueue(move |_, task| lock(&kept).push((task.id(), task.tag())))
        .dispatch(move |host, _, _| {
            for (task, vtime) in lock(&to_insert).drain(..) {
                assert!(host.insert_vtime(task, QUEUE, vtime));
                assert!(
                    !host.insert_vtime(task, QUEUE, vtime),
                    "it is not held any more"
                );
            }
            host.move_to_local(QUEUE, 1);
        });
    assert_eq!(order_of(&VTIMES, policy), IN_ORDER);
}

#[test]
fn equal_vtimes_leave_in_the_order_of_their_coming() {
    let policy = script("equals").enqueue(|host, task| {
        assert!(host.insert_vtime(task.id(), QUEUE, task.tag() / 10));
    });
    let tags = &[20, 11, 21, 10, 22, 12];
    assert_eq!(order_of(tags, policy), [11, 10, 12, 20, 21, 22]);
}

#[test]
fn move_to_local_takes_the_earliest_that_may_run_here_and_the_others_keep_their_places() {
    check(2, |runtime| {
        let (seen, ran) = (
            Arc::new(Mutex::new(false)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let open = Arc::clone(&seen);
        let policy = script("picky")
            .enqueue(|host, task| {
                assert!(host.insert_vtime(task.id(), QUEUE, task.tag()));
            })
            .dispatch(move |host, _, _| {
                if *lock(&open) {
                    host.move_to_local(QUEUE, 1);
                }
            });
        runtime.load(policy).unwrap();
        let only = |n: u64| {
            let worker = WorkerId::new((n % 2) as u16);
            Attributes::new().affinity(WorkerMask::from_iter([worker]))
        };
        let tasks: Vec<_> = (0..40)
            .map(|n| {
                // The later it comes, the earlier it runs.
                let (ran, tag) = (Arc::clone(&ran), 40 - n);
                let task = async move { lock(&ran).push(tag) };
                runtime.spawn_with(only(n).tag(tag), task).unwrap()
            })
            .collect();
        wait_until("all are offered", || runtime.metrics().offered >= 40);
        *lock(&seen) = true;
        let kicks: Vec<_> = (0..2)
            .map(|n| runtime.spawn_with(only(n).tag(100), async {}).unwrap())
            .collect();
        for task in tasks.into_iter().chain(kicks) {
            wait_for("a restricted task", task).unwrap();
        }
        for worker in 0..2 {
            let here: Vec<u64> = lock(&ran)
                .iter()
                .copied()
                .filter(|n| n % 2 == worker)
                .collect();
            assert_eq!(here.len(), 20);
            assert!(here.is_sorted(), "one worker's: {here:?}");
        }
        assert_eq!(runtime.metrics().redirected, 0, "none went astray");
    });
}

/// Loads the policy, runs some of everything, and checks how it ended. `#` stands for a task.
fn check_refused(policy: Script, expected: &'static str) {
    check(2, move |runtime| {
        let generation = runtime.load(policy).unwrap();
        Mixed::start(&runtime, 2).finish();
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::Error, "{info}");
        let (before, after) = expected.split_once('#').expect("one task is named");
        let rest = info.message.strip_prefix(before);
        let id = rest.and_then(|rest| rest.strip_suffix(after));
        let is_id = |id: &str| !id.is_empty() && id.chars().all(|c| c.is_ascii_digit() || c == '.');
        assert!(
            id.is_some_and(is_id),
            "{:?} is not {expected:?}",
            info.message
        );
    });
}

#[test]
fn an_insert_without_a_vtime_where_vtimes_order_ejects() {
    check_refused(
        script("forgot").enqueue(|host, task| {
            assert!(!host.insert(task.id(), QUEUE, Position::Tail));
        }),
        "enqueue: insert of task # into DSQ custom 4, which is ordered by vtime: use insert_vtime",
    );
    check_refused(
        script("head").select_worker(|host, task| {
            assert!(!host.insert(task.id(), QUEUE, Position::Head));
            task.last_worker()
        }),
        "select_worker: insert of task # into DSQ custom 4, which is ordered by vtime: use insert_vtime",
    );
}

#[test]
fn an_insert_with_a_vtime_into_a_fifo_ejects_and_built_in_dsqs_are_fifos() {
    for (dsq, name) in [
        (FIFO, "custom 5"),
        (DsqId::Global, "global"),
        (DsqId::Local, "local"),
        (DsqId::LocalOn(W0), "local of worker 0"),
    ] {
        let expected = format!(
            "enqueue: insert_vtime of task # into DSQ {name}, which is a FIFO: use insert, or a DSQ made by create_vtime_dsq"
        );
        check_refused(
            script("with_vtime").enqueue(move |host, task| {
                assert!(!host.insert_vtime(task.id(), dsq, 1));
            }),
            expected.leak(),
        );
    }
}

#[test]
fn mixing_orders_in_dispatch_ejects_too() {
    for (dsq, expected) in [
        (
            QUEUE,
            "dispatch: insert of task # into DSQ custom 4, which is ordered by vtime: use insert_vtime",
        ),
        (
            FIFO,
            "dispatch: insert_vtime of task # into DSQ custom 5, which is a FIFO: use insert, or a DSQ made by create_vtime_dsq",
        ),
    ] {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let to_insert = Arc::clone(&kept);
        let policy = script("mixes")
            .enqueue(move |_, task| lock(&kept).push(task.id()))
            .dispatch(move |host, _, _| {
                for task in lock(&to_insert).drain(..) {
                    if dsq == QUEUE {
                        assert!(!host.insert(task, dsq, Position::Tail));
                    } else {
                        assert!(!host.insert_vtime(task, dsq, 1));
                    }
                }
            });
        check_refused(policy, expected);
    }
}

#[test]
fn an_unknown_dsq_or_the_wrong_callback_is_refused_with_a_vtime_as_without() {
    check(1, |runtime| {
        let unknown = Script::new("unknown").enqueue(|host, task| {
            assert!(!host.insert_vtime(task.id(), DsqId::Custom(77), 1));
        });
        let generation = runtime.load(unknown).unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        let info = exit_of(&runtime, generation);
        let expected = "enqueue: insert into DSQ custom 77, which does not exist";
        assert_eq!(info.message, expected);

        let late = script("late").running(|host, task| {
            assert!(!host.insert_vtime(task.id(), QUEUE, 1));
        });
        let generation = runtime.load(late).unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        let info = exit_of(&runtime, generation);
        assert!(
            info.message.ends_with("not allowed in this callback"),
            "{info}"
        );

        let early = Script::new("early").init(|host| {
            assert!(!host.insert_vtime(polity::TaskId::from_parts(1, 1), QUEUE, 1));
            Ok(())
        });
        let refused = runtime.load(early).unwrap_err().to_string();
        assert!(refused.contains("insert_vtime of task 1.1"), "{refused}");
    });
}

#[test]
fn a_number_that_was_destroyed_may_come_back_as_the_other_kind() {
    check(1, |runtime| {
        let policy = script("changes").init(|host| {
            let dsq = host.create_vtime_dsq(4)?;
            assert_eq!(host.create_dsq(4), Err(DsqError::Exists(dsq)));
            assert_eq!(host.create_vtime_dsq(4), Err(DsqError::Exists(dsq)));
            assert_eq!((host.dsq_len(dsq), host.first_vtime(dsq)), (Some(0), None));
            for _ in 0..3 {
                host.destroy_dsq(dsq)?;
                assert_eq!(host.dsq_len(dsq), None);
                assert_eq!(host.destroy_dsq(dsq), Err(DsqError::Unknown(dsq)));
                assert_eq!(host.create_dsq(4), Ok(dsq));
                assert_eq!(host.create_vtime_dsq(4), Err(DsqError::Exists(dsq)));
                host.destroy_dsq(dsq)?;
                assert_eq!(host.create_vtime_dsq(4), Ok(dsq));
            }
            let beyond = DsqId::Custom(DsqId::MAX_CUSTOM + 1);
            assert_eq!(
                host.create_vtime_dsq(DsqId::MAX_CUSTOM + 1),
                Err(DsqError::OutOfRange(beyond))
            );
            Ok(())
        });
        let policy = policy
            .enqueue(|host, task| {
                assert!(host.insert_vtime(task.id(), QUEUE, 1));
            })
            .dispatch(|host, _, _| {
                host.move_to_local(QUEUE, 1);
            });
        runtime.load(policy).unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        assert!(runtime.policy_status().is_some());
    });
}

#[test]
fn all_calls_come_in_order_for_tasks_that_wait_by_vtime_also_through_a_bypass() {
    check(2, |runtime| {
        let policy = script("recorded").enqueue(|host, task| {
            assert!(host.insert_vtime(task.id(), QUEUE, u64::from(task.id().slot())));
        });
        let (policy, record) = Recorder::new(policy, 2);
        let generation = runtime.load(policy).unwrap();
        let load = Mixed::start(&runtime, 10);
        for _ in 0..20 {
            drop(runtime.bypass());
        }
        load.finish();
        runtime.unload();
        exit_of(&runtime, generation);
        wait_until("exit", || record.exits() == 1);
        record.check();
    });
}

/// Takes tasks into its custody by vtime, and gives none back.
fn hoarder() -> Script {
    script("hoarder")
        .enqueue(|host, task| {
            assert!(host.insert_vtime(task.id(), QUEUE, task.tag()));
        })
        .dispatch(|_, _, _| {})
}

#[test]
fn a_task_that_is_left_in_a_vtime_dsq_is_found_as_a_stall_and_runs() {
    check(2, |runtime| {
        let generation = runtime.load(hoarder()).unwrap();
        let task = tagged(&runtime, 1, async {});
        let id = task.id();
        wait_for("the task, after the ejection", task).unwrap();
        let info = exit_of(&runtime, generation);
        assert_eq!(
            (info.kind, info.task),
            (ExitKind::Stall, Some(id)),
            "{info}"
        );
    });
}

#[test]
fn tasks_in_a_vtime_dsq_are_dumped_aborted_and_swept_as_in_any() {
    check(1, |runtime| {
        let dequeued = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&dequeued);
        let policy =
            hoarder().dequeue(move |_, task, reason| lock(&noted).push((task.tag(), reason)));
        runtime.load(policy).unwrap();
        let tasks: Vec<_> = (1..=3).map(|n| tagged(&runtime, n, async {})).collect();
        wait_until("all are offered", || runtime.metrics().offered >= 3);
        let dump = runtime.dump().to_string();
        assert_eq!(dump.matches("in DSQ custom 4").count(), 3, "{dump}");

        let [first, second, third] = <[_; 3]>::try_from(tasks).ok().unwrap();
        second.abort();
        assert!(
            wait_for("the aborted task", second)
                .unwrap_err()
                .is_cancelled()
        );
        wait_until("the policy is told", || {
            *lock(&dequeued) == [(2, DequeueReason::Cancelled)]
        });
        runtime.unload();
        wait_for("a swept task", first).unwrap();
        wait_for("a swept task", third).unwrap();
    });
}

/// Notes how long polls took, by tag.
struct Accounts {
    accounting: Accounting,
    ran: Arc<Mutex<HashMap<u64, Duration>>>,
}

impl Policy for Accounts {
    type Task = ();

    fn name(&self) -> &str {
        "accounts"
    }

    fn accounting(&self) -> Accounting {
        self.accounting
    }

    fn stopping(&self, _host: &Host<'_>, task: &TaskView<'_>, _stopped: Stopped) {
        *lock(&self.ran).entry(task.tag()).or_default() += task.ran();
    }
}

/// How long a task said that it ran in many polls of 200 µs, and how long the policy was told.
fn accounts(accounting: Accounting) -> (Duration, Duration) {
    let (own, ran) = (
        Arc::<Mutex<Duration>>::default(),
        Arc::<Mutex<HashMap<u64, Duration>>>::default(),
    );
    let policy = Accounts {
        accounting,
        ran: Arc::clone(&ran),
    };
    let measured = Arc::clone(&own);
    check(1, move |runtime| {
        runtime.load(policy).unwrap();
        let task = tagged(&runtime, 1, async move {
            for _ in 0..2000 {
                let began = now();
                while began.elapsed() < Duration::from_micros(200) {
                    std::hint::spin_loop();
                }
                *lock(&measured) += began.elapsed();
                yield_now().await;
            }
        });
        wait_for("the task", task).unwrap();
    });
    let told = lock(&ran).get(&1).copied().unwrap_or_default();
    (*lock(&own), told)
}

#[test]
fn exact_accounting_tells_what_a_task_itself_measures() {
    let (own, told) = accounts(Accounting::Exact);
    // Outside of the task's own measurement: a yield for each poll, and whenever the system takes the processor away there.
    assert!(told >= own, "{told:?} of {own:?}");
    assert!(told <= own * 3 / 2, "{told:?} of {own:?}");
}

#[test]
fn coarse_accounting_is_right_on_average() {
    let (own, told) = accounts(Accounting::Coarse);
    // 400 ms are 80 ticks; a busy machine makes ticks late, and all of them hit this task.
    assert!(told >= own / 2 && told <= own * 2, "{told:?} of {own:?}");
}

#[test]
fn no_accounting_tells_nothing() {
    let (_, told) = accounts(Accounting::None);
    assert_eq!(told, Duration::ZERO);
}
