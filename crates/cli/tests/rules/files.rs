//! Section 4.4 of the behaviour reference: what stands in a layer; and destinations and sources of all kinds.

use rbuild_testdata::{Entry, Image, Layer};
use serde_json::json;

use super::world::{
    base, build, config, history, listing, new_layers, rebuild, refusal, run, text, with_base,
    with_image,
};
use crate::fixture::skipped;

#[test]
fn privileged_odd_paths_of_sources_and_destinations() {
    let fixture = with_base(
        "FROM base\n\
         COPY ../../one /up\n\
         COPY one/ /slash\n\
         COPY ./dir/../one /a//b/./c\n\
         COPY [\"sp ace\", \"/with space/\"]\n\
         COPY ./ ./\n\
         WORKDIR /link/made\n\
         COPY one .\n\
         ENV SRC=one DST=/var\n\
         COPY ${SRC} $DST/${SRC}/\n\
         COPY l?nk\\[1\\] /brackets\n",
    );
    fixture.write("one", "1");
    fixture.write("dir/x", "x");
    fixture.write("sp ace", "s");
    fixture.write("link[1]", "l");
    fixture.write(".dockerignore", "**\n!one\n!dir\n!sp ace\n!link*\n");
    let image = build(&fixture, &[]);
    let found: Vec<String> =
        new_layers(&image).iter().map(|layer| layer.paths().join(" ")).collect();
    assert_eq!(
        found,
        [
            "up",
            "slash",
            "a/ a/b/ a/b/c",
            "with space/ with space/sp ace",
            "dir/ dir/x link[1] one sp ace",
            "existing/ existing/made/",
            "existing/ existing/made/ existing/made/one",
            "var/ var/one/ var/one/one",
            // Expansion takes the backslashes, so that it is a class, which matches nothing.
            "",
        ]
    );
    assert_eq!(config(&image, "WorkingDir"), "/link/made");
    assert_eq!(history(&image, 1)[3], "+ COPY sp ace /with space/ # buildkit");
    // Only the JSON form can name a file with a blank in it.
    for (source, words) in [
        ("\"sp ace\"", "unexpected end of statement while looking for matching double-quote"),
        ("sp\\ ace", "not found"),
    ] {
        let error = refusal(&fixture, &format!("FROM base\nCOPY {source} /x\n"));
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn privileged_links_at_the_destination() {
    let image = base();
    let more = Layer::new(&[
        Entry::symlink("to-file", "file"),
        Entry::symlink("dangling", "not/there"),
        Entry::symlink("loop", "loop"),
    ]);
    let fixture = with_image(
        "FROM base\nCOPY one /to-file\nCOPY one /dangling\nCOPY files /\n",
        &image.layer(more),
    );
    fixture.write("one", "1");
    fixture.write("files/to-file", "replaces the link");
    let image = build(&fixture, &[]);
    let found: Vec<String> =
        image.layers[2..].iter().map(|layer| listing(layer).join(", ")).collect();
    assert_eq!(
        found,
        ["-0644 0:0 1 file", "d0755 0:0 0 not/, -0644 0:0 1 not/there", "-0644 0:0 17 to-file"]
    );
    // A folder where a link is, even one to a folder: the classic of COPY rootfs /.
    fixture.write("folders/link/x", "x");
    let error = refusal(&fixture, "FROM base\nCOPY folders /\n");
    assert!(error.contains("cannot copy to non-directory: "), "{error}");
    let error = refusal(&fixture, "FROM base\nCOPY one /loop/x\n");
    assert!(error.contains("too many"), "{error}");
    let error = refusal(&fixture, "FROM base\nWORKDIR /file/x\n");
    assert!(error.contains("/file"), "{error}");
}

#[test]
fn privileged_special_files_and_long_names() {
    let long = "n".repeat(200);
    let fixture = with_base(&format!(
        "FROM busybox\n\
         RUN mkdir /s && cd /s && mkfifo pipe && ln -s {long}/{long} long-link && touch {long} ü \\\n\
         \x20 && touch -d @-5 early && touch big && chown 3000:4000 big && chmod 6755 big && ln big second\n\
         RUN chown -R 0:0 /bin && chmod 755 /usr/bin && touch /s/empty-change && rm /s/empty-change\n\
         RUN chmod 600 /s/ü\n\
         RUN chmod 700 /s\n\
         RUN mv /s /t\n",
    ));
    let image = build(&fixture, &[]);
    let first = &image.layers[1];
    assert_eq!(
        listing(first),
        [
            "d0755 0:0 0 s/".to_owned(),
            "-6755 3000:4000 0 s/big".to_owned(),
            "-0644 0:0 0 s/early".to_owned(),
            format!("l0777 0:0 0 s/long-link -> {long}/{long}"),
            format!("-0644 0:0 0 s/{long}"),
            "p0644 0:0 0 s/pipe".to_owned(),
            "h6755 3000:4000 0 s/second -> s/big".to_owned(),
            "-0644 0:0 0 s/ü".to_owned(),
        ]
    );
    let early = first.entry("s/early").expect("the file");
    assert_eq!(early.records.get("mtime").map(String::as_str), Some("-5"));
    assert_eq!(listing(&image.layers[2]), [""; 0]);
    assert_eq!(listing(&image.layers[3]), ["d0755 0:0 0 s/", "-0600 0:0 0 s/ü"]);
    assert_eq!(listing(&image.layers[4]), ["d0700 0:0 0 s/"]);
    let moved = image.layers[5].paths();
    assert_eq!((moved[0], moved[1], moved.len()), (".wh.s", "t/", 9));
}

#[test]
fn privileged_device_nodes_and_large_numbers() {
    if !rustix::process::geteuid().is_root() {
        skipped("privileged_device_nodes_and_large_numbers", "only root makes devices");
        return;
    }
    let fixture = with_base(
        "FROM busybox\nRUN mknod /null c 1 3 && touch /big && chown 3000000:4000000 /big\n",
    );
    let image = build(&fixture, &[]);
    assert_eq!(listing(&image.layers[1]), ["-0644 3000000:4000000 0 big", "c0644 0:0 0 null"]);
    assert_eq!(image.layers[1].entry("null").and_then(|entry| entry.device), Some((1, 3)));
}

#[test]
fn privileged_a_base_without_etc_or_with_all_of_it() {
    let image = rbuild_testdata::busybox_image();
    let own = Layer::new(&[
        Entry::whiteout("proc"),
        Entry::whiteout("sys"),
        Entry::whiteout("dev"),
        Entry::whiteout("etc"),
    ]);
    let fixture = with_image("FROM base\nRUN true\nRUN ls / > /seen\n", &image.clone().layer(own));
    let built = build(&fixture, &[]);
    assert_eq!(listing(&built.layers[2]), [""; 0]);
    assert_eq!(built.layers[3].paths(), ["seen"]);

    let own = Layer::new(&[
        Entry::file("etc/hosts", "mine"),
        Entry::symlink("etc/resolv.conf", "../run/resolv.conf"),
        Entry::directory("dev").mode(0o700),
        Entry::file("dev/null", "a file"),
    ]);
    let fixture = with_image("FROM base\nRUN true\nRUN cp /etc/hosts /seen\n", &image.layer(own));
    let built = build(&fixture, &[]);
    assert_eq!(listing(&built.layers[2]), [""; 0]);
    assert_eq!(built.layers[3].paths(), ["seen"]);
    assert_ne!(text(&built, "seen"), "mine");
}

#[test]
fn histories_that_do_not_match_are_made_to() {
    let layer = |name: &str| Layer::new(&[Entry::file(name, name)]);
    let image = Image::new("linux/amd64").layer(layer("a")).layer(layer("b"));
    let bare = image.clone().configured(|config| config["history"] = json!([]));
    let fixture = with_image("FROM base\nLABEL a=b\n", &bare);
    let built = build(&fixture, &[]);
    let entries = built.config["history"].as_array().expect("a history");
    let comments: Vec<_> = entries.iter().map(|entry| entry["comment"].as_str()).collect();
    let added = Some("buildkit.exporter.image.v0");
    assert_eq!(comments, [Some("buildkit.dockerfile.v0"), added, added]);

    let surplus = image.configured(|config| {
        config["history"] = json!([{"created_by": "1"}, {"created_by": "2"}, {"created_by": "3"}]);
    });
    let fixture = with_image("FROM base\nLABEL a=b\n", &surplus);
    let built = build(&fixture, &[]);
    assert_eq!(built.config["history"][2]["empty_layer"], true);
    assert_eq!(built.config["history"].as_array().map(Vec::len), Some(4));
}

#[test]
fn privileged_linked_copies_are_what_later_steps_see() {
    let fixture = with_base(
        "FROM busybox\n\
         RUN mkdir /d && echo below > /d/f && echo kept > /d/kept\n\
         COPY --link files /d/\n\
         RUN cat /d/f /d/kept > /seen && rm /d/f\n\
         COPY --link --from=busybox /etc/passwd /d/f\n\
         RUN wc -l < /d/f >> /seen\n\
         ADD --link one /added/\n\
         COPY --link <<EOF /doc\n\
         text\n\
         EOF\n\
         RUN cat /added/one /doc >> /seen\n",
    );
    fixture.write("files/f", "linked\n");
    fixture.write("one", "1\n");
    let image = build(&fixture, &[]);
    assert_eq!(text(&image, "seen"), "linked\nkept\n2\n1\ntext\n");
    let found: Vec<String> =
        new_layers(&image).iter().map(|layer| layer.paths().join(" ")).collect();
    assert_eq!(
        found,
        [
            "d/ d/f d/kept",
            "d/ d/f",
            "d/ d/.wh.f seen",
            "d/ d/f",
            "seen",
            "added/ added/one",
            "doc",
            "seen",
        ]
    );
    assert_eq!(history(&image, 1)[6], "+ COPY <<EOF /doc # buildkit");
}

#[test]
fn names_of_dockerfiles_and_of_stages_that_repeat() {
    let fixture = with_base("FROM base AS a\nLABEL v=1\nFROM base AS A\nLABEL v=2\nFROM a\n");
    let image = build(&fixture, &[]);
    assert_eq!(config(&image, "Labels"), &json!({"v": "2"}));
    let warnings = run(&fixture, "store", &["-o", "type=cacheonly"]).ok().stderr;
    assert!(
        warnings.contains("Duplicate stage name \"a\", stage names should be unique"),
        "{warnings}"
    );

    std::fs::remove_file(fixture.context().join("Dockerfile")).expect("the file");
    fixture.write("dockerfile", "\u{feff}FROM base\r\nLABEL v=lower\r\n");
    assert_eq!(config(&build(&fixture, &[]), "Labels"), &json!({"v": "lower"}));
    let long = format!("FROM base\nLABEL a={}\n", "x".repeat(70_000));
    let error = refusal(&fixture, &long);
    assert!(
        error.contains("dockerfile line greater than max allowed size of 65535"),
        "{}",
        &error[error.len() - 300..]
    );
    let image =
        rebuild(&fixture, "ARG SOURCE_DATE_EPOCH=1000000000\nFROM base\nCOPY Dockerfile /\n", &[]);
    assert_eq!(image.config["created"], "2001-09-09T01:46:40Z");
    assert_eq!(image.layers[1].entries[0].mtime, 1_000_000_000);
    let image = rebuild(&fixture, "FROM scratch\nLABEL a=b\n", &[]);
    assert_eq!(image.config.get("created"), None);
}
