//! What the watchdog asks about threads of this process, and does to those that are stuck.
//!
//! By thread id, which a thread tells about itself when it takes its seat. One that has ended since, so that its number is
//! somebody else's, can at worst be asked about wrongly for one tick.

use std::fs;
use std::io::{BufRead, BufReader};
use std::mem::zeroed;

/// The calling thread's id.
pub(crate) fn current() -> i32 {
    // SAFETY: `gettid` takes nothing and always succeeds.
    unsafe { libc::gettid() }
}

/// How long a thread has run on a processor, in nanoseconds.
pub(crate) fn processor_time(thread: i32) -> Option<u64> {
    // The kernel's encoding of a thread's scheduler clock (`include/linux/posix-timers.h`): the inverted thread id above three
    // bits that say "of a thread" (4) and "the scheduler's" (2). pthread_getcpuclockid makes the same number.
    const PER_THREAD_SCHED: libc::clockid_t = 4 | 2;
    let clock = (!thread) << 3 | PER_THREAD_SCHED;
    // SAFETY: all-zero is a valid `timespec`, two integers.
    let mut time: libc::timespec = unsafe { zeroed() };
    // SAFETY: `clock_gettime` requires a `timespec` that may be written: `time` outlives the call. A clock that does not
    // exist is refused.
    let rc = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (rc == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// How much time a hypervisor has taken from all processors since the boot, in nanoseconds, as far as it says so. In steps of
/// 10 ms.
pub(crate) fn stolen_time() -> Option<u64> {
    const TICK_NS: u64 = 10_000_000;
    // The first line is enough, and the rest of the file is long.
    let mut text = String::new();
    let file = fs::File::open("/proc/stat").ok()?;
    BufReader::with_capacity(256, file)
        .read_line(&mut text)
        .ok()?;
    // "cpu", user, nice, system, idle, iowait, irq, softirq, steal, ...
    let ticks: u64 = text.split_ascii_whitespace().nth(8)?.parse().ok()?;
    Some(ticks * TICK_NS)
}

/// Whether a thread sleeps in a system call: neither on a processor nor waiting for one.
pub(crate) fn is_blocked(thread: i32) -> Option<bool> {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    // The name, in brackets, may contain anything; the state is the first letter after it.
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    Some(matches!(state, 'S' | 'D' | 'I'))
}

/// A thread that does nothing useful should not take processor time from those that do.
pub(crate) fn set_nice(thread: i32, nice: i32) -> bool {
    // SAFETY: `setpriority` takes three numbers; a thread that does not exist is refused.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, thread as libc::id_t, nice) == 0 }
}

/// How nice a thread is; 0 if that cannot be found out.
pub(crate) fn nice(thread: i32) -> i32 {
    // SAFETY: `getpriority` takes two numbers; a thread that does not exist is refused.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, thread as libc::id_t) }.clamp(-20, 19)
}
