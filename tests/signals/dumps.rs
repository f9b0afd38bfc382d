//! What SIGQUIT prints after its line: the dump, indented.

use std::env;
use std::io::{self, BufRead, BufReader};
use std::process;
use std::sync::mpsc::channel;

use polity::{Attributes, Builder, Host, Pin, Policy, Runtime, TaskView};
use polity_tests::{receive, wait_until};

use crate::process::{PART, Process, Setup, say};
use crate::sysrq::ejected;

// ---- the child ----

/// Has every task in its custody for ever, but for those named "served".
struct Hoarder;

impl Policy for Hoarder {
    type Task = ();

    fn name(&self) -> &str {
        "hoarder"
    }
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if task.name() == Some("served") {
            host.insert(task.id(), polity::DsqId::Global, polity::Position::Tail);
        }
    }
}

fn spawn_held(runtime: &Runtime, names: impl Iterator<Item = String>) {
    let before = runtime.metrics().offered;
    let mut count = 0;
    for name in names {
        let task = runtime.spawn_with(Attributes::new().name(name), async {});
        drop(task.unwrap());
        count += 1;
    }
    wait_until("they are held", || {
        runtime.metrics().offered == before + count
    });
}

/// Has a policy hold what `PART` says. Not a test: without `PART` it does nothing.
#[test]
fn the_child_of_the_other_tests() {
    let Ok(part) = env::var(PART) else { return };
    let builder = Builder::new().worker_threads(2).pin(Pin::Off);
    let runtime = builder.build().unwrap();
    runtime.load(Hoarder).unwrap();
    let (release, released) = channel::<()>();
    match part.as_str() {
        "three" => {
            let (begun, has_begun) = channel();
            let long = async move {
                begun.send(()).unwrap();
                let _ = released.recv();
            };
            let served = Attributes::new().name("served");
            drop(runtime.spawn_with(served, long).unwrap());
            receive("the long poll to begin", &has_begun);
            spawn_held(&runtime, (0..3).map(|index| format!("held-{index}")));
        }
        "many" => {
            let long = "ü".repeat(10_000);
            spawn_held(&runtime, (0..100).map(|index| format!("{index}{long}")));
            spawn_held(&runtime, (0..100_000).map(|_| "held".to_owned()));
        }
        other => panic!("{other}"),
    }
    say("ready");
    let _ = io::stdin().read_line(&mut String::new());
    drop(release);
    process::exit(0);
}

// ---- the parent ----

#[test]
fn the_dump_follows_the_line_and_names_policy_workers_and_held_tasks() {
    let (stderr, to_stderr) = io::pipe().unwrap();
    let setup = Setup {
        stderr: Some(to_stderr.into()),
        ..Setup::default()
    };
    let process = Process::start_with(module_path!(), "three", setup);
    process.quit();
    let mut lines = Vec::new();
    for line in BufReader::new(stderr).lines().map(Result::unwrap) {
        let is_last = line.starts_with("  counters:");
        lines.push(line);
        if is_last {
            break;
        }
    }
    process.finish();
    assert_eq!(lines[0], ejected("hoarder", 1));
    let dump = &lines[1..];
    let all = lines.join("\n");
    assert!(dump.iter().all(|line| line.starts_with("  ")), "{all}");
    let starts = |with: &str| dump.iter().any(|line| line.starts_with(with));
    let has = |parts: &[&str]| {
        dump.iter()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    };
    assert!(
        dump[0].starts_with("  policy: \"hoarder\" (generation 1), "),
        "{all}"
    );
    assert!(starts("  worker 0: ") && starts("  worker 1: "), "{all}");
    assert!(has(&["worker ", "polls task ", " \"served\""]), "{all}");
    assert!(starts("  tasks that it held: 3"), "{all}");
    for index in 0..3 {
        let name = format!("\"held-{index}\" held by the policy, for ");
        assert!(
            has(&[&name, ", spawned at tests/signals/dumps.rs:"]),
            "{all}"
        );
    }
    assert!(starts("  counters: polls "), "{all}");
}

#[test]
fn the_dump_is_short_with_a_hundred_thousand_tasks_and_long_names() {
    let process = Process::start(module_path!(), "many");
    process.quit();
    process.expect_stderr(&ejected("hoarder", 1));
    let dump = process.dumped_until("  counters:");
    let (lines, bytes) = (dump.len(), dump.iter().map(String::len).sum::<usize>());
    assert!(dump.contains(&"  tasks that it held: 100100".to_owned()));
    assert!(
        dump.iter()
            .any(|line| line.ends_with("... and 100036 more"))
    );
    // 32 KiB, with an indentation of two for each line.
    assert!(bytes + lines <= 32 * 1024 + 2 * lines, "{bytes} bytes");
    let longest = dump[..dump.len() - 1].iter().map(String::len).max();
    assert!(longest < Some(300), "{dump:#?}");
    process.finish();
}
