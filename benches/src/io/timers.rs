//! How late `tokio::time::sleep` wakes a task, alone and beside tasks that compute.
//!
//! Both runtimes ask the same timer wheel, which rounds up to milliseconds: half a millisecond on average is not theirs,
//! and what differs is who asks it, and when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::SUITE;
use crate::child::{Scene, ask_scene};
use crate::clock::{block_for, now};
use crate::figure::{Figure, Figures};
use crate::latencies::{Latencies, Record};
use crate::side::{Contender, Scenario, Side};
use crate::slices::spawn_slices;
use crate::{Better, Goal, Row, Settings};

const SLEEPERS: u64 = 32;
const TURN: Duration = Duration::from_millis(300);

/// Tasks that sleep for 1 to 10 ms, again and again.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Timers {
    /// And nothing else.
    Idle,
    /// Beside a load on so many workers.
    Beside { load_on: usize },
}

impl Scenario for Timers {
    type Outcome = Latencies;

    fn run<P: Contender>(self, on: P) -> Latencies {
        let record = Record::default();
        on.block_on(async {
            if let Timers::Beside { load_on } = self {
                spawn_slices::<P>(load_on);
            }
            for nth in 0..SLEEPERS {
                let pause = Duration::from_millis(1 + nth % 10);
                P::detach(P::spawn(sleep_forever(pause, record.clone())));
            }
        });
        block_for(TURN);
        record.so_far()
    }
}

/// Sleeps again and again, and records how late it is woken each time.
pub(crate) async fn sleep_forever(pause: Duration, record: Record) {
    loop {
        let due = now() + pause;
        tokio::time::sleep(pause).await;
        record.add(now().saturating_duration_since(due));
    }
}

pub(super) fn rows(settings: &Settings, give: &mut dyn FnMut(Row)) {
    let load_on = settings.workers;
    for (name, timers) in [
        ("timers_idle", Timers::Idle),
        ("timers_loaded", Timers::Beside { load_on }),
    ] {
        let figure = |word, quantile| {
            let of = move |latencies: &Latencies| latencies.quantile_us(quantile);
            Figure::new(
                format!("{name}/{word}"),
                ("us", Better::Less),
                Goal::Ratio(1.0),
                of,
            )
        };
        let figures = vec![figure("p50", 0.5), figure("p99", 0.99)];
        if let Some(figures) = Figures::wanted(SUITE, settings, figures) {
            let turn = |side| ask_scene(side, settings.workers, Scene::Timers(timers));
            figures.compare(Side::Polity, settings.reps, turn, give);
        }
    }
}
