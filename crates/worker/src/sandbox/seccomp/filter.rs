//! From the rules to a program of classic BPF.
//!
//! The program looks at the ABI first, then finds the call's number by binary search over ranges that have the same action, and only
//! then at arguments:
//!
//! ```text
//!   ld arch;  jeq native -> ..;  jeq compat -> ..;  ret KILL
//!   ld nr;    jge middle -> ..;  jge quarter -> ..;  ret ALLOW | ret ERRNO | ld arg; ..; ret
//! ```
//!
//! A call that is made through another ABI (a 32-bit program on a 64-bit kernel) is judged by that ABI's numbers; to compare it with the
//! native ones, or to kill it, are the two classic mistakes.

use std::collections::BTreeMap;

use rustix::thread::CapabilitySet;

use super::profile::{self, Abi, NEWEST, Rule};
use crate::bpf::{ANY_BIT, AT_LEAST, EQUAL, WORD, and, give_back, jump, jump_always, load};
use crate::sys::BpfInstruction;

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Allow,
    Errno(u32),
    Check(Check),
}

/// A look at arguments. Only their lower halves are looked at, since the kernel's own types for these are 32 bits wide: a filter that
/// compares all 64 is passed by setting a bit that the kernel ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// None of these bits.
    NoneOf(u32),
    /// No socket of some families, and no raw one but for ICMP.
    Socket,
    /// One of the harmless personalities.
    Personality,
}

const EPERM: u32 = libc::EPERM as u32;
const ENOSYS: u32 = libc::ENOSYS as u32;

/// The namespaces that `clone` and `unshare` can make; the time namespace's bit is a part of the exit signal for `clone`.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
const CLONE_NEWTIME: u32 = 0x80;

/// The families that no step gets: the kernel's cryptography, through which files that others share were overwritten in the page cache
/// (CVE-2026-31431), the way to the hypervisor, and the two kinds of sockets for whole frames: the steps of a build share a network.
const REFUSED_FAMILIES: [u32; 4] =
    [libc::AF_ALG as u32, libc::AF_VSOCK as u32, libc::AF_PACKET as u32, libc::AF_XDP as u32];

const INET: u32 = libc::AF_INET as u32;
const INET6: u32 = libc::AF_INET6 as u32;

/// What is a socket's type in the argument; the rest are flags.
const SOCKET_TYPE: u32 = 0xf;

const SOCK_RAW: u32 = libc::SOCK_RAW as u32;

/// Makes one of IPv4 a packet socket; `SOCK_PACKET` of packet(7).
const SOCK_PACKET: u32 = 10;

/// What `ping` needs a raw socket for. One of another protocol would be given what comes in for the steps beside.
const ICMP: u32 = libc::IPPROTO_ICMP as u32;
const ICMPV6: u32 = libc::IPPROTO_ICMPV6 as u32;

/// The default, and with the flags of 32-bit address space and old `uname` versions; and the question for the current one.
const PERSONALITIES: [u32; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Numbers from here on are not in the common sequence: x32's own and ARM's private ones.
const PAST_COMMON: u32 = 512;

/// Marks calls of the x32 ABI, which shares x86_64's architecture word.
const X32_BIT: u32 = 0x4000_0000;

/// `AUDIT_ARCH_*`: the ELF machine with bits for 64-bit and little-endian.
const ARCH_X86_64: u32 = 0xc000_003e;
const ARCH_I386: u32 = 0x4000_0003;
const ARCH_AARCH64: u32 = 0xc000_00b7;
const ARCH_ARM: u32 = 0x4000_0028;

/// Offsets in `struct seccomp_data`: the number, the architecture, and the lower halves of arguments on little-endian machines.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
const SECOND_ARGUMENT: u32 = 24;
const THIRD_ARGUMENT: u32 = 32;

/// A family of processors, whose kernels run programs of two or three ABIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    #[cfg_attr(
        not(any(target_arch = "x86_64", test)),
        expect(dead_code, reason = "for other machines")
    )]
    X86,
    #[cfg_attr(
        not(any(target_arch = "aarch64", test)),
        expect(dead_code, reason = "for other machines")
    )]
    Arm,
}

impl Family {
    #[cfg(target_arch = "x86_64")]
    pub(super) const NATIVE: Self = Self::X86;
    #[cfg(target_arch = "aarch64")]
    pub(super) const NATIVE: Self = Self::Arm;
}

/// Makes the program for steps that have `capabilities`.
pub(super) fn program(family: Family, capabilities: CapabilitySet) -> Vec<BpfInstruction> {
    let search = |abi, bit| {
        let segments = segments(&actions(abi, capabilities), bit);
        let mut code = vec![load(WORD, NUMBER)];
        code.extend(binary_search(&segments));
        code
    };
    let sections = match family {
        Family::X86 => {
            let mut native = vec![load(WORD, NUMBER)];
            let x86_64 = segments(&actions(Abi::X86_64, capabilities), 0);
            let x32 = segments(&actions(Abi::X32, capabilities), X32_BIT);
            native.extend(branch(X32_BIT, binary_search(&x86_64), binary_search(&x32)));
            [(ARCH_X86_64, native), (ARCH_I386, search(Abi::I386, 0))]
        }
        Family::Arm => [(ARCH_AARCH64, search(Abi::Aarch64, 0)), (ARCH_ARM, search(Abi::Arm, 0))],
    };
    let mut code = vec![load(WORD, ARCHITECTURE)];
    for (architecture, section) in sections {
        code.push(jump(EQUAL, architecture, 1, 0));
        code.push(jump_always(section.len()));
        code.extend(section);
    }
    code.push(give_back(libc::SECCOMP_RET_KILL_PROCESS));
    code
}

/// The actions of one ABI, by number; what is missing is refused.
fn actions(abi: Abi, capabilities: CapabilitySet) -> BTreeMap<u32, Action> {
    let mut actions: BTreeMap<u32, Action> =
        (NEWEST + 1..PAST_COMMON).map(|number| (number, Action::Errno(ENOSYS))).collect();
    actions.extend(profile::rules(abi).map(|(number, rule)| (number, action(rule, capabilities))));
    actions
}

fn action(rule: Rule, capabilities: CapabilitySet) -> Action {
    let admin = capabilities.contains(CapabilitySet::SYS_ADMIN);
    match rule {
        Rule::Always => Action::Allow,
        Rule::Needs(any) if capabilities.intersects(any) => Action::Allow,
        Rule::Needs(_) => Action::Errno(EPERM),
        Rule::NewProcess | Rule::NewNamespace | Rule::Clone3 if admin => Action::Allow,
        Rule::NewProcess => Action::Check(Check::NoneOf(NEW_NAMESPACES)),
        Rule::NewNamespace => Action::Check(Check::NoneOf(NEW_NAMESPACES | CLONE_NEWTIME)),
        Rule::Clone3 => Action::Errno(ENOSYS),
        Rule::Socket => Action::Check(Check::Socket),
        Rule::Personality => Action::Check(Check::Personality),
    }
}

/// Turns actions into ranges, each with the number that it starts with; the first starts with 0, the last goes on for ever.
fn segments(actions: &BTreeMap<u32, Action>, bit: u32) -> Vec<(u32, Action)> {
    let refused = Action::Errno(EPERM);
    let mut segments = vec![(0, refused)];
    let mut next = 0;
    let mut add = |start: u32, action| {
        let last = segments.last_mut().expect("it starts with one");
        if last.1 == action {
            return;
        }
        if last.0 == start {
            last.1 = action;
        } else {
            segments.push((start, action));
        }
    };
    for (number, action) in actions {
        let number = number | bit;
        if number != next {
            add(next, refused);
        }
        add(number, *action);
        next = number + 1;
    }
    add(next, refused);
    segments
}

/// Code that finds the segment of the number in the accumulator.
fn binary_search(segments: &[(u32, Action)]) -> Vec<BpfInstruction> {
    if let [(_, action)] = segments {
        return leaf(*action);
    }
    let (lower, upper) = segments.split_at(segments.len() / 2);
    branch(upper[0].0, binary_search(lower), binary_search(upper))
}

/// Code that goes on with `upper` from `start` on and with `lower` below.
fn branch(
    start: u32,
    lower: Vec<BpfInstruction>,
    upper: Vec<BpfInstruction>,
) -> Vec<BpfInstruction> {
    let mut code = Vec::with_capacity(lower.len() + upper.len() + 2);
    if let Ok(distance) = u8::try_from(lower.len()) {
        code.push(jump(AT_LEAST, start, distance, 0));
    } else {
        // Conditional jumps reach 255 instructions only.
        code.push(jump(AT_LEAST, start, 0, 1));
        code.push(jump_always(lower.len()));
    }
    code.extend(lower);
    code.extend(upper);
    code
}

fn leaf(action: Action) -> Vec<BpfInstruction> {
    let refuse = give_back(libc::SECCOMP_RET_ERRNO | EPERM);
    let allow = give_back(libc::SECCOMP_RET_ALLOW);
    match action {
        Action::Allow => vec![allow],
        Action::Errno(errno) => vec![give_back(libc::SECCOMP_RET_ERRNO | errno)],
        Action::Check(Check::NoneOf(bits)) => {
            vec![load(WORD, FIRST_ARGUMENT), jump(ANY_BIT, bits, 0, 1), refuse, allow]
        }
        Action::Check(Check::Socket) => {
            let [a, b, c, d] = REFUSED_FAMILIES;
            vec![
                load(WORD, FIRST_ARGUMENT),
                jump(EQUAL, a, 12, 0),
                jump(EQUAL, b, 11, 0),
                jump(EQUAL, c, 10, 0),
                jump(EQUAL, d, 9, 0),
                jump(EQUAL, INET, 1, 0),
                jump(EQUAL, INET6, 0, 8),
                load(WORD, SECOND_ARGUMENT),
                and(SOCKET_TYPE),
                jump(EQUAL, SOCK_PACKET, 4, 0),
                jump(EQUAL, SOCK_RAW, 0, 4),
                load(WORD, THIRD_ARGUMENT),
                jump(EQUAL, ICMP, 2, 0),
                jump(EQUAL, ICMPV6, 1, 0),
                refuse,
                allow,
            ]
        }
        Action::Check(Check::Personality) => {
            let mut code = vec![load(WORD, FIRST_ARGUMENT)];
            for (remaining, value) in (0..PERSONALITIES.len() as u8).rev().zip(PERSONALITIES) {
                code.push(jump(EQUAL, value, remaining + 1, 0));
            }
            code.extend([refuse, allow]);
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::caps;
    use super::*;
    use crate::bpf;

    const EPERM_RESULT: u32 = libc::SECCOMP_RET_ERRNO | EPERM;
    const ENOSYS_RESULT: u32 = libc::SECCOMP_RET_ERRNO | ENOSYS;

    /// What a program returns for a call with this first argument.
    fn run(program: &[BpfInstruction], architecture: u32, number: u32, argument: u64) -> u32 {
        run_with(program, architecture, number, [argument, 0, 0])
    }

    fn run_with(
        program: &[BpfInstruction],
        architecture: u32,
        number: u32,
        arguments: [u64; 3],
    ) -> u32 {
        let [first, second, third] = arguments.map(|argument| argument as u32);
        bpf::run(program, |_, offset| {
            Some(match offset {
                NUMBER => number,
                ARCHITECTURE => architecture,
                FIRST_ARGUMENT => first,
                SECOND_ARGUMENT => second,
                THIRD_ARGUMENT => third,
                offset => panic!("loads from {offset}"),
            })
        })
    }

    /// What a rule says about a call, without any program.
    fn expected(abi: Abi, number: u32, argument: u32, capabilities: CapabilitySet) -> u32 {
        let rule = profile::rules(abi).find(|(known, _)| *known == number).map(|(_, rule)| rule);
        let admin = capabilities.contains(CapabilitySet::SYS_ADMIN);
        let allowed = match rule {
            None if (NEWEST + 1..PAST_COMMON).contains(&number) => return ENOSYS_RESULT,
            None => false,
            Some(Rule::Always) => true,
            Some(Rule::Needs(any)) => capabilities.intersects(any),
            Some(Rule::NewProcess) => admin || argument & 0x7e02_0000 == 0,
            Some(Rule::NewNamespace) => admin || argument & 0x7e02_0080 == 0,
            Some(Rule::Clone3) if !admin => return ENOSYS_RESULT,
            Some(Rule::Clone3) => true,
            Some(Rule::Socket) => ![17, 38, 40, 44].contains(&argument),
            Some(Rule::Personality) => [0, 8, 0x2_0000, 0x2_0008, u32::MAX].contains(&argument),
        };
        if allowed { libc::SECCOMP_RET_ALLOW } else { EPERM_RESULT }
    }

    #[test]
    fn program_agrees_with_the_rules_for_every_number() {
        let abis = [
            (Family::X86, ARCH_X86_64, Abi::X86_64, 0),
            (Family::X86, ARCH_X86_64, Abi::X32, X32_BIT),
            (Family::X86, ARCH_I386, Abi::I386, 0),
            (Family::Arm, ARCH_AARCH64, Abi::Aarch64, 0),
            (Family::Arm, ARCH_ARM, Abi::Arm, 0),
        ];
        let numbers = || (0..700).chain(0xf_0000..0xf_0010).chain([0x3fff_ffff]);
        let arguments = [
            0,
            1,
            8,
            17,
            38,
            39,
            40,
            41,
            44,
            0x80,
            0x2_0000,
            0x2_0008,
            0x1000_0000,
            0x7e02_0000,
            u32::MAX,
        ];
        for capabilities in [caps::DEFAULT, CapabilitySet::empty(), CapabilitySet::all()] {
            for (family, architecture, abi, bit) in abis {
                let program = program(family, capabilities);
                for number in numbers() {
                    for argument in arguments {
                        assert_eq!(
                            run(&program, architecture, number | bit, argument.into()),
                            expected(abi, number, argument, capabilities),
                            "{abi:?} {number} {argument:#x} {capabilities:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn upper_half_of_an_argument_hides_nothing() {
        let program = program(Family::X86, caps::DEFAULT);
        let socket = 41;
        for family in [17, 38, 40, 44] {
            assert_eq!(run(&program, ARCH_X86_64, socket, (1 << 32) | family), EPERM_RESULT);
        }
        let clone = 56;
        assert_eq!(run(&program, ARCH_X86_64, clone, (1 << 32) | 0x1000_0000), EPERM_RESULT);
    }

    #[test]
    fn raw_sockets_are_for_echo_requests() {
        let program = program(Family::X86, caps::DEFAULT);
        let socket = |family, kind, protocol| {
            run_with(&program, ARCH_X86_64, 41, [family, kind, protocol]) == libc::SECCOMP_RET_ALLOW
        };
        let (cloexec, high) = (0o2_000_000, 1 << 32);
        for family in [2, 10] {
            for flags in [0, cloexec, high] {
                for kind in [1, 2] {
                    assert!(socket(family, kind | flags, 0) && socket(family, kind | flags, 17));
                }
                assert!(socket(family, 3 | flags, 1) && socket(family, 3 | flags, 58));
                for protocol in [0, 2, 6, 17, 255, high | 6] {
                    assert!(!socket(family, 3 | flags, protocol), "{family} {flags} {protocol}");
                }
                assert!(!socket(family, 10 | flags, 0x300));
            }
        }
        // Of the kernel's messages.
        assert!(socket(16, 3, 0));
    }

    #[test]
    fn foreign_architectures_are_killed() {
        let arm = program(Family::Arm, caps::DEFAULT);
        assert_eq!(run(&arm, ARCH_X86_64, 0, 0), libc::SECCOMP_RET_KILL_PROCESS);
        let x86 = program(Family::X86, caps::DEFAULT);
        assert_eq!(run(&x86, ARCH_AARCH64, 0, 0), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn programs_are_ones_that_the_kernel_takes() {
        for family in [Family::X86, Family::Arm] {
            let program = program(family, caps::DEFAULT);
            assert!(program.len() < 4096, "{}", program.len());
            for (position, instruction) in program.iter().enumerate() {
                let code = u32::from(instruction.code);
                let farthest = match (code & 7, code & 0xf0) {
                    (libc::BPF_JMP, libc::BPF_JA) => instruction.k as usize,
                    (libc::BPF_JMP, _) => usize::from(instruction.jt.max(instruction.jf)),
                    _ => 0,
                };
                assert!(position + 1 + farthest <= program.len() - usize::from(farthest > 0));
            }
            assert_eq!(u32::from(program.last().unwrap().code) & 7, libc::BPF_RET);
        }
    }

    #[test]
    fn instructions_of_a_small_profile() {
        let actions = BTreeMap::from([
            (1, Action::Allow),
            (2, Action::Allow),
            (3, Action::Check(Check::Socket)),
            (5, Action::Errno(ENOSYS)),
        ]);
        let segments = segments(&actions, 0);
        assert_eq!(
            segments.iter().map(|(start, _)| *start).collect::<Vec<_>>(),
            [0, 1, 3, 4, 5, 6]
        );
        let listing: Vec<String> = binary_search(&segments)
            .iter()
            .map(|instruction| {
                let BpfInstruction { code, jt, jf, k } = instruction;
                format!("{code:02x} {jt} {jf} {k:x}")
            })
            .collect();
        let expected = "35 20 0 4|35 1 0 1|06 0 0 50001|35 1 0 3|06 0 0 7fff0000|20 0 0 10|15 12 0 26|15 11 0 28|15 10 0 11|15 9 0 2c|\
                        15 1 0 2|15 0 8 a|20 0 0 18|54 0 0 f|15 4 0 a|15 0 4 3|20 0 0 20|15 2 0 1|15 1 0 3a|06 0 0 50001|\
                        06 0 0 7fff0000|35 1 0 5|06 0 0 50001|35 1 0 6|06 0 0 50026|06 0 0 50001";
        assert_eq!(listing.join("|"), expected);
    }
}
