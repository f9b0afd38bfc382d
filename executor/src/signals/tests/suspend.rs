//! SIGTSTP and SIGCONT, sent to processes that are really stopped.

use super::super::serve::Clock;
use super::super::suspend::{Action, Event, State, Suspend, why_not};
use super::*;
use crate::sys::signal::Disposition;
use crate::sys::signal::tests::{has_stopped, wait_until_stopped};

/// A child in this part of the play, with these signals, and its runtime registered.
fn start(group: Group, part: &str, signals: &str) -> Process {
    let (process, before) = Process::start_in(group, part, signals, Stdio::piped());
    assert_eq!(before, ["Registered"]);
    process
}

impl Process {
    /// The next lines, whatever their order.
    fn says(&mut self, lines: &[&str]) {
        let mut said: Vec<String> = lines.iter().map_while(|_| self.next_said()).collect();
        said.sort();
        let mut lines = lines.to_vec();
        lines.sort();
        assert_eq!(said, lines);
    }

    fn says_in_order(&mut self, lines: &[&str]) {
        for line in lines {
            assert_eq!(self.next_said().as_deref(), Some(*line));
        }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn next_printed(&mut self) -> Option<String> {
        let lines = BufReader::new(self.child.stderr.as_mut().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        lines.find(|line| line.starts_with("polity: "))
    }

    fn stops(&self) {
        assert_eq!(wait_until_stopped(self.child.id()), SIGTSTP);
    }
}

#[test]
fn ctrl_z_stops_the_process_and_fg_continues_it() {
    let mut process = start(Group::Own, "one", DEFAULT);
    // More than once: the handler is back after each stop.
    for _ in 0..3 {
        process.signal("TSTP");
        process.says_in_order(&["a enters"]);
        process.stops();
        process.signal("CONT");
        process.says_in_order(&["a goes on", "a leaves"]);
    }
    assert_eq!(process.printed(), [""; 0]);
}

#[test]
fn a_sigcont_without_a_sigtstp_changes_nothing() {
    let mut process = start(Group::Own, "one", DEFAULT);
    process.signal("CONT");
    process.says_in_order(&["a goes on"]);
    process.signal("STOP");
    assert_ne!(wait_until_stopped(process.child.id()), SIGTSTP);
    process.signal("CONT");
    process.says_in_order(&["a goes on"]);
    process.asks_for(Some("a"));
}

#[test]
fn two_sigtstps_enter_the_bypass_once() {
    let mut process = start(Group::Orphaned, "tells", "--ignore-signal=QUIT");
    process.signal("TSTP");
    process.says(&["a enters", "saw SIGTSTP"]);
    process.signal("TSTP");
    process.says(&["saw SIGTSTP"]);
    // The second answer comes after all that was there when the first was given.
    for asked in [r#"asked for Some("a")"#, "asked for None"] {
        process.signal("QUIT");
        process.says(&[asked, "saw SIGQUIT"]);
    }
    process.signal("CONT");
    process.says_in_order(&["a goes on", "a leaves"]);
    process.signal("CONT");
    process.says_in_order(&["a goes on"]);
    process.signal("QUIT");
    process.says(&["asked for None", "saw SIGQUIT"]);
}

/// Checks that a SIGTSTP does nothing but enter the bypass, says why, once, and that a SIGCONT ends it.
fn check_not_stopped(group: Group, signals: &str, why: &str) {
    let mut process = start(group, "one", signals);
    process.signal("TSTP");
    process.says_in_order(&["a enters"]);
    let line = format!("polity: SIGTSTP: not stopped, {why}; policies are bypassed until SIGCONT");
    assert_eq!(process.next_printed(), Some(line));
    process.signal("CONT");
    process.says_in_order(&["a goes on", "a leaves"]);
    assert!(!has_stopped(process.child.id()));
    assert_eq!(process.printed(), [""; 0]);
}

#[test]
fn in_an_orphaned_process_group_the_bypass_lasts_until_sigcont() {
    check_not_stopped(
        Group::Orphaned,
        DEFAULT,
        "no shell could continue this process (its group is orphaned)",
    );
}

#[test]
fn an_ignored_sigtstp_bypasses_and_does_not_stop() {
    check_not_stopped(
        Group::Own,
        "--ignore-signal=TSTP",
        "it was ignored when the runtime was built",
    );
}

#[test]
fn a_sigtstp_handler_of_the_application_is_left_alone() {
    let mut process = check_left_alone(
        "handles SIGTSTP",
        DEFAULT,
        "Registered",
        "SIGTSTP is left alone and does not bypass the policies: this process has a handler for it",
    );
    process.signal("TSTP");
    process.says_in_order(&["saw SIGTSTP"]);
    // SIGQUIT is ours nevertheless, and nobody has entered a bypass.
    process.sigquit();
    process.says_in_order(&[r#"asked for Some("a")"#, r#"asked for Some("b")"#]);
    assert!(!has_stopped(process.child.id()));
}

#[test]
fn a_sigtstp_or_sigcont_that_the_application_blocks_to_wait_for_it_is_left_alone() {
    for (signals, which) in [
        ("--block-signal=TSTP", "it"),
        ("--block-signal=CONT", "SIGCONT"),
    ] {
        let warning = format!(
            "SIGTSTP is left alone and does not bypass the policies: \
             the thread that builds the runtime blocks {which}"
        );
        check_left_alone("blocks", signals, "Registered", &warning);
    }
}

#[test]
fn a_sigquit_handler_of_the_application_does_not_keep_sigtstp_from_us() {
    let group = Group::Own;
    let (mut process, _) = Process::start_in(group, "handles SIGQUIT", DEFAULT, Stdio::null());
    process.signal("TSTP");
    process.says_in_order(&["a enters", "b enters"]);
    process.stops();
}

#[test]
fn a_sigcont_handler_of_the_application_is_called_too() {
    let group = Group::Own;
    let (mut process, _) = Process::start_in(group, "handles SIGCONT", DEFAULT, Stdio::null());
    process.signal("CONT");
    process.says(&["saw SIGCONT", "a goes on", "b goes on"]);
}

#[test]
fn a_sigquit_while_stopped_ejects_after_the_continuation() {
    let mut process = start(Group::Own, "one", DEFAULT);
    process.signal("TSTP");
    process.says_in_order(&["a enters"]);
    process.stops();
    process.sigquit();
    process.signal("CONT");
    // Linux runs the handlers in an order that it does not promise.
    process.says(&[r#"asked for Some("a")"#, "a goes on", "a leaves"]);
}

#[test]
fn a_sigquit_is_answered_before_a_sigtstp_that_came_earlier() {
    let mut process = start(Group::Own, "held in sysrq", DEFAULT);
    process.sigquit();
    process.says(&[r#"asked for Some("a")"#, "saw SIGQUIT"]);
    process.signal("TSTP");
    process.says(&["saw SIGTSTP"]);
    process.sigquit();
    process.says(&["saw SIGQUIT"]);
    process.tell("go");
    process.says_in_order(&["asked for None", "a enters"]);
    process.stops();
}

#[test]
fn a_sigcont_that_comes_before_the_stop_is_raised_cancels_it() {
    let mut process = start(Group::Own, "held in enter_bypass", DEFAULT);
    process.signal("TSTP");
    process.says_in_order(&["a enters"]);
    process.signal("CONT");
    process.tell("go");
    process.says_in_order(&["a goes on", "a leaves"]);
    process.asks_for(Some("a"));
    assert!(!has_stopped(process.child.id()));
}

#[test]
fn a_runtime_that_is_built_in_the_bypass_of_others_does_not_leave_it() {
    let mut process = start(Group::Orphaned, "one", DEFAULT);
    process.signal("TSTP");
    process.says_in_order(&["a enters"]);
    process.tell("build");
    process.says_in_order(&["Registered"]);
    process.signal("CONT");
    process.says_in_order(&["a goes on", "b goes on", "a leaves"]);
    process.sigquit();
    process.says_in_order(&[r#"asked for Some("a")"#, r#"asked for Some("b")"#]);
}

#[test]
fn a_bypass_is_entered_and_left_in_turns_whatever_comes() {
    use Action::*;
    use Event::*;
    use State::*;
    for (state, event, then) in [
        (No, Tstp, (Stopping, EnterAndStop)),
        (No, Cont, (No, Tell)),
        (No, Second, (No, Nothing)),
        (Stopping, Tstp, (Stopping, Stop)),
        (Stopping, Cont, (No, TellAndLeave)),
        (Stopping, Second, (InVain, Explain)),
        (InVain, Tstp, (InVain, Stop)),
        (InVain, Cont, (No, TellAndLeave)),
        (InVain, Second, (InVain, Nothing)),
    ] {
        assert_eq!(state.on(event), then, "{state:?} {event:?}");
    }
    assert_eq!(Suspend::default().clock(), Clock::Off);
}

#[test]
fn the_reason_for_not_stopping_is_the_one_that_the_kernel_had() {
    assert!(why_not(Disposition::Ignored, 1).contains("ignored"));
    assert!(why_not(Disposition::Default, 1).contains("process 1"));
    assert!(why_not(Disposition::Default, 2).contains("orphaned"));
}
