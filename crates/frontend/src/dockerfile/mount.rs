//! The `--mount` of RUN: options as written, and what they mean once variables are expanded.

use super::lexer::clip;
use super::mapped::Mapped;
use super::sink::Sink;
use super::units::parse_size;
use crate::diagnostic::Diagnostic;
use crate::suggest::suggest;

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

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Type {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Type {
    fn name(self) -> &'static str {
        TYPES[self as usize]
    }
}

/// The options as they are read, one after the other: as in BuildKit, `required` counts only after `type`.
#[derive(Debug, Default)]
struct Options {
    kind: Type,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    read_only: Option<bool>,
    id: Option<String>,
    sharing: Option<Sharing>,
    required: bool,
    size: Option<u64>,
    attributes: Attributes,
    env: Option<String>,
}

impl Options {
    fn set(&mut self, key: &str, value: Option<String>) -> Result<(), String> {
        match (key, value) {
            ("readonly" | "ro", value) => self.read_only = Some(boolean(key, value)?),
            ("readwrite" | "rw", value) => self.read_only = Some(!boolean(key, value)?),
            ("required", value) => match self.kind {
                Type::Secret | Type::Ssh => self.required = boolean(key, value)?,
                _ => return Err(self.unexpected(key)),
            },
            (_, None) => {
                return Err(format!("invalid field '{}' must be a key=value pair", clip(key)));
            }
            ("type", Some(value)) => {
                self.kind = match value.to_lowercase().as_str() {
                    "bind" => Type::Bind,
                    "cache" => Type::Cache,
                    "tmpfs" => Type::Tmpfs,
                    "secret" => Type::Secret,
                    "ssh" => Type::Ssh,
                    _ => {
                        return Err(suggest(
                            format!("unsupported mount type {:?}", clip(&value)),
                            &value,
                            TYPES,
                        ));
                    }
                }
            }
            ("from", Some(value)) => self.from = some(value),
            ("source" | "src", Some(value)) => self.source = some(value),
            ("target" | "dst" | "destination", Some(value)) => self.target = some(value),
            ("id", Some(value)) => self.id = some(value),
            ("env", Some(value)) => self.env = some(value),
            ("sharing", Some(value)) => {
                self.sharing = Some(match value.to_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => {
                        return Err(suggest(
                            format!("unsupported sharing value {:?}", clip(&value)),
                            &value,
                            SHARINGS,
                        ));
                    }
                });
            }
            ("size", Some(value)) => match self.kind {
                Type::Tmpfs => {
                    let size = parse_size(&value).ok_or_else(|| invalid(key, &value))?;
                    self.size = Some(size);
                }
                _ => return Err(self.unexpected(key)),
            },
            ("mode", Some(value)) => self.attributes.mode = Some(number(key, &value, 8)?),
            ("uid", Some(value)) => self.attributes.uid = Some(number(key, &value, 10)?),
            ("gid", Some(value)) => self.attributes.gid = Some(number(key, &value, 10)?),
            (_, Some(value)) => {
                let message = format!(
                    "unexpected key '{}' in '{}'",
                    clip(key),
                    clip(&format!("{key}={value}"))
                );
                return Err(suggest(message, key, KEYS));
            }
        }
        Ok(())
    }

    fn unexpected(&self, key: &str) -> String {
        format!("unexpected key '{key}' for mount type '{}'", self.kind.name())
    }

    fn finish(self) -> Result<Mount, String> {
        let name = self.kind.name();
        if matches!(self.kind, Type::Bind | Type::Tmpfs) {
            let attributes = &self.attributes;
            for (key, value) in
                [("mode", attributes.mode), ("uid", attributes.uid), ("gid", attributes.gid)]
            {
                if value.is_some() {
                    return Err(format!("{key} not allowed for {name:?} type mounts"));
                }
            }
        }
        match self.kind {
            Type::Secret if self.from.is_some() => {
                return Err("secret mount should not have a from".into());
            }
            Type::Secret if self.sharing.is_some() => {
                return Err("secret mount should not define sharing".into());
            }
            Type::Ssh if self.source.is_some() => {
                return Err("ssh mount should not define a source".into());
            }
            Type::Cache => {}
            _ if self.sharing.is_some() => {
                return Err(format!("invalid cache sharing set for {name} mount"));
            }
            _ => {}
        }
        let Self {
            kind,
            from,
            source,
            target,
            read_only,
            id,
            sharing,
            required,
            size,
            attributes,
            env,
        } = self;
        let place = target.clone().unwrap_or_default();
        Ok(match kind {
            Type::Bind => {
                Mount::Bind { target: place, source, from, read_only: read_only.unwrap_or(true) }
            }
            Type::Cache => Mount::Cache {
                target: place,
                id,
                source,
                from,
                sharing: sharing.unwrap_or_default(),
                read_only: read_only.unwrap_or(false),
                attributes,
            },
            Type::Tmpfs => {
                Mount::Tmpfs { target: place, size, read_only: read_only.unwrap_or(false) }
            }
            Type::Secret => {
                let id = match (source, id, &target) {
                    (Some(_), Some(_), _) => return Err("both source and id can't be set".into()),
                    (Some(id), None, _) | (None, Some(id), _) => id,
                    (None, None, Some(target)) => base_name(target).to_owned(),
                    (None, None, None) => {
                        return Err("invalid secret mount. one of source, target required".into());
                    }
                };
                let target = match (target, &env) {
                    (None, None) => Some(format!("/run/secrets/{}", base_name(&id))),
                    (target, _) => target,
                };
                Mount::Secret { id, target, env, required, attributes }
            }
            Type::Ssh => Mount::Ssh {
                id: id.unwrap_or_else(|| "default".into()),
                target,
                required,
                attributes,
            },
        })
    }
}

/// An option that is there but empty is as good as missing.
fn some(value: String) -> Option<String> {
    Some(value).filter(|value| !value.is_empty())
}

fn boolean(key: &str, value: Option<String>) -> Result<bool, String> {
    match value.as_deref() {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(other) => Err(invalid(key, other)),
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, String> {
    // Rust would take a sign.
    let digits =
        Some(value).filter(|value| value.starts_with(|first: char| first.is_ascii_digit()));
    digits
        .and_then(|digits| u32::from_str_radix(digits, radix).ok())
        .ok_or_else(|| format!("invalid value {} for {key}", clip(value)))
}

fn invalid(key: &str, value: &str) -> String {
    format!("invalid value for {key}: {}", clip(value))
}

fn base_name(path: &str) -> &str {
    let path = path.trim_end_matches('/');
    path.rsplit('/').next().unwrap_or(path)
}

/// The fields of one line of CSV, where `"` begins a quoted field and `""` is a quote within one.
fn split_csv(line: &Mapped) -> Result<Vec<Mapped>, Diagnostic> {
    let text = line.text();
    let error = |at: usize, what: &str| {
        let span = line.span_of(at..text.len());
        Diagnostic::error("invalid-mount", span, format!("failed to parse csv mounts: {what}"))
    };
    if text.is_empty() {
        return Err(error(0, "EOF"));
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let mut field = line.slice(at..at);
        if text[at..].starts_with('"') {
            let opened = at;
            at += 1;
            loop {
                let Some(quote) = text[at..].find('"').map(|offset| at + offset) else {
                    return Err(error(opened, "extraneous or missing \" in quoted-field"));
                };
                field.push_range(line, at..quote);
                at = quote + 1;
                if !text[at..].starts_with('"') {
                    break;
                }
                field.push_range(line, at..at + 1);
                at += 1;
            }
            if at < text.len() && !text[at..].starts_with(',') {
                return Err(error(at, "extraneous or missing \" in quoted-field"));
            }
        } else {
            let end = text[at..].find(',').map_or(text.len(), |offset| at + offset);
            if let Some(quote) = text[at..end].find('"') {
                return Err(error(at + quote, "bare \" in non-quoted-field"));
            }
            field.push_range(line, at..end);
            at = end;
        }
        fields.push(field);
        if at == text.len() {
            return Ok(fields);
        }
        at += 1;
    }
}
