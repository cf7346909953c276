//! ARG and ENV.

use rbuild_solver::Op;

use super::build::{Images, build, build_with, check_errors, history, with_args};

/// The variables of the last RUN without those of the base.
fn last_env(build: &rbuild_frontend::Build) -> Vec<String> {
    let exec = build.graph.vertices().iter().rev().find_map(|vertex| match &vertex.op {
        Op::Exec(exec) => Some(exec),
        _ => None,
    });
    let env = exec.unwrap().meta.env.iter();
    env.filter(|entry| !entry.starts_with("PATH=") && *entry != "BASE=1").cloned().collect()
}

#[test]
fn rule_13_env_pairs_see_old_values() {
    let built = build("FROM scratch\nENV a=1\nENV a=2 b=$a\nARG c=3 d=$c\nRUN [\"x\"]\n");
    assert_eq!(last_env(&built), ["a=2", "b=1", "c=3", "d=3"]);
    assert_eq!(
        history(&built),
        ["(ENV a=1)", "(ENV a=2 b=1)", "(ARG c=3 d=3)", "RUN |2 c=3 d=3 x # buildkit"]
    );
    let built = build("ARG a=1 b=$a\nFROM scratch\nARG b\nRUN [\"x\"]\n");
    assert_eq!(last_env(&built), ["b=1"], "also before the first FROM");
}

#[test]
fn rule_14_arguments_change_later_steps_but_no_copies() {
    let text = "FROM base\nRUN a\nARG V\nRUN b\nCOPY c /\n";
    let builds =
        ["1", "2"].map(|value| build_with(text, &with_args(&[("V", value)]), &Images::new()));
    let digests = builds.map(|build| {
        let vertices = build.graph.vertices();
        [vertices[1].digest, vertices[2].digest, vertices[3].digest]
    });
    assert_eq!(digests[0][0], digests[1][0], "before the ARG");
    assert_ne!(digests[0][1], digests[1][1], "after it, though it is not used");
    assert_eq!(digests[0][2], digests[1][2], "the context");
    let text = "FROM base\nARG V\nCOPY c /\n";
    let builds =
        ["1", "2"].map(|value| build_with(text, &with_args(&[("V", value)]), &Images::new()));
    let [one, two] = builds.map(|build| build.graph.vertices()[2].digest);
    assert_eq!(one, two, "no copy sees it");
}

#[test]
fn rule_15_proxies_are_in_no_history() {
    let args = with_args(&[("HTTP_PROXY", "p:1"), ("UNUSED", "x")]);
    let built = build_with("FROM scratch\nRUN [\"x\"]\n", &args, &Images::new());
    assert_eq!(history(&built), ["RUN x # buildkit"]);
    assert_eq!(last_env(&built), Vec::<String>::new());
    let Op::Exec(exec) = &built.graph.vertices()[0].op else { panic!("a RUN is an exec") };
    assert_eq!(exec.meta.proxy_env.as_ref().unwrap().http, "p:1");
    let built = build_with("FROM scratch\nARG HTTP_PROXY\nRUN [\"x\"]\n", &args, &Images::new());
    assert_eq!(last_env(&built), ["HTTP_PROXY=p:1"]);
    assert_eq!(history(&built)[1], "RUN |1 HTTP_PROXY=p:1 x # buildkit");
}

#[test]
fn rule_42_base_variables_come_first() {
    let images = Images::new().with("vars", r#"{"config":{"Env":["B=base","A=base"]}}"#);
    let text = "FROM vars\nARG PATH=/p\nARG A=arg\nENV B=env\nRUN [\"x\"]\n";
    let built = build_with(text, &with_args(&[]), &images);
    let Op::Exec(exec) = &built.graph.vertices()[1].op else { panic!("a RUN is an exec") };
    assert_eq!(exec.meta.env, ["PATH=/p", "A=arg", "B=env"]);
    assert_eq!(
        built.config.config.env,
        ["B=env", "A=base", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    );
}

#[test]
fn scopes() {
    let text = "ARG G=global\nARG H\nFROM scratch AS a\nARG G\nARG H\nARG G2=x$G\nRUN [\"x\"]\nFROM a\nRUN [\"y\"]\n";
    let built = build(text);
    assert_eq!(last_env(&built), ["G=global", "G2=xglobal"]);
    assert_eq!(history(&built).last().unwrap(), "RUN |3 G=global H= G2=xglobal y # buildkit");
    let built = build_with(text, &with_args(&[("G", "given"), ("H", "h")]), &Images::new());
    assert_eq!(last_env(&built), ["G=given", "H=h", "G2=xgiven"]);
    // A global one is not seen without an ARG, nor by the default of another.
    let built = build("ARG G=global\nFROM scratch\nARG X=a$G\nRUN [\"x\"]\n");
    assert_eq!(last_env(&built), ["X=a"]);
    // Another base inherits nothing.
    let built = build("FROM scratch AS a\nARG A=1\nFROM scratch\nRUN [\"x\"]\n");
    assert_eq!(last_env(&built), Vec::<String>::new());
}

#[test]
fn arguments_over_variables() {
    let built = build("FROM scratch\nENV A=env\nARG A=arg\nRUN [\"x\"]\n");
    assert_eq!(last_env(&built), ["A=arg"]);
    assert!(built.config.config.env.contains(&"A=env".to_owned()));
    assert_eq!(history(&built).last().unwrap(), "RUN |1 A=arg x # buildkit");
    let built = build("FROM scratch\nARG A=arg\nENV A=env$A\nRUN [\"x\"]\n");
    assert_eq!(last_env(&built), ["A=envarg"]);
    assert_eq!(history(&built).last().unwrap(), "RUN |1 A=envarg x # buildkit");
}

#[test]
fn a_given_argument_needs_no_default() {
    let text = "FROM scratch\nARG A=${X:?needed}\nRUN [\"x\"]\n";
    assert_eq!(last_env(&build_with(text, &with_args(&[("A", "1")]), &Images::new())), ["A=1"]);
    check_errors(text, &["line 2: failed to process \"${X:?needed}\": X: needed <${X:?needed}>"]);
}

#[test]
fn scan_arguments_are_no_variables() {
    let built = build("FROM scratch\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nRUN [\"x\"]\n");
    assert_eq!(last_env(&built), Vec::<String>::new());
}

#[test]
fn platform_arguments_need_an_arg() {
    let built = build("FROM scratch AS app\nARG TARGETARCH\nARG TARGETSTAGE\nRUN [\"x\"]\n");
    assert_eq!(last_env(&built), ["TARGETARCH=amd64", "TARGETSTAGE=app"]);
}
