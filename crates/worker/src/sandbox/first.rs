//! The step's first process, from the fork to the step's program.

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchown, fstat};
use rustix::io::Errno;
use rustix::process::{Signal, fchdir, getcwd, set_parent_process_death_signal, setsid, umask};
use rustix::stdio::dup2_stdin;
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::{Deserialize, Serialize};

use super::command::Command;
use super::emulation::Emulation;
use super::error::{Context, Failure};
use super::groundwork::{GroundKind, Groundwork};
use super::mount_point::{PlaceKind, open_or_make};
use super::plan::{Rlimit, RlimitResource, SecurityMode};
use super::rootfs::Rootfs;
use super::seccomp::Filter;
use super::stubs::Stub;
use super::user::{User, UserError};
use super::wire::{Descriptors, Request};
use super::{caps, chroot, namespaces, reaper, terminal};
use crate::sys;

/// What the first process tells init before it becomes the program; one line of JSON each.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Notice {
    /// What was made in the root to mount upon.
    Stubs(Vec<Stub>),
    /// The step will not run.
    Failure(Failure),
}

impl Notice {
    pub(super) fn tell(&self, mut notices: &File) {
        let mut line = serde_json::to_vec(self).expect("notices have string keys only");
        line.push(b'\n');
        // An error means that init is gone, and then this process soon is.
        let _ = notices.write_all(&line);
    }
}

/// The first process under construction.
#[derive(Debug)]
pub(super) struct First<'a> {
    pub(super) request: &'a Request,
    pub(super) descriptors: &'a Descriptors,
    pub(super) binds: Vec<Option<OwnedFd>>,
    pub(super) emulation: Option<&'a Emulation>,
    /// What was laid before the request came.
    pub(super) groundwork: Option<Result<Groundwork, Failure>>,
    /// Where notices go. Closed when the program is executed.
    pub(super) notices: File,
    /// Where it is told how the program ended.
    pub(super) ended: File,
}

impl First<'_> {
    /// Becomes the program, or tells init why not and ends.
    pub(super) fn run(mut self) -> ! {
        let mut stubs = Vec::new();
        let Err(failure) = self.become_program(&mut stubs);
        self.tell(&Notice::Stubs(stubs));
        self.tell(&Notice::Failure(failure));
        sys::exit_now(1)
    }

    fn tell(&self, notice: &Notice) {
        notice.tell(&self.notices);
    }

    fn become_program(&mut self, stubs: &mut Vec<Stub>) -> Result<Infallible, Failure> {
        let spec = &self.request.spec;
        let root = self.descriptors.root.as_fd();
        self.enter_control_groups()?;
        // Modes are given in full below.
        umask(Mode::empty());
        setsid().context("start", "a session")?;
        let groundwork = match self.groundwork.take() {
            Some(laid) => Some(laid?),
            None if self.request.is_chroot => None,
            None => Some(Groundwork::lay(GroundKind::of(self.request))?),
        };
        let user = User::resolve(root, &spec.user)?;
        let mut terminal_end = None;
        match &groundwork {
            None => {
                // Nothing can make one in there.
                let make = |_| terminal::make(terminal::MACHINES);
                terminal_end = spec.terminal.map(make).transpose()?;
                chroot::enter(root)?;
            }
            Some(groundwork) => self.enter_namespaces(root, groundwork, stubs)?,
        }
        for limit in &spec.rlimits {
            allow_rlimit(limit)?;
        }
        self.enter_working_directory(&user)?;
        if let Some(index) = spec.stdin {
            let stdin = self.descriptors.mounts.get(index).ok_or(Errno::BADF);
            stdin.and_then(dup2_stdin).context("open", "the standard input")?;
        }
        if let Some(spec) = spec.terminal {
            let end = terminal_end.map_or_else(|| terminal::make(terminal::OWN), Ok)?;
            terminal::attach(spec, &end, &self.descriptors.mounts, &user)?;
        }
        give_output(&user);
        let command = Command::new(&spec.args, &environment(&spec.env, &user))?;
        self.tell(&Notice::Stubs(std::mem::take(stubs)));

        sys::reset_signals();
        if spec.is_32_bit {
            sys::set_32_bit_personality().context("set", "the personality")?;
        }
        // Nothing is mounted from here on: the mounts are another user namespace's.
        if let Some(emulation) = self.emulation {
            emulation.enter()?;
        }
        match spec.security {
            SecurityMode::Sandbox => {
                let allowed = if self.request.is_chroot {
                    set_no_new_privs(true).context("give up", "new privileges")?;
                    chroot::CAPABILITIES
                } else {
                    caps::of(spec.raw_packets)
                };
                // Before the capabilities go, since without `no_new_privs` it takes CAP_SYS_ADMIN.
                let ready = groundwork.and_then(|groundwork| groundwork.filter);
                ready
                    .filter(|filter| filter.is_for(allowed))
                    .unwrap_or_else(|| Filter::new(allowed))
                    .install()
                    .context("install", "the seccomp filter")?;
                caps::bound(allowed).context("limit", "the capabilities")?;
                self.become_user(&user)?;
                caps::confine(allowed).context("reduce", "the capabilities")?;
            }
            SecurityMode::Insecure => {
                caps::keep_over_change_of_user().context("keep", "the capabilities")?;
                self.become_user(&user)?;
                caps::grant().context("grant", "the capabilities")?;
            }
        }
        umask(Mode::from_raw_mode(0o022));
        self.let_go_of_descriptors()?;
        // Not earlier: a change of user clears it.
        set_parent_process_death_signal(Some(Signal::KILL))
            .context("follow", "the sandbox process")?;
        if self.init_is_gone() {
            sys::exit_now(1);
        }
        // Without a namespace of processes it would be no better a parent of orphans than init.
        if !self.request.is_chroot {
            reaper::fork_from_reaper(&self.ended)?;
        }
        if spec.terminal.is_some() {
            // In the program's own session.
            terminal::control()?;
        }
        // Only now, so that few files or processes are enough for the program and not for what is before it.
        for limit in &spec.rlimits {
            set_rlimit(limit)?;
        }
        Err(command.execute().into())
    }

    /// Before the namespaces, as the group that a process is in becomes the root of what it sees.
    fn enter_control_groups(&self) -> Result<(), Failure> {
        for group in &self.request.spec.control_groups {
            let entrance = &self.descriptors.mounts[group.descriptor];
            rustix::io::write(entrance, b"0").context("enter the control group", &group.path)?;
        }
        Ok(())
    }

    /// Leaves the machine's namespaces and mounts.
    fn enter_namespaces(
        &self,
        root: BorrowedFd<'_>,
        groundwork: &Groundwork,
        stubs: &mut Vec<Stub>,
    ) -> Result<(), Failure> {
        namespaces::enter(&self.request.spec, &self.descriptors.mounts)?;
        let read_only = Rootfs::new(root, self.request, stubs).assemble(
            groundwork,
            &self.descriptors.mounts,
            &self.binds,
        )?;
        match read_only {
            None => namespaces::pivot(root, 2),
            Some(read_only) => namespaces::pivot(read_only.as_fd(), 3),
        }
    }

    /// Whether init ended before the death signal was set; its parent's id cannot tell, as it is always 0 for a first process.
    fn init_is_gone(&self) -> bool {
        let mut pipe = [PollFd::new(&self.notices, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut pipe, Some(&now)).is_ok() && pipe[0].revents().contains(PollFlags::ERR)
    }

    /// Closes everything but the standard streams and the pipes to init. The program may be named by a path through `/proc/self/fd`, and is
    /// looked for while descriptors that are closed on execution are still open (CVE-2024-21626).
    fn let_go_of_descriptors(&self) -> Result<(), Failure> {
        let kept = [self.notices.as_raw_fd(), self.ended.as_raw_fd()];
        sys::close_all_but(3, &kept).context("close", "descriptors")
    }

    /// Enters the working directory without going through a link of `/proc`: one of a descriptor leads to the directories of the host that
    /// this process still has open (CVE-2024-21626).
    fn enter_working_directory(&self, user: &User) -> Result<(), Failure> {
        let cwd = &self.request.spec.cwd;
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .context("open", "the root of the step")?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = match rbuild_cache::open_in_root(&root, cwd, flags, resolve) {
            Err(Errno::NOENT) => {
                // Unlike a mount point, this directory is the step's and stays.
                let mut kept = Vec::new();
                let root = self.descriptors.root.as_fd();
                open_or_make(root, cwd, PlaceKind::Directory, (user.uid, user.gid), &mut kept)
                    .context("make the working directory", cwd)?;
                rbuild_cache::open_in_root(root, cwd, flags, resolve)
            }
            place => place,
        };
        place
            .and_then(fchdir)
            .and_then(|()| getcwd(Vec::new()))
            // The kernel says of a directory that is not below the root that it is unreachable.
            .and_then(|path| match path.as_bytes().starts_with(b"/") {
                true => Ok(()),
                false => Err(Errno::XDEV),
            })
            .context("enter the working directory", cwd)
    }

    fn become_user(&self, user: &User) -> Result<(), Failure> {
        let not_mapped = || UserError::NotMapped { uid: user.uid, gid: user.gid };
        let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
        match set_thread_groups(&groups) {
            // Where only a single id is mapped, groups cannot be set at all; and then only root can be a step's user, see below.
            Err(Errno::PERM) if self.request.in_user_namespace => {}
            Err(Errno::INVAL) if self.request.in_user_namespace => return Err(not_mapped().into()),
            result => result.context("set", "the supplementary groups")?,
        }
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        match set_thread_res_gid(gid, gid, gid).and_then(|()| set_thread_res_uid(uid, uid, uid)) {
            Err(Errno::INVAL) => Err(not_mapped().into()),
            result => result.context("become the user", &format!("{}:{}", user.uid, user.gid)),
        }
    }
}

/// Makes the step's user the owner of the pipes of its output, so that it can open them by name, as `/dev/stdout`. They are the sandbox's
/// own; standard input may be a pipe of somebody else's, and stays as it is.
fn give_output(user: &User) {
    for stream in [rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let is_pipe =
            fstat(stream).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_pipe {
            // A user who does not exist in the user namespace is told of later; written to they can be in any case.
            let _ = fchown(stream, Some(Uid::from_raw(user.uid)), None);
        }
    }
}

/// The step's variables, with `HOME` if it is not among them.
fn environment(env: &[String], user: &User) -> Vec<String> {
    let mut env = env.to_vec();
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    env
}

/// Raises the hard limit where it has to be, which needs a capability that the program may not have.
fn allow_rlimit(limit: &Rlimit) -> Result<(), Failure> {
    let (soft, hard) = sys::rlimit(number(limit.resource)).context("read", "a limit")?;
    match value(limit.hard) {
        raised if raised > hard => set(limit.resource, soft, raised),
        _ => Ok(()),
    }
}

fn set_rlimit(limit: &Rlimit) -> Result<(), Failure> {
    set(limit.resource, value(limit.soft), value(limit.hard))
}

fn set(resource: RlimitResource, soft: u64, hard: u64) -> Result<(), Failure> {
    sys::set_rlimit(number(resource), soft, hard)
        .context("set the limit", &format!("{resource:?}").to_lowercase())
}

/// A limit as the kernel takes it.
fn value(limit: Option<u64>) -> u64 {
    limit.unwrap_or(libc::RLIM_INFINITY)
}

fn number(resource: RlimitResource) -> u32 {
    let number = match resource {
        RlimitResource::As => libc::RLIMIT_AS,
        RlimitResource::Core => libc::RLIMIT_CORE,
        RlimitResource::Cpu => libc::RLIMIT_CPU,
        RlimitResource::Data => libc::RLIMIT_DATA,
        RlimitResource::Fsize => libc::RLIMIT_FSIZE,
        RlimitResource::Locks => libc::RLIMIT_LOCKS,
        RlimitResource::Memlock => libc::RLIMIT_MEMLOCK,
        RlimitResource::Msgqueue => libc::RLIMIT_MSGQUEUE,
        RlimitResource::Nice => libc::RLIMIT_NICE,
        RlimitResource::Nofile => libc::RLIMIT_NOFILE,
        RlimitResource::Nproc => libc::RLIMIT_NPROC,
        RlimitResource::Rss => libc::RLIMIT_RSS,
        RlimitResource::Rtprio => libc::RLIMIT_RTPRIO,
        RlimitResource::Rttime => libc::RLIMIT_RTTIME,
        RlimitResource::Sigpending => libc::RLIMIT_SIGPENDING,
        RlimitResource::Stack => libc::RLIMIT_STACK,
    };
    number as _
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_filled_in_only_when_absent() {
        let user = User { uid: 0, gid: 0, groups: vec![0], home: "/root".to_owned() };
        assert_eq!(environment(&["A=b".to_owned()], &user), ["A=b", "HOME=/root"]);
        assert_eq!(environment(&["HOME=".to_owned()], &user), ["HOME="]);
    }
}
