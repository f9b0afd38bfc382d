//! `Handle::dump`, and what an exit info tells of the end: dump and backtrace.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use polity::{
    Attributes, DsqId, ExitInfo, ExitKind, Generation, Handle, Host, InitError, Policy, Position,
    Runtime, TaskView, yield_now,
};
use polity_policies::{Callback, Fault, Faulty, Fifo};
use polity_tests::{DEADLINE, builder, check, receive, runtime, wait_for, wait_until, within};

use crate::support::{Blocker, Hoarder};

const CUSTOM: u32 = 7;

/// Puts each task where its name says.
struct Sorter;

impl Policy for Sorter {
    type Task = ();

    fn name(&self) -> &str {
        "sorter"
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        host.create_dsq(CUSTOM)?;
        Ok(())
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        let (dsq, at) = match task.name() {
            Some("held") => return,
            Some("custom") => (DsqId::Custom(CUSTOM), Position::Tail),
            Some("global") => (DsqId::Global, Position::Tail),
            Some("next") => (DsqId::Local, Position::Head),
            _ => (DsqId::Local, Position::Tail),
        };
        host.insert(task.id(), dsq, at);
    }
}

fn spawn_named(handle: &Handle, name: &'static str) {
    drop(handle.spawn_with(Attributes::new().name(name), yield_now()));
}

fn dump(handle: &Handle) -> String {
    handle.dump().to_string()
}

/// Whether one line has all of this.
fn has_line(text: &str, parts: &[&str]) -> bool {
    let mut lines = text.lines();
    lines.any(|line| parts.iter().all(|part| line.contains(part)))
}

#[test]
fn a_dump_without_a_policy_says_so() {
    check(2, |runtime| {
        let text = dump(&runtime);
        assert!(
            text.starts_with("policy: none, the built-in FIFO runs\n"),
            "{text}"
        );
        assert!(has_line(&text, &["bypass depth: 0"]), "{text}");
    });
}

#[test]
fn a_dump_names_policy_generation_phase_and_the_depth_of_the_bypass() {
    check(1, |runtime| {
        runtime.load(Fifo::new()).unwrap();
        runtime.load(Hoarder).unwrap();
        let _guards = [runtime.bypass(), runtime.bypass()];
        let text = dump(&runtime);
        let first = "policy: \"hoarder\" (generation 2), enabled, loaded for ";
        assert!(text.starts_with(first), "{text}");
        assert!(has_line(&text, &["bypass depth: 2"]), "{text}");
    });
}

#[test]
fn a_dump_says_of_each_worker_whether_it_polls_or_is_parked_and_for_how_long() {
    check(3, |runtime| {
        let blocker = Blocker::with(|body| {
            let named = Attributes::new().name("a long poll");
            runtime.spawn_with(named, body).unwrap()
        });
        let is = |parts: &[&str]| has_line(&dump(&runtime), parts);
        // The watchdog sees it at its next tick.
        wait_until("the poll is shown", || {
            is(&["worker ", ": polls task ", " \"a long poll\", for ", " ms"])
        });
        wait_until("one is parked in the driver", || {
            is(&["worker ", ": parked in the driver"])
        });
        wait_until("and one is parked elsewhere", || {
            dump(&runtime)
                .lines()
                .any(|line| line.ends_with(": parked"))
        });
        blocker.end();
    });
}

#[test]
fn a_dump_says_in_which_callback_a_worker_is_and_that_it_has_been_replaced() {
    check(1, |runtime| {
        let (callback, call) = (Callback::Enqueue, 1);
        let policy = Faulty::new(Fault::Block { callback, call });
        let release = policy.release_handle();
        runtime.load(policy).unwrap();
        spawn_named(&runtime, "poor thing");
        wait_until("the callback is entered", || release.stuck() == 1);
        let text = dump(&runtime);
        let about = [
            "worker 0: in enqueue of generation 1",
            "about task ",
            "\"poor thing\"",
        ];
        assert!(has_line(&text, &about), "{text}");
        wait_until("the thread is replaced", || {
            has_line(
                &dump(&runtime),
                &["worker 0: in enqueue of generation 1, replaced"],
            )
        });
        wait_until("a spare sits down", || {
            has_line(&dump(&runtime), &["worker 0 (a spare, in seat "])
        });
        release.release();
    });
}

/// What the only worker sees of tasks in every state, from inside a poll. The watchdog may send a stand-in who serves them
/// if that poll is held up.
fn dump_of_states() -> String {
    let runtime = runtime(1);
    runtime.load(Sorter).unwrap();
    let (dumped, dumps) = channel();
    let handle = runtime.handle().clone();
    let first = runtime.spawn(async move {
        let inner = handle.clone();
        let next = async move {
            spawn_named(&inner, "ingress");
            dumped.send(dump(&inner)).unwrap();
        };
        for name in ["held", "custom", "global", "local"] {
            spawn_named(&handle, name);
        }
        drop(handle.spawn_with(Attributes::new().name("next"), next));
    });
    wait_for("the first task", first).unwrap();
    receive("the dump", &dumps)
}

#[test]
fn a_dump_lists_runnable_tasks_with_name_state_age_and_spawn_site() {
    within(|| {
        let mut text = String::new();
        wait_until("nobody stood in", || {
            text = dump_of_states();
            text.contains("runnable tasks: 5\n")
        });
        for (name, state) in [
            ("held", "held by the policy"),
            ("custom", "in DSQ custom 7"),
            ("local", "in the local DSQ of worker 0"),
            ("global", "in the global DSQ"),
            ("ingress", "in ingress"),
        ] {
            let line = format!("\"{name}\" {state}, for ");
            assert!(
                has_line(&text, &[&line, " ms, spawned at tests/it/dump.rs:"]),
                "{line}\n{text}"
            );
        }
        assert!(
            has_line(&text, &["worker 0: polls task ", "\"next\""]),
            "{text}"
        );
        assert!(
            has_line(
                &text,
                &["queues: injector 0, global DSQ 1; worker 0: ingress 1, inbox 0, local DSQ 1"]
            ),
            "{text}"
        );
    });
}

#[test]
fn a_dump_ends_with_the_counters() {
    check(1, |runtime| {
        for _ in 0..10 {
            wait_for("a task", runtime.spawn(yield_now())).unwrap();
        }
        wait_until("they are published", || runtime.metrics().completed == 10);
        let text = dump(&runtime);
        let last = text.lines().last().unwrap();
        assert!(
            last.starts_with("counters: polls 20 completed 10 "),
            "{last}"
        );
        for name in ["hogs", "stand_ins", "convictions", "spares_exhausted"] {
            assert!(last.contains(&format!(" {name} 0")), "{last}");
        }
    });
}

fn with_limit(limit: usize) -> (Runtime, String) {
    let runtime = builder(1).dump_limit(limit).build().unwrap();
    runtime.load(Hoarder).unwrap();
    for _ in 0..100 {
        spawn_named(&runtime, "üäöß→€𝄞");
    }
    wait_until("they are held", || runtime.metrics().offered == 100);
    let text = dump(&runtime);
    (runtime, text)
}

#[test]
fn a_dump_is_no_longer_than_its_limit_and_says_that_it_was_cut() {
    within(|| {
        let (_, whole) = with_limit(1 << 20);
        assert!(!whole.contains("... cut"), "{whole}");
        assert!(has_line(&whole, &["üäöß→€𝄞"]), "{whole}");
        // In many places, so that some are inside of a character.
        let start = whole.find('ü').unwrap();
        let limits = [0, 1, 2, 100, 1000];
        for limit in limits.into_iter().chain(start + 40..start + 75) {
            let (_, text) = with_limit(limit);
            assert!(text.len() <= limit, "{limit}: {}", text.len());
            if limit >= 100 {
                assert!(text.len() > limit - 4, "{limit}: {}", text.len());
                assert!(
                    has_line(&text, &["... cut: this dump has ", " bytes"]),
                    "{limit}: {text}"
                );
            }
        }
        let (_, text) = with_limit(32 * 1024);
        assert!(text.len() <= 32 * 1024);
    });
}

#[test]
fn a_dump_of_an_exit_info_has_the_same_limit() {
    within(|| {
        let (runtime, _) = with_limit(300);
        let info = runtime.eject("for the dump").unwrap();
        let info = runtime.wait_exit(info.generation, DEADLINE).unwrap();
        let text = info.dump.as_deref().unwrap();
        assert!(text.len() <= 300, "{text}");
        assert!(has_line(text, &["... cut: this dump has "]), "{text}");
    });
}

#[test]
fn a_dump_changes_nothing() {
    check(1, |runtime| {
        let generation = runtime.load(Hoarder).unwrap();
        spawn_named(&runtime, "held");
        wait_until("it is held", || runtime.metrics().offered == 1);
        wait_until("the worker is parked", || {
            dump(&runtime).contains(": parked")
        });
        let before = runtime.metrics();
        for _ in 0..100 {
            let text = dump(&runtime);
            assert!(has_line(&text, &["\"held\" held by the policy"]), "{text}");
        }
        let after = runtime.metrics();
        assert_eq!((before.polls, before.offered), (after.polls, after.offered));
        assert_eq!(runtime.policy_status().unwrap().generation, generation);
        assert!(runtime.exit_info(generation).is_none());
        assert_eq!(runtime.bypass_depth(), 0);
    });
}

/// What a report shows beside what ended the policy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    Nothing,
    Dump,
    DumpAndBacktrace,
}

/// Makes a policy's end with `end`, and checks what its report has.
#[track_caller]
fn check_end(
    policy: impl Policy,
    end: impl FnOnce(&Runtime) + Send + 'static,
    kind: ExitKind,
    shows: Shows,
) -> Arc<ExitInfo> {
    within(move || {
        let runtime = builder(1)
            .watchdog(Duration::from_millis(50))
            .build()
            .unwrap();
        let generation = runtime.load(policy).unwrap();
        end(&runtime);
        let info = runtime.wait_exit(generation, DEADLINE).unwrap();
        assert_eq!(info.kind, kind);
        assert_eq!(info.dump.is_some(), shows != Shows::Nothing, "{kind}");
        let has_backtrace = shows == Shows::DumpAndBacktrace;
        assert_eq!(info.backtrace.is_some(), has_backtrace, "{kind}");
        if let Some(dump) = &info.dump {
            let first = format!("policy: {:?} (generation 1), ", info.policy);
            assert!(dump.starts_with(&first), "{dump}");
            assert!(has_line(dump, &["worker 0: "]), "{dump}");
        }
        info
    })
}

fn run_some(runtime: &Runtime) {
    for _ in 0..3 {
        spawn_named(runtime, "a task");
    }
}

#[test]
fn the_report_on_an_end_that_the_application_wanted_has_neither_dump_nor_backtrace() {
    let unload = |runtime: &Runtime| drop(runtime.unload());
    check_end(Fifo::new(), unload, ExitKind::Unload, Shows::Nothing);
    let swap = |runtime: &Runtime| drop(runtime.load(Hoarder));
    check_end(Fifo::new(), swap, ExitKind::Swap, Shows::Nothing);
    within(|| {
        let runtime = runtime(1);
        let generation = runtime.load(Fifo::new()).unwrap();
        let handle = runtime.handle().clone();
        drop(runtime);
        let info = handle.wait_exit(generation, DEADLINE).unwrap();
        assert_eq!(info.kind, ExitKind::Shutdown);
        assert!(info.dump.is_none() && info.backtrace.is_none());
    });
}

#[test]
fn the_report_on_an_ejection_has_a_dump() {
    let eject = |runtime: &Runtime| drop(runtime.eject("because"));
    check_end(Fifo::new(), eject, ExitKind::Ejected, Shows::Dump);
}

#[test]
fn the_report_on_a_stall_has_a_dump_with_the_task() {
    let info = check_end(Hoarder, run_some, ExitKind::Stall, Shows::Dump);
    let dump = info.dump.as_deref().unwrap();
    assert!(has_line(dump, &["tasks that it held: 3"]), "{dump}");
    let task = info.task.unwrap().to_string();
    assert!(
        has_line(dump, &[&task, "\"a task\" held by the policy, for "]),
        "{dump}"
    );
}

#[test]
fn the_report_on_a_dispatch_loop_has_a_dump() {
    let policy = Faulty::new(Fault::DispatchEndlesslyAfter(0));
    check_end(policy, run_some, ExitKind::DispatchLoop, Shows::Dump);
}

#[test]
fn the_report_on_a_stuck_callback_has_a_dump_with_the_callback() {
    let (callback, call) = (Callback::Enqueue, 1);
    let policy = Faulty::new(Fault::Block { callback, call });
    let release = policy.release_handle();
    let end = move |runtime: &Runtime| {
        run_some(runtime);
        wait_until("the policy is gone", || runtime.policy_status().is_none());
        wait_until("the thread is replaced", || {
            runtime.abandoned_threads() == 1
        });
        // With the dump, which shows the thread as long as it is stuck.
        wait_until("the report is there", || {
            runtime.exit_info(Generation::new(1)).is_some()
        });
        release.release();
    };
    let info = check_end(policy, end, ExitKind::StuckCallback, Shows::Dump);
    let dump = info.dump.as_deref().unwrap();
    assert!(
        has_line(dump, &["worker 0: in enqueue of generation 1"]),
        "{dump}"
    );
}

/// Goes wrong in `enqueue`, in its own function.
enum Wrong {
    Value,
    Report,
    Exit,
    Panic,
}

impl Wrong {
    #[inline(never)]
    fn go_wrong(&self, host: &Host<'_>, task: &TaskView<'_>) {
        match self {
            Wrong::Value => {
                host.insert(task.id(), DsqId::Custom(99), Position::Tail);
            }
            Wrong::Report => host.error("out of order"),
            Wrong::Exit => host.exit(5, "enough"),
            Wrong::Panic => panic!("out of order"),
        }
    }
}

impl Policy for Wrong {
    type Task = ();

    fn name(&self) -> &str {
        "wrong"
    }
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.go_wrong(host, task);
    }
}

#[track_caller]
fn check_backtrace(policy: Wrong, kind: ExitKind) {
    let info = check_end(policy, run_some, kind, Shows::DumpAndBacktrace);
    let trace = info.backtrace.as_deref().unwrap().to_string();
    // Inlining may hide it elsewhere.
    if cfg!(debug_assertions) {
        assert!(trace.contains("dump::Wrong::go_wrong"), "{trace}");
        assert!(trace.contains("it/dump.rs:"), "{trace}");
    }
}

#[test]
fn the_report_on_a_wrong_value_has_a_dump_and_names_the_function_of_the_policy() {
    check_backtrace(Wrong::Value, ExitKind::Error);
}

#[test]
fn the_report_on_an_error_of_the_policys_own_has_a_dump_and_names_the_function_of_the_policy() {
    check_backtrace(Wrong::Report, ExitKind::PolicyError);
}

#[test]
fn the_report_on_a_panic_has_a_dump_and_names_the_function_of_the_policy() {
    check_backtrace(Wrong::Panic, ExitKind::Panic);
}

#[test]
fn the_report_on_an_exit_that_the_policy_wanted_has_a_dump() {
    let info = check_end(Wrong::Exit, run_some, ExitKind::PolicyExit, Shows::Dump);
    assert_eq!(info.code, 5);
}
