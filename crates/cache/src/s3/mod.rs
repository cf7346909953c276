//! Buckets of S3, and of what speaks its protocol.
//!
//! [`S3Client`] sends the few requests that a cache needs, each signed ([`mod@sign`]) and tried again as those to registries are. Objects of more
//! than one part go in pieces ([`mod@write`]); what is read goes on where a connection broke ([`read`]). No redirect is followed: a
//! signature is for one host. [`Buckets`] knows who may speak to which. What objects mean is not known here.
//!
//! # Why not the AWS SDK
//!
//! It, `object_store` and `opendal` bring a hundred packages and a second HTTP client; what a cache needs is five kinds of request.

mod bucket;
mod buckets;
mod client;
mod error;
mod read;
mod sign;
mod write;

pub use bucket::{S3Bucket, S3Credentials};
pub use buckets::{Buckets, BucketsOptions};
pub use client::{S3Client, S3Limits, S3Object};
pub use error::{S3Error, S3ErrorKind};
pub use read::ObjectStream;
