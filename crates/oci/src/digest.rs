//! Content digests: `algorithm:hex`, section "Digests" of the OCI image descriptor specification.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A digest algorithm that is registered by the OCI image specification and understood here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// `sha256`, which everything that rbuild writes uses.
    Sha256,
    /// `sha512`, accepted in what others wrote.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

/// The digest of some bytes: an algorithm and the bytes that it gave.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Digest {
    /// A SHA-256 digest.
    Sha256([u8; 32]),
    /// A SHA-512 digest.
    Sha512([u8; 64]),
}

/// Why a text is no [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `algorithm:` in front.
    #[error("digest `{0}` is not of the form algorithm:hex")]
    Form(String),
    /// The algorithm is none of [`Algorithm`].
    #[error("digest algorithm `{0}` is not supported (sha256 and sha512 are)")]
    Algorithm(String),
    /// The encoded part is not lower-case hex of the right length.
    #[error("digest `{0}` does not have the lower-case hex digits of its algorithm")]
    Hex(String),
}

impl Digest {
    /// Computes the SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::Sha256(sha2::Sha256::digest(bytes).into())
    }

    /// Parses `algorithm:hex`.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(DigestError::Form(text.to_owned()));
        };
        let bad_hex = || DigestError::Hex(text.to_owned());
        match algorithm {
            "sha256" => decode_hex(hex).map(Self::Sha256).ok_or_else(bad_hex),
            "sha512" => decode_hex(hex).map(Self::Sha512).ok_or_else(bad_hex),
            other => Err(DigestError::Algorithm(other.to_owned())),
        }
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The raw bytes: 32 or 64 of them.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Sha256(bytes) => bytes,
            Self::Sha512(bytes) => bytes,
        }
    }

    /// The part after the colon.
    pub fn hex(&self) -> String {
        let mut written = [0; LONGEST_TEXT];
        let (_, hex) = self.write_text(&mut written).split_at(self.algorithm().name().len() + 1);
        hex.to_owned()
    }

    /// Writes `algorithm:hex`. Records of builds have tens of thousands of digests.
    fn write_text<'a>(&self, to: &'a mut [u8; LONGEST_TEXT]) -> &'a str {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let (name, bytes) = (self.algorithm().name(), self.as_bytes());
        let head = name.len() + 1;
        to[..name.len()].copy_from_slice(name.as_bytes());
        to[name.len()] = b':';
        for (pair, byte) in to[head..].chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        std::str::from_utf8(&to[..head + 2 * bytes.len()]).expect("all of it is ASCII")
    }
}

/// How long the text of a SHA-512 digest is.
const LONGEST_TEXT: usize = "sha512:".len() + 2 * 64;

fn decode_hex<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    if hex.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write_text(&mut [0; LONGEST_TEXT]))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        Self::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.write_text(&mut [0; LONGEST_TEXT]))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Computes a digest of what is written to it.
#[derive(Clone, Debug)]
pub struct Hasher {
    state: HasherState,
    length: u64,
}

#[derive(Clone, Debug)]
enum HasherState {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new(Algorithm::Sha256)
    }
}

impl Hasher {
    /// Starts a digest.
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => HasherState::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => HasherState::Sha512(sha2::Sha512::new()),
        };
        Self { state, length: 0 }
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            HasherState::Sha256(state) => state.update(bytes),
            HasherState::Sha512(state) => state.update(bytes),
        }
        self.length += bytes.len() as u64;
    }

    /// How many bytes were added.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        match self.state {
            HasherState::Sha256(state) => Digest::Sha256(state.finalize().into()),
            HasherState::Sha512(state) => Digest::Sha512(state.finalize().into()),
        }
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What was read is not what was promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The bytes have another digest.
    #[error("content has digest `{actual}`, expected `{expected}`")]
    Digest {
        /// What was promised.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// There are fewer bytes than promised.
    #[error("content ends after {actual} bytes, expected {expected}")]
    Short {
        /// What was promised.
        expected: u64,
        /// How many there were.
        actual: u64,
    },
    /// There are more bytes than promised.
    #[error("content goes on after its {expected} bytes")]
    Long {
        /// What was promised.
        expected: u64,
    },
}

/// Reads a blob and fails, with [`VerifyError`] inside the [`io::Error`], before it would report an end
/// that is not the promised one.
///
/// Never hands out more than `size` bytes, so a lying peer cannot fill a disk.
#[derive(Debug)]
pub struct VerifyingReader<R> {
    inner: R,
    hasher: Option<Hasher>,
    expected: Digest,
    size: u64,
    seen: u64,
}

impl<R: Read> VerifyingReader<R> {
    /// Reads `size` bytes with digest `expected` from `inner`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        let hasher = Some(Hasher::new(expected.algorithm()));
        Self { inner, hasher, expected, size, seen: 0 }
    }

    fn end(&mut self) -> Result<(), VerifyError> {
        if self.seen < self.size {
            return Err(VerifyError::Short { expected: self.size, actual: self.seen });
        }
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        let actual = hasher.finish();
        if actual != self.expected {
            return Err(VerifyError::Digest { expected: self.expected, actual });
        }
        Ok(())
    }
}

impl<R: Read> Read for VerifyingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        if read == 0 {
            self.end().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            return Ok(0);
        }
        self.seen += read as u64;
        if self.seen > self.size {
            let error = VerifyError::Long { expected: self.size };
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..read]);
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_and_prints() {
        assert_eq!(Digest::parse(EMPTY).unwrap(), Digest::of(b""));
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:E3",
            "md5:00",
            &EMPTY.to_uppercase(),
            &format!("{EMPTY}0"),
        ] {
            assert!(Digest::parse(bad).is_err(), "{bad}");
        }
        let long = format!("sha512:{}", "0f".repeat(64));
        assert_eq!(Digest::parse(&long).unwrap().to_string(), long);
    }

    fn read(bytes: &[u8], expected: Digest, size: u64) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        match VerifyingReader::new(bytes, expected, size).read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn verifying_reader_refuses_every_lie() {
        let digest = Digest::of(b"hello");
        assert_eq!(read(b"hello", digest, 5).unwrap(), b"hello");
        assert!(read(b"hell", digest, 5).unwrap_err().contains("ends after 4 bytes"));
        assert!(read(b"hello!", digest, 5).unwrap_err().contains("goes on"));
        assert!(read(b"hullo", digest, 5).unwrap_err().contains("expected `sha256:2cf24"));
    }
}
