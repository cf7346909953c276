//! The `--mount` of RUN: options as written, and what they mean once variables are expanded.

use super::csv::split_csv;
use super::mapped::Mapped;
use super::mount_options::Options;
use super::sink::Sink;
use crate::diagnostic::Diagnostic;

/// The options of one `--mount`, in order, not expanded.
///
/// Nearly every value may hold variables, so that what the mount is becomes known when the step is reached
/// ([`Self::resolve`]). What can be seen to be wrong before is an error of the parser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSpec {
    written: Mapped,
    fields: Vec<Field>,
}

/// One `key=value` or `key` of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    written: Mapped,
    /// In lower case.
    key: String,
    value: Option<Mapped>,
}

/// A mount whose options are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// Files of a stage, image or context.
    Bind {
        /// Where; a relative one is below the working directory, an empty one is it.
        target: String,
        /// Which path; the root if missing.
        source: Option<String>,
        /// Of which stage, context or image; the build context if missing.
        from: Option<String>,
        /// Whether writing fails; else it is allowed and forgotten.
        read_only: bool,
    },
    /// A directory that stays between builds.
    Cache {
        /// Where.
        target: String,
        /// Its name; the cleaned target if missing.
        id: Option<String>,
        /// Which path its first content comes from.
        source: Option<String>,
        /// Of which stage, context or image; nothing if missing.
        from: Option<String>,
        /// What happens when two steps want it.
        sharing: Sharing,
        /// Whether writing fails.
        read_only: bool,
        /// Mode and owner of a fresh one.
        attributes: Attributes,
    },
    /// Memory.
    Tmpfs {
        /// Where.
        target: String,
        /// At most so many bytes.
        size: Option<u64>,
        /// Whether writing fails.
        read_only: bool,
    },
    /// A secret as a file or an environment variable.
    Secret {
        /// Which.
        id: String,
        /// Where; `None` if it is wanted in the environment only.
        target: Option<String>,
        /// In which environment variable.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Mode and owner of the file.
        attributes: Attributes,
    },
    /// The socket of an SSH agent.
    Ssh {
        /// Which.
        id: String,
        /// Where; the default place if missing.
        target: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Mode and owner of the socket.
        attributes: Attributes,
    },
}

/// What happens when two steps want one cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Both use it at once.
    #[default]
    Shared,
    /// The second gets its own.
    Private,
    /// The second waits.
    Locked,
}

/// Mode and owner; what is missing has a default that depends on the mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

impl MountSpec {
    /// Reads a flag's value, and reports what is wrong with it whatever its variables are.
    pub(crate) fn parse(written: Mapped, sink: &mut Sink) -> Option<Self> {
        let fields = match split_csv(&written) {
            Ok(fields) => fields,
            Err(error) => {
                sink.push(error);
                return None;
            }
        };
        let spec = Self { fields: fields.into_iter().map(Field::new).collect(), written };
        if let Some(from) = spec.from()
            && has_variable(from.text())
        {
            let message = "'from' doesn't support variable expansion, define alias stage instead";
            sink.push(Diagnostic::error("mount-from", from.span(), message));
            return None;
        }
        if spec.fields.iter().all(Field::is_plain) {
            // Nothing of it can change: it is right now or never.
            let resolved = spec.resolve(|value| Ok(value.text().to_owned()));
            if let Err(error) = resolved {
                sink.push(error);
                return None;
            }
        }
        Some(spec)
    }

    /// The flag's value as written.
    pub fn written(&self) -> &Mapped {
        &self.written
    }

    /// The stage, context or image that it names; never expanded. Of several the last, which counts.
    pub fn from(&self) -> Option<&Mapped> {
        let field = self.fields.iter().rev().find(|field| field.key == "from")?;
        field.value.as_ref().filter(|value| !value.is_empty())
    }

    /// Whether it is memory, as far as can be said before variables are expanded.
    pub(crate) fn is_tmpfs(&self) -> bool {
        let kind = self.fields.iter().rev().find(|field| field.key == "type");
        let kind = kind.and_then(|field| field.value.as_ref());
        kind.is_some_and(|kind| kind.text().eq_ignore_ascii_case("tmpfs"))
    }

    /// What the options mean, with `expand` to expand each value (all but `from`).
    ///
    /// # Errors
    /// What `expand` says, or what is wrong with an option.
    pub fn resolve(
        &self,
        mut expand: impl FnMut(&Mapped) -> Result<String, Diagnostic>,
    ) -> Result<Mount, Diagnostic> {
        let mut options = Options::default();
        for field in &self.fields {
            let value = match &field.value {
                Some(value) if field.key == "from" => Some(value.text().to_owned()),
                Some(value) => Some(expand(value)?),
                None => None,
            };
            options.set(&field.key, value).map_err(|message| {
                Diagnostic::error("invalid-mount", field.written.span(), message)
            })?;
        }
        options
            .finish()
            .map_err(|message| Diagnostic::error("invalid-mount", self.written.span(), message))
    }
}

impl Field {
    fn new(written: Mapped) -> Self {
        let text = written.text();
        let (key, value) = match text.find('=') {
            Some(at) => (&text[..at], Some(written.slice(at + 1..text.len()))),
            None => (text, None),
        };
        Self { key: key.to_lowercase(), value, written }
    }

    /// Whether expansion changes nothing.
    fn is_plain(&self) -> bool {
        self.key == "from" || !self.written.text().contains(['$', '\'', '"', '\\', '`'])
    }
}

/// Whether there is a `$` with something after it.
fn has_variable(text: &str) -> bool {
    text.find('$').is_some_and(|at| at + 1 < text.len())
}
