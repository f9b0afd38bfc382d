//! What is built on tokio works unchanged: sockets, timers, channels, cooperative budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use polity::Runtime;
use polity_policies::{Fifo, Priority};
use polity_tests::{DEADLINE, check, now, wait_for, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Barrier, Mutex, Notify, RwLock, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::support::{Yielding, yield_until};

// --- sockets ---

/// Echoes on every connection until it is closed.
async fn echo(listener: TcpListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        drop(polity::spawn(async move {
            let mut buffer = [0; 256];
            loop {
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => stream.write_all(&buffer[..length]).await.unwrap(),
                }
            }
        }));
    }
}

async fn ask(to: std::net::SocketAddr, rounds: usize) {
    let mut stream = TcpStream::connect(to).await.unwrap();
    for round in 0..rounds {
        let question = format!("question {round}");
        stream.write_all(question.as_bytes()).await.unwrap();
        let mut answer = vec![0; question.len()];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, question.as_bytes());
    }
}

#[track_caller]
fn check_echo(runtime: &Runtime, clients: usize, rounds: usize) {
    let listener = wait_for(
        "the listener",
        runtime.spawn(async { TcpListener::bind("127.0.0.1:0").await.unwrap() }),
    )
    .unwrap();
    let address = listener.local_addr().unwrap();
    let server = runtime.spawn(echo(listener));
    let clients: Vec<_> = (0..clients)
        .map(|_| runtime.spawn(ask(address, rounds)))
        .collect();
    for client in clients {
        wait_for("a client", client).unwrap();
    }
    server.abort();
    assert!(wait_for("the server", server).unwrap_err().is_cancelled());
}

#[test]
fn many_tcp_connections_are_echoed() {
    for workers in [1, 2, 4] {
        check(workers, |runtime| check_echo(&runtime, 150, 10));
    }
}

#[test]
fn tcp_works_under_policies() {
    check(2, |runtime| {
        runtime.load(Fifo::new()).unwrap();
        check_echo(&runtime, 50, 10);
        runtime.load(Priority::new()).unwrap();
        check_echo(&runtime, 50, 10);
        runtime.load(Fifo::per_worker()).unwrap();
        check_echo(&runtime, 50, 10);
    });
}

#[test]
fn udp_goes_there_and_back() {
    check(2, |runtime| {
        let server = wait_for(
            "the socket",
            runtime.spawn(async { UdpSocket::bind("127.0.0.1:0").await.unwrap() }),
        )
        .unwrap();
        let address = server.local_addr().unwrap();
        let server = runtime.spawn(async move {
            let mut buffer = [0; 64];
            loop {
                let (length, from) = server.recv_from(&mut buffer).await.unwrap();
                server.send_to(&buffer[..length], from).await.unwrap();
            }
        });
        let client = runtime.spawn(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.connect(address).await.unwrap();
            for n in 0..200u32 {
                socket.send(&n.to_le_bytes()).await.unwrap();
                let mut answer = [0; 4];
                assert_eq!(socket.recv(&mut answer).await.unwrap(), 4);
                assert_eq!(u32::from_le_bytes(answer), n);
            }
        });
        wait_for("the client", client).unwrap();
        server.abort();
    });
}

#[test]
fn a_socket_made_in_block_on_works_in_a_task_and_the_other_way_round() {
    check(1, |runtime| {
        let listener = runtime.block_on(async { TcpListener::bind("127.0.0.1:0").await.unwrap() });
        let address = listener.local_addr().unwrap();
        let server = runtime.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            stream
        });
        let mut hello = [0; 5];
        let (_client, _server) = runtime.block_on(async {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.read_exact(&mut hello).await.unwrap();
            let mut server = server.await.unwrap();
            client.write_all(b"again").await.unwrap();
            let mut again = [0; 5];
            server.read_exact(&mut again).await.unwrap();
            assert_eq!(&again, b"again");
            (client, server)
        });
        assert_eq!(&hello, b"hello");
    });
}

#[test]
fn the_only_worker_serves_sockets_while_tasks_keep_it_busy() {
    check(1, |runtime| {
        let busy = Yielding::start(&runtime, 4);
        check_echo(&runtime, 10, 20);
        busy.end();
    });
}

// --- time ---

#[test]
fn a_sleep_ends_after_its_deadline_and_not_before() {
    check(2, |runtime| {
        let sleeps: Vec<_> = (0..60u64)
            .map(|n| {
                runtime.spawn(async move {
                    let time = Duration::from_micros(n * 700);
                    let begun = now();
                    sleep(time).await;
                    let slept = now() - begun;
                    assert!(slept >= time, "{slept:?} for {time:?}");
                    assert!(slept < time + DEADLINE / 2, "{slept:?} for {time:?}");
                })
            })
            .collect();
        for task in sleeps {
            wait_for("a sleep", task).unwrap();
        }
        let begun = now();
        runtime.block_on(async { sleep(Duration::from_millis(5)).await });
        assert!(now() - begun >= Duration::from_millis(5));
    });
}

#[test]
fn an_idle_runtime_wakes_up_for_a_timer_that_was_set_meanwhile() {
    for workers in [1, 2] {
        check(workers, |runtime| {
            // The one that is parked in the driver knows of the long one only.
            let long = runtime.spawn(async { sleep(Duration::from_secs(3600)).await });
            for _ in 0..50 {
                let task = runtime.spawn(async {
                    sleep_until(tokio::time::Instant::now() + Duration::from_millis(1)).await;
                });
                wait_for("the short sleep", task).unwrap();
                runtime.block_on(async { sleep(Duration::from_millis(1)).await });
            }
            long.abort();
        });
    }
}

#[test]
fn an_interval_ticks_no_faster_than_it_was_asked_to() {
    check(2, |runtime| {
        let task = runtime.spawn(async {
            let begun = now();
            let mut ticks = interval(Duration::from_millis(3));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for n in 0..10u32 {
                ticks.tick().await;
                assert!(now() - begun >= Duration::from_millis(3) * n);
            }
        });
        wait_for("ten ticks", task).unwrap();
    });
}

#[test]
fn a_timeout_passes_or_does_not() {
    check(2, |runtime| {
        let task = runtime.spawn(async {
            let begun = now();
            let late = timeout(Duration::from_millis(10), std::future::pending::<()>()).await;
            assert!(late.is_err());
            assert!(now() - begun >= Duration::from_millis(10));
            assert_eq!(timeout(DEADLINE, async { 1 }).await, Ok(1));
            let child = polity::spawn(sleep(Duration::from_millis(2)));
            timeout(DEADLINE, child).await.unwrap().unwrap();
        });
        wait_for("the task", task).unwrap();
    });
}

#[test]
fn a_timer_fires_while_the_only_worker_is_kept_busy_by_a_task_that_yields() {
    for policy in [false, true] {
        check(1, move |runtime| {
            if policy {
                runtime.load(Priority::new()).unwrap();
            }
            let fired = Arc::new(AtomicBool::new(false));
            let busy = runtime.spawn(yield_until(&fired));
            let timer = runtime.spawn(async move {
                // A timer of the driver is what is tested, not a wait for luck.
                sleep(Duration::from_millis(20)).await;
                fired.store(true, Ordering::Relaxed);
            });
            wait_for("the timer", timer).unwrap();
            wait_for("the busy task", busy).unwrap();
        });
    }
}

// --- channels and the like ---

#[test]
fn select_takes_what_comes_first() {
    check(2, |runtime| {
        let task = runtime.spawn(async {
            let (sender, mut receiver) = mpsc::channel::<u32>(1);
            let sending = polity::spawn(async move {
                for n in 0..100 {
                    sender.send(n).await.unwrap();
                    if n % 10 == 0 {
                        // So that the receiver waits now and then.
                        sleep(Duration::from_millis(1)).await;
                    }
                }
            });
            let mut sum = 0;
            loop {
                tokio::select! {
                    received = receiver.recv() => match received {
                        Some(n) => sum += n,
                        None => break,
                    },
                    () = sleep(DEADLINE) => panic!("the channel is silent"),
                }
            }
            sending.await.unwrap();
            let (one, two) = tokio::join!(async { 1 }, polity::spawn(async { 2 }));
            sum + one + two.unwrap()
        });
        assert_eq!(wait_for("the task", task).unwrap(), 99 * 100 / 2 + 3);
    });
}

#[test]
fn every_message_of_a_channel_arrives_in_order() {
    check(2, |runtime| {
        let (sender, mut receiver) = mpsc::channel::<(usize, usize)>(8);
        for producer in 0..8 {
            let sender = sender.clone();
            drop(runtime.spawn(async move {
                for n in 0..1000 {
                    sender.send((producer, n)).await.unwrap();
                }
            }));
        }
        drop(sender);
        let consumer = runtime.spawn(async move {
            let mut next = [0; 8];
            while let Some((producer, n)) = receiver.recv().await {
                assert_eq!(next[producer], n);
                next[producer] += 1;
            }
            next
        });
        assert_eq!(wait_for("the consumer", consumer).unwrap(), [1000; 8]);
    });
}

#[test]
fn oneshot_notify_watch_and_broadcast_wake_their_tasks() {
    check(2, |runtime| {
        for _ in 0..300 {
            let (sender, receiver) = oneshot::channel();
            let asks = runtime.spawn(receiver);
            drop(runtime.spawn(async move { sender.send(9).unwrap() }));
            assert_eq!(wait_for("oneshot", asks).unwrap(), Ok(9));

            let notify = Arc::new(Notify::new());
            let notified = Arc::clone(&notify);
            let waits = runtime.spawn(async move { notified.notified().await });
            notify.notify_one();
            wait_for("notify", waits).unwrap();
        }
        let (sender, receiver) = watch::channel(0);
        let (news, _) = broadcast::channel(512);
        let watchers: Vec<_> = (0..20)
            .map(|_| {
                let (mut receiver, mut news) = (receiver.clone(), news.subscribe());
                runtime.spawn(async move {
                    let mut heard = 0;
                    for _ in 0..200 {
                        heard += news.recv().await.unwrap();
                    }
                    receiver.wait_for(|value| *value == 200).await.unwrap();
                    heard
                })
            })
            .collect();
        for n in 1..=200 {
            sender.send(n).unwrap();
            news.send(n).unwrap();
        }
        for watcher in watchers {
            assert_eq!(wait_for("a watcher", watcher).unwrap(), 200 * 201 / 2);
        }
    });
}

#[test]
fn locks_semaphores_and_barriers_hold() {
    check(2, |runtime| {
        let permits = Arc::new(Semaphore::new(3));
        let inside = Arc::new(AtomicUsize::new(0));
        let sum = Arc::new(Mutex::new(0));
        let shared = Arc::new(RwLock::new(0));
        let barrier = Arc::new(Barrier::new(50));
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (permits, inside) = (Arc::clone(&permits), Arc::clone(&inside));
                let (sum, shared) = (Arc::clone(&sum), Arc::clone(&shared));
                let barrier = Arc::clone(&barrier);
                runtime.spawn(async move {
                    barrier.wait().await;
                    for _ in 0..40 {
                        let _permit = permits.acquire().await.unwrap();
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < 3);
                        polity::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        let mut sum = sum.lock().await;
                        let before = *sum;
                        polity::yield_now().await;
                        *sum = before + 1;
                        drop(sum);
                        *shared.write().await += 1;
                        let _ = *shared.read().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        runtime.block_on(async {
            assert_eq!(*sum.lock().await, 2000);
            assert_eq!(*shared.read().await, 2000);
        });
    });
}

#[test]
fn unordered_futures_are_polled_when_their_tasks_end() {
    check(2, |runtime| {
        let task = runtime.spawn(async {
            let mut all: FuturesUnordered<_> = (0..2000u64)
                .map(|n| {
                    polity::spawn(async move {
                        polity::yield_now().await;
                        n
                    })
                })
                .collect();
            let mut sum = 0;
            while let Some(n) = all.next().await {
                sum += n.unwrap();
            }
            sum
        });
        assert_eq!(wait_for("the sum", task).unwrap(), 1999 * 2000 / 2);
        let in_root = runtime.block_on(async {
            let all: FuturesUnordered<_> = (0..100).map(|n| async move { n }).collect();
            all.fold(0, |sum, n| async move { sum + n }).await
        });
        assert_eq!(in_root, 99 * 100 / 2);
    });
}

// --- the cooperative budget ---

#[test]
fn a_loop_over_a_channel_that_is_always_ready_lets_others_run() {
    for policy in [false, true] {
        check(1, move |runtime| {
            if policy {
                runtime.load(Fifo::new()).unwrap();
            }
            let stop = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&stop);
            let (sender, mut receiver) = mpsc::unbounded_channel::<()>();
            sender.send(()).unwrap();
            // Never waits: it refills the channel itself.
            let greedy = runtime.spawn(async move {
                let mut received = 0u64;
                while let Some(()) = receiver.recv().await {
                    received += 1;
                    if seen.load(Ordering::Relaxed) {
                        break;
                    }
                    sender.send(()).unwrap();
                }
                received
            });
            for _ in 0..20 {
                wait_for("another task", runtime.spawn(async {})).unwrap();
            }
            // A timer of the driver is what is tested, not a wait for luck.
            let timer = runtime.spawn(async { sleep(Duration::from_millis(1)).await });
            wait_for("a timer", timer).unwrap();
            stop.store(true, Ordering::Relaxed);
            assert!(wait_for("the greedy task", greedy).unwrap() > 0);
        });
    }
}

#[test]
fn a_socket_that_is_always_ready_lets_others_run() {
    check(1, |runtime| {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let greedy = runtime.spawn(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let to_itself = socket.local_addr().unwrap();
            let mut buffer = [0; 1];
            while !seen.load(Ordering::Relaxed) {
                socket.send_to(&[7], to_itself).await.unwrap();
                socket.recv_from(&mut buffer).await.unwrap();
            }
        });
        for _ in 0..20 {
            wait_for("another task", runtime.spawn(async {})).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        wait_for("the greedy task", greedy).unwrap();
    });
}

// --- tokio's own tasks ---

#[test]
#[expect(clippy::disallowed_methods, reason = "libraries do it")]
fn a_library_may_spawn_on_tokio_and_is_counted() {
    check(1, |runtime| {
        let (go, may_go) = oneshot::channel::<u32>();
        let (foreign, counted) = std::sync::mpsc::channel();
        let task = runtime.spawn(async move {
            let library = tokio::spawn(async move {
                // Libraries do it.
                sleep(Duration::from_millis(1)).await;
                may_go.await.unwrap() + 1
            });
            foreign
                .send(polity::Handle::current().foreign_tasks())
                .unwrap();
            library.await.unwrap()
        });
        let counted = polity_tests::receive("the count", &counted);
        assert_eq!(counted, 1);
        go.send(1).unwrap();
        assert_eq!(wait_for("the task", task).unwrap(), 2);
        wait_until("no foreign task is left", || runtime.foreign_tasks() == 0);
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "libraries do it")]
fn foreign_tasks_run_while_the_only_worker_is_busy_and_while_it_is_idle() {
    check(1, |runtime| {
        let busy = Yielding::start(&runtime, 1);
        let root = |n: u32| async move { tokio::spawn(async move { n }).await.unwrap() };
        for n in 0..20 {
            assert_eq!(
                wait_for("a foreign task", runtime.spawn(root(n))).unwrap(),
                n
            );
        }
        busy.end();
        for n in 0..200 {
            assert_eq!(runtime.block_on(root(n)), n);
        }
    });
}

#[test]
fn tokios_own_blocking_calls_work() {
    check(1, |runtime| {
        let task = runtime.spawn(async {
            tokio::task::spawn_blocking(|| 8).await.unwrap() // as `tokio::fs` does
        });
        assert_eq!(wait_for("the call", task).unwrap(), 8);
    });
}

#[test]
fn streams_can_be_split_and_copied_between_tasks() {
    check(2, |runtime| {
        let task = runtime.spawn(async {
            let (client, server) = tokio::io::duplex(64);
            let server = polity::spawn(async move {
                let (mut from, mut to) = tokio::io::split(server);
                tokio::io::copy(&mut from, &mut to).await.unwrap()
            });
            let (mut from, mut to) = tokio::io::split(client);
            let writing = polity::spawn(async move {
                to.write_all(&[1; 100_000]).await.unwrap();
                to.shutdown().await.unwrap();
            });
            let mut all = Vec::new();
            from.read_to_end(&mut all).await.unwrap();
            writing.await.unwrap();
            assert_eq!(server.await.unwrap(), 100_000);
            all
        });
        assert_eq!(wait_for("the echo", task).unwrap(), [1; 100_000]);
    });
}
