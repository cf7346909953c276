//! What is fetched.

use base64::Engine as _;
use rbuild_oci::Digest;
use rbuild_solver::{LayerId, SourceOp, redact_url};
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::{DownloadError, DownloadErrorKind};

/// The mode of a file that has none given.
const MODE: u32 = 0o600;
/// The name of a file whose address has none.
const NAME: &str = "download";
/// File names may not be longer.
const LONGEST_NAME: usize = 255;

/// A file behind an address, and what it is to be here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Download {
    /// Without name and password.
    pub(super) url: Url,
    /// As it was given.
    written: String,
    pub(super) authorization: Option<HeaderValue>,
    /// Its name here.
    pub(super) name: String,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) checksum: Option<Digest>,
}

impl Download {
    /// Reads an `http://` or `https://` source with its `http.*` attributes.
    pub fn of(source: &SourceOp) -> Result<Self, DownloadError> {
        Self::parse(source).map_err(|kind| DownloadError {
            url: redact_url(&source.identifier),
            kind: Box::new(kind),
        })
    }

    fn parse(source: &SourceOp) -> Result<Self, DownloadErrorKind> {
        let mut url = Url::parse(&source.identifier)
            .map_err(|error| DownloadErrorKind::Url(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(DownloadErrorKind::Url("it is not of HTTP".to_owned()));
        }
        let authorization = authorization(&url);
        // What is fetched has no place within it, and who asks is said in a header.
        url.set_fragment(None);
        let is_plain = url.set_username("").is_ok() && url.set_password(None).is_ok();
        debug_assert!(is_plain, "an HTTP address has a host");
        let attribute = |name| source.attrs.get(name).map(String::as_str);
        let number = |name, radix, what| {
            attribute(name).filter(|text| !text.is_empty()).map_or(Ok(None), |text| {
                u32::from_str_radix(text, radix).map(Some).map_err(|_| {
                    DownloadErrorKind::Attribute { name, value: text.to_owned(), what }
                })
            })
        };
        let checksum = match attribute("http.checksum").filter(|text| !text.is_empty()) {
            Some(text) => Some(Digest::parse(text).map_err(|_| DownloadErrorKind::Attribute {
                name: "http.checksum",
                value: text.to_owned(),
                what: "digest",
            })?),
            None => None,
        };
        let name = match attribute("http.filename").filter(|text| !text.is_empty()) {
            Some(name) => name.to_owned(),
            None => {
                let last = url.path_segments().and_then(|mut segments| segments.next_back());
                last.filter(|last| is_name(last)).unwrap_or(NAME).to_owned()
            }
        };
        if !is_name(&name) {
            return Err(DownloadErrorKind::FileName(name));
        }
        Ok(Self {
            written: source.identifier.clone(),
            authorization,
            name,
            mode: number("http.perm", 8, "octal mode")?.unwrap_or(MODE) & 0o7777,
            uid: number("http.uid", 10, "user id")?.unwrap_or(0),
            gid: number("http.gid", 10, "group id")?.unwrap_or(0),
            checksum,
            url,
        })
    }

    /// The address without a password.
    pub fn shown(&self) -> String {
        redact_url(&self.written)
    }

    /// The host that is asked, with its port if that is not the usual one.
    pub fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        self.url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// Gives the `Authorization` that its origin is told, unless the address has a name and a password. A text that is no header is not.
    pub fn authorize(&mut self, header: &str) {
        if self.authorization.is_none() {
            self.authorization = secret_header(header);
        }
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Under what the answer is remembered: all but the checksum, which only says what it has to be, and who asks, which
    /// the server hears each time.
    pub(super) fn id(&self) -> Digest {
        self.derived("rbuild.download.v1", &[self.url.as_str().as_bytes()])
    }

    /// The identity of a file with this content and time.
    pub(super) fn file_id(&self, content: &Digest, modified: Option<i64>) -> Digest {
        let time = modified.map(i64::to_le_bytes);
        let time = time.as_ref().map_or(&[][..], |time| &time[..]);
        self.derived("rbuild.http.v1", &[content.to_string().as_bytes(), time])
    }

    /// The identity of a file whose content is known before it is fetched.
    pub(super) fn checksum_id(&self) -> Option<Digest> {
        let checksum = self.checksum?.to_string();
        Some(self.derived("rbuild.http.checksum.v1", &[checksum.as_bytes()]))
    }

    fn derived(&self, domain: &str, parts: &[&[u8]]) -> Digest {
        let numbers = [self.mode, self.uid, self.gid].map(u32::to_le_bytes).concat();
        let all: Vec<&[u8]> =
            parts.iter().copied().chain([self.name.as_bytes(), &numbers]).collect();
        Digest::Sha256(*LayerId::derived(domain, &all).as_bytes())
    }
}

fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= LONGEST_NAME && !name.contains(['/', '\0'])
}

/// What the name and password of an address say to its origin.
fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let [name, password] =
        [url.username(), url.password().unwrap_or_default()].map(percent_decoded);
    let text =
        base64::engine::general_purpose::STANDARD.encode([&name[..], b":", &password].concat());
    secret_header(&format!("Basic {text}"))
}

fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Undoes `%41`, as names and passwords in addresses have it.
pub fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, attrs: &[(&str, &str)]) -> Result<Download, DownloadError> {
        let mut source = SourceOp::new(url);
        source.attrs.extend(attrs.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        Download::of(&source)
    }

    #[test]
    fn attributes_of_llb_are_honoured() {
        let plain = of("https://a.example/x/y.tar?z#f", &[]).unwrap();
        assert_eq!(plain.url.as_str(), "https://a.example/x/y.tar?z");
        assert_eq!((plain.name.as_str(), plain.mode, plain.uid, plain.gid), ("y.tar", 0o600, 0, 0));
        assert_eq!(of("https://a.example/x/", &[]).unwrap().name, "download");
        let digest = Digest::of(b"x");
        let text = digest.to_string();
        let all = [
            ("http.filename", "name"),
            ("http.perm", "0755"),
            ("http.uid", "1"),
            ("http.gid", "2"),
            ("http.checksum", text.as_str()),
        ];
        let given = of("http://a.example/", &all).unwrap();
        assert_eq!((given.name.as_str(), given.mode, given.uid, given.gid), ("name", 0o755, 1, 2));
        assert_eq!(given.checksum, Some(digest));
        for (name, value) in [
            ("http.perm", "9"),
            ("http.uid", "-1"),
            ("http.checksum", "sha256:x"),
            ("http.filename", "../x"),
            ("http.filename", ".."),
        ] {
            assert!(of("http://a.example/", &[(name, value)]).is_err(), "{name}");
        }
        assert!(of("ftp://a.example/", &[]).is_err() && of("http://", &[]).is_err());
    }

    #[test]
    fn what_decides_the_identity() {
        let content = Digest::of(b"x");
        let plain = of("http://a.example/f", &[]).unwrap();
        let same = of("http://b.example/f", &[]).unwrap();
        assert_eq!(plain.file_id(&content, Some(1)), same.file_id(&content, Some(1)));
        assert_ne!(plain.id(), same.id());
        assert_ne!(plain.file_id(&content, Some(1)), plain.file_id(&content, None));
        let other = of("http://a.example/f", &[("http.uid", "1")]).unwrap();
        assert_ne!(plain.file_id(&content, None), other.file_id(&content, None));
        assert_eq!(plain.checksum_id(), None);
    }

    #[test]
    fn passwords_go_into_a_header_and_are_not_shown() {
        let given = of("https://me:p%40ss@a.example/f", &[]).unwrap();
        assert_eq!(given.url.as_str(), "https://a.example/f");
        let header = given.authorization.as_ref().unwrap();
        assert_eq!(header.to_str().unwrap(), "Basic bWU6cEBzcw==");
        assert!(header.is_sensitive());
        assert!(!format!("{:?}", of("http://a:secret@", &[]).unwrap_err()).contains("secret"));
    }
}
