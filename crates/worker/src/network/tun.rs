//! The device that pasta makes the network of a build with.

use std::fs::File;
use std::io;

use rustix::io::Errno;

const DEVICE: &str = "/dev/net/tun";

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot open `{DEVICE}`, which pasta needs ({})", self.remedy().0)]
pub(super) struct TunError {
    source: io::Error,
}

/// Finds out whether this process may use it, by opening it.
pub(super) fn check() -> Result<(), TunError> {
    let opened = File::options().read(true).write(true).open(DEVICE);
    opened.map(drop).map_err(|source| TunError { source })
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
        for (errno, remedy) in [
            (Errno::ACCESS, "chmod a+rw /dev/net/tun"),
            (Errno::PERM, "--device /dev/net/tun"),
            (Errno::NOENT, "modprobe tun"),
            (Errno::NODEV, "modprobe tun"),
        ] {
            let error = TunError { source: errno.into() };
            assert!(error.to_string().contains(remedy), "{error}");
            assert!(error.fix().ends_with(remedy), "{}", error.fix());
        }
    }
}
