//! The lines that a step adds to `/etc/hosts`, and what `host-gateway` stands for.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use rbuild_solver::HostIp;

use super::NetworkError;
use crate::sandbox::ExtraHost;

/// The address that `--add-host name:host-gateway` leaves in an operation, so that its key is the same on every machine.
const HOST_GATEWAY: &str = "host-gateway";

/// The lines of an operation with their addresses.
pub(crate) fn extra_hosts(lines: &[HostIp]) -> Result<Vec<ExtraHost>, NetworkError> {
    let extra_host = |HostIp { host, ip }: &HostIp| {
        let address = match ip.as_str() {
            HOST_GATEWAY => host_address()
                .map_err(|source| NetworkError::HostGateway { host: host.clone(), source })?
                .to_string(),
            _ => ip.clone(),
        };
        Ok(ExtraHost { host: host.clone(), address })
    };
    lines.iter().map(extra_host).collect()
}

/// The address of this machine that its packets to others come from.
///
/// Steps reach it from any network but `none`, and with it what listens on all addresses of the machine; what listens on its loopback
/// device only they do not.
fn host_address() -> io::Result<IpAddr> {
    // Addresses that documentation has for itself (RFC 5737, RFC 3849). Nothing is sent to them: to connect a datagram socket is to look
    // up a route.
    outward(([0; 4], 0).into(), ([192, 0, 2, 1], 9).into()).or_else(|error| {
        let documentation = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
        outward(([0_u16; 8], 0).into(), (documentation, 9).into()).map_err(|_| error)
    })
}

fn outward(any: SocketAddr, there: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(any)?;
    socket.connect(there)?;
    Ok(socket.local_addr()?.ip())
}
