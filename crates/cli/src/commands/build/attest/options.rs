//! Which attestations are wanted.

use std::collections::BTreeMap;

use rbuild_exporter::{ProvenanceMode, ProvenanceOptions};

use super::super::special_args::boolean;
use crate::args::BuildArgs;
use crate::error::CommandError;
use crate::fields::csv_fields;

/// The attestations that are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttestPlan {
    pub(super) provenance: Option<WantedProvenance>,
    pub(super) sbom: bool,
}

/// Wanted provenance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WantedProvenance {
    pub(super) options: ProvenanceOptions,
    /// Whether it goes only into images.
    pub(super) inline_only: bool,
}

/// What one argument says.
enum Spec {
    Off,
    Provenance(WantedProvenance),
    Sbom,
}

impl AttestPlan {
    /// Reads the arguments, and those of `build_args` that say it, which count where no argument does.
    pub(crate) fn new(
        args: &BuildArgs,
        build_args: &BTreeMap<String, String>,
    ) -> Result<Self, CommandError> {
        let mut given: BTreeMap<&'static str, (String, Spec)> = BTreeMap::new();
        let short = |flag: &'static str, kind: &'static str, value: &Option<String>| {
            value.as_ref().map(|value| (format!("--{flag}={value}"), kind, value.clone()))
        };
        let shorts = [
            short("provenance", "provenance", &args.provenance),
            short("sbom", "sbom", &args.sbom),
        ];
        let mut specs: Vec<(String, &'static str, String)> = shorts.into_iter().flatten().collect();
        for text in &args.attest {
            let (kind, rest) = kind(text)?;
            specs.push((format!("--attest {text}"), kind, rest));
        }
        for (flag, kind, value) in specs {
            let spec = spec(&flag, kind, &value)?;
            if let Some((first, _)) = given.insert(kind, (flag.clone(), spec)) {
                return Err(CommandError::usage(format!(
                    "`{first}` and `{flag}` both say what {kind} there is to be"
                )));
            }
        }
        for kind in ["provenance", "sbom"] {
            let name = format!("BUILDKIT_ATTEST_{}", kind.to_ascii_uppercase());
            if let Some(value) = build_args.get(&name).filter(|_| !given.contains_key(kind)) {
                let flag = format!("--build-arg {name}={value}");
                given.insert(kind, (flag.clone(), spec(&flag, kind, value)?));
            }
        }
        let mut plan = Self::default();
        for (_, spec) in given.into_values() {
            match spec {
                Spec::Off => {}
                Spec::Provenance(wanted) => plan.provenance = Some(wanted),
                Spec::Sbom => plan.sbom = true,
            }
        }
        Ok(plan)
    }

    /// Whether provenance is among them.
    pub(crate) fn has_provenance(&self) -> bool {
        self.provenance.is_some()
    }

    /// Whether a bill of materials is among them.
    pub(crate) fn has_sbom(&self) -> bool {
        self.sbom
    }

    /// Whether there are to be any.
    pub(crate) fn is_some(&self) -> bool {
        self.provenance.is_some() || self.sbom
    }
}

/// The type of `--attest`, and its other fields.
fn kind(text: &str) -> Result<(&'static str, String), CommandError> {
    let wrong = |reason: &str| CommandError::usage(format!("`--attest {text}`: {reason}"));
    let fields = csv_fields(text).map_err(|reason| wrong(&reason))?;
    let (kinds, rest): (Vec<_>, Vec<_>) =
        fields.into_iter().partition(|field| field.starts_with("type="));
    match kinds.as_slice() {
        [kind] if kind == "type=provenance" => Ok(("provenance", rest.join(","))),
        [kind] if kind == "type=sbom" => Ok(("sbom", rest.join(","))),
        [_] => Err(wrong("its type is provenance or sbom")),
        _ => Err(wrong("say its type: type=provenance or type=sbom")),
    }
}

fn spec(flag: &str, kind: &str, value: &str) -> Result<Spec, CommandError> {
    let wrong = |reason: String| CommandError::usage(format!("`{flag}`: {reason}"));
    // `true` alone, as `false`, is short for `disabled=..`.
    match boolean(value) {
        Some(false) => return Ok(Spec::Off),
        Some(true) => return attributes(kind, &[]).map_err(wrong),
        None => {}
    }
    let fields = csv_fields(value).map_err(wrong)?;
    let fields: Vec<_> = fields.into_iter().filter(|field| !field.is_empty()).collect();
    attributes(kind, &fields).map_err(wrong)
}

fn attributes(kind: &str, fields: &[String]) -> Result<Spec, String> {
    let mut wanted = WantedProvenance {
        options: ProvenanceOptions {
            mode: ProvenanceMode::Max,
            builder_id: String::new(),
            file_name: "provenance.json".to_owned(),
            reproducible: false,
        },
        inline_only: false,
    };
    let mut is_off = false;
    for field in fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(format!("`{field}` is not of the form key=value"));
        };
        let flag = || boolean(value).ok_or(format!("`{key}` is true or false, not `{value}`"));
        match (kind, key) {
            (_, "disabled") => is_off = flag()?,
            ("provenance", "mode") => {
                wanted.options.mode = match value {
                    "min" => ProvenanceMode::Min,
                    "max" => ProvenanceMode::Max,
                    _ => return Err(format!("mode is min or max, not `{value}`")),
                }
            }
            ("provenance", "version") if value == "v1" => {}
            ("provenance", "version") => {
                return Err(format!("provenance is written in version v1, not `{value}`"));
            }
            ("provenance", "builder-id") => value.clone_into(&mut wanted.options.builder_id),
            ("provenance", "filename") => {
                if value.is_empty() || value.contains('/') || matches!(value, "." | "..") {
                    return Err(format!("filename is the name of a file, not `{value}`"));
                }
                value.clone_into(&mut wanted.options.file_name);
            }
            ("provenance", "reproducible") => wanted.options.reproducible = flag()?,
            ("provenance", "inline-only") => wanted.inline_only = flag()?,
            ("sbom", "generator") => {
                return Err(
                    "no image is run to find packages: rbuild reads what package managers have noted. Leave out generator"
                        .to_owned(),
                );
            }
            _ => return Err(format!("{kind} has no `{key}`")),
        }
    }
    Ok(match kind {
        _ if is_off => Spec::Off,
        "provenance" => Spec::Provenance(wanted),
        _ => Spec::Sbom,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(flags: [&str; 3], build_args: &[(&str, &str)]) -> Result<AttestPlan, String> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let args = BuildArgs {
            provenance: given(flags[0]),
            sbom: given(flags[1]),
            attest: given(flags[2]).into_iter().collect(),
            ..BuildArgs::default()
        };
        let build_args =
            build_args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        AttestPlan::new(&args, &build_args.collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn all_ways_to_ask() {
        assert_eq!(plan(["", "", ""], &[]).unwrap(), AttestPlan::default());
        let mode = |flags, args: &[(&str, &str)]| {
            plan(flags, args).unwrap().provenance.map(|wanted| wanted.options.mode)
        };
        assert_eq!(mode(["true", "", ""], &[]), Some(ProvenanceMode::Max));
        assert_eq!(mode(["mode=min", "", ""], &[]), Some(ProvenanceMode::Min));
        assert_eq!(mode(["false", "", ""], &[]), None);
        let min = [("BUILDKIT_ATTEST_PROVENANCE", "mode=min")];
        assert_eq!(mode(["", "", ""], &min), Some(ProvenanceMode::Min));
        assert_eq!(mode(["false", "", ""], &min), None);
        assert!(plan(["", "", ""], &[("BUILDKIT_ATTEST_SBOM", "")]).unwrap().sbom);
        assert!(plan(["", "true", ""], &[]).unwrap().sbom);
        assert!(!plan(["", "", "type=sbom,disabled=true"], &[]).unwrap().sbom);
        let all = "type=provenance,mode=max,version=v1,builder-id=https://x/1,filename=p.json,reproducible=true,inline-only=true";
        let wanted = plan(["", "", all], &[]).unwrap().provenance.unwrap();
        assert_eq!(wanted.options.builder_id, "https://x/1");
        assert_eq!(wanted.options.file_name, "p.json");
        assert!(wanted.options.reproducible && wanted.inline_only);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (flags, expected) in [
            (["mode=all", "", ""], "mode is min or max"),
            (["version=v0.2", "", ""], "version v1, not `v0.2`"),
            (["filename=a/b", "", ""], "the name of a file"),
            (["x", "", ""], "not of the form key=value"),
            (["color=red", "", ""], "provenance has no `color`"),
            (["", "generator=x/y", ""], "Leave out generator"),
            (["", "", "mode=max"], "say its type"),
            (["", "", "type=vex"], "provenance or sbom"),
            (["true", "", "type=provenance"], "both say what provenance"),
        ] {
            let error = plan(flags, &[]).unwrap_err();
            assert!(error.contains(expected), "{flags:?}: {error}");
        }
    }
}
