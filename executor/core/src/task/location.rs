//! A place in the source that one thread writes and others read.

use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Holds a `&'static Location`, or nothing.
#[derive(Debug, Default)]
pub(crate) struct LocationCell(AtomicPtr<Location<'static>>);

impl LocationCell {
    #[inline]
    pub(crate) fn set(&self, location: &'static Location<'static>) {
        // Ordering: Relaxed; what it points to is constant memory.
        self.0
            .store(ptr::from_ref(location).cast_mut(), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Option<&'static Location<'static>> {
        let location = self.0.load(Ordering::Relaxed);
        // SAFETY: `as_ref` requires null, or a pointer that is valid for the lifetime and not written through: only `set`
        // stores one, and it was given a `&'static`.
        unsafe { location.as_ref() }
    }
}
