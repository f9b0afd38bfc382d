//! A load that has some of everything.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use polity::{Attributes, Handle, JoinHandle, yield_now};
use polity_tests::{receive, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Some of everything: yields, channels, timers, TCP, tasks that spawn tasks, aborts.
pub(crate) struct Mixed {
    sums: Vec<JoinHandle<usize>>,
    expected: usize,
    aborted: Vec<JoinHandle<()>>,
    aborts_begun: Receiver<()>,
}

impl Mixed {
    /// 10 × `size` tasks and a few more.
    pub(crate) fn start(runtime: &Handle, size: usize) -> Mixed {
        let mut sums = Vec::new();
        let mut expected = 0;
        let (begun, aborts_begun) = channel();
        let mut aborted = Vec::new();
        for n in 0..size {
            let weight = [1, 10, 100, 1000, 10_000][n % 5];
            let with_weight = Attributes::new().weight(weight).tag(n as u64);
            let yields = async {
                for _ in 0..20 {
                    yield_now().await;
                }
                20
            };
            sums.push(runtime.spawn_with(with_weight, yields).unwrap());
            expected += 20;

            let (to, mut from) = tokio::sync::mpsc::channel(1);
            sums.push(runtime.spawn(async move {
                for n in 0..10 {
                    to.send(n).await.unwrap();
                }
                0
            }));
            sums.push(runtime.spawn(async move {
                let mut sum = 0;
                while let Some(n) = from.recv().await {
                    sum += n;
                }
                sum
            }));
            expected += 45;

            sums.push(runtime.spawn(async {
                for millis in 1..3 {
                    // A wake by the driver.
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                }
                1
            }));
            expected += 1;

            sums.push(runtime.spawn(async {
                let children: Vec<_> = (0..4).map(|n| polity::spawn(async move { n })).collect();
                let mut sum = 0;
                for child in children {
                    sum += child.await.unwrap();
                }
                sum
            }));
            expected += 6;

            let begun = begun.clone();
            aborted.push(runtime.spawn(async move {
                begun.send(()).unwrap();
                std::future::pending().await
            }));
        }
        sums.push(runtime.spawn(over_tcp()));
        expected += 50;
        Mixed {
            sums,
            expected,
            aborted,
            aborts_begun,
        }
    }

    /// Waits for all of them, and checks what they say.
    #[track_caller]
    pub(crate) fn finish(self) {
        for _ in &self.aborted {
            receive("the tasks that are to be aborted", &self.aborts_begun);
        }
        for task in &self.aborted {
            task.abort();
        }
        let mut sum = 0;
        for task in self.sums {
            sum += wait_for("a task of the mixed load", task).unwrap();
        }
        assert_eq!(sum, self.expected);
        for task in self.aborted {
            let ended = wait_for("an aborted task", task);
            assert!(ended.unwrap_err().is_cancelled());
        }
    }
}

/// 50 bytes there and back, one at a time.
async fn over_tcp() -> usize {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = polity::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut byte = [0];
        while stream.read(&mut byte).await.unwrap() > 0 {
            stream.write_all(&byte).await.unwrap();
        }
    });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut byte = [0];
    for n in 0..50 {
        stream.write_all(&[n]).await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [n]);
    }
    drop(stream);
    server.await.unwrap();
    50
}
