//! The architectures that steps may be for: how their programs are told apart, and for each a program that only ends.

/// An architecture that Linux runs on.
#[derive(Debug)]
pub(super) struct Machine {
    /// Go's name.
    pub(super) architecture: &'static str,
    /// What `qemu-NAME` of its emulator has for a name.
    pub(super) emulator: &'static str,
    is_64_bit: bool,
    is_big_endian: bool,
    /// `e_machine` of ELF.
    number: u16,
    /// `e_flags` of ELF.
    flags: u32,
    /// `exit(0)`.
    exit: &'static [u8],
}

/// All of them, in the order of their names.
pub(super) const MACHINES: [Machine; 9] = [
    Machine {
        architecture: "386",
        emulator: "i386",
        is_64_bit: false,
        is_big_endian: false,
        number: 3,
        flags: 0,
        // xor ebx, ebx; mov eax, 1; int 0x80
        exit: &[0x31, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80],
    },
    Machine {
        architecture: "amd64",
        emulator: "x86_64",
        is_64_bit: true,
        is_big_endian: false,
        number: 62,
        flags: 0,
        // xor edi, edi; mov eax, 60; syscall
        exit: &[0x31, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 0x05],
    },
    Machine {
        architecture: "arm",
        emulator: "arm",
        is_64_bit: false,
        is_big_endian: false,
        number: 40,
        // The fifth version of the ABI, without which the kernel takes it for another one.
        flags: 0x0500_0200,
        // mov r0, #0; mov r7, #1; svc 0
        exit: &[0, 0, 0xa0, 0xe3, 1, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef],
    },
    Machine {
        architecture: "arm64",
        emulator: "aarch64",
        is_64_bit: true,
        is_big_endian: false,
        number: 183,
        flags: 0,
        // mov x0, #0; mov x8, #93; svc #0
        exit: &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4],
    },
    Machine {
        architecture: "loong64",
        emulator: "loongarch64",
        is_64_bit: true,
        is_big_endian: false,
        number: 258,
        flags: 0x43,
        // addi.w $a0, $zero, 0; addi.w $a7, $zero, 93; syscall 0
        exit: &[4, 0, 0x80, 2, 0x0b, 0x74, 0x81, 2, 0, 0, 0x2b, 0],
    },
    Machine {
        architecture: "mips64le",
        emulator: "mips64el",
        is_64_bit: true,
        is_big_endian: false,
        number: 8,
        flags: 0x8000_0000,
        // addiu $v0, $zero, 5058; addiu $a0, $zero, 0; syscall
        exit: &[0xc2, 0x13, 2, 0x24, 0, 0, 4, 0x24, 0x0c, 0, 0, 0],
    },
    Machine {
        architecture: "ppc64le",
        emulator: "ppc64le",
        is_64_bit: true,
        is_big_endian: false,
        number: 21,
        // The second version of the ABI: the entry point is code, and not a descriptor.
        flags: 2,
        // li r0, 1; li r3, 0; sc
        exit: &[1, 0, 0, 0x38, 0, 0, 0x60, 0x38, 2, 0, 0, 0x44],
    },
    Machine {
        architecture: "riscv64",
        emulator: "riscv64",
        is_64_bit: true,
        is_big_endian: false,
        number: 243,
        flags: 0,
        // li a0, 0; li a7, 93; ecall
        exit: &[0x13, 5, 0, 0, 0x93, 8, 0xd0, 5, 0x73, 0, 0, 0],
    },
    Machine {
        architecture: "s390x",
        emulator: "s390x",
        is_64_bit: true,
        is_big_endian: true,
        number: 22,
        flags: 0,
        // lghi %r2, 0; svc 1
        exit: &[0xa7, 0x29, 0, 0, 0x0a, 1],
    },
];

/// Where the programs are loaded.
const BASE: u32 = 0x1_0000;

/// How many bytes tell the programs of one architecture from others: up to and with `e_machine`.
pub(super) const MAGIC_LENGTH: usize = 20;

impl Machine {
    /// The architecture of this name.
    pub(super) fn named(architecture: &str) -> Option<&'static Self> {
        MACHINES.iter().find(|machine| machine.architecture == architecture)
    }

    /// A static program that does nothing and succeeds.
    pub(super) fn program(&self) -> Vec<u8> {
        let (header, segment) = if self.is_64_bit { (64_u16, 56_u16) } else { (52, 32) };
        let start = u32::from(header) + u32::from(segment);
        let size = start + self.exit.len() as u32;
        let mut program = self.magic().to_vec();
        let mut elf = Fields { bytes: &mut program, machine: self };
        elf.word(1);
        [BASE + start, u32::from(header), 0].into_iter().for_each(|value| elf.address(value));
        elf.word(self.flags);
        [header, segment, 1, 0, 0, 0].into_iter().for_each(|value| elf.half(value));
        // One segment to load, readable and executable, which is the whole file.
        elf.word(1);
        if self.is_64_bit {
            elf.word(5);
        }
        [0, BASE, BASE, size, size].into_iter().for_each(|value| elf.address(value));
        if !self.is_64_bit {
            elf.word(5);
        }
        elf.address(BASE);
        program.extend_from_slice(self.exit);
        program
    }

    /// The first bytes of a static program.
    pub(super) fn magic(&self) -> [u8; MAGIC_LENGTH] {
        let mut magic = [0; MAGIC_LENGTH];
        magic[..4].copy_from_slice(b"\x7fELF");
        magic[4] = if self.is_64_bit { 2 } else { 1 };
        magic[5] = if self.is_big_endian { 2 } else { 1 };
        magic[6] = 1;
        magic[16..18].copy_from_slice(&self.ordered(2));
        magic[18..].copy_from_slice(&self.ordered(self.number));
        magic
    }

    /// Which bits of [`Machine::magic`] count: neither the system that a program is for, nor whether it can be loaded anywhere.
    pub(super) fn mask(&self) -> [u8; MAGIC_LENGTH] {
        let mut mask = [0xff; MAGIC_LENGTH];
        mask[7..16].fill(0);
        mask[16..18].copy_from_slice(&self.ordered(0xfffe));
        mask
    }

    fn ordered(&self, value: u16) -> [u8; 2] {
        if self.is_big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// Writes the fields of a header.
struct Fields<'a> {
    bytes: &'a mut Vec<u8>,
    machine: &'a Machine,
}

impl Fields<'_> {
    fn half(&mut self, value: u16) {
        self.bytes.extend(self.machine.ordered(value));
    }

    fn word(&mut self, value: u32) {
        let big = self.machine.is_big_endian;
        self.bytes.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }

    fn address(&mut self, value: u32) {
        if !self.machine.is_64_bit {
            return self.word(value);
        }
        let value = u64::from(value);
        let big = self.machine.is_big_endian;
        self.bytes.extend(if big { value.to_be_bytes() } else { value.to_le_bytes() });
    }
}

#[cfg(test)]
#[expect(clippy::print_stderr, reason = "says what is skipped")]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn programs_run_in_their_emulators() {
        let folder = tempfile::tempdir().unwrap();
        for machine in &MACHINES {
            let emulator = format!("/usr/bin/qemu-{}-static", machine.emulator);
            if !std::path::Path::new(&emulator).exists() {
                eprintln!("SKIPPED programs_run_in_their_emulators: no {emulator}");
                continue;
            }
            let program = folder.path().join(machine.architecture);
            std::fs::write(&program, machine.program()).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let status = Command::new(emulator).arg(&program).status().unwrap();
            assert!(status.success(), "{}: {status}", machine.architecture);
        }
    }

    #[test]
    fn own_program_has_the_magic_of_its_machine() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let host = rbuild_oci::Platform::host().architecture;
        let machine = Machine::named(&host).unwrap();
        let differs = |bytes: &[u8; MAGIC_LENGTH]| {
            (0..MAGIC_LENGTH).any(|at| (own[at] ^ bytes[at]) & machine.mask()[at] != 0)
        };
        assert!(!differs(&machine.magic()));
        let other = Machine::named(if host == "s390x" { "arm64" } else { "s390x" }).unwrap();
        assert!(differs(&other.magic()));
    }
}
