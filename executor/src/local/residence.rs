//! The futures that live on this thread. Nothing in here is ever seen by another one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use polity_core::{Core, Machine, SeatId};
use polity_policy::WorkerId;

use super::post::{Ended, Home, Key, Letter, Link, Polled, Time};
use super::proxy::Proxy;
use crate::context;
use crate::handle::Handle;
use crate::machine::RealMachine;
use crate::report::{self, Report};
use crate::sys::tls;

/// With its output's way out inside.
pub(super) type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static HERE: RefCell<Option<Rc<Residence>>> = const { RefCell::new(None) };
}

/// The futures of one thread. See [`local`](super).
pub(super) struct Residence {
    home: Arc<Home>,
    /// Where this thread sits, or sat last.
    worker: Cell<WorkerId>,
    // Never borrowed over foreign code: whatever is polled or dropped is taken out first.
    bound: RefCell<HashMap<Key, Bound>>,
    last_key: Cell<u64>,
}

struct Bound {
    /// Taken out while it is polled.
    future: Option<LocalFuture>,
    link: Arc<Link>,
}

/// The residence of this thread, if it has one.
pub(super) fn here() -> Option<Rc<Residence>> {
    // A thread that is ending has none any more.
    HERE.try_with(|here| here.borrow().clone()).ok().flatten()
}

/// The residence to which `home` belongs, if it is this thread's.
pub(super) fn of(home: &Arc<Home>) -> Option<Rc<Residence>> {
    here().filter(|here| Arc::ptr_eq(&here.home, home))
}

impl Residence {
    pub(super) fn core(&self) -> &'static Core<RealMachine> {
        self.home.core()
    }

    pub(super) fn worker(&self) -> WorkerId {
        self.worker.get()
    }

    /// Binds a future to this thread.
    pub(super) fn bind(&self, future: LocalFuture, link: Link) -> Proxy {
        let key = Key(self.last_key.get() + 1);
        self.last_key.set(key.0);
        let link = Arc::new(link);
        let bound = Bound {
            future: Some(future),
            link: Arc::clone(&link),
        };
        self.bound.borrow_mut().insert(key, bound);
        self.count();
        Proxy::new(Arc::clone(&self.home), key, link)
    }

    /// For reports by others.
    fn count(&self) {
        let count = self.bound.borrow().len();
        self.home
            .core()
            .machine()
            .set_bound_tasks(self.home.seat(), count);
    }

    /// Polls a future. `None`: it has been polled to its end before.
    pub(super) fn poll(&self, key: Key, context: &mut Context<'_>) -> Option<Poll<Ended>> {
        let (mut future, scope) = {
            let mut all = self.bound.borrow_mut();
            let bound = all.get_mut(&key)?;
            (bound.future.take()?, bound.link.scope)
        };
        let _open = context::set_scope(Some(scope));
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        let ended = match polled {
            Ok(Poll::Pending) => {
                if let Some(bound) = self.bound.borrow_mut().get_mut(&key) {
                    bound.future = Some(future);
                }
                return Some(Poll::Pending);
            }
            Ok(Poll::Ready(())) => Ok(()),
            Err(payload) => Err(payload),
        };
        self.bound.borrow_mut().remove(&key);
        self.count();
        // A panic in its drop is a panic of the task, as in tokio; the first one is the report.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
        Some(Poll::Ready(match (ended, dropped) {
            (Err(payload), Err(second)) => {
                // Not dropped: its drop may panic too.
                std::mem::forget(second);
                Err(payload)
            }
            (ended, dropped) => ended.and(dropped),
        }))
    }

    /// Drops a future. Its task has ended, so nobody can be told of a panic.
    pub(super) fn discard(&self, key: Key) {
        let bound = self.bound.borrow_mut().remove(&key);
        self.count();
        contained(bound);
    }

    fn open_letters(&self) {
        for letter in self.home.take_letters() {
            match letter {
                Letter::Polled(polled) => self.answer(polled),
                Letter::Dropped(key) => self.discard(key),
            }
        }
    }

    fn answer(&self, letter: Polled) {
        let Polled {
            key,
            link,
            waker,
            time,
        } = letter;
        let sits_there = tls::with_local(|local| local.is_some_and(|it| it.id() == link.worker));
        if time == Time::First && sits_there {
            return waker.wake();
        }
        let (core, seat) = (self.home.core(), self.home.seat());
        core.machine().before_poll(seat);
        match self.poll(key, &mut Context::from_waker(&waker)) {
            Some(Poll::Pending) => {}
            Some(Poll::Ready(ended)) => {
                link.set_ended(ended);
                waker.wake();
            }
            // Its end was not known yet when the letter was written.
            None => waker.wake(),
        }
    }

    /// Drops all futures, and what they bind meanwhile.
    fn clear(&self) -> usize {
        let mut cleared = 0;
        loop {
            let all = self.bound.take();
            if all.is_empty() {
                break;
            }
            cleared += all.len();
            for (_, bound) in all {
                let link = Arc::clone(&bound.link);
                contained(Some(bound));
                link.abort();
            }
        }
        self.count();
        cleared
    }
}

fn contained(bound: Option<Bound>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(bound))) {
        // Not dropped: its drop may panic too. The panic hook has printed what it said.
        std::mem::forget(payload);
    }
}

/// While it lives, futures may be bound to this thread.
pub(crate) struct Resident {
    residence: Rc<Residence>,
    handle: Handle,
}

impl Resident {
    /// Makes this thread, which sits in `seat` or waits to, a home of local tasks. It must not be one already.
    pub(crate) fn new(handle: &Handle, seat: SeatId) -> Resident {
        let home = Home::new(handle.core(), Arc::clone(handle.spares()), seat);
        let residence = Rc::new(Residence {
            home,
            worker: Cell::default(),
            bound: RefCell::default(),
            last_key: Cell::new(0),
        });
        let before = HERE.replace(Some(Rc::clone(&residence)));
        debug_assert!(before.is_none(), "one thread is one home");
        Resident {
            residence,
            handle: handle.clone(),
        }
    }

    /// The thread has sat down to do the work of this worker.
    pub(crate) fn works_for(&self, worker: WorkerId) {
        self.residence.worker.set(worker);
    }

    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.residence.home.has_mail()
    }

    /// Does what letters ask for. Between two polls, with the thread's contexts entered.
    #[cold]
    pub(crate) fn open_letters(&self) {
        self.residence.open_letters();
    }

    /// The same on a thread that waits as a spare.
    pub(crate) fn open_letters_as_spare(&self) {
        let _context = context::enter(&self.handle);
        self.residence.open_letters();
    }

    /// The runtime ends, and with it what is bound to this thread. With the thread's contexts entered.
    pub(crate) fn close(&self) {
        self.residence.home.close();
        self.residence.clear();
    }
}

impl Drop for Resident {
    fn drop(&mut self) {
        let context = context::enter(&self.handle);
        self.residence.home.close();
        let cleared = self.residence.clear();
        drop(context);
        HERE.set(None);
        if cleared > 0 && !self.handle.core().is_closing() {
            report::send(Report::Warn(format!(
                "{cleared} local tasks of worker {} were cancelled: the thread to which they were bound has ended",
                self.residence.worker()
            )));
        }
    }
}
