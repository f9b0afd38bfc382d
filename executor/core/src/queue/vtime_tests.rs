//! The order of a DSQ with vtimes, against a list that is searched.

use std::sync::Arc;
use std::thread;

use polity_policy::WorkerId;
use proptest::prelude::*;

use super::{Taking, VtimeQueue};
use crate::task::entry::Entry;

const W0: WorkerId = WorkerId::new(0);

/// An entry of a task that nobody looks at.
fn entry(number: u32) -> Option<Entry> {
    Entry::from_bits(u64::from(number + 1) << 32 | 1)
}

fn number(entry: &Entry) -> u32 {
    entry.sequence() - 1
}

fn push(queue: &VtimeQueue, vtime: u64, number: u32) {
    queue.push_with(vtime, || entry(number));
}

fn pop(queue: &VtimeQueue) -> Option<u32> {
    let mut popped = None;
    queue.take_for(W0, |entry| {
        popped = Some(number(&entry));
        Taking::Enough
    });
    popped
}

fn pop_all(queue: &VtimeQueue) -> Vec<u32> {
    std::iter::from_fn(|| pop(queue)).collect()
}

/// `time_before64` of the kernel.
fn is_before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

/// What waits, oldest first. What is taken next is found by looking at all of it.
#[derive(Default)]
struct Model(Vec<(u64, u32)>);

impl Model {
    fn first(&self) -> Option<usize> {
        let mut indices = 0..self.0.len();
        let mut first = indices.next()?;
        for index in indices {
            if is_before(self.0[index].0, self.0[first].0) {
                first = index;
            }
        }
        Some(first)
    }

    fn pop(&mut self) -> Option<(u64, u32)> {
        self.first().map(|first| self.0.remove(first))
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// So far from the latest vtime that has been taken.
    Push(i64),
    Pop,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Within 2^61 of the latest one that was taken, all that waits is within 2^62 of each other.
    let far = -(1_i64 << 61)..1 << 61;
    let step = prop_oneof![
        2 => (-3_i64..4).prop_map(Step::Push), // ties
        2 => far.prop_map(Step::Push),
        3 => Just(Step::Pop),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn the_earliest_comes_first_and_equals_in_the_order_of_their_coming_wherever_the_numbers_wrap(
        start in any::<u64>(),
        steps in steps(),
    ) {
        let queue = VtimeQueue::default();
        let mut model = Model::default();
        let mut latest = start;
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Push(by) => {
                    let vtime = latest.wrapping_add_signed(by);
                    push(&queue, vtime, number);
                    model.0.push((vtime, number));
                }
                Step::Pop => {
                    let expected = model.pop();
                    prop_assert_eq!(pop(&queue), expected.map(|(_, number)| number));
                    if let Some((vtime, _)) = expected && is_before(latest, vtime) {
                        latest = vtime;
                    }
                }
            }
            prop_assert_eq!(queue.len(), model.0.len());
            prop_assert_eq!(queue.first(), model.first().map(|first| model.0[first].0));
        }
        let rest: Vec<u32> = std::iter::from_fn(|| model.pop()).map(|(_, number)| number).collect();
        prop_assert_eq!(pop_all(&queue), rest);
    }

    /// Outside the window the order is anybody's guess, but nothing is lost and nothing panics.
    #[test]
    fn whatever_the_vtimes_are_each_entry_comes_out_once(vtimes in prop::collection::vec(any::<u64>(), 0..100)) {
        let queue = VtimeQueue::default();
        for (number, vtime) in (0..).zip(&vtimes) {
            push(&queue, *vtime, number);
        }
        let mut popped = pop_all(&queue);
        popped.sort_unstable();
        prop_assert_eq!(popped, (0..vtimes.len() as u32).collect::<Vec<_>>());
    }
}

#[test]
fn the_order_goes_on_over_the_end_of_the_numbers() {
    let queue = VtimeQueue::default();
    let vtimes = [2, u64::MAX, 0, u64::MAX - 1, 1];
    for (number, vtime) in (0..).zip(vtimes) {
        push(&queue, vtime, number);
    }
    assert_eq!(queue.first(), Some(u64::MAX - 1));
    assert_eq!(pop_all(&queue), [3, 1, 2, 4, 0]);
    assert_eq!(queue.first(), None);
}

#[test]
fn a_queue_that_never_runs_empty_keeps_its_order_through_many_rounds_of_the_numbers() {
    let queue = VtimeQueue::default();
    let mut vtime = 0_u64;
    push(&queue, vtime, 0);
    for number in 1..100 {
        vtime = vtime.wrapping_add(1 << 62);
        push(&queue, vtime, number);
        assert_eq!(pop(&queue), Some(number - 1));
    }
}

#[test]
fn taking_several_takes_the_earliest_several() {
    let queue = VtimeQueue::default();
    for number in 0..10 {
        push(&queue, u64::from(9 - number), number);
    }
    let mut taken = Vec::new();
    queue.take_for(W0, |entry| {
        taken.push(number(&entry));
        if taken.len() == 3 {
            Taking::Enough
        } else {
            Taking::More
        }
    });
    assert_eq!(taken, [9, 8, 7]);
    assert_eq!((queue.len(), queue.first()), (7, Some(3)));
}

#[test]
fn a_closed_queue_takes_nothing_in_and_an_open_one_does_again() {
    let queue = VtimeQueue::default();
    push(&queue, 5, 0);
    assert_eq!(queue.close_if_empty(), Err(1));
    assert_eq!(pop(&queue), Some(0));
    assert_eq!(queue.close_if_empty(), Ok(()));
    assert!(queue.is_closed());
    push(&queue, 5, 1);
    assert_eq!(queue.len(), 0);
    queue.open();
    push(&queue, 5, 2);
    assert_eq!(pop_all(&queue), [2]);
}

#[test]
fn threads_that_push_and_take_at_once_lose_nothing() {
    const EACH: u32 = 2000;
    let queue = Arc::new(VtimeQueue::default());
    let pushers: Vec<_> = (0..2)
        .map(|thread| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                for number in thread * EACH..(thread + 1) * EACH {
                    push(&queue, u64::from(number).wrapping_mul(0x9e37_79b9), number);
                }
            })
        })
        .collect();
    let mut taken = Vec::new();
    while pushers.iter().any(|pusher| !pusher.is_finished()) {
        taken.extend(pop(&queue));
    }
    taken.extend(pop_all(&queue));
    taken.sort_unstable();
    assert_eq!(taken, (0..2 * EACH).collect::<Vec<_>>());
}
