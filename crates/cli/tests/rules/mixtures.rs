//! Features that meet in one Dockerfile: what each does is tested elsewhere, here they have to get along.

use serde_json::json;

use super::world::{base, config, new_layers, rebuild, text, with_image};
use crate::fixture::Fixture;

/// Builds, and compares the paths of each new layer. An owner other than root is before the path, a mode other than 0755
/// of folders and 0644 of files is after it.
#[track_caller]
fn check(
    fixture: &Fixture,
    dockerfile: &str,
    expected: &[&str],
) -> rbuild_testdata::validate::ValidImage {
    let image = rebuild(fixture, dockerfile, &[]);
    let has_base = dockerfile.lines().any(|line| line == "FROM base");
    let layers = if has_base { new_layers(&image) } else { &image.layers };
    let found: Vec<String> = layers
        .iter()
        .map(|layer| {
            let shown = layer.entries.iter().map(|entry| {
                let owner = match (entry.uid, entry.gid) {
                    (0, 0) => String::new(),
                    (uid, gid) => format!("{uid}:{gid}:"),
                };
                let usual = if entry.kind == 'd' { 0o755 } else { 0o644 };
                let mode = match entry.mode == usual {
                    true => String::new(),
                    false => format!("={:o}", entry.mode),
                };
                format!("{owner}{}{mode}", entry.path)
            });
            shown.collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(found, expected, "{dockerfile}");
    image
}

fn with_files(files: &[&str]) -> Fixture {
    let fixture = with_image("", &base());
    for name in files {
        fixture.write(name, name);
    }
    fixture
}

#[test]
fn privileged_heredocs_with_arguments_triggers_and_flags() {
    let fixture = with_files(&["f"]);
    let image = check(
        &fixture,
        "ARG G=global\n\
         FROM scratch AS parent\n\
         ARG V=parent\n\
         ONBUILD COPY <<EOF f <<-'RAW' /on/\n\
         v=$V w=$W g=$G\n\
         EOF\n\
         \t\tv=$V\n\
         \tRAW\n\
         ONBUILD ARG G\n\
         FROM parent\n\
         FROM parent AS child\n\
         ARG W=late\n\
         COPY --link --chown=5 <<EOF /x/y\n\
         ${V:-no} ${V:+\"$W\"} $G \\$V\n\
         EOF\n\
         COPY --link --chown=${U:-0}:6 --chmod=${M:-640} <<EOF /z/y\n\
         # not a comment\n\
         \\\n\
         EOF\n\
         FROM scratch\n\
         COPY --from=child / /\n",
        &["on/ on/EOF on/RAW on/f 5:5:x/ 5:5:x/y 0:6:z/=640 0:6:z/y=640"],
    );
    assert_eq!(text(&image, "on/EOF"), "v=parent w= g=\n");
    assert_eq!(text(&image, "on/RAW"), "v=$V\n");
    assert_eq!(text(&image, "x/y"), "parent \"late\" global $V\n");
    assert_eq!(text(&image, "z/y"), "# not a comment\n\n");
}

#[test]
fn privileged_heredocs_with_other_line_ends_and_escapes() {
    let fixture = with_files(&[]);
    let image = check(
        &fixture,
        "FROM scratch\r\nARG V=1\r\nCOPY <<E /f\r\na $V\r\nb\r\nE\r\nLABEL a=b \\\r\n c=d\r\n",
        &["f"],
    );
    assert_eq!(text(&image, "f"), "a 1\r\nb\r\n");
    assert_eq!(config(&image, "Labels"), &json!({"a": "b", "c": "d"}));
    // Of the text below it is always the backslash that escapes, and a trigger knows nothing of the directive either.
    let image = check(
        &fixture,
        "# escape=`\n\
         FROM scratch AS parent\n\
         ONBUILD COPY <<E `\n\
         \x20 /f\n\
         \\$V `$V $V\n\
         E\n\
         FROM parent\n\
         ARG V=late\n\
         FROM scratch\n\
         ARG V=v\n\
         COPY <<E `\n\
         \x20 /f\n\
         \\$V `$V \\n\n\
         E\n",
        &["f"],
    );
    assert_eq!(text(&image, "f"), "$V `v n\n");
}

#[test]
fn privileged_excludes_parents_and_what_is_ignored() {
    let fixture = with_files(&[
        "src/a",
        "src/b.tmp",
        "src/keep.tmp",
        "src/sub/in",
        "src/sub/out",
        "docs/a/t.txt",
        "docs/a/x.md",
        "docs/y.md",
        "vendor/go.mod",
        "vendor/x/go.mod",
        "go.mod",
        "m/go.mod",
        "secret/ok",
        "secret/no",
    ]);
    fixture.write(".dockerignore", "vendor\n!vendor/go.mod\nsecret/*\n!**/ok\n.d*\nD*\n");
    check(
        &fixture,
        "FROM base\n\
         WORKDIR /w\n\
         COPY --exclude=*.tmp --exclude=!keep.tmp --exclude=sub/** --exclude=!sub/in src d\n\
         COPY --link --parents --exclude=**/*.md docs/./a/* docs/./*.md out/\n\
         COPY --parents **/go.mod /mods/\n\
         COPY --link --chown=3 --exclude=docs --exclude=src --exclude=vendor --exclude=**/go.mod . all/\n",
        &[
            "w/",
            "w/ w/d/ w/d/a w/d/keep.tmp w/d/sub/ w/d/sub/in",
            "w/ w/out/ w/out/a/ w/out/a/t.txt",
            "mods/ mods/go.mod mods/m/ mods/m/go.mod mods/vendor/ mods/vendor/go.mod",
            "3:3:w/ 3:3:w/all/ 3:3:w/all/m/ 3:3:w/all/secret/ 3:3:w/all/secret/ok",
        ],
    );
}

#[test]
fn privileged_named_contexts_with_stages_and_mounts() {
    let fixture = Fixture::with(
        "FROM busybox AS template\n\
         ONBUILD COPY --from=assets --parents /a/./b/*/c /d/\n\
         ONBUILD RUN --mount=from=ASSETS,source=a/b,target=m --mount=type=tmpfs,target=/t \\\n\
         # a comment\n\
         \x20   cat m/one/c lib > /o && touch /t/gone\n\
         FROM nowhere.invalid/never AS lib\n\
         RUN never\n\
         FROM scratch AS assets\n\
         COPY tree /a/b\n\
         FROM template AS built\n\
         RUN --mount=from=lib,target=/l <<EOF\n\
         #!/bin/sh\n\
         ls /l > /names\n\
         echo \"$0\" >> /names\n\
         EOF\n\
         FROM scratch\n\
         COPY --from=built /d /names /o /\n",
    );
    // What the main context has at `lib` is not what the context of this name has.
    fixture.write("lib", "of the main context\n");
    for name in ["tree/one/c", "tree/two/c", "tree/three/other"] {
        fixture.write(name, name);
    }
    for (name, content) in [(".dockerignore", "*.o\n"), ("a", ""), ("b.o", "")] {
        let folder = fixture.path("lib");
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join(name), content).expect("a file");
    }
    let lib = format!("lib={}", fixture.path("lib").display());
    let error = fixture.build(&["--build-context", &lib]).fails(1);
    assert!(
        error.contains("cat: can't open 'lib'"),
        "the main context is not in the step: {error}"
    );
    let text =
        std::fs::read_to_string(fixture.context().join("Dockerfile")).expect("the Dockerfile");
    fixture.write("Dockerfile", text.replace("m/one/c lib", "m/one/c"));
    let out = fixture.build_files(&["--build-context", &lib]);
    assert_eq!(crate::fixture::read(&out, "names"), "a\n/dev/pipes/EOF\n");
    assert_eq!(crate::fixture::read(&out, "o"), "tree/one/c");
    assert_eq!(crate::fixture::read(&out, "b/two/c"), "tree/two/c");
    assert!(!out.join("b/three").exists());
}
