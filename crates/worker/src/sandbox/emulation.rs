//! Emulators for one step (design D7): a binfmt_misc that nobody else sees.
//!
//! Since Linux 6.7 every user namespace can have a binfmt_misc of its own. A helper process makes a user namespace with the ids of the
//! build's, mounts binfmt_misc in it, and registers the emulators by their open files (flag `F`), so that nothing of them is in the
//! step's root. The step's first process joins that namespace when everything is mounted. What the step's programs start is emulated
//! like them, and the machine's own binfmt_misc stays as it is.
//!
//! Rejected: to put the emulator in front of the step's arguments, as BuildKit does. The programs that the emulated one starts would
//! need it in front of theirs too, which takes a patched qemu.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::{Context, Failure};
use super::rootfs::new_filesystem;
use crate::platforms::Emulator;
use crate::sys::{self, Fork};
use crate::userns::same_ids;

/// The emulators of a step. They are there until it is dropped.
#[derive(Debug)]
pub(super) struct Emulation {
    namespace: File,
    /// The helper ends when nobody has this any more.
    hold: Option<OwnedFd>,
    helper: Pid,
}

/// What the helper says once it is in its namespace, and is told once the ids are there.
const GO: u8 = b'1';

impl Emulation {
    /// Registers emulators; `None` when there are none. For a process without threads.
    pub(super) fn start(emulators: &[Emulator]) -> Result<Option<Self>, Failure> {
        if emulators.is_empty() {
            return Ok(None);
        }
        let (answers, answer) = pipe_with(PipeFlags::CLOEXEC).context("create", "a pipe")?;
        let (held, hold) = pipe_with(PipeFlags::CLOEXEC).context("create", "a pipe")?;
        let helper = match sys::fork().context("start", "the helper of the emulators")? {
            Fork::Child => {
                drop((answers, hold));
                help(emulators, File::from(held), File::from(answer))
            }
            Fork::Parent(helper) => helper,
        };
        drop((held, answer));
        let failed = |source: std::io::Error| {
            let errno = Errno::from_io_error(&source).unwrap_or(Errno::IO);
            Failure::new("register", "the emulators", errno)
        };
        let mut answers = File::from(answers);
        let mut hold = File::from(hold);
        let mut go = [0];
        answers.read_exact(&mut go).map_err(failed)?;
        if go[0] == GO {
            map_ids(helper)?;
            hold.write_all(&[GO]).map_err(failed)?;
        }
        let mut answer = if go[0] == GO { Vec::new() } else { go.to_vec() };
        answers.read_to_end(&mut answer).map_err(failed)?;
        match serde_json::from_slice(&answer) {
            Ok(Some(failure)) => Err(failure),
            Ok(None) => {
                let path = format!("/proc/{}/ns/user", helper.as_raw_pid());
                let namespace =
                    File::open(path).context("open", "the namespace of the emulators")?;
                Ok(Some(Self { namespace, hold: Some(hold.into()), helper }))
            }
            Err(_) => Err(failed(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Moves the calling process to where they are. It may then not mount any more.
    pub(super) fn enter(&self) -> Result<(), Failure> {
        move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::User))
            .context("enter", "the namespace of the emulators")
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        drop(self.hold.take());
        // It may only be late.
        let _ = sys::wait(self.helper);
    }
}

/// Gives the helper's namespace the ids of this one, each under its own number.
fn map_ids(helper: Pid) -> Result<(), Failure> {
    for map in ["uid_map", "gid_map"] {
        let text = fs::read_to_string(format!("/proc/self/{map}")).context("read", map)?;
        let path = format!("/proc/{}/{map}", helper.as_raw_pid());
        fs::write(path, same_ids(&text)).context("write", map)?;
    }
    Ok(())
}

/// The life of the helper: makes the namespace, registers, answers, and waits for its end.
fn help(emulators: &[Emulator], mut held: File, mut answer: File) -> ! {
    let mut registered = || -> Result<OwnedFd, Failure> {
        sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
            .context("create namespaces", "user, mount")?;
        let mut go = [0];
        answer.write_all(&[GO]).context("write to", "a pipe")?;
        held.read_exact(&mut go).context("read from", "a pipe")?;
        register(emulators)
    };
    let registered = registered();
    let failure = registered.as_ref().err();
    // When the sandbox process is gone there is nobody to tell.
    let _ = answer.write_all(&serde_json::to_vec(&failure).unwrap_or_default());
    drop(answer);
    // The entries are there as long as the mount.
    let _ = held.read(&mut [0]);
    sys::exit_now(0)
}

fn register(emulators: &[Emulator]) -> Result<OwnedFd, Failure> {
    let mount = new_filesystem("binfmt_misc", &[], MountAttrFlags::MOUNT_ATTR_NOEXEC)
        .context("mount", "binfmt_misc")?;
    for emulator in emulators {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        openat(&mount, "register", flags, Mode::empty())
            .and_then(|register| rustix::io::write(&register, &entry(emulator)))
            .context("register the emulator", &emulator.path.display().to_string())?;
    }
    Ok(mount)
}

/// The line that registers an emulator. It keeps the program's own name for itself (`P`), has the rights of the program (`C`, so that
/// `sudo` works), and is opened now (`F`).
fn entry(emulator: &Emulator) -> Vec<u8> {
    // Not to be found in any path.
    const SEPARATOR: u8 = 1;
    let hex = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().flat_map(|byte| format!("\\x{byte:02x}").into_bytes()).collect()
    };
    let name = format!("rbuild-{}", emulator.architecture).into_bytes();
    let (magic, mask) = (hex(&emulator.magic), hex(&emulator.mask));
    let path = emulator.path.as_os_str().as_bytes();
    let fields: [&[u8]; 8] = [b"", &name, b"M", b"", &magic, &mask, path, b"POCF"];
    fields.join(&SEPARATOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_name_everything() {
        let emulator = Emulator {
            architecture: "arm64".into(),
            path: "/usr/bin/q:emu".into(),
            magic: vec![0x7f, 0],
            mask: vec![0xff, 0],
        };
        let line = String::from_utf8(entry(&emulator)).unwrap();
        assert_eq!(
            line.split('\u{1}').collect::<Vec<_>>(),
            ["", "rbuild-arm64", "M", "", "\\x7f\\x00", "\\xff\\x00", "/usr/bin/q:emu", "POCF"]
        );
    }
}
