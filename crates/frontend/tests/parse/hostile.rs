//! Files that nobody means well with. None is timed: what is not linear would not end.

use rbuild_frontend::{Checks, RenderOptions, Source, check, parse, render};

fn survive(bytes: &[u8]) -> rbuild_frontend::Dockerfile {
    let source = Source::from_bytes("Dockerfile", bytes).unwrap();
    let dockerfile = parse(&source);
    let found = Checks::default().filter(&dockerfile, check(&dockerfile));
    let drawn = render(
        &source,
        &dockerfile.diagnostics,
        RenderOptions { color: false, width: 80, limit: 20 },
    );
    let warned = render(&source, &found, RenderOptions { color: true, width: 80, limit: 20 });
    assert!(drawn.len() + warned.len() < 400_000, "{}", drawn.len() + warned.len());
    dockerfile
}

#[test]
fn ten_thousand_stages() {
    let stage = |number| format!("FROM a AS s{number}\nCOPY --from=s{} x /y\nCMD z\n", number / 2);
    let text: String = (0..10_000).map(stage).collect();
    let dockerfile = survive(text.as_bytes());
    assert_eq!(dockerfile.statements.len(), 30_000);
    assert!(!dockerfile.has_errors());
}

#[test]
fn ten_megabytes_in_a_line() {
    const SIZE: usize = 10 << 20;
    for piece in
        ["x", " ", "a ", "\\", "\"", "'", "${", "<<A ", "--a ", "[", "\t\\", "#", "é", "\r"]
    {
        for start in ["", "FROM a\nRUN ", "FROM a\nENV ", "FROM a\nCOPY "] {
            survive(format!("{start}{}", piece.repeat(SIZE / piece.len() / 4)).as_bytes());
        }
    }
    let dockerfile = survive(format!("FROM a\nRUN {}", "x".repeat(SIZE)).as_bytes());
    assert!(dockerfile.has_errors());
}

#[test]
fn megabytes_of_short_continuations() {
    for (start, piece) in [
        ("RUN ", "x\\\n"),
        ("ENV ", "a=b \\\n"),
        ("COPY ", "a \\\n"),
        ("RUN ", "\\\n\n"),
        ("RUN ", "'\\\n"),
        ("COPY ", "--exclude=a \\\n"),
        ("CMD [", "\"a\", \\\n"),
        ("RUN ", "${ \\\n"),
        ("EXPOSE ", "1/T:1 \\\n"),
        ("RUN --mount=", "a,\\\n"),
    ] {
        survive(format!("FROM a\n{start}{}", piece.repeat((1 << 20) / piece.len())).as_bytes());
    }
}

#[test]
fn many_heredocs() {
    let openers = "<<A \\\n".repeat(20_000);
    let bodies = "x\nA\n".repeat(20_001);
    let dockerfile = survive(format!("FROM a\nCOPY {openers} <<A /x\n{bodies}").as_bytes());
    assert!(!dockerfile.has_errors(), "{:?}", dockerfile.diagnostics);
    assert_eq!(dockerfile.statements[1].heredocs.len(), 20_001);
}

#[test]
fn binary_files() {
    let noise: Vec<u8> =
        (0_u32..1 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    assert!(survive(&noise).has_errors());
    assert!(survive(&vec![0; 1 << 20]).has_errors());
    assert!(survive(&vec![0xff; 1 << 20]).has_errors());
    assert!(survive(&b"\xff\n".repeat(1 << 19)).has_errors());
    assert!(survive(b"\x7fELF\x02\x01\x01\0\0\0").has_errors());
    assert!(
        survive(&"FROM a\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>())
            .has_errors()
    );
}

#[test]
fn a_file_is_given_up_after_a_thousand_errors() {
    let dockerfile = survive(&b"A\n".repeat(1 << 20));
    assert!(dockerfile.statements.len() <= 1_000);
    let last = dockerfile.diagnostics.last().unwrap();
    assert!(last.message.starts_with("too many errors"), "{}", last.message);
}

#[test]
fn latin1_is_tolerated_but_where_it_is_run() {
    let codes = |bytes: &[u8]| {
        let found = survive(bytes).diagnostics;
        found.iter().map(|diagnostic| (diagnostic.code, diagnostic.is_error())).collect::<Vec<_>>()
    };
    let (warning, error) = (("not-utf8", false), ("not-utf8", true));
    assert_eq!(codes(b"# caf\xe9\nFROM a\n"), [warning]);
    assert_eq!(codes(b"FROM a\nLABEL a=caf\xe9\nENV b=\xe9\nMAINTAINER Jos\xe9\n"), [warning]);
    assert_eq!(codes(b"FROM a\nONBUILD RUN caf\xe9\n"), [warning]);
    assert_eq!(codes(b"FROM a\nCOPY <<E /\n# caf\xe9\nE\n"), [warning]);
    assert_eq!(codes(b"FROM a\nCOPY <<'E' /\n# caf\xe9\nE\n"), []);
    assert_eq!(codes(b"FROM a\nRUN x \\\n# caf\xe9\n y\n"), [warning]);
    assert_eq!(codes(b"FROM a\nRUN caf\xe9\n"), [error]);
    assert_eq!(codes(b"FROM a\nRUN <<E\n# caf\xe9\nE\n"), [error]);
    assert_eq!(codes(b"FROM a\nCOPY caf\xe9 /\n"), [error]);
    assert_eq!(codes(b"FROM caf\xe9\n"), [error]);
}
