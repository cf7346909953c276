//! RUN --mount of every type, from the command line.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::fixture::{Fixture, have, ran, read};

const NOTHING: [&str; 2] = ["-o", "type=cacheonly"];

#[test]
fn privileged_binds_show_contexts_stages_and_images() {
    let fixture = Fixture::with(
        "FROM busybox AS made\n\
         RUN mkdir -p /out/deep && echo made > /out/deep/file && ln -s /out/deep /link\n\
         FROM busybox\n\
         RUN --mount=target=/src --mount=source=sub/one,target=/only.txt \
             --mount=from=made,source=/out,target=/made --mount=from=made,source=link,target=/linked \
             --mount=from=busybox,source=bin,target=/tools --mount=from=assets,target=/assets \
             cat /src/top /only.txt /made/deep/file /linked/file /assets/a > /result \
             && test ! -e /src/ignored.o && test -e /tools/busybox && ! touch /src/new /made/new\n",
    );
    fixture.write("top", "top\n");
    fixture.write("sub/one", "one\n");
    fixture.write("ignored.o", "");
    fixture.write(".dockerignore", "*.o\n");
    fs::create_dir(fixture.path("assets")).unwrap();
    fs::write(fixture.path("assets/a"), "asset\n").unwrap();
    let out = fixture.build_files(&["--build-context", "assets=assets"]);
    assert_eq!(read(&out, "result"), "top\none\nmade\nmade\nasset\n");
    // The places to mount upon were made and are gone.
    for stub in ["src", "only.txt", "made", "linked", "tools", "assets"] {
        assert!(!out.join(stub).exists(), "{stub}");
    }
    // What is mounted counts for the key, and nothing else of the context does.
    fixture.write("ignored.o", "other");
    let again =
        || fixture.build(&[&NOTHING[..], &["--build-context", "assets=assets"]].concat()).ok();
    let steps = |ran: crate::fixture::Ran| {
        ran.steps_run().into_iter().filter(|name| !name.starts_with("[context")).count()
    };
    assert_eq!(steps(again()), 0);
    fixture.write("sub/one", "changed\n");
    assert_eq!(steps(again()), 1);
    // Copies of the context are not kept.
    let pending = fs::read_dir(fixture.path("store/tmp")).unwrap().count();
    assert_eq!(pending, 0);
}

#[test]
fn privileged_what_is_written_to_a_bind_is_thrown_away() {
    let fixture = Fixture::with(
        "FROM busybox AS made\nRUN mkdir /out && echo made > /out/file\n\
         FROM busybox\n\
         RUN --mount=target=/src,rw --mount=from=made,source=out,target=/made,rw \
             echo new > /src/new && echo changed > /src/top && rm /made/file && cat /src/new /src/top > /result\n\
         RUN --mount=target=/src --mount=from=made,source=out,target=/made test ! -e /src/new && cat /src/top /made/file >> /result\n",
    );
    fixture.write("top", "top\n");
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "result"), "new\nchanged\ntop\nmade\n");
    assert_eq!(read(&fixture.context(), "top"), "top\n");
}

#[test]
fn privileged_mounts_cover_the_files_of_the_network() {
    let fixture = Fixture::with(
        "FROM busybox AS made\nRUN mkdir /e && echo mine > /e/hosts\n\
         FROM busybox\n\
         RUN --mount=from=made,source=e,target=/etc test ! -e /etc/resolv.conf && cp /etc/hosts /result\n\
         RUN --mount=from=made,source=e/hosts,target=/etc/hosts cat /etc/hosts >> /result && test -e /etc/resolv.conf\n\
         FROM scratch\nCOPY --from=1 / /\n",
    );
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "result"), "mine\nmine\n");
    assert!(!out.join("etc/hosts").exists() && !out.join("etc/resolv.conf").exists());
}

#[test]
fn privileged_sources_of_binds_stay_in_what_they_are_of() {
    let fixture = Fixture::with(
        "FROM busybox AS hostile\nRUN ln -s /../../../../../../../../etc /escape && ln -s ../../../../proc/1/root /proc-link\n\
         FROM busybox\nRUN --mount=from=hostile,source=escape,target=/e cat /e/hostname > /result; ls /e > /list\n",
    );
    fixture.write("top", "");
    let out = fixture.build_files(&[]);
    let hosts_files = fs::read_dir("/etc").unwrap().count();
    assert_ne!(read(&out, "list").lines().count(), hosts_files);
    let missing = Fixture::with("FROM busybox\nRUN --mount=source=nowhere,target=/e true\n");
    let refused = missing.build(&NOTHING).fails(1);
    assert!(refused.contains("\"/nowhere\": not found"), "{refused}");
}

#[test]
fn privileged_memory_is_bounded_and_forgotten() {
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN --mount=type=tmpfs,target=/m,size=64k stat -f -c %T /m > /result \
             && ! dd if=/dev/zero of=/m/big bs=1k count=100 2>/dev/null && stat -c %s /m/big >> /result\n",
    );
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "result"), "tmpfs\n65536\n");
    // Its own cannot be covered: nothing of the step would find itself.
    fixture.write("Dockerfile", "FROM busybox\nRUN --mount=type=tmpfs,target=/proc true\n");
    let error = fixture.build(&["-o", "type=cacheonly"]).fails(1);
    assert!(error.contains("cannot mount `/proc` (the step's own /proc is there"), "{error}");
    assert!(!out.join("m").exists());
}

/// Builds steps that count in a cache mount how often they ran, and what is then in the file `count`.
fn count(fixture: &Fixture, mount: &str, args: &[&str]) -> String {
    fixture.write(
        "Dockerfile",
        format!(
            "FROM busybox\nARG RUN\nRUN --mount=type=cache,target=/c,{mount} echo x >> /c/count; stat -c '%a %u:%g' /c > /result; grep -c x /c/count >> /result\n"
        ),
    );
    // Neither id nor sharing are in the key.
    let entries = fs::read_dir(fixture.path("")).expect("the fixture's folder");
    let run = format!("RUN={}", entries.count());
    fs::write(fixture.path(&run), "").expect("a file to count");
    let out = fixture.build_files(&[&["--build-arg", &run], args].concat());
    assert!(!out.join("c").exists());
    read(&out, "result")
}

#[test]
fn privileged_caches_outlive_builds_and_have_identities() {
    let fixture = Fixture::new();
    for expected in ["755 0:0\n1\n", "755 0:0\n2\n"] {
        assert_eq!(count(&fixture, "id=a", &[]), expected);
    }
    assert_eq!(count(&fixture, "id=b", &[]), "755 0:0\n1\n");
    assert_eq!(count(&fixture, "id=a,sharing=locked", &[]), "755 0:0\n3\n");
    assert_eq!(count(&fixture, "id=a,sharing=private", &[]), "755 0:0\n4\n");
    // Another first content is another cache.
    assert_eq!(count(&fixture, "id=a,mode=0700", &[]), "700 0:0\n1\n");
    assert_eq!(count(&fixture, "id=a,mode=0750,uid=12,gid=34", &[]), "750 12:34\n1\n");
    assert_eq!(count(&fixture, "id=a,mode=0700", &[]), "700 0:0\n2\n");
    let namespace = ["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=other"];
    assert_eq!(count(&fixture, "id=a", &namespace), "755 0:0\n1\n");
    // Ignoring the cache begins anew.
    assert_eq!(count(&fixture, "id=a", &["--no-cache"]), "755 0:0\n1\n");

    let usage = fixture.run(["du", "-v"]).ok().text();
    assert!(usage.contains("cached mount other/a"), "{usage}");
    assert!(
        usage.lines().any(|line| line.starts_with("Cache mounts") && line.contains(" 5 ")),
        "{usage}"
    );
    let only = fixture.run(["du", "-v", "--filter", "type=exec.cachemount"]).ok().text();
    assert!(
        only.contains("other/a") && !only.contains("regular") && !only.contains("Index"),
        "{only}"
    );
    fixture.run(["prune"]).ok();
    assert_eq!(count(&fixture, "id=a", &[]), "755 0:0\n2\n");
    let regular = fixture.run(["prune", "--filter", "type=regular"]).ok().text();
    assert!(
        regular.contains(" 0 cache mounts") && !regular.contains(" 0 cache records"),
        "{regular}"
    );
    assert_eq!(count(&fixture, "id=a", &[]), "755 0:0\n3\n");
    let young = ["prune", "--filter", "type=exec.cachemount", "--filter", "until=1h"];
    assert!(fixture.run(young).ok().text().contains(" 0 cache mounts"));
    let refused = fixture.run(["prune", "--filter", "type=frontend"]).fails(2);
    assert!(refused.contains("nothing of the type `frontend`"), "{refused}");
    let pruned = fixture.run(["prune", "--all"]).ok().text();
    assert!(pruned.contains("5 cache mounts"), "{pruned}");
    assert_eq!(fs::read_dir(fixture.path("store/caches")).unwrap().count(), 0);
    assert_eq!(count(&fixture, "id=a", &[]), "755 0:0\n1\n");
}

#[test]
fn privileged_caches_are_pruned_alone_and_count_for_the_size() {
    let fixture = Fixture::with(
        "FROM busybox\nRUN --mount=type=cache,target=/c dd if=/dev/urandom of=/c/large bs=1M count=8 2>/dev/null; echo made > /made\n",
    );
    fixture.build(&NOTHING).ok();
    let caches = || fs::read_dir(fixture.path("store/caches")).unwrap().count();
    // The cache was used last, so the step's layer goes before it.
    let kept = fixture.run(["prune", "--keep-storage", "100MB"]).ok().text();
    assert!(kept.contains(" 0 cache mounts, 0 logs, 0 cache records"), "{kept}");
    let pruned = fixture.run(["prune", "--keep-storage", "1MB"]).ok().text();
    assert!(pruned.contains(" 1 cache mounts"), "{pruned}");
    assert_eq!(caches(), 0);
    fixture.build(&["--no-cache", "-o", "type=cacheonly"]).ok();
    let pruned = fixture.run(["prune", "--filter", "type=exec.cachemount"]).ok().text();
    assert!(
        pruned.contains(" 0 layers, 0 blobs, 1 cache mounts, 0 logs, 0 cache records"),
        "{pruned}"
    );
    assert_eq!(fixture.build(&NOTHING).ok().steps_run().len(), 0);
}

#[test]
fn privileged_shared_caches_do_not_wait_for_private_ones() {
    // Each of the two waits for the other, which would never end if one had to wait for the cache.
    let fixture = Fixture::with(
        "FROM busybox AS private\n\
         RUN --mount=type=cache,id=x,target=/c,sharing=private --mount=type=cache,id=meet,target=/m \
             touch /m/has-it; until test -e /m/has-another; do usleep 10000; done; touch /c/of-private /private\n\
         FROM busybox AS shared\n\
         RUN --mount=type=cache,id=meet,target=/m until test -e /m/has-it; do usleep 10000; done; touch /go\n\
         RUN --mount=type=cache,id=x,target=/c --mount=type=cache,id=meet,target=/m test ! -e /c/of-private; touch /m/has-another /shared\n\
         FROM scratch\nCOPY --from=private /private /\nCOPY --from=shared /shared /\n",
    );
    fixture.build_files(&[]);
    let usage = fixture.run(["du"]).ok().text();
    assert!(
        usage.lines().any(|line| line.starts_with("Cache mounts") && line.contains(" 3 ")),
        "{usage}"
    );
}

#[test]
fn privileged_a_large_cache_is_mounted_like_a_small_one() {
    if !have("privileged_a_large_cache_is_mounted_like_a_small_one", "strace") {
        return;
    }
    let fixture = Fixture::with(
        "FROM busybox\nARG N\nRUN --mount=type=cache,target=/c test -d /c && echo $N > /n\n",
    );
    let calls = |n: &str| {
        let arg = format!("N={n}");
        let build = fixture.build_command("store", &["--build-arg", &arg, "-o", "type=cacheonly"]);
        let mut command = std::process::Command::new("strace");
        command.args(["-f", "-qq", "-c", "-o"]).arg(fixture.path("calls"));
        command.arg(build.get_program()).args(build.get_args()).env_clear();
        command.envs(build.get_envs().filter_map(|(key, value)| Some((key, value?))));
        ran(command.current_dir(fixture.path("")).output().unwrap()).ok();
        let table = read(&fixture.path(""), "calls");
        let total = table.lines().last().expect("a line of totals");
        total.split_whitespace().nth(3).expect("a count").parse::<u64>().expect("a number")
    };
    calls("first");
    let small = calls("small");
    let cache = fs::read_dir(fixture.path("store/caches")).unwrap();
    let cache = cache.map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    for folder in 0..20 {
        let folder = cache.join(folder.to_string());
        fs::create_dir(&folder).unwrap();
        (0..1000).for_each(|file| drop(fs::File::create(folder.join(file.to_string())).unwrap()));
    }
    let large = calls("large");
    // Threads and polls differ a little each time.
    assert!(large < small + 5000, "{small} calls, and {large} with 20,000 files");
}

#[test]
fn privileged_caches_begin_with_files_of_a_stage() {
    let fixture = Fixture::with(
        "FROM busybox AS made\nRUN mkdir -p /first/deep && echo first > /first/deep/file && chmod 711 /first && chown 5:6 /first/deep/file\n\
         FROM busybox\n\
         RUN --mount=type=cache,id=a,target=/c,from=made,source=first stat -c '%a' /c > /result && stat -c %u:%g /c/deep/file >> /result && cat /c/deep/file >> /result && echo second > /c/deep/file\n\
         RUN --mount=type=cache,id=a,target=/c,from=made,source=first cat /c/deep/file >> /result\n\
         RUN --mount=type=cache,id=a,target=/c,ro ls /c | wc -l >> /result; ! touch /c/x\n",
    );
    let out = fixture.build_files(&[]);
    assert_eq!(read(&out, "result"), "711\n5:6\nfirst\nsecond\n0\n");
}

#[test]
fn privileged_locked_caches_serialise_processes() {
    let fixture = Fixture::with(
        "FROM busybox\nARG N\nRUN --mount=type=cache,id=l,target=/c,sharing=locked \
         test ! -e /c/inside && touch /c/inside && i=0 && while [ $i -lt 2000 ]; do i=$((i+1)); done && rm /c/inside && echo x >> /c/count\n\
         RUN --mount=type=cache,id=l,target=/c,sharing=locked grep -c x /c/count > /count\n",
    );
    fixture.busybox();
    let children: Vec<_> = (0..4)
        .map(|n| {
            let arg = format!("N={n}");
            let mut command =
                fixture.build_command("store", &["--build-arg", &arg, "-o", "type=cacheonly"]);
            let piped = std::process::Stdio::piped;
            command.stdout(piped()).stderr(piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        ran(child.wait_with_output().unwrap()).ok();
    }
    let out = fixture.build_files(&["--build-arg", "N=last"]);
    assert_eq!(read(&out, "count"), "5\n");
}

#[test]
fn privileged_a_lock_dies_with_its_process() {
    let fixture = Fixture::with(
        "FROM busybox\nARG N\nRUN --mount=type=cache,id=l,target=/c,sharing=locked \
         if [ $N = 1 ]; then echo started; sleep 1000; else echo got it > /result; fi\n",
    );
    let mut first = fixture
        .build_command("store", &["--build-arg", "N=1", "-o", "type=cacheonly"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = Vec::new();
    let mut stderr = first.stderr.take().unwrap();
    while !String::from_utf8_lossy(&seen).contains(" started\n") {
        let mut chunk = [0; 1024];
        let length = stderr.read(&mut chunk).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&chunk[..length]);
    }
    first.kill().unwrap();
    first.wait().unwrap();
    let out = fixture.build_files(&["--build-arg", "N=2"]);
    assert_eq!(read(&out, "result"), "got it\n");
}

/// Whether some file below `folder` holds `needle`, in its name or its bytes.
fn find(folder: &Path, needle: &str) -> Option<std::path::PathBuf> {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let kind = path.symlink_metadata().expect("a file").file_type();
        let found = if kind.is_dir() {
            find(&path, needle)
        } else if kind.is_file() {
            let bytes = fs::read(&path).expect("its bytes");
            bytes
                .windows(needle.len())
                .any(|window| window == needle.as_bytes())
                .then(|| path.clone())
        } else {
            None
        };
        if found.is_some() || path.to_string_lossy().contains(needle) {
            return found.or(Some(path));
        }
    }
    None
}

#[test]
fn privileged_secrets_are_seen_by_their_step_only() {
    const SECRET: &str = "hunter2-correct-horse";
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN --mount=type=secret,id=token --mount=type=secret,id=token,target=/etc/token,mode=0440,uid=1,gid=2 --mount=type=secret,id=token,env=TOKEN \
             test \"$TOKEN\" = \"$(cat /run/secrets/token)\" && stat -c '%a %u:%g %s' /run/secrets/token /etc/token > /result \
             && ! (echo x > /etc/token) 2>/dev/null && grep -c ' /run/secrets/token tmpfs ro,nosuid,nodev,noexec' /proc/mounts >> /result\n\
         RUN test -z \"$TOKEN\" && test ! -e /run/secrets && test ! -e /etc/token\n\
         RUN --mount=type=secret,id=other --mount=type=secret,id=other,env=OTHER test ! -e /run/secrets/other && test \"${OTHER+set}\" = set && test -z \"$OTHER\"\n",
    );
    fs::write(fixture.path("token"), SECRET).unwrap();
    let out = fixture.build_files(&["--secret", "id=token,src=token"]);
    let size = SECRET.len();
    assert_eq!(read(&out, "result"), format!("400 0:0 {size}\n440 1:2 {size}\n1\n"));
    // Its value does not count, its name does.
    fs::write(fixture.path("token"), "another").unwrap();
    let built =
        fixture.build(&["-o", "type=oci,dest=image.tar", "--secret", "id=token,src=token"]).ok();
    assert!(built.steps_run().is_empty(), "{}", built.stderr);
    // From the environment, and a step that fails with it.
    fixture.write(
        "Dockerfile",
        "FROM busybox\nRUN --mount=type=secret,id=token,env=TOKEN,required test \"$TOKEN\" = no\n",
    );
    let mut command =
        fixture.build_command("store", &["--secret", "id=token,env=MINE", "-o", "type=cacheonly"]);
    let failed = ran(command.env("MINE", SECRET).output().unwrap()).fails(1);
    assert!(failed.contains("test \"****\" = no") && !failed.contains(SECRET), "{failed}");
    let missing = fixture.build(&NOTHING).fails(1);
    assert!(missing.contains("secret token: not found"), "{missing}");
    assert!(missing.contains("hint: give it: --secret id=token,src=FILE"), "{missing}");

    for place in ["store", "out"] {
        assert_eq!(find(&fixture.path(place), SECRET), None);
    }
    let archive = fs::read(fixture.path("image.tar")).unwrap();
    assert!(!archive.windows(size).any(|window| window == SECRET.as_bytes()));
}

#[test]
fn privileged_agents_are_forwarded() {
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN --mount=type=ssh,required --mount=type=ssh,id=other,target=/o.sock,mode=0666,uid=3 \
             echo $SSH_AUTH_SOCK > /result && stat -c '%F %a %u' $SSH_AUTH_SOCK /o.sock >> /result\n\
         RUN test ! -e /run/buildkit && test -z \"$SSH_AUTH_SOCK\"\n",
    );
    let socket = fixture.path("agent");
    let _agent = UnixListener::bind(&socket).unwrap();
    let other = format!("other={}", socket.display());
    let mut command = fixture.build_command(
        "store",
        &["--ssh", "default", "--ssh", &other, "-o", "type=local,dest=out"],
    );
    ran(command.env("SSH_AUTH_SOCK", &socket).output().unwrap()).ok();
    assert_eq!(
        read(&fixture.path("out"), "result"),
        "/run/buildkit/ssh_agent.0\nsocket 600 0\nsocket 666 3\n"
    );
    let missing = fixture.build(&["--no-cache", "-o", "type=cacheonly"]).fails(1);
    assert!(missing.contains("no SSH key \"default\" forwarded from the client"), "{missing}");
    fs::write(fixture.path("key"), "").unwrap();
    let key = fixture.build(&["--ssh", "default=key", "-o", "type=cacheonly"]).fails(2);
    assert!(key.contains("it is no private key of SSH"), "{key}");
}

#[test]
fn privileged_messages_of_agents_are_filtered() {
    // A step that can speak to a socket: busybox's nc can.
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN --mount=type=ssh printf '\\0\\0\\0\\001\\023\\0\\0\\0\\001\\013' | nc local:$SSH_AUTH_SOCK | od -An -tx1 > /replies\n",
    );
    let socket = fixture.path("agent");
    let agent = UnixListener::bind(&socket).unwrap();
    let served = std::thread::spawn(move || {
        let (mut client, _) = agent.accept().unwrap();
        let mut request = [0; 5];
        client.read_exact(&mut request).unwrap();
        client.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap();
        request
    });
    let default = format!("default={}", socket.display());
    let out = fixture.build_files(&["--ssh", &default]);
    let replies: Vec<String> =
        read(&out, "replies").split_whitespace().map(str::to_owned).collect();
    if replies.is_empty() {
        return crate::fixture::skipped(
            "privileged_messages_of_agents_are_filtered",
            "busybox cannot connect to sockets",
        );
    }
    // To remove all keys is refused; the list comes from the agent.
    assert_eq!(replies.join(" "), "00 00 00 01 05 00 00 00 05 0c 00 00 00 00");
    assert_eq!(served.join().unwrap(), [0, 0, 0, 1, 11]);
}
