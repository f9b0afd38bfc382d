//! What a policy costs per task over the built-in FIFO.
//!
//! **Use it** after any change to the offer, the door, custody or the shared DSQs. **Not for** judging a policy: its
//! worth is the order it gives to tasks that matter, and next to tasks of 2 µs and more these costs disappear.
//!
//! | function | who decides |
//! |---|---|
//! | `built_in` | no policy is loaded: ingress is the run queue |
//! | `empty` | a policy with a name only: the contract's defaults, everything through the global DSQ |
//! | `custom_fifo`, `custom_fifo_exact` | one custom DSQ, from which a worker takes up to 32 at once, or one |
//! | `fifo` | `Fifo::new()`: exact global order, so every worker takes from one queue |
//! | `fifo_per_worker` | `Fifo::per_worker()`: verdicts for the local DSQ |
//! | `priority` | `Priority::new()`: custom DSQs by weight, custody, dispatch |
//! | `vtime`, `vtime_coarse` | `Vtime`: one DSQ by vtime, with the clock read around each poll, and without |
//!
//! **How to read it.** Subtract `built_in`, divide by the operations of a round: that is nanoseconds per enqueue.
//! `yield_many` (200 × 1,000) has long batches, so it shows the marginal price of a call. `chained_spawn` (1,000)
//! has one task at a time, so nothing can be batched, and the policy also takes away the LIFO slot: it is the worst
//! case. What is expensive is lines of a shared queue that travel between cores, not the call: compare two workers
//! with one.
//!
//! **Noise.** As in `yield` and `spawn`; `versus --only policy_hop` takes turns and gives differences and ratios.

fn main() {
    let mut criterion = polity_benches::settings();
    for workers in [2, 1] {
        for name in ["yield_many", "chained_spawn"] {
            polity_benches::bench_policies(&mut criterion, name, workers);
        }
    }
    criterion.final_summary();
}
