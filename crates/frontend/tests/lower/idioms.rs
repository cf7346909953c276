//! Dockerfiles as people write them: odd spacing, quotes, line ends, and what they inherit.

use super::build::{Images, build_with, history, options, with_args};

/// Compares the history that a text makes; `(...)` is an entry without a layer.
#[track_caller]
fn check(text: &str, expected: &[&str]) {
    let images = Images::new().with("parent", r#"{"config":{"Env":["PATH=/p","LANG=C"],"Entrypoint":["/up"],"Cmd":["down"],
        "WorkingDir":"/srv","User":"app","Shell":["/bin/ash","-ec"],"ExposedPorts":{"1/tcp":{}},"Volumes":{"/v":{}},
        "Labels":{"k":"parent"},"StopSignal":"SIGQUIT","Healthcheck":{"Test":["CMD","up"]}}}"#);
    let args = with_args(&[("GIVEN", "from cli"), ("EMPTY", ""), ("http_proxy", "p:1")]);
    let found = history(&build_with(text, &args, &images));
    assert_eq!(found, expected, "{text}");
}

#[test]
fn pairs_quotes_and_continuations() {
    for (instruction, expected) in [
        // Self reference, old values, and a name that is only known later.
        ("ENV A=1\nENV A=${A}2 B=$A C=$B", &["(ENV A=1)", "(ENV A=12 B=1 C=)"][..]),
        ("ENV PATH=\"$HOME/bin:${PATH}\"", &["(ENV PATH=/bin:/bin)"]),
        (
            "ENV A='$PATH' B=\"'$BASE'\" C=\\$BASE D=\\\\ E=$$x",
            &["(ENV A=$PATH B='1' C=$BASE D=\\ E=x)"],
        ),
        (
            "ENV JSON='{\"a\": [1, \"b\"]}' T=\"{\\\"a\\\":1}\"",
            &["(ENV JSON={\"a\": [1, \"b\"]} T={\"a\":1})"],
        ),
        ("ENV URL=https://h/?a=b&c=${BASE}#x", &["(ENV URL=https://h/?a=b&c=1#x)"]),
        ("ENV A=a\\ b\\\tc", &["(ENV A=a b\tc)"]),
        ("ENV A  two  words # kept", &["(ENV A=two  words # kept)"]),
        ("ENV A=1 \\\n  # a comment\n\n  B=2 \\\n\n  C=3", &["(ENV A=1 B=2 C=3)"]),
        ("LABEL a=\"one \\\n  two\" b='x\\\n y'", &["(LABEL a=one   two b=x y)"]),
        ("LABEL \"a b\"=c d=\"\" e=", &["(LABEL a b=c d= e=)"]),
        (
            "LABEL description=\"it's \\\"here\\\"\" v=${BASE:+v$BASE}",
            &["(LABEL description=it's \"here\" v=v1)"],
        ),
        ("LABEL multi one two", &["(LABEL multi=one two)"]),
        // Words in words.
        (
            "ARG T=app:1.2.3-alpine\nENV V=${T#*:} W=${T%%:*} X=${T##*-} Y=${T/:/_}",
            &["(ARG T=app:1.2.3-alpine)", "(ENV V=1.2.3-alpine W=app X=alpine Y=app_1.2.3-alpine)"],
        ),
        ("ENV X=${NO:-${BASE:+${GIVEN-none}}}", &["(ENV X=none)"]),
        ("ENV X=${EMPTY:-d} Y=${EMPTY-d}", &["(ENV X=d Y=d)"]),
        ("ARG EMPTY\nENV X=${EMPTY:-d} Y=${EMPTY-d}.", &["(ARG EMPTY=)", "(ENV X=d Y=.)"]),
        // Arguments: in one line one after the other, shadowed, without a value.
        (
            "ARG A=1 B=$A C\nENV A=e\nARG A\nLABEL a=$A",
            &["(ARG A=1 B=1 C)", "(ENV A=e)", "(ARG A)", "(LABEL a=e)"],
        ),
        (
            "ENV GIVEN=env\nARG GIVEN=arg\nENV X=$GIVEN",
            &["(ENV GIVEN=env)", "(ARG GIVEN=from cli)", "(ENV X=from cli)"],
        ),
        (
            "ARG HTTP_PROXY=x http_proxy\nLABEL p=$http_proxy",
            &["(ARG HTTP_PROXY=x http_proxy=p:1)", "(LABEL p=p:1)"],
        ),
        (
            "ARG TARGETPLATFORM BUILDARCH=mine\nLABEL a=$TARGETPLATFORM-$BUILDARCH-$TARGETARCH",
            &["(ARG TARGETPLATFORM=linux/amd64 BUILDARCH=mine)", "(LABEL a=linux/amd64-mine-)"],
        ),
    ] {
        check(&format!("FROM base\n{instruction}\n"), expected);
        // The same with the line ends of others, and with none at the end.
        check(&format!("\u{feff}FROM base\n{instruction}").replace('\n', "\r\n"), expected);
    }
}

#[test]
fn words_of_the_configuration() {
    for (instruction, expected) in [
        (
            "EXPOSE 3000-3002/tcp 53/UDP 80 80/TCP",
            "(EXPOSE [3000/tcp 3001/tcp 3002/tcp 53/udp 80/tcp 80/tcp])",
        ),
        ("EXPOSE 8080:80 127.0.0.1:9000:90/tcp", "(EXPOSE [90/tcp 80/tcp])"),
        ("VOLUME [\"/a b\", \"/$BASE\"]", "(VOLUME [/a b /1])"),
        ("VOLUME /a  /b\t/a", "(VOLUME [/a /b /a])"),
        ("USER ${BASE}000:staff", "(USER 1000:staff)"),
        ("USER  app : staff ", "(USER app : staff)"),
        ("STOPSIGNAL SIGRTMIN+3", "(STOPSIGNAL SIGRTMIN+3)"),
        ("STOPSIGNAL 1$BASE", "(STOPSIGNAL 11)"),
        (
            "SHELL [\"/bin/bash\",\t\"-o\", \"pipefail\" , \"-c\"]",
            "(SHELL [/bin/bash -o pipefail -c])",
        ),
        ("CMD  echo   \"a  b\"  ", "(CMD [\"/bin/sh\" \"-c\" \"echo   \\\"a  b\\\"\"])"),
        ("CMD [\"echo\", \"$BASE\", \"\\u00e9\\t\"]", "(CMD [\"echo\" \"$BASE\" \"\u{e9}\\t\"])"),
        ("CMD [\"trailing\",]", "(CMD [\"/bin/sh\" \"-c\" \"[\\\"trailing\\\",]\"])"),
        (
            "ENTRYPOINT [\"a\"] # no comment",
            "(ENTRYPOINT [\"/bin/sh\" \"-c\" \"[\\\"a\\\"] # no comment\"])",
        ),
        ("ENTRYPOINT exec top -b", "(ENTRYPOINT [\"/bin/sh\" \"-c\" \"exec top -b\"])"),
        (
            "HEALTHCHECK --interval=5m --timeout=3s --retries=0 \\\n  CMD curl -f http://h:$PORT/ || exit 1",
            "(HEALTHCHECK {Test:[CMD-SHELL curl -f http://h:$PORT/ || exit 1] Interval:5m0s Timeout:3s StartPeriod:0s StartInterval:0s Retries:0})",
        ),
        (
            "HEALTHCHECK --start-interval=250ms CMD [\"check\",\"a b\"]",
            "(HEALTHCHECK {Test:[CMD check a b] Interval:0s Timeout:0s StartPeriod:0s StartInterval:250ms Retries:0})",
        ),
        ("WORKDIR a/../b//c/.", "WORKDIR /b/c"),
        ("WORKDIR \"/with space\"", "WORKDIR /with space"),
        ("WORKDIR /$BASE/$NOPE/x", "WORKDIR /1/x"),
        (
            "RUN  set -eux;\\\n\\\n    a   ;\\\n# gone\n\tb",
            "RUN /bin/sh -c set -eux;    a   ;\tb # buildkit",
        ),
        ("RUN [\"/bin/echo\", \"$BASE\"]", "RUN /bin/echo $BASE # buildkit"),
        ("RUN --mount=type=tmpfs,target=/t --network=none x", "RUN /bin/sh -c x # buildkit"),
        ("COPY --chown=1:1 --link a b$BASE \"c\" /x/", "COPY --chown=1:1 a b1 c /x/ # buildkit"),
        ("COPY --exclude=*.o --parents ./a/./b /x/", "COPY --parents ./a/./b /x/ # buildkit"),
        ("ADD --chmod=0644 [\"a\", \"/b c/\"]", "ADD --chmod=0644 a /b c/ # buildkit"),
        ("ADD [\"a\", \"/b c/\"]", "ADD a /b c/ # buildkit"),
    ] {
        check(&format!("FROM base\n{instruction}\n"), &[expected]);
        let other = instruction
            .split_once(' ')
            .map(|(keyword, rest)| format!("{} {rest}", keyword.to_lowercase()));
        check(&format!("from base\n{}\n", other.unwrap_or_default()), &[expected]);
    }
}

#[test]
fn the_stage_that_is_built_is_an_argument() {
    let text = |last: &str| {
        format!("FROM scratch AS One\nARG TARGETSTAGE\nLABEL t=$TARGETSTAGE\nFROM one{last}\n")
    };
    let label = |text: &str, target: Option<&str>, args: &[(&str, &str)]| {
        let target = target.map(str::to_owned);
        let given = rbuild_frontend::BuildOptions { target, ..with_args(args) };
        build_with(text, &given, &Images::new()).config.config.labels["t"].clone()
    };
    assert_eq!(label(&text(" AS Two"), None, &[]), "two");
    assert_eq!(label(&text(""), None, &[]), "default");
    assert_eq!(label(&text(""), Some("one"), &[]), "one");
    assert_eq!(label(&text(""), None, &[("TARGETSTAGE", "mine")]), "mine");
    // It is a global one, too.
    let from = "FROM scratch AS a-x\nFROM a-${TARGETSTAGE} AS x\nLABEL t=1\n";
    assert_eq!(label(from, None, &[]), "1");
}

#[test]
fn names_and_places_of_mounts() {
    let images = Images::new().with("0", "{}");
    let text = "FROM base AS a\nFROM base\nWORKDIR /w\nRUN --mount=from=0,target=/m --mount=type=tmpfs,target= x\n";
    let (asked, built) = super::build::rounds(text, &options(), &images);
    // Not the first stage: that is how only COPY counts.
    assert_eq!(
        asked,
        [["docker.io/library/base:latest linux/amd64", "docker.io/library/0:latest linux/amd64"]]
    );
    let built = built.unwrap();
    let rbuild_solver::Op::Exec(exec) = &built.graph.vertices().last().unwrap().op else {
        panic!("a RUN is an exec")
    };
    let places: Vec<&str> = exec.mounts.iter().map(|mount| mount.dest.as_str()).collect();
    assert_eq!(places, ["/", "/m", "/w"]);
}

#[test]
fn what_is_inherited_and_what_is_reset() {
    let config = |text: &str| {
        let images = Images::new().with(
            "parent",
            r#"{"config":{"Env":["PATH=/p","LANG=C"],"Entrypoint":["/up"],"Cmd":["down"],
            "WorkingDir":"/srv","User":"app","Shell":["/bin/ash","-ec"],"Labels":{"k":"parent"},
            "Healthcheck":{"Test":["CMD","up"]},"StopSignal":"SIGQUIT"}}"#,
        );
        build_with(text, &options(), &images).config.config
    };
    let kept = config("FROM parent\nLABEL l=1\n");
    assert_eq!(
        (kept.entrypoint.unwrap(), kept.cmd.unwrap()),
        (vec!["/up".to_owned()], vec!["down".to_owned()])
    );
    assert_eq!(
        (kept.user.as_str(), kept.working_dir.as_str(), kept.stop_signal.as_str()),
        ("app", "/srv", "SIGQUIT")
    );
    assert_eq!(kept.labels.len(), 2);
    assert_eq!(kept.healthcheck.unwrap().test, ["CMD", "up"]);
    // A new entry point takes the inherited command away; an empty one is as good as none.
    let reset = config("FROM parent\nENTRYPOINT []\nHEALTHCHECK NONE\nLABEL k=\nENV LANG=\n");
    assert_eq!((reset.entrypoint, reset.cmd), (None, None));
    assert_eq!(
        (reset.healthcheck.unwrap().test, reset.labels["k"].as_str()),
        (vec!["NONE".to_owned()], "")
    );
    assert_eq!(reset.env, ["PATH=/p", "LANG="]);
    // The shell of the base is that of later commands.
    let shell = config("FROM parent\nCMD x $y\nENTRYPOINT z\n");
    assert_eq!(shell.cmd.unwrap(), ["/bin/ash", "-ec", "x $y"]);
    assert_eq!(shell.entrypoint.unwrap(), ["/bin/ash", "-ec", "z"]);
    // A stage hands on the same, and what another has is not there.
    let staged = config(
        "FROM parent AS One\nCMD [\"1\"]\nUSER root\nFROM parent AS two\nFROM one\nWORKDIR sub\n",
    );
    assert_eq!(
        (staged.cmd.unwrap(), staged.user.as_str(), staged.working_dir.as_str()),
        (vec!["1".to_owned()], "root", "/srv/sub")
    );
    let scratch = config("FROM parent AS one\nFROM scratch\nCOPY --from=ONE /a /\n");
    assert_eq!((scratch.cmd, scratch.user.as_str(), scratch.working_dir.as_str()), (None, "", "/"));
}

#[test]
fn an_image_for_another_platform_only_is_used_for_that_where_it_runs() {
    let arm64 = rbuild_oci::Platform::new("linux", "arm64", "");
    let images = Images::new().with("arm", r#"{"architecture":"arm64"}"#);
    let text = "FROM arm AS a\nRUN x\nFROM base AS b\nRUN y\nFROM a\nCOPY --from=b /y /\n";
    let found = |options: &rbuild_frontend::BuildOptions| {
        let built = build_with(text, options, &images);
        let platforms = built.graph.vertices().iter().filter_map(|vertex| vertex.platform.as_ref());
        let platforms: Vec<_> = platforms.map(|platform| platform.architecture.clone()).collect();
        (platforms.join(" "), built.config.architecture, built.warnings.len())
    };
    let emulating = rbuild_frontend::BuildOptions { emulated: vec![arm64.clone()], ..options() };
    assert_eq!(found(&emulating), ("arm64 arm64 amd64 amd64".into(), "arm64".into(), 0));
    // Not where it does not run, and not where another platform was asked for.
    assert_eq!(found(&options()), ("amd64 amd64 amd64 amd64".into(), "arm64".into(), 1));
    let asked =
        rbuild_frontend::BuildOptions { platform: Some(super::build::amd64()), ..emulating };
    assert_eq!(found(&asked), ("amd64 amd64 amd64 amd64".into(), "amd64".into(), 1));
}

#[test]
fn other_systems_are_configured_and_run_nothing() {
    let windows = rbuild_frontend::BuildOptions {
        platform: Some(rbuild_oci::Platform::new("windows", "amd64", "")),
        ..options()
    };
    let text = "FROM scratch\nCOPY a /\nENV A=1\nCMD echo %A%\n";
    let built = build_with(text, &windows, &Images::new());
    assert_eq!(built.config.config.env, ["PATH=c:\\Windows\\System32;c:\\Windows", "A=1"]);
    assert_eq!(built.config.config.cmd.unwrap(), ["cmd", "/S", "/C", "echo %A%"]);
    let images = Images::new().with("bare", r#"{"os":"windows"}"#);
    assert_eq!(build_with("FROM bare\nLABEL a=b\n", &windows, &images).config.config.env, [""; 0]);
    super::build::check_errors_with(
        "FROM scratch\nRUN dir\n",
        &windows,
        &Images::new(),
        &["line 2: RUN in a stage for windows/amd64 is not supported yet <RUN dir>"],
    );
    // Checks and outlines run nothing.
    let dockerfile = rbuild_frontend::parse(
        &rbuild_frontend::Source::new("Dockerfile", "FROM scratch\nRUN dir\n").unwrap(),
    );
    let evaluated = rbuild_frontend::evaluate(
        &dockerfile,
        &windows,
        &rbuild_frontend::ImageSet::new(),
        rbuild_frontend::Stages::All,
    );
    assert!(evaluated.diagnostics.is_empty(), "{:?}", evaluated.diagnostics);
}
