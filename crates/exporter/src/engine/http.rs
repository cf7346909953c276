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
/// How long a question may take. Taking an image in may take any time.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let mut stream = Stream::connect(place)?;
    stream.set_patience(PATIENCE).map_err(fail)?;
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: engine\r\nUser-Agent: rbuild\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).map_err(fail)?;
    answer(stream, place)
}

/// Sends what `write` writes. An answer that comes before the end counts: it says why the engine wants no more.
pub(super) fn post<E: From<EngineError>>(
    place: &EnginePlace,
    path: &str,
    content_type: &str,
    write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
) -> Result<Answer, E> {
    let fail =
        |source| EngineError::Transfer { action: "write to", place: place.to_string(), source };
    let mut stream = Stream::connect(place)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: engine\r\nUser-Agent: rbuild\r\nConnection: close\r\n\
         Content-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).map_err(fail)?;
    let mut body = BufWriter::with_capacity(CHUNK, Chunks { out: stream, broken: false });
    let written = write(&mut body);
    let ended = written.is_ok() && body.flush().is_ok();
    let (Chunks { mut out, broken }, _) = body.into_parts();
    if let Err(error) = written
        && !broken
    {
        return Err(error);
    }
    if ended {
        // Whether it got the end shows in the answer.
        let _ = out.write_all(b"0\r\n\r\n");
    }
    Ok(answer(out, place)?)
}

/// A body of unknown length: each write with its length before it.
struct Chunks {
    out: Stream,
    /// The other side wants no more.
    broken: bool,
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
        let sent = send();
        self.broken |= sent.is_err();
        sent.map(|()| bytes.len())
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
    loop {
        let answer = read_head(&mut reader.by_ref().take(LARGEST_HEAD))?;
        // What only says to go on.
        if answer.status >= 200 {
            let body = read_body(reader, &answer)?;
            return Ok(Answer { body, ..answer });
        }
    }
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
            if body.len() as u64 + size > LARGEST_ANSWER {
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

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn connect(place: &EnginePlace) -> Result<Self, EngineError> {
        let stream = match place {
            EnginePlace::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            EnginePlace::Tcp(address) => TcpStream::connect(address.as_str()).map(Self::Tcp),
        };
        stream.map_err(|source| EngineError::Connect { place: place.to_string(), source })
    }

    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(Some(patience)),
            Self::Tcp(stream) => stream.set_read_timeout(Some(patience)),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
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
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
