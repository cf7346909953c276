//! Lines of `build.jsonl`, and the heads of records.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rbuild_oci::Digest;
use serde::{Deserialize, Serialize};

pub(super) const VERSION: u32 = 1;
pub(super) const BUILD_FILE: &str = "build.jsonl";
pub(super) const HEAD: usize = 13;

/// A line of `build.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) title: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) step: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vertex: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) completed: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) failed: Option<bool>,
}

pub(super) fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn time(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)).unwrap_or(UNIX_EPOCH)
}

/// Appends a record's head.
pub(super) fn push_head(buffer: &mut Vec<u8>, stream: u8, at: SystemTime, length: u32) {
    buffer.push(stream);
    buffer.extend_from_slice(&milliseconds(at).to_le_bytes());
    buffer.extend_from_slice(&length.to_le_bytes());
}

/// Reads a record's head: the stream, the time, and the length.
pub(super) fn read_head(head: &[u8; HEAD]) -> (u8, SystemTime, usize) {
    let [stream, rest @ ..] = head;
    let (at, length) = rest.split_at(8);
    let at = u64::from_le_bytes(at.try_into().unwrap_or_default());
    let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
    (*stream, time(at), length as usize)
}
