//! HTTP as registries, buckets and downloads use it: clients with proxies, certificates and time limits, bodies that are read while
//! they are sent and that go on where a connection broke, what is tried again, and where redirects lead. Nothing is followed by the client itself: who asks decides what goes along.

mod body;
mod client;
mod error;
mod incoming;
mod proxies;
mod retry;

pub use body::BlobBody;
pub(crate) use body::{BodyStream, SendError};
pub(crate) use client::{
    HttpClients, HttpOptions, MOST_REDIRECTS, TlsFiles, broken, is_loopback, location, retry_after,
    shorten,
};
pub use error::TransportError;
pub(crate) use incoming::{Fault, Incoming};
pub use proxies::Proxies;
pub use retry::RetryPolicy;
pub(crate) use retry::is_transient;
