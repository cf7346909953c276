//! An HTTP server that answers as a test tells it to, also wrongly.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::Published;

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`, `POST`, ...
    pub method: String,
    /// The path and the query.
    pub path: String,
    /// The headers, names in lower case; what is said several times is one list.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// What the server answers. The connection is closed afterwards.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Headers besides `Content-Length` and `Connection`.
    pub headers: Vec<(String, String)>,
    /// The bytes that are really sent.
    pub body: Vec<u8>,
    /// What `Content-Length` claims; `None` leaves the header out, and the end of the connection ends the body.
    pub content_length: Option<usize>,
    /// Closes the connection without an answer.
    pub hang_up: bool,
    /// Sends no more than there is of the body, without any of it not even a status, and leaves the connection open.
    pub stall: bool,
}

impl Reply {
    /// An answer with a correct length.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let content_length = Some(body.len());
        Self { status, headers: Vec::new(), body, content_length, hang_up: false, stall: false }
    }

    /// No answer at all.
    pub fn hang_up() -> Self {
        Self { hang_up: true, ..Self::new(500, "") }
    }

    /// The same answer, of which nothing comes after the first `length` bytes of the body, and nothing at all if it has none.
    #[must_use]
    pub fn stalling_after(self, length: usize) -> Self {
        Self { stall: true, ..self.cut(length) }
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same answer, of which only the first `length` bytes of the body are sent.
    #[must_use]
    pub fn cut(mut self, length: usize) -> Self {
        self.body.truncate(length);
        self
    }

    /// The same answer with another claimed length.
    #[must_use]
    pub fn claiming(self, content_length: Option<usize>) -> Self {
        Self { content_length, ..self }
    }
}

/// A running server; it ends with this value.
#[derive(Debug)]
pub struct Scripted {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    listener: TcpListener,
    thread: Option<thread::JoinHandle<()>>,
}

impl Scripted {
    /// Serves on a free loopback port; `answer` gets the request and how many came before it.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let accepting = listener.try_clone().expect("a socket is cloned");
        let (log, answer) = (Arc::clone(&requests), Arc::new(answer));
        let thread = thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = accepting.accept() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                let stream = Arc::new(stream);
                let open = Arc::downgrade(&stream);
                let thread = thread::spawn(move || serve(&stream, &log, &*answer));
                connections.push((thread, open));
            }
            for (connection, open) in connections {
                // A client may hold a connection that it never asked anything on.
                if let Some(stream) = open.upgrade() {
                    let _ = stream.shutdown(Shutdown::Both);
                }
                // A panic in `answer` is reported by the thread itself; the client sees a closed connection.
                let _ = connection.join();
            }
        });
        Self { port, requests, listener, thread: Some(thread) }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// All requests until now.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no test thread panicked").clone()
    }

    /// `METHOD path` of all requests until now.
    pub fn lines(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|request| format!("{} {}", request.method, request.path))
            .collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        // `shutdown` of a listening socket wakes `accept`; std offers it for streams only, so connect after making the
        // socket non-blocking: the thread then accepts this last connection and finds nothing more.
        let _ = self.listener.set_nonblocking(true);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    mut stream: &TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &(impl Fn(&Request, usize) -> Reply + ?Sized),
) {
    // An accepted socket does not inherit the listener's mode on Linux.
    let mut reader = BufReader::new(stream);
    let Some(request) = read_request(&mut reader) else { return };
    let before = {
        let mut log = log.lock().expect("no test thread panicked");
        log.push(request.clone());
        log.len() - 1
    };
    let reply = answer(&request, before);
    if reply.hang_up {
        return;
    }
    if reply.stall && reply.body.is_empty() {
        return wait_for_client(stream);
    }
    let mut head = format!("HTTP/1.1 {} Scripted\r\nConnection: close\r\n", reply.status);
    if let Some(length) = reply.content_length {
        head.extend(["Content-Length: ", &length.to_string(), "\r\n"]);
    }
    for (name, value) in &reply.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    // The client may have gone away, which is its right.
    let _ = stream.write_all(head.as_bytes());
    if request.method != "HEAD" {
        let _ = stream.write_all(&reply.body);
    }
    if reply.stall {
        return wait_for_client(stream);
    }
    let _ = stream.shutdown(Shutdown::Write);
}

/// Ends when the client has given up.
fn wait_for_client(mut stream: &TcpStream) {
    let _ = io::copy(&mut stream, &mut io::sink());
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let value = value.trim();
        headers
            .entry(name.to_lowercase())
            .and_modify(|before| before.extend([", ", value]))
            .or_insert_with(|| value.to_owned());
    }
    let body = match headers.get("transfer-encoding").map(String::as_str) {
        Some("chunked") => read_chunks(reader)?,
        _ => {
            let length = headers.get("content-length").and_then(|text: &String| text.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).ok()?;
            body
        }
    };
    Some(Request { method, path, headers, body })
}

/// A body whose length nobody knew before (RFC 9112, section 7.1).
fn read_chunks(reader: &mut BufReader<&TcpStream>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        let start = body.len();
        body.resize(start + length, 0);
        reader.read_exact(&mut body[start..]).ok()?;
        reader.read_line(&mut line).ok()?;
        if length == 0 {
            return Some(body);
        }
    }
}

/// Answers as a registry that holds `published` under `repository:tag` does: the ground on which a test puts its faults.
pub fn serve_image(
    repository: &str,
    tag: &str,
    published: &Published,
) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let mut answers = BTreeMap::new();
    let manifests = format!("/v2/{repository}/manifests");
    for manifest in published.manifests.iter().chain([&published.top]) {
        answers.insert(format!("{manifests}/{}", manifest.digest()), manifest.clone());
    }
    answers.insert(format!("{manifests}/{tag}"), published.top.clone());
    for blob in &published.blobs {
        answers.insert(format!("/v2/{repository}/blobs/{}", blob.digest()), blob.clone());
    }
    move |request| match answers.get(&request.path) {
        Some(blob) => Reply::new(200, blob.bytes.clone())
            .header("Content-Type", &blob.media_type)
            .header("Docker-Content-Digest", &blob.digest()),
        None if request.path == "/v2/" => Reply::new(200, "{}"),
        None => Reply::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Image;

    fn get(address: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn serves_truths_and_lies() {
        let published = Image::new("linux/amd64").publish();
        let image = serve_image("a/b", "x", &published);
        let server = Scripted::start(move |request, before| match before {
            0 => image(request),
            1 => Reply::new(200, "hello").cut(2),
            _ => Reply::hang_up(),
        });
        let address = server.address();
        let body = String::from_utf8(published.top.bytes.clone()).unwrap();
        assert!(get(&address, "/v2/a/b/manifests/x").ends_with(&body));
        let cut = get(&address, "/");
        assert!(cut.contains("Content-Length: 5") && cut.ends_with("\r\n\r\nhe"), "{cut}");
        assert_eq!(get(&address, "/z"), "");
        assert_eq!(server.lines(), ["GET /v2/a/b/manifests/x", "GET /", "GET /z"]);
    }
}
