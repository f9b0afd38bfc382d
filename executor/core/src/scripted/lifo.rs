//! How the LIFO slot and those who wait share a worker: by polls while they are short, by time when they are long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::scripted::world::{MS, World};

const US: u64 = 1_000;

/// A chain of tasks, each of which takes so long and spawns the next one, so that it lies in the slot.
#[derive(Clone)]
struct Chain {
    world: World,
    link_ns: u64,
    links: Arc<AtomicUsize>,
    stop: Arc<AtomicUsize>,
}

impl Chain {
    fn new(world: World, link_ns: u64) -> Self {
        let (links, stop) = (Arc::default(), Arc::default());
        Chain {
            world,
            link_ns,
            links,
            stop,
        }
    }

    fn goes_on(self) {
        if self.stop.load(Ordering::Relaxed) == 0 {
            let world = self.world;
            drop(world.spawn(0, async move {
                world.advance(self.link_ns);
                self.links.fetch_add(1, Ordering::Relaxed);
                self.goes_on();
            }));
        }
    }

    fn links(&self) -> usize {
        self.links.load(Ordering::Relaxed)
    }

    fn end(self) {
        self.stop.store(1, Ordering::Relaxed);
        self.world.run(0);
    }
}

/// So many links of a chain on worker 0 are polled until `others` tasks have been, which were in the queue before.
fn links_before(others: usize, each_ns: u64, link_ns: u64) -> usize {
    let world = World::new(1);
    let (chain, done) = (Chain::new(world, link_ns), Arc::<AtomicUsize>::default());
    let (link, counted) = (chain.clone(), Arc::clone(&done));
    drop(world.spawn(0, async move {
        for _ in 0..others {
            let done = Arc::clone(&counted);
            drop(world.spawn(0, async move {
                world.advance(each_ns);
                done.fetch_add(1, Ordering::Relaxed);
            }));
        }
        link.goes_on();
    }));
    while done.load(Ordering::Relaxed) < others {
        world.pass(0);
    }
    let polled = chain.links();
    chain.end();
    polled
}

#[test]
fn a_chain_of_short_polls_comes_three_times_before_the_queue_comes_once() {
    let polled = links_before(10, 100, 100);
    assert!((29..=31).contains(&polled), "{polled} links for 10 tasks");
}

#[test]
fn a_chain_of_long_polls_takes_turns_with_a_queue_of_long_polls() {
    let polled = links_before(10, 20 * US, 20 * US);
    assert!((5..=14).contains(&polled), "{polled} links for 10 tasks");
}

#[test]
fn while_a_long_poll_of_a_chain_is_paid_back_the_queue_has_many_short_ones() {
    // The queue has 400 us to run in all, a link takes 20: they come to 20, and some more until it is known that they are long.
    let polled = links_before(400, US, 20 * US);
    assert!((17..=28).contains(&polled), "{polled} links for 400 tasks");
}

#[test]
fn for_a_very_long_poll_the_queue_gets_back_a_fifth_of_a_millisecond() {
    // 4 ms in all. What was a millisecond, or ten, costs the chain 200 us and the poll at hand.
    let polled = links_before(80, 50 * US, 10 * MS);
    assert!((14..=24).contains(&polled), "{polled} links for 80 tasks");
}

#[test]
fn a_task_from_outside_does_not_wait_for_a_chain_of_long_polls() {
    let world = World::new(1);
    let chain = Chain::new(world, 20 * US);
    let link = chain.clone();
    drop(world.spawn(0, async move { link.goes_on() }));
    // Enough to know how long they take.
    while chain.links() < 50 {
        world.pass(0);
    }
    let polled_before_it = || {
        world.pass(0);
        let (before, task) = (chain.links(), world.spawn(1, async {}));
        while !task.is_finished() {
            world.pass(0);
        }
        chain.links() - before
    };
    // Several, so that it is not by chance the turn of what waits for everybody.
    let polled = [(); 10].map(|()| polled_before_it());
    chain.end();
    assert!(polled.iter().all(|links| *links <= 2), "{polled:?} links");
}
