//! Agreement with another parser, the `dockerfile-parser` crate, on the files that both can read.

use std::fs;
use std::path::Path;

use rbuild_frontend::{Dockerfile, Instruction};

use super::read;

const FILES: [&str; 5] = [
    "FROM golang:1.24 AS build\nWORKDIR /src\nCOPY go.mod go.sum ./\nRUN go mod download\nCOPY . .\n\
     RUN CGO_ENABLED=0 \\\n    go build -o /out/app ./cmd/app\n\nFROM scratch\nCOPY --from=build /out/app /app\n\
     ENTRYPOINT [\"/app\"]\nCMD [\"--help\"]\n",
    "ARG VERSION=3.20\nFROM alpine:${VERSION} AS base\nARG VERSION\nLABEL version=$VERSION vendor=\"x y\"\n\
     ENV PATH=/opt/bin:$PATH HOME=/root\nRUN apk add --no-cache \\\n      curl \\\n      # a comment inside\n      git\n\
     EXPOSE 8080\nUSER nobody\nHEALTHCHECK CMD curl -f http://localhost/\n",
    "# syntax=docker/dockerfile:1\nfrom debian:trixie-slim\nrun echo a && \\\n  echo b\nenv A B C\nlabel a=b\ncmd echo hi\n",
    "FROM a AS one\nFROM one AS two\nFROM two\nCOPY --from=one /x /x\nCOPY --from=two /y /y\nVOLUME /data\nSTOPSIGNAL 9\n",
    "FROM a\nRUN echo '#' \"FROM b\" \\\n  ; true\n# FROM c\nONBUILD RUN x\nSHELL [\"/bin/bash\", \"-c\"]\nMAINTAINER d\n",
];

/// What that crate is known to get wrong in version 0.9: why, a file, and what it makes of it. Each is looked at, so that
/// the list says what is so.
const FAULTS: [(&str, &str, Fault); 10] = [
    (
        "the lines of a heredoc are instructions, and stages",
        "FROM a\nRUN <<'THE END'\nFROM b\nTHE END\n",
        Fault::Counts(2, 4),
    ),
    ("a line that is one word is an error, as most ends of heredocs are", HEREDOC, Fault::Rejects),
    (
        "the escape directive is a comment",
        "# escape=`\nFROM a\nRUN x `\n  y z\n",
        Fault::Counts(1, 3),
    ),
    (
        "a line that is nothing but a continuation is an error",
        "FROM a\nRUN x \\\n\\\n  && y\n",
        Fault::Rejects,
    ),
    (
        "a blank line within a command's continuation lines is an error",
        "FROM a\nRUN x \\\n\n  y\n",
        Fault::Rejects,
    ),
    ("a continuation at the end of the file is an error", "FROM a\nRUN x \\\n", Fault::Rejects),
    ("a byte order mark is an error", "\u{feff}FROM a\n", Fault::Rejects),
    ("an ARG has one name", "FROM a\nARG b c\n", Fault::Rejects),
    (
        "an image has no modifier with another character in it",
        "ARG A\nFROM a${A:+b}\n",
        Fault::Rejects,
    ),
    ("a stage's name has no dot", "FROM a AS b.c\nRUN x\n", Fault::Rejects),
];

const HEREDOC: &str = "FROM a\nRUN <<EOF\nset -e\nEOF\n";

/// How a file is misread.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// Not at all.
    Rejects,
    /// With so many stages and instructions.
    Counts(usize, usize),
}

/// The files of `tests/dockerfiles` that it rejects or misreads, for the reasons above.
const MISREAD: [&str; 4] = ["buildkit-mounts", "heredocs", "odd-spacing", "windows-iis"];

/// Stages and instructions.
fn our_counts(file: &Dockerfile) -> (usize, usize) {
    let is_from = |instruction: &Instruction| matches!(instruction, Instruction::From(_));
    let stages = file.statements.iter().filter(|it| is_from(&it.instruction)).count();
    (stages, file.statements.len())
}

fn their_counts(file: &dockerfile_parser::Dockerfile) -> (usize, usize) {
    (file.iter_stages().count(), file.instructions.len())
}

/// Both read the same stages and instructions, at the same places.
fn agree(text: &str, theirs: &dockerfile_parser::Dockerfile) {
    let (_, ours) = read(text);
    assert!(ours.diagnostics.is_empty(), "{text}: {:?}", ours.diagnostics);
    assert_eq!(our_counts(&ours), their_counts(theirs), "{text}");
    for (ours, theirs) in ours.statements.iter().zip(&theirs.instructions) {
        assert_eq!(ours.span.start as usize, theirs.span().start, "{text}");
        if let (Instruction::From(ours), dockerfile_parser::Instruction::From(theirs)) =
            (&ours.instruction, theirs)
        {
            assert_eq!(ours.image.text(), theirs.image.content);
            let alias = theirs.alias.as_ref().map(|alias| alias.content.as_str());
            assert_eq!(ours.alias.as_ref().map(|alias| alias.written.text()), alias);
        }
    }
}

#[test]
fn with_dockerfile_parser() {
    for text in FILES {
        agree(text, &dockerfile_parser::Dockerfile::parse(text).unwrap());
    }
}

#[test]
fn with_dockerfile_parser_on_longer_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles");
    let (mut agreed, mut misread) = (0, Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (_, ours) = read(&text);
        assert!(!ours.has_errors(), "{name}: {:?}", ours.diagnostics);
        match dockerfile_parser::Dockerfile::parse(&text) {
            Ok(theirs) if !MISREAD.contains(&name.as_str()) => {
                agree(&text, &theirs);
                agreed += 1;
            }
            _ => misread.push(name),
        }
    }
    misread.sort();
    assert_eq!(misread, MISREAD);
    assert!(agreed >= 16, "{agreed}");
}

#[test]
fn faults_of_dockerfile_parser() {
    let found = FAULTS.map(|(why, text, _)| {
        let (_, ours) = read(text);
        assert!(!ours.has_errors(), "{why}: {:?}", ours.diagnostics);
        let Ok(theirs) = dockerfile_parser::Dockerfile::parse(text) else {
            return (why, text, Fault::Rejects);
        };
        let (stages, instructions) = their_counts(&theirs);
        assert_ne!((stages, instructions), our_counts(&ours), "{why}: it agrees");
        (why, text, Fault::Counts(stages, instructions))
    });
    assert_eq!(found, FAULTS);
}
