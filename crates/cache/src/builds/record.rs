//! The record of one build.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rbuild_oci::Digest;
use rbuild_solver::LayerId;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// A build that has ended. JSON; unknown fields are of later versions and are ignored.
///
/// It holds no secret: no value of `--secret`, no password of an address or a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// [`BuildRecord::VERSION`] when it was written.
    pub version: u32,
    /// Which build.
    pub id: BuildId,
    /// What was built.
    pub subject: BuildSubject,
    /// When it began.
    pub started: Millis,
    /// When it ended.
    pub ended: Millis,
    /// How it ended.
    pub state: BuildState,
    /// Why it failed, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The vertex that the graph beside this file ends in; absent when the build never came to a graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Digest>,
    /// The folders that local sources were, by name. Those that were unpacked for the build are not among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<String, PathBuf>,
    /// What bounded the steps, as pairs of `--resource`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// All that was shown, in the order in which it became known.
    pub steps: Vec<StepRecord>,
}

impl BuildRecord {
    /// The version that is written. A record of another one is not read.
    pub const VERSION: u32 = 1;

    /// The step of a number, as people see it after `#`.
    pub fn numbered(&self, number: u32) -> Option<&StepRecord> {
        self.steps.iter().find(|step| step.number == Some(number))
    }

    /// The step that made the build fail.
    pub fn failed(&self) -> Option<&StepRecord> {
        self.steps.iter().find(|step| step.state == StepState::Failed)
    }
}

/// The name of a build. Later builds have greater ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(String);

impl BuildId {
    /// A name for a build that begins now: the time in UTC, and four digits that tell builds of one moment apart.
    pub fn of_now() -> Self {
        let now = OffsetDateTime::now_utc();
        let random = RandomState::new().hash_one(now.nanosecond()) & 0xffff;
        Self(format!(
            "{:04}{:02}{:02}-{:02}{:02}{:02}.{:03}-{random:04x}",
            now.year(),
            u8::from(now.month()),
            now.day(),
            now.hour(),
            now.minute(),
            now.second(),
            now.millisecond()
        ))
    }

    /// Reads a name; `None` for what could not be one.
    pub fn parse(text: &str) -> Option<Self> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        (text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(is_plain))
            .then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a build was of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSubject {
    /// The context: a folder's absolute path, an address without passwords, or `-`.
    pub context: String,
    /// The Dockerfile: an absolute path where it is a file, else what was given.
    pub dockerfile: String,
    /// The stage that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The platform that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

impl BuildSubject {
    /// The name of what the build is one of many of: the same context and the same Dockerfile.
    pub fn project(&self) -> String {
        let text = format!("{}\0{}", self.context, self.dockerfile);
        Digest::of(text.as_bytes()).hex()[..16].to_owned()
    }
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildState {
    /// With a result.
    Done,
    /// A step, or something else, failed.
    Failed,
    /// The user stopped it.
    Canceled,
}

/// Milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl From<SystemTime> for Millis {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
    }
}

impl From<Millis> for SystemTime {
    fn from(Millis(millis): Millis) -> Self {
        UNIX_EPOCH + Duration::from_millis(millis)
    }
}

/// One line of a build: a vertex of its graph, or work beside it (reading the Dockerfile, exporting).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The number that people see after `#`; none when it never began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// The vertex's digest, or one made from the name.
    pub vertex: Digest,
    /// The same vertex in the graph beside this file, where it has another digest there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_vertex: Option<Digest>,
    /// What people read.
    pub name: String,
    /// How it ended.
    pub state: StepState,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Millis>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Millis>,
    /// Why it failed, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its fast key; absent for folders, and where the build did not come to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Of a vertex with local folders among its inputs: by input, the digest of what it uses of the folder.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<usize, Digest>,
    /// Whether it had to run although its result was known (`--no-cache`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ignored_cache: bool,
    /// What a failed step worked on, by input of its vertex.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputState>,
    /// The files that a failed step left in its root: layers, bottom first, the last of them its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LayerId>,
}

impl StepRecord {
    /// The digest under which the stored graph has this vertex.
    pub fn stored(&self) -> Digest {
        self.stored_vertex.unwrap_or(self.vertex)
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepState {
    /// It was not begun.
    Waiting,
    /// Its result was known.
    Cached,
    /// It was done.
    Done,
    /// It failed.
    Failed,
    /// It was stopped, because another failed or the user said so.
    Canceled,
}

/// What an input of a step was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputState {
    /// These layers, bottom first.
    Layers(Vec<LayerId>),
    /// The folder of this name.
    Folder(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_in_the_order_of_time() {
        let id = BuildId::of_now();
        assert_eq!(BuildId::parse(id.as_str()), Some(id.clone()));
        assert!(id > BuildId("20260101-000000.000-ffff".to_owned()));
        for bad in ["", "kept", "../x", "1/2", ".json"] {
            assert_eq!(BuildId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_a_later_version_adds_is_ignored() {
        let text = r#"{"version":1,"id":"2","subject":{"context":"/c","dockerfile":"/c/D","new":1},
            "started":1,"ended":2,"state":"done","steps":[{"vertex":"sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "name":"a","state":"cached","log":"x"}]}"#;
        let record: BuildRecord = serde_json::from_str(text).unwrap();
        assert_eq!((record.steps[0].state, record.steps[0].number), (StepState::Cached, None));
        let again: BuildRecord =
            serde_json::from_slice(&serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(again, record);
    }
}
