//! Owners as the kernel takes them.

use rustix::fs::{Gid, Uid};

/// The last id stands for no change, as it does for `chown`.
pub(crate) fn uid(id: u32) -> Option<Uid> {
    (id != u32::MAX).then(|| Uid::from_raw(id))
}

/// The same for a group.
pub(crate) fn gid(id: u32) -> Option<Gid> {
    (id != u32::MAX).then(|| Gid::from_raw(id))
}
