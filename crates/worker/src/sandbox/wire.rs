//! What the build process and a sandbox say to each other.
//!
//! The request is one JSON document in a memory file; its descriptor goes over the control socket together with those of the root
//! and the mounts, so that sending never blocks whatever its size. The sandbox process passes it on to the step's first process, if
//! that waits for it already. The report is one JSON document, then end of file.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::error::Failure;
use super::plan::{MountKind, SandboxSpec};

/// Descriptors in one message; the kernel's limit is 253.
const BATCH: usize = 250;

/// Room for a batch of descriptors: a header of 16 bytes and four bytes each.
const ANCILLARY: usize = 16 + 4 * BATCH + 8;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) spec: SandboxSpec,
    /// Whether the build runs inside a user namespace, where devices cannot be made and sysfs cannot be mounted.
    pub(super) in_user_namespace: bool,
    /// Whether the step gets no namespaces and no mounts.
    pub(super) is_chroot: bool,
    /// How many descriptors follow the root's.
    pub(super) descriptors: usize,
}

impl Request {
    /// Of each mount, whether it is a bind.
    fn binds(&self) -> impl Iterator<Item = bool> {
        self.spec.mounts.iter().map(|mount| matches!(mount.kind, MountKind::Bind { .. }))
    }
}

/// The descriptors that a spec refers to.
#[derive(Debug)]
pub(super) struct Descriptors {
    pub(super) root: OwnedFd,
    pub(super) mounts: Vec<OwnedFd>,
}

/// How a sandbox ended, as it says itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Exit(Exit),
    Failure(Failure),
}

/// How a step's program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// What it used.
    pub usage: Usage,
}

/// The status of a program that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl ExitStatus {
    /// The status as one number, as a shell gives it: 128 and the signal's number for a signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Whether `spec` counts this as success.
    #[must_use]
    pub fn is_valid_for(self, spec: &SandboxSpec) -> bool {
        match self {
            Self::Code(code) => spec.valid_exit_codes.contains(&code),
            Self::Signal(_) => false,
        }
    }
}

/// The resources that a step's program and those of its children that it waited for have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in the program.
    pub user_time: Duration,
    /// Processor time in the kernel.
    pub system_time: Duration,
    /// The largest resident set of one process, in bytes.
    pub max_resident: u64,
}

/// Sends a request and the descriptors. Does not block.
pub(super) fn send_request(
    socket: &UnixStream,
    request: &Request,
    root: BorrowedFd<'_>,
    mounts: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut document = File::from(memfd_create(c"rbuild-sandbox", MemfdFlags::CLOEXEC)?);
    document.write_all(&serde_json::to_vec(request)?)?;
    let mut all = vec![document.as_fd(), root];
    all.extend_from_slice(mounts);
    all.chunks(BATCH).try_for_each(|batch| send_descriptors(socket, batch))
}

/// Sends one byte and with it at most as many descriptors as the kernel allows in a message, which may be none.
pub(crate) fn send_descriptors(
    socket: &UnixStream,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); ANCILLARY];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    sendmsg(socket, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A request as it came.
#[derive(Debug)]
pub(super) struct Received {
    document: File,
    pub(super) request: Request,
    pub(super) descriptors: Descriptors,
}

/// Receives a request and its descriptors.
pub(super) fn receive_request(socket: BorrowedFd<'_>) -> io::Result<Received> {
    receive(socket, |request| request.descriptors)
}

/// Passes a request on, together with clones of what its mounts bind.
pub(super) fn pass_on(
    socket: &UnixStream,
    received: &Received,
    binds: &[Option<OwnedFd>],
) -> io::Result<()> {
    let Received { document, descriptors: Descriptors { root, mounts }, .. } = received;
    let binds = binds.iter().flatten();
    let all: Vec<BorrowedFd<'_>> = [document.as_fd(), root.as_fd()]
        .into_iter()
        .chain(mounts.iter().chain(binds).map(AsFd::as_fd))
        .collect();
    all.chunks(BATCH).try_for_each(|batch| send_descriptors(socket, batch))
}

/// Receives what [`pass_on`] sent.
pub(super) fn receive_passed_on(
    socket: BorrowedFd<'_>,
) -> io::Result<(Received, Vec<Option<OwnedFd>>)> {
    let with_binds = |request: &Request| {
        request.descriptors + request.binds().filter(|is_bind| *is_bind).count()
    };
    let mut received = receive(socket, with_binds)?;
    let Received { request, descriptors, .. } = &mut received;
    let mut cloned = descriptors.mounts.split_off(request.descriptors).into_iter();
    let clone = |is_bind: bool| if is_bind { cloned.next() } else { None };
    let binds = request.binds().map(clone).collect();
    Ok((received, binds))
}

/// Receives a request and `count` descriptors beside its root's.
fn receive(socket: BorrowedFd<'_>, count: impl FnOnce(&Request) -> usize) -> io::Result<Received> {
    let mut descriptors = receive_descriptors(socket)?.into_iter();
    let (Some(document), Some(root)) = (descriptors.next(), descriptors.next()) else {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    };
    let document = File::from(document);
    // By position: whoever has the document shares one offset.
    let mut text = vec![0; usize::try_from(document.metadata()?.len()).map_err(io::Error::other)?];
    document.read_exact_at(&mut text, 0)?;
    let request: Request = serde_json::from_slice(&text)?;
    let count = count(&request);
    let mut mounts: Vec<OwnedFd> = descriptors.collect();
    while mounts.len() < count {
        mounts.extend(receive_descriptors(socket)?);
    }
    Ok(Received { document, request, descriptors: Descriptors { root, mounts } })
}

/// Receives what [`send_descriptors`] sent.
pub(crate) fn receive_descriptors(socket: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); ANCILLARY];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let message = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut byte)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if message.bytes == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    if message.flags.contains(ReturnFlags::CTRUNC) {
        // Some were lost: this process may not have as many.
        return Err(Errno::MFILE.into());
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(descriptors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::plan::Mount;
    use rustix::fs::fstat;

    #[test]
    fn request_and_many_descriptors_arrive() {
        let (here, there) = UnixStream::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let zero = File::open("/dev/zero").unwrap();
        let mut mounts = vec![null.as_fd(); 600];
        mounts.push(zero.as_fd());
        let mut spec = SandboxSpec::new(vec!["true".to_owned()]);
        spec.env = vec!["BIG=".to_owned() + &"x".repeat(1 << 20)];
        spec.mounts = [MountKind::Tmpfs { size: None, mode: 0 }, MountKind::Bind { descriptor: 0 }]
            .map(|kind| Mount { destination: "/a".to_owned(), kind, attributes: <_>::default() })
            .into();
        let request = Request {
            spec: spec.clone(),
            in_user_namespace: false,
            is_chroot: false,
            descriptors: mounts.len(),
        };
        send_request(&here, &request, zero.as_fd(), &mounts).unwrap();
        let received = receive_request(there.as_fd()).unwrap();
        let device = |fd: BorrowedFd<'_>| fstat(fd).unwrap().st_rdev;
        let assert_whole = |Received { request, descriptors, .. }: &Received| {
            assert_eq!(request.spec, spec);
            assert_eq!(device(descriptors.root.as_fd()), device(zero.as_fd()));
            assert_eq!(descriptors.mounts.len(), 601);
            assert_eq!(device(descriptors.mounts[599].as_fd()), device(null.as_fd()));
            assert_eq!(device(descriptors.mounts[600].as_fd()), device(zero.as_fd()));
        };
        assert_whole(&received);
        let binds = [None, Some(File::open("/dev/full").unwrap().into())];
        pass_on(&here, &received, &binds).unwrap();
        let (passed_on, received_binds) = receive_passed_on(there.as_fd()).unwrap();
        assert_whole(&passed_on);
        let device_of = |bind: &Option<OwnedFd>| bind.as_ref().map(|bind| device(bind.as_fd()));
        let devices = |binds: &[Option<OwnedFd>]| binds.iter().map(device_of).collect::<Vec<_>>();
        assert_eq!(devices(&received_binds), devices(&binds));
    }

    #[test]
    fn closed_socket_is_an_error() {
        let (here, there) = UnixStream::pair().unwrap();
        drop(here);
        assert_eq!(
            receive_request(there.as_fd()).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[test]
    fn status_is_valid_by_the_spec() {
        let mut spec = SandboxSpec::new(vec!["true".to_owned()]);
        assert!(ExitStatus::Code(0).is_valid_for(&spec));
        assert!(!ExitStatus::Code(3).is_valid_for(&spec));
        spec.valid_exit_codes = vec![3];
        assert!(ExitStatus::Code(3).is_valid_for(&spec));
        assert!(!ExitStatus::Signal(3).is_valid_for(&spec));
        assert_eq!(ExitStatus::Signal(9).code(), 137);
    }
}
