//! `sync_notify.rs`, `sync_watch.rs`, `sync_broadcast.rs`: one wakes many.

use std::fmt::Write;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, broadcast, watch};

use super::sync;
use crate::Peer;
use crate::workload::{Round, Workload};

/// Wake-ups that one round of a notify bench waits for, whatever the number of waiters.
const NOTIFIED: usize = 500;
/// Values that one round sends to all receivers.
const SENT: usize = 100;

pub(super) fn workloads<P: Peer>() -> Vec<Workload<P>> {
    vec![
        sync("notify_waiters_10", NOTIFIED, 1.5, |peer| notify(peer, 10)),
        sync("notify_waiters_50", NOTIFIED, 1.5, |peer| notify(peer, 50)),
        sync("notify_waiters_100", NOTIFIED, 1.5, |peer| {
            notify(peer, 100)
        }),
        sync("notify_waiters_200", NOTIFIED, 1.5, |peer| {
            notify(peer, 200)
        }),
        sync("notify_waiters_500", NOTIFIED, 1.5, |peer| {
            notify(peer, 500)
        }),
        sync("watch_10", 10 * SENT, 1.1, |peer| watch(peer, 10)),
        sync("watch_100", 100 * SENT, 1.1, |peer| watch(peer, 100)),
        sync("watch_500", 500 * SENT, 1.1, |peer| watch(peer, 500)),
        sync("watch_1000", 1_000 * SENT, 1.1, |peer| watch(peer, 1_000)),
        sync("broadcast_10", 10 * SENT, 1.1, |peer| broadcast(peer, 10)),
        sync("broadcast_100", 100 * SENT, 1.1, |peer| {
            broadcast(peer, 100)
        }),
        sync("broadcast_500", 500 * SENT, 1.1, |peer| {
            broadcast(peer, 500)
        }),
        sync("broadcast_1000", 1_000 * SENT, 1.1, |peer| {
            broadcast(peer, 1_000)
        }),
    ]
}

/// A thread that is no worker wakes all waiters, over and over, until enough of them have run.
fn notify<P: Peer>(peer: &Rc<P>, waiters: usize) -> Round {
    let (notify, notified) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    for _ in 0..waiters {
        let (notify, notified) = (Arc::clone(&notify), Arc::clone(&notified));
        P::detach(peer.spawn_from_outside(async move {
            loop {
                notify.notified().await;
                notified.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    Box::new(move || {
        notified.store(0, Ordering::Relaxed);
        loop {
            notify.notify_waiters();
            if notified.load(Ordering::Relaxed) >= NOTIFIED {
                break;
            }
        }
    })
}

/// How the sender learns that all receivers have seen a value.
#[derive(Default)]
struct Seen {
    missing: AtomicUsize,
    by_all: Notify,
}

impl Seen {
    fn expect(&self, receivers: usize) {
        let before = self.missing.fetch_add(receivers, Ordering::Relaxed);
        assert_eq!(before, 0, "the last value was not seen by all");
    }

    fn by_one(&self) {
        if self.missing.fetch_sub(1, Ordering::Release) == 1 {
            self.by_all.notify_one();
        }
    }

    async fn by_all(&self) {
        while self.missing.load(Ordering::Acquire) > 0 {
            self.by_all.notified().await;
        }
    }
}

/// What a receiver does with a value: some microseconds of formatting.
fn work(rng: &mut StdRng) -> u32 {
    let mut message = String::new();
    for i in 1..=10 {
        let _ = write!(&mut message, " {i}={}", rng.random::<f64>());
    }
    let bytes = message.bytes().map(u32::from);
    bytes.fold(0, u32::wrapping_add)
}

/// A task sends; receivers share the latest value under a lock.
fn watch<P: Peer>(peer: &Rc<P>, receivers: usize) -> Round {
    let (sender, _) = watch::channel(0);
    let (sender, seen) = (Arc::new(sender), Arc::new(Seen::default()));
    for n in 0..receivers {
        let (mut receiver, seen) = (sender.subscribe(), Arc::clone(&seen));
        let mut rng = StdRng::seed_from_u64(n as u64);
        P::detach(peer.spawn_from_outside(async move {
            while receiver.changed().await.is_ok() {
                // Taken and given back: the lock is what they contend for.
                let _ = *receiver.borrow();
                black_box(work(&mut rng));
                seen.by_one();
            }
        }));
    }
    let peer = Rc::clone(peer);
    Box::new(move || {
        let (sender, seen) = (Arc::clone(&sender), Arc::clone(&seen));
        peer.block_on(async {
            P::join(P::spawn(async move {
                for _ in 0..SENT {
                    seen.expect(receivers);
                    sender.send(black_box(42)).expect("there are receivers");
                    seen.by_all().await;
                }
            }))
            .await;
        });
    })
}

/// The root of `block_on` sends; each receiver has its place in a ring of values.
fn broadcast<P: Peer>(peer: &Rc<P>, receivers: usize) -> Round {
    let (sender, _) = broadcast::channel(1_000);
    let seen = Arc::new(Seen::default());
    for n in 0..receivers {
        let (mut receiver, seen) = (sender.subscribe(), Arc::clone(&seen));
        let mut rng = StdRng::seed_from_u64(n as u64);
        P::detach(peer.spawn_from_outside(async move {
            while receiver.recv().await.is_ok() {
                black_box(work(&mut rng));
                seen.by_one();
            }
        }));
    }
    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            for i in 0..SENT {
                seen.expect(receivers);
                sender.send(i).expect("there are receivers");
                seen.by_all().await;
            }
        });
    })
}
