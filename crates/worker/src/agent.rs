//! SSH agents for steps: a socket of the step's own, of whose messages only two reach the user's agent.
//!
//! A step may list keys and have them sign (as BuildKit's may). It may not add or remove keys, lock the agent, or use an extension. The
//! messages (draft-ietf-sshm-ssh-agent) are a length of four bytes, a type of one, and the rest.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use futures_util::stream::{FuturesUnordered, StreamExt};
use rbuild_cache::PendingLayer;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// Asks for the list of keys.
const REQUEST_IDENTITIES: u8 = 11;
/// Asks for a signature.
const SIGN_REQUEST: u8 = 13;
/// What an agent says to what it does not do: `SSH_AGENT_FAILURE`.
const REFUSAL: [u8; 5] = [0, 0, 0, 1, 5];

/// The longest message; OpenSSH's limit.
const LONGEST: u32 = 256 << 10;

/// How many connections there may be at a time.
const MOST: usize = 64;

/// Who may use a step's socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketOwner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// A socket that waits for a step.
#[derive(Debug)]
pub(crate) struct Agent {
    listener: StdUnixListener,
    /// The socket of the user's agent.
    target: PathBuf,
    /// Holds the socket's file.
    _around: PendingLayer,
}

impl Agent {
    /// Makes a socket in `around`, a directory of its own. Returns its file, to be mounted.
    pub(crate) fn new(
        target: &Path,
        around: PendingLayer,
        owner: SocketOwner,
    ) -> io::Result<(Self, OwnedFd)> {
        const NAME: &str = "agent";
        // A path of a socket has at most 107 bytes, and that of the store may be longer.
        let place = format!("/proc/self/fd/{}/{NAME}", around.dir().as_raw_fd());
        let listener = StdUnixListener::bind(place)?;
        listener.set_nonblocking(true)?;
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        let no_flags = AtFlags::empty();
        rustix::fs::chownat(around.dir(), NAME, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(owner.mode & 0o777);
        rustix::fs::chmodat(around.dir(), NAME, mode, no_flags)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(around.dir(), NAME, flags, Mode::empty())?;
        Ok((Self { listener, target: target.to_owned(), _around: around }, file))
    }

    /// Serves whoever connects, until the future is dropped. Ends only when nobody can connect any more.
    pub(crate) async fn serve(&self) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < MOST => {
                    connections.push(forward(accepted?.0, &self.target));
                }
                // A connection that fails is closed, which tells the step all there is to know.
                Some(_ended) = connections.next(), if !connections.is_empty() => {}
            }
        }
    }
}

/// Passes on what is allowed, one message after the other, until one side closes.
async fn forward(mut step: UnixStream, target: &Path) -> io::Result<()> {
    let mut agent = UnixStream::connect(target).await?;
    while let Some(request) = read_message(&mut step).await? {
        if matches!(request.get(4), Some(&REQUEST_IDENTITIES | &SIGN_REQUEST)) {
            agent.write_all(&request).await?;
            let Some(reply) = read_message(&mut agent).await? else { return Ok(()) };
            step.write_all(&reply).await?;
        } else {
            step.write_all(&REFUSAL).await?;
        }
    }
    Ok(())
}

/// A message with its length; `None` at the end.
async fn read_message<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    };
    let count = u32::from_be_bytes(length);
    if count > LONGEST {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut message = vec![0; 4 + count as usize];
    message[..4].copy_from_slice(&length);
    from.read_exact(&mut message[4..]).await?;
    Ok(Some(message))
}

/// Whether a path leads to a socket.
///
/// # Errors
/// When it leads nowhere, or to something else, such as a key.
pub fn check_agent_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    if path.metadata()?.file_type().is_socket() {
        return Ok(());
    }
    // To tell a key, which people give here, from a file that cannot be read.
    File::open(path)?;
    Err(io::Error::from_raw_os_error(libc::ENOTSOCK))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of `requests` when the agent answers each with its type after a 14.
    async fn exchange(requests: &[&[u8]]) -> Vec<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let agent = UnixListener::bind(&path).unwrap();
        let answer = async {
            let (mut client, _) = agent.accept().await.unwrap();
            while let Some(request) = read_message(&mut client).await.unwrap() {
                client.write_all(&[0, 0, 0, 2, 14, request[4]]).await.unwrap();
            }
        };
        let (mut step, ours) = UnixStream::pair().unwrap();
        let ask = async {
            let mut replies = Vec::new();
            for request in requests {
                step.write_all(request).await.unwrap();
                replies.push(read_message(&mut step).await.unwrap().unwrap());
            }
            drop(step);
            replies
        };
        let (replies, forwarded, ()) = tokio::join!(ask, forward(ours, &path), answer);
        forwarded.unwrap();
        replies
    }

    #[tokio::test]
    async fn only_listing_and_signing_reach_the_agent() {
        let list: &[u8] = &[0, 0, 0, 1, 11];
        let sign: &[u8] = &[0, 0, 0, 3, 13, 1, 2];
        let refused: [&[u8]; 6] = [
            &[0, 0, 0, 1, 17],
            &[0, 0, 0, 1, 18],
            &[0, 0, 0, 1, 19],
            &[0, 0, 0, 2, 22, 0],
            &[0, 0, 0, 5, 27, 0, 0, 0, 0],
            &[0, 0, 0, 0],
        ];
        let all = [&[list, sign][..], &refused, &[list]].concat();
        let replies = exchange(&all).await;
        assert_eq!(replies[0], [0, 0, 0, 2, 14, 11]);
        assert_eq!(replies[1], [0, 0, 0, 2, 14, 13]);
        assert!(replies[2..8].iter().all(|reply| *reply == REFUSAL));
        assert_eq!(replies[8], [0, 0, 0, 2, 14, 11]);
    }

    #[tokio::test]
    async fn messages_without_end_are_refused() {
        let mut message: &[u8] = &[0xff, 0xff, 0xff, 0xff, 11];
        assert!(read_message(&mut message).await.is_err());
    }

    #[test]
    fn keys_are_no_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("id_ed25519");
        std::fs::write(&key, "key").unwrap();
        let error = check_agent_socket(&key).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
        assert!(check_agent_socket(&dir.path().join("none")).is_err());
        let socket = dir.path().join("socket");
        drop(StdUnixListener::bind(&socket).unwrap());
        check_agent_socket(&socket).unwrap();
    }
}
