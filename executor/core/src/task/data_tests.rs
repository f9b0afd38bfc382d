//! The table of what a policy keeps for tasks. Plain, under Miri, and under AddressSanitizer.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

use polity_policy::TaskId;

use super::data::{Keeps, TaskData};
use super::slab::{SlotCache, handed_out};

/// Counts its drops, and has memory that a double drop or a leak would show.
#[derive(Default)]
struct Counted {
    drops: Arc<AtomicUsize>,
    text: String,
}

fn counted(drops: &Arc<AtomicUsize>, text: impl Into<String>) -> Counted {
    Counted {
        drops: Arc::clone(drops),
        text: text.into(),
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        assert!(!self.text.starts_with("bomb"), "{}", self.text);
    }
}

fn table<T: Default + Send + Sync + 'static>() -> TaskData<T> {
    TaskData::new(Keeps::Values)
}

/// So that walks over what was handed out come as far as this slot.
fn hand_out_up_to(slot: u32) {
    let mut slots = SlotCache::default();
    while handed_out() <= slot {
        slots.take();
    }
}

fn count(drops: &AtomicUsize) -> usize {
    drops.load(Ordering::SeqCst)
}

#[test]
fn a_value_is_found_by_its_task_and_by_no_other_tenant_of_the_slot() {
    let table = table::<String>();
    let (task, next) = (TaskId::from_parts(3, 1), TaskId::from_parts(3, 2));
    assert!(table.get(task).is_none());
    assert!(table.put(task, "mine".to_owned()));
    assert_eq!(table.get(task).unwrap(), "mine");
    assert!(table.get(next).is_none());
    assert!(table.get(TaskId::from_parts(4, 1)).is_none());
    table.drop_one(next);
    assert_eq!(table.get(task).unwrap(), "mine", "another one's end");
    table.drop_one(task);
    assert!(table.get(task).is_none());
    table.drop_one(task);
}

#[test]
fn any_slot_may_be_asked_for_and_memory_is_taken_for_the_chunks_of_those_that_were_put() {
    let table = table::<u64>();
    for slot in [0, 1023, 1024, 70_000, u32::MAX] {
        assert!(table.get(TaskId::from_parts(slot, 1)).is_none());
        table.drop_one(TaskId::from_parts(slot, 1));
    }
    for slot in [1, 1023, 1024, 3072] {
        assert!(table.put(TaskId::from_parts(slot, 7), u64::from(slot)));
    }
    for slot in [1, 1023, 1024, 3072] {
        let task = TaskId::from_parts(slot, 7);
        assert_eq!(*table.get(task).unwrap(), u64::from(slot));
    }
    assert_eq!(table.chunks_in_use(), 3);
}

#[test]
fn a_type_that_has_nothing_to_keep_takes_no_memory() {
    #[derive(Default, PartialEq, Debug)]
    struct Marker;

    let (unit, marker) = (table::<()>(), table::<Marker>());
    let unwanted: TaskData<u64> = TaskData::new(Keeps::Nothing);
    let task = TaskId::from_parts(5, 1);
    assert!(unit.put(task, ()) && marker.put(task, Marker) && unwanted.put(task, 8));
    assert_eq!(unit.get(task), Some(&()));
    assert_eq!(marker.get(task), Some(&Marker));
    assert_eq!(unwanted.get(task), Some(&0), "one value stands for all");
    unit.drop_one(task);
    assert_eq!(unit.get(task), Some(&()));
    let chunks = unit.chunks_in_use() + marker.chunks_in_use() + unwanted.chunks_in_use();
    assert_eq!(chunks, 0);
}

#[test]
fn a_type_without_size_that_counts_its_drops_is_kept_like_any_other() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    #[derive(Default)]
    struct Told;
    impl Drop for Told {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Ordering::SeqCst);
        }
    }

    hand_out_up_to(64);
    let mut table = table::<Told>();
    for slot in 1..=3 {
        assert!(table.put(TaskId::from_parts(slot, 1), Told));
    }
    assert_eq!(count(&DROPS), 0);
    table.drop_one(TaskId::from_parts(2, 1));
    assert_eq!(count(&DROPS), 1);
    assert!(table.clear().is_none());
    assert_eq!(count(&DROPS), 3);
    drop(table);
    assert_eq!(count(&DROPS), 3);
}

#[test]
fn each_value_is_dropped_once_with_its_task_or_with_the_table() {
    hand_out_up_to(2_000);
    let drops = Arc::<AtomicUsize>::default();
    let table = table::<Counted>();
    for slot in 1..=2_000 {
        let value = counted(&drops, format!("{slot}"));
        assert!(table.put(TaskId::from_parts(slot, 1), value));
    }
    for slot in (1..=2_000).step_by(2) {
        table.drop_one(TaskId::from_parts(slot, 1));
    }
    assert_eq!(count(&drops), 1_000);
    drop(table);
    assert_eq!(count(&drops), 2_000);
}

/// The end of a task may pass a generation by: then the next tenant finds what it has left.
#[test]
fn what_an_earlier_tenant_has_left_goes_when_the_next_one_comes() {
    let drops = Arc::<AtomicUsize>::default();
    let table = table::<Counted>();
    let (first, second) = (TaskId::from_parts(9, 1), TaskId::from_parts(9, 2));
    assert!(table.put(first, counted(&drops, "first")));
    assert!(table.put(second, counted(&drops, "second")));
    assert_eq!(count(&drops), 1);
    assert!(table.get(first).is_none());
    assert_eq!(table.get(second).unwrap().text, "second");

    let third = TaskId::from_parts(9, 3);
    assert!(table.put(second, counted(&drops, "bomb, as ordered")));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        table.put(third, counted(&drops, "third"))
    }));
    drop(panicked.expect_err("the drop of what was left"));
    assert_eq!(table.get(third).unwrap().text, "third");
    assert_eq!(count(&drops), 3);
}

#[test]
fn a_drop_that_panics_is_over_when_it_has_panicked_and_keeps_no_other_from_its_own() {
    hand_out_up_to(64);
    let drops = Arc::<AtomicUsize>::default();
    let mut table = table::<Counted>();
    for slot in 1..=6 {
        let text = if slot % 2 == 0 {
            "bomb, as ordered"
        } else {
            ""
        };
        assert!(table.put(TaskId::from_parts(slot, 1), counted(&drops, text)));
    }
    let one = TaskId::from_parts(2, 1);
    let panicked = catch_unwind(AssertUnwindSafe(|| table.drop_one(one)));
    assert!(panicked.is_err());
    assert!(table.get(one).is_none());
    let first = table.clear().expect("two of them panic");
    assert_eq!(crate::hosting::panic_text(&*first), "bomb, as ordered");
    assert_eq!(count(&drops), 6);

    // Without somebody who asks for the panic, and while another one unwinds.
    assert!(table.put(one, counted(&drops, "bomb, as ordered")));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _table = table;
        panic!("the first, as ordered");
    }));
    assert!(panicked.is_err());
    assert_eq!(count(&drops), 7);
}

/// Tokens go from thread to thread, and what was kept for them with them; the chunks are made by whoever comes first.
#[test]
fn whoever_is_handed_the_task_finds_what_the_one_before_has_put() {
    const THREADS: usize = 3;
    let tasks: u32 = if cfg!(miri) { 40 } else { 3_000 };
    hand_out_up_to(tasks + 2_048);
    let drops = Arc::<AtomicUsize>::default();
    let table = Arc::new(table::<Counted>());
    let begin = Arc::new(Barrier::new(THREADS));
    let mut threads = Vec::new();
    let (to_first, mut from) = channel::<(TaskId, usize)>();
    for nth in 0..THREADS {
        let (to, next) = channel();
        let from = std::mem::replace(&mut from, next);
        let to = (nth + 1 < THREADS).then_some(to);
        let (table, drops, begin) = (Arc::clone(&table), Arc::clone(&drops), Arc::clone(&begin));
        threads.push(thread::spawn(move || {
            begin.wait();
            for (task, hops) in from {
                match &to {
                    Some(to) if hops == 0 => {
                        assert!(table.put(task, counted(&drops, format!("{task}"))));
                        to.send((task, 1)).unwrap();
                    }
                    Some(to) => {
                        assert_eq!(table.get(task).unwrap().text, task.to_string());
                        to.send((task, hops + 1)).unwrap();
                    }
                    None => {
                        assert_eq!(table.get(task).unwrap().text, task.to_string());
                        table.drop_one(task);
                    }
                }
            }
        }));
    }
    for slot in 1_000..1_000 + tasks {
        to_first.send((TaskId::from_parts(slot, 1), 0)).unwrap();
    }
    drop(to_first);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(count(&drops), tasks as usize);
}

#[test]
fn two_threads_that_need_the_same_chunk_at_once_get_one() {
    let rounds = if cfg!(miri) { 5 } else { 200 };
    hand_out_up_to(64);
    for _ in 0..rounds {
        let drops = Arc::<AtomicUsize>::default();
        let table = Arc::new(table::<Counted>());
        let begin = Arc::new(Barrier::new(2));
        let threads = [1, 2].map(|slot| {
            let (table, drops, begin) =
                (Arc::clone(&table), Arc::clone(&drops), Arc::clone(&begin));
            thread::spawn(move || {
                begin.wait();
                let task = TaskId::from_parts(slot, 1);
                assert!(table.put(task, counted(&drops, format!("{slot}"))));
                assert_eq!(table.get(task).unwrap().text, slot.to_string());
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(table.chunks_in_use(), 1);
        drop(table);
        assert_eq!(count(&drops), 2);
    }
}
