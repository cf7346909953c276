//! The HTTP clients of this process, and what is the same of everything that is fetched with them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::{NoProxy, Proxy, Response, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::TransportError;

/// What Go's client follows, and with it every other tool.
pub(crate) const MOST_REDIRECTS: usize = 10;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Without a byte for this long, a connection counts as broken.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// The proxies of the environment, read by the caller. Never used for the loopback.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `http://`, as in `http_proxy`.
    pub http: Option<String>,
    /// For `https://`, as in `https_proxy`.
    pub https: Option<String>,
    /// What is reached directly, as in `no_proxy`.
    pub exceptions: Option<String>,
}

/// How servers are reached.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpOptions {
    pub(crate) proxies: Proxies,
    /// PEM files with authorities to trust besides the system's.
    pub(crate) certificates: Vec<PathBuf>,
}

/// The clients for the two schemes, each made when it is first needed: the one for HTTPS reads the system's
/// certificates, which takes milliseconds.
#[derive(Debug)]
pub(crate) struct HttpClients {
    options: HttpOptions,
    plain: OnceLock<reqwest::Client>,
    secure: OnceLock<reqwest::Client>,
    plain_uploads: OnceLock<reqwest::Client>,
    secure_uploads: OnceLock<reqwest::Client>,
}

impl HttpClients {
    pub(crate) fn new(options: HttpOptions) -> Self {
        Self {
            options,
            plain: OnceLock::new(),
            secure: OnceLock::new(),
            plain_uploads: OnceLock::new(),
            secure_uploads: OnceLock::new(),
        }
    }

    /// The client for a URL's scheme.
    pub(crate) fn of(&self, url: &Url) -> Result<&reqwest::Client, TransportError> {
        let cells = (&self.plain, &self.secure);
        self.client(url, cells, Some(READ_TIMEOUT))
    }

    /// The client for a URL's scheme that waits for an answer without end: the time limit of the other counts from the
    /// first byte that is sent, and a large body takes long. The caller watches whether it moves.
    pub(crate) fn for_uploads(&self, url: &Url) -> Result<&reqwest::Client, TransportError> {
        self.client(url, (&self.plain_uploads, &self.secure_uploads), None)
    }

    fn client<'a>(
        &self,
        url: &Url,
        (plain, secure): (&'a OnceLock<reqwest::Client>, &'a OnceLock<reqwest::Client>),
        read_timeout: Option<Duration>,
    ) -> Result<&'a reqwest::Client, TransportError> {
        let (cell, certificates) = match url.scheme() {
            "https" => (secure, Some(self.options.certificates.as_slice())),
            _ => (plain, None),
        };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = http_client(&self.options.proxies, certificates, read_timeout)?;
        Ok(cell.get_or_init(|| client))
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
    certificates: Option<&[PathBuf]>,
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
    for (scheme, address) in [("http", &proxies.http), ("https", &proxies.https)] {
        let Some(address) = address.as_deref().filter(|address| !address.is_empty()) else {
            continue;
        };
        let address = proxy_url(address)?;
        let proxy = Proxy::custom(move |url: &Url| {
            let direct = url.host_str().is_none_or(is_loopback);
            (url.scheme() == scheme && !direct).then(|| address.clone())
        });
        let exceptions = proxies.exceptions.as_deref().and_then(NoProxy::from_string);
        builder = builder.proxy(proxy.no_proxy(exceptions));
    }
    builder = builder.tls_backend_preconfigured(tls_config(certificates)?);
    builder.build().map_err(TransportError::Setup)
}

/// A proxy may be written without its scheme.
fn proxy_url(address: &str) -> Result<Url, TransportError> {
    let text =
        if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    Url::parse(&text).map_err(|_| TransportError::Proxy(address.to_owned()))
}

/// `None` trusts nobody: a client that must never speak HTTPS.
fn tls_config(certificates: Option<&[PathBuf]>) -> Result<rustls::ClientConfig, TransportError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| TransportError::Tls { what, source }
    };
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(failed("the protocol versions 1.2 and 1.3"))?;
    let Some(certificates) = certificates else {
        return Ok(builder
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth());
    };
    let mut extra = Vec::new();
    for path in certificates {
        extra.extend(read_certificates(path)?);
    }
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider)
        .map_err(failed("the system's certificates (Debian has them in `ca-certificates`)"))?;
    // "Dangerous" is rustls's word for any verifier that is not its own; this one wraps its own.
    let config = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| {
        TransportError::Certificates { path: path.to_owned(), reason: error.to_string() }
    })
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
    match (unresolved, source.is_connect()) {
        (true, _) => TransportError::Resolve { host, source },
        (_, true) => TransportError::Connect { host, source },
        _ => TransportError::Broken { host, source },
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
