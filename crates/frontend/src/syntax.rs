//! Which frontend a file asks for: `# syntax=`, and the build argument `BUILDKIT_SYNTAX`.

use rbuild_oci::Reference;

use crate::build::BuildOptions;
use crate::diagnostic::Diagnostic;
use crate::dockerfile::ast::Dockerfile;
use crate::source::{Source, Span};

/// The argument that counts more than what the file says.
const ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// The name of the frontend that is built in.
const BUILT_IN: &str = "dockerfile.v0";

/// The error of a file that is for another frontend than this one; it need not be a Dockerfile at all.
///
/// `docker/dockerfile` and `docker/dockerfile-upstream`, whatever their version and mirror, are the language that this
/// frontend reads.
pub fn foreign_frontend(
    source: &Source,
    dockerfile: &Dockerfile,
    options: &BuildOptions,
) -> Option<Diagnostic> {
    let given = options.build_args.get(ARGUMENT).map(|given| given.trim());
    let (wanted, span) =
        match (given.filter(|given| !given.is_empty()), &dockerfile.directives.syntax) {
            (Some(given), _) => (given.to_owned(), Span::at(0)),
            (None, Some(syntax)) => (syntax.text().to_owned(), syntax.span()),
            (None, None) => other_form(source)?,
        };
    let name = wanted.split(' ').next().unwrap_or_default();
    if name == BUILT_IN {
        return None;
    }
    let reference = Reference::parse(name);
    let replaced = reference.as_ref().ok().and_then(|reference| {
        let is_it = |context: &&String| {
            Reference::parse(context)
                .is_ok_and(|context| context.with_default_tag() == reference.with_default_tag())
        };
        options.contexts.keys().find(is_it)
    });
    if replaced.is_none() && reference.is_ok_and(|reference| is_docker(&reference)) {
        return None;
    }
    let message = match replaced {
        Some(context) => {
            format!("the named context {context:?} replaces the frontend, which is built in")
        }
        None => format!(
            "frontend {name:?} is not supported: only that of docker/dockerfile is, and it is built in"
        ),
    };
    let help =
        format!("if it is a Dockerfile all the same, build with --build-arg {ARGUMENT}={BUILT_IN}");
    Some(Diagnostic::error("frontend", span, message).with_help(help))
}

/// Whether it is that of docker, there or in a mirror.
fn is_docker(reference: &Reference) -> bool {
    let repository = reference.repository();
    ["docker/dockerfile", "docker/dockerfile-upstream"].iter().any(|name| {
        let before = repository.strip_suffix(name);
        before.is_some_and(|before| {
            before.is_empty() || before.ends_with('/') && reference.registry() != "docker.io"
        })
    })
}

/// What a file that is no Dockerfile says: `//syntax=` at its top, or the member `syntax` of a JSON document.
fn other_form(source: &Source) -> Option<(String, Span)> {
    let text = source.text();
    let mut at = if text.starts_with('\u{feff}') { 3 } else { 0 };
    if text[at..].starts_with("#!") {
        at += text[at..].find('\n')? + 1;
    }
    if text[at..].trim_start().starts_with('{') {
        let document: serde_json::Map<_, _> = serde_json::from_str(&text[at..]).ok()?;
        let syntax = document.get("syntax")?.as_str()?;
        return Some((syntax.to_owned(), Span::at(at as u32)));
    }
    for line in text[at..].split_inclusive('\n') {
        let (name, value) = line.strip_prefix("//")?.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        match name.as_str() {
            "syntax" if !value.trim().is_empty() => {
                let end = at + line.trim_end().len();
                return Some((value.trim().to_owned(), Span::new(at as u32, end as u32)));
            }
            "escape" | "check" => at += line.len(),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use rbuild_oci::Platform;

    use super::*;

    fn refused(text: &str, argument: Option<&str>) -> Option<String> {
        let source = Source::new("Dockerfile", text).unwrap();
        let mut options = BuildOptions::new(Platform::new("linux", "amd64", ""));
        options.build_args.extend(argument.map(|value| (ARGUMENT.to_owned(), value.to_owned())));
        let error = foreign_frontend(&source, &crate::parse(&source), &options)?;
        Some(format!("{} <{}>", error.message, source.slice(error.span)))
    }

    #[test]
    fn the_language_of_docker_is_ours() {
        for name in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.20-labs",
            "docker.io/docker/dockerfile:1",
            "docker/dockerfile-upstream:master",
            "docker/dockerfile:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "mirror.example.com/docker/dockerfile:1",
            "localhost:5000/hub/docker/dockerfile-upstream",
            "dockerfile.v0",
            "docker/dockerfile:1 with words behind",
        ] {
            assert_eq!(refused(&format!("# syntax={name}\nFROM a\n"), None), None, "{name}");
            assert_eq!(refused("# syntax=x/y\nFROM a\n", Some(name)), None, "{name}");
        }
        for text in [
            "FROM a\n",
            "FROM a\n# syntax=x\n",
            "# a\n# syntax=x\n",
            " # syntax=x\n",
            "//a=b\n//syntax=x",
        ] {
            assert_eq!(refused(text, None), None, "{text}");
        }
    }

    #[test]
    fn others_are_refused() {
        let message = |name: &str, marked: &str| {
            Some(format!(
                "frontend \"{name}\" is not supported: only that of docker/dockerfile is, and it is built in <{marked}>"
            ))
        };
        for (text, name, marked) in [
            ("# syntax=a/b:1\nFROM x\n", "a/b:1", "a/b:1"),
            ("#!/x\n# check=skip=all\n#SYNTAX = a words\nFROM x\n", "a", "a words"),
            (
                "# syntax=ghcr.io/x/mydocker/dockerfile:1\n",
                "ghcr.io/x/mydocker/dockerfile:1",
                "ghcr.io/x/mydocker/dockerfile:1",
            ),
            ("# syntax=a/docker/dockerfile\n", "a/docker/dockerfile", "a/docker/dockerfile"),
            ("# syntax=UPPER\n", "UPPER", "UPPER"),
            ("// syntax=a/b\nkey: value\n", "a/b", "// syntax=a/b"),
            ("//check=x\n//Syntax = a/b\n", "a/b", "//Syntax = a/b"),
            ("{\"syntax\": \"a/b\"}", "a/b", ""),
            ("#!x\n {\"syntax\": \"a/b\"}", "a/b", ""),
        ] {
            assert_eq!(refused(text, None), message(name, marked), "{text}");
        }
        assert_eq!(refused("# syntax=docker/dockerfile:1\n", Some(" a/b x ")), message("a/b", ""));
    }

    #[test]
    fn a_named_context_may_not_replace_it() {
        let source = Source::new("Dockerfile", "# syntax=docker/dockerfile:1\nFROM a\n").unwrap();
        let mut options = BuildOptions::new(Platform::new("linux", "amd64", ""));
        let scratch = crate::NamedContext::Scratch;
        options.contexts.insert("docker/dockerfile:1".to_owned(), scratch);
        let error = foreign_frontend(&source, &crate::parse(&source), &options).unwrap();
        assert!(error.message.contains("named context \"docker/dockerfile:1\""), "{error:?}");
    }
}
