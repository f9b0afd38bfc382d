//! The way of a SIGTSTP: from whichever thread it hits to one that holds it back, and from there into the kernel's
//! hands again.
//!
//! Not what happens in between, which is `signals/suspend.rs`. [`forward`] is called where a runtime is started,
//! [`let_in_as`] on "polity-signal", without any lock.
//! A signal that is blocked and pending *is* the bit that says that a stop is due, and the kernel's own rules apply to
//! it: a SIGCONT takes it back, whichever thread holds it, in the moment in which it is sent.
//! Invariant: a disposition is changed in `let_in_as` only, and is what it was when that returns. A handler that the
//! application installs meanwhile stays.
//! Rejected: a bit in memory, and to raise the signal later. A SIGCONT that is sent before and handled after would
//! not be seen, or be thrown away by the kernel for the sake of the stop. Raising SIGSTOP: nobody but the kernel
//! knows whether a process group is orphaned.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use libc::{c_int, c_long, pid_t};
use signal_hook::low_level;

use super::Disposition;

/// A thread that signals can be forwarded to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadId(pid_t);

impl ThreadId {
    /// The calling thread.
    pub(crate) fn current() -> ThreadId {
        // SAFETY: `gettid` requires nothing.
        ThreadId(unsafe { libc::gettid() })
    }
}

/// From now on, `signal` is sent on to the thread `to`, by whichever thread takes it. `to` must hold it back. If `to`
/// has ended, or belongs to the process that this one is a fork of, nothing happens.
///
/// # Errors
///
/// Whatever `sigaction` says; nothing has changed then.
pub(crate) fn forward(signal: c_int, to: ThreadId) -> io::Result<()> {
    let send_on = move || {
        // Or it would be sent on for ever, should somebody let it in there.
        if ThreadId::current().0 == to.0 {
            return;
        }
        // SAFETY: `getpid` requires nothing.
        let process = unsafe { libc::getpid() };
        let (process, thread) = (c_long::from(process), c_long::from(to.0));
        // SAFETY: `syscall` requires (1) the arguments of the call it names: `tgkill` takes a process, a thread and a
        // signal, by value, each in a register.
        unsafe { libc::syscall(libc::SYS_tgkill, process, thread, c_long::from(signal)) };
    };
    // SAFETY: `register` requires (1) an action that is async-signal-safe: it makes three system calls, it does not
    // allocate, lock or panic, and signal-hook keeps `errno`.
    unsafe { low_level::register(signal, send_on) }?;
    Ok(())
}

/// Lets the calling thread take the `signal` that it has held back, with the disposition `way`: does what the signal
/// would have done if nobody handled it. Returns when that is over, so after the continuation if the process stopped.
///
/// In between, the signal does that in other threads too. Not for [`Disposition::Handled`], which changes nothing.
///
/// # Errors
///
/// Whatever `sigaction` or `pthread_sigmask` says.
pub(crate) fn let_in_as(way: Disposition, signal: c_int) -> io::Result<()> {
    let handler = match way {
        Disposition::Default => libc::SIG_DFL,
        Disposition::Ignored => libc::SIG_IGN,
        Disposition::Handled => return Ok(()),
    };
    // SAFETY: `zeroed` requires (1) a type for which zeros are valid: integers, an array of integers, and a nullable
    // function.
    let mut bare: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    bare.sa_sigaction = handler;
    // SAFETY: `exchange` requires (1) no handler, or one that was installed: it is none.
    let ours = unsafe { exchange(signal, &bare) }?;
    // It is delivered before this returns: Linux looks for signals on the way out of a system call.
    let let_in = change_mask(libc::SIG_UNBLOCK, signal);
    let held_back = change_mask(libc::SIG_BLOCK, signal);
    // SAFETY: `exchange` requires (1) no handler, or one that was installed: it was until a moment ago.
    let found = unsafe { exchange(signal, &ours) }?;
    if found.sa_sigaction != handler {
        // SAFETY: `exchange` requires (1) no handler, or one that was installed: it was until a moment ago.
        unsafe { exchange(signal, &found) }?;
    }
    let_in.and(held_back)
}

/// Installs `new` for `signal` and returns what was there.
///
/// # Safety
///
/// (1) `new` has no handler, or one that was installed for this signal, by somebody who answers for it.
unsafe fn exchange(signal: c_int, new: &libc::sigaction) -> io::Result<libc::sigaction> {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: `sigaction` requires (1) as the new action null or a valid action, whose handler may be called: that is
    // promised by the caller; (2) as the old action a place for one: `old` is a local of that type.
    let rc = unsafe { libc::sigaction(signal, new, old.as_mut_ptr()) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `assume_init` requires (1) an initialized value: the call above returned 0, so it has filled it in.
    Ok(unsafe { old.assume_init() })
}

/// Blocks or unblocks (`how`) this signal for the calling thread.
fn change_mask(how: c_int, signal: c_int) -> io::Result<()> {
    let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` requires (1) a pointer that is good for writing a set: `mask` is a local of that type.
    let rc = unsafe { libc::sigemptyset(mask.as_mut_ptr()) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `assume_init` requires (1) an initialized value: the call above returned 0, so it has written the set.
    let mut mask = unsafe { mask.assume_init() };
    // SAFETY: `sigaddset` requires (1) a pointer to an initialized set, good for writing: `mask` is a local that
    // nothing else refers to.
    let rc = unsafe { libc::sigaddset(&raw mut mask, signal) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `pthread_sigmask` requires (1) as the new set null or a valid set: `mask` is one and outlives the
    // call; (2) as the old set null or a place for one: null, we do not ask.
    let rc = unsafe { libc::pthread_sigmask(how, &raw const mask, ptr::null_mut()) };
    if rc != 0 {
        return Err(io::Error::from_raw_os_error(rc));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::super::{block_all_but, disposition, is_pending_here};
    use super::*;

    // SIGURG, which does nothing by default, stands for SIGTSTP, which would stop the tests.

    #[test]
    fn a_signal_is_forwarded_held_back_and_taken_once_and_its_handler_is_still_there() {
        let (tell, told) = channel();
        let (go_on, wait) = channel();
        let holder = thread::spawn(move || {
            block_all_but(libc::SIGQUIT).unwrap();
            tell.send(ThreadId::current()).unwrap();
            wait.recv().unwrap();
            let before = is_pending_here(libc::SIGURG).unwrap();
            let_in_as(Disposition::Default, libc::SIGURG).unwrap();
            (before, is_pending_here(libc::SIGURG).unwrap())
        });
        forward(libc::SIGURG, told.recv().unwrap()).unwrap();
        low_level::raise(libc::SIGURG).unwrap();
        go_on.send(()).unwrap();
        assert_eq!(holder.join().unwrap(), (true, false));
        assert_eq!(disposition(libc::SIGURG).unwrap(), Disposition::Handled);
        // The holder is gone now.
        low_level::raise(libc::SIGURG).unwrap();
    }

    #[test]
    fn a_signal_that_does_not_exist_cannot_be_let_in() {
        assert!(let_in_as(Disposition::Default, 4000).is_err());
    }
}
