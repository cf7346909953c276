//! The device that pasta makes the network of a build with.

use std::fs::File;
use std::io;

use rustix::io::Errno;

const DEVICE: &str = "/dev/net/tun";

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot open `{DEVICE}`, which pasta needs ({})", self.remedy().0)]
pub(super) struct TunError {
    /// Whether the kernel has it.
    is_known: bool,
    source: io::Error,
}

/// Finds out whether this process may use it, by opening it.
pub(super) fn check() -> Result<(), TunError> {
    let opened = File::options().read(true).write(true).open(DEVICE);
    opened.map(drop).map_err(|source| {
        let misc = std::fs::read_to_string("/proc/misc").unwrap_or_default();
        let is_known = misc.split_whitespace().any(|word| word == "tun");
        TunError { is_known, source }
    })
}

impl TunError {
    /// What would help: a command where there is one.
    pub(super) fn fix(&self) -> &'static str {
        self.remedy().1
    }

    /// What would help, in a sentence and by itself.
    fn remedy(&self) -> (&'static str, &'static str) {
        match Errno::from_io_error(&self.source) {
            // Where udev makes it, it is everybody's.
            Some(Errno::ACCESS) => {
                ("as root: `chmod a+rw /dev/net/tun`", "chmod a+rw /dev/net/tun")
            }
            // The devices of a container are those that it is given.
            Some(Errno::PERM) => (
                "start the container with `--device /dev/net/tun`",
                "start the container with --device /dev/net/tun",
            ),
            Some(Errno::NOENT) if self.is_known => (
                "start the container with `--device /dev/net/tun`; outside of one, as root: `mknod -m 666 /dev/net/tun c 10 200`",
                "start the container with --device /dev/net/tun",
            ),
            _ => (
                "as root: `modprobe tun`; or start the container with `--device /dev/net/tun`",
                "modprobe tun",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_has_its_remedy() {
        for (errno, is_known, remedy) in [
            (Errno::ACCESS, true, "chmod a+rw /dev/net/tun"),
            (Errno::PERM, true, "--device /dev/net/tun"),
            (Errno::NOENT, true, "--device /dev/net/tun"),
            (Errno::NOENT, false, "modprobe tun"),
            (Errno::NODEV, false, "modprobe tun"),
        ] {
            let error = TunError { is_known, source: errno.into() };
            assert!(error.to_string().contains(remedy), "{error}");
            assert!(error.fix().ends_with(remedy), "{}", error.fix());
        }
    }
}
