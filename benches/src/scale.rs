//! The suite `scale`: what an operation costs, and a task takes, among a thousand live tasks and among a million.
//!
//! The goal is on the growth, the cost among a million over the cost among a thousand: the costs themselves are the other
//! suites' business and stand here to be seen. Each size is a process of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{fmt, future};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::child::{Scene, ask_scene};
use crate::clock::now;
use crate::figure::{Figure, Figures};
use crate::process::resident;
use crate::side::{Contender, Scenario, Side};
use crate::{Better, Goal, Row, Settings};

const SUITE: &str = "scale";
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// A million tasks take their time to be made: this many turns at most.
const MOST_TURNS: u32 = 5;

/// What is done among them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    /// Tasks are spawned, woken once and finish, beside those that are idle.
    Spawn,
    /// All of them yield.
    Yield,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Spawn => "spawn_wake_finish",
            Operation::Yield => "yield",
        })
    }
}

/// So many live tasks.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Crowd {
    live: usize,
    operation: Operation,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Costs {
    /// For one operation.
    ns: f64,
    /// By which the process has grown for one idle task. Of [`Operation::Spawn`] only: in the other nobody is idle.
    bytes: f64,
}

impl Scenario for Crowd {
    type Outcome = Costs;

    fn run<P: Contender>(self, on: P) -> Costs {
        match self.operation {
            Operation::Spawn => {
                let before = resident();
                idle_crowd(&on, self.live);
                let bytes = resident().saturating_sub(before) as f64 / self.live as f64;
                let ns = on.block_on(async { P::join(P::spawn(spawn_wake_finish::<P>())).await });
                Costs { ns, bytes }
            }
            Operation::Yield => Costs {
                ns: yields(&on, self.live),
                bytes: 0.0,
            },
        }
    }
}

/// Spawns tasks that wait for ever, and returns when all of them have begun to.
fn idle_crowd<P: Contender>(on: &P, live: usize) {
    let waiting = Arc::new(AtomicUsize::new(0));
    on.block_on(async {
        for _ in 0..live {
            let waiting = Arc::clone(&waiting);
            P::detach(P::spawn(async move {
                waiting.fetch_add(1, Relaxed); // a count, read for itself
                drop(waiting);
                future::pending::<()>().await;
            }));
        }
        P::join(P::spawn(until::<P>(waiting, live))).await;
    });
}

/// Yields until the count is there.
async fn until<P: Contender>(count: Arc<AtomicUsize>, there: usize) {
    while count.load(Relaxed) < there {
        P::yield_now().await;
    }
}

const BATCH: usize = 1_000;
const BATCHES: u32 = 50;

/// How long one task takes to live, in nanoseconds.
async fn spawn_wake_finish<P: Contender>() -> f64 {
    batch::<P>().await; // the first one pays for the pages
    let begun = now();
    for _ in 0..BATCHES {
        batch::<P>().await;
    }
    begun.elapsed().as_nanos() as f64 / (f64::from(BATCHES) * BATCH as f64)
}

async fn batch<P: Contender>() {
    let waiting = Arc::new(AtomicUsize::new(0));
    let spawn = |_| {
        let (wake, woken) = oneshot::channel();
        let waiting = Arc::clone(&waiting);
        let task = P::spawn(async move {
            waiting.fetch_add(1, Relaxed);
            woken.await.expect("it is woken");
        });
        (wake, task)
    };
    let (wakes, tasks): (Vec<_>, Vec<_>) = (0..BATCH).map(spawn).unzip();
    // Who has not been polled yet need not be woken.
    until::<P>(waiting, BATCH).await;
    for wake in wakes {
        wake.send(()).expect("it waits");
    }
    for task in tasks {
        P::join(task).await;
    }
}

/// As many yields at least, or four for each task, which is more.
const YIELDS: usize = 2_000_000;

/// How long one yield takes when all tasks do nothing else, in nanoseconds.
fn yields<P: Contender>(on: &P, live: usize) -> f64 {
    let each = (YIELDS / live).max(4);
    let (begin, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    on.block_on(async {
        for _ in 0..live {
            let (begin, done) = (Arc::clone(&begin), Arc::clone(&done));
            P::detach(P::spawn(async move {
                until::<P>(begin, 1).await;
                for _ in 0..each {
                    P::yield_now().await;
                }
                done.fetch_add(1, Relaxed);
                // Ending is another operation.
                future::pending::<()>().await;
            }));
        }
        // As one of them, so that all others have had their first turn, and nobody outside takes a processor.
        P::join(P::spawn(async move {
            P::yield_now().await;
            let begun = now();
            begin.store(1, Relaxed);
            until::<P>(done, live).await;
            begun.elapsed().as_nanos() as f64 / (live as f64 * each as f64)
        }))
        .await
    })
}

/// Growth and costs of two operations, and the memory of an idle task.
///
/// ```no_run
/// use polity_benches::{Settings, scale};
///
/// let settings = Settings { reps: 3, workers: 2, only: vec!["scale/".to_owned()] };
/// scale(&settings, &mut |row| println!("{row}"));
/// ```
pub fn scale(settings: &Settings, give: &mut dyn FnMut(Row)) {
    for operation in [Operation::Spawn, Operation::Yield] {
        if let Some(figures) = Figures::wanted(SUITE, settings, figures(operation)) {
            let turn = |side| {
                SIZES.map(|live| {
                    let crowd = Crowd { live, operation };
                    ask_scene(side, settings.workers, Scene::Crowd(crowd))
                })
            };
            figures.compare(Side::Polity, settings.reps.min(MOST_TURNS), turn, give);
        }
    }
}

/// Of the costs at each of [`SIZES`].
fn figures(operation: Operation) -> Vec<Figure<[Costs; 4]>> {
    let ns = |(nth, size): (usize, usize)| {
        let of = move |costs: &[Costs; 4]| costs[nth].ns;
        Figure::new(
            format!("{operation}/{size}"),
            ("ns", Better::Less),
            Goal::None,
            of,
        )
    };
    let growth = Figure::new(
        format!("{operation}/growth"),
        ("times", Better::Less),
        Goal::Ratio(1.0),
        |[few, .., many]: &[Costs; 4]| many.ns / few.ns,
    );
    let bytes = Figure::new(
        "idle_task".to_owned(),
        ("bytes", Better::Less),
        Goal::Ratio(1.0),
        |[.., many]: &[Costs; 4]| many.bytes,
    );
    let mut figures: Vec<_> = SIZES.into_iter().enumerate().map(ns).collect();
    figures.push(growth);
    if operation == Operation::Spawn {
        figures.push(bytes);
    }
    figures
}
