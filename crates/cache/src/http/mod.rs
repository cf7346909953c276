//! HTTP as registries and downloads use it: clients with proxies, certificates and time limits, what is tried again,
//! and where redirects lead. Nothing is followed by the client itself: who asks decides what goes along.

mod client;
mod error;
mod retry;

pub use client::Proxies;
pub(crate) use client::{
    HttpClients, HttpOptions, MOST_REDIRECTS, READ_TIMEOUT, TlsFiles, broken, is_loopback,
    location, retry_after, shorten,
};
pub use error::TransportError;
pub use retry::RetryPolicy;
pub(crate) use retry::is_transient;
