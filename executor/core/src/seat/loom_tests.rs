//! Models of the take-over: `RUSTFLAGS="--cfg polity_loom" cargo test -p polity-core --release --lib loom`.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering, fence};
use loom::thread;

use super::call_word::CallWord;
use crate::model;

/// loom has no `membarrier`: what the kernel does for the light fence, a full one does here.
fn both_fences() {
    fence(Ordering::SeqCst);
}

/// A seat whose thread has one task in its hands, and how often that has been taken on.
struct Seat {
    word: CallWord,
    in_hand: AtomicU64,
    taken: AtomicU64,
}

impl Seat {
    fn new() -> Arc<Self> {
        Arc::new(Seat {
            word: CallWord::new(),
            in_hand: AtomicU64::new(1),
            taken: AtomicU64::new(0),
        })
    }

    /// As `Core::convict` does.
    fn convict(&self, call: u64) {
        let found = self
            .word
            .revoke(call, both_fences, || self.in_hand.load(Ordering::Relaxed));
        if let Some(found) = found {
            self.taken.fetch_add(found, Ordering::Relaxed);
        }
    }

    /// As the door and its callers do.
    fn come_out(&self, call: u64) {
        let ours = self.word.leave(call, both_fences);
        // Either way the hands are empty now: carried out, or forgotten.
        self.in_hand.store(0, Ordering::Relaxed);
        self.taken.fetch_add(u64::from(ours), Ordering::Relaxed);
    }
}

#[test]
fn what_a_call_has_in_hand_is_carried_out_or_taken_but_not_both() {
    model::check(None, || {
        let seat = Seat::new();
        let call = seat.word.enter();
        let watchdog = {
            let seat = Arc::clone(&seat);
            thread::spawn(move || seat.convict(call))
        };
        seat.come_out(call);
        watchdog.join().unwrap();
        assert_eq!(seat.taken.load(Ordering::Relaxed), 1);
    });
}

/// A thread in a convicted call goes on claiming tasks: what it claims is found by the watchdog's walk, or given back by the
/// thread itself.
#[test]
fn a_claim_of_a_convicted_call_is_found_or_given_back() {
    const HELD: u64 = 1;
    const IN_HAND: u64 = 2;
    const FREE: u64 = 3;
    model::check(None, || {
        let seat = Seat::new();
        let custody = Arc::new(AtomicU64::new(HELD));
        let call = seat.word.enter();
        let claim = |from, custody: &AtomicU64| {
            custody
                .compare_exchange(from, FREE, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        let watchdog = {
            let (seat, custody) = (Arc::clone(&seat), Arc::clone(&custody));
            thread::spawn(move || {
                let found = seat.word.revoke(call, both_fences, || {
                    claim(IN_HAND, &custody) || claim(HELD, &custody)
                });
                // One look, as the walk over the slab; the model's thread never comes out before it.
                u64::from(found.expect("it has not come out"))
            })
        };
        let claimed = custody
            .compare_exchange(HELD, IN_HAND, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        both_fences();
        let mut taken = 0;
        if claimed && seat.word.is_revoked(call) {
            taken += u64::from(claim(IN_HAND, &custody));
        }
        taken += watchdog.join().unwrap();
        // Still in the hands of the thread, if the look came before the claim and the revocation after its fence: no.
        assert_eq!(taken, 1);
        assert_eq!(custody.load(Ordering::Relaxed), FREE);
    });
}
