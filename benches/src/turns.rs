//! The stopwatch: contenders do the same thing by turns, so that the machine's drift meets all of them alike.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::{Better, Drivers, Goal, Peer, Row, Workload, named};

/// Each turn lasts at least this long: rounds are repeated until it does.
const TURN: Duration = Duration::from_millis(20);

/// A runtime that does one workload, again and again. Dropping it stops the runtime.
///
/// ```
/// use polity_benches::{Contender, Goal, Polity, Tokio, take_turns};
///
/// let mut both = [
///     Contender::start::<Polity>("chained_spawn", 1),
///     Contender::start::<Tokio>("chained_spawn", 1),
/// ];
/// take_turns(&mut both, 3);
/// let [ours, theirs] = both;
/// let row = ours.against(&theirs, "tokio_rt", "chained_spawn", Goal::None);
/// assert_eq!((row.peer, row.ours.len()), ("tokio", 3));
/// ```
pub struct Contender {
    name: &'static str,
    ops: u64,
    // Before `check`, which keeps the runtime: what a workload holds goes first.
    lap: Box<dyn FnMut(u64) -> Duration>,
    check: Box<dyn Fn()>,
    rounds_per_turn: u64,
    ns_per_op: Vec<f64>,
}

impl Contender {
    /// A fresh runtime, set up as the workload's own bench does it.
    ///
    /// # Panics
    ///
    /// If no workload is called so.
    pub fn start<P: Peer>(workload: &str, workers: usize) -> Self {
        let workload = named::<P>(workload);
        let peer = match workload.drivers {
            Drivers::All => P::start(workers),
            Drivers::None => P::start_without_drivers(workers),
        };
        Contender::new(P::NAME, peer, workload)
    }

    /// A runtime that is running already, under a name for reports.
    pub fn new<P: Peer>(name: &'static str, peer: P, workload: Workload<P>) -> Self {
        let peer = Rc::new(peer);
        let mut round = (workload.prepare)(&peer);
        let (checked, ops, load) = (Rc::clone(&peer), workload.ops, workload.load);
        Contender {
            name,
            ops,
            lap: Box::new(move |rounds| {
                // While others have their turn nothing of this runtime may run.
                let _load = load.map(|start| start(&peer));
                time(rounds, &mut round)
            }),
            check: Box::new(move || checked.check()),
            rounds_per_turn: 1,
            ns_per_op: Vec::new(),
        }
    }

    /// The time that so many rounds take.
    ///
    /// # Panics
    ///
    /// If the runtime is no longer what was started.
    pub fn lap(&mut self, rounds: u64) -> Duration {
        let took = (self.lap)(rounds);
        (self.check)();
        took
    }

    /// What was measured so far, a figure for each turn.
    pub fn ns_per_op(&self) -> &[f64] {
        &self.ns_per_op
    }

    /// The row that compares this one, as ours, with `theirs`.
    pub fn against(&self, theirs: &Self, suite: &'static str, bench: &str, goal: Goal) -> Row {
        Row {
            suite,
            bench: bench.to_owned(),
            peer: theirs.name,
            unit: "ns",
            better: Better::Less,
            goal,
            ours: self.ns_per_op.clone(),
            theirs: theirs.ns_per_op.clone(),
        }
    }

    fn warm_up(&mut self) {
        while self.lap(self.rounds_per_turn) < TURN {
            self.rounds_per_turn *= 2;
        }
        for _ in 0..2 {
            self.lap(self.rounds_per_turn);
        }
    }

    fn measure(&mut self) {
        let took = self.lap(self.rounds_per_turn).as_nanos() as f64;
        let ops = self.ops as f64 * self.rounds_per_turn as f64;
        self.ns_per_op.push(took / ops);
    }
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch is what this is")]
fn time(rounds: u64, round: &mut impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..rounds {
        round();
    }
    start.elapsed()
}

/// Warms all of them up and measures each `reps` times: forwards, backwards, forwards, so that a steady drift cancels
/// out.
///
/// ```
/// use polity_benches::{Contender, Polity, take_turns};
///
/// let mut alone = [Contender::start::<Polity>("ping_pong", 1)];
/// take_turns(&mut alone, 2);
/// assert_eq!(alone[0].ns_per_op().len(), 2);
/// ```
pub fn take_turns(contenders: &mut [Contender], reps: u32) {
    contenders.iter_mut().for_each(Contender::warm_up);
    for rep in 0..reps {
        if rep % 2 == 0 {
            contenders.iter_mut().for_each(Contender::measure);
        } else {
            contenders.iter_mut().rev().for_each(Contender::measure);
        }
    }
}
