//! Dispositions and masks of signals: what signal-hook does not tell. [`suspend`] is what it does not do.
//!
//! Not a place for handlers: those are signal-hook's, and what a signal means is decided in `signals.rs`.
//! Called by `signals.rs`, on the thread that starts a runtime (what is, what is blocked) and on "polity-signal"
//! (what is pending, the mask), with the registration lock held and without any lock respectively.
//! Invariant: nothing in this file changes a disposition, and a mask is changed for the calling thread only.
//! Rejected: `SigCgt`, `SigIgn` and `SigBlk` of `/proc/self/status`. They need no unsafe, but a mounted `/proc`,
//! and show the mask of the main thread instead of ours.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::c_int;

pub(crate) mod suspend;

/// What the process does when a signal arrives, as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// The default action: nobody has asked for anything else.
    Default,
    /// Ignored. Mostly not the program's doing: a shell without job control starts `command &` like this.
    Ignored,
    /// A function of this process is called.
    Handled,
}

/// What the process does now when `signal` arrives.
///
/// # Errors
///
/// `EINVAL` if there is no such signal.
pub(crate) fn disposition(signal: c_int) -> io::Result<Disposition> {
    let mut current = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `sigaction` requires (1) as the new action null or a valid action: null, so nothing is changed;
    // (2) as the old action a pointer that is good for writing one: `current` is a local of that type and
    // outlives the call. A signal number that does not exist is an error, not undefined.
    let rc = unsafe { libc::sigaction(signal, ptr::null(), current.as_mut_ptr()) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `assume_init` requires (1) an initialized value: the call above returned 0, so it has filled in the
    // old action, whose fields are integers, a pointer and a nullable function, without invalid bit patterns.
    let current = unsafe { current.assume_init() };
    Ok(match current.sa_sigaction {
        libc::SIG_DFL => Disposition::Default,
        libc::SIG_IGN => Disposition::Ignored,
        _ => Disposition::Handled,
    })
}

/// Whether the calling thread, and every thread that it will start, holds `signal` back.
///
/// # Errors
///
/// Whatever `pthread_sigmask` says; `EINVAL` if there is no such signal.
pub(crate) fn is_blocked_here(signal: c_int) -> io::Result<bool> {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `pthread_sigmask` requires (1) as the new set null or a valid set: null, so nothing is changed;
    // (2) as the old set a pointer that is good for writing one: `mask` is a local of that type and outlives it.
    let rc = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr()) };
    if rc != 0 {
        return Err(io::Error::from_raw_os_error(rc));
    }
    // SAFETY: `assume_init` requires (1) an initialized value: the call above returned 0, so it has written the
    // set, which is an array of integers.
    let mask = unsafe { mask.assume_init() };
    contains(&mask, signal)
}

/// Whether `signal` has come and waits for the calling thread, which blocks it: a signal to this thread alone, or one
/// to the process that no other thread has taken yet.
///
/// # Errors
///
/// `EINVAL` if there is no such signal.
pub(crate) fn is_pending_here(signal: c_int) -> io::Result<bool> {
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigpending` requires (1) a pointer that is good for writing a set: `pending` is a local of that type.
    let rc = unsafe { libc::sigpending(pending.as_mut_ptr()) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `assume_init` requires (1) an initialized value: the call above returned 0, so it has written the
    // set, which is an array of integers.
    let pending = unsafe { pending.assume_init() };
    contains(&pending, signal)
}

fn contains(set: &libc::sigset_t, signal: c_int) -> io::Result<bool> {
    // SAFETY: `sigismember` requires (1) a pointer to an initialized set: a reference is one, and is only read.
    match unsafe { libc::sigismember(set, signal) } {
        -1 => Err(io::Error::last_os_error()),
        member => Ok(member == 1),
    }
}

/// Signals that the kernel raises because of what the thread itself did. Blocking one of them would turn a fault
/// into a silent kill, without the message of a stack overflow or of a crash reporter.
const FAULTS: [c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
];

/// Makes the calling thread one that `signal` can always be delivered to, and no other except its own faults.
///
/// # Errors
///
/// Whatever `sigdelset` or `pthread_sigmask` says; the mask is then what it was.
pub(crate) fn block_all_but(signal: c_int) -> io::Result<()> {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` requires (1) a pointer that is good for writing a set: `mask` is a local of that type.
    let rc = unsafe { libc::sigfillset(mask.as_mut_ptr()) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `assume_init` requires (1) an initialized value: the call above returned 0, so it has written the
    // set, which is an array of integers.
    let mut mask = unsafe { mask.assume_init() };
    for open in FAULTS.into_iter().chain([signal]) {
        // SAFETY: `sigdelset` requires (1) a pointer to an initialized set, good for writing: `mask` is a local
        // that nothing else refers to.
        let rc = unsafe { libc::sigdelset(&raw mut mask, open) };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: `pthread_sigmask` requires (1) as the new set null or a valid set: `mask` is one and outlives the
    // call; (2) as the old set null or a place for one: null, we do not ask.
    let rc = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut()) };
    if rc != 0 {
        return Err(io::Error::from_raw_os_error(rc));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Waits until this child stops, and says by which signal. It must not end.
    pub(crate) fn wait_until_stopped(child: u32) -> c_int {
        let status = wait(child, libc::WUNTRACED).unwrap();
        assert!(libc::WIFSTOPPED(status), "it ended: {status:#x}");
        libc::WSTOPSIG(status)
    }

    /// Whether this child has stopped and nobody was told yet.
    pub(crate) fn has_stopped(child: u32) -> bool {
        wait(child, libc::WUNTRACED | libc::WNOHANG).is_some()
    }

    /// The status of the child if it has changed.
    fn wait(child: u32, options: c_int) -> Option<c_int> {
        let child = child.try_into().unwrap();
        let mut status = 0;
        // SAFETY: `waitpid` requires (1) null or a pointer that is good for writing an integer: `status` is a local.
        let pid = unsafe { libc::waitpid(child, &raw mut status, options) };
        assert_ne!(pid, -1, "{}", io::Error::last_os_error());
        (pid == child).then_some(status)
    }

    #[test]
    fn a_signal_that_nobody_asked_for_has_the_default_disposition() {
        assert_eq!(disposition(libc::SIGVTALRM).unwrap(), Disposition::Default);
    }

    #[test]
    fn the_broken_pipes_that_std_ignores_are_seen_as_ignored() {
        assert_eq!(disposition(libc::SIGPIPE).unwrap(), Disposition::Ignored);
    }

    #[test]
    fn a_handler_of_somebody_else_is_seen() {
        let flag = std::sync::Arc::default();
        signal_hook::flag::register(libc::SIGUSR2, flag).unwrap();
        assert_eq!(disposition(libc::SIGUSR2).unwrap(), Disposition::Handled);
    }

    #[test]
    fn a_signal_that_does_not_exist_is_an_error() {
        assert!(disposition(4000).is_err());
        assert!(is_blocked_here(4000).is_err());
        assert!(is_pending_here(4000).is_err());
        assert!(block_all_but(4000).is_err());
    }

    #[test]
    fn the_signal_thread_lets_in_its_signal_and_its_own_faults_and_nothing_else() {
        std::thread::spawn(|| {
            block_all_but(libc::SIGQUIT).unwrap();
            let blocked = |signal| is_blocked_here(signal).unwrap();
            assert!(!blocked(libc::SIGQUIT));
            assert!(FAULTS.into_iter().all(|fault| !blocked(fault)));
            assert!(
                [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1, libc::SIGPROF].map(blocked)
                    == [true; 4]
            );
        })
        .join()
        .unwrap();
        assert!(!is_blocked_here(libc::SIGTERM).unwrap());
    }
}
