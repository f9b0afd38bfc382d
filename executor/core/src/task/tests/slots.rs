//! Slots and their tenants, one after the other.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use polity_policy::TaskId;

use super::{Runtime, Turn, joined, second_poll, waits_for_ever};
use crate::task::header::Header;
use crate::task::slab::{self, SlotCache};

/// Ends a task whose waker has been kept. Returns the waker, and the id.
fn ended_task(runtime: &mut Runtime) -> (Waker, TaskId) {
    let kept = Arc::new(Mutex::new(None));
    let given = Arc::clone(&kept);
    let handle = runtime.spawn(second_poll(move |waker| {
        waker.wake_by_ref();
        *given.lock().unwrap() = Some(waker.clone());
    }));
    assert_eq!(runtime.turns(), [Turn::RunsOn, Turn::Ended]);
    let waker = kept.lock().unwrap().take().unwrap();
    (waker, handle.id())
}

#[test]
fn a_slots_next_task_has_another_id() {
    let mut runtime = Runtime::new();
    let mut ids = HashSet::new();
    let mut slots = HashSet::new();
    for _ in 0..10 {
        let (_, id) = ended_task(&mut runtime);
        assert!(ids.insert(id));
        slots.insert(id.slot());
    }
    assert_eq!(slots.len(), 1, "the slot given back last is taken first");
}

#[test]
fn a_stale_waker_of_a_free_slot_does_nothing() {
    let mut runtime = Runtime::new();
    let (waker, _) = ended_task(&mut runtime);
    waker.wake_by_ref();
    waker.wake();
    assert_eq!(runtime.turns(), []);
}

#[test]
fn a_stale_waker_polls_the_slots_next_task_once_more_at_worst() {
    let mut runtime = Runtime::new();
    let (waker, old) = ended_task(&mut runtime);
    waker.wake_by_ref();
    let mut handle = runtime.spawn(waits_for_ever(()));
    assert_eq!(handle.id().slot(), old.slot());
    waker.wake_by_ref();
    assert_eq!(runtime.turns(), [Turn::Waits], "it was runnable anyway");
    waker.wake_by_ref();
    assert_eq!(runtime.turns(), [Turn::Waits]);
    handle.abort();
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert!(joined(&mut handle).unwrap_err().is_cancelled());
}

#[test]
fn a_stale_abort_handle_does_the_slots_next_task_no_harm() {
    let mut runtime = Runtime::new();
    let stale = runtime.spawn(async {}).abort_handle();
    runtime.turns();
    let mut handle = runtime.spawn(async { 7 });
    assert_eq!(handle.id().slot(), stale.id().slot());
    stale.abort();
    assert!(stale.is_finished());
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(joined(&mut handle).unwrap(), 7);
}

#[test]
fn every_slot_has_a_header_of_its_own_across_the_bounds_of_chunks() {
    // Past the second bound: 1024, 3072.
    let count = 3_200;
    let mut cache = SlotCache::default();
    let slots: Vec<u32> = (0..count).map(|_| cache.take()).collect();
    let headers: HashSet<*const Header> = slots
        .iter()
        .map(|slot| std::ptr::from_ref(slab::get(*slot).expect("handed out")))
        .collect();
    assert_eq!(headers.len(), slots.len());
    assert_eq!(slots.iter().collect::<HashSet<_>>().len(), slots.len());
    assert!(!slots.contains(&0), "slot 0 stays unused");
    for slot in slots {
        cache.give(slot);
    }
}

#[test]
fn any_number_may_be_looked_up() {
    let bounds = (0..=22).map(|nth| ((1_u64 << nth) - 1) * 1024);
    for bound in bounds {
        for slot in bound.saturating_sub(2)..bound + 2 {
            // Within a chunk neighbours are neighbours, so an offset that is wrong by one shows.
            let Ok(slot) = u32::try_from(slot) else {
                continue;
            };
            let pair = [slab::get(slot), slot.checked_add(1).and_then(slab::get)];
            if let [Some(this), Some(next)] = pair
                && u64::from(slot) + 1 != bound
            {
                let (this, next) = (std::ptr::from_ref(this), std::ptr::from_ref(next));
                assert_eq!(next.addr() - this.addr(), size_of::<Header>());
            }
        }
    }
    assert!(slab::get(u32::MAX).is_none());
}
