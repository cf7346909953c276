//! Rules 1 to 11: COPY.

use std::collections::BTreeMap;
use std::fs;

use rbuild_testdata::validate::ValidImage;
use rbuild_testdata::{Entry, Image, Layer};

use super::world::{
    SOURCE_TIME, age, build, chmod, give_away, history, listing, new_layers, rebuild, refusal, run,
    symlink, with_base, with_image,
};

#[test]
fn privileged_rule_01_destination_slash() {
    let fixture = with_base(
        "FROM base\n\
         COPY one /new/\n\
         COPY one /renamed\n\
         COPY one /existing\n\
         COPY one /point/.\n\
         COPY one /up/x/..\n\
         COPY dir /contents\n\
         COPY dir/ one /both/\n\
         WORKDIR /work\n\
         COPY one .\n\
         COPY one relative\n\
         COPY one ./slash/\n\
         COPY one \"\"\n\
         COPY one /\n",
    );
    fixture.write("one", "1");
    fixture.write("dir/inner", "2");
    let image = build(&fixture, &[]);
    let found: Vec<String> =
        new_layers(&image).iter().map(|layer| layer.paths().join(" ")).collect();
    assert_eq!(
        found,
        [
            "new/ new/one",
            "renamed",
            "existing/ existing/one",
            "point/ point/one",
            // Two dots at the end are only a way to write the name.
            "up",
            "contents/ contents/inner",
            "both/ both/inner both/one",
            "work/",
            "work/ work/one",
            "work/ work/relative",
            "work/ work/slash/ work/slash/one",
            // The same file once more is no change.
            "",
            "one",
        ]
    );
}

#[test]
fn privileged_rule_02_type_conflicts() {
    let fixture = with_base("");
    fixture.write("dir/existing", "a file where the base has a folder");
    fixture.write("deep/file/inner", "a folder where the base has a file");
    fixture.write("one", "1");
    for (copy, expected) in [
        ("COPY dir /file", "cannot copy to non-directory: "),
        ("COPY dir /", "cannot replace to directory /existing with file"),
        ("COPY deep /", "cannot copy to non-directory: "),
        ("COPY one /file/x", "/file"),
        ("COPY --link dir /same\nCOPY one /same/existing/x", "/same/existing"),
    ] {
        let error = refusal(&fixture, &format!("FROM base\n{copy}\n"));
        assert!(error.contains(expected), "{copy}: {error}");
    }
    // A file where a folder is goes into it.
    let image = rebuild(&fixture, "FROM base\nCOPY one /existing/sub\n", &[]);
    assert_eq!(image.layers[1].paths(), ["existing/", "existing/sub/", "existing/sub/one"]);
}

#[test]
fn privileged_rule_03_several_sources_to_one_name() {
    let fixture = with_base("FROM base\nCOPY one two /place\n");
    fixture.write("one", "first");
    fixture.write("two", "last");
    let image = build(&fixture, &[]);
    assert_eq!(listing(&image.layers[1]), ["-0644 0:0 4 place"]);
    assert_eq!(image.layers[1].entries[0].content, b"last");
    assert_eq!(history(&image, 1), ["+ COPY one two /place # buildkit"]);
}

#[test]
fn privileged_rule_04_wildcards() {
    let fixture = with_base(
        "FROM base\n\
         COPY *.go [xy]?.txt /a/\n\
         COPY no*thing /b/\n\
         COPY sub*/*.go ./x/../top.go /c/\n\
         COPY dir[[]1]/f /d\n\
         COPY * /e/\n",
    );
    for name in ["top.go", "x1.txt", "y22.txt", "z1.txt", "sub/deep.go", "sub/deeper/not.go"] {
        fixture.write(name, name);
    }
    fixture.write("dir[1]/f", "brackets");
    let image = build(&fixture, &[]);
    let found: Vec<String> =
        new_layers(&image).iter().map(|layer| layer.paths().join(" ")).collect();
    assert_eq!(found[..4], ["a/ a/top.go a/x1.txt", "", "c/ c/deep.go c/top.go", "d"]);
    // A folder that a wildcard matches is copied as if it was named: its contents.
    assert!(found[4].contains("e/deep.go e/deeper/ e/deeper/not.go"), "{}", found[4]);

    let error = refusal(&fixture, "FROM base\nCOPY missing /\n");
    for part in ["failed to calculate checksum of ref ", ": \"/missing\": not found"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn privileged_rule_05_links() {
    let fixture = with_base(
        "FROM base\n\
         COPY named /file-of-link\n\
         COPY through/inner /file-below-link\n\
         COPY tree /tree\n\
         COPY one /link/\n\
         COPY one /link/sub/a\n\
         COPY one /absolute/\n\
         COPY one /outside/\n\
         COPY --link one /link/\n\
         COPY nam* thr* /matched/\n",
    );
    fixture.write("one", "1");
    fixture.write("dir/inner", "2");
    fixture.write("tree/file", "3");
    symlink(&fixture, "one", "named");
    symlink(&fixture, "/dir", "through");
    symlink(&fixture, "../one", "tree/link");
    symlink(&fixture, "nowhere", "tree/dangling");
    let image = build(&fixture, &[]);
    let found: Vec<String> =
        new_layers(&image).iter().map(|layer| layer.paths().join(" ")).collect();
    assert_eq!(
        found,
        [
            "file-of-link",
            "file-below-link",
            "tree/ tree/dangling tree/file tree/link",
            "existing/ existing/one",
            "existing/ existing/sub/ existing/sub/a",
            "existing/ existing/sub/ existing/sub/one",
            // The same file once more is no change.
            "",
            // A link of the base is replaced by what the linked layer has.
            "link/ link/one",
            "matched/ matched/inner matched/named",
        ]
    );
    assert_eq!(image.layers[1].entries[0].kind, '-');
    assert_eq!(image.layers[9].entry("matched/named").map(|entry| entry.kind), Some('-'));
    assert_eq!(image.layers[3].entry("tree/link").map(|entry| &*entry.link), Some("../one"));
}

#[test]
fn privileged_rule_06_attributes_of_folders() {
    let fixture = with_base(
        "FROM base\n\
         COPY dir /existing\n\
         COPY dir /fresh\n\
         COPY --chown=5:6 --chmod=700 one /p/q/\n",
    );
    fixture.write("dir/sub/file", "1");
    fixture.write("one", "1");
    chmod(&fixture, "dir", 0o750);
    chmod(&fixture, "dir/sub", 0o705);
    for name in ["one", "dir/sub/file", "dir/sub", "dir"] {
        age(&fixture.context().join(name));
    }
    let image = build(&fixture, &[]);
    let [existing, fresh, parents] = new_layers(&image) else { panic!("{:?}", image.layers) };
    assert_eq!(
        listing(existing),
        ["d0700 7:8 0 existing/", "d0705 0:0 0 existing/sub/", "-0644 0:0 1 existing/sub/file"]
    );
    assert_eq!(
        listing(fresh),
        ["d0755 0:0 0 fresh/", "d0705 0:0 0 fresh/sub/", "-0644 0:0 1 fresh/sub/file"]
    );
    for entry in existing.entries.iter().chain(&fresh.entries) {
        assert_eq!(entry.mtime, SOURCE_TIME, "{entry}");
        assert!(entry.records.is_empty(), "{entry}: {:?}", entry.records);
    }
    assert_eq!(listing(parents), ["d0700 5:6 0 p/", "d0700 5:6 0 p/q/", "-0700 5:6 1 p/q/one"]);
}

#[test]
fn privileged_rule_07_chown() {
    let fixture = with_base(
        "FROM base AS other\n\
         COPY --chown=3:4 dir /dir\n\
         FROM base\n\
         COPY one /none\n\
         COPY --chown=12 one /number\n\
         COPY --chown=12:13 one /numbers\n\
         COPY --chown=app one /name\n\
         COPY --chown=app:staff one /names\n\
         COPY --chown=app:0 one /mixed\n\
         COPY --chown=:staff one /group\n\
         COPY --chown=nobody:nothing one /unknown\n\
         ARG WHO=app\n\
         COPY --chown=$WHO:staff one /variable\n\
         COPY --from=other /dir/inner /kept\n\
         COPY --from=other --chown=root /dir /changed\n",
    );
    fixture.write("one", "1");
    fixture.write("dir/inner", "1");
    chmod(&fixture, "one", 0o640);
    give_away(&fixture.context().join("one"));
    let image = build(&fixture, &[]);
    let files: Vec<String> =
        new_layers(&image).iter().map(|layer| listing(layer).join(", ")).collect();
    assert_eq!(
        files,
        [
            "-0640 0:0 1 none",
            "-0640 12:12 1 number",
            "-0640 12:13 1 numbers",
            "-0640 1000:1001 1 name",
            "-0640 1000:2000 1 names",
            "-0640 1000:0 1 mixed",
            "-0640 0:2000 1 group",
            "-0640 0:0 1 unknown",
            "-0640 1000:2000 1 variable",
            "-0644 3:4 1 kept",
            "d0755 0:0 0 changed/, -0644 0:0 1 changed/inner",
        ]
    );
    // Without a passwd file names are 0 too, but with no files at all there is nowhere to look.
    let named = "COPY --chown=app:staff one /two\n";
    let image = rebuild(&fixture, &format!("FROM scratch\nCOPY one /\n{named}"), &[]);
    assert_eq!(listing(&image.layers[1]), ["-0640 0:0 1 two"]);
    let error = refusal(&fixture, &format!("FROM scratch\n{named}"));
    assert!(error.contains("invalid user index: -1"), "{error}");
}

#[test]
fn privileged_rule_07_the_last_id_is_no_owner() {
    let fixture = with_image(
        "FROM base\n\
         COPY --chown=4294967295 one /\n\
         COPY --chown=last one /two\n\
         USER last\n\
         WORKDIR /made\n",
        &Image::new("linux/amd64").layer(Layer::new(&[
            Entry::directory("etc"),
            Entry::file("etc/passwd", "last:x:4294967295:4294967295::/:/bin/sh\n"),
        ])),
    );
    fixture.write("one", "1");
    let image = build(&fixture, &[]);
    let files: Vec<String> =
        new_layers(&image).iter().map(|layer| listing(layer).join(", ")).collect();
    assert_eq!(files, ["-0644 0:0 1 one", "-0644 0:0 1 two", "d0755 0:0 0 made/"]);
}

#[test]
fn privileged_rule_08_chmod() {
    let fixture = with_base(
        "FROM base\n\
         COPY --chmod=751 dir /octal\n\
         COPY --chmod=u=rwX,go=rX dir /symbolic\n\
         COPY --chmod=4755 dir/run /special\n\
         COPY --chmod=a+x,o-r dir/plain /plus\n\
         COPY --chmod=600 dir/plain /deep/er/\n\
         ARG MODE=0444\n\
         COPY --chmod=$MODE dir/plain /variable\n\
         COPY --link --chmod=700 dir/plain /existing/linked\n",
    );
    fixture.write("dir/plain", "1");
    fixture.write("dir/run", "1");
    fixture.write("dir/sub/file", "1");
    for (name, mode) in
        [("dir/run", 0o700), ("dir/plain", 0o664), ("dir/sub", 0o700), ("dir/sub/file", 0o600)]
    {
        chmod(&fixture, name, mode);
    }
    let image = build(&fixture, &[]);
    let files: Vec<String> =
        new_layers(&image).iter().map(|layer| listing(layer).join(", ")).collect();
    assert_eq!(
        files,
        [
            "d0755 0:0 0 octal/, -0751 0:0 1 octal/plain, -0751 0:0 1 octal/run, d0751 0:0 0 octal/sub/, -0751 0:0 1 octal/sub/file",
            "d0755 0:0 0 symbolic/, -0644 0:0 1 symbolic/plain, -0755 0:0 1 symbolic/run, d0755 0:0 0 symbolic/sub/, -0644 0:0 1 symbolic/sub/file",
            "-4755 0:0 1 special",
            "-0771 0:0 1 plus",
            "d0600 0:0 0 deep/, d0600 0:0 0 deep/er/, -0600 0:0 1 deep/er/plain",
            "-0444 0:0 1 variable",
            // With a mode the copy is made on its base: the folder there keeps its owner.
            "d0700 7:8 0 existing/, -0700 0:0 1 existing/linked",
        ]
    );
    assert!(
        history(&image, 1)
            .contains(&"+ COPY --chmod=u=rwX,go=rX dir /symbolic # buildkit".to_owned())
    );
    for mode in ["0999", "77777", "8"] {
        let error = refusal(&fixture, &format!("FROM base\nCOPY --chmod={mode} dir /d\n"));
        let expected = format!(
            "invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777"
        );
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn privileged_rule_09_hard_links_and_times() {
    let fixture =
        with_base("FROM base AS source\nCOPY dir /dir\nFROM base\nCOPY --from=source dir /again\n");
    fixture.write("dir/a", "same");
    fixture.write("dir/sub/other", "1");
    let context = fixture.context();
    for name in ["dir/b", "dir/sub/c"] {
        fs::hard_link(context.join("dir/a"), context.join(name)).expect("a hard link");
    }
    for name in ["dir/a", "dir/sub/other", "dir/sub", "dir"] {
        age(&context.join(name));
    }
    let image = build(&fixture, &[]);
    assert_eq!(
        listing(&image.layers[1]),
        [
            "d0755 0:0 0 again/",
            "-0644 0:0 4 again/a",
            "h0644 0:0 0 again/b -> again/a",
            "d0755 0:0 0 again/sub/",
            "h0644 0:0 0 again/sub/c -> again/a",
            "-0644 0:0 1 again/sub/other",
        ]
    );
    for entry in &image.layers[1].entries {
        assert_eq!(entry.mtime, SOURCE_TIME, "{entry}");
    }
}

#[test]
fn privileged_rule_10_extended_attributes() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let marked = Entry::file("marked", "1")
        .mode(0o755)
        .xattr("security.capability", &capability)
        .xattr("user.note", b"x")
        .xattr("trusted.note", b"x");
    let image = Image::new("linux/amd64").layer(Layer::new(&[marked]));
    let fixture = with_image(
        "FROM base\nCOPY --from=base /marked /copied\nCOPY --from=base --chown=5 /marked /owned\n",
        &image,
    );
    let image = build(&fixture, &[]);
    // BuildKit's layers have no `user.*`; ours do, as the documentation says.
    let expected = BTreeMap::from([
        ("security.capability".to_owned(), capability.to_vec()),
        ("user.note".to_owned(), b"x".to_vec()),
    ]);
    for layer in new_layers(&image) {
        assert_eq!(layer.entries[0].xattrs, expected);
    }
    assert_eq!(listing(&image.layers[2]), ["-0755 5:5 1 owned"]);
}

#[test]
fn privileged_rule_11_link() {
    let dockerfile = |base: &str| {
        format!(
            "FROM {base}\nCOPY --link one /existing/\nCOPY --link --chown=5:6 dir /existing/sub/\n"
        )
    };
    let fixture = with_base(&dockerfile("base"));
    fixture.write("one", "1");
    fixture.write("dir/inner", "2");
    let image = build(&fixture, &[]);
    assert_eq!(listing(&image.layers[1]), ["d0755 0:0 0 existing/", "-0644 0:0 1 existing/one"]);
    let sub = listing(&image.layers[2]);
    assert_eq!(
        sub,
        ["d0755 5:6 0 existing/", "d0755 5:6 0 existing/sub/", "-0644 5:6 1 existing/sub/inner"]
    );
    assert_eq!(
        history(&image, 1),
        ["+ COPY one /existing/ # buildkit", "+ COPY --chown=5:6 dir /existing/sub/ # buildkit"]
    );

    // Another base, the same layers, and no file is copied again.
    fixture.write("Dockerfile", dockerfile("scratch"));
    let ran = run(&fixture, "store", &["-o", "type=cacheonly"]).ok();
    let copied = ran.steps_run().into_iter().filter(|step| !step.contains("LINK"));
    assert_eq!(copied.count(), 0, "{}", ran.stderr);
    let other = build(&fixture, &[]);
    let digests = |image: &ValidImage| -> Vec<String> {
        image.layers.iter().rev().take(2).map(|layer| layer.diff_id.clone()).collect()
    };
    assert_eq!(digests(&image), digests(&other));

    // What is below stays visible, as the merge has it.
    fixture.write("Dockerfile", dockerfile("base") + "FROM scratch\nCOPY --from=0 /existing /\n");
    let merged = build(&fixture, &[]);
    assert_eq!(merged.layers[0].paths(), ["kept", "one", "sub/", "sub/inner"],);

    // What is in the way goes, whatever it is.
    let replaced = "FROM base AS linked\nCOPY --link one /existing\nCOPY --link dir /file\nFROM scratch\nCOPY --from=linked / /\n";
    let image = rebuild(&fixture, replaced, &[]);
    let kind = |name: &str| image.layers[0].entry(name).map(|entry| entry.kind);
    assert_eq!(
        (kind("existing"), kind("file/"), kind("file/inner")),
        (Some('-'), Some('d'), Some('-'))
    );

    let error = refusal(&fixture, "FROM base\nCOPY --link --chown=app one /\n");
    assert!(error.contains("invalid user index"), "{error}");
}
