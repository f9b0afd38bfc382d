//! Which runtime does this thread belong to: what [`Handle::current`] and [`spawn`](crate::spawn()) find.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;

use polity_core::{Core, Scope};

use crate::handle::Handle;
use crate::machine::RealMachine;

thread_local! {
    static CURRENT: RefCell<Option<Handle>> = const { RefCell::new(None) };
    /// The core of `CURRENT`: what a spawn needs, without a borrow or a count.
    static CORE: Cell<Option<&'static Core<RealMachine>>> = const { Cell::new(None) };
    /// What tasks inherit that are spawned on this thread, inside a [`with`](crate::with()).
    static SCOPE: Cell<Option<Scope>> = const { Cell::new(None) };
    /// There is one: what a spawn looks at, a byte instead of the whole.
    static IN_SCOPE: Cell<bool> = const { Cell::new(false) };
    /// This thread runs `init`, `exit` or the drop of a policy.
    static IN_POLICY: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, [`Handle::current`] on this thread is the handle that was entered. From
/// [`Handle::enter`].
///
/// # Panics
/// When several guards of one thread are not dropped in the opposite order of their making, as in tokio.
#[must_use = "the context ends when the guard is dropped"]
pub struct EnterGuard<'a> {
    // Dropped first: tokio's own rule on order.
    _tokio: tokio::runtime::EnterGuard<'a>,
    before: Option<Handle>,
    // Must be dropped on the thread that made it.
    _not_send: PhantomData<*const ()>,
}

impl fmt::Debug for EnterGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnterGuard").finish_non_exhaustive()
    }
}

pub(crate) fn enter(handle: &Handle) -> EnterGuard<'_> {
    let before = set(Some(handle.clone()));
    EnterGuard {
        _tokio: handle.tokio().enter(),
        before,
        _not_send: PhantomData,
    }
}

fn set(handle: Option<Handle>) -> Option<Handle> {
    CORE.set(handle.as_ref().map(Handle::core));
    CURRENT.replace(handle)
}

impl Drop for EnterGuard<'_> {
    fn drop(&mut self) {
        set(self.before.take());
    }
}

pub(crate) fn current() -> Option<Handle> {
    CURRENT.with_borrow(Clone::clone)
}

#[inline]
pub(crate) fn core() -> Option<&'static Core<RealMachine>> {
    CORE.get()
}

#[inline]
pub(crate) fn open_scope() -> Option<Scope> {
    match IN_SCOPE.get() {
        true => SCOPE.get(),
        false => None,
    }
}

fn replace_scope(scope: Option<Scope>) -> Option<Scope> {
    IN_SCOPE.set(scope.is_some());
    SCOPE.replace(scope)
}

/// While it lives, this is the scope of the thread. Guards are dropped in the opposite order of their making.
pub(crate) struct OpenScope {
    before: Option<Scope>,
    // Must be dropped on the thread that made it.
    _not_send: PhantomData<*const ()>,
}

pub(crate) fn set_scope(scope: Option<Scope>) -> OpenScope {
    OpenScope {
        before: replace_scope(scope),
        _not_send: PhantomData,
    }
}

impl Drop for OpenScope {
    fn drop(&mut self) {
        replace_scope(self.before);
    }
}

/// Runs policy code on a disposable thread.
pub(crate) fn in_policy<R>(body: impl FnOnce() -> R) -> R {
    IN_POLICY.set(true);
    let result = body();
    IN_POLICY.set(false);
    result
}

/// Whether this thread is inside a policy's callback.
pub(crate) fn is_in_policy() -> bool {
    IN_POLICY.get()
        || crate::sys::tls::with_local(|local| {
            local.is_some_and(|local| local.callback().is_some())
        })
}
