//! Capabilities: Docker's default set, and how a step is reduced to it.
//!
//! `CAP_NET_RAW` is kept from a step where it could do harm with it: see [`SandboxSpec::raw_packets`](super::SandboxSpec::raw_packets).

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities,
};

/// What a confined step may do as root.
pub(super) fn of(raw_packets: bool) -> CapabilitySet {
    if raw_packets { DEFAULT } else { DEFAULT - CapabilitySet::NET_RAW }
}

/// Docker's set.
pub(super) const DEFAULT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Takes everything but `allowed` out of the bounding set, so that no program can bring it back.
pub(super) fn bound(allowed: CapabilitySet) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if allowed.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // The kernel has no capability of this number, nor of higher ones.
            Err(Errno::INVAL) => break,
            result => result?,
        }
    }
    Ok(())
}

/// Reduces the current sets to `allowed`. To be called as the step's user: another user than root has none left to reduce.
pub(super) fn confine(allowed: CapabilitySet) -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    let current = capabilities(None)?;
    let permitted = current.permitted & allowed;
    set_capabilities(
        None,
        CapabilitySets { effective: permitted, permitted, inheritable: CapabilitySet::empty() },
    )
}

/// Makes a change of user keep the capabilities, for a step that is not confined.
pub(super) fn keep_over_change_of_user() -> Result<(), Errno> {
    set_keep_capabilities(true)
}

/// Puts all capabilities that the process has into every set, so that the step has them whoever its user is.
pub(super) fn grant() -> Result<(), Errno> {
    let permitted = capabilities(None)?.permitted;
    set_capabilities(
        None,
        CapabilitySets { effective: permitted, permitted, inheritable: permitted },
    )?;
    for capability in permitted {
        configure_capability_in_ambient_set(capability, true)?;
    }
    set_keep_capabilities(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_set_is_dockers() {
        assert_eq!(of(true).bits(), 0xa804_25fb);
        assert_eq!(of(false).bits(), 0xa804_05fb);
    }
}
