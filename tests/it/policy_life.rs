//! Load, swap, unload, eject: what ends a policy, who is told, and that its tasks go on.

mod callbacks;
mod ends;
mod loads;
mod refusals;

use polity::Policy;

/// A policy of this name, for a load alone.
struct Named(String);

impl Policy for Named {
    type Task = ();

    fn name(&self) -> &str {
        assert_ne!(self.0, "panics", "no name, as ordered");
        &self.0
    }
}
