//! Rules 14, 15, 25 to 28 in part: what makes a step run again.

use std::fs;

use super::world::{age, build, chmod, give_away, history, rebuild, run, symlink, text, with_base};
use crate::fixture::Fixture;

/// The instructions that ran, without the names of their stages.
fn ran(fixture: &Fixture, args: &[&str]) -> Vec<String> {
    let ran = run(fixture, "store", &[&["-o", "type=cacheonly"], args].concat()).ok();
    let steps = ran.steps_run().into_iter().filter(|step| !step.starts_with("[context "));
    steps.filter_map(|step| Some(step.split_once("] ")?.1.to_owned())).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn privileged_rule_14_arguments_and_the_cache() {
    let fixture = with_base(
        "FROM busybox\n\
         RUN echo before\n\
         ARG UNUSED=1\n\
         COPY one /a\n\
         WORKDIR /w\n\
         RUN echo after\n\
         ARG LATE\n\
         RUN echo last\n",
    );
    fixture.write("one", "1");
    assert_eq!(ran(&fixture, &[]).len(), 5);
    assert_eq!(ran(&fixture, &["--build-arg", "UNUSED=2"]), ["RUN echo after", "RUN echo last"]);
    assert_eq!(ran(&fixture, &["--build-arg", "LATE=x"]), ["RUN echo last"]);
    assert_eq!(ran(&fixture, &["--build-arg", "NOBODY=x"]), NONE);
    // Whether it is set at all counts, an empty value too.
    assert_eq!(ran(&fixture, &["--build-arg", "LATE="]), ["RUN echo last"]);
}

#[test]
fn privileged_rule_15_proxy_arguments() {
    let fixture = with_base("FROM busybox\nRUN echo $HTTP_PROXY $http_proxy $NO_PROXY > /seen\n");
    let proxy = ["--build-arg", "http_proxy=http://one", "--build-arg", "NO_PROXY=two"];
    let image = build(&fixture, &proxy);
    assert_eq!(text(&image, "seen"), "http://one http://one two\n");
    assert!(history(&image, 1)[0].starts_with("+ RUN /bin/sh -c echo"), "{:?}", history(&image, 1));
    assert_eq!(ran(&fixture, &["--build-arg", "http_proxy=http://other"]), NONE);
    assert_eq!(ran(&fixture, &[]), NONE);

    let declared = "FROM busybox\nARG http_proxy\nRUN echo $http_proxy > /seen\n";
    let image = rebuild(&fixture, declared, &proxy);
    assert_eq!(
        history(&image, 1)[1],
        "+ RUN |1 http_proxy=http://one /bin/sh -c echo $http_proxy > /seen # buildkit"
    );
    assert_eq!(ran(&fixture, &["--build-arg", "http_proxy=http://other"]).len(), 1);
}

#[test]
fn privileged_rule_27_what_of_a_context_counts() {
    let fixture = with_base("FROM base\nCOPY one /one\nCOPY dir/sub /sub\n");
    fixture.write("one", "1");
    fixture.write("dir/sub/file", "1");
    symlink(&fixture, "file", "dir/sub/link");
    assert_eq!(ran(&fixture, &[]).len(), 2);
    let context = fixture.context();
    let both = ["COPY one /one", "COPY dir/sub /sub"];

    // Neither times, nor owners, nor what is beside.
    for name in ["one", "dir/sub/file", "dir/sub", "dir"] {
        age(&context.join(name));
        give_away(&context.join(name));
    }
    fixture.write("dir/beside", "x");
    assert_eq!(ran(&fixture, &[]), NONE);

    chmod(&fixture, "one", 0o600);
    assert_eq!(ran(&fixture, &[]), both);
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(context.join("one"), "user.note", b"x", flags).is_ok() {
        assert_eq!(ran(&fixture, &[]), both);
    }
    fixture.write("dir/sub/file", "2");
    assert_eq!(ran(&fixture, &[]), both[1..]);
    fs::remove_file(context.join("dir/sub/link")).expect("the link");
    symlink(&fixture, "other", "dir/sub/link");
    assert_eq!(ran(&fixture, &[]), both[1..]);
    fs::rename(context.join("dir/sub/file"), context.join("dir/sub/renamed")).expect("a rename");
    assert_eq!(ran(&fixture, &[]), both[1..]);

    // A folder on the way may be called something else, as long as the last name is the same.
    fs::rename(context.join("dir"), context.join("moved")).expect("a rename");
    fixture.write("Dockerfile", "FROM base\nCOPY one /one\nCOPY moved/sub /sub\n");
    assert_eq!(ran(&fixture, &[]), NONE);
    // A file too, when the copy has a name of its own; not when it keeps that of the file.
    fs::create_dir(context.join("x")).expect("a folder");
    fs::rename(context.join("one"), context.join("x/one")).expect("a rename");
    fixture.write("Dockerfile", "FROM base\nCOPY x/one /one\nCOPY moved/sub /sub\n");
    assert_eq!(ran(&fixture, &[]), NONE);
    fs::rename(context.join("x/one"), context.join("x/two")).expect("a rename");
    fixture.write("Dockerfile", "FROM base\nCOPY x/two /one\nCOPY moved/sub /sub\n");
    assert_eq!(ran(&fixture, &[])[0], "COPY x/two /one");
}

#[test]
fn privileged_rule_28_equal_content_of_a_rebuilt_stage() {
    let dockerfile = |noise: &str| {
        format!(
            "FROM busybox AS made\n\
             RUN echo {noise} > /noise; echo result > /result; mkdir /d; echo 1 > /d/x\n\
             FROM busybox\n\
             COPY --from=made /result /result\n\
             COPY --from=made /d /d\n\
             RUN cat /result\n"
        )
    };
    let fixture = with_base(&dockerfile("one"));
    assert_eq!(ran(&fixture, &[]).len(), 4);
    fixture.write("Dockerfile", dockerfile("two"));
    let again = ran(&fixture, &[]);
    assert_eq!(again.len(), 1, "{again:?}");
    assert!(again[0].starts_with("RUN echo two"), "{again:?}");
    // Now the definition is known too.
    assert_eq!(ran(&fixture, &[]), NONE);
}
