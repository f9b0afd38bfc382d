//! `tokio::signal` and `tokio::process` inside tasks, beside our own signals: nobody takes anything from the other.

use std::collections::HashSet;
use std::env;
use std::io;
use std::pin::Pin;
use std::process::{self, Stdio};
use std::sync::mpsc::channel;

use futures::FutureExt;
use polity::{Builder, Runtime};
use polity_policies::{Fifo, Priority};
use polity_tests::{in_a_process_of_its_own, wait_for, wait_until, within};
use signal_hook::low_level::raise;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

use crate::process::{PART, Process, say};
use crate::sysrq::ejected;

// ---- the child ----

fn with_signals() -> Runtime {
    let runtime = Builder::new().worker_threads(2).pin(polity::Pin::Off);
    let runtime = runtime.build().unwrap();
    runtime.load(Fifo::new()).unwrap();
    runtime
}

fn has_policy(runtime: &Runtime) -> bool {
    !runtime.dump().to_string().starts_with("policy: none")
}

const LISTENED_TO: [(&str, libc::c_int); 4] = [
    ("USR1", libc::SIGUSR1),
    ("HUP", libc::SIGHUP),
    ("CONT", libc::SIGCONT),
    ("QUIT", libc::SIGQUIT),
];

/// tokio listens from the first poll on.
fn listening_to_ctrl_c() -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>> {
    let mut pressed: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(ctrl_c());
    assert!(pressed.as_mut().now_or_never().is_none());
    pressed
}

/// Listens by tokio to what `LISTENED_TO` says, and to Ctrl-C. Not a test: without `PART` it does nothing.
#[test]
fn the_child_of_the_other_tests() {
    if env::var(PART).is_err() {
        return;
    }
    let runtime = with_signals();
    let (listening, listens) = channel();
    for (name, number) in LISTENED_TO {
        let listening = listening.clone();
        drop(runtime.spawn(async move {
            let mut signals = signal(SignalKind::from_raw(number)).unwrap();
            listening.send(()).unwrap();
            while signals.recv().await.is_some() {
                say(name);
            }
        }));
    }
    drop(runtime.spawn(async move {
        let mut pressed = listening_to_ctrl_c();
        listening.send(()).unwrap();
        loop {
            pressed.await.unwrap();
            // Before the parent hears of this one, so that the next is not missed.
            pressed = listening_to_ctrl_c();
            say("INT");
        }
    }));
    assert_eq!(listens.iter().take(LISTENED_TO.len() + 1).count(), 5);
    say("ready");
    let _ = io::stdin().read_line(&mut String::new());
    // The listeners say nothing more, but the policy must still be there, or not.
    say(if has_policy(&runtime) {
        "loaded"
    } else {
        "none"
    });
    process::exit(0);
}

// ---- the parent ----

#[test]
fn tasks_hear_signals_by_tokio() {
    let mut process = Process::start(module_path!(), "any");
    for _ in 0..5 {
        for signal in ["USR1", "HUP", "INT"] {
            process.kill(signal);
            process.expect(signal);
        }
    }
    process.tell("end", "loaded");
    assert!(process.finish().is_empty());
}

#[test]
fn a_sigquit_ejects_the_policy_and_is_heard_by_tokio_as_well() {
    let mut process = Process::start(module_path!(), "any");
    process.quit();
    process.expect_stderr(&ejected("fifo", 1));
    process.expect("QUIT");
    // And the others are still heard.
    process.kill("USR1");
    process.expect("USR1");
    process.tell("end", "none");
    process.finish();
}

#[test]
fn a_stop_and_a_continue_work_and_the_continue_is_heard_by_tokio_as_well() {
    let mut process = Process::start(module_path!(), "any");
    process.kill("TSTP");
    process.wait_until_stopped();
    process.kill("CONT");
    process.expect("CONT");
    process.kill("HUP");
    process.expect("HUP");
    process.tell("end", "loaded");
    assert!(process.finish().is_empty());
}

// ---- children of tasks ----

const IN_ITS_OWN: &str = "coexistence::tasks_wait_for_their_children_before_and_after_a_sigquit";

#[test]
fn tasks_wait_for_their_children_before_and_after_a_sigquit() {
    in_a_process_of_its_own(IN_ITS_OWN, || {
        within(|| {
            let runtime = with_signals();
            run_children(&runtime);
            raise(libc::SIGQUIT).unwrap();
            wait_until("the policy is gone", || !has_policy(&runtime));
            run_children(&runtime);
            runtime.load(Priority::new()).unwrap();
            run_children(&runtime);
        });
    });
}

/// Children that exit, that talk, that are killed, and that are dropped.
fn run_children(runtime: &Runtime) {
    let exits: Vec<_> = (0..20)
        .map(|code: i32| {
            runtime.spawn(async move {
                let mut command = Command::new("sh");
                let status = command.args(["-c", &format!("exit {code}")]).status();
                status.await.unwrap().code()
            })
        })
        .collect();
    let codes: HashSet<_> = exits
        .into_iter()
        .map(|exit| wait_for("a child that exits", exit).unwrap())
        .collect();
    assert_eq!(codes, (0..20).map(Some).collect());

    let echoed = runtime.spawn(async {
        let mut cat = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut to = cat.stdin.take().unwrap();
        let mut from = BufReader::new(cat.stdout.take().unwrap()).lines();
        for line in ["one", "two"] {
            to.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            assert_eq!(from.next_line().await.unwrap().unwrap(), line);
        }
        drop(to);
        assert!(cat.wait().await.unwrap().success());
    });
    wait_for("a child that talks", echoed).unwrap();

    let killed = runtime.spawn(async {
        let mut long = Command::new("sleep").arg("1000").spawn().unwrap();
        long.kill().await.unwrap();
        // One that is dropped is killed, too, and left to tokio to wait for.
        let mut long = Command::new("sleep");
        drop(long.arg("1000").kill_on_drop(true).spawn().unwrap());
    });
    wait_for("a child that is killed", killed).unwrap();
}
