//! The suite `io`: servers under load from another process, and timers.
//!
//! Servers, load and this program are three processes. The load asks in a closed loop on each connection: the next
//! request leaves when the answer to the last has come. So throughput and latency are two views of one thing, and what a
//! server saves in processor time the load can spend: on a machine where both share the cores, that is most of the gain.
//!
//! Every turn starts a new server and a new load.

mod load;
mod serve;
mod timers;

use std::time::Duration;

use crate::child::{Child, Role, Scene, ask};
use crate::figure::{Figure, Figures};
use crate::side::Side;
use crate::{Better, Goal, Row, Settings};

pub(crate) use load::{Load, Served};
pub(crate) use serve::{Serve, Service};
pub(crate) use timers::{Timers, sleep_forever};

const SUITE: &str = "io";
const WARM_UP: Duration = Duration::from_millis(80);
const TURN: Duration = Duration::from_millis(200);

/// What is asked of a server in one bench.
struct Bench {
    service: Service,
    connections: usize,
    request_bytes: usize,
}

impl Bench {
    fn all() -> Vec<Self> {
        let echo = |connections, request_bytes| Bench {
            service: Service::Echo,
            connections,
            request_bytes,
        };
        let hyper = Bench {
            service: Service::Http,
            connections: 64,
            request_bytes: 0,
        };
        let echoes =
            [1, 64, 250].map(|connections| [64, 1024].map(|bytes| echo(connections, bytes)));
        echoes.into_iter().flatten().chain([hyper]).collect()
    }

    fn name(&self) -> String {
        match self.service {
            Service::Echo => format!("echo_{}x{}", self.connections, self.request_bytes),
            Service::Http => format!("hyper_{}", self.connections),
        }
    }

    fn turn(&self, side: Side, workers: usize) -> Served {
        let mut server = Child::start(&Role::Scene {
            side,
            workers,
            scene: Scene::Serve(Serve(self.service)),
        });
        ask(&Role::Load(Load {
            address: server.answer(),
            server: server.id().as_raw(),
            service: self.service,
            request_bytes: self.request_bytes,
            connections: self.connections,
            // As many as keep the server busy: a client does less with a request than a server's runtime does.
            threads: (workers / 2).clamp(1, self.connections),
            warm_up: WARM_UP,
            length: TURN,
        }))
    }
}

/// Echo and HTTP, three rows each: all three goals at once, or the row is bought with the others. Then timers.
///
/// ```no_run
/// use polity_benches::{Settings, io};
///
/// let settings = Settings { reps: 3, workers: 2, only: vec!["echo_64".to_owned()] };
/// io(&settings, &mut |row| println!("{row}"));
/// ```
pub fn io(settings: &Settings, give: &mut dyn FnMut(Row)) {
    for bench in Bench::all() {
        serve_rows(&bench, settings, give);
    }
    timers::rows(settings, give);
}

fn serve_rows(bench: &Bench, settings: &Settings, give: &mut dyn FnMut(Row)) {
    let name = |what| format!("{}/{what}", bench.name());
    let figure = |what, unit, goal, of: fn(&Served) -> f64| {
        Figure::new(name(what), unit, Goal::Ratio(goal), of)
    };
    let (per_second, us) = (("req/s", Better::More), ("us", Better::Less));
    let figures = vec![
        figure("throughput", per_second, 1.05, |served| served.per_second),
        figure("p99", us, 1.0, |served| served.p99_us),
        figure("cpu_per_request", us, 1.0, |served| served.cpu_us),
    ];
    if let Some(figures) = Figures::wanted(SUITE, settings, figures) {
        let turn = |side| bench.turn(side, settings.workers);
        figures.compare(Side::Polity, settings.reps, turn, give);
    }
}
