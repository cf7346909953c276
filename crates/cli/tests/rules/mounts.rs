//! Rules 24 to 26: the mounts of RUN. More about them is tested in `mounts`.

use std::fs;

use crate::fixture::{Fixture, read};

const NOTHING: [&str; 2] = ["-o", "type=cacheonly"];

#[test]
fn privileged_rule_24_secrets() {
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S \
             test ! -e /run/secrets/s && test \"${S+set}\" = set && test -z \"$S\"\n",
    );
    fixture.build(&NOTHING).ok();
    fixture.write("Dockerfile", "FROM busybox\nRUN --mount=type=secret,id=s,required true\n");
    let error = fixture.build(&NOTHING).fails(1);
    assert!(error.contains("secret s: not found"), "{error}");
    // Its name and its place are in the key, what it holds is not.
    let steps = |mount: &str, value: &str| {
        fs::write(fixture.path("s"), value).expect("a secret");
        let mount = format!("FROM busybox\nRUN --mount=type=secret,{mount} true\n");
        fixture.write("Dockerfile", mount);
        let given = ["--secret", "id=s,src=s", "--secret", "id=t,src=s"];
        fixture.build(&[&NOTHING[..], &given].concat()).ok().steps_run().len()
    };
    assert_eq!(steps("id=s", "one"), 1);
    assert_eq!(steps("id=s", "two"), 0);
    assert_eq!(steps("id=t", "two"), 1);
    assert_eq!(steps("id=s,target=/other", "two"), 1);
}

#[test]
fn privileged_rule_25_the_identity_of_caches() {
    let fixture = Fixture::new();
    let mut run = 0;
    // How often steps with this cache have run.
    let mut count = |mount: &str, args: &[&str]| {
        run += 1;
        fixture.write(
            "Dockerfile",
            format!(
                "FROM busybox AS made\nRUN mkdir /first\nFROM busybox\n\
                 RUN --mount=type=cache,{mount} echo {run} >> /c/runs; grep -c . /c/runs > /runs\n"
            ),
        );
        read(&fixture.build_files(args), "runs").trim().to_owned()
    };
    assert_eq!(count("target=/c", &[]), "1");
    assert_eq!(count("target=/c", &[]), "2");
    assert_eq!(count("target=/c,id=/c", &[]), "3", "without an id it is the target");
    assert_eq!(count("target=/c,sharing=locked", &[]), "4");
    assert_eq!(count("target=/c,id=x", &[]), "1");
    for other in ["uid=1", "gid=1", "mode=0700", "from=made,source=/first"] {
        assert_eq!(count(&format!("target=/c,{other}"), &[]), "1", "{other}");
    }
    let namespace = ["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=n"];
    assert_eq!(count("target=/c", &namespace), "1");
    assert_eq!(count("target=/c", &namespace), "2");
    assert_eq!(count("target=/c", &["--no-cache"]), "1");
    assert_eq!(count("target=/c", &[]), "2");
}

#[test]
fn privileged_rule_26_binds_that_are_written_to_and_locked_caches() {
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN --mount=target=/src,rw echo changed > /src/file && echo new > /src/new && cat /src/file > /seen\n\
         RUN --mount=target=/src ! touch /src/x 2>/dev/null && ls /src >> /seen && cat /src/file >> /seen\n",
    );
    fixture.write("file", "kept\n");
    fixture.write(".dockerignore", "Dockerfile\n.dockerignore\n");
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "seen"), "changed\nfile\nkept\n");
    assert_eq!(read(&fixture.context(), "file"), "kept\n");
    // Two stages that run at once and would find each other inside.
    let stage = "RUN --mount=type=cache,id=l,target=/c,sharing=locked \
         mkdir /c/inside && i=0 && while [ $i -lt 20000 ]; do i=$((i+1)); done && rmdir /c/inside && touch";
    fixture.write(
        "Dockerfile",
        format!(
            "FROM busybox AS a\n{stage} /a\nFROM busybox AS b\n{stage} /b\n\
             FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
        ),
    );
    fixture.build(&NOTHING).ok();
}
