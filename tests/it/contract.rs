//! What a policy may rely on: which calls come, in which order, and what its verdicts mean.

mod calls;
mod claims;
mod custody;
mod dsqs;
mod vtimes;

use std::sync::{Arc, Mutex};

use polity::{Host, InitError, WorkerId};

const W0: WorkerId = WorkerId::new(0);
const W1: WorkerId = WorkerId::new(1);

/// For `init`.
fn create(host: &Host<'_>, number: u32) -> Result<(), InitError> {
    host.create_dsq(number)?;
    Ok(())
}

type Log = Arc<Mutex<Vec<String>>>;
