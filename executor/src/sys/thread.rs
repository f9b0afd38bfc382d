//! What the watchdog asks about threads of this process, and does to those that are stuck.
//!
//! By thread id, which a thread tells about itself when it takes its seat. One that has ended since, so that its number is
//! somebody else's, can at worst be asked about wrongly for one tick.

use std::fs;
use std::io::{BufRead, BufReader};
use std::mem::zeroed;

use polity_core::ThreadState;

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

/// All threads of this process but the calling one; none where there is no `/proc`.
pub(crate) fn others() -> Vec<i32> {
    let here = current();
    let entries = fs::read_dir("/proc/self/task").into_iter().flatten();
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id| *id != here).collect()
}

/// What a thread is about.
pub(crate) fn state(thread: i32) -> Option<ThreadState> {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    // The name, in brackets, may contain anything; the state is the first letter after it.
    let state = stat.rsplit_once(')')?.1.trim_start().chars().next()?;
    match state {
        'S' | 'I' => Some(ThreadState::Blocked),
        'D' => Some(uninterruptible(thread)),
        _ => Some(ThreadState::Runnable),
    }
}

/// What a thread waits for that cannot be interrupted: the kernel shows "-1" for one that is in no system call, so that it has
/// touched a page that is not in memory. Where the kernel shows nothing, a system call.
fn uninterruptible(thread: i32) -> ThreadState {
    let call = fs::read_to_string(format!("/proc/self/task/{thread}/syscall"));
    match call
        .as_deref()
        .map(str::split_whitespace)
        .map(|mut words| words.next())
    {
        Ok(Some("-1")) => ThreadState::PageFault,
        // It has gone on since.
        Ok(Some("running")) => ThreadState::Runnable,
        _ => ThreadState::Blocked,
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_that_waits_in_a_system_call_is_blocked_and_one_of_the_others() {
        let (tell, told) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let waits = thread::spawn(move || {
            tell.send(current()).unwrap();
            released.recv().unwrap_err();
        });
        let id = told.recv().unwrap();
        while state(id) != Some(ThreadState::Blocked) {
            thread::yield_now();
        }
        let listed = others();
        assert!(listed.contains(&id), "{id} in {listed:?}");
        assert!(!listed.contains(&current()));
        drop(release);
        waits.join().unwrap();
    }

    #[test]
    fn a_thread_that_wants_its_processor_is_runnable_and_its_clock_goes_on() {
        let (tell, told) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&stop);
        let spins = thread::spawn(move || {
            tell.send(current()).unwrap();
            while !stops.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let id = told.recv().unwrap();
        let before = processor_time(id).unwrap();
        while processor_time(id).unwrap() == before {
            thread::yield_now();
        }
        assert_eq!(state(id), Some(ThreadState::Runnable));
        stop.store(true, Ordering::Relaxed);
        spins.join().unwrap();
    }
}
