//! Tasks of all kinds, for ever.

use std::time::Duration;

use polity::{Attributes, Runtime, yield_now};
use polity_tests::burn;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc::channel;
use tokio::time::sleep;

/// The weight of tasks that a policy is told to starve. For [`Priority`](polity_policies::Priority) they are as urgent as all
/// others: it may well let a task wait behind more urgent ones for longer than the stall timeout of a storm.
pub(crate) const VICTIM: u32 = 110;

pub(crate) fn start(runtime: &Runtime, rng: &mut StdRng) {
    // Always runnable.
    for index in 0..4 {
        let weight = if index == 0 { VICTIM } else { 100 };
        let attributes = Attributes::new().name("busy").weight(weight);
        let forever = async {
            loop {
                burn(Duration::from_micros(50));
                yield_now().await;
            }
        };
        drop(runtime.spawn_with(attributes, forever));
    }
    for _ in 0..20 {
        let mut rng = StdRng::seed_from_u64(rng.random());
        let forever = async move {
            loop {
                // The driver's timers are part of the load.
                sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
            }
        };
        drop(runtime.spawn_with(Attributes::new().name("timer"), forever));
    }
    for _ in 0..4 {
        let (ping, mut pings) = channel::<()>(1);
        let (pong, mut pongs) = channel::<()>(1);
        drop(runtime.spawn(async move {
            while ping.send(()).await.is_ok() && pongs.recv().await.is_some() {}
        }));
        drop(runtime.spawn(async move {
            while pings.recv().await.is_some() && pong.send(()).await.is_ok() {}
        }));
    }
    for _ in 0..3 {
        let mut rng = StdRng::seed_from_u64(rng.random());
        let forever = async move {
            loop {
                burn(Duration::from_millis(rng.random_range(10..300)));
                sleep(Duration::from_millis(rng.random_range(50..300))).await;
            }
        };
        drop(runtime.spawn_with(Attributes::new().name("hog"), forever));
    }
}
