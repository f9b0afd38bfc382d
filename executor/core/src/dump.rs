//! What a runtime looks like at this moment, as text: for a person who asked, and for the report on a policy that was ejected.
//!
//! Made from samples, on any thread, without stopping anybody: two lines may contradict each other by microseconds.
//! Bounded, because it may be printed to a terminal while the machine is in trouble.

use std::fmt::{self, Write};

use polity_policy::DsqId;

use crate::core::Core;
use crate::hosting::{Generation, SHOWN};
use crate::machine::Machine;
use crate::seat::{Place, Seat, SeatId};
use crate::task::custody::{Owner, State};
use crate::task::header::Header;
use crate::task::slab;

/// What a runtime looks like at one moment, as text of bounded size. From [`Core::dump`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dump {
    text: String,
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<M: Machine> Core<M> {
    /// Complexity: one look at each slot of the process.
    pub fn dump(&self) -> Dump {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_dump(&mut text);
        self.bounded(text)
    }

    /// A policy that has just been swept out.
    pub(crate) fn dump_of(&self, generation: &Generation) -> Dump {
        let mut text = String::new();
        let _ = self.write_dump_of(&mut text, generation);
        self.bounded(text)
    }

    fn bounded(&self, mut text: String) -> Dump {
        let limit = self.config.dump_limit;
        if text.len() > limit {
            let marker = format!("\n... cut: this dump has {} bytes\n", text.len());
            text.truncate(boundary_below(&text, limit.saturating_sub(marker.len())));
            text.push_str(&marker);
            text.truncate(boundary_below(&text, limit));
        }
        Dump { text }
    }

    fn write_dump(&self, out: &mut String) -> fmt::Result {
        let now = self.machine.now();
        match self.published.load() {
            None => writeln!(out, "policy: none, the built-in FIFO runs")?,
            Some(current) => {
                let (name, number) = (&current.name, current.number);
                let since = Ms(now.saturating_sub(current.published_at()));
                let phase = self.phase_of(&current);
                let has = current.census.waiting();
                writeln!(
                    out,
                    "policy: {name:?} (generation {number}), {phase}, loaded for {since}, has {has} tasks"
                )?;
            }
        }
        self.write_threads(out, now)?;
        let mut runnable: Vec<(u64, Owner, &'static Header)> = slab::all()
            .filter(|header| self.owns(header) && header.lifecycle.is_runnable())
            .map(|header| (header.runnable_at(), header.custody.load(), header))
            .filter(|(_, seen, _)| !matches!(seen.state(), State::Free | State::Running))
            .collect();
        runnable.sort_by_key(|(runnable_at, ..)| *runnable_at);
        writeln!(out, "runnable tasks: {}", runnable.len())?;
        for (_, seen, header) in runnable.iter().take(SHOWN) {
            writeln!(out, "  {}", task_line(header, *seen, now))?;
        }
        self.write_rest(out, runnable.len())
    }

    fn write_dump_of(&self, out: &mut String, generation: &Generation) -> fmt::Result {
        let now = self.machine.now();
        let (name, number) = (&generation.name, generation.number);
        let since = Ms(now.saturating_sub(generation.published_at()));
        let phase = self.phase_of(generation);
        writeln!(
            out,
            "policy: {name:?} (generation {number}), {phase}, loaded {since} ago"
        )?;
        self.write_threads(out, now)?;
        let swept = generation.swept();
        writeln!(out, "tasks that it held: {}", swept.count)?;
        for line in &swept.oldest {
            writeln!(out, "  {line}")?;
        }
        self.write_rest(out, swept.count)
    }

    fn phase_of(&self, generation: &Generation) -> &'static str {
        if !generation.has_ended() {
            "enabled"
        } else if self.is_current(generation) {
            "ending"
        } else {
            "retiring"
        }
    }

    fn write_threads(&self, out: &mut String, now: u64) -> fmt::Result {
        writeln!(out, "bypass depth: {}", self.published.bypasses())?;
        for index in 0..self.seats_in_use() {
            let seat_id = SeatId::new(index as u16);
            if self.is_vacant(seat_id) {
                continue;
            }
            let seat = self.seat(seat_id);
            write!(out, "worker {}", seat.home())?;
            if index >= self.worker_count() {
                write!(out, " (a spare, in seat {seat_id})")?;
            }
            write!(out, ": ")?;
            self.write_activity(out, seat_id, seat, now)?;
        }
        Ok(())
    }

    fn write_activity(
        &self,
        out: &mut String,
        seat_id: SeatId,
        seat: &Seat,
        now: u64,
    ) -> fmt::Result {
        let activity = &seat.activity;
        let place = activity.place();
        match place {
            Place::Poll => write!(out, "polls ")?,
            Place::Blocked => write!(out, "blocks in place in ")?,
            Place::Callback(callback) => {
                write!(out, "in {callback} of generation {}", activity.follows())?;
                if self.is_convicted(seat_id) {
                    write!(out, ", replaced")?;
                }
                if activity.task().is_some() {
                    write!(out, ", about ")?;
                }
            }
            Place::Reporting => {
                write!(out, "reports an error of generation {}", activity.follows())?;
                if activity.task().is_some() {
                    write!(out, " about ")?;
                }
            }
            Place::Driver if self.sleepers.is_parked(seat_id.index()) => {
                return writeln!(out, "parked in the driver");
            }
            Place::Driver => return writeln!(out, "drives I/O and timers"),
            Place::Between if self.sleepers.is_parked(seat_id.index()) => {
                return writeln!(out, "parked");
            }
            Place::Between => return writeln!(out, "between polls"),
        }
        if let Some(task) = activity.task() {
            write!(out, "task {task}")?;
            if let Some(header) = slab::get(task.slot()).filter(|it| it.lifecycle.is(task.tenant()))
            {
                write_name(out, header)?;
            }
        }
        // The watchdog notes when it sees a poll or call for the first time; a shorter one it has not seen.
        let since = activity.since();
        if since > 0 && self.watchdog_has_seen(seat) {
            write!(out, ", for {}", Ms(now.saturating_sub(since)))?;
        }
        writeln!(out)
    }

    fn watchdog_has_seen(&self, seat: &Seat) -> bool {
        seat.activity.seen() == (seat.activity.polls(), seat.activity.call.in_flight())
    }

    fn write_rest(&self, out: &mut String, tasks: usize) -> fmt::Result {
        if tasks > SHOWN {
            writeln!(out, "  ... and {} more", tasks - SHOWN)?;
        }
        let (injector, global) = (self.injector.len(), self.global.len());
        write!(out, "queues: injector {injector}, global DSQ {global}")?;
        for (index, placed) in self.placed.iter().enumerate() {
            let (local, inbox) = (placed.local.len(), placed.inbox.len());
            let ingress = self.seat(placed.seat()).ingress.len();
            write!(
                out,
                "; worker {index}: ingress {ingress}, inbox {inbox}, local DSQ {local}"
            )?;
        }
        write!(out, "\ncounters:")?;
        for (name, value) in self.metrics().by_name() {
            write!(out, " {name} {value}")?;
        }
        writeln!(out)
    }
}

/// The last place at or before `at` where a text may be cut.
fn boundary_below(text: &str, at: usize) -> usize {
    let mut end = at.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    end
}

/// Nanoseconds, as a person reads them.
struct Ms(u64);

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..10_000_000 => write!(f, "{:.1} ms", self.0 as f64 / 1e6),
            10_000_000..10_000_000_000 => write!(f, "{} ms", self.0 / 1_000_000),
            _ => write!(f, "{} s", self.0 / 1_000_000_000),
        }
    }
}

/// Cut, so that a name cannot flood the dump.
fn write_name(out: &mut String, header: &Header) -> fmt::Result {
    match header.attributes().get_name() {
        Some(name) => write!(out, " {:?}", &name[..boundary_below(name, 40)]),
        None => Ok(()),
    }
}

/// Id, name, state and age of a runnable task, and where it was spawned.
pub(crate) fn task_line(header: &'static Header, seen: Owner, now: u64) -> String {
    let mut line = format!("{}", header.id());
    let _ = write_name(&mut line, header);
    let state = match seen.state() {
        State::Ingress => "in ingress".to_owned(),
        State::Offered | State::InHand => "in a callback".to_owned(),
        State::Held => "held by the policy".to_owned(),
        State::Queued => format!("in DSQ {}", DsqId::Custom(seen.index().into())),
        State::Local => format!("in the local DSQ of worker {}", seen.index()),
        State::Global => "in the global DSQ".to_owned(),
        State::Free | State::Running => "running".to_owned(),
    };
    let age = Ms(now.saturating_sub(header.runnable_at()));
    let _ = write!(line, " {state}, for {age}");
    if let Some(site) = slab::spawn_site(header.slot()).and_then(|site| site.get()) {
        let _ = write!(line, ", spawned at {site}");
    }
    line
}
