//! The suite `tail`: the latency of short tasks beside tasks that hold a worker for longer.
//!
//! Who asks is a thread outside the runtime, on a schedule, whether or not the last answer has come; a latency begins when
//! the request really leaves, since a late sender is the kernel's doing.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::child::{Scene, ask_scene};
use crate::clock::{block_for, block_until, now};
use crate::figure::{Figure, Figures};
use crate::io::sleep_forever;
use crate::latencies::{Latencies, Record};
use crate::side::{Contender, Scenario, Side};
use crate::slices::spawn_slices;
use crate::{Better, Goal, Row, Settings};

const SUITE: &str = "tail";
const TURN: Duration = Duration::from_millis(800);

/// One task blocks its thread for 10 ms in every 20, and three kinds of others are looked at.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Blocked;

/// Latencies of the tasks beside the one that blocks.
#[derive(Serialize, Deserialize)]
pub(crate) struct BesideBlocked {
    /// Spawned from outside: from there to the first poll.
    pub(crate) spawned: Latencies,
    /// Sleeping: from when they were due. The timer wheel rounds up to milliseconds, on either side.
    pub(crate) sleeping: Latencies,
    /// Woken by the blocking task itself, right before it blocks.
    pub(crate) woken: Latencies,
}

const BLOCKED: Duration = Duration::from_millis(10);
const SPAWN_EVERY: Duration = Duration::from_micros(500);
const SLEEPERS: usize = 16;
const SLEEP: Duration = Duration::from_millis(5);

impl Scenario for Blocked {
    type Outcome = BesideBlocked;

    fn run<P: Contender>(self, on: P) -> BesideBlocked {
        let [spawned, sleeping, woken]: [Record; 3] = Default::default();
        on.block_on(async {
            let (wake, wakes) = mpsc::unbounded_channel();
            P::detach(P::spawn(receive(wakes, woken.clone())));
            P::detach(P::spawn(block_again_and_again(wake)));
            for _ in 0..SLEEPERS {
                P::detach(P::spawn(sleep_forever(SLEEP, sleeping.clone())));
            }
        });
        on_schedule(SPAWN_EVERY, || {
            let (sent, record) = (now(), spawned.clone());
            P::detach(on.spawn_from_outside(async move { record.add(sent.elapsed()) }));
        });
        BesideBlocked {
            spawned: spawned.so_far(),
            sleeping: sleeping.so_far(),
            woken: woken.so_far(),
        }
    }
}

async fn block_again_and_again(wake: mpsc::UnboundedSender<Instant>) {
    while wake.send(now()).is_ok() {
        block_for(BLOCKED);
        tokio::time::sleep(BLOCKED).await;
    }
}

/// Records for each message how long it was under way.
async fn receive(mut messages: mpsc::UnboundedReceiver<Instant>, record: Record) {
    while let Some(sent) = messages.recv().await {
        record.add(sent.elapsed());
    }
}

/// Calls `what` again and again, for one turn.
fn on_schedule(every: Duration, mut what: impl FnMut()) {
    let end = now() + TURN;
    let mut due = now();
    while due < end {
        block_until(due);
        what();
        due += every;
    }
}

/// Tasks that compute all the time, in slices of 100 us, and pings to one that does not.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sliced {
    pub(crate) workers: usize,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct BesideSliced {
    pub(crate) pings: Latencies,
    pub(crate) slices_per_second: f64,
}

/// No multiple of a slice, so that pings come at any time of one.
const PING_EVERY: Duration = Duration::from_micros(1037);

impl Scenario for Sliced {
    type Outcome = BesideSliced;

    fn run<P: Contender>(self, on: P) -> BesideSliced {
        let record = Record::default();
        let (ping, pings) = mpsc::unbounded_channel();
        let slices = on.block_on(async {
            P::detach(P::spawn_urgent(receive(pings, record.clone())));
            spawn_slices::<P>(self.workers)
        });
        let (begun, before) = (now(), slices.load(Relaxed));
        on_schedule(PING_EVERY, || {
            ping.send(now()).expect("a task that listens")
        });
        let slices = slices.load(Relaxed) - before;
        BesideSliced {
            pings: record.so_far(),
            slices_per_second: slices as f64 / begun.elapsed().as_secs_f64(),
        }
    }
}

/// Beside a blocked worker, and beside a sliced load: there once by the built-in FIFO and once by priority.
///
/// ```no_run
/// use polity_benches::{Settings, tail};
///
/// let settings = Settings { reps: 3, workers: 2, only: vec!["tail/".to_owned()] };
/// tail(&settings, &mut |row| println!("{row}"));
/// ```
pub fn tail(settings: &Settings, give: &mut dyn FnMut(Row)) {
    type Which = fn(&BesideBlocked) -> &Latencies;
    let blocked_benches: [(&str, Which); 3] = [
        ("blocked_spawned/p99.9", |all| &all.spawned),
        ("blocked_sleeping/p99.9", |all| &all.sleeping),
        ("blocked_woken/p99.9", |all| &all.woken),
    ];
    let figures = blocked_benches.map(|(bench, which)| {
        let of = move |all: &BesideBlocked| which(all).quantile_us(0.999);
        Figure::new(
            bench.to_owned(),
            ("us", Better::Less),
            Goal::Ratio(20.0),
            of,
        )
    });
    if let Some(figures) = Figures::wanted(SUITE, settings, figures.into()) {
        let turn = |side| blocked(side, settings.workers);
        figures.compare(Side::Polity, settings.reps, turn, give);
    }
    for (bench, side) in [
        ("sliced", Side::Polity),
        ("sliced_priority", Side::PolityByPriority),
    ] {
        let figures = vec![
            Figure::new(
                format!("{bench}/p99"),
                ("us", Better::Less),
                Goal::Ratio(1.0),
                |all: &BesideSliced| all.pings.quantile_us(0.99),
            ),
            // What the load has lost by it.
            Figure::new(
                format!("{bench}/slices"),
                ("/s", Better::More),
                Goal::None,
                |all: &BesideSliced| all.slices_per_second,
            ),
        ];
        if let Some(figures) = Figures::wanted(SUITE, settings, figures) {
            let turn = |side| sliced(side, settings.workers);
            figures.compare(side, settings.reps, turn, give);
        }
    }
}

/// One turn beside a blocked worker.
pub(crate) fn blocked(side: Side, workers: usize) -> BesideBlocked {
    ask_scene(side, workers, Scene::Blocked(Blocked))
}

/// One turn beside a sliced load.
pub(crate) fn sliced(side: Side, workers: usize) -> BesideSliced {
    ask_scene(side, workers, Scene::Sliced(Sliced { workers }))
}
