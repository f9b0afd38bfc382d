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

#[test]
fn a_call_is_left_or_revoked_but_not_both() {
    model::check(None, || {
        let word = Arc::new(CallWord::new());
        // What the thread has in its hands: whoever owns it counts.
        let taken = Arc::new(AtomicU64::new(0));
        let call = word.enter();
        let watchdog = {
            let (word, taken) = (Arc::clone(&word), Arc::clone(&taken));
            thread::spawn(move || {
                if word.revoke(call, both_fences) {
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        if word.leave(call, both_fences) {
            taken.fetch_add(1, Ordering::Relaxed);
        }
        watchdog.join().unwrap();
        assert_eq!(taken.load(Ordering::Relaxed), 1);
    });
}
