//! Attributes are kept once: a task carries a small id, and spawning counts no reference.
//!
//! Append-only for the life of the process, so an id never dangles, not even in a stale header. Tag and deadline are not
//! part of a set (they are kept per task), so applications that follow the docs have few sets. Interning takes a lock; a spawn
//! without attributes inherits an id, and never comes here.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use polity_policy::Attributes;

/// Names an interned set, and says whether it has an affinity mask, so that wakes need not look. 0 is the default set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AttributesId(u32);

/// The set has an affinity mask.
const RESTRICTED: u32 = 1 << 31;
/// Bits of an id that nothing here sets: the header keeps a mark of its own there.
pub(super) const SPARE: u32 = 1 << 30;
const INDEX: u32 = SPARE - 1;

/// What a task is given at its birth, by its author or by inheritance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Given {
    pub(crate) id: AttributesId,
    pub(crate) tag: u64,
    /// In nanoseconds of the machine's clock; 0 for none.
    pub(crate) deadline: u64,
}

impl AttributesId {
    #[inline]
    pub(crate) fn is_restricted(self) -> bool {
        self.0 & RESTRICTED != 0
    }

    fn index(self) -> u32 {
        self.0 & INDEX
    }

    pub(super) fn to_bits(self) -> u32 {
        self.0
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        AttributesId(bits)
    }
}

static DEFAULT: Attributes = Attributes::new();

/// Chunk k holds `64 << k` sets.
static CHUNKS: [OnceLock<Box<[OnceLock<&'static Attributes>]>>; 26] =
    [const { OnceLock::new() }; 26];
static IDS: Mutex<Option<HashMap<&'static Attributes, AttributesId>>> = Mutex::new(None);

fn locate(id: u32) -> (usize, usize) {
    let nth = (id / 64 + 1).ilog2();
    (nth as usize, (id - ((1 << nth) - 1) * 64) as usize)
}

/// The id of the set of tasks of this [kind](Attributes::kind).
pub(crate) fn intern(attributes: Attributes) -> AttributesId {
    let attributes = attributes.kind();
    if attributes == DEFAULT {
        return AttributesId::default();
    }
    // A panic while the lock was held (out of memory) leaves the map as it was.
    let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
    let ids = ids.get_or_insert_with(HashMap::new);
    if let Some(id) = ids.get(&attributes) {
        return *id;
    }
    let index = ids.len() as u32 + 1;
    if index > INDEX {
        // A thousand million sets are kept, and as much memory is gone; the task is like any other.
        return AttributesId::default();
    }
    let kept: &'static Attributes = Box::leak(Box::new(attributes));
    let restricted = kept.get_affinity().map_or(0, |_| RESTRICTED);
    let id = AttributesId(index | restricted);
    let (chunk, offset) = locate(index);
    let chunk = CHUNKS[chunk].get_or_init(|| (0..64 << chunk).map(|_| OnceLock::new()).collect());
    chunk[offset].get_or_init(|| kept);
    ids.insert(kept, id);
    id
}

/// The set. Stale or torn ids cannot occur: ids are single words, and never taken back.
#[inline]
pub(crate) fn get(id: AttributesId) -> &'static Attributes {
    if id.index() == 0 {
        return &DEFAULT;
    }
    let (chunk, offset) = locate(id.index());
    let set = CHUNKS[chunk].get().and_then(|chunk| chunk[offset].get());
    set.copied().unwrap_or(&DEFAULT)
}
