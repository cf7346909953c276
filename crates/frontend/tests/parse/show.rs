//! Instructions as lines of text, so that tests can say what they expect.

use std::fmt::Write;

use rbuild_frontend::{
    Command, Healthcheck, Heredoc, Instruction, Mapped, Pairs, Spanned, Statement, Transfer,
};

/// One instruction: its name, its flags as `--name=value`, its arguments in brackets where there are several, and the
/// heredocs after it.
pub(crate) fn show(statement: &Statement) -> String {
    let mut line = instruction(&statement.instruction);
    if !matches!(statement.instruction, Instruction::Copy(_) | Instruction::Add(_)) {
        for heredoc in &statement.heredocs {
            write!(line, " {}", body(heredoc)).unwrap();
        }
    }
    line
}

fn instruction(instruction: &Instruction) -> String {
    match instruction {
        Instruction::From(from) => {
            let platform = text("platform", from.platform.as_ref());
            let alias =
                from.alias.as_ref().map(|alias| format!(" AS {}", alias.name)).unwrap_or_default();
            format!("FROM{platform} {}{alias}", from.image.text())
        }
        Instruction::Run(run) => {
            let mounts: String = run
                .mounts
                .iter()
                .map(|mount| format!(" --mount={}", mount.written().text()))
                .collect();
            let network = run
                .network
                .map(|network| format!(" --network={:?}", network.value))
                .unwrap_or_default();
            let security = run
                .security
                .map(|security| format!(" --security={:?}", security.value))
                .unwrap_or_default();
            format!(
                "RUN{mounts}{network}{security}{} {}",
                many("device", &run.devices),
                command(&run.command)
            )
        }
        Instruction::Cmd(line) => format!("CMD {}", command(line)),
        Instruction::Entrypoint(line) => format!("ENTRYPOINT {}", command(line)),
        Instruction::Label(words) => format!("LABEL {}", pairs(words)),
        Instruction::Env(words) => format!("ENV {}", pairs(words)),
        Instruction::Maintainer(name) => format!("MAINTAINER {}", name.text()),
        Instruction::Expose(ports) => format!("EXPOSE {}", list(ports)),
        Instruction::Volume(paths) => format!("VOLUME {}", list(paths)),
        Instruction::Shell(words) => format!("SHELL {}", list(words)),
        Instruction::User(user) => format!("USER {}", user.text()),
        Instruction::Workdir(path) => format!("WORKDIR {}", path.text()),
        Instruction::Stopsignal(signal) => format!("STOPSIGNAL {}", signal.text()),
        Instruction::Arg(arguments) => {
            let words = arguments.iter().map(|argument| match &argument.default {
                Some(default) => format!("[{}]=[{}]", argument.name.text(), default.text()),
                None => format!("[{}]", argument.name.text()),
            });
            format!("ARG {}", words.collect::<Vec<_>>().join(" "))
        }
        Instruction::Copy(copy) => format!(
            "COPY{}{}{}{}{}{} {}",
            text("from", copy.from.as_ref()),
            text("chown", copy.chown.as_ref()),
            text("chmod", copy.chmod.as_ref()),
            boolean("link", copy.link),
            boolean("parents", copy.parents),
            many("exclude", &copy.exclude),
            transfer(&copy.transfer)
        ),
        Instruction::Add(add) => format!(
            "ADD{}{}{}{}{}{}{} {}",
            text("chown", add.chown.as_ref()),
            text("chmod", add.chmod.as_ref()),
            boolean("link", add.link),
            boolean("keep-git-dir", add.keep_git_dir),
            text("checksum", add.checksum.as_ref()),
            boolean("unpack", add.unpack),
            many("exclude", &add.exclude),
            transfer(&add.transfer)
        ),
        Instruction::Onbuild(onbuild) => {
            format!("ONBUILD {:?} -> {}", onbuild.expression, self::instruction(&onbuild.trigger))
        }
        Instruction::Healthcheck(Healthcheck::None) => "HEALTHCHECK NONE".into(),
        Instruction::Healthcheck(Healthcheck::Check {
            command: line,
            interval,
            timeout,
            start_period,
            start_interval,
            retries,
        }) => {
            let mut shown = "HEALTHCHECK".to_owned();
            let durations = [
                ("interval", interval),
                ("timeout", timeout),
                ("start-period", start_period),
                ("start-interval", start_interval),
            ];
            for (name, duration) in durations {
                if let Some(duration) = duration {
                    write!(shown, " --{name}={duration:?}").unwrap();
                }
            }
            if let Some(retries) = retries {
                write!(shown, " --retries={retries}").unwrap();
            }
            format!("{shown} {}", command(line))
        }
        Instruction::Unknown(rest) => format!("? {}", rest.text()),
    }
}

fn command(command: &Command) -> String {
    match command {
        Command::Shell(text) => format!("sh {}", text.text()),
        Command::Exec(words) => format!("exec {}", list(words)),
    }
}

fn pairs(words: &Pairs) -> String {
    let shown =
        words.pairs.iter().map(|pair| format!("[{}]=[{}]", pair.key.text(), pair.value.text()));
    let legacy = if words.legacy { " legacy" } else { "" };
    format!("{}{legacy}", shown.collect::<Vec<_>>().join(" "))
}

fn transfer(transfer: &Transfer) -> String {
    let inline = transfer.inline.iter().map(body);
    let sources = transfer.sources.iter().map(|source| format!("[{}]", source.text()));
    let words: Vec<_> = sources.chain(inline).collect();
    format!("{} -> [{}]", words.join(" "), transfer.destination.text())
}

fn body(heredoc: &Heredoc) -> String {
    let fd = heredoc.file_descriptor.map(|fd| fd.to_string()).unwrap_or_default();
    let chomp = if heredoc.chomp { "-" } else { "" };
    let quote = if heredoc.expand { "" } else { "'" };
    format!("{fd}<<{chomp}{quote}{}{quote} {:?}", heredoc.name, heredoc.content().text())
}

fn list(words: &[Mapped]) -> String {
    words.iter().map(|word| format!("[{}]", word.text())).collect::<Vec<_>>().join(" ")
}

fn text(name: &str, value: Option<&Mapped>) -> String {
    value.map(|value| format!(" --{name}={}", value.text())).unwrap_or_default()
}

fn many(name: &str, values: &[Mapped]) -> String {
    values.iter().map(|value| format!(" --{name}={}", value.text())).collect()
}

fn boolean(name: &str, value: Option<Spanned<bool>>) -> String {
    value.map(|value| format!(" --{name}={}", value.value)).unwrap_or_default()
}
