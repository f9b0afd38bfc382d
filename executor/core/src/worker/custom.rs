//! Verdicts for custom DSQs, carried out: all for one DSQ under one lock.
//!
//! A queue that all workers share is a few cache lines that go from core to core with its lock: for a task that does
//! nothing, each such trip costs as much as the rest of its life. So a batch makes one trip for each DSQ that it names.

use std::sync::Arc;

use polity_policy::{DsqId, ExitKind};

use crate::callback::Callback;
use crate::hosting::Generation;
use crate::hosting::batch::ForCustom;
use crate::machine::Machine;
use crate::seat::Place;
use crate::worker::Worker;

impl<M: Machine> Worker<M> {
    /// Puts what is noted for custom DSQs there, in the order in which it was said. Complexity: one step for each task and each
    /// DSQ that is named.
    pub(super) fn push_batch_custom(&mut self, generation: &Arc<Generation>) {
        let mut custom = std::mem::take(&mut self.notes.custom);
        while let Some(first) = custom.first() {
            let number = first.number;
            if !self.push_to(generation, number, &mut custom) {
                // Another worker's callback destroyed it since the verdict was checked.
                let ForCustom { token, .. } = custom.remove(0);
                let dsq = DsqId::Custom(number);
                let message = format!("insert into DSQ {dsq}, which was destroyed meanwhile");
                // That is where it was said.
                self.local.set_place(Place::Callback(Callback::Enqueue));
                self.seat.activity.set_task(Some(token.header().id()));
                self.host_call(generation).end(ExitKind::Error, 0, &message);
                self.seat.activity.set_task(None);
                self.local.set_place(Place::Between);
                self.core.push_ingress(&self.local, token);
            }
        }
        self.notes.custom = custom;
    }

    /// Moves all that goes to this DSQ there; `false`: nothing does.
    fn push_to(
        &mut self,
        generation: &Generation,
        number: u32,
        custom: &mut Vec<ForCustom>,
    ) -> bool {
        let Some(dsq) = generation.dsqs.get(number) else {
            return false;
        };
        let kept = self.notes.kept.get_mut();
        let before = kept.len();
        let mut these = custom.extract_if(.., |it| it.number == number && dsq.fits(it.rank));
        dsq.push_each(|| {
            let it = these.next()?;
            kept.push(it.token.header());
            Some((it.rank, it.token.queue(generation.tag, number)))
        });
        drop(these);
        // Only now, when the lock is free: who looks before the push finds nothing and parks.
        for header in &kept[before..] {
            self.core.wake_for(header, self.local.id);
        }
        kept.len() > before
    }
}
