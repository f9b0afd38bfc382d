//! The ring: in order, once each, whoever takes.

use crate::queue::ring::Ring;

#[cfg(not(polity_loom))]
mod threads {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn words_come_out_in_the_order_in_which_they_went_in_around_and_around() {
        let ring = Ring::<4>::new();
        let mut next = 0;
        for word in 0..100 {
            ring.push(word).unwrap();
            if word % 3 > 0 {
                assert_eq!(ring.pop(), Some(next));
                next += 1;
            }
            while word - next > 2 {
                assert_eq!(ring.pop(), Some(next));
                next += 1;
            }
        }
        assert_eq!(
            std::iter::from_fn(|| ring.pop()).collect::<Vec<_>>(),
            (next..100).collect::<Vec<_>>()
        );
        assert!(ring.is_empty());
    }

    #[test]
    fn a_full_ring_gives_the_word_back_until_one_was_taken() {
        let ring = Ring::<2>::new();
        assert_eq!(
            [ring.push(1), ring.push(2), ring.push(3)],
            [Ok(()), Ok(()), Err(3)]
        );
        let mut taken = [0; 2];
        assert_eq!((ring.taker().take(&mut taken), taken), (1, [1, 0]));
        assert_eq!([ring.push(3), ring.push(4)], [Ok(()), Err(4)]);
        assert_eq!(
            [ring.pop(), ring.pop(), ring.pop()],
            [Some(2), Some(3), None]
        );
    }

    #[test]
    fn others_take_the_older_half_as_far_as_they_have_room_for_it() {
        let ring = Ring::<8>::new();
        let taker = ring.taker();
        assert_eq!(taker.take(&mut [0; 8]), 0, "of an empty one");
        (1..=7).for_each(|word| ring.push(word).unwrap());
        let mut taken = [0; 8];
        assert_eq!(
            (taker.take(&mut taken), taken),
            (4, [1, 2, 3, 4, 0, 0, 0, 0])
        );
        assert_eq!((taker.take(&mut taken[..1]), taken[0]), (1, 5));
        assert_eq!((taker.len(), ring.pop()), (2, Some(6)));
    }

    /// What is pushed, popped and taken by three threads at once comes out once each, and in order for each of them.
    #[test]
    fn each_word_goes_to_one_thread() {
        const WORDS: u64 = if cfg!(miri) { 1_000 } else { 200_000 };
        let ring = Ring::<16>::new();
        let done = AtomicBool::new(false);
        let mut all = thread::scope(|scope| {
            let takers = [ring.taker(), ring.taker()].map(|taker| {
                let done = &done;
                scope.spawn(move || {
                    let mut taken = Vec::new();
                    let mut batch = [0; 5];
                    loop {
                        let last = done.load(Ordering::Acquire);
                        let count = taker.take(&mut batch);
                        taken.extend_from_slice(&batch[..count]);
                        if count == 0 && last {
                            return taken;
                        }
                    }
                })
            });
            let mut popped = Vec::new();
            for word in 0..WORDS {
                let mut word = word;
                while let Err(back) = ring.push(word) {
                    word = back;
                    popped.extend(ring.pop());
                }
                if word % 3 == 0 {
                    popped.extend(ring.pop());
                }
            }
            done.store(true, Ordering::Release);
            let mut all = vec![popped];
            all.extend(takers.map(|taker| taker.join().unwrap()));
            all
        });
        assert!(all.iter().all(|words| words.is_sorted()));
        all.push(std::iter::from_fn(|| ring.pop()).collect());
        let mut all = all.concat();
        all.sort_unstable();
        assert_eq!(all, (0..WORDS).collect::<Vec<_>>());
    }
}

#[cfg(polity_loom)]
mod loom_models {
    use loom::thread;

    use super::*;
    use crate::model::check;

    /// Everything that was taken, sorted.
    fn sorted(taken: impl IntoIterator<Item = Vec<u64>>) -> Vec<u64> {
        let mut all: Vec<u64> = taken.into_iter().flatten().collect();
        all.sort_unstable();
        all
    }

    fn rest(ring: &Ring<2>) -> Vec<u64> {
        std::iter::from_fn(|| ring.pop()).collect()
    }

    #[test]
    fn owner_and_taker_get_each_word_once() {
        check(None, || {
            let ring = Ring::<2>::new();
            let taker = ring.taker();
            let theirs = thread::spawn(move || {
                let mut words = [0; 2];
                let count = taker.take(&mut words);
                words[..count].to_vec()
            });
            ring.push(1).unwrap();
            ring.push(2).unwrap();
            let ours: Vec<u64> = ring.pop().into_iter().collect();
            let theirs = theirs.join().unwrap();
            assert_eq!(sorted([ours, theirs, rest(&ring)]), [1, 2]);
        });
    }

    /// The slot that the taker reads may be written again meanwhile.
    #[test]
    fn a_slot_that_is_used_again_is_not_taken_for_what_was_in_it() {
        check(Some(3), || {
            let ring = Ring::<2>::new();
            let taker = ring.taker();
            ring.push(1).unwrap();
            let theirs = thread::spawn(move || {
                let mut words = [0; 2];
                let mut taken = Vec::new();
                for _ in 0..2 {
                    let count = taker.take(&mut words);
                    taken.extend_from_slice(&words[..count]);
                }
                taken
            });
            let mut ours = Vec::new();
            for word in [2, 3, 4] {
                if ring.push(word).is_err() {
                    ours.extend(ring.pop());
                    // Whatever the taker does, there is room now.
                    ring.push(word).unwrap();
                }
            }
            let theirs = theirs.join().unwrap();
            assert!(theirs.is_sorted());
            assert_eq!(sorted([ours, theirs, rest(&ring)]), [1, 2, 3, 4]);
        });
    }

    #[test]
    fn two_takers_get_each_word_once_and_see_what_came_before_its_push() {
        check(Some(3), || {
            let ring = Ring::<2>::new();
            let written = loom::sync::Arc::new(loom::sync::atomic::AtomicU64::new(0));
            let takers = [ring.taker(), ring.taker()].map(|taker| {
                let written = loom::sync::Arc::clone(&written);
                thread::spawn(move || {
                    let mut words = [0; 2];
                    let count = taker.take(&mut words);
                    if count > 0 {
                        assert_eq!(written.load(loom::sync::atomic::Ordering::Relaxed), 1);
                    }
                    words[..count].to_vec()
                })
            });
            written.store(1, loom::sync::atomic::Ordering::Relaxed);
            ring.push(1).unwrap();
            ring.push(2).unwrap();
            let [first, second] = takers.map(|taker| taker.join().unwrap());
            assert_eq!(sorted([first, second, rest(&ring)]), [1, 2]);
        });
    }
}
