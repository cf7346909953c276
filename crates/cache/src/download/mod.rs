//! Files behind HTTP addresses, as layers with nothing but the file.
//!
//! [`Downloads::fetch`] asks the server each time, but only for what is newer than what it has: by the entity tag, else by
//! the time of the last change. An address with a checksum is not asked for again once it was fetched. What comes is
//! streamed into a new layer directory and hashed on the way, so a file is on the disk once; its identity is its
//! content, name, mode, owner and time (section 2.2 of the behaviour reference).
//!
//! The server may be hostile: bodies, redirects and times are bounded, a body that is shorter than announced is an error,
//! a name and password of an address go to its origin alone, and a redirect from HTTPS to HTTP is followed only when a
//! checksum says what has to come.

mod error;
mod fetch;
mod receive;
mod request;

pub use error::{DownloadError, DownloadErrorKind};
pub use fetch::{Downloaded, Downloads, DownloadsOptions, Pace};
pub use request::{Download, percent_decoded};
