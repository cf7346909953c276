//! Agreement with another parser on the files that both can read.

use rbuild_frontend::Instruction;

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

#[test]
fn with_dockerfile_parser() {
    for text in FILES {
        let theirs = dockerfile_parser::Dockerfile::parse(text).unwrap();
        let (_, ours) = read(text);
        assert!(ours.diagnostics.is_empty(), "{text}: {:?}", ours.diagnostics);
        assert_eq!(ours.statements.len(), theirs.instructions.len(), "{text}");
        let stages = ours
            .statements
            .iter()
            .filter(|it| matches!(it.instruction, Instruction::From(_)))
            .count();
        assert_eq!(stages, theirs.iter_stages().count(), "{text}");
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
}
