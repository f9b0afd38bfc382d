//! `sync_mpsc.rs`, its contended half, and `sync_mpsc_oneshot.rs`.

use std::rc::Rc;

use tokio::sync::mpsc::{self, Receiver, Sender, UnboundedReceiver};
use tokio::sync::oneshot;

use super::sync;
use crate::Peer;
use crate::workload::{Round, Workload};

const PRODUCERS: usize = 5;
const MESSAGES: usize = 1_000;
const TOTAL: usize = PRODUCERS * MESSAGES;
/// Of a channel that is never full, and of one that nearly always is.
const ROOMY: usize = 1_000_000;
const TIGHT: usize = 100;
const REQUESTS: usize = 1_000;

pub(super) fn workloads<P: Peer>() -> Vec<Workload<P>> {
    vec![
        sync("mpsc_bounded", TOTAL, 1.1, |peer| bounded(peer, ROOMY)),
        sync("mpsc_bounded_recv_many", TOTAL, 1.1, |peer| {
            bounded_recv_many(peer, ROOMY)
        }),
        sync("mpsc_bounded_full", TOTAL, 1.1, |peer| bounded(peer, TIGHT)),
        sync("mpsc_bounded_full_recv_many", TOTAL, 1.1, |peer| {
            bounded_recv_many(peer, TIGHT)
        }),
        sync("mpsc_unbounded", TOTAL, 1.1, unbounded),
        sync("mpsc_unbounded_recv_many", TOTAL, 1.1, unbounded_recv_many),
        sync("request_reply", REQUESTS, 1.6, request_reply),
    ]
}

/// Five tasks send to the root of `block_on`.
fn bounded<P: Peer>(peer: &Rc<P>, capacity: usize) -> Round {
    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            let mut receiver = produce::<P>(capacity);
            for _ in 0..TOTAL {
                receiver.recv().await.expect("the producers send");
            }
        });
    })
}

/// The same, received in as large pieces as there are.
fn bounded_recv_many<P: Peer>(peer: &Rc<P>, capacity: usize) -> Round {
    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            let mut receiver = produce::<P>(capacity);
            let (mut buffer, mut received) = (Vec::with_capacity(TOTAL), 0);
            while received < TOTAL {
                received += receiver.recv_many(&mut buffer, TOTAL).await;
            }
        });
    })
}

fn produce<P: Peer>(capacity: usize) -> Receiver<usize> {
    let (sender, receiver) = mpsc::channel(capacity);
    for _ in 0..PRODUCERS {
        let sender = sender.clone();
        P::detach(P::spawn(async move {
            for message in 0..MESSAGES {
                sender.send(message).await.expect("the root receives");
            }
        }));
    }
    receiver
}

/// Over a channel without a bound: the producers never wait.
fn unbounded<P: Peer>(peer: &Rc<P>) -> Round {
    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            let mut receiver = produce_unbounded::<P>();
            for _ in 0..TOTAL {
                receiver.recv().await.expect("the producers send");
            }
        });
    })
}

fn unbounded_recv_many<P: Peer>(peer: &Rc<P>) -> Round {
    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            let mut receiver = produce_unbounded::<P>();
            let (mut buffer, mut received) = (Vec::with_capacity(TOTAL), 0);
            while received < TOTAL {
                received += receiver.recv_many(&mut buffer, TOTAL).await;
            }
        });
    })
}

fn produce_unbounded<P: Peer>() -> UnboundedReceiver<usize> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for _ in 0..PRODUCERS {
        let sender = sender.clone();
        P::detach(P::spawn(async move {
            for message in 0..MESSAGES {
                sender.send(message).expect("the root receives");
            }
        }));
    }
    receiver
}

/// The root of `block_on` asks a task and waits for its reply, again and again.
fn request_reply<P: Peer>(peer: &Rc<P>) -> Round {
    let (requests, mut requested): (Sender<oneshot::Sender<()>>, _) = mpsc::channel(10);
    P::detach(peer.spawn_from_outside(async move {
        while let Some(reply) = requested.recv().await {
            reply.send(()).expect("the root waits");
        }
    }));
    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            for _ in 0..REQUESTS {
                let (reply, replied) = oneshot::channel();
                requests.send(reply).await.expect("the task serves");
                replied.await.expect("the task replies");
            }
        });
    })
}
