//! SSH agents for steps and for git: a socket of the step's own, of whose messages only two reach the user's agent or keys.
//!
//! A step may list keys and have them sign (as BuildKit's may). It may not add or remove keys, lock the agent, or use an extension. The
//! messages (draft-ietf-sshm-ssh-agent) are a length of four bytes, a type of one, and the rest.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use rbuild_cache::PendingLayer;
use rustix::fs::{AtFlags, Mode, OFlags};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::owner;
use crate::secrets::SshAgent;
use crate::ssh::{REQUEST_IDENTITIES, SIGN_REQUEST, SshKeys};

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
    target: SshAgent,
    /// Holds the socket's file.
    around: PendingLayer,
}

/// The file of the socket.
const NAME: &str = "agent";
/// A path of a socket has at most this many bytes.
const LONGEST_PATH: usize = 107;

impl Agent {
    /// Makes a socket in `around`, a directory of its own. Returns its file, to be mounted.
    pub(crate) fn new(
        target: &SshAgent,
        around: PendingLayer,
        owner: SocketOwner,
    ) -> io::Result<(Self, OwnedFd)> {
        // The path of the store may be longer than that of a socket.
        let place = format!("/proc/self/fd/{}/{NAME}", around.dir().as_raw_fd());
        let listener = StdUnixListener::bind(place)?;
        listener.set_nonblocking(true)?;
        let (uid, gid) = (owner::uid(owner.uid), owner::gid(owner.gid));
        let no_flags = AtFlags::empty();
        rustix::fs::chownat(around.dir(), NAME, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(owner.mode & 0o777);
        rustix::fs::chmodat(around.dir(), NAME, mode, no_flags)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(around.dir(), NAME, flags, Mode::empty())?;
        Ok((Self { listener, target: target.clone(), around }, file))
    }

    /// Where a program that is started from here finds the socket.
    pub(crate) fn path(&self) -> PathBuf {
        let path = self.around.path().join(NAME);
        if path.as_os_str().len() <= LONGEST_PATH {
            return path;
        }
        let (process, dir) = (std::process::id(), self.around.dir().as_raw_fd());
        PathBuf::from(format!("/proc/{process}/fd/{dir}/{NAME}"))
    }

    /// Serves whoever connects, until the future is dropped. Ends only when nobody can connect any more.
    pub(crate) async fn serve(&self) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < MOST => {
                    connections.push(self.converse(accepted?.0));
                }
                // A connection that fails is closed, which tells the step all there is to know.
                Some(_ended) = connections.next(), if !connections.is_empty() => {}
            }
        }
    }

    async fn converse(&self, step: UnixStream) -> io::Result<()> {
        match &self.target {
            SshAgent::Socket(path) => forward(step, path).await,
            SshAgent::Keys(keys) => answer(step, keys).await,
        }
    }
}

/// Answers with keys of our own, until the step closes.
async fn answer(mut step: UnixStream, keys: &Arc<SshKeys>) -> io::Result<()> {
    while let Some(request) = read_message(&mut step).await? {
        match keys.answer(&request[4..]) {
            Some(answer) => {
                let length = u32::try_from(answer.len()).map_err(io::Error::other)?;
                step.write_all(&[&length.to_be_bytes(), &answer[..]].concat()).await?;
            }
            None => step.write_all(&REFUSAL).await?,
        }
    }
    Ok(())
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
}
