//! The `--mount` of RUN.

use rbuild_frontend::{Attributes, Instruction, Mount, MountSpec, Sharing};

use super::{check_error, read};

fn spec(options: &str) -> MountSpec {
    let (_, dockerfile) = read(&format!("FROM a\nRUN --mount={options} x\n"));
    assert!(dockerfile.diagnostics.is_empty(), "{options}: {:?}", dockerfile.diagnostics);
    let Instruction::Run(run) = &dockerfile.statements[1].instruction else { panic!() };
    run.mounts[0].clone()
}

fn mount(options: &str) -> Mount {
    spec(options).resolve(|value| Ok(value.text().to_owned())).unwrap()
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn bind() {
    let expected = Mount::Bind { target: "/x".into(), source: None, from: None, read_only: true };
    assert_eq!(mount("target=/x"), expected);
    assert_eq!(mount("TYPE=Bind,dst=/x,ro"), expected);
    let expected =
        Mount::Bind { target: "x".into(), source: text("/y"), from: text("z"), read_only: false };
    for options in [
        "from=z,src=/y,dst=x,rw",
        "from=z,source=/y,destination=x,readwrite=true",
        "from=z,src=/y,dst=x,ro=0",
    ] {
        assert_eq!(mount(options), expected, "{options}");
    }
}

#[test]
fn cache() {
    assert_eq!(
        mount("type=cache,target=/c"),
        Mount::Cache {
            target: "/c".into(),
            id: None,
            source: None,
            from: None,
            sharing: Sharing::Shared,
            read_only: false,
            attributes: Attributes::default(),
        }
    );
    assert_eq!(
        mount("type=cache,target=/c,id=i,sharing=Locked,ro,mode=0700,uid=1,gid=2,from=f,source=/s"),
        Mount::Cache {
            target: "/c".into(),
            id: text("i"),
            source: text("/s"),
            from: text("f"),
            sharing: Sharing::Locked,
            read_only: true,
            attributes: Attributes { mode: Some(0o700), uid: Some(1), gid: Some(2) },
        }
    );
}

#[test]
fn tmpfs() {
    let expected = Mount::Tmpfs { target: "/t".into(), size: Some(64 << 20), read_only: false };
    assert_eq!(mount("type=tmpfs,target=/t,size=64m"), expected);
}

#[test]
fn secret() {
    let secret = |id: &str, target: Option<&str>, env: Option<&str>, required| Mount::Secret {
        id: id.into(),
        target: target.map(str::to_owned),
        env: env.map(str::to_owned),
        required,
        attributes: Attributes::default(),
    };
    assert_eq!(mount("type=secret,id=a/b"), secret("a/b", Some("/run/secrets/b"), None, false));
    assert_eq!(
        mount("type=secret,src=a,required"),
        secret("a", Some("/run/secrets/a"), None, true)
    );
    assert_eq!(mount("type=secret,target=/x/y"), secret("y", Some("/x/y"), None, false));
    assert_eq!(mount("type=secret,id=a,env=A"), secret("a", None, Some("A"), false));
    assert_eq!(
        mount("type=secret,id=a,env=A,dst=/b,required=1"),
        secret("a", Some("/b"), Some("A"), true)
    );
}

#[test]
fn ssh() {
    let expected = Mount::Ssh {
        id: "default".into(),
        target: None,
        required: false,
        attributes: Attributes::default(),
    };
    assert_eq!(mount("type=ssh"), expected);
    let attributes = Attributes { mode: Some(0o666), ..Attributes::default() };
    let expected = Mount::Ssh { id: "i".into(), target: text("/s"), required: true, attributes };
    assert_eq!(mount("type=ssh,id=i,target=/s,required=true,mode=666"), expected);
}

#[test]
fn values_with_variables_wait() {
    let waiting = spec("type=$T,target=/x/${V},uid=$U,from=f");
    assert_eq!(waiting.from().unwrap().text(), "f");
    let expand = |value: &rbuild_frontend::Mapped| {
        Ok(value.text().replace("$T", "cache").replace("${V}", "v").replace("$U", "7"))
    };
    let Mount::Cache { target, attributes, .. } = waiting.resolve(expand).unwrap() else {
        panic!()
    };
    assert_eq!((target.as_str(), attributes.uid), ("/x/v", Some(7)));
    let error = waiting.resolve(|value| Ok(value.text().to_owned())).unwrap_err();
    assert_eq!(error.message, "unsupported mount type \"$T\"");
}

#[test]
fn quoted_fields() {
    let expected = Mount::Bind { target: "/a,b".into(), source: None, from: None, read_only: true };
    assert_eq!(mount(r#"\"target=/a,b\",ro"#), expected);
    check_error(
        r#"RUN --mount=\"a x"#,
        "failed to parse csv mounts: extraneous or missing \" in quoted-field",
    );
    check_error(
        r#"RUN --mount=\"a\"b x"#,
        "failed to parse csv mounts: extraneous or missing \" in quoted-field",
    );
    check_error(r#"RUN --mount=a\"b x"#, "failed to parse csv mounts: bare \" in non-quoted-field");
    check_error("RUN --mount= x", "failed to parse csv mounts: EOF");
}

#[test]
fn errors() {
    for (options, message) in [
        ("type=bnd,target=/x", "unsupported mount type \"bnd\" (did you mean bind?)"),
        ("foo", "invalid field 'foo' must be a key=value pair"),
        ("target=/x,", "invalid field '' must be a key=value pair"),
        ("targt=/x", "unexpected key 'targt' in 'targt=/x' (did you mean target?)"),
        ("required,target=/x", "unexpected key 'required' for mount type 'bind'"),
        ("type=cache,target=/x,required=true", "unexpected key 'required' for mount type 'cache'"),
        ("target=/x,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,target=/x,size=z", "invalid value for size: z"),
        ("target=/x,ro=maybe", "invalid value for ro: maybe"),
        (
            "type=cache,target=/x,sharing=share",
            "unsupported sharing value \"share\" (did you mean shared?)",
        ),
        ("target=/x,sharing=shared", "invalid cache sharing set for bind mount"),
        ("type=ssh,sharing=shared", "invalid cache sharing set for ssh mount"),
        ("type=secret,id=a,sharing=shared", "secret mount should not define sharing"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret", "invalid secret mount. one of source, target required"),
        ("type=secret,id=a,src=b", "both source and id can't be set"),
        ("type=ssh,src=b", "ssh mount should not define a source"),
        ("target=/x,mode=1", "mode not allowed for \"bind\" type mounts"),
        ("type=tmpfs,target=/x,uid=1", "uid not allowed for \"tmpfs\" type mounts"),
        ("type=cache,target=/x,mode=9", "invalid value 9 for mode"),
        ("type=cache,target=/x,uid=+1", "invalid value +1 for uid"),
        ("type=cache,target=/x,gid=-1", "invalid value -1 for gid"),
        (
            "target=/$x,from=$y",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
    ] {
        check_error(&format!("RUN --mount={options} x"), message);
    }
    // Each of several is looked at.
    let (_, dockerfile) = read("FROM a\nRUN --mount=a --mount=b x\n");
    assert_eq!(dockerfile.diagnostics.len(), 2);
}
