//! The suite `idle`: what a runtime does when nobody wants anything of it.
//!
//! Servers with ten thousand open connections and servers with none, of both contenders, all four at once: they are
//! measured in the same seconds, and what they do is next to nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child::{Child, Role, Scene, answer, until_dismissed};
use crate::clock::block_for;
use crate::figure::{Figure, Figures};
use crate::io::{Serve, Service};
use crate::process::{cpu_time, raise_open_files_limit, wake_ups};
use crate::side::Side;
use crate::{Better, Goal, Row, Settings};

const SUITE: &str = "idle";
const CONNECTIONS: u64 = 10_000;
/// Files that a process has open besides its connections, at most.
const OTHER_FILES: u64 = 100;
/// A runtime may look after its tasks for some seconds after the last one has run: polity's watchdog and sentinel do so for
/// about three, with some hundred wake-ups in each, and then sleep. What is measured is the rest that follows.
const SETTLE: Duration = Duration::from_secs(4);
const TURN: Duration = Duration::from_secs(10);
/// A figure that hardly varies needs no fifteen turns of this length.
const MOST_TURNS: u32 = 3;

/// Opens so many connections to an echo server, makes sure that each is served, and does no more.
#[derive(Serialize, Deserialize)]
pub(crate) struct Hold {
    address: SocketAddr,
    connections: u64,
}

impl Hold {
    pub(crate) fn run(&self) {
        let open = |_| {
            let mut stream = TcpStream::connect(self.address).expect("a server");
            stream.write_all(b"?").expect("a server that reads");
            stream.read_exact(&mut [0]).expect("a server that answers");
            stream
        };
        let open: Vec<_> = (0..self.connections).map(open).collect();
        answer(&open.len());
        until_dismissed();
    }
}

/// A server, and who is connected to it.
struct Server {
    process: Child,
    _client: Child,
}

impl Server {
    fn start(side: Side, workers: usize, connections: u64) -> Self {
        let mut process = Child::start(&Role::Scene {
            side,
            workers,
            scene: Scene::Serve(Serve(Service::Echo)),
        });
        let mut client = Child::start(&Role::Hold(Hold {
            address: process.answer(),
            connections,
        }));
        assert_eq!(client.answer::<u64>(), connections);
        Server {
            process,
            _client: client,
        }
    }

    fn so_far(&self) -> Used {
        Used {
            cpu: cpu_time(self.process.id()),
            wake_ups: wake_ups(self.process.id()),
        }
    }
}

/// What a process has used, until now or in a turn.
struct Used {
    cpu: Duration,
    wake_ups: u64,
}

impl Used {
    fn since(&self, before: &Used) -> Used {
        Used {
            cpu: self.cpu - before.cpu,
            wake_ups: self.wake_ups - before.wake_ups,
        }
    }

    fn cpu_us_per_second(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / TURN.as_secs_f64()
    }

    fn wake_ups_per_second(&self) -> f64 {
        self.wake_ups as f64 / TURN.as_secs_f64()
    }
}

/// Processor time and wake-ups of a runtime that has nothing to do, with connections and without.
///
/// ```no_run
/// use polity_benches::{Settings, idle};
///
/// let settings = Settings { reps: 3, workers: 2, only: vec!["idle/".to_owned()] };
/// idle(&settings, &mut |row| println!("{row}"));
/// ```
pub fn idle(settings: &Settings, give: &mut dyn FnMut(Row)) {
    let sizes = [CONNECTIONS.min(raise_open_files_limit() - OTHER_FILES), 0];
    let of_one = |nth: usize| {
        let name = |what| format!("{}_connections/{what}", sizes[nth]);
        let cpu = move |used: &[Used; 2]| used[nth].cpu_us_per_second();
        let wake_ups = move |used: &[Used; 2]| used[nth].wake_ups_per_second();
        [
            Figure::new(name("cpu"), ("us/s", Better::Less), Goal::Cost(0.0), cpu),
            Figure::new(
                name("wake_ups"),
                ("/s", Better::Less),
                Goal::Cost(1.0),
                wake_ups,
            ),
        ]
    };
    let figures = [0, 1].map(of_one).into_iter().flatten().collect();
    if let Some(figures) = Figures::wanted(SUITE, settings, figures) {
        let turns = settings.reps.min(MOST_TURNS);
        let turns = (0..turns).map(|_| turn(sizes, settings.workers));
        let (ours, theirs): (Vec<_>, Vec<_>) = turns.map(<([Used; 2], [Used; 2])>::from).unzip();
        figures.give(&ours, &theirs, give);
    }
}

/// What servers with so many connections each use, ours and tokio's, all at the same time.
fn turn(sizes: [u64; 2], workers: usize) -> [[Used; 2]; 2] {
    let servers = [Side::Polity, Side::Tokio]
        .map(|side| sizes.map(|connections| Server::start(side, workers, connections)));
    let so_far = || {
        servers
            .each_ref()
            .map(|sizes| sizes.each_ref().map(Server::so_far))
    };
    block_for(SETTLE);
    let before = so_far();
    block_for(TURN);
    let after = so_far();
    [0, 1].map(|side| [0, 1].map(|size| after[side][size].since(&before[side][size])))
}
