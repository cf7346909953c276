//! The HTTP clients of this process, and what is the same of everything that is fetched with them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::{Proxy, Response, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{DigitallySignedStruct, InconsistentKeys, SignatureScheme};

use super::{Proxies, RetryPolicy, TransportError};

/// What Go's client follows, and with it every other tool.
pub(crate) const MOST_REDIRECTS: usize = 10;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How servers are reached.
#[derive(Clone, Debug)]
pub(crate) struct HttpOptions {
    pub(crate) proxies: Proxies,
    /// PEM files with authorities to trust besides the system's.
    pub(crate) certificates: Vec<PathBuf>,
    /// Without a byte for this long, a connection counts as broken.
    pub(crate) idle_limit: Duration,
}

impl Default for HttpOptions {
    fn default() -> Self {
        let idle_limit = RetryPolicy::default().idle_limit;
        Self { proxies: Proxies::default(), certificates: Vec::new(), idle_limit }
    }
}

/// How a server shows who it is, and we to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsFiles {
    /// PEM files with authorities to trust besides the system's.
    pub(crate) authorities: Vec<PathBuf>,
    /// The PEM files of our certificate and its key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Everybody is believed to be who they say.
    pub(crate) unverified: bool,
}

/// What tells clients apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ClientKind {
    /// `None` for plain HTTP.
    tls: Option<TlsFiles>,
    is_for_uploads: bool,
}

/// The clients, each made when it is first needed: one for HTTPS reads the system's certificates, which takes milliseconds.
#[derive(Debug)]
pub(crate) struct HttpClients {
    options: HttpOptions,
    clients: Mutex<HashMap<ClientKind, reqwest::Client>>,
}

impl HttpClients {
    pub(crate) fn new(options: HttpOptions) -> Self {
        Self { options, clients: Mutex::default() }
    }

    /// The client for a URL's scheme, with the certificates of the options.
    pub(crate) fn of(&self, url: &Url) -> Result<reqwest::Client, TransportError> {
        let authorities = self.options.certificates.clone();
        self.with(url, &TlsFiles { authorities, ..TlsFiles::default() })
    }

    /// The client for a URL's scheme and these certificates.
    pub(crate) fn with(
        &self,
        url: &Url,
        tls: &TlsFiles,
    ) -> Result<reqwest::Client, TransportError> {
        self.client(url, tls, false)
    }

    /// As [`HttpClients::with`], but it waits for an answer without end: the time limit of the other counts from the first
    /// byte that is sent, and a large body takes long. The caller watches whether it moves.
    pub(crate) fn for_uploads(
        &self,
        url: &Url,
        tls: &TlsFiles,
    ) -> Result<reqwest::Client, TransportError> {
        self.client(url, tls, true)
    }

    /// As [`broken`], for what had no answer yet, and names the proxy that the request went through.
    pub(crate) fn broken(&self, url: &Url, error: reqwest::Error) -> TransportError {
        match (broken(url, error), self.options.proxies.of(url)) {
            (
                TransportError::Resolve { host, source } | TransportError::Connect { host, source },
                Ok(Some(proxy)),
            ) => {
                let (proxy, variable) = (proxy.shown(), proxy.variable);
                TransportError::Proxied { host, proxy, variable, source }
            }
            (TransportError::Silent { host }, _) => {
                TransportError::NoAnswer { host, seconds: self.options.idle_limit.as_secs() }
            }
            (error, _) => error,
        }
    }

    fn client(
        &self,
        url: &Url,
        tls: &TlsFiles,
        is_for_uploads: bool,
    ) -> Result<reqwest::Client, TransportError> {
        // What cannot be used is an error, and no way around it.
        self.options.proxies.of(url)?;
        let tls = (url.scheme() == "https").then(|| tls.clone());
        let kind = ClientKind { tls, is_for_uploads };
        // Held while a client is made, so that nobody makes a second one with connections of its own.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&kind) {
            return Ok(client.clone());
        }
        let read_timeout = (!is_for_uploads).then_some(self.options.idle_limit);
        let client = http_client(&self.options.proxies, kind.tls.as_ref(), read_timeout)?;
        clients.insert(kind, client.clone());
        Ok(client)
    }
}

/// Whether a host name, without port, is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    host == "localhost"
        || host.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Builds the client for plain HTTP, or the one for HTTPS, which has to read the system's certificates.
fn http_client(
    proxies: &Proxies,
    tls: Option<&TlsFiles>,
    read_timeout: Option<Duration>,
) -> Result<reqwest::Client, TransportError> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")))
        // The client must see a redirect, to decide what goes along.
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .no_proxy();
    if let Some(read_timeout) = read_timeout {
        builder = builder.read_timeout(read_timeout);
    }
    let proxies = proxies.clone();
    let proxy_of = move |url: &Url| Some(proxies.of(url).ok()??.address);
    builder = builder.proxy(Proxy::custom(proxy_of));
    builder = builder.tls_backend_preconfigured(tls_config(tls)?);
    builder.build().map_err(TransportError::Setup)
}

/// `None` trusts nobody: a client that must never speak HTTPS.
fn tls_config(tls: Option<&TlsFiles>) -> Result<rustls::ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| TransportError::Tls { what, source }
    };
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed("the protocol versions 1.2 and 1.3"))?;
    let Some(tls) = tls else {
        return Ok(builder
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth());
    };
    let mut extra = Vec::new();
    for path in &tls.authorities {
        extra.extend(read_certificates(path)?);
    }
    // "Dangerous" is rustls's word for any verifier that is not its own.
    let builder = builder.dangerous();
    let builder = if tls.unverified {
        builder.with_custom_certificate_verifier(Arc::new(Unverified(Arc::clone(&provider))))
    } else {
        builder.with_custom_certificate_verifier(Arc::new(verifier(extra, Arc::clone(&provider))?))
    };
    let Some((certificate, key)) = &tls.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = read_certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        TransportError::Certificates { path: key.clone(), reason: error.to_string() }
    })?;
    let what = format!("the certificate `{}` and its key", certificate.display());
    let wrong = |source| TransportError::Tls { what, source };
    let own = match provider.key_provider.load_private_key(private) {
        Ok(key) => CertifiedKey::new(chain, key),
        Err(error) => return Err(wrong(error)),
    };
    // Of the oldest form of certificates, which openssl still makes, it is not known; the server says what it makes of ours.
    if let Err(error @ rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) =
        own.keys_match()
    {
        return Err(wrong(error));
    }
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))))
}

fn verifier(
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<rustls_platform_verifier::Verifier, TransportError> {
    let what = "the system's certificates (Debian has them in `ca-certificates`)";
    rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider)
        .map_err(|source| TransportError::Tls { what: what.to_owned(), source })
}

/// Believes everybody, as the user has asked for. Signatures are still checked, so that at least it is one and the same server
/// to the end of a connection.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let failed = |reason| TransportError::Certificates { path: path.to_owned(), reason };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| failed(error.to_string()))?;
    match certificates.is_empty() {
        true => Err(failed("there is none in it".to_owned())),
        false => Ok(certificates),
    }
}

/// Tells a name that does not resolve, a host that cannot be reached and a connection that broke apart.
pub(crate) fn broken(url: &Url, error: reqwest::Error) -> TransportError {
    let host = url.host_str().unwrap_or_default().to_owned();
    let source = error.without_url();
    // The client has no type for this; the text is that of hyper-util's connector.
    let mut cause: Option<&dyn std::error::Error> = Some(&source);
    let unresolved = std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this.to_string())
    })
    .any(|text| text == "dns error");
    if let Some(source) = handshake_error(&source) {
        return TransportError::Handshake { host, source };
    }
    match (unresolved, source.is_connect()) {
        (true, _) => TransportError::Resolve { host, source },
        (_, true) => TransportError::Connect { host, source },
        _ if source.is_timeout() => TransportError::Silent { host },
        _ => TransportError::Broken { host, source },
    }
}

/// What went wrong between the two sides' TLS, if that is it.
fn handshake_error(error: &reqwest::Error) -> Option<rustls::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    std::iter::from_fn(|| {
        let this = cause?;
        cause = this.source();
        Some(this)
    })
    .find_map(wrapped_handshake_error)
}

/// An I/O error has what it wraps not as its source, but in itself, and that can be another one.
fn wrapped_handshake_error(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    match error.downcast_ref::<std::io::Error>() {
        Some(outer) => wrapped_handshake_error(outer.get_ref()?),
        None => error.downcast_ref().cloned(),
    }
}

/// Where a redirect leads; `None` if that is no address.
pub(crate) fn location(from: &Url, response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    let mut url = from.join(location).ok()?;
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    // Nobody is told by a redirect who to be; what was given for an origin stays with it.
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    Some(url)
}

/// `Retry-After` in seconds; a date, which registries do not send, counts as not given.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let header = response.headers().get(RETRY_AFTER)?;
    header.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Something that a server said, on one line and not too long.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 200;
    let line: String = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(LONGEST)
        .collect();
    if line.len() < text.len() { format!("{}...", line.trim_end()) } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing of use\n").unwrap();
        let tls = TlsFiles { authorities: vec![path], ..TlsFiles::default() };
        let error = tls_config(Some(&tls)).unwrap_err().to_string();
        assert!(error.ends_with("ca.pem`: there is none in it"), "{error}");
    }
}
