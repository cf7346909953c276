//! What a build sees of a folder.

use serde_json::Value;

use crate::fixture::Fixture;

fn fixture() -> Fixture {
    let fixture = Fixture::with("FROM scratch\nCOPY . /\n");
    fixture.write(".dockerignore", "# what is made\n/build/\n!build/keep\n**/*.log\n");
    fixture.write("src/main.c", "x".repeat(2_000));
    fixture.write("src/a.log", "x");
    fixture.write("build/drop", "xx");
    fixture.write("build/keep", "xxx");
    fixture
}

#[test]
fn what_the_build_sees_is_listed_with_sizes() {
    let fixture = fixture();
    let text = fixture.run(["context", "ls", "context"]).ok().text();
    let names: Vec<&str> =
        text.lines().map(|line| line.split_whitespace().last().expect("a name")).collect();
    assert_eq!(
        names,
        [".dockerignore", "Dockerfile", "build/keep", "src/", "src/main.c", "ignored"]
    );
    assert!(text.ends_with("4 files, 2.07kB; 3 ignored\n"), "{text}");
    let text = fixture.run(["context", "ls", "--size", "--ignored", "context"]).ok().text();
    assert!(text.lines().next().expect("a line").ends_with("src/main.c"), "{text}");
    assert!(
        text.contains("src/a.log   (ignored by line 4 of .dockerignore: **/*.log)\n"),
        "{text}"
    );
}

#[test]
fn the_pattern_that_decided_is_named() {
    let fixture = fixture();
    let why = |path: &str| fixture.run(["context", "ls", "--why", path, "context"]).ok().text();
    assert_eq!(why("build/drop"), "build/drop: ignored by line 2 of .dockerignore: /build/\n");
    assert_eq!(
        why("./build/keep"),
        "build/keep: the build sees it because of line 3 of .dockerignore: !build/keep\n"
    );
    assert_eq!(why("src/main.c"), "src/main.c: the build sees it: no pattern matches it\n");
    assert_eq!(
        why("x/y.log"),
        "x/y.log: ignored by line 4 of .dockerignore: **/*.log (there is no such file)\n"
    );
    let ran = fixture.run(["context", "ls", "--json", "--why", "build/drop", "context"]).ok();
    let document: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(
        (document["ignored"].as_bool(), document["decidedBy"]["line"].as_u64()),
        (Some(true), Some(2))
    );
}

/// Section 1.15 of the behaviour reference, rule by rule.
#[test]
fn rule_21_every_rule_of_ignore_files() {
    let fixture = Fixture::new();
    let all =
        ["a", "a.md", "b.md", "d/a", "d/a.md", "d/e/a", "d/e/f.md", "x y", "#c", "!n", "d2/a"];
    for name in all {
        fixture.write(name, name);
    }
    for (ignore, seen) in [
        // One element; any number of elements; none, too.
        ("*.md", "a d/a d/a.md d/e/a d/e/f.md d2/a x y !n #c"),
        ("*/*.md", "a a.md b.md d/a d/e/a d/e/f.md d2/a x y !n #c"),
        ("**/*.md", "a d/a d/e/a d2/a x y !n #c"),
        ("**/a", "a.md b.md d/a.md d/e/f.md x y !n #c"),
        ("d/**/f.md", "a a.md b.md d/a d/a.md d/e/a d2/a x y !n #c"),
        ("d?", "a a.md b.md d/a d/a.md d/e/a d/e/f.md x y !n #c"),
        ("[a-b].md", "a d/a d/a.md d/e/a d/e/f.md d2/a x y !n #c"),
        ("[^a].md", "a a.md d/a d/a.md d/e/a d/e/f.md d2/a x y !n #c"),
        // What is below a directory goes with it, wherever slashes are.
        ("d", "a a.md b.md d2/a x y !n #c"),
        ("/d/", "a a.md b.md d2/a x y !n #c"),
        ("./d/../d", "a a.md b.md d2/a x y !n #c"),
        ("  d\t", "a a.md b.md d2/a x y !n #c"),
        ("x y", "a a.md b.md d/a d/a.md d/e/a d/e/f.md d2/a !n #c"),
        // The last one that matches decides, also about what is below an ignored directory.
        ("d\n!d/e", "a a.md b.md d/e/a d/e/f.md d2/a x y !n #c"),
        ("d\n!d/e\nd/e/f.md", "a a.md b.md d/e/a d2/a x y !n #c"),
        ("!d/e\nd", "a a.md b.md d2/a x y !n #c"),
        ("*\n!**/f.md", "d/e/f.md"),
        ("**\n!d2", "d2/a"),
        // Comments are in the first column only; what is escaped means itself.
        ("#d\n\n", "a a.md b.md d/a d/a.md d/e/a d/e/f.md d2/a x y !n #c"),
        (" #c", "a a.md b.md d/a d/a.md d/e/a d/e/f.md d2/a x y !n"),
        ("\\!n", "a a.md b.md d/a d/a.md d/e/a d/e/f.md d2/a x y #c"),
        ("\u{feff}d", "a a.md b.md d2/a x y !n #c"),
        ("..\n/\n.", "a a.md b.md d/a d/a.md d/e/a d/e/f.md d2/a x y !n #c"),
    ] {
        fixture.write("Dockerfile.dockerignore", format!("{ignore}\n*ockerfile*\n"));
        let listed = fixture.run(["context", "ls", "--json", "context"]).ok().text();
        let mut files: Vec<String> = listed
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .filter(|entry| entry["type"] == "file")
            .map(|entry| entry["path"].as_str().expect("a path").to_owned())
            .collect();
        files.sort();
        let mut expected: Vec<String> =
            seen.replace("x y", "x_y").split(' ').map(|name| name.replace("x_y", "x y")).collect();
        expected.sort();
        assert_eq!(files, expected, "{ignore:?}");
        // Each file is said the same of by itself.
        let args = ["context", "ls", "--json", "context"];
        let whys = all.iter().flat_map(|name| ["--why", name]);
        let said = fixture.run(args.into_iter().chain(whys)).ok().text();
        assert_eq!(said.lines().count(), all.len());
        for (name, why) in all.iter().zip(said.lines()) {
            let why: Value = serde_json::from_str(why).expect("JSON");
            let is_seen = expected.iter().any(|seen| seen == name);
            assert_eq!(why["path"].as_str(), Some(*name));
            assert_eq!(why["ignored"].as_bool(), Some(!is_seen), "{ignore:?} {name}");
        }
    }
}

#[test]
fn a_file_that_is_hidden_or_misspelt_is_explained() {
    let fixture = fixture();
    fixture.write("Dockerfile", "FROM scratch\nCOPY build/drop /\n");
    let error = fixture.build(&["-o", "type=cacheonly"]).fails(1);
    for part in [
        "failed to solve: failed to compute cache key: failed to calculate checksum of ref ",
        "\"/build/drop\": not found",
        "hint: \"/build/drop\" is there, but ignored by line 2 of .dockerignore: /build/\n",
        "   2 | >>> COPY build/drop /\n",
    ] {
        assert!(error.contains(part), "`{part}` is not in:\n{error}");
    }
    fixture.write("Dockerfile", "FROM scratch\nCOPY src/mian.c /\n");
    let error = fixture.build(&["-o", "type=cacheonly"]).fails(1);
    assert!(error.contains("hint: did you mean \"/src/main.c\"?\n"), "{error}");
}

#[test]
fn an_image_that_cannot_be_had_is_shown_where_it_is_named() {
    let fixture =
        Fixture::with("FROM scratch AS builder\nFROM scratch\nCOPY --from=127.0.0.1:1/x /a /\n");
    let error = fixture.build(&["-o", "type=cacheonly"]).fails(1);
    assert!(error.contains("   3 | >>> COPY --from=127.0.0.1:1/x /a /\n"), "{error}");
}
