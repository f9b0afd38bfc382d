use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Release;
use std::sync::mpsc;
use std::task::Wake;
use std::thread;

use tokio::net::UdpSocket;

use super::*;

/// Longer than any machine needs; reached only by a bug.
const NEVER: Option<Duration> = Some(Duration::from_secs(30));

fn driver() -> Arc<Driver> {
    Arc::new(Driver::new(Some(2), "blocking").unwrap())
}

/// What a task's waker does when it runs on the thread that is parked in the driver.
struct LocalWake {
    driver: Arc<Driver>,
    wakes: AtomicUsize,
}

impl LocalWake {
    fn new(driver: &Arc<Driver>) -> Arc<LocalWake> {
        Arc::new(LocalWake {
            driver: driver.clone(),
            wakes: AtomicUsize::new(0),
        })
    }
}

impl Wake for LocalWake {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Relaxed);
        self.driver.interrupt_local();
    }
}

fn wait_until_asleep(driver: &Driver) {
    while driver.signal.load(Acquire) & ASLEEP == 0 {
        thread::yield_now();
    }
}

#[test]
fn an_interrupt_before_the_park_is_not_lost() {
    let driver = driver();
    let mut seat = driver.try_seat().unwrap();
    driver.interrupt();
    driver.interrupt();
    assert_eq!(seat.park(NEVER), Parked::Interrupted);
    // Two of them are one.
    assert_eq!(seat.park(Some(Duration::from_millis(1))), Parked::TimedOut);
}

#[test]
fn an_interrupt_ends_a_park_that_sleeps() {
    let driver = driver();
    thread::scope(|s| {
        s.spawn(|| {
            wait_until_asleep(&driver);
            driver.interrupt();
        });
        assert_eq!(driver.try_seat().unwrap().park(None), Parked::Interrupted);
    });
    assert_eq!(driver.signal.load(Relaxed), 0);
}

/// Two threads hand a word back and forth, one of them parked in the driver; every third time with a timeout that
/// is never reached, now and then with a zero-timeout round in between.
#[test]
fn of_many_interrupts_that_race_with_the_park_none_is_lost() {
    const ROUNDS: usize = 50_000;
    let driver = driver();
    let announced = AtomicUsize::new(0);
    thread::scope(|s| {
        s.spawn(|| {
            for round in 1..=ROUNDS {
                let mut spins = 0;
                while announced.load(Acquire) != round {
                    spins += 1;
                    match spins % 256 {
                        0 => thread::yield_now(),
                        _ => std::hint::spin_loop(),
                    }
                }
                // A park is polled within 100 ns. So: before the Doze, about with it, long after it.
                let pauses = if round % 8 == 0 { 1024 } else { round % 8 };
                for _ in 0..pauses {
                    std::hint::spin_loop();
                }
                announced.store(0, Release);
                driver.interrupt();
            }
        });
        for round in 1..=ROUNDS {
            let mut seat = driver.try_seat().unwrap();
            if round % 5 == 0 {
                seat.drive();
            }
            announced.store(round, Release);
            while announced.load(Acquire) == round {
                let parked = seat.park(if round % 3 == 0 { NEVER } else { None });
                assert_eq!(parked, Parked::Interrupted);
            }
            // The interrupt of this round may come late, and ends the next park for nothing.
        }
    });
}

#[test]
fn a_timer_that_wakes_a_task_ends_the_park() {
    let driver = driver();
    let handle = driver.handle().unwrap();
    let _entered = handle.enter();
    let task = LocalWake::new(&driver);
    let waker = Waker::from(task.clone());
    let mut sleep = pin!(tokio::time::sleep(Duration::from_millis(5)));
    assert!(
        sleep
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    assert_eq!(driver.try_seat().unwrap().park(None), Parked::Woken);
    assert_eq!(task.wakes.load(Relaxed), 1);
    assert!(sleep.is_elapsed());
}

#[test]
fn a_socket_that_wakes_tasks_ends_the_park_once() {
    let driver = driver();
    let handle = driver.handle().unwrap();
    let _entered = handle.enter();
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_nonblocking(true).unwrap();
    let to = receiver.local_addr().unwrap();
    let receiver = UdpSocket::from_std(receiver).unwrap();
    let task = LocalWake::new(&driver);
    let waker = Waker::from(task.clone());
    let mut cx = Context::from_waker(&waker);
    // A fresh socket reports once that it can be written to; both wakers would be one turn's events.
    let mut seat = driver.try_seat().unwrap();
    seat.drive();
    let mut first = pin!(receiver.readable());
    let mut second = pin!(receiver.readable());
    assert!(first.as_mut().poll(&mut cx).is_pending());
    assert!(second.as_mut().poll(&mut cx).is_pending());
    thread::scope(|s| {
        s.spawn(|| {
            wait_until_asleep(&driver);
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"x", to).unwrap();
        });
        assert_eq!(seat.park(NEVER), Parked::Woken);
    });
    assert_eq!(task.wakes.load(Relaxed), 2);
    assert_eq!(seat.park(Some(Duration::from_millis(1))), Parked::TimedOut);
}

#[test]
fn a_zero_timeout_round_serves_a_socket() {
    let driver = driver();
    let handle = driver.handle().unwrap();
    let _entered = handle.enter();
    let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_nonblocking(true).unwrap();
    let to = receiver.local_addr().unwrap();
    let receiver = UdpSocket::from_std(receiver).unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"x", to).unwrap();
    let mut readable = pin!(receiver.readable());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(readable.as_mut().poll(&mut cx).is_pending());
    assert!(driver.drive());
    assert!(readable.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn a_park_ends_at_its_timeout_and_not_before() {
    let driver = driver();
    let mut seat = driver.try_seat().unwrap();
    for timeout_ms in [3, 1, 0, 4] {
        let timeout = Duration::from_millis(timeout_ms);
        let begin = Instant::now();
        assert_eq!(seat.park(Some(timeout)), Parked::TimedOut);
        assert!(begin.elapsed() >= timeout);
    }
}

#[test]
fn the_alarm_of_an_earlier_park_does_not_ring_in_a_later_one() {
    let driver = driver();
    let handle = driver.handle().unwrap();
    let _entered = handle.enter();
    let mut seat = driver.try_seat().unwrap();
    driver.interrupt();
    assert_eq!(seat.park(Some(Duration::MAX)), Parked::Interrupted);
    for later in [None, NEVER] {
        // Armed, then ended early.
        thread::scope(|s| {
            s.spawn(|| {
                wait_until_asleep(&driver);
                driver.interrupt();
            });
            let parked = seat.park(Some(Duration::from_millis(500)));
            assert_eq!(parked, Parked::Interrupted);
        });
        // What ends the next park comes after the time of the first.
        let waker = Waker::from(LocalWake::new(&driver));
        let mut sleep = pin!(tokio::time::sleep(Duration::from_millis(600)));
        let mut cx = Context::from_waker(&waker);
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        assert_eq!(seat.park(later), Parked::Woken);
        assert!(sleep.is_elapsed());
        // Not even inside.
        assert_eq!(seat.parts().0.is_some(), later.is_some());
    }
}

#[test]
fn only_one_thread_is_seated() {
    let driver = driver();
    let seat = driver.try_seat();
    assert!(seat.is_some());
    thread::scope(|s| {
        s.spawn(|| {
            assert!(driver.try_seat().is_none());
            assert!(!driver.drive());
        });
    });
    drop(seat);
    assert!(driver.drive());
}

#[test]
fn foreign_tasks_are_counted_and_run_by_rounds() {
    let driver = driver();
    let task = driver.handle().unwrap().spawn(async {
        tokio::task::yield_now().await;
    });
    assert_eq!(driver.foreign_tasks(), 1);
    while !task.is_finished() {
        assert!(driver.drive());
    }
    assert_eq!(driver.foreign_tasks(), 0);
}

#[test]
fn a_foreign_task_from_outside_runs_while_we_are_parked_and_its_wake_ends_the_park() {
    let driver = driver();
    let task = LocalWake::new(&driver);
    thread::scope(|s| {
        s.spawn(|| {
            wait_until_asleep(&driver);
            let waker = Waker::from(task.clone());
            driver.handle().unwrap().spawn(async move { waker.wake() });
        });
        assert_eq!(driver.try_seat().unwrap().park(None), Parked::Woken);
    });
}

#[test]
fn a_foreign_task_that_panics_does_not_hurt_the_slot() {
    let driver = driver();
    let task = driver
        .handle()
        .unwrap()
        .spawn(async { panic!("on purpose") });
    while !task.is_finished() {
        assert!(driver.drive());
    }
    driver.interrupt();
    let parked = driver.try_seat().unwrap().park(None);
    assert_eq!(parked, Parked::Interrupted);
}

#[test]
fn driving_inside_a_block_on_panics_and_the_slot_survives() {
    let driver = driver();
    let inside = catch_unwind(AssertUnwindSafe(|| {
        driver.handle().unwrap().block_on(async { driver.drive() })
    }));
    assert!(inside.is_err());
    assert!(driver.drive());
    driver.interrupt();
    let parked = driver.try_seat().unwrap().park(None);
    assert_eq!(parked, Parked::Interrupted);
}

#[test]
fn after_a_shutdown_nobody_is_seated() {
    let driver = driver();
    let seat = driver.try_seat();
    assert!(!driver.shutdown(None), "somebody is seated");
    drop(seat);
    assert!(driver.shutdown(NEVER));
    assert!(driver.shutdown(None), "twice is once");
    assert!(driver.try_seat().is_none());
    assert!(!driver.drive());
    driver.interrupt();
    assert_eq!(driver.foreign_tasks(), 0);
}

#[test]
fn a_shutdown_waits_for_a_blocking_call_only_if_told_to() {
    for (timeout, waits) in [(None, false), (NEVER, true)] {
        let driver = driver();
        let (release, released) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let (begun, has_begun) = mpsc::channel();
        driver.handle().unwrap().spawn_blocking(move || {
            begun.send(()).unwrap();
            released.recv().unwrap();
            done.send(()).unwrap();
        });
        has_begun.recv().unwrap();
        if waits {
            release.send(()).unwrap();
        }
        assert!(driver.shutdown(timeout));
        assert_eq!(is_done.try_recv().is_ok(), waits);
        let _ = release.send(());
    }
}

#[test]
fn a_driver_can_be_shut_down_and_dropped_by_an_async_task() {
    let host = driver();
    for explicitly in [true, false] {
        let driver = driver();
        driver.handle().unwrap().spawn(std::future::pending::<()>());
        let (release, released) = mpsc::channel::<()>();
        driver
            .handle()
            .unwrap()
            .spawn_blocking(move || released.recv());
        let task = host.handle().unwrap().spawn(async move {
            if explicitly {
                assert!(driver.shutdown(NEVER));
            }
            drop(driver);
        });
        while !task.is_finished() {
            assert!(host.drive());
        }
        let outcome = pin!(task).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(outcome, Poll::Ready(Ok(()))), "{outcome:?}");
        drop(release);
    }
}

#[test]
fn a_pool_without_threads_is_refused() {
    let error = Driver::new(Some(0), "blocking").err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_driver_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Driver>();
}
