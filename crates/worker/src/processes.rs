//! The processes of a running step, to be told of when it is stopped.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;

/// The longest command line that is shown whole.
const LONGEST: usize = 160;
/// How many processes are shown.
const MOST: usize = 100;

/// A process of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepProcess {
    /// Its number as the step sees it.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its number as the build sees it.
    pub outside: u32,
    /// What it does, such as `sleeping`.
    pub state: String,
    /// Its arguments, or its name in brackets when it has none, as zombies do.
    pub command: String,
    /// How many of its ancestors are listed, too.
    pub depth: usize,
}

/// The processes of a step, parents first. Drawn as a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessTree(pub Vec<StepProcess>);

impl ProcessTree {
    /// The processes below a sandbox process, without the reaper that is PID 1 of the step if it has one. Whatever ends
    /// meanwhile is left out.
    pub(crate) fn of_sandbox(sandbox: u32, has_reaper: bool) -> Self {
        let mut children: BTreeMap<u32, Vec<Status>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if let Some(status) = Status::read(pid) {
                children.entry(status.parent).or_default().push(status);
            }
        }
        let (above, number) = match has_reaper {
            true => (children.get(&sandbox).and_then(|first| first.first()).map(|it| it.pid), 1),
            false => (Some(sandbox), sandbox),
        };
        let mut tree = Vec::new();
        // No recursion: a step may nest its processes as deep as it likes.
        let mut stack = Vec::new();
        let mut enter = |outside: u32, inside: u32, depth: usize, stack: &mut Vec<_>| {
            let below = children.remove(&outside).unwrap_or_default();
            stack.extend(below.into_iter().rev().map(|status| (status, inside, depth)));
        };
        if let Some(above) = above {
            enter(above, number, 0, &mut stack);
        }
        while let Some((status, parent, depth)) = stack.pop() {
            tree.push(StepProcess {
                pid: status.inside,
                parent,
                outside: status.pid,
                state: status.state.clone(),
                command: status.command(),
                depth,
            });
            enter(status.pid, status.inside, depth + 1, &mut stack);
        }
        Self(tree)
    }
}

impl fmt::Display for ProcessTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>7} {:>7} {:>8}  {:<10} COMMAND", "PID", "PPID", "OUTSIDE", "STATE")?;
        for process in self.0.iter().take(MOST) {
            let StepProcess { pid, parent, outside, state, command, depth } = process;
            let indent = "  ".repeat((*depth).min(20));
            write!(f, "\n{pid:>7} {parent:>7} {outside:>8}  {state:<10} {indent}{command}")?;
        }
        match self.0.len().checked_sub(MOST) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, "\nand {more} more"),
        }
    }
}

/// What `/proc` says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Status {
    pid: u32,
    parent: u32,
    /// In its own PID namespace.
    inside: u32,
    state: String,
    name: String,
}

impl Status {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(pid, &fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    /// Reads `/proc/PID/status` (proc_pid_status(5)).
    fn parse(pid: u32, text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(str::trim)
        };
        // `S (sleeping)`
        let state = field("State")?;
        let state = state.split_once('(').map_or(state, |(_, word)| word.trim_end_matches(')'));
        Some(Self {
            pid,
            parent: field("PPid")?.parse().ok()?,
            inside: field("NSpid")?.split_whitespace().next_back()?.parse().ok()?,
            state: state.to_owned(),
            name: field("Name")?.to_owned(),
        })
    }

    fn command(&self) -> String {
        let arguments = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        shown(&arguments).unwrap_or_else(|| format!("[{}]", self.name))
    }
}

/// A command line on one line of text; `None` if it is empty.
fn shown(arguments: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(arguments);
    let text = text.trim_end_matches('\0');
    if text.is_empty() {
        return None;
    }
    let mut line = String::new();
    for c in text.chars().take(LONGEST) {
        match c {
            '\0' => line.push(' '),
            c if c.is_control() => {
                let _ = write!(line, "{}", c.escape_default());
            }
            c => line.push(c),
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        line.push_str("..");
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let text = "Name:\tsleep\nState:\tS (sleeping)\nPid:\t77\nPPid:\t70\nNSpid:\t77\t3\n";
        let status = Status::parse(77, text).unwrap();
        assert_eq!((status.inside, status.parent, status.state.as_str()), (3, 70, "sleeping"));
        assert_eq!(Status::parse(1, "Name:\tx\n"), None);
        assert_eq!(shown(b"sh\0-c\0a\nb\0").unwrap(), "sh -c a\\nb");
        assert_eq!(shown(b"\0"), None);
    }

    #[test]
    fn is_drawn_as_a_table() {
        let process = |pid, depth, command: &str| StepProcess {
            pid,
            parent: pid - 1,
            outside: pid + 100,
            state: "sleeping".to_owned(),
            command: command.to_owned(),
            depth,
        };
        let tree = ProcessTree(vec![process(2, 0, "sh"), process(3, 1, "sleep 9")]);
        assert_eq!(
            tree.to_string(),
            "    PID    PPID  OUTSIDE  STATE      COMMAND\n      2       1      102  sleeping   sh\n      3       2      103  sleeping     sleep 9"
        );
    }
}
