//! The network of a step: its DNS configuration and its loopback device.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::error::SandboxError;
use super::plan::NetworkMode;
use crate::sys;

const HOST: &str = "/etc/resolv.conf";

/// Where systemd-resolved keeps the servers that its stub at 127.0.0.53 asks.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

const STUB: &str = "127.0.0.53";

/// For hosts that have loopback servers only, which a network of its own cannot reach; Docker's and BuildKit's choice.
const PUBLIC_SERVERS: [&str; 4] =
    ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"];

/// The `/etc/resolv.conf` that a step with this network should see, made from the host's. A host without one gives an empty one.
///
/// # Errors
///
/// When a file exists and cannot be read.
pub fn host_resolv_conf(network: NetworkMode) -> Result<String, SandboxError> {
    let mut text = read(HOST)?;
    if servers(&text).eq([STUB]) {
        let resolved = read(RESOLVED)?;
        if !resolved.is_empty() {
            text = resolved;
        }
    }
    Ok(if network.is_isolated() { without_loopback(&text) } else { text })
}

fn read(path: &'static str) -> Result<String, SandboxError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(SandboxError::ResolvConf { path, source }),
    }
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_ascii_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()).flatten()
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(server)
}

/// Leaves out servers on the host's loopback device, and adds public ones when none is left.
fn without_loopback(text: &str) -> String {
    let is_loopback = |line: &str| {
        server(line)
            .and_then(|server| server.parse().ok())
            .is_some_and(|ip: IpAddr| ip.is_loopback())
    };
    let mut kept: String =
        text.lines().filter(|line| !is_loopback(line)).flat_map(|line| [line, "\n"]).collect();
    if servers(&kept).next().is_none() {
        for server in PUBLIC_SERVERS {
            kept.push_str("nameserver ");
            kept.push_str(server);
            kept.push('\n');
        }
    }
    kept
}

/// Brings up the loopback device of a new network namespace.
pub(super) fn set_loopback_up() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::set_loopback_up(socket.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_servers_are_dropped() {
        assert_eq!(
            without_loopback(
                "search lan\nnameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver ::1\n"
            ),
            "search lan\nnameserver 10.0.0.2\n"
        );
    }

    #[test]
    fn public_servers_replace_none() {
        assert_eq!(
            without_loopback("options edns0\nnameserver 127.0.0.53\n"),
            "options edns0\nnameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n"
        );
    }

    #[test]
    fn servers_are_recognised() {
        assert!(
            servers("# nameserver 1.1.1.1\n nameserver\t127.0.0.53 x\nnameserver\n").eq([STUB])
        );
    }
}
