//! The load: closed loop on each connection, the same for every server.
//!
//! Threads with a `current_thread` runtime of tokio each. That is neither of the two contenders, it takes its share of
//! events for one system call as a real client would, and nothing is shared between its threads while they ask. Rejected:
//! a thread for each connection (250 of them measure the kernel's scheduler), and a loop of our own on epoll (less
//! processor time for the load, more code to trust).

use std::net::SocketAddr;
use std::sync::{Barrier, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{self, Runtime};

use super::serve::{PLAINTEXT, Service};
use crate::clock::{block_until, now};
use crate::latencies::{Latencies, Record};
use crate::process::cpu_time;

/// Whom to ask, how hard, and for how long.
#[derive(Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) server: i32,
    pub(crate) service: Service,
    /// Of an echo; HTTP has its own idea of how long a request is.
    pub(crate) request_bytes: usize,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) warm_up: Duration,
    pub(crate) length: Duration,
}

/// How a server did.
#[derive(Serialize, Deserialize)]
pub(crate) struct Served {
    pub(crate) per_second: f64,
    pub(crate) p99_us: f64,
    /// Processor time of the server for each request.
    pub(crate) cpu_us: f64,
}

/// The time that counts.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Load {
    /// Asks, and measures the server's processor time in the same window as the requests.
    pub(crate) fn run(&self) -> Served {
        let server = Pid::from_raw(self.server);
        let (connected, begun) = (Barrier::new(self.threads + 1), OnceLock::new());
        let window = || {
            connected.wait();
            // Whoever is first begins it for all.
            *begun.get_or_init(|| self.window())
        };
        let (latencies, cpu) = thread::scope(|scope| {
            let ask = |nth| scope.spawn(move || self.ask(self.share(nth), window));
            let threads: Vec<_> = (0..self.threads).map(ask).collect();
            let window = window();
            block_until(window.begin);
            let before = cpu_time(server);
            block_until(window.end);
            let cpu = cpu_time(server) - before;
            let mut all = Latencies::default();
            for thread in threads {
                all.merge(&thread.join().expect("a client does not panic"));
            }
            (all, cpu)
        });
        assert_ne!(
            latencies.count(),
            0,
            "no request was answered in {:?}",
            self.length
        );
        let requests = latencies.count() as f64;
        Served {
            per_second: requests / self.length.as_secs_f64(),
            p99_us: latencies.quantile_us(0.99),
            cpu_us: cpu.as_secs_f64() * 1e6 / requests,
        }
    }

    fn window(&self) -> Window {
        let begin = now() + self.warm_up;
        Window {
            begin,
            end: begin + self.length,
        }
    }

    /// How many of the connections the thread with this number has.
    fn share(&self, nth: usize) -> usize {
        (self.connections + nth) / self.threads
    }

    /// The work of one thread. `window` is what its connections, once open, wait for.
    fn ask(&self, connections: usize, window: impl Fn() -> Window) -> Latencies {
        let runtime: Runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for the client");
        let open: Vec<_> = (0..connections)
            .map(|_| runtime.block_on(Connection::open(self)))
            .collect();
        let (window, record) = (window(), Record::default());
        let ask = |connection: Connection| runtime.spawn(connection.ask(window, record.clone()));
        let asking: Vec<_> = open.into_iter().map(ask).collect();
        runtime.block_on(async {
            for connection in asking {
                connection.await.expect("a connection does not break");
            }
        });
        record.so_far()
    }
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Connection {
    /// Connects, and learns from a first exchange how long an answer is.
    async fn open(load: &Load) -> Self {
        let mut stream = TcpStream::connect(load.address).await.expect("a server");
        stream.set_nodelay(true).expect("a TCP socket");
        let (request, ending) = match load.service {
            Service::Echo => (
                vec![b'e'; load.request_bytes],
                vec![b'e'; load.request_bytes],
            ),
            Service::Http => {
                let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", load.address);
                (request.into_bytes(), PLAINTEXT.into())
            }
        };
        stream
            .write_all(&request)
            .await
            .expect("a server that reads");
        let mut answer = Vec::new();
        while !answer.ends_with(&ending) {
            let length = stream.read_buf(&mut answer).await;
            assert_ne!(
                length.expect("a server that answers"),
                0,
                "the server hung up"
            );
        }
        Connection {
            stream,
            request,
            answer,
        }
    }

    async fn ask(mut self, window: Window, record: Record) {
        loop {
            let asked = now();
            if asked >= window.end {
                return;
            }
            self.stream
                .write_all(&self.request)
                .await
                .expect("a server that reads");
            self.stream
                .read_exact(&mut self.answer)
                .await
                .expect("a server that answers");
            let answered = now();
            if asked >= window.begin && answered <= window.end {
                record.add(answered - asked);
            }
        }
    }
}
