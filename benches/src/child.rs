//! Parts of a bench that need a process of their own: this program once more, with a role to play.
//!
//! A server, because its processor time is told apart from that of the load only by the kernel; what fills a heap,
//! because the next measurement wants a fresh one; and all the rest of the latency suites too, so that a lucky memory
//! layout is lost with its process and shows up in the quartiles.
//!
//! A role arrives as JSON in the environment, answers leave as JSON, one on each line of the standard output.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::panic;
use std::process::{self, ChildStdout, Command, Stdio};

use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::idle::Hold;
use crate::io::{Load, Serve, Timers};
use crate::process::raise_open_files_limit;
use crate::scale::Crowd;
use crate::side::Side;
use crate::tail::{Blocked, Sliced};

const ROLE: &str = "POLITY_BENCHES_ROLE";

/// What a process can be asked to do.
#[derive(Serialize, Deserialize)]
pub(crate) enum Role {
    /// One scene on one runtime.
    Scene {
        side: Side,
        workers: usize,
        scene: Scene,
    },
    /// Asks a server, and needs no contender for it.
    Load(Load),
    /// Is connected, and says nothing.
    Hold(Hold),
}

/// What is done on a contender.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Scene {
    Serve(Serve),
    Timers(Timers),
    Blocked(Blocked),
    Sliced(Sliced),
    Crowd(Crowd),
}

/// Plays the role that a parent has given to this process, if one has. A program whose suites start children calls it
/// first in `main`, and returns if it says yes.
///
/// ```
/// assert!(!polity_benches::played_a_role());
/// ```
pub fn played_a_role() -> bool {
    let Ok(role) = env::var(ROLE) else {
        return false;
    };
    end_at_the_first_panic();
    raise_open_files_limit();
    match serde_json::from_str(&role).expect("a role") {
        Role::Load(load) => answer(&load.run()),
        Role::Hold(hold) => hold.run(),
        Role::Scene {
            side,
            workers,
            scene,
        } => match scene {
            Scene::Serve(serve) => side.run(workers, serve),
            Scene::Timers(timers) => answer(&side.run(workers, timers)),
            Scene::Blocked(blocked) => answer(&side.run(workers, blocked)),
            Scene::Sliced(sliced) => answer(&side.run(workers, sliced)),
            Scene::Crowd(crowd) => answer(&side.run(workers, crowd)),
        },
    }
    true
}

/// Else a server might go on without one of its tasks, or a load wait for a thread that is no more, and the parent with it.
fn end_at_the_first_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        process::exit(101);
    }));
}

/// Says something to the parent.
pub(crate) fn answer(what: &impl Serialize) {
    println!("{}", serde_json::to_string(what).expect("plain figures"));
}

/// Returns when the parent lets go of this process, or has died.
pub(crate) fn until_dismissed() {
    let _ = io::stdin().read_to_end(&mut Vec::new());
}

/// A process with a role. It ends with this value.
pub(crate) struct Child {
    process: process::Child,
    answers: BufReader<ChildStdout>,
}

impl Child {
    pub(crate) fn start(role: &Role) -> Self {
        let role = serde_json::to_string(role).expect("plain data");
        let mut process = Command::new(env::current_exe().expect("this program has a path"))
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts once more");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        Child { process, answers }
    }

    /// Its next answer.
    pub(crate) fn answer<T: DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("a line of text");
        serde_json::from_str(&line).expect("an answer; what went wrong stands above")
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }
}

impl Drop for Child {
    /// It has said what it had to say: nobody waits until it has dropped a million tasks.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The one answer of a process that does nothing else.
pub(crate) fn ask<T: DeserializeOwned>(role: &Role) -> T {
    Child::start(role).answer()
}

/// The one answer of a scene.
pub(crate) fn ask_scene<T: DeserializeOwned>(side: Side, workers: usize, scene: Scene) -> T {
    ask(&Role::Scene {
        side,
        workers,
        scene,
    })
}
