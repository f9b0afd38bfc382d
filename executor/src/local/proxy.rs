//! What core has of a local task: a key, and the address of the thread where the future lies.

use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::post::{Ended, Home, Key, Letter, Link, Polled, Time};
use super::residence;

/// See [`local`](super). `Send`, whatever the future is.
#[derive(Debug)]
pub(super) struct Proxy {
    home: Arc<Home>,
    key: Key,
    link: Arc<Link>,
    /// Of the next letter.
    time: Time,
    /// The future is gone.
    ended: bool,
}

impl Proxy {
    pub(super) fn new(home: Arc<Home>, key: Key, link: Arc<Link>) -> Self {
        Proxy {
            home,
            key,
            link,
            time: Time::First,
            ended: false,
        }
    }

    fn end(&mut self, ended: Ended) -> Poll<()> {
        self.ended = true;
        match ended {
            Ok(()) => Poll::Ready(()),
            // Into the task's `JoinError`.
            Err(payload) => resume_unwind(payload),
        }
    }
}

impl Future for Proxy {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let proxy = &mut *self;
        if let Some(residence) = residence::of(&proxy.home) {
            proxy.time = Time::First;
            if let Some(polled) = residence.poll(proxy.key, context) {
                return match polled {
                    Poll::Ready(ended) => proxy.end(ended),
                    Poll::Pending => Poll::Pending,
                };
            }
        }
        // Polled by home alone, when a letter came.
        if let Some(ended) = proxy.link.take_ended() {
            return proxy.end(ended);
        }
        let letter = Letter::Polled(Polled {
            key: proxy.key,
            link: Arc::clone(&proxy.link),
            waker: context.waker().clone(),
            time: std::mem::replace(&mut proxy.time, Time::Again),
        });
        if proxy.home.post(letter).is_err() {
            proxy.link.abort();
        }
        Poll::Pending
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        match residence::of(&self.home) {
            Some(residence) => residence.discard(self.key),
            // If the thread has left, so has the future.
            None => drop(self.home.post(Letter::Dropped(self.key))),
        }
    }
}

// What this whole module is for.
const fn _assert_send() {
    const fn check<T: Send>() {}
    check::<Proxy>();
}
