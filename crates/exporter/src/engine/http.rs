//! As much of HTTP/1.1 as a request to an engine takes: one a connection, and a body that is sent while it is made.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::EngineError;

/// What an engine may answer in all: it lists what it has.
const LARGEST_ANSWER: u64 = 64 << 20;
const LARGEST_HEAD: u64 = 64 << 10;
const CHUNK: usize = 256 << 10;
/// How many answers may say only to go on.
const MOST_INTERIM: usize = 16;
/// How long an engine may be silent, or take nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may be silent when it has got all: it takes the image in, without a word on the way.
const LONG_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnginePlace {
    /// A socket.
    Unix(PathBuf),
    /// Host and port, spoken to without encryption.
    Tcp(String),
}

impl std::fmt::Display for EnginePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names in small letters.
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Asks a question.
pub(super) fn get(place: &EnginePlace, path: &str) -> Result<Answer, EngineError> {
    let fail = |source| EngineError::Transfer { action: "ask", place: place.to_string(), source };
    let mut stream = Stream::connect(place, PATIENCE)?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: engine\r\nUser-Agent: rbuild\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).map_err(fail)?;
    answer(stream, place)
}

/// What came of sending something.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) answer: Answer,
    /// Why the engine has not got all of it: it has answered before.
    pub(super) cut_off: Option<io::Error>,
}

/// Sends what `write` writes. An answer that comes before the end says why the engine wants no more.
pub(super) fn post<E: From<EngineError>>(
    place: &EnginePlace,
    path: &str,
    content_type: &str,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<Sent, E> {
    let fail =
        |source| EngineError::Transfer { action: "write to", place: place.to_string(), source };
    let mut stream = Stream::connect(place, PATIENCE)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: engine\r\nUser-Agent: rbuild\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).map_err(fail)?;
    let mut body = BufWriter::with_capacity(CHUNK, Chunks { out: stream, broken: None });
    let written = write(&mut body);
    let ended = written.is_ok() && body.flush().is_ok();
    let (Chunks { mut out, broken }, _) = body.into_parts();
    if let Some(error) = broken {
        // One that takes nothing has nothing to say.
        if error.kind() == io::ErrorKind::TimedOut {
            return Err(fail(error).into());
        }
        return match answer(out, place) {
            Ok(answer) => Ok(Sent { answer, cut_off: Some(error) }),
            Err(_) => Err(fail(error).into()),
        };
    }
    written?;
    if ended {
        // Whether it got the end shows in the answer.
        let _ = out.write_all(b"0\r\n\r\n");
    }
    out.set_patience(LONG_PATIENCE).map_err(fail)?;
    Ok(Sent { answer: answer(out, place)?, cut_off: None })
}

/// A body of unknown length: each write with its length before it.
struct Chunks {
    out: Stream,
    /// Why the other side gets no more.
    broken: Option<io::Error>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            // A chunk without bytes is the end.
            return Ok(0);
        }
        let mut send = || {
            write!(self.out, "{:x}\r\n", bytes.len())?;
            self.out.write_all(bytes)?;
            self.out.write_all(b"\r\n")
        };
        match send() {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                let kind = error.kind();
                self.broken.get_or_insert(error);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn answer(stream: Stream, place: &EnginePlace) -> Result<Answer, EngineError> {
    let mut reader = BufReader::new(stream);
    read_answer(&mut reader).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => {
            EngineError::NoEngine { place: place.to_string(), reason: error.to_string() }
        }
        _ => EngineError::Transfer {
            action: "read the answer of",
            place: place.to_string(),
            source: error,
        },
    })
}

fn read_answer(reader: &mut impl BufRead) -> io::Result<Answer> {
    for _ in 0..=MOST_INTERIM {
        let answer = read_head(&mut reader.by_ref().take(LARGEST_HEAD))?;
        // What only says to go on.
        if answer.status >= 200 {
            let body = read_body(reader, &answer)?;
            return Ok(Answer { body, ..answer });
        }
    }
    Err(odd("it says only to go on, again and again"))
}

fn odd(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Answer> {
    let status = line(reader)?;
    let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let status = code.ok_or_else(|| odd("it does not speak HTTP"))?;
    let mut headers = Vec::new();
    loop {
        let line = line(reader)?;
        if line.is_empty() {
            return Ok(Answer { status, headers, body: Vec::new() });
        }
        let (name, value) = line.split_once(':').ok_or_else(|| odd("a header has no colon"))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_body(reader: &mut impl BufRead, answer: &Answer) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let chunked = answer.header("transfer-encoding");
    if chunked.is_some_and(|encoding| encoding.eq_ignore_ascii_case("chunked")) {
        loop {
            let size = line(&mut reader.by_ref().take(LARGEST_HEAD))?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| odd("a chunk has no length"))?;
            if size == 0 {
                return Ok(body);
            }
            if size > LARGEST_ANSWER - body.len() as u64 {
                return Err(odd("its answer is too long"));
            }
            let read = reader.by_ref().take(size).read_to_end(&mut body)?;
            if (read as u64) < size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            line(&mut reader.by_ref().take(LARGEST_HEAD))?;
        }
    }
    let length = answer.header("content-length").map(str::parse::<u64>);
    match length.transpose().map_err(|_| odd("it has an odd length"))? {
        Some(length) if length > LARGEST_ANSWER => return Err(odd("its answer is too long")),
        Some(length) => {
            let read = reader.take(length).read_to_end(&mut body)?;
            if (read as u64) < length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        None => {
            reader.take(LARGEST_ANSWER).read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

/// A line without its end.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| odd("it does not speak HTTP"))
}

/// A connection that fails after some time without progress.
#[derive(Debug)]
struct Stream {
    socket: Socket,
    patience: Duration,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn connect(place: &EnginePlace, patience: Duration) -> Result<Self, EngineError> {
        let socket = match place {
            EnginePlace::Unix(path) => UnixStream::connect(path).map(Socket::Unix),
            EnginePlace::Tcp(address) => TcpStream::connect(address.as_str()).map(Socket::Tcp),
        };
        let connected = socket.and_then(|socket| {
            let mut stream = Self { socket, patience };
            stream.set_patience(patience)?;
            Ok(stream)
        });
        connected.map_err(|source| EngineError::Connect { place: place.to_string(), source })
    }

    fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        self.patience = patience;
        match &self.socket {
            Socket::Unix(stream) => {
                stream.set_write_timeout(Some(patience))?;
                stream.set_read_timeout(Some(patience))
            }
            Socket::Tcp(stream) => {
                stream.set_write_timeout(Some(patience))?;
                stream.set_read_timeout(Some(patience))
            }
        }
    }

    /// Says what the kernel calls a resource that is not there.
    fn in_words<T>(&self, done: io::Result<T>, what: &str) -> io::Result<T> {
        done.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                let message = format!("it has {what} for {} seconds", self.patience.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, message)
            }
            _ => error,
        })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.socket {
            Socket::Unix(stream) => stream.read(buffer),
            Socket::Tcp(stream) => stream.read(buffer),
        };
        self.in_words(read, "said nothing")
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.socket {
            Socket::Unix(stream) => stream.write(bytes),
            Socket::Tcp(stream) => stream.write(bytes),
        };
        self.in_words(written, "taken nothing")
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<(u16, String)> {
        let answer = read_answer(&mut text.as_bytes())?;
        Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    #[test]
    fn answers_of_every_form() {
        for (text, status, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc", 200, "ab"),
            ("HTTP/1.0 404 No\r\nX: y\r\n\r\nuntil the end", 404, "until the end"),
            (
                "HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n\
                 3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n",
                200,
                "abcd",
            ),
        ] {
            assert_eq!(read(text).unwrap(), (status, body.to_owned()), "{text}");
        }
    }

    #[test]
    fn broken_answers_are_errors() {
        for text in [
            "",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 2",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\nffffffffffffffff\r\n",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn going_on_has_an_end() {
        let go_on = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
        assert!(read(&go_on).unwrap_err().to_string().contains("again and again"));
    }

    #[test]
    fn one_that_does_nothing_is_given_up() {
        let (mine, _theirs) = UnixStream::pair().unwrap();
        let mut stream = Stream { socket: Socket::Unix(mine), patience: Duration::ZERO };
        stream.set_patience(Duration::from_millis(1)).unwrap();
        let said = stream.read(&mut [0]).unwrap_err();
        assert_eq!(said.to_string(), "it has said nothing for 0 seconds");
        let mut chunks = Chunks { out: stream, broken: None };
        let taken = io::copy(&mut io::repeat(b'a'), &mut chunks).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::TimedOut);
        let broken = chunks.broken.unwrap();
        assert_eq!(broken.to_string(), "it has taken nothing for 0 seconds");
    }
}
