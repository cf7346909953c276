//! Why no answer came.

/// A server could not be reached, or its answer broke off.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// DNS knows no such name.
    #[error("host `{host}` does not resolve: check the name and the network")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's words.
        source: reqwest::Error,
    },
    /// Nobody answers.
    #[error("cannot connect to `{host}`")]
    Connect {
        /// The host.
        host: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The proxy on the way is not there, or does not let anybody through.
    #[error(
        "cannot reach `{host}` through the proxy `{proxy}` (of {variable}; no_proxy has exceptions)"
    )]
    Proxied {
        /// The host.
        host: String,
        /// The proxy's address, without a login.
        proxy: String,
        /// What names it.
        variable: &'static str,
        /// Why.
        source: reqwest::Error,
    },
    /// A server took the connection, and said nothing.
    #[error("`{host}` gives no answer: nothing came within {seconds} seconds")]
    NoAnswer {
        /// The host.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The two sides cannot agree on who they are, or how they speak.
    #[error("the TLS handshake with `{host}` failed{}", in_words(.source))]
    Handshake {
        /// The host.
        host: String,
        /// Why.
        source: rustls::Error,
    },
    /// The connection broke before an answer was complete.
    #[error("the connection to `{host}` broke")]
    Broken {
        /// The host.
        host: String,
        /// How.
        source: reqwest::Error,
    },
    /// A server began to answer, and then sent nothing, or next to nothing, for too long.
    #[error("`{host}` stopped sending before all was there")]
    Silent {
        /// The host.
        host: String,
    },
    /// A server took no byte of what was sent, or gave no answer to it, for too long.
    #[error("`{host}` took nothing for {seconds} seconds")]
    Stalled {
        /// The host.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The address of a proxy cannot be used.
    #[error("the proxy `{address}` of {variable} is not an address")]
    Proxy {
        /// What names it.
        variable: &'static str,
        /// What it is.
        address: String,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// The system's or the configured certificates cannot be used.
    #[error("cannot set up TLS with {what}")]
    Tls {
        /// Which certificates.
        what: String,
        /// Why.
        source: rustls::Error,
    },
    /// A file with certificates cannot be read.
    #[error("cannot read the certificates in `{}`: {reason}", path.display())]
    Certificates {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
}

/// What rustls has only a name for.
fn in_words(error: &rustls::Error) -> &'static str {
    match error.to_string().contains("CaUsedAsEndEntity") {
        true => {
            ": its certificate is an authority's own, and has to be one that an authority has signed"
        }
        false => "",
    }
}

impl TransportError {
    /// Whether it may go better the next time.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. }
                | Self::Proxied { .. }
                | Self::NoAnswer { .. }
                | Self::Broken { .. }
                | Self::Silent { .. }
                | Self::Stalled { .. }
        )
    }
}
