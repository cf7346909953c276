//! The DNS configuration of steps.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::NetworkError;

const HOST: &str = "/etc/resolv.conf";

/// Where systemd-resolved keeps the servers that its stub at 127.0.0.53 asks.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

const STUB: &str = "127.0.0.53";

/// For hosts that have loopback servers only, which a network of its own cannot reach; Docker's and BuildKit's choice.
const PUBLIC_SERVERS: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8)),
    IpAddr::V4(Ipv4Addr::new(8, 8, 4, 4)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844)),
];

/// The host's `/etc/resolv.conf`, or the one behind it when that only names the stub of systemd-resolved.
#[derive(Clone, Debug)]
pub(super) struct HostResolvConf {
    text: String,
}

impl HostResolvConf {
    /// Reads it. A host without one has an empty one.
    pub(super) fn read() -> Result<Self, NetworkError> {
        let text = read(HOST)?;
        if servers(&text).eq([STUB]) {
            let resolved = read(RESOLVED)?;
            if !resolved.is_empty() {
                return Ok(Self { text: resolved });
            }
        }
        Ok(Self { text })
    }

    /// For steps in the host's network.
    pub(super) fn in_host_network(self) -> String {
        self.text
    }

    /// Whether there is a server, and none that can be reached from another network than the host's.
    pub(super) fn is_loopback_only(&self) -> bool {
        let mut servers = servers(&self.text).peekable();
        servers.peek().is_some() && servers.all(is_local)
    }

    /// For steps in a network of their own: without servers of the host's loopback device, and if none is left with `forwarded`, which
    /// leads to the host's, or else with public ones.
    pub(super) fn in_own_network(&self, forwarded: Option<IpAddr>) -> String {
        let is_kept = |line: &&str| server(line).is_none_or(|server| !is_local(server));
        let mut text: String =
            self.text.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
        if servers(&text).next().is_none() {
            let others = match &forwarded {
                Some(forwarded) => std::slice::from_ref(forwarded),
                None => &PUBLIC_SERVERS,
            };
            text.extend(others.iter().map(|server| format!("nameserver {server}\n")));
        }
        text
    }
}

fn read(path: &'static str) -> Result<String, NetworkError> {
    match fs::read(path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(NetworkError::ResolvConf { path, source }),
    }
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_ascii_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next()).flatten()
}

fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(server)
}

/// Whether only the host can reach this server: on its loopback device, or by the name of one of its devices.
fn is_local(server: &str) -> bool {
    server.contains('%') || server.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(text: &str, forwarded: Option<IpAddr>) -> String {
        HostResolvConf { text: text.to_owned() }.in_own_network(forwarded)
    }

    #[test]
    fn loopback_servers_are_dropped() {
        let text = "search lan\nnameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver ::1\nnameserver fe80::1%wlan0\n";
        assert_eq!(own(text, None), "search lan\nnameserver 10.0.0.2\n");
        assert!(!HostResolvConf { text: text.to_owned() }.is_loopback_only());
    }

    #[test]
    fn others_replace_none() {
        let text = "options edns0\nnameserver 127.0.0.53\n";
        assert_eq!(
            own(text, None),
            "options edns0\nnameserver 8.8.8.8\nnameserver 8.8.4.4\nnameserver 2001:4860:4860::8888\nnameserver 2001:4860:4860::8844\n"
        );
        assert!(HostResolvConf { text: text.to_owned() }.is_loopback_only());
        let forwarded = Some(super::super::pasta::FORWARDED_DNS);
        assert_eq!(own(text, forwarded), "options edns0\nnameserver 169.254.1.1\n");
        assert!(!HostResolvConf { text: String::new() }.is_loopback_only());
    }

    #[test]
    fn servers_are_recognised() {
        assert!(
            servers("# nameserver 1.1.1.1\n nameserver\t127.0.0.53 x\nnameserver\n").eq([STUB])
        );
    }
}
