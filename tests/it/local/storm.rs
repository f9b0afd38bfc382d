//! All at once, at random.

use std::time::Duration;

use polity::{WorkerId, block_in_place, spawn_local, yield_now};
use polity_tests::{builder, now, wait_for, within};

use super::{Bounds, policies};
use crate::workload::Random;

/// What a local task does, by dice.
async fn live(bounds: Bounds, mut random: Random) -> usize {
    let bound = bounds.bind();
    let mut children = Vec::new();
    for _ in 0..20 {
        match random.below(6) {
            // Woken by the driver, on whichever thread that is.
            0 => tokio::time::sleep(Duration::from_micros(random.below(2_000))).await,
            1 => polity::spawn(async {}).await.unwrap(),
            2 => {
                let until = now() + Duration::from_micros(random.below(15_000));
                block_in_place(|| while now() < until {});
            }
            3 if children.len() < 3 => {
                let bound = bounds.bind();
                children.push(spawn_local(async move {
                    for _ in 0..10 {
                        yield_now().await;
                        bound.touch();
                    }
                }));
            }
            _ => yield_now().await,
        }
        bound.touch();
    }
    for child in children {
        child.await.unwrap();
    }
    bound.touched.get()
}

#[test]
fn local_tasks_stay_on_their_threads_through_policies_and_long_polls() {
    within(|| {
        let mut random = Random::from_env("local_storm");
        let bounds = Bounds::default();
        let runtime = builder(2).spares(3).build().unwrap();
        for policy in policies() {
            match policy {
                Some(policy) => drop(runtime.load(policy).unwrap()),
                None => drop(runtime.unload()),
            }
            let tasks = (0..20).map(|n| {
                let (bounds, random) = (bounds.clone(), Random::new(random.next()));
                let task = runtime.spawn_pinned(WorkerId::new(n % 2), || live(bounds, random));
                task.unwrap()
            });
            let tasks: Vec<_> = tasks.collect();
            let until = now() + Duration::from_micros(random.below(15_000));
            // Unannounced.
            drop(runtime.spawn(async move { while now() < until {} }));
            for (n, task) in tasks.into_iter().enumerate() {
                if n % 5 == 0 {
                    task.abort();
                }
                let _ = wait_for("a local task", task);
            }
        }
        drop(runtime);
        bounds.check();
    });
}
