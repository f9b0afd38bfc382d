//! `#[polity::main]` and `#[polity::test]`, expanded and run. Where their errors point is tested in package `polity-macros`.

use std::io;
use std::num::ParseIntError;
use std::thread;

use polity::{Builder, Handle, Host, InitError, JoinError, Policy};
use polity_policies::Priority;
use polity_tests::within;

struct Refuses;

impl Policy for Refuses {
    type Task = ();

    fn name(&self) -> &str {
        "refuses"
    }
    fn init(&self, _host: &Host<'_>) -> Result<(), InitError> {
        Err("not today".into())
    }
}

#[polity::test]
async fn a_test_runs_on_its_own_thread_beside_one_worker() {
    let root = thread::current().id();
    assert_eq!(Handle::current().worker_count(), 1);
    let worker = polity::spawn(async { thread::current().id() });
    assert_ne!(worker.await.unwrap(), root);
}

#[polity::test]
async fn the_body_is_not_a_task() {
    assert_eq!(Handle::current().metrics().polls, 0);
    assert_eq!(polity::task::try_id(), None);
}

#[polity::test(worker_threads = 1 + 2)]
async fn a_number_of_workers_may_be_computed() {
    assert_eq!(Handle::current().worker_count(), 3);
}

#[polity::test(policy = Priority::new(), worker_threads = 2)]
async fn the_policy_is_loaded_before_the_body_runs() {
    assert_eq!(Handle::current().policy_status().unwrap().name, "priority");
    assert_eq!(polity::spawn(async { 3 }).await.unwrap(), 3);
}

#[polity::test]
async fn an_error_of_the_body_is_the_tests() -> Result<(), Box<dyn std::error::Error>> {
    let number: u8 = "3".parse()?;
    polity::spawn(async move { assert_eq!(number, 3) }).await?;
    Ok(())
}

#[polity::test]
#[should_panic(expected = "from the body")]
async fn a_panic_of_the_body_is_the_tests() {
    panic!("from the body");
}

#[polity::test(policy = Refuses)]
#[should_panic(expected = "the runtime was not built: ")]
async fn a_policy_that_is_refused_fails_the_test_before_its_body_runs() {
    unreachable!("the body runs");
}

#[polity::test(crate = renamed::inner)]
async fn polity_may_have_another_name() {
    assert_eq!(polity::spawn(async { 1 }).await.unwrap(), 1);
}

mod renamed {
    pub(crate) use polity as inner;
}

/// `main` may be any function that is called outside a task.
#[polity::main(worker_threads = 2, unpinned)]
async fn doubled(text: &str, root: thread::ThreadId) -> Result<u32, ParseIntError> {
    // Names of the expansion, here with other meanings.
    let runtime = text.parse::<u32>()?;
    assert_eq!(thread::current().id(), root);
    assert_eq!(Handle::current().worker_count(), 2);
    let doubled = polity::spawn(async move { runtime * 2 });
    Ok(doubled.await.unwrap())
}

#[test]
fn a_function_with_arguments_and_a_result_runs_on_the_thread_that_calls_it() {
    within(|| {
        let here = thread::current().id();
        assert_eq!(doubled("21", here), Ok(42));
        assert!(doubled("many", here).is_err());
    });
}

#[polity::main(unpinned)]
async fn workers_by_default() -> usize {
    Handle::current().worker_count()
}

#[test]
fn main_has_as_many_workers_as_the_builder_makes() {
    within(|| {
        let by_builder = Builder::new().pin(polity::Pin::Off).build().unwrap();
        assert_eq!(workers_by_default(), by_builder.worker_count());
    });
}

#[polity::main(policy = Refuses, unpinned)]
async fn refused() {
    unreachable!("the body runs");
}

#[test]
fn a_refused_load_is_a_panic_that_says_what_was_refused() {
    within(|| {
        let panic = std::panic::catch_unwind(refused).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(
            text.starts_with("#[polity::main] on `refused`: the runtime was not built: "),
            "{text}"
        );
        assert!(text.ends_with("not today"), "{text}");
    });
}

#[polity::main(unpinned)]
async fn leaves_a_task(dropped: std::sync::mpsc::Sender<()>) {
    let drops = scopeguard(dropped);
    let (polled, is_polled) = futures::channel::oneshot::channel();
    drop(polity::spawn(async move {
        let _drops = drops;
        polled.send(()).unwrap();
        std::future::pending::<()>().await;
    }));
    is_polled.await.unwrap();
}

fn scopeguard(dropped: std::sync::mpsc::Sender<()>) -> impl Send {
    struct Tells(std::sync::mpsc::Sender<()>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    Tells(dropped)
}

#[test]
fn tasks_that_are_left_are_dropped_before_the_function_returns() {
    within(|| {
        let (dropped, is_dropped) = std::sync::mpsc::channel();
        leaves_a_task(dropped);
        assert_eq!(is_dropped.try_recv(), Ok(()));
    });
}

#[polity::main(unpinned)]
async fn hidden() -> impl Iterator<Item = Result<u8, io::Error>> {
    std::iter::once(Ok(7))
}

#[polity::main(unpinned)]
async fn in_an_error(fail: JoinError) -> Result<(), JoinError> {
    Err(fail)
}

#[test]
fn any_return_type_will_do() {
    within(|| {
        assert_eq!(hidden().next().unwrap().unwrap(), 7);
        let runtime = polity_tests::runtime(1);
        let task = runtime.spawn(std::future::pending::<()>());
        task.abort();
        let aborted = polity_tests::wait_for("the task", task).unwrap_err();
        assert!(in_an_error(aborted).unwrap_err().is_cancelled());
    });
}
