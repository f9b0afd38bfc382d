//! Attributes are kept once: a task carries a small id, and spawning counts no reference.
//!
//! Append-only for the life of the process, so an id never dangles, not even in a stale header. The tag is not part
//! of a set (it lies in the header), so applications that follow the docs have few sets. Interning takes a lock;
//! a spawn without attributes never comes here.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use polity_policy::Attributes;

/// Names an interned set. 0 is the default set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct AttributesId(u32);

impl AttributesId {
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

/// The id of a set equal to `attributes`, its tag left out.
pub(crate) fn intern(attributes: Attributes) -> AttributesId {
    let attributes = attributes.tag(0);
    if attributes == DEFAULT {
        return AttributesId::default();
    }
    // A panic while the lock was held (out of memory) leaves the map as it was.
    let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
    let ids = ids.get_or_insert_with(HashMap::new);
    if let Some(id) = ids.get(&attributes) {
        return *id;
    }
    let kept: &'static Attributes = Box::leak(Box::new(attributes));
    let id = AttributesId(ids.len() as u32 + 1);
    let (chunk, offset) = locate(id.0);
    let chunk = CHUNKS[chunk].get_or_init(|| (0..64 << chunk).map(|_| OnceLock::new()).collect());
    chunk[offset].get_or_init(|| kept);
    ids.insert(kept, id);
    id
}

/// The set. Stale or torn ids cannot occur: ids are single words, and never taken back.
#[inline]
pub(crate) fn get(id: AttributesId) -> &'static Attributes {
    if id.0 == 0 {
        return &DEFAULT;
    }
    let (chunk, offset) = locate(id.0);
    let set = CHUNKS[chunk].get().and_then(|chunk| chunk[offset].get());
    set.copied().unwrap_or(&DEFAULT)
}
