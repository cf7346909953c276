//! The keys of `--mount` and what they mean together.

use super::lexer::clip;
use super::mount::{Attributes, Mount, Sharing};
use super::units::parse_size;
use crate::suggest::suggest;

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
pub(super) struct Options {
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
    /// Reads one option.
    pub(super) fn set(&mut self, key: &str, value: Option<String>) -> Result<(), String> {
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

    /// What all of them say.
    pub(super) fn finish(self) -> Result<Mount, String> {
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
