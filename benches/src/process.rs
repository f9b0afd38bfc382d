//! What the kernel says of a process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::ClockId;
use nix::unistd::Pid;

/// The processor time that all threads of a process have used so far, to the nanosecond.
pub(crate) fn cpu_time(of: Pid) -> Duration {
    let clock = ClockId::pid_cpu_clock_id(of).expect("the process lives");
    clock.now().expect("a readable clock").into()
}

/// How often threads of a process have gone to sleep by their own will, which is how often they woke up.
pub(crate) fn wake_ups(of: Pid) -> u64 {
    let threads = fs::read_dir(format!("/proc/{of}/task")).expect("the process lives");
    // A thread that ends meanwhile is none of the idle ones.
    let status = threads
        .flatten()
        .flat_map(|thread| fs::read_to_string(thread.path().join("status")));
    status
        .map(|text| field(&text, "voluntary_ctxt_switches:"))
        .sum()
}

/// The memory of this process that is really there, in bytes.
pub(crate) fn resident() -> u64 {
    let status = fs::read_to_string(Path::new("/proc/self/status")).expect("Linux");
    field(&status, "VmRSS:") * 1024
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}

/// Lets this process open as many files as it may, and says how many those are.
pub(crate) fn raise_open_files_limit() -> u64 {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the hard limit everybody may");
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_uses_processor_time_and_memory() {
        let me = Pid::this();
        let (before, start) = (cpu_time(me), resident());
        let much: Vec<u64> = (0..4 << 20).collect();
        assert!(cpu_time(me) > before);
        assert!(resident() > start + (16 << 20), "{} numbers", much.len());
    }

    #[test]
    fn the_switches_of_a_thread_are_read_by_their_name() {
        let status = "Name:\tx\nnonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t7\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), 7);
    }
}
