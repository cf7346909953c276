//! What the machine's own binfmt_misc runs.

use std::fs;
use std::path::Path;

use super::machine::{MAGIC_LENGTH, Machine};

/// Where systemd and everybody else mounts it.
const DIRECTORY: &str = "/proc/sys/fs/binfmt_misc";

/// An entry of binfmt_misc, as its file shows it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Registered {
    /// The emulator's path.
    pub(super) interpreter: String,
    /// Whether the emulator was opened when it was registered (flag `F`), and so need not be in a step's root.
    pub(super) is_fixed: bool,
}

/// What runs the programs of a machine, if anything that can be seen does.
pub(super) fn registered(machine: &Machine) -> Option<Registered> {
    let directory = Path::new(DIRECTORY);
    if fs::read_to_string(directory.join("status")).ok()?.trim() != "enabled" {
        return None;
    }
    let entries = fs::read_dir(directory).ok()?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let texts = names
        .filter(|path| !path.ends_with("status") && !path.ends_with("register"))
        .filter_map(|path| fs::read_to_string(path).ok());
    let mut found: Vec<_> = texts.filter_map(|text| parse(&text, machine)).collect();
    // Which of several the kernel takes depends on their order, which is not to be seen.
    found.sort_by_key(|entry| entry.is_fixed);
    found.into_iter().next()
}

/// Reads an entry that is enabled and takes the programs of the machine.
fn parse(text: &str, machine: &Machine) -> Option<Registered> {
    let mut lines = text.lines();
    if lines.next()? != "enabled" {
        return None;
    }
    let mut entry = Registered::default();
    let (mut magic, mut mask, mut offset) = (Vec::new(), None, 0);
    for line in lines {
        match line.split_once(' ') {
            Some(("interpreter", path)) => path.clone_into(&mut entry.interpreter),
            Some(("flags:", flags)) => entry.is_fixed = flags.contains('F'),
            Some(("offset", text)) => offset = text.parse().ok()?,
            Some(("magic", text)) => magic = bytes(text)?,
            Some(("mask", text)) => mask = Some(bytes(text)?),
            _ => {}
        }
    }
    let mask = mask.unwrap_or_else(|| vec![0xff; magic.len()]);
    let program = machine.program();
    let seen = program.get(offset..)?.get(..magic.len())?;
    // By file name extension, or by something that other files have as well.
    let is_of_machine = magic.len() + offset >= MAGIC_LENGTH;
    let mut pairs = seen.iter().zip(&magic).zip(&mask);
    (is_of_machine && pairs.all(|((seen, magic), mask)| (seen ^ magic) & mask == 0))
        .then_some(entry)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.trim().as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
         magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn entries_are_matched_by_their_magic() {
        let arm64 = Machine::named("arm64").unwrap();
        let found = parse(DEBIAN, arm64).unwrap();
        assert_eq!(found.interpreter, "/usr/libexec/qemu-binfmt/aarch64-binfmt-P");
        assert!(found.is_fixed);
        assert_eq!(parse(DEBIAN, Machine::named("riscv64").unwrap()), None);
        assert!(!parse(&DEBIAN.replace("POCF", "OC"), arm64).unwrap().is_fixed);
        assert_eq!(parse(&DEBIAN.replace("enabled", "disabled"), arm64), None);
        assert_eq!(
            parse("enabled\ninterpreter /usr/bin/jar\nflags: \nextension .jar\n", arm64),
            None
        );
        let all = "enabled\ninterpreter /x\nflags: F\noffset 0\nmagic 7f454c46\n";
        assert_eq!(parse(all, arm64), None);
    }
}
