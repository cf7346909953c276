//! How pasta is called. The options are those that Debian 12 and later versions have in common.

use std::net::{IpAddr, Ipv4Addr};

/// What steps take for a name server when those of the host can only be asked from its loopback device.
pub(super) const FORWARDED_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));

/// The name of its device in the namespace.
pub(super) const DEVICE: &str = "eth0";

/// The arguments for the namespace that pasta finds as its standard input.
///
/// The addresses are not the host's, as they would be without `--address`: what listens on the host's outward addresses is then reached
/// by these, as from any other machine.
pub(super) fn arguments(forward_dns: bool) -> Vec<String> {
    // A path that a process may always open, whatever became of its capabilities; other descriptors than the first three are closed.
    const NAMESPACE: &str = "/proc/self/fd/0";
    let options = [
        // Root in the namespace that owns the network, also where this is the machine's root: another user could not enter it.
        &["--runas", "0"][..],
        &["--netns-only", "--netns", NAMESPACE, "--no-netns-quit"],
        &["--quiet", "--config-net", "--ns-ifname", DEVICE],
        &["--address", "10.255.82.2", "--netmask", "30", "--gateway", "10.255.82.1"],
        &["--address", "fd52:4275:696c:6400::2", "--gateway", "fe80::1"],
        // No port of one side is a port of the other, and no address means the host's loopback.
        &["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"],
        &["--no-map-gw"],
        // The device is configured from outside.
        &["--no-dhcp", "--no-dhcpv6", "--no-ra"],
    ];
    let mut arguments: Vec<String> = options.concat().into_iter().map(ToOwned::to_owned).collect();
    if forward_dns {
        arguments.extend(["--dns-forward".to_owned(), FORWARDED_DNS.to_string()]);
    }
    arguments
}
