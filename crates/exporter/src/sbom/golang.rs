//! Go: the modules that a program says it was built of, and `go.sum`.
//!
//! ```text
//! section .go.buildinfo of an ELF file, of Go 1.18 and later
//!   0   "\xff Go buildinf:", size of a pointer, flags (2: the texts are here)
//!   32  varint and text: version of Go
//!       varint and text: 16 bytes, lines "dep\tMODULE\tVERSION\tSUM", 16 bytes
//! ```

use std::fs::File;
use std::io::{self, BufRead};
use std::os::unix::fs::FileExt as _;

use super::input::{Lines, Packages, ReadError};
use super::package::{Ecosystem, Package};

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Sections and section tables that are larger are no honest ones.
const MOST: u64 = 4 << 20;

/// The modules of a program, with the library of Go itself; none if it was not built by Go.
pub(super) fn program(file: &File, packages: &mut Packages<'_>) -> Result<(), ReadError> {
    let section = build_info(file, packages)?;
    match section.as_deref().and_then(texts) {
        Some((go, modules)) => add_modules(go, modules, packages),
        None => Ok(()),
    }
}

/// The content of the section.
fn build_info(file: &File, packages: &mut Packages<'_>) -> Result<Option<Vec<u8>>, ReadError> {
    let mut read = |at, size| read(file, at, size, packages);
    let Some(head) = read(0, 64)? else { return Ok(None) };
    let is_wide = match head[..6] {
        [0x7f, b'E', b'L', b'F', 1, 1] => false,
        [0x7f, b'E', b'L', b'F', 2, 1] => true,
        // All that Go builds for, but s390x and some MIPS and PowerPC, is little-endian.
        _ => return Ok(None),
    };
    let word = |bytes: &[u8], wide_at: usize, narrow_at: usize| {
        if is_wide { number(bytes, wide_at, 8) } else { number(bytes, narrow_at, 4) }
    };
    let table_at = word(&head, 40, 32);
    let at = |wide: usize, narrow: usize| number(&head, if is_wide { wide } else { narrow }, 2);
    let (size, count, names) = (at(58, 46), at(60, 48), at(62, 50));
    let least = if is_wide { 64 } else { 40 };
    if table_at == 0 || size < least || names >= count {
        return Ok(None);
    }
    let Some(table) = read(table_at, size * count)? else { return Ok(None) };
    let sections: Vec<&[u8]> = table.chunks_exact(size as usize).collect();
    let place = |section: &[u8]| (word(section, 24, 16), word(section, 32, 20));
    let (names_at, names_size) = place(sections[names as usize]);
    let Some(names) = read(names_at, names_size)? else { return Ok(None) };
    let wanted = sections.into_iter().find(|section| {
        let name = names.get(number(section, 0, 4) as usize..).unwrap_or_default();
        name.starts_with(b".go.buildinfo\0")
    });
    match wanted.map(place) {
        Some((at, size)) => read(at, size),
        None => Ok(None),
    }
}

/// So many bytes of a file; `None` if there are fewer, or too many are asked for.
fn read(
    file: &File,
    at: u64,
    size: u64,
    packages: &mut Packages<'_>,
) -> Result<Option<Vec<u8>>, ReadError> {
    if size > MOST {
        return Ok(None);
    }
    packages.read(size)?;
    let mut bytes = vec![0; size as usize];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(Some(bytes)),
        // An offset beyond what the kernel takes is `EINVAL`.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A little-endian number; what is not there is 0.
fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let bytes = bytes.get(at..at + size).unwrap_or_default();
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The version of Go, and the lines of the modules.
fn texts(section: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = section.strip_prefix(MAGIC)?;
    let flags = *rest.get(1)?;
    if flags & 2 == 0 {
        return None;
    }
    let (go, rest) = text(section.get(32..)?)?;
    let (modules, _) = text(rest)?;
    Some((go, modules.get(16..modules.len().checked_sub(16)?)?))
}

fn add_modules(go: &[u8], modules: &[u8], packages: &mut Packages<'_>) -> Result<(), ReadError> {
    let go = String::from_utf8_lossy(go);
    // Such as `go1.22.1 X:boringcrypto`.
    let go = go.split(' ').next().unwrap_or_default().trim_start_matches("go").to_owned();
    packages.push(Package::new(Ecosystem::Golang, "stdlib", go))?;
    for line in String::from_utf8_lossy(modules).lines() {
        let mut fields = line.splitn(4, '\t');
        let (Some(kind), Some(name), Some(version)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let package = Package::new(Ecosystem::Golang, name, version);
        match kind {
            "dep" => packages.push(package)?,
            // Says what stands in for the module before it; a folder has no version.
            "=>" if !version.is_empty() => {
                packages.pop();
                packages.push(package)?;
            }
            // The program itself, where it was built with a version.
            "mod" if version.starts_with('v') => packages.push(package)?,
            _ => {}
        }
    }
    Ok(())
}

/// A text and what follows it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return bytes[index + 1..].split_at_checked(usize::try_from(length).ok()?);
        }
    }
    None
}

/// `go.sum`: modules whose content is pinned, and not only their `go.mod`.
pub(super) fn sums(
    lines: &mut Lines<impl BufRead>,
    packages: &mut Packages<'_>,
) -> Result<(), ReadError> {
    while let Some(line) = lines.next()? {
        let mut words = line.split(' ');
        let (Some(name), Some(version)) = (words.next(), words.next()) else { continue };
        if !version.ends_with("/go.mod") {
            packages.push(Package::new(Ecosystem::Golang, name, version))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::input::found;
    use super::*;

    fn program(file: &File) -> Vec<Package> {
        found("", |_, packages| super::program(file, packages))
    }

    /// An ELF file with the one section, and that of names.
    fn elf(section: &[u8]) -> File {
        let names = b"\0.go.buildinfo\0.shstrtab\0";
        let mut bytes = vec![0u8; 64];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1]);
        let section_at = bytes.len() as u64;
        bytes.extend(section);
        let names_at = bytes.len() as u64;
        bytes.extend(names);
        let table_at = bytes.len() as u64;
        bytes[40..48].copy_from_slice(&table_at.to_le_bytes());
        bytes[58..64].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
        let mut entry = |name: u32, at: u64, size: u64| {
            let mut entry = [0u8; 64];
            entry[..4].copy_from_slice(&name.to_le_bytes());
            entry[24..32].copy_from_slice(&at.to_le_bytes());
            entry[32..40].copy_from_slice(&size.to_le_bytes());
            bytes.extend(entry);
        };
        entry(0, 0, 0);
        entry(1, section_at, section.len() as u64);
        entry(15, names_at, names.len() as u64);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    fn section(flags: u8) -> Vec<u8> {
        let info = "path\tcmd/app\nmod\texample.com/app\t(devel)\t\ndep\tgithub.com/a/b\tv1.2.3\th1:x=\n\
                    dep\texample.com/c\tv0.1.0\n=>\texample.com/fork\tv0.2.0\th1:y=\nbuild\t-compiler=gc\n";
        let info = [&[1; 16][..], info.as_bytes(), &[2; 16]].concat();
        let mut section = [MAGIC, &[8, flags]].concat();
        section.resize(32, 0);
        section.push(8);
        section.extend(b"go1.22.1");
        section.extend([(info.len() as u8 & 0x7f) | 0x80, (info.len() >> 7) as u8]);
        section.extend(info);
        section
    }

    #[test]
    fn modules_of_a_program() {
        let modules = program(&elf(&section(2)));
        let modules: Vec<_> = modules.iter().map(|it| it.purl(None)).collect();
        assert_eq!(
            modules,
            [
                "pkg:golang/stdlib@1.22.1",
                "pkg:golang/github.com/a/b@v1.2.3",
                "pkg:golang/example.com/fork@v0.2.0"
            ]
        );
        assert!(program(&elf(&section(0))).is_empty());
    }

    #[test]
    fn other_files_are_no_programs() {
        for length in 0..section(2).len() {
            assert!(program(&elf(&section(2)[..length])).is_empty(), "{length}");
        }
        let whole = elf(&section(2));
        let size = whole.metadata().unwrap().len();
        for at in 0..size {
            // Whatever a byte is, nothing bad happens.
            let mut byte = [0];
            whole.read_exact_at(&mut byte, at).unwrap();
            whole.write_all_at(&[0xff], at).unwrap();
            program(&whole);
            whole.write_all_at(&byte, at).unwrap();
        }
        whole.set_len(size - 1).unwrap();
        assert!(program(&whole).is_empty());
    }

    #[test]
    fn go_sum() {
        let pinned =
            found("a.b/c v1.0.0 h1:x=\na.b/c v1.0.0/go.mod h1:y=\nbad\n", |lines, packages| {
                sums(lines, packages)
            });
        assert_eq!(pinned, [Package::new(Ecosystem::Golang, "a.b/c", "v1.0.0")]);
    }
}
