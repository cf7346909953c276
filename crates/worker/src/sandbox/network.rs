//! The loopback device of a new network namespace.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::sys;

/// Brings up the loopback device of the process's network namespace, in which it is down at first.
pub(crate) fn set_loopback_up() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::set_loopback_up(socket.as_fd())
}
