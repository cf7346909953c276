//! Extended attributes that belong to a file's content.

use std::io;
use std::os::fd::BorrowedFd;

use crate::layer::Xattr;

/// Whether an attribute counts as content: all but the kernel's and the security modules' (a label says where a
/// file lies, not what it is), of which file capabilities count, and overlayfs's own.
pub fn is_kept_xattr(name: &[u8]) -> bool {
    if name == b"security.capability" {
        return true;
    }
    let dropped: [&[u8]; 4] = [b"system.", b"security.", b"trusted.overlay.", b"user.overlay."];
    !dropped.iter().any(|prefix| name.starts_with(prefix))
}

/// The attributes of an open file or directory that count, sorted by name. None where there cannot be any.
pub fn read_xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    let mut xattrs = crate::layer::xattrs(file)?;
    xattrs.retain(|xattr| is_kept_xattr(&xattr.name));
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_counts() {
        for (name, kept) in [
            ("user.mime", true),
            ("security.capability", true),
            ("security.selinux", false),
            ("system.posix_acl_access", false),
            ("trusted.overlay.opaque", false),
            ("user.overlay.origin", false),
            ("trusted.x", true),
        ] {
            assert_eq!(is_kept_xattr(name.as_bytes()), kept, "{name}");
        }
    }
}
