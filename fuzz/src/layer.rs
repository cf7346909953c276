//! Layer archives, applied to a folder.
//!
//! ```text
//! raw:   T, an archive. The checksums of its headers are made right, else nothing else would ever be seen.
//! terse: any other byte, then entries: type, mode, and name, link and content, each after a byte that is its length
//! ```

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use rbuild_cache::{
    AppliedLayer, ApplyError, ApplyForm, ApplyOptions, ArchiveLimits, DiffError, OverlayXattrs,
    TarWriter, apply, diff,
};

const BLOCK: usize = 512;
const LIMITS: ArchiveLimits = ArchiveLimits { entries: 200, bytes: 1 << 20, header_bytes: 1 << 16 };

/// Applies an archive in every form: nothing is written outside of the folder, and what a layer holds survives being
/// written and applied again.
pub fn check(data: &[u8]) {
    let archive = match data.split_first() {
        Some((b'T', raw)) => with_checksums(raw),
        Some((_, terse)) => written_out(terse),
        None => return,
    };
    let xattrs = match rustix::process::geteuid().is_root() {
        true => OverlayXattrs::Trusted,
        false => OverlayXattrs::User,
    };
    for form in [ApplyForm::Merged, ApplyForm::Plain, ApplyForm::Layer(xattrs)] {
        let world = World::new();
        let Ok(applied) = world.apply(&archive, form) else { continue };
        assert!(applied.bytes <= LIMITS.bytes && applied.entries <= LIMITS.entries);
        if form == ApplyForm::Layer(xattrs) {
            let Some(written) = world.written(xattrs) else { continue };
            let copy = World::new();
            copy.apply(&written, form).expect("it is what we wrote");
            let again = copy.written(xattrs).expect("what could be written can be again");
            assert!(again == written, "a layer is another one when it is applied again");
        }
    }
}

/// A folder to apply to, beside something that must not be touched.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("root")).expect("a folder");
        fs::create_dir(dir.path().join("outside")).expect("a folder");
        fs::write(dir.path().join("outside/secret"), "secret").expect("a file");
        Self { dir }
    }

    fn root(&self) -> File {
        File::open(self.dir.path().join("root")).expect("it was made")
    }

    fn apply(&self, archive: &[u8], form: ApplyForm) -> Result<AppliedLayer, ApplyError> {
        let before = seen(self.dir.path());
        let options = ApplyOptions { form, ignore_chown_errors: true, owner: None, limits: LIMITS };
        let applied = apply(archive, self.root().as_fd(), &options);
        assert_eq!(seen(self.dir.path()), before, "something outside was touched");
        if let Err(error) = &applied {
            assert!(!error.to_string().is_empty());
        }
        applied
    }

    /// The layer's archive, if there can be one.
    fn written(&self, xattrs: OverlayXattrs) -> Option<Vec<u8>> {
        let mut archive = TarWriter::new(Vec::new(), None);
        match diff(self.root().as_fd(), None, xattrs, &mut archive) {
            Ok(()) => Some(archive.finish().expect("memory takes everything")),
            Err(DiffError::Reserved { .. }) => None,
            Err(error) => panic!("the layer cannot be read: {error}"),
        }
    }
}

/// All that can be told of what is outside of the root.
fn seen(dir: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let describe = |path: &Path| {
        let stat = fs::symlink_metadata(path).expect("it is there");
        let names = fs::read_dir(path).map_or(0, Iterator::count);
        let times = (stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ctime_nsec());
        format!(
            "{names} {:o} {} {} {} {times:?}",
            stat.mode(),
            stat.uid(),
            stat.nlink(),
            stat.len()
        )
    };
    let content = fs::read_to_string(dir.join("outside/secret")).expect("it is there");
    let others = ["outside", "outside/secret", ""].map(|name| describe(&dir.join(name)));
    others.into_iter().chain([content]).collect()
}

/// The archive with right checksums wherever a header would be.
fn with_checksums(raw: &[u8]) -> Vec<u8> {
    let mut archive = raw.to_vec();
    let mut at = 0;
    while at + BLOCK <= archive.len() {
        let block = &mut archive[at..at + BLOCK];
        at += BLOCK;
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        set_checksum(block);
        let digits = block[124..136].iter().filter(|byte| byte.is_ascii_digit());
        let size =
            digits.fold(0_usize, |size, digit| size.wrapping_mul(8) + usize::from(digit - b'0'));
        if !matches!(block[156], b'1'..=b'6') {
            at = at.saturating_add(size.next_multiple_of(BLOCK).min(1 << 30));
        }
    }
    archive
}

fn set_checksum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// The archive that a terse input means.
fn written_out(mut terse: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    while let [kind, mode, rest @ ..] = terse {
        terse = rest;
        let (name, link, content) = (field(&mut terse), field(&mut terse), field(&mut terse));
        let content = match kind {
            // Lines of `key=value`, made into records.
            b'x' => content.split(|byte| *byte == b'\n').flat_map(record).collect(),
            _ => content.to_vec(),
        };
        let mut block = [0; BLOCK];
        let part = |text: &[u8]| text.len().min(100);
        block[..part(name)].copy_from_slice(&name[..part(name)]);
        let number = |value: u32| format!("{value:07o}\0").into_bytes();
        let bits = u32::from(*mode);
        block[100..108].copy_from_slice(&number(bits << 4 & 0o7777));
        block[108..116].copy_from_slice(&number(bits & 3));
        block[116..124].copy_from_slice(&number(bits >> 2 & 3));
        block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
        block[136..148].copy_from_slice(b"14000000000\0");
        block[156] = *kind;
        block[157..157 + part(link)].copy_from_slice(&link[..part(link)]);
        block[257..265].copy_from_slice(if bits & 128 == 0 {
            b"ustar\x0000"
        } else {
            b"ustar  \0"
        });
        block[329..337].copy_from_slice(&number(bits & 1));
        block[337..345].copy_from_slice(&number(bits & 7));
        set_checksum(&mut block);
        archive.extend(block);
        let length = content.len();
        archive.extend(content);
        archive.resize(archive.len() + length.next_multiple_of(BLOCK) - length, 0);
    }
    archive
}

/// Bytes after their length; fewer at the end.
fn field<'a>(terse: &mut &'a [u8]) -> &'a [u8] {
    let Some((length, rest)) = terse.split_first() else { return &[] };
    let (field, rest) = rest.split_at(usize::from(*length).min(rest.len()));
    *terse = rest;
    field
}

/// A PAX record, with its own length in front.
fn record(line: &[u8]) -> Vec<u8> {
    let mut length = line.len() + 3;
    while length.to_string().len() + line.len() + 2 != length {
        length = length.to_string().len() + line.len() + 2;
    }
    [format!("{length} ").as_bytes(), line, b"\n"].concat()
}
