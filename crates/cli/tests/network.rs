//! The networks of steps, tried from inside.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::fixture::{Fixture, compiled, have, ran, read, skipped};

/// Why steps cannot have a network of their own here, as rbuild says it.
fn obstacle() -> Option<String> {
    let fixture = Fixture::with("FROM busybox\nRUN true\n");
    let ran = fixture.build(&["-o", "type=cacheonly"]).ok();
    ran.stderr.lines().find(|line| line.contains(NOT_THEIR_OWN)).map(ToOwned::to_owned)
}

const NOT_THEIR_OWN: &str = "the steps have the host's network, not one of their own";

macro_rules! require_private_network {
    ($test:literal) => {
        if let Some(why) = obstacle() {
            skipped($test, &why);
            return;
        }
    };
}

/// The source of a program that tries what no shell can do.
const LOOPBACK: &str = include_str!("network/loopback.c");

const DOCKERS_CAPABILITIES: &str = "CapBnd:\t00000000a80425fb\n";
const WITHOUT_NET_RAW: &str = "CapBnd:\t00000000a80405fb\n";

/// What steps of a build that asks for nothing print.
fn own_namespace() -> String {
    fs::read_link("/proc/self/ns/net").unwrap().display().to_string()
}

#[test]
fn privileged_the_steps_of_a_build_have_one_network_for_themselves() {
    require_private_network!("privileged_the_steps_of_a_build_have_one_network_for_themselves");
    let fixture = Fixture::with(
        "FROM busybox AS one\n\
         RUN readlink /proc/self/ns/net > /net; ls /sys/class/net > /devices; ip address > /addresses\n\
         FROM busybox AS two\n\
         RUN readlink /proc/self/ns/net > /net; grep CapBnd /proc/self/status > /capabilities\n\
         RUN --network=none readlink /proc/self/ns/net > /none; ls /sys/class/net > /devices\n\
         FROM scratch\n\
         COPY --from=one / /one\n\
         COPY --from=two / /two\n",
    );
    let out = fixture.build_files(&[]);
    let (one, two) = (read(&out, "one/net"), read(&out, "two/net"));
    assert_eq!(one, two);
    assert_ne!(one.trim_end(), own_namespace());
    assert_ne!(read(&out, "two/none"), one);
    assert_eq!(read(&out, "one/devices"), "eth0\nlo\n");
    assert_eq!(read(&out, "two/devices"), "lo\n");
    assert!(read(&out, "one/addresses").contains("10.255.82.2/30"));
    assert_eq!(read(&out, "two/capabilities"), DOCKERS_CAPABILITIES);
}

/// Sockets of the host that no step may reach.
struct Loopback {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    port: u16,
    _abstract: UnixListener,
}

impl Loopback {
    fn open() -> Self {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let mut tcp = vec![first];
        let mut udp = vec![UdpSocket::bind(("127.0.0.1", port)).unwrap()];
        // A machine may be without IPv6.
        tcp.extend(TcpListener::bind(("::1", port)));
        udp.extend(UdpSocket::bind(("::1", port)));
        for listener in &tcp {
            listener.set_nonblocking(true).unwrap();
        }
        for socket in &udp {
            socket.set_nonblocking(true).unwrap();
        }
        let name = SocketAddr::from_abstract_name(format!("rbuild-test-{port}")).unwrap();
        Self { tcp, udp, port, _abstract: UnixListener::bind_addr(&name).unwrap() }
    }

    #[track_caller]
    fn is_untouched(&self) {
        for listener in &self.tcp {
            let reached = listener.accept().map(|(_, from)| from);
            assert_eq!(reached.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        }
        for socket in &self.udp {
            let reached = socket.recv_from(&mut [0; 16]);
            assert_eq!(reached.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        }
    }
}

#[test]
fn privileged_the_hosts_loopback_is_out_of_reach() {
    require_private_network!("privileged_the_hosts_loopback_is_out_of_reach");
    let host = Loopback::open();
    let port = host.port;
    // `nslookup` is busybox's way to send a datagram to a port of one's choice.
    let fixture = Fixture::with(&format!(
        "FROM busybox\n\
         RUN gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); test -n \"$gateway\"; \
         for host in 127.0.0.1 127.0.0.2 ::1 $gateway fe80::1%eth0 169.254.1.1 0.0.0.0 host; do \
         (if timeout 5 nc -w 2 $host {port} </dev/null; then echo $host >> /reached; fi) & \
         timeout 2 nslookup -port={port} x $host & done; \
         grep -c rbuild-test-{port} /proc/net/unix > /abstract; wait\n",
    ));
    let out = fixture.build_files(&["--add-host", "host:host-gateway"]);
    host.is_untouched();
    assert!(!out.join("reached").exists(), "{}", read(&out, "reached"));
    assert_eq!(read(&out, "abstract"), "0\n");

    // The same does reach it where nothing is in between.
    fs::remove_dir_all(&out).unwrap();
    let out = fixture.build_files(&["--add-host", "host:host-gateway", "--network=host"]);
    assert!(host.tcp[0].accept().is_ok() && host.udp[0].recv_from(&mut [0; 512]).is_ok());
    assert_ne!(read(&out, "abstract"), "0\n");
}

#[test]
fn privileged_no_packet_for_the_hosts_loopback_leaves() {
    const TEST: &str = "privileged_no_packet_for_the_hosts_loopback_leaves";
    require_private_network!("privileged_no_packet_for_the_hosts_loopback_leaves");
    let host = Loopback::open();
    let port = host.port;
    let fixture = Fixture::with(&format!(
        "FROM busybox\nCOPY loopback /\n\
         RUN /loopback eth0 {port} > /confined\n\
         RUN --security=insecure /loopback eth0 {port} > /insecure\n"
    ));
    if !compiled(TEST, LOOPBACK, &fixture.context().join("loopback")) {
        return;
    }
    let out = fixture.build_files(&["--allow", "security.insecure"]);
    host.is_untouched();
    // They did go out: one is from a socket of the usual kind, and one from a socket for whole frames, which says that it was dropped.
    let (confined, insecure) = (read(&out, "confined"), read(&out, "insecure"));
    assert!(confined.contains("udp 127.0.0.1 0\n"), "{confined}");
    assert!(confined.contains("echo 127.0.0.1 0\n"), "{confined}");
    let refused = ["raw 127.0.0.1 1\n", "frame 127.0.0.1 1\n"];
    assert!(refused.iter().all(|line| confined.contains(line)), "{confined}");
    let no_buffer_space = format!("frame 127.0.0.1 {}\n", rustix::io::Errno::NOBUFS.raw_os_error());
    assert!(insecure.contains("raw 127.0.0.1 0\n"), "{insecure}");
    assert!(insecure.contains(&no_buffer_space), "{insecure}");

    // The same does reach it where nothing is in between.
    fixture.write(
        "Dockerfile",
        format!("FROM busybox\nCOPY loopback /\nRUN --security=insecure /loopback lo {port}\n"),
    );
    fixture.build_files(&["--allow", "security.insecure", "--network=host"]);
    for listener in &host.tcp {
        listener.accept().unwrap();
    }
    for socket in &host.udp {
        socket.recv_from(&mut [0; 16]).unwrap();
    }
}

#[test]
fn privileged_a_network_that_cannot_be_filtered_is_told() {
    const TEST: &str = "privileged_a_network_that_cannot_be_filtered_is_told";
    require_private_network!("privileged_a_network_that_cannot_be_filtered_is_told");
    if !have(TEST, "setpriv") {
        return;
    }
    let fixture =
        Fixture::with("FROM busybox\nRUN grep CapBnd /proc/self/status > /capabilities\n");
    let build = fixture.build_command("store", &["-o", "out"]);
    let mut command = Command::new("setpriv");
    command
        .args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"])
        .arg(build.get_program())
        .args(build.get_args())
        .env_clear()
        .envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(fixture.path(""));
    let ran = ran(command.output().unwrap()).ok();
    assert!(!ran.stderr.contains(NOT_THEIR_OWN), "{}", ran.stderr);
    // pasta closes itself up while it goes into the background, and rbuild may have its descriptor before.
    let expected = match ran.stderr.contains("its packets cannot be filtered: pasta's") {
        true => WITHOUT_NET_RAW,
        false => DOCKERS_CAPABILITIES,
    };
    assert_eq!(read(&fixture.path("out"), "capabilities"), expected, "{}", ran.stderr);
}

#[test]
fn privileged_raw_sockets_are_for_echo_requests() {
    require_private_network!("privileged_raw_sockets_are_for_echo_requests");
    // `arping` needs a packet socket, busybox's `ping` a raw one.
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN ! arping -c 1 -w 1 -I eth0 10.255.82.1 2> /packet; ping -c 1 10.255.82.2 && traceroute -I -m 1 127.0.0.1\n",
    );
    let said = read(&fixture.build_files(&[]), "packet").to_lowercase();
    assert!(said.contains("not permitted") || said.contains("root"), "{said}");
}

#[test]
fn privileged_what_listens_ends_with_its_step() {
    require_private_network!("privileged_what_listens_ends_with_its_step");
    let fixture = Fixture::with(
        "FROM busybox\n\
         RUN (setsid nc -ll -p 7070 -e echo hello &); until nc 127.0.0.1 7070 </dev/null > /hello; do :; done\n\
         RUN ! nc -w 2 127.0.0.1 7070 </dev/null && ! nc -w 2 10.255.82.2 7070 </dev/null\n",
    );
    assert_eq!(read(&fixture.build_files(&[]), "hello"), "hello\n");
}

#[test]
fn privileged_host_gateway_reaches_the_host() {
    require_private_network!("privileged_host_gateway_reaches_the_host");
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let fixture = Fixture::with(&format!(
        "FROM busybox\nRUN wget -q -O /said http://host:{port}/ && grep host$ /etc/hosts\n"
    ));
    let command = fixture.build_command("store", &["--add-host=host:host-gateway", "-o", "out"]);
    let (build, connection) = start_and_accept(command, &listener);
    answer(connection, "welcome\n");
    ran(build.wait_with_output().unwrap()).ok();
    assert_eq!(read(&fixture.path("out"), "said"), "welcome\n");
}

/// Starts a build of which a step connects to the listener.
#[track_caller]
fn start_and_accept(mut command: Command, listener: &TcpListener) -> (Child, TcpStream) {
    let build = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let end = pidfd_open(Pid::from_child(&build), PidfdFlags::empty()).unwrap();
    let mut events = [PollFd::new(listener, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
    poll(&mut events, None).unwrap();
    if events[0].revents().is_empty() {
        panic!("no step connects: {:?}", ran(build.wait_with_output().unwrap()));
    }
    (build, listener.accept().unwrap().0)
}

/// Answers a request, in a way in which the other side need not see the connection end: Debian 12's pasta loses the end of one that the
/// step has closed on its side.
fn answer(mut connection: TcpStream, text: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut chunk = [0; 1024];
        let size = connection.read(&mut chunk).unwrap();
        assert_ne!(size, 0, "half a request");
        request.extend_from_slice(&chunk[..size]);
    }
    write!(connection, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).unwrap();
}

/// A build whose only step waits until the test lets go of it, with a pasta that has a name of its own.
struct Waiting {
    fixture: Fixture,
    build: Child,
    step: TcpStream,
}

impl Waiting {
    fn start() -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let fixture = Fixture::with(&format!(
            "FROM busybox\nRUN nc -ll -p 7171 -e true & wget -q -O /said http://host:{port}/\n"
        ));
        let programs = fixture.path("programs");
        fs::create_dir(&programs).unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let pasta = std::env::split_paths(&path).map(|folder| folder.join("pasta"));
        symlink(pasta.into_iter().find(|file| file.exists()).unwrap(), programs.join("pasta"))
            .unwrap();
        let mut command = fixture
            .build_command("store", &["--add-host=host:host-gateway", "-o", "type=cacheonly"]);
        let path = std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path)));
        command.env("PATH", path.unwrap());
        let (build, step) = start_and_accept(command, &listener);
        Self { fixture, build, step }
    }

    /// The processes of this build's keeper and of pasta.
    fn processes(&self) -> Vec<OwnedFd> {
        let program = self.fixture.path("programs/pasta").display().to_string();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
                continue;
            };
            let line = fs::read(path.join("cmdline")).unwrap_or_default();
            if line.split(|byte| *byte == 0).any(|argument| argument == program.as_bytes()) {
                let process = Pid::from_raw(id).unwrap();
                found.extend(pidfd_open(process, PidfdFlags::empty()));
            }
        }
        found
    }
}

/// Waits until all of these processes have ended.
#[track_caller]
fn wait_for_the_end_of(processes: &[OwnedFd]) {
    let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
    for process in processes {
        let mut end = [PollFd::new(process, PollFlags::IN)];
        assert_eq!(poll(&mut end, Some(&patience)), Ok(1), "a process was left");
    }
}

#[test]
fn privileged_nothing_is_left_of_the_network_of_a_build() {
    require_private_network!("privileged_nothing_is_left_of_the_network_of_a_build");
    for signal in [None, Some(Signal::INT), Some(Signal::KILL)] {
        let mut waiting = Waiting::start();
        let processes = waiting.processes();
        // Keeper, guard and pasta.
        assert!(processes.len() >= 3, "{processes:?}");
        let build = Pid::from_child(&waiting.build);
        match signal {
            Some(signal) => kill_process(build, signal).unwrap(),
            None => answer(waiting.step, ""),
        }
        let status = waiting.build.wait().unwrap();
        assert_eq!(status.success(), signal.is_none(), "{status}");
        wait_for_the_end_of(&processes);
    }
}

#[test]
fn privileged_pasta_has_nothing_of_the_build() {
    require_private_network!("privileged_pasta_has_nothing_of_the_build");
    let mut waiting = Waiting::start();
    let store = waiting.fixture.path("store");
    let program = waiting.fixture.path("programs/pasta").display().to_string();
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        if !line.split(|byte| *byte == 0).any(|argument| argument == program.as_bytes()) {
            continue;
        }
        assert_eq!(fs::read(path.join("environ")).unwrap_or_default(), b"", "{}", path.display());
        let descriptors = fs::read_dir(path.join("fd")).into_iter().flatten();
        seen.extend(descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()));
    }
    let of_store: Vec<&PathBuf> = seen.iter().filter(|path| path.starts_with(&store)).collect();
    assert!(!seen.is_empty() && of_store.is_empty(), "{of_store:?}");
    answer(waiting.step, "");
    assert!(waiting.build.wait().unwrap().success());
}

#[test]
fn privileged_builds_do_not_see_one_another() {
    require_private_network!("privileged_builds_do_not_see_one_another");
    // Its step listens on port 7171.
    let mut waiting = Waiting::start();
    let other = Fixture::with(
        "FROM busybox\n\
         RUN for host in 127.0.0.1 10.255.82.2 host; do ! nc -w 2 $host 7171 </dev/null || exit 1; done\n",
    );
    other.build(&["--add-host=host:host-gateway", "-o", "type=cacheonly"]).ok();
    answer(waiting.step, "");
    assert!(waiting.build.wait().unwrap().success());
}

/// A folder with this script as the only program.
fn folder_with_pasta(fixture: &Fixture, script: &str) -> PathBuf {
    let folder = fixture.path("programs");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("pasta"), script).unwrap();
    fs::set_permissions(folder.join("pasta"), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn build_with_path(fixture: &Fixture, path: &Path) -> crate::fixture::Ran {
    let mut command = fixture.build_command("store", &["-o", "out"]);
    ran(command.env("PATH", path).output().unwrap()).ok()
}

#[test]
fn privileged_without_pasta_steps_have_the_hosts_network_and_the_build_says_so() {
    let fixture = Fixture::with(
        "FROM busybox\nRUN readlink /proc/self/ns/net > /net; grep CapBnd /proc/self/status > /capabilities\n\
         RUN true\nRUN --network=none grep CapBnd /proc/self/status > /none\n",
    );
    let ran = build_with_path(&fixture, Path::new("/nonesuch"));
    // Nothing of what the host receives is for a step that did not ask for the host's network.
    assert_eq!(read(&fixture.path("out"), "capabilities"), WITHOUT_NET_RAW);
    assert_eq!(read(&fixture.path("out"), "none"), DOCKERS_CAPABILITIES);
    assert_eq!(read(&fixture.path("out"), "net").trim_end(), own_namespace());
    let said: Vec<&str> = ran.stderr.lines().filter(|line| line.contains(NOT_THEIR_OWN)).collect();
    assert_eq!(said.len(), 1, "{}", ran.stderr);
    assert!(said[0].contains("Debian package `passt`"), "{}", said[0]);
}

#[test]
fn privileged_a_pasta_that_fails_is_told() {
    let fixture = Fixture::with("FROM busybox\nRUN readlink /proc/self/ns/net > /net\n");
    let path = folder_with_pasta(
        &fixture,
        "#!/bin/sh\necho 'Failed to send 5 bytes to syslog' >&2; echo 'no tap device' >&2; exit 3\n",
    );
    let ran = build_with_path(&fixture, &path);
    assert_eq!(read(&fixture.path("out"), "net").trim_end(), own_namespace());
    let failed = format!("`{}` failed: no tap device\n", path.join("pasta").display());
    assert!(ran.stderr.contains(&failed), "{}", ran.stderr);
}

#[test]
fn privileged_a_missing_device_for_the_network_is_told() {
    if !have("privileged_a_missing_device_for_the_network_is_told", "pasta") {
        return;
    }
    let fixture = Fixture::with("FROM busybox\nRUN true\n");
    let hidden = "mkdir -p /dev/net; mount -t tmpfs none /dev/net;";
    let ran = build_in_other_world(&fixture, hidden, &["-o", "type=cacheonly"]).ok();
    let told = format!("{NOT_THEIR_OWN}: cannot open `/dev/net/tun`, which pasta needs (");
    assert!(ran.stderr.contains("with `--device /dev/net/tun`"), "{}", ran.stderr);
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
}

#[test]
fn privileged_pasta_is_started_only_for_a_step_that_runs() {
    let fixture = Fixture::with("FROM busybox\nCOPY Dockerfile /\nRUN --network=none true\n");
    let marker = fixture.path("started");
    let path = folder_with_pasta(
        &fixture,
        &format!("#!/bin/sh\necho x >> {}\nexit 1\n", marker.display()),
    );
    build_with_path(&fixture, &path);
    assert!(!marker.exists());
    fixture.write("Dockerfile", "FROM busybox\nRUN true\nRUN echo >> /x\n");
    build_with_path(&fixture, &path);
    build_with_path(&fixture, &path);
    assert_eq!(fs::read_to_string(&marker).unwrap(), "x\n");
}

/// A rbuild whose host has other files and devices: `set_up` is run in a mount namespace first.
fn build_in_other_world(fixture: &Fixture, set_up: &str, args: &[&str]) -> crate::fixture::Ran {
    let build = fixture.build_command("store", args);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", &format!("{set_up} \"$@\""), "sh"])
        .arg(build.get_program())
        .args(build.get_args())
        .env_clear()
        .envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(fixture.path(""));
    ran(command.output().unwrap())
}

#[test]
fn privileged_servers_on_the_hosts_loopback_are_asked_through_pasta() {
    require_private_network!("privileged_servers_on_the_hosts_loopback_are_asked_through_pasta");
    let fixture = Fixture::with(
        "FROM busybox\nRUN cp /etc/resolv.conf /own\nRUN --network=none cp /etc/resolv.conf /none\n\
         RUN --network=host cp /etc/resolv.conf /host\n",
    );
    let file = fixture.path("resolv.conf");
    fs::write(&file, "search lan\nnameserver 127.0.0.1\nnameserver ::1\n").unwrap();
    let set_up = format!("mount --bind {} /etc/resolv.conf; exec", file.display());
    build_in_other_world(&fixture, &set_up, &["--allow", "network.host", "-o", "out"]).ok();
    let out = fixture.path("out");
    assert_eq!(read(&out, "own"), "search lan\nnameserver 169.254.1.1\n");
    assert!(read(&out, "none").starts_with("search lan\nnameserver 8.8.8.8\n"));
    assert_eq!(read(&out, "host"), fs::read_to_string(&file).unwrap());
}

#[test]
fn privileged_an_ordinary_user_has_a_network_for_steps_too() {
    const TEST: &str = "privileged_an_ordinary_user_has_a_network_for_steps_too";
    require_private_network!("privileged_an_ordinary_user_has_a_network_for_steps_too");
    if fs::read_to_string("/proc/sys/user/max_user_namespaces").is_ok_and(|text| text == "0\n") {
        skipped(TEST, "user namespaces are forbidden");
        return;
    }
    let host = Loopback::open();
    let fixture = Fixture::with(&format!(
        "FROM busybox\nCOPY loopback /\n\
         RUN grep CapBnd /proc/self/status > /capabilities; /loopback eth0 {port} > /tried\n\
         RUN ls /sys/class/net > /devices; readlink /proc/self/ns/net > /net; ! nc -w 2 127.0.0.1 {port} </dev/null; \
         ! nc -w 2 10.255.82.1 {port} </dev/null; ! mkdir /sys/x\n",
        port = host.port
    ));
    if !compiled(TEST, LOOPBACK, &fixture.context().join("loopback")) {
        return;
    }
    fixture.busybox();
    // On machines without udev, the device is root's.
    let set_up = format!(
        "chown -R 65534:65534 {folder}; mount -t tmpfs none /dev/net; mknod -m 666 /dev/net/tun c 10 200; \
         touch /etc/subuid /etc/subgid; mount --bind /dev/null /etc/subuid; mount --bind /dev/null /etc/subgid; \
         exec setpriv --reuid 65534 --regid 65534 --clear-groups",
        folder = fixture.path("").display()
    );
    let program = fixture.path("rbuild");
    fs::copy(env!("CARGO_BIN_EXE_rbuild"), &program).unwrap();
    fs::set_permissions(fixture.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut build = fixture.build_command("store", &["-o", "out"]);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-ec", &format!("{set_up} \"$@\""), "sh"])
        .arg(&program)
        .args(build.get_args())
        .env_clear()
        .envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(fixture.path(""));
    build.stdin(Stdio::null());
    let ran = ran(command.output().unwrap()).ok();
    assert!(!ran.stderr.contains(NOT_THEIR_OWN), "{}", ran.stderr);
    let out = fixture.path("out");
    assert_eq!(read(&out, "capabilities"), DOCKERS_CAPABILITIES);
    assert!(read(&out, "tried").contains("udp 127.0.0.1 0\n"));
    assert_eq!(read(&out, "devices"), "eth0\nlo\n");
    assert_ne!(read(&out, "net").trim_end(), own_namespace());
    host.is_untouched();
}
