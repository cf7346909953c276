//! Classic BPF, the instructions of filters for system calls and for packets.

use crate::sys::BpfInstruction;

/// How much is loaded.
pub(crate) use libc::{BPF_B as BYTE, BPF_H as HALF_WORD, BPF_W as WORD};

/// What is compared.
pub(crate) use libc::{BPF_JEQ as EQUAL, BPF_JGE as AT_LEAST, BPF_JSET as ANY_BIT};

/// Loads a value of this size from this offset into the accumulator.
pub(crate) fn load(size: u32, offset: u32) -> BpfInstruction {
    instruction(libc::BPF_LD | size | libc::BPF_ABS, offset, 0, 0)
}

/// Compares the accumulator, and leaves out so many instructions if it holds and if not.
pub(crate) fn jump(condition: u32, value: u32, if_true: u8, if_false: u8) -> BpfInstruction {
    instruction(libc::BPF_JMP | condition | libc::BPF_K, value, if_true, if_false)
}

/// Leaves out so many instructions.
pub(crate) fn jump_always(distance: usize) -> BpfInstruction {
    let distance = u32::try_from(distance).expect("a filter has a few thousand instructions");
    instruction(libc::BPF_JMP | libc::BPF_JA, distance, 0, 0)
}

/// Keeps these bits of the accumulator.
pub(crate) fn and(bits: u32) -> BpfInstruction {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits, 0, 0)
}

/// Ends the program.
pub(crate) fn give_back(value: u32) -> BpfInstruction {
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> BpfInstruction {
    let code = u16::try_from(code).expect("operation codes have 16 bits");
    BpfInstruction { code, jt, jf, k }
}

/// Runs a program, as the kernel does, on what `load` gives for a size and an offset; where that is nothing, the program gives back 0.
#[cfg(test)]
pub(crate) fn run(program: &[BpfInstruction], load: impl Fn(u32, u32) -> Option<u32>) -> u32 {
    let mut accumulator = 0_u32;
    let mut position = 0;
    loop {
        let BpfInstruction { code, jt, jf, k } = program[position];
        position += 1;
        let code = u32::from(code);
        let conditional = |holds: bool| usize::from(if holds { jt } else { jf });
        match (code & 7, code & 0xf0) {
            (libc::BPF_LD, _) => match load(code & 0x18, k) {
                Some(value) => accumulator = value,
                None => return 0,
            },
            (libc::BPF_ALU, libc::BPF_AND) => accumulator &= k,
            (libc::BPF_JMP, libc::BPF_JA) => position += k as usize,
            (libc::BPF_JMP, EQUAL) => position += conditional(accumulator == k),
            (libc::BPF_JMP, AT_LEAST) => position += conditional(accumulator >= k),
            (libc::BPF_JMP, ANY_BIT) => position += conditional(accumulator & k != 0),
            (libc::BPF_RET, _) => return k,
            other => panic!("unknown instruction {other:?}"),
        }
    }
}
