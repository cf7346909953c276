//! Git repositories, by the git program.
//!
//! ```text
//! $root/git/<id of the remote>/     a bare repository with the commits that were fetched, one deep
//! ```
//!
//! [`GitSource::key`] asks the remote what a name stands for; a whole commit id needs no asking. [`GitSource::fetch`] gets
//! that one commit into the mirror, under the mirror's lock, and checks it out into a new layer directory that is known by
//! the commit (section 2.2 of the behaviour reference).
//!
//! The repository may be hostile. The program runs with an environment of our own ([`command`]): nothing of the user's or
//! the system's configuration, no questions, no hooks, no filters, no credential helpers, and only the protocols that were
//! allowed, submodules included. Logins ([`access`]) are in no argument, no file and no message, and go to their host alone. Names that come from outside are never where an option could be: the remote is named
//! in the configuration, references are checked. The mirror holds no configuration of the remote's, submodules are set up
//! in a repository that is made for one checkout, and the folder that is wanted is found without leaving the checkout.

mod access;
mod checkout;
mod command;
mod error;
mod redirect;
mod request;
mod source;
mod tidy;
mod words;

pub use command::GitOptions;
pub use error::{GitError, GitErrorKind};
pub(crate) use request::GitRequest;
pub(crate) use source::GitSource;
