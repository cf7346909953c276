//! `rawjson`: one `SolveStatus` of BuildKit's control API a line, as `buildctl --progress=rawjson` prints it.

use std::io::{self, Write};
use std::time::SystemTime;

use base64::Engine as _;
use rbuild_oci::Digest;
use rbuild_solver::{Event, LogStream};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::vertex::{VertexView, Vertices};

#[derive(Default, Serialize)]
struct SolveStatus<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertexes: Option<[JsonVertex<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statuses: Option<[JsonStatus<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logs: Option<[JsonLog; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<[JsonWarning<'a>; 1]>,
}

#[derive(Serialize)]
struct JsonVertex<'a> {
    digest: Digest,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    inputs: &'a [Digest],
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct JsonStatus<'a> {
    id: &'a str,
    vertex: Digest,
    name: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: String,
    started: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Serialize)]
struct JsonLog {
    vertex: Digest,
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Serialize)]
struct JsonWarning<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    vertex: Option<Digest>,
    level: u8,
    short: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

fn vertex(view: &VertexView) -> JsonVertex<'_> {
    JsonVertex {
        digest: view.digest,
        inputs: &view.inputs,
        name: &view.name,
        started: view.started.map(timestamp),
        completed: view.completed.map(timestamp),
        cached: view.cached,
        error: view.error.as_deref(),
    }
}

/// Writes events as JSON lines.
#[derive(Debug)]
pub(crate) struct Json<W> {
    out: W,
    vertices: Vertices,
}

impl<W: Write> Json<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, vertices: Vertices::default() }
    }

    pub(crate) fn vertices(&self) -> &Vertices {
        &self.vertices
    }

    pub(crate) fn event(&mut self, event: Event) -> io::Result<()> {
        let vertices = &mut self.vertices;
        let changed = match event {
            Event::Added { vertex, name, inputs } => Some(vertices.add(vertex, name, inputs)),
            Event::Keyed { .. } => None,
            Event::Started { vertex, at, .. } => {
                vertices.index(&vertex).inspect(|index| vertices.start(*index, at))
            }
            Event::Completed { vertex, at, cached, error } => {
                vertices.index(&vertex).inspect(|index| {
                    vertices.complete(*index, at, cached, error);
                })
            }
            Event::Status(update) => {
                let status = JsonStatus {
                    id: &update.id,
                    vertex: update.vertex,
                    name: "",
                    total: update.total,
                    current: update.current,
                    timestamp: timestamp(update.completed.unwrap_or_else(SystemTime::now)),
                    started: timestamp(update.started),
                    completed: update.completed.map(timestamp),
                };
                return self
                    .line(&SolveStatus { statuses: Some([status]), ..SolveStatus::default() });
            }
            Event::Log(chunk) => {
                if let Some(index) = vertices.index(&chunk.vertex) {
                    vertices.log(index, chunk.stream, &chunk.bytes, |_| {});
                }
                let log = JsonLog {
                    vertex: chunk.vertex,
                    stream: match chunk.stream {
                        LogStream::Stdout => 1,
                        LogStream::Stderr => 2,
                    },
                    data: base64::engine::general_purpose::STANDARD.encode(&chunk.bytes),
                    timestamp: timestamp(chunk.at),
                };
                return self.line(&SolveStatus { logs: Some([log]), ..SolveStatus::default() });
            }
            Event::Warning { vertex, message } => {
                let warning = JsonWarning { vertex, level: 1, short: &message };
                return self
                    .line(&SolveStatus { warnings: Some([warning]), ..SolveStatus::default() });
            }
        };
        let Some(index) = changed else { return Ok(()) };
        let line = serde_json::to_string(&SolveStatus {
            vertexes: Some([vertex(&self.vertices.list()[index])]),
            ..SolveStatus::default()
        })?;
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    fn line(&mut self, status: &SolveStatus<'_>) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, status)?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_solve_status() {
        let digest = Digest::of(b"a");
        let at = SystemTime::UNIX_EPOCH;
        let mut json = Json::new(Vec::new());
        json.event(Event::Added { vertex: digest, name: "a".to_owned(), inputs: Vec::new() })
            .unwrap();
        json.event(Event::Completed { vertex: digest, at, cached: true, error: None }).unwrap();
        let text = String::from_utf8(json.out).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["vertexes"][0]["name"], "a");
        assert_eq!(lines[1]["vertexes"][0]["cached"], true);
        assert_eq!(lines[1]["vertexes"][0]["completed"], "1970-01-01T00:00:00Z");
    }
}
