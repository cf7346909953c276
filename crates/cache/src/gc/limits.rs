//! How much space a store may take.

use std::path::Path;

use rustix::fs::statvfs;

use crate::disk_error::{DiskError, OnPath};

/// What may be used of a disk, in bytes. Without any of it there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceLimits {
    /// What the store may keep in any case.
    pub reserved: Option<u64>,
    /// What it may take at most.
    pub max_used: Option<u64>,
    /// What it leaves free on the disk for others.
    pub min_free: Option<u64>,
}

/// What a disk has room for, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// Altogether.
    pub total: u64,
    /// For this user.
    pub free: u64,
}

impl DiskSpace {
    /// Asks the file system of a path.
    ///
    /// # Errors
    ///
    /// When it does not say.
    pub fn of(path: &Path) -> Result<Self, DiskError> {
        let said = statvfs(path).on_path("inspect the file system of", path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(said.f_frsize);
        Ok(Self { total: bytes(said.f_blocks), free: bytes(said.f_bavail) })
    }
}

const GB: u64 = 1_000_000_000;

impl SpaceLimits {
    /// BuildKit's for a disk of this size.
    #[must_use]
    pub fn for_disk(disk: DiskSpace) -> Self {
        Self {
            reserved: Some((disk.total / 10).min(10 * GB)),
            max_used: Some((disk.total / 10 * 8).min(100 * GB)),
            min_free: Some(disk.total / 5),
        }
    }

    /// Whether there is a limit.
    pub fn is_any(&self) -> bool {
        self.reserved.is_some() || self.max_used.is_some() || self.min_free.is_some()
    }

    /// What may stay of `used` bytes on a disk with `free` ones: all of it, or fewer.
    pub fn allowed(&self, used: u64, free: u64) -> u64 {
        let missing = self.min_free.map_or(0, |min_free| min_free.saturating_sub(free));
        let wanted = match *self {
            // Alone it is what remains.
            Self { reserved: Some(reserved), max_used: None, min_free: None } => reserved,
            _ => self.max_used.unwrap_or(u64::MAX).min(used.saturating_sub(missing)),
        };
        wanted.max(self.reserved.unwrap_or(0)).min(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_limit_counts_down_to_what_is_reserved() {
        let limits = |reserved, max_used, min_free| SpaceLimits { reserved, max_used, min_free };
        for (limits, used, free, allowed) in [
            (limits(None, None, None), 50, 0, 50),
            (limits(Some(10), None, None), 50, 100, 10),
            (limits(Some(60), None, None), 50, 0, 50),
            (limits(None, Some(40), None), 50, 100, 40),
            (limits(None, Some(60), None), 50, 0, 50),
            (limits(None, None, Some(30)), 50, 100, 50),
            (limits(None, None, Some(30)), 50, 20, 40),
            (limits(None, None, Some(300)), 50, 20, 0),
            (limits(Some(5), None, Some(300)), 50, 20, 5),
            (limits(Some(5), Some(45), Some(30)), 50, 20, 40),
            (limits(Some(5), Some(35), Some(30)), 50, 20, 35),
            (limits(Some(10), None, Some(30)), 50, 100, 50),
        ] {
            assert_eq!(limits.allowed(used, free), allowed, "{limits:?} {used} {free}");
        }
    }

    #[test]
    fn a_disk_is_not_filled_by_default() {
        let small = SpaceLimits::for_disk(DiskSpace { total: 50 * GB, free: 0 });
        assert_eq!(small.max_used, Some(40 * GB));
        assert_eq!((small.reserved, small.min_free), (Some(5 * GB), Some(10 * GB)));
        let large = SpaceLimits::for_disk(DiskSpace { total: 1000 * GB, free: 0 });
        assert_eq!((large.reserved, large.max_used), (Some(10 * GB), Some(100 * GB)));
    }
}
