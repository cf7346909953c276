//! Programs that make one system call and exit with the number of its error, or 0: what no shell can do.
//!
//! They are written as machine code, so that no compiler is needed and no library stands between. Only for x86-64, whose kernels take calls by
//! the numbers of three ABIs.

/// By which instruction and numbers the kernel is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    /// `syscall`; with bit 30 of the number set it is x32.
    Native,
    /// `int 0x80`, as 32-bit programs have it.
    I386,
}

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// The address of [`SPACE`] bytes of zeroes, for arguments that point somewhere.
pub(super) const ZEROES: u64 = BASE + 0x1000;
const SPACE: u64 = 0x2000;

/// A static ELF program that makes the call.
pub(super) fn one_call(abi: Abi, number: u32, arguments: [u64; 6]) -> Vec<u8> {
    let mut code = Vec::new();
    match abi {
        Abi::Native => {
            let registers: [[u8; 2]; 7] = [
                [0x48, 0xb8],
                [0x48, 0xbf],
                [0x48, 0xbe],
                [0x48, 0xba],
                [0x49, 0xba],
                [0x49, 0xb8],
                [0x49, 0xb9],
            ];
            let values = [u64::from(number)].into_iter().chain(arguments);
            for (register, value) in registers.iter().zip(values) {
                code.extend(register);
                code.extend(value.to_le_bytes());
            }
            code.extend([0x0f, 0x05]);
            // xor edi, edi; test rax, rax; jns +5; mov rdi, rax; neg edi
            code.extend([0x31, 0xff, 0x48, 0x85, 0xc0, 0x79, 0x05, 0x48, 0x89, 0xc7, 0xf7, 0xdf]);
        }
        Abi::I386 => {
            // eax, ebx, ecx, edx, esi, edi
            let registers = [0xb8, 0xbb, 0xb9, 0xba, 0xbe, 0xbf];
            let values = [u64::from(number)].into_iter().chain(arguments);
            for (register, value) in registers.iter().zip(values) {
                code.push(*register);
                code.extend((value as u32).to_le_bytes());
            }
            code.extend([0xcd, 0x80]);
            // xor edi, edi; test eax, eax; jns +4; mov edi, eax; neg edi
            code.extend([0x31, 0xff, 0x85, 0xc0, 0x79, 0x04, 0x89, 0xc7, 0xf7, 0xdf]);
        }
    }
    // mov eax, 60 (exit); syscall
    code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]);

    let size = HEADERS + code.len() as u64;
    let mut elf = Vec::with_capacity(size as usize);
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    elf.extend((BASE + HEADERS).to_le_bytes());
    elf.extend(64_u64.to_le_bytes());
    elf.extend([0; 12]);
    elf.extend([64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // Loaded whole, readable, writable and executable, with the zeroes behind it.
    elf.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    for field in [0, BASE, BASE, size, 0x1000 + SPACE, 0x1000] {
        elf.extend(field.to_le_bytes());
    }
    elf.extend(code);
    elf
}
