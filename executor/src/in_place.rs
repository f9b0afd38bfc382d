//! A task that blocks its thread, and says so.

use crate::handle::Handle;
use crate::threads;

/// Runs `body`, which may block, on this thread, in the middle of the task's poll. From now on a spare thread does the
/// rest of this worker's work, under the same policy, until `body` has returned.
///
/// **When not to use it.** What can be moved to another thread belongs into [`spawn_blocking`](crate::spawn_blocking):
/// this is for what cannot, because it borrows from the task. The task itself waits: what runs in the same task beside
/// this call, in a `join!` or a `select!`, does not go on, nor do other tasks that are bound to this *thread*
/// ([`spawn_local`](crate::spawn_local())). Each call costs a wake of another thread and a system call, about 50 µs: it is
/// not for what takes less.
///
/// - The time that `body` takes is not the poll's: it is not reported as too long, and no policy charges the task for it.
/// - Spares are [`Builder::spares`](crate::Builder::spares) threads. If none is free, what waits behind this call waits as
///   behind any long poll: other workers take what they may run, and when all threads are stuck, the watchdog does
///   the work itself after some 10 ms.
/// - [`Handle::block_on`] may be called inside.
/// - Inside another `block_in_place`, and anywhere else than in a task (in `block_on`, in `spawn_blocking`, on any other
///   thread), it just calls `body`.
///
/// # Panics
/// If `body` does.
///
/// ```
/// let runtime = polity::Builder::new().worker_threads(1).build()?;
/// let answer = runtime.block_on(async {
///     polity::spawn(async {
///         let (tx, rx) = std::sync::mpsc::channel();
///         // On the only worker, whose thread is about to wait for it.
///         polity::spawn(async move { tx.send(42) });
///         polity::block_in_place(|| rx.recv())
///     })
///     .await
/// });
/// assert_eq!(answer.unwrap(), Ok(42));
/// # Ok::<(), polity::BuildError>(())
/// ```
pub fn block_in_place<F, R>(body: F) -> R
where
    F: FnOnce() -> R,
{
    let _blocking = Blocking::begin();
    body()
}

/// While it lives, this thread counts as blocked.
struct Blocking {
    runtime: Handle,
}

impl Blocking {
    fn begin() -> Option<Blocking> {
        let runtime = threads::seated_in()?;
        let seat = runtime.core().begin_in_place()?;
        let blocking = Blocking { runtime };
        // Without a watchdog nobody would send the stand-in home.
        if polity_core::WATCHED {
            blocking.runtime.watch().stand_in_for(seat);
        }
        Some(blocking)
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        self.runtime.core().end_in_place();
    }
}
