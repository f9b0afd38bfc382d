//! Two threads may do the work of one worker for a while. Its policy does not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use polity::{Attributes, DsqId, Position, WorkerId, WorkerMask, yield_now};
use polity_tests::{burn, pass, wait_for, within};

use crate::support::yield_until;
use crate::workload::{Random, Recorder, Script};

/// A policy whose callbacks take their time, so that two of them would meet.
pub(crate) fn slow() -> Script {
    let number = AtomicU64::new(1);
    let random = move |bound| {
        let seed = number.fetch_add(1, Ordering::Relaxed);
        burn(Duration::from_micros(Random::new(seed).below(bound)));
    };
    let random = Arc::new(random);
    let [a, b, c, d] = [(); 4].map(|()| Arc::clone(&random));
    Script::new("slow")
        .enqueue(move |host, task| {
            a(200);
            host.insert(task.id(), DsqId::Global, Position::Tail);
        })
        .dispatch(move |_, _, _| b(200))
        .running(move |_, _| c(200))
        .stopping(move |_, _, _| d(1500))
}

/// Polls about as long as it takes until a stand-in comes, so that it comes at any moment of their ends.
#[test]
fn calls_for_one_worker_never_overlap_while_stand_ins_come_and_go() {
    within(|| {
        let mut random = Random::from_env("turns");
        for workers in [1, 2] {
            let runtime = polity_tests::runtime(workers);
            let (policy, record) = Recorder::new(slow(), workers);
            runtime.load(policy).unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let mut tasks = Vec::new();
            for worker in 0..workers {
                let here = WorkerMask::from_iter([WorkerId::new(worker as u16)]);
                let here = || Attributes::new().affinity(here.clone());
                let mut random = Random::new(random.next());
                let hog = async move {
                    for _ in 0..150 {
                        pass(Duration::from_micros(8_000 + random.below(14_000)));
                        yield_now().await;
                    }
                };
                tasks.push(runtime.spawn_with(here(), hog).unwrap());
                for _ in 0..3 {
                    let busy = runtime.spawn_with(here(), yield_until(&stop));
                    tasks.push(busy.unwrap());
                }
            }
            let busy = tasks.split_off(0);
            let (hogs, busy): (Vec<_>, Vec<_>) = busy
                .into_iter()
                .enumerate()
                .partition(|(index, _)| index % 4 == 0);
            for (_, hog) in hogs {
                wait_for("a task of long polls", hog).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
            for (_, busy) in busy {
                wait_for("a busy task", busy).unwrap();
            }
            println!(
                "{workers} workers: {} stand-ins",
                runtime.metrics().stand_ins
            );
            assert!(runtime.metrics().stand_ins > 0);
            record.check();
        }
    });
}
