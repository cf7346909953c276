//! Debian's `docker-registry` on a free loopback port.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Blob, Published, Reply, Request, sha256};

/// A running `docker-registry` with its own empty storage; it ends with this value.
#[derive(Debug)]
pub struct Registry {
    process: Process,
    secure: Option<Process>,
    folder: tempfile::TempDir,
}

impl Registry {
    /// Starts a registry that everybody may read and write.
    ///
    /// Panics when `docker-registry` is not installed or does not answer.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder is made");
        let process = Process::start(folder.path(), "plain", "");
        Self { process, secure: None, folder }
    }

    /// Starts a registry as [`Registry::start`], and a second face of the same storage that asks for the user
    /// `name` with password `geheim`: [`Registry::protected_address`].
    pub fn start_with_password() -> Self {
        let mut registry = Self::start();
        let passwords = registry.folder.path().join("htpasswd");
        // The hash is bcrypt's, of `geheim`, at its least cost.
        let line = "name:$2b$04$abcdefghijklmnopqrstuuPWRtT5yx7FBi4dcf6ROhboeNunUrLQ.\n";
        fs::write(&passwords, line).expect("the password file is written");
        let auth =
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", passwords.display());
        registry.secure = Some(Process::start(registry.folder.path(), "secure", &auth));
        registry
    }

    /// Starts a registry as [`Registry::start`], and a second face of the same storage that speaks HTTPS with a
    /// certificate for `localhost` of a private authority: [`Registry::protected_address`] and
    /// [`Registry::authority`]. `None` when there is no `openssl` to make the certificates with.
    pub fn start_with_tls() -> Option<Self> {
        Self::start_secure("")
    }

    /// As [`Registry::start_with_tls`], and that face speaks only to those who have a certificate of the same authority, as
    /// [`Registry::client_certificate`] is.
    pub fn start_with_client_certificates() -> Option<Self> {
        Self::start_secure("    clientcas:\n      - authority.pem\n")
    }

    fn start_secure(more: &str) -> Option<Self> {
        let mut registry = Self::start();
        let folder = registry.folder.path();
        make_certificates(folder)?;
        let at = folder.display();
        let more = more.replace("authority.pem", &format!("{at}/authority.pem"));
        let tls =
            format!("  tls:\n    certificate: {at}/server.pem\n    key: {at}/server.key\n{more}");
        registry.secure = Some(Process::start(folder, "secure", &tls));
        Some(registry)
    }

    /// `127.0.0.1:port`, over plain HTTP and without a password.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.process.port)
    }

    /// `localhost:port` of the face that asks for a password or speaks HTTPS.
    pub fn protected_address(&self) -> String {
        let process = self.secure.as_ref().expect("the registry was started with a second face");
        format!("localhost:{}", process.port)
    }

    /// The PEM file of the authority that signed the HTTPS certificate.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// The PEM files of a client's certificate, in the oldest form that there is, and its key.
    pub fn client_certificate(&self) -> (PathBuf, PathBuf) {
        (self.folder.path().join("client.pem"), self.folder.path().join("client.key"))
    }

    /// Uploads an image under `repository:tag` and returns the digest that the tag then names.
    pub fn push(&self, repository: &str, tag: &str, published: &Published) -> String {
        for blob in &published.blobs {
            self.push_blob(repository, &blob.bytes);
        }
        for manifest in &published.manifests {
            self.push_manifest(repository, &manifest.digest(), manifest);
        }
        self.push_manifest(repository, tag, &published.top);
        published.digest()
    }

    /// Uploads one blob.
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) {
        let start = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
        let location = start
            .header("location")
            .unwrap_or_else(|| panic!("the registry began no upload: {}", start.head));
        let path = location.splitn(4, '/').nth(3).expect("the location is an absolute address");
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("/{path}{separator}digest={}", sha256(bytes));
        let done = self.send("PUT", &path, "application/octet-stream", bytes);
        assert_eq!(done.status, 201, "the registry refused a blob: {}", done.head);
    }

    /// Uploads one manifest or index.
    pub fn push_manifest(&self, repository: &str, reference: &str, manifest: &Blob) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let done = self.send("PUT", &path, &manifest.media_type, &manifest.bytes);
        assert_eq!(
            done.status, 201,
            "the registry refused a manifest: {} {}",
            done.head, done.body
        );
    }

    /// The manifest that `repository:reference` names; `None` when there is none.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Blob> {
        let answer = self.send("GET", &format!("/v2/{repository}/manifests/{reference}"), "", b"");
        (answer.status == 200).then(|| Blob {
            media_type: answer.header("content-type").unwrap_or_default().to_owned(),
            bytes: answer.body.clone().into_bytes(),
        })
    }

    /// Passes a request on as it is, and the answer back: the ground on which a [`crate::Scripted`] puts its faults.
    pub fn forward(&self, request: &Request) -> Reply {
        forward(self.process.port, request)
    }

    /// Where the registry keeps the blob `digest` (`sha256:hex`), for tests that take it away or damage it.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        let hex = digest.strip_prefix("sha256:").expect("fixtures use sha256");
        let blobs = self.folder.path().join("storage/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
             application/vnd.docker.distribution.manifest.v2+json, \
             application/vnd.docker.distribution.manifest.list.v2+json";
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept: {accept}\r\n\
             Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            self.address(),
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.process.port))
            .expect("the registry accepts connections");
        stream.write_all(head.as_bytes()).expect("the registry reads the request");
        stream.write_all(body).expect("the registry reads the body");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the registry answers");
        Answer::parse(&answer)
    }
}

/// Passes a request on to a port of the loopback.
pub(crate) fn forward(port: u16, request: &Request) -> Reply {
    // Of an old client a server expects no chunks.
    let mut head = format!("{} {} HTTP/1.0\r\n", request.method, request.path);
    for (name, value) in request.headers.iter().filter(|(name, _)| *name != "connection") {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    let mut stream =
        TcpStream::connect(("127.0.0.1", port)).expect("the server accepts connections");
    stream.write_all(head.as_bytes()).expect("the server reads the request");
    stream.write_all(&request.body).expect("the server reads the body");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("the server answers");
    let end = bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let end = end.expect("an HTTP answer has a head");
    let answer = Answer::parse(&bytes[..end + 4]);
    let mut reply = Reply::new(answer.status, &bytes[end + 4..]);
    reply.content_length = answer.header("content-length").and_then(|text| text.parse().ok());
    for (name, value) in answer.head.lines().skip(1).filter_map(|line| line.split_once(':')) {
        if !["content-length", "connection"].contains(&name.to_lowercase().as_str()) {
            reply = reply.header(name, value.trim());
        }
    }
    reply
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer has a head");
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        Self {
            status: status.expect("an HTTP answer has a status"),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

#[derive(Debug)]
struct Process {
    child: Child,
    port: u16,
}

impl Process {
    /// `more` goes under the configuration's `http` key, or after it.
    fn start(folder: &Path, name: &str, more: &str) -> Self {
        // The port can be taken between our probe and the registry's bind, by another test: try again then.
        for _ in 0..5 {
            let port = free_port();
            let configuration = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    \
                 rootdirectory: {}/storage\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
                folder.display()
            );
            let file = folder.join(format!("{name}.yml"));
            fs::write(&file, configuration).expect("the configuration is written");
            let child = Command::new("docker-registry")
                .args(["serve".as_ref(), file.as_os_str()])
                .env("OTEL_TRACES_EXPORTER", "none")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("`docker-registry` is installed (Debian package of that name)");
            let mut process = Self { child, port };
            if process.wait_until_it_answers() {
                return process;
            }
        }
        panic!("`docker-registry` does not start");
    }

    fn wait_until_it_answers(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return self.child.try_wait().is_ok_and(|exited| exited.is_none());
            }
            if !self.child.try_wait().is_ok_and(|exited| exited.is_none()) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing else to do about an error here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Makes `authority.pem`, and `server.pem` with `server.key` for `localhost`.
fn make_certificates(folder: &Path) -> Option<()> {
    let openssl = |arguments: &[&str]| {
        let status = Command::new("openssl")
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then_some(())
    };
    const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let with_key = |arguments: &[&str]| openssl(&[&["req"], &KEY[..], arguments].concat());
    fs::write(folder.join("extensions"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").ok()?;
    with_key(&[
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=rbuild test authority",
        "-keyout",
        "authority.key",
        "-out",
        "authority.pem",
    ])?;
    with_key(&["-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"])?;
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "server.csr",
        "-CA",
        "authority.pem",
        "-CAkey",
        "authority.key",
        "-CAcreateserial",
        "-extfile",
        "extensions",
        "-out",
        "server.pem",
    ])?;
    with_key(&["-subj", "/CN=us", "-keyout", "client.key", "-out", "client.csr"])?;
    let sign = "x509 -req -days 2 -in client.csr -CA authority.pem -CAkey authority.key -CAcreateserial -out client.pem";
    openssl(&sign.split(' ').collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, ImageIndex};

    #[test]
    fn keeps_what_is_pushed() {
        let registry = Registry::start();
        let published = ImageIndex::new().image(&Image::new("linux/amd64")).publish();
        let digest = registry.push("some/where", "tag", &published);
        let read = registry.manifest("some/where", "tag").unwrap();
        assert_eq!((read.digest(), &read), (digest, &published.top));
        assert!(registry.manifest("some/where", "other").is_none());
        let config = &published.blobs[0];
        assert_eq!(fs::read(registry.blob_path(&config.digest())).unwrap(), config.bytes);
    }
}
