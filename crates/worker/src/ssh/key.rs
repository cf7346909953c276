//! One private key, from its file.
//!
//! ```text
//! openssh-key-v1\0 cipher kdf options count public.. private
//! private: check check (type numbers.. comment).. padding
//! ```
//!
//! The format is OpenSSH's (`PROTOCOL.key`). RSA keys in the older form (PKCS #1) and keys as other programs write them
//! (PKCS #8) are read, too.

use base64::Engine as _;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};

use super::remainder::modulo_one_less;
use super::wire::{Reader, put_big_number, put_string};

const MAGIC: &[u8] = b"openssh-key-v1\0";
const ED25519: &str = "ssh-ed25519";
const RSA: &str = "ssh-rsa";
/// Asks for a signature of RSA with SHA-256 (draft-ietf-sshm-ssh-agent, section 3.6.1).
const RSA_SHA2_256: u32 = 2;
/// The same with SHA-512.
const RSA_SHA2_512: u32 = 4;

/// Why a file is no key that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SshKeyError {
    /// Something else.
    #[error("it is no private key of SSH")]
    NotAKey,
    /// A passphrase protects it.
    #[error("the key is encrypted")]
    Encrypted,
    /// It is of a kind that cannot sign here.
    #[error("keys of type {0} cannot be used, only ed25519, rsa, and ecdsa of 256 or 384 bits")]
    Type(String),
    /// It breaks off, or its parts do not fit together.
    #[error("the key is damaged")]
    Damaged,
    /// RSA of a length that is not secure, or slow beyond use.
    #[error("the key cannot be used: RSA keys have 2048 to 4096 bits here")]
    Length,
    /// Numbers that make no key.
    #[error("the key cannot be used: {0}")]
    Rejected(String),
}

/// A key that can sign.
#[derive(Debug)]
pub(super) struct SshKey {
    /// The public key, by which it is known.
    pub(super) public: Vec<u8>,
    pub(super) comment: Vec<u8>,
    signer: Signer,
}

#[derive(Debug)]
enum Signer {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

#[derive(Clone, Copy, Debug)]
enum Curve {
    P256,
    P384,
}

impl SshKey {
    /// Reads a key file.
    pub(super) fn parse(text: &[u8]) -> Result<Self, SshKeyError> {
        let text = std::str::from_utf8(text).map_err(|_| SshKeyError::NotAKey)?;
        let pem = Pem::find(text).ok_or(SshKeyError::NotAKey)?;
        match pem.label {
            "ENCRYPTED PRIVATE KEY" => return Err(SshKeyError::Encrypted),
            _ if pem.body.contains("ENCRYPTED") => return Err(SshKeyError::Encrypted),
            _ => {}
        }
        let base64: String = pem.body.split_ascii_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(base64)
            .map_err(|_| SshKeyError::Damaged)?;
        let signer = match pem.label {
            "OPENSSH PRIVATE KEY" => {
                let (signer, comment) = open_ssh(&bytes)?;
                return Ok(Self::new(signer, comment));
            }
            "RSA PRIVATE KEY" => Signer::Rsa(RsaKeyPair::from_der(&bytes).map_err(rejected)?),
            "PRIVATE KEY" => pkcs8(&bytes)?,
            "EC PRIVATE KEY" => return Err(SshKeyError::Type("EC PRIVATE KEY (SEC 1)".to_owned())),
            "DSA PRIVATE KEY" => return Err(SshKeyError::Type("ssh-dss".to_owned())),
            _ => return Err(SshKeyError::NotAKey),
        };
        Ok(Self::new(signer, Vec::new()))
    }

    fn new(signer: Signer, comment: Vec<u8>) -> Self {
        Self { public: signer.public(), comment, signer }
    }

    /// A signature in the form that the agent protocol has it; `None` if it cannot be as `flags` want it.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        let (name, bytes) = match &self.signer {
            Signer::Ed25519(pair) => (ED25519, pair.sign(data).as_ref().to_vec()),
            Signer::Ecdsa(curve, pair) => {
                let signature = pair.sign(&random, data).ok()?;
                let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
                let mut bytes = Vec::new();
                put_big_number(&mut bytes, r);
                put_big_number(&mut bytes, s);
                (curve.key_type(), bytes)
            }
            Signer::Rsa(pair) => {
                // Without a flag it would be SHA-1.
                let (name, encoding): (_, &'static dyn RsaEncoding) = match flags {
                    flags if flags & RSA_SHA2_512 != 0 => ("rsa-sha2-512", &RSA_PKCS1_SHA512),
                    flags if flags & RSA_SHA2_256 != 0 => ("rsa-sha2-256", &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut bytes = vec![0; pair.public().modulus_len()];
                pair.sign(encoding, &random, data, &mut bytes).ok()?;
                (name, bytes)
            }
        };
        let mut signature = Vec::new();
        put_string(&mut signature, name.as_bytes());
        put_string(&mut signature, &bytes);
        Some(signature)
    }
}

impl Signer {
    fn public(&self) -> Vec<u8> {
        let mut public = Vec::new();
        match self {
            Self::Ed25519(pair) => {
                put_string(&mut public, ED25519.as_bytes());
                put_string(&mut public, pair.public_key().as_ref());
            }
            Self::Ecdsa(curve, pair) => {
                put_string(&mut public, curve.key_type().as_bytes());
                put_string(&mut public, curve.name().as_bytes());
                put_string(&mut public, pair.public_key().as_ref());
            }
            Self::Rsa(pair) => {
                let numbers = PublicKeyComponents::<Vec<u8>>::from(pair.public());
                put_string(&mut public, RSA.as_bytes());
                put_big_number(&mut public, &numbers.e);
                put_big_number(&mut public, &numbers.n);
            }
        }
        public
    }
}

impl Curve {
    fn of(key_type: &str) -> Option<Self> {
        [Self::P256, Self::P384].into_iter().find(|curve| curve.key_type() == key_type)
    }

    fn key_type(self) -> &'static str {
        match self {
            Self::P256 => "ecdsa-sha2-nistp256",
            Self::P384 => "ecdsa-sha2-nistp384",
        }
    }

    fn name(self) -> &'static str {
        self.key_type().trim_start_matches("ecdsa-sha2-")
    }

    fn algorithm(self) -> &'static ring::signature::EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

fn rejected(error: ring::error::KeyRejected) -> SshKeyError {
    // ring has no other way to tell.
    match error.to_string().as_str() {
        "TooSmall" | "TooLarge" => SshKeyError::Length,
        other => SshKeyError::Rejected(other.to_owned()),
    }
}

/// The first block between `-----BEGIN x-----` and `-----END x-----`.
struct Pem<'a> {
    label: &'a str,
    body: &'a str,
}

impl<'a> Pem<'a> {
    fn find(text: &'a str) -> Option<Self> {
        let (_, rest) = text.split_once("-----BEGIN ")?;
        let (label, rest) = rest.split_once("-----")?;
        let (body, _) = rest.split_once("-----END ")?;
        Some(Self { label, body })
    }
}

fn pkcs8(bytes: &[u8]) -> Result<Signer, SshKeyError> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes) {
        return Ok(Signer::Ed25519(pair));
    }
    let random = SystemRandom::new();
    for curve in [Curve::P256, Curve::P384] {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(curve.algorithm(), bytes, &random) {
            return Ok(Signer::Ecdsa(curve, pair));
        }
    }
    RsaKeyPair::from_pkcs8(bytes).map(Signer::Rsa).map_err(rejected)
}

/// OpenSSH's own format, with one key in it. Returns it with its comment.
fn open_ssh(bytes: &[u8]) -> Result<(Signer, Vec<u8>), SshKeyError> {
    let mut outer = Reader(bytes.strip_prefix(MAGIC).ok_or(SshKeyError::NotAKey)?);
    let private = (|| {
        let cipher = outer.string()?;
        let (_kdf, _options, count) = (outer.string()?, outer.string()?, outer.number()?);
        let (_public, private) = (outer.string()?, outer.string()?);
        Some((cipher, count, private))
    })();
    let (cipher, count, private) = private.ok_or(SshKeyError::Damaged)?;
    if cipher != b"none" {
        return Err(SshKeyError::Encrypted);
    }
    let mut reader = Reader(private);
    if count != 1 || reader.number() != reader.number() {
        return Err(SshKeyError::Damaged);
    }
    let key_type = reader.string().ok_or(SshKeyError::Damaged)?;
    let key_type = String::from_utf8_lossy(key_type).into_owned();
    let signer = match key_type.as_str() {
        ED25519 => ed25519(&mut reader),
        RSA => rsa(&mut reader),
        other => match Curve::of(other) {
            Some(curve) => ecdsa(curve, &mut reader),
            None => return Err(SshKeyError::Type(key_type)),
        },
    };
    let signer = signer.ok_or(SshKeyError::Damaged)??;
    let comment = reader.string().ok_or(SshKeyError::Damaged)?;
    Ok((signer, comment.to_vec()))
}

/// The public key, then the seed and the public key again. `None` when it breaks off.
fn ed25519(reader: &mut Reader<'_>) -> Option<Result<Signer, SshKeyError>> {
    let (public, private) = (reader.string()?, reader.string()?);
    let seed = private.get(..32)?;
    let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public);
    Some(pair.map(Signer::Ed25519).map_err(rejected))
}

/// The curve's name, the public point, the private number.
fn ecdsa(curve: Curve, reader: &mut Reader<'_>) -> Option<Result<Signer, SshKeyError>> {
    let (_name, public, number) = (reader.string()?, reader.string()?, reader.big_number()?);
    let mut private = vec![0; curve.bytes().checked_sub(number.len())?];
    private.extend(number);
    let random = SystemRandom::new();
    let algorithm = curve.algorithm();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private, public, &random);
    Some(pair.map(|pair| Signer::Ecdsa(curve, pair)).map_err(rejected))
}

/// n, e, d, the inverse of q, p, q.
fn rsa(reader: &mut Reader<'_>) -> Option<Result<Signer, SshKeyError>> {
    let mut number = || reader.big_number();
    let (n, e, d, inverse, p, q) =
        (number()?, number()?, number()?, number()?, number()?, number()?);
    let (of_p, of_q) = (modulo_one_less(d, p)?, modulo_one_less(d, q)?);
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: of_p.as_slice(),
        dQ: of_q.as_slice(),
        qInv: inverse,
    };
    Some(RsaKeyPair::from_components(&components).map(Signer::Rsa).map_err(rejected))
}
