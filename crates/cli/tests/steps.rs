//! RUN and COPY as a user sees them: what a step finds, and what becomes of it.

use std::process::Command;

use crate::fixture::{Fixture, ran, read};

#[test]
fn privileged_a_step_sees_a_container() {
    let fixture = Fixture::with(
        "FROM busybox\n\
         ENV GREETING=hello\n\
         WORKDIR /work\n\
         RUN hostname > facts; id -u >> facts; pwd >> facts; echo $GREETING >> facts; read name < /proc/self/comm; echo $name >> facts\n\
         USER nobody\n\
         WORKDIR /tmp\n\
         RUN id -un > who; echo $HOME >> who\n",
    );
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "work/facts"), "buildkitsandbox\n0\n/work\nhello\nsh\n");
    assert!(read(&out, "tmp/who").starts_with("nobody\n"));
    for stub in ["etc/resolv.conf", "etc/hosts", "dev/null", "sys/kernel"] {
        assert!(!out.join(stub).exists(), "{stub} is a mount point and must not be in the layer");
    }
}

/// As with runc: scripts log to `/dev/stderr`, whoever runs them.
#[test]
fn privileged_streams_can_be_opened_by_the_user_of_the_step() {
    let fixture = Fixture::with(
        "FROM busybox\nUSER 1000:1000\n\
         RUN echo to-stdout > /dev/stdout; echo to-stderr | tee /proc/self/fd/2 > /dev/null; cat /dev/stdin; stat -L -c %u:%a /dev/stdout /dev/null\n",
    );
    let ran = fixture.build(&["--progress=plain", "-o", "type=cacheonly"]).ok();
    for line in [" to-stdout\n", " to-stderr\n", " 1000:600\n", " 0:666\n"] {
        assert!(ran.stderr.contains(line), "{line}: {}", ran.stderr);
    }
}

#[test]
fn privileged_heredocs_of_every_kind_run() {
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN <<EOF\nset -e\necho \"one $0\" > /one\nEOF\n\
         RUN <<EOF sh -e\necho two > /two\nEOF\n\
         RUN <<'SCRIPT'\n#!/bin/sh\necho \"three $SHLVL_IS_NOT_EXPANDED\" > /three\nSCRIPT\n\
         ARG WHAT=four\n\
         COPY <<A <<\"B\" /files/\n$WHAT\nA\n$WHAT\nB\n",
    );
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "two"), "two\n");
    assert_eq!(read(&out, "three"), "three \n");
    assert_eq!(read(&out, "files/A"), "four\n");
    assert_eq!(read(&out, "files/B"), "$WHAT\n");
}

/// Where the machine shares its mounts, as those with systemd do: what it mounts meanwhile would be in the step without its restrictions, and
/// what an unconfined step mounts would be on the machine. From the third step on a process is used that was started before the step was known.
#[test]
fn privileged_mounts_of_a_step_are_its_own() {
    let own = "! grep -E ' (shared|master):' /proc/self/mountinfo";
    let confined = format!("RUN --mount=type=cache,target=/c --network=host {own}\n");
    let fixture = Fixture::with(&format!(
        "FROM busybox\n{}RUN --security=insecure --mount=type=cache,target=/c {own}\n",
        confined.repeat(4)
    ));
    let args = ["--allow=security.insecure", "--allow=network.host", "-o", "type=cacheonly"];
    let build = fixture.build_command("store", &args);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=shared"]).arg(build.get_program());
    command.args(build.get_args()).env_clear();
    command.envs(build.get_envs().filter_map(|(key, value)| Some((key, value?))));
    ran(command.output().expect("unshare starts")).ok();
}

#[test]
fn privileged_network_none_has_only_a_loopback() {
    let fixture =
        Fixture::with("FROM busybox\nRUN --network=none ls /sys/class/net > /interfaces\n");
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "interfaces"), "lo\n");
}

#[test]
fn privileged_hosts_are_added() {
    let fixture = Fixture::with("FROM busybox\nRUN cp /etc/hosts /seen\n");
    let out = fixture.build_files(&["--add-host", "db.internal:10.1.2.3"]);
    assert!(read(&out, "seen").contains("10.1.2.3\tdb.internal"), "{}", read(&out, "seen"));
}

#[test]
fn privileged_whiteouts_reach_the_result() {
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN mkdir -p /d/sub && echo a > /d/a && echo b > /d/sub/b\n\
         RUN rm -r /d/sub && rm /d/a && echo c > /d/c\n",
    );
    let out = fixture.build_files(&[]);
    assert!(out.join("d/c").exists() && !out.join("d/a").exists() && !out.join("d/sub").exists());
}

#[test]
fn privileged_much_output_neither_fills_memory_nor_stops_the_step() {
    let fixture = Fixture::with(
        "FROM busybox\nRUN yes 'a line of sixty characters, more or less, over and over' | head -c 100000000\n",
    );
    let ran = fixture.build(&["-o", "type=cacheonly", "--quiet"]).ok();
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
}

#[test]
fn privileged_what_a_step_leaves_running_ends_with_it() {
    let fixture = Fixture::with(
        "FROM busybox\nRUN (sleep 1000 &) ; (setsid sleep 1001 &) ; echo done > /done\n",
    );
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "done"), "done\n");
}

#[test]
fn privileged_a_build_keeps_within_the_limit_of_descriptors() {
    const STAGES: usize = 60;
    let layers = (0..40).map(|layer| format!("COPY Dockerfile /layer{layer}\n"));
    let stages = (0..STAGES)
        .map(|stage| format!("FROM base AS s{stage}\nRUN sleep 0.2; echo {stage} > /s{stage}\n"));
    let copies = (0..STAGES).map(|stage| format!("COPY --from=s{stage} /s{stage} /\n"));
    let text: String =
        ["FROM busybox AS base\nRUN ulimit -Sn > /soft; ulimit -Hn > /hard\n".to_owned()]
            .into_iter()
            .chain(layers)
            .chain(stages)
            .chain(["FROM base\n".to_owned()])
            .chain(copies)
            .collect();
    let fixture = Fixture::with(&text);
    // Both limits so low that steps have to wait; and a soft one that rbuild raises, but not for steps.
    for (limit, soft) in [("ulimit -n 512", "512\n"), ("ulimit -Sn 128", "128\n")] {
        let build = fixture.build_command("store", &["--no-cache", "-o", "out"]);
        let limited = Command::new("sh")
            .args(["-c", &format!("{limit} && exec \"$0\" \"$@\"")])
            .arg(build.get_program())
            .args(build.get_args())
            .envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(fixture.path(""))
            .output();
        ran(limited.expect("sh starts")).ok();
        assert_eq!(read(&fixture.path("out"), "soft"), soft);
        assert_eq!(read(&fixture.path("out"), "s59"), "59\n");
    }
}
