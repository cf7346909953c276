//! COPY and ADD.

use rbuild_frontend::BuildOptions;

use super::build::{
    Images, build, build_with, check, check_errors, check_with, history, options, with_args,
};

#[test]
fn one_context_for_all_and_only_what_is_used() {
    check(
        "FROM scratch AS a\nCOPY src/*.c ./x/ y/\nFROM scratch\nADD /z.tar /\nCOPY --from=a /y /y\n",
        r#"
        0 [internal] load build context
            local://context local.followpaths=["src/*.c","x","z.tar"]
        1 [a 1/1] COPY src/*.c ./x/ y/
            on - copy 0:/src/*.c -> /y/
            on ^ copy 0:/x -> /y/
        2 [stage-1 1/2] ADD /z.tar /
            on - copy 0:/z.tar -> / unpack
        3 [stage-1 2/2] COPY --from=a /y /y
            on 2 copy 1:/y -> /y
        = 3
        "#,
    );
    let build = build("FROM scratch\nCOPY a .\nCOPY . .\n");
    assert_eq!(build.locals.len(), 1);
    assert_eq!((build.locals[0].name.as_str(), &build.locals[0].follow_paths), ("context", &None));
}

#[test]
fn ignored_files_are_told_to_the_context() {
    let given = BuildOptions { context_ignore: vec!["*.o".into(), "!a.o".into()], ..options() };
    check_with(
        "FROM scratch\nCOPY . /\n",
        &given,
        r#"
        0 [internal] load build context
            local://context local.excludepatterns=["*.o","!a.o"]
        1 [1/1] COPY . /
            on - copy 0:/ -> /
        = 1
        "#,
    );
}

#[test]
fn rule_3_several_sources_to_one_name() {
    check(
        "FROM scratch\nWORKDIR /w\nCOPY a b c\n",
        r#"
        0 [1/2] WORKDIR /w
            on - mkdir /w 755
        1 [internal] load build context
            local://context local.followpaths=["a","b"]
        2 [2/2] COPY a b c
            on 0 copy 1:/a -> /w/c
            on ^ copy 1:/b -> /w/c
        = 2
        "#,
    );
}

#[test]
fn rule_7_owners() {
    check(
        "FROM base\nARG u=app\nCOPY --chown=5 a /\nCOPY --chown=$u:0 a /\nCOPY --chown=root:staff --chmod=0750 a /\nADD --chown=:7 --chmod=u+rX a /\n",
        r#"
        0 [1/5] FROM docker.io/library/base:latest@pinned
            docker-image://docker.io/library/base:latest@pinned
        1 [internal] load build context
            local://context local.followpaths=["a"]
        2 [2/5] COPY --chown=5 a /
            on 0 copy 1:/a -> / owner 5:
        3 [3/5] COPY --chown=app:0 a /
            on 2 copy 1:/a -> / owner app@2:0
        4 [4/5] COPY --chown=root:staff --chmod=0750 a /
            on 3 copy 1:/a -> / owner 0:staff@3 mode 750
        5 [5/5] ADD --chown=:7 --chmod=u+rX a /
            on 4 copy 1:/a -> / owner :7 mode u+rX unpack
        = 5
        "#,
    );
}

#[test]
fn rule_8_chmod_takes_the_link_away() {
    check(
        "FROM scratch\nRUN [\"x\"]\nCOPY --link --chmod=644 a /\n",
        r#"
        0 [1/2] RUN ["x"]
            on - in / run ["x"]
        1 [internal] load build context
            local://context local.followpaths=["a"]
        2 [2/2] COPY --link --chmod=644 a /
            on 0 copy 1:/a -> / mode 644
        = 2
        "#,
    );
    check_errors(
        "FROM scratch\nCOPY --chmod=99 a /\nCOPY --chmod=rwx a /\n",
        &[
            "line 2: invalid chmod parameter: '99'. it should be octal string and between 0 and 07777 <99>",
            "line 3: invalid chmod parameter: 'rwx'. it is neither octal nor symbolic <rwx>",
        ],
    );
}

#[test]
fn rule_11_links_stand_on_nothing() {
    check(
        "FROM base\nCOPY --link --chown=1:2 a /\nADD --link=false b /\n",
        r#"
        0 [1/3] FROM docker.io/library/base:latest@pinned
            docker-image://docker.io/library/base:latest@pinned
        1 [internal] load build context
            local://context local.followpaths=["a","b"]
        2 [2/3] COPY --link --chown=1:2 a /
            on - copy 1:/a -> / owner 1:2
        3 [2/3] LINK COPY --link --chown=1:2 a /
            merge 0 2
        4 [3/3] ADD --link=false b /
            on 3 copy 1:/b -> / unpack
        = 4
        "#,
    );
    check(
        "FROM scratch\nCOPY --link a /\n",
        r#"
        0 [internal] load build context
            local://context local.followpaths=["a"]
        1 [1/1] COPY --link a /
            on - copy 0:/a -> /
        = 1
        "#,
    );
    check_errors(
        "FROM base\nCOPY --link --chown=app a /\n",
        &["line 2: invalid user index: a name in --chown cannot be used with --link <app>"],
    );
}

#[test]
fn parents_and_excludes() {
    check(
        "FROM scratch\nCOPY --parents a/b c/./d/*.x /out/\nCOPY --exclude=*.md --exclude=$x docs /docs\nADD --unpack=false t.tar /\n",
        r#"
        0 [internal] load build context
            local://context local.followpaths=["a/b","c/d/*.x","docs","t.tar"]
        1 [1/3] COPY --parents a/b c/./d/*.x /out/
            on - copy 0:/ -> /out/ include a/b require /a/b
            on ^ copy 0:/c -> /out/ include d/*.x
        2 [2/3] COPY --exclude=*.md --exclude= docs /docs
            on 1 copy 0:/docs -> /docs exclude *.md,$x
        3 [3/3] ADD --unpack=false t.tar /
            on 2 copy 0:/t.tar -> /
        = 3
        "#,
    );
}

#[test]
fn rule_20_heredocs_of_copy() {
    check(
        "FROM scratch\nARG A=1\nCOPY <<one <<-'two' f /d/\nA=$A 'x' \\$A\none\n\t$A\n\ttwo\n",
        r#"
        0 [internal] load build context
            local://context local.followpaths=["f"]
        1 [internal] preparing inline document
            on - write /one 644 "A=1 'x' $A\n"
        2 [internal] preparing inline document
            on - write /two 644 "$A\n"
        3 [1/1] COPY <<one <<-two f /d/
            on - copy 0:/f -> /d/
            on ^ copy 1:/one -> /d/ plain
            on ^ copy 2:/two -> /d/ plain
        = 3
        "#,
    );
    let built = build("FROM scratch\nCOPY <<one <<two f /d/\none\ntwo\n");
    assert_eq!(history(&built), ["COPY f <<one <<two /d/ # buildkit"]);
}

#[test]
fn rule_31_histories_of_copies() {
    let build = build(
        "FROM base AS a\nFROM base\nARG V=v1\nCOPY --link --chown=1 --chmod=644 x \"$V\" /d/\nCOPY --from=a --parents --exclude=z /a /b /\nADD [\"a\", \"b c\", \"/\"]\n",
    );
    assert_eq!(
        history(&build),
        [
            "(ARG V=v1)",
            "COPY --chown=1 --chmod=644 x v1 /d/ # buildkit",
            "COPY --parents /a /b / # buildkit",
            "ADD a b c / # buildkit",
        ]
    );
}

#[test]
fn times_are_those_of_the_epoch() {
    let given = with_args(&[("SOURCE_DATE_EPOCH", "60")]);
    check_with(
        "FROM scratch\nWORKDIR /w\nCOPY <<f a /\nx\nf\n",
        &given,
        r#"
        0 [1/2] WORKDIR /w
            on - mkdir /w 755 time 60000000000
        1 [internal] load build context
            local://context local.followpaths=["a"]
        2 [internal] preparing inline document
            on - write /f 644 "x\n"
        3 [2/2] COPY <<f a /
            on 0 copy 1:/a -> / time 60000000000
            on ^ copy 2:/f -> / plain time 60000000000
        = 3
        "#,
    );
    let build = build_with("FROM base\nENV a=b\n", &given, &Images::new());
    let times: Vec<_> = build.config.history.iter().map(|entry| entry.created.as_deref()).collect();
    assert_eq!(times, [None, Some("1970-01-01T00:01:00Z")]);
    assert_eq!(build.source_date_epoch, Some(60));
    let from_file =
        build_with("ARG SOURCE_DATE_EPOCH=5\nFROM scratch\n", &options(), &Images::new());
    assert_eq!(from_file.source_date_epoch, Some(5));
}
