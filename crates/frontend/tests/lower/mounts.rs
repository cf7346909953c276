//! RUN --mount.

use std::collections::BTreeMap;

use rbuild_frontend::{BuildOptions, NamedContext};

use super::build::{check, check_errors, check_with, options, with_args};

#[test]
fn every_type_with_its_defaults() {
    check(
        "FROM base\nWORKDIR /w\nRUN --mount=target=/src --mount=type=cache,target=/c --mount=type=tmpfs,target=t \
         --mount=type=secret,id=a/b --mount=type=secret,id=e,env=TOKEN --mount=type=ssh make $TOKEN\n",
        r#"
        0 [stage-0 1/3] FROM docker.io/library/base:latest@pinned
            docker-image://docker.io/library/base:latest@pinned
        1 [stage-0 2/3] WORKDIR /w
            on 0 mkdir /w 755
        2 [internal] load build context
            local://context
        3 [stage-0 3/3] RUN --mount=target=/src --mount=type=cache,target=/c --mount=type=tmpfs,target=t --mount=type=secret,id=a/b --mount=type=secret,id=e,env=TOKEN --mount=type=ssh make ****
            on 1 in /w run ["/bin/sh", "-c", "make $TOKEN"] env ["BASE=1", "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"]
            rw - at /c cache //c Shared
            ro 2 at /src
            rw - at /w/t memory 0
            ro - at /run/secrets/b secret a/b 0:0 400 optional=true
            ro - at /run/buildkit/ssh_agent.0 agent default 0:0 600 optional=true
            TOKEN is secret e optional=true
        = 3
        "#,
    );
}

#[test]
fn every_option() {
    let args = with_args(&[("BUILDKIT_CACHE_MOUNT_NS", "ns"), ("DIR", "lib")]);
    check_with(
        "FROM base AS one\nFROM base\nARG DIR\n\
         RUN --mount=from=one,source=/$DIR,target=/b,rw --mount=type=cache,id=x,target=/a,sharing=locked,mode=0700,uid=3 \
         --mount=type=cache,target=/c/,from=one,source=sub,sharing=private,mode=0700,ro --mount=type=tmpfs,target=/t,size=1m \
         --mount=type=secret,id=s,target=/s,mode=0444,uid=1,gid=2,required,env=S --mount=type=ssh,id=k,target=/k,required,mode=0666 x\n",
        &args,
        r#"
        0 [one 1/1] FROM docker.io/library/base:latest@pinned
            docker-image://docker.io/library/base:latest@pinned
        1 [internal] setting cache mount permissions
            on - mkdir /cache 700 owner 3:0
        2 [stage-1 2/2] RUN --mount=from=one,source=/lib,target=/b,rw --mount=type=cache,id=x,target=/a,sharing=locked,mode=0700,uid=3 --mount=type=cache,target=/c/,from=one,source=sub,sharing=private,mode=0700,ro --mount=type=tmpfs,target=/t,size=1m --mount=type=secret,id=s,target=/s,mode=0444,uid=1,gid=2,required,env=S --mount=type=ssh,id=k,target=/k,required,mode=0666 x
            on 0 in / run ["/bin/sh", "-c", "x"] env ["BASE=1", "DIR=lib", "SSH_AUTH_SOCK=/k"]
            rw 1/cache at /a cache ns/x Locked
            rw 0/lib at /b
            ro 0/sub at /c cache ns//c Private
            rw - at /t memory 1048576
            ro - at /s secret s 1:2 444 optional=false
            ro - at /k agent k 0:0 666 optional=false
            S is secret s optional=false
        = 2
        "#,
    );
}

#[test]
fn sources_are_stages_contexts_and_images() {
    let local = NamedContext::Local { ignore: vec!["*.o".to_owned()] };
    let options =
        BuildOptions { contexts: BTreeMap::from([("assets".to_owned(), local)]), ..options() };
    check_with(
        "FROM base\nRUN --mount=from=assets,source=img,target=/a --mount=from=base,target=/b --mount=from=scratch,target=/c x\n",
        &options,
        r#"
        0 [stage-0 1/2] FROM docker.io/library/base:latest@pinned
            docker-image://docker.io/library/base:latest@pinned
        1 [context assets] load from client
            local://assets local.excludepatterns=["*.o"] local.followpaths=["img"]
        2 [stage-0 2/2] RUN --mount=from=assets,source=img,target=/a --mount=from=base,target=/b --mount=from=scratch,target=/c x
            on 0 in / run ["/bin/sh", "-c", "x"] env ["BASE=1"]
            ro 1/img at /a
            ro 0 at /b
            ro - at /c
        = 2
        "#,
    );
}

#[test]
fn what_is_wrong_is_said() {
    check_errors(
        "FROM base AS a\nRUN --mount=target=/ x\nRUN --mount=target=/x,from=b x\nFROM base AS b\nARG W=nonsense\nRUN --mount=type=$W,target=/x y\nFROM a\nRUN --mount=from=b,target=/y z\n",
        &[
            "line 2: invalid mount target \"/\" <target=/>",
            "line 3: cannot mount from stage \"b\" to \"a\", stage needs to be defined before current command <b>",
            "line 6: unsupported mount type \"nonsense\" <type=$W>",
        ],
    );
}
