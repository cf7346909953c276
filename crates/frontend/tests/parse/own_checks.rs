//! Our own rules: what each finds, and where it stays silent.

use rbuild_frontend::{Checks, ContextFiles, Diagnostic, Source, apply_fixes, check_own};

use super::read;

fn found_with(text: &str, top: &[&str]) -> (Source, Vec<Diagnostic>) {
    let (source, dockerfile) = read(text);
    assert!(!dockerfile.has_errors(), "{text}: {:?}", dockerfile.diagnostics);
    let files = ContextFiles { top: top.iter().map(|name| (*name).to_owned()).collect() };
    let found = check_own(&source, &dockerfile, &files);
    let found = Checks::of(&dockerfile, None).unwrap().filter(&dockerfile, found);
    (source, found)
}

/// Asserts the messages, with the marked text.
#[track_caller]
fn check_with(text: &str, top: &[&str], expected: &[&str]) {
    let (source, found) = found_with(text, top);
    let shown: Vec<String> = found
        .iter()
        .map(|warning| {
            format!("{}: {} <{}>", warning.code, warning.message, source.slice(warning.span))
        })
        .collect();
    assert_eq!(shown, expected, "{text}");
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    check_with(text, &[], expected);
}

/// Asserts that each file gives no warning.
#[track_caller]
fn quiet(texts: &[&str]) {
    for text in texts {
        check(text, &[]);
    }
}

#[track_caller]
fn check_fixed(text: &str, expected: &str) {
    let (source, found) = found_with(text, &[]);
    assert_eq!(apply_fixes(&source, &found).text, expected);
    check(expected, &[]);
}

#[test]
fn arguments_that_are_declared_early() {
    let text =
        "FROM a\nARG V=1\nRUN apt-get install -y x\nWORKDIR /x\n# why\nRUN make VERSION=$V\n";
    check(
        text,
        &["Rbuild/ArgDeclaredEarly: ARG V is declared long before its first use <ARG V=1>"],
    );
    check_fixed(
        text,
        "FROM a\nRUN apt-get install -y x\nWORKDIR /x\nARG V=1\n# why\nRUN make VERSION=$V\n",
    );
    // A program that nobody knows may read it, so that it is not moved past that.
    let (_, found) = found_with("FROM a\nARG V\nRUN mkdir x\nRUN ./build\nLABEL v=$V\n", &[]);
    assert_eq!((found.len(), found[0].fixes.len()), (1, 0));
    let (_, found) =
        found_with("FROM a\n# V is the version\nARG V\nRUN mkdir x\nLABEL v=$V\n", &[]);
    assert_eq!((found.len(), found[0].fixes.len()), (1, 0));
    quiet(&[
        "FROM a\nARG V\nRUN make $V\n",
        "FROM a\nARG V\nRUN ./build\nLABEL v=$V\n",
        "FROM a\nARG V\nRUN mkdir x\n",
        "FROM a\nARG V\nRUN mkdir /opt/$V\nRUN make $V\n",
        "FROM a\nARG V\nRUN <<EOF\nmkdir $V\nEOF\nLABEL v=$V\n",
        "FROM a\nARG V\nWORKDIR /x\nCOPY a b\nLABEL v=$V\n",
        "FROM a\nARG TARGETARCH\nRUN mkdir x\nRUN echo $TARGETARCH\n",
        "FROM a\nARG HTTP_PROXY\nRUN mkdir x\nRUN echo $HTTP_PROXY\n",
        "FROM a\nARG V\nRUN mkdir x\nFROM a\nARG V\nLABEL v=$V\n",
        "ARG V\nFROM a:$V\nRUN mkdir x\n",
    ]);
}

#[test]
fn everything_copied_before_dependencies() {
    let message = "Rbuild/CopyBeforeInstall: All files are copied before `npm ci`, so that a change of any of them runs it again <.>";
    let text = "FROM node\nWORKDIR /app\nCOPY . .\nRUN npm ci && npm run build\n";
    check_with(text, &["package.json", "package-lock.json", "src"], &[message]);
    check(text, &[message]);
    let (_, found) = found_with(text, &["package.json", "package-lock.json"]);
    assert_eq!(
        found[0].help.as_deref(),
        Some(
            "COPY package.json and package-lock.json first, then RUN npm ci, and COPY the rest after it"
        )
    );
    check_with(text, &["src"], &[]);
    check(
        "FROM go\nCOPY . /src/\nRUN cd /src && go mod download\n",
        &[
            "Rbuild/CopyBeforeInstall: All files are copied before `go mod`, so that a change of any of them runs it again <.>",
        ],
    );
    quiet(&[
        "FROM node\nCOPY package.json .\nRUN npm ci\nCOPY . .\nRUN npm run build\n",
        "FROM node\nCOPY package.json .\nRUN npm ci\nCOPY . .\nRUN npm ci --omit=dev\n",
        "FROM node\nCOPY . .\nRUN npm run build\n",
        "FROM node\nCOPY . .\nRUN npm install -g serve\n",
        "FROM python\nCOPY . .\nRUN pip install build\n",
        "FROM node\nCOPY --from=x . .\nRUN npm ci\n",
        "FROM node\nCOPY src src\nRUN npm ci\n",
        "FROM node\nCOPY . .\nRUN --mount=type=cache,target=/root/.npm npm ci\n",
        "FROM node\nCOPY . .\nFROM node\nRUN npm ci\n",
        "FROM node\nCOPY . .\nRUN echo npm ci\n",
    ]);
}

#[test]
fn package_lists_in_a_layer() {
    let text = "FROM a\nRUN apt-get update && \\\n    apt-get install -y x\n";
    let (_, found) = found_with(text, &[]);
    assert_eq!(found[0].code, "Rbuild/AptListsLeft");
    check_fixed(
        text,
        "FROM a\nRUN apt-get update && \\\n    apt-get install -y x && rm -rf /var/lib/apt/lists/*\n",
    );
    let (_, found) =
        found_with("FROM a\nRUN <<EOF\napt-get update\napt-get install -y x\nEOF\n", &[]);
    assert_eq!((found.len(), found[0].fixes.len()), (1, 0));
    let (_, found) =
        found_with("FROM a AS b\nRUN apt update\nFROM b\nRUN apt install x # why\n", &[]);
    assert_eq!(found.len(), 1, "the base of the last stage is shipped, too");
    quiet(&[
        "FROM a\nRUN apt-get update && apt-get install -y x && rm -rf /var/lib/apt/lists/*\n",
        "FROM a\nRUN <<EOF\napt-get update\nrm -r /var/lib/apt/lists\nEOF\n",
        "FROM a\nRUN --mount=type=cache,target=/var/lib/apt/lists apt-get update && apt-get install -y x\n",
        "FROM a\nRUN apt-get update && apt-get install -y x && apt-get dist-clean\n",
        "FROM a AS b\nRUN apt-get update && apt-get install -y gcc\nFROM a\nCOPY --from=b /x /x\n",
        "FROM a\nRUN apk update\nRUN apt-get install -y x\n",
        "FROM a\nRUN echo run apt-get update\n",
    ]);
}

#[test]
fn secrets() {
    check(
        "FROM a\nCOPY id_rsa /root/.ssh/\nADD tls/server.key cert.pem /tls/\n",
        &[
            "Rbuild/SecretCopied: The image gets `id_rsa`, which looks like a secret <id_rsa>",
            "Rbuild/SecretCopied: The image gets `tls/server.key`, which looks like a secret <tls/server.key>",
        ],
    );
    check_with(
        "FROM a\nCOPY . /app\n",
        &[".env", ".env.example", ".npmrc", "src"],
        &[
            "Rbuild/SecretCopied: The copy takes along `.env`, `.npmrc`, which look like secrets <.>",
        ],
    );
    let token = format!("ghp_{}", "a1".repeat(18));
    check(
        &format!("FROM a\nRUN git clone https://{token}@github.com/a/b\n"),
        &[&format!("Rbuild/SecretCopied: The file holds what looks like a GitHub token <{token}>")],
    );
    quiet(&[
        "FROM a\nCOPY src .env.example id_rsa.pub ca.pem /\n",
        "FROM a\nCOPY --from=x .env /\n",
        "FROM a AS b\nCOPY .npmrc /\nFROM a\nCOPY --from=b /x /\n",
        "FROM a\nENV ID=AKIAIOSFODNN7EXAMPLE\n",
        "FROM a\nCOPY . /\n",
        "# check=skip=Rbuild/SecretCopied\nFROM a\nCOPY .env /\n",
        "FROM a\n# check=skip=Rbuild/SecretCopied\nCOPY .env /\n",
    ]);
}
