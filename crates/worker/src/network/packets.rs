//! Which packets leave the network of the steps.
//!
//! pasta of before 2024 (Debian 12) delivers a packet for a loopback address to the host's loopback device. No route leads such a packet to
//! pasta's device, but a socket that is tied to the device sends it there, and so does who makes packets by hand. The device itself
//! therefore drops what an ordinary router would: it asks a filter about each frame, whatever made it and past whatever queue, and the
//! filter can only be taken away by who has the descriptor, pasta and nobody else. Rules of netfilter would need modules of the kernel,
//! would not see frames of packet sockets, and could be taken away by a step with `CAP_NET_ADMIN`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::bpf::{AT_LEAST, BYTE, EQUAL, HALF_WORD, WORD, give_back, jump, load};
use crate::sys::{self, BpfInstruction};

/// Ids that pasta may have in the namespace of processes whose first it is started by; it goes into the background by few forks.
const PROCESSES: std::ops::Range<i32> = 2..64;

/// Descriptors that it may have open; it opens the device among the first.
const DESCRIPTORS: std::ops::Range<ForeignRawFd> = 0..1024;

/// Makes the device of this name drop what must not leave. For the first process of the namespace of processes in which pasta runs.
pub(super) fn confine(device: &str) -> io::Result<()> {
    let mut refused = None;
    for process in PROCESSES.filter_map(Pid::from_raw) {
        let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { continue };
        match tap_of(&process, device) {
            Ok(Some(tap)) => return Ok(sys::attach_tap_filter(tap.as_fd(), &program())?),
            Ok(None) => {}
            Err(errno) => refused = Some(errno),
        }
    }
    Err(match refused {
        Some(errno) => io::Error::other(format!("pasta's descriptors cannot be had: {errno}")),
        None => io::Error::other(format!("no process has the device {device} open")),
    })
}

/// The process's descriptor of the device.
fn tap_of(process: &OwnedFd, device: &str) -> Result<Option<OwnedFd>, Errno> {
    for number in DESCRIPTORS {
        match pidfd_getfd(process, number, PidfdGetfdFlags::empty()) {
            Ok(descriptor) => {
                if sys::tap_name(descriptor.as_fd()).is_ok_and(|name| name == device) {
                    return Ok(Some(descriptor));
                }
            }
            Err(Errno::BADF) => {}
            // It has ended.
            Err(Errno::SRCH) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}

/// Offsets in an Ethernet frame.
const PROTOCOL: u32 = 12;
const IPV4_DESTINATION: u32 = 14 + 16;
const IPV6_NEXT_HEADER: u32 = 14 + 6;
const IPV6_DESTINATION: u32 = 14 + 24;

const IPV4: u32 = 0x0800;
const ARP: u32 = 0x0806;
const IPV6: u32 = 0x86dd;
const ICMPV6: u32 = 58;

/// All of the frame, and nothing of it.
const PASS: u32 = u32::MAX;
const DROP: u32 = 0;

/// The filter: a program of the kind that sockets have. A frame that is too short for what it looks at is dropped as well.
fn program() -> Vec<BpfInstruction> {
    // Not for this host (RFC 1122, 3.2.1.3: 0/8 and 127/8), and not for many, which no router in between would take further.
    let ipv4 = [
        load(WORD, IPV4_DESTINATION),
        jump(AT_LEAST, 0xe000_0000, 4, 0),
        jump(AT_LEAST, 0x8000_0000, 2, 0),
        jump(AT_LEAST, 0x7f00_0000, 2, 0),
        jump(AT_LEAST, 0x0100_0000, 0, 1),
        give_back(PASS),
        give_back(DROP),
    ];
    // The first /64 has the unspecified address, the loopback one, and all those of IPv4 in the form of IPv6. Of what is for many,
    // neighbours are looked for by ICMP.
    let ipv6 = [
        load(WORD, IPV6_DESTINATION),
        jump(EQUAL, 0, 0, 2),
        load(WORD, IPV6_DESTINATION + 4),
        jump(EQUAL, 0, 4, 3),
        jump(AT_LEAST, 0xff00_0000, 0, 2),
        load(BYTE, IPV6_NEXT_HEADER),
        jump(EQUAL, ICMPV6, 0, 1),
        give_back(PASS),
        give_back(DROP),
    ];
    let skip = |section: &[BpfInstruction]| section.len() as u8;
    let mut code = vec![load(HALF_WORD, PROTOCOL)];
    code.extend([jump(EQUAL, ARP, 0, 1), give_back(PASS)]);
    code.push(jump(EQUAL, IPV4, 0, skip(&ipv4)));
    code.extend(ipv4);
    code.push(jump(EQUAL, IPV6, 0, skip(&ipv6)));
    code.extend(ipv6);
    code.push(give_back(DROP));
    code
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use super::*;
    use crate::bpf;

    fn passes(frame: &[u8]) -> bool {
        let load = |size, offset: u32| {
            let width = match size {
                BYTE => 1,
                HALF_WORD => 2,
                _ => 4,
            };
            let bytes = frame.get(offset as usize..)?.get(..width)?;
            Some(bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte)))
        };
        match bpf::run(&program(), load) {
            PASS => true,
            DROP => false,
            other => panic!("gives back {other}"),
        }
    }

    /// A frame for this address, of which the next header is this one.
    fn frame(address: &str, next: u8) -> Vec<u8> {
        let mut frame = vec![0; 14 + 40];
        match address.parse().unwrap() {
            IpAddr::V4(address) => {
                frame[12..14].copy_from_slice(&[0x08, 0x00]);
                frame[30..34].copy_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                frame[12..14].copy_from_slice(&[0x86, 0xdd]);
                frame[20] = next;
                frame[38..54].copy_from_slice(&address.octets());
            }
        }
        frame
    }

    #[test]
    fn what_a_router_would_not_take_is_dropped() {
        let dropped = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.255",
            "224.0.0.251",
            "239.1.2.3",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "ff02::fb",
        ];
        for address in dropped {
            assert!(!passes(&frame(address, 17)), "{address}");
        }
        let passed = [
            "1.0.0.0",
            "10.255.82.1",
            "126.255.255.255",
            "128.0.0.0",
            "169.254.1.1",
            "223.255.255.255",
            "0:0:1::",
            "64:ff9b::1.2.3.4",
            "2001:db8::1",
            "fd52:4275:696c:6400::2",
            "fe80::1",
        ];
        for address in passed {
            assert!(passes(&frame(address, 17)), "{address}");
        }
        assert!(passes(&frame("ff02::1:ff00:1", 58)));
        assert!(!passes(&frame(&Ipv6Addr::LOCALHOST.to_string(), 58)));
    }

    #[test]
    fn other_protocols_and_stumps_are_dropped() {
        let mut arp = vec![0; 42];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert!(passes(&arp));
        // One with a VLAN.
        let mut tagged = frame("10.0.0.1", 17);
        tagged.splice(12..12, [0x81, 0x00, 0, 1]);
        assert!(!passes(&tagged));
        assert!(!passes(&frame("10.0.0.1", 17)[..33]) && !passes(&[]));
    }
}
