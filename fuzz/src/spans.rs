//! Every place that a parsed file names is in its text, on character borders, and says what it is said to say.

use rbuild_frontend::{
    Add, Argument, Command, Copy, Diagnostic, Dockerfile, Healthcheck, Heredoc, Instruction,
    Mapped, Pairs, Run, Source, Span, Spanned, Statement, Transfer,
};

/// Walks over all that a file says, and counts the bytes of it.
pub(crate) struct Walk<'a> {
    source: &'a Source,
    /// The bytes of all texts.
    pub(crate) size: usize,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(source: &'a Source) -> Self {
        Self { source, size: 0 }
    }

    pub(crate) fn file(&mut self, dockerfile: &Dockerfile) {
        let mut end = 0;
        for statement in &dockerfile.statements {
            assert!(end <= statement.span.start, "statements overlap at {:?}", statement.span);
            end = statement.span.end;
            self.statement(statement);
        }
        let directives = &dockerfile.directives;
        self.all(directives.syntax.iter().chain(&directives.check));
        self.diagnostics(&dockerfile.diagnostics);
    }

    pub(crate) fn diagnostics(&mut self, diagnostics: &[Diagnostic]) {
        for diagnostic in diagnostics {
            assert!(!diagnostic.message.is_empty(), "{}", diagnostic.code);
            self.size += diagnostic.message.len();
            self.span(diagnostic.span);
            diagnostic.labels.iter().for_each(|label| self.span(label.span));
            diagnostic.fixes.iter().for_each(|edit| self.span(edit.span));
        }
    }

    fn statement(&mut self, statement: &Statement) {
        self.span(statement.span);
        assert!(statement.line <= self.source.line(statement.span.start));
        assert!((statement.line..=self.source.line_count()).contains(&statement.end_line));
        self.all([&statement.keyword, &statement.original]);
        self.all(&statement.comments);
        statement.blank_lines.iter().for_each(|line| self.span(*line));
        statement.heredocs.iter().for_each(|heredoc| self.heredoc(heredoc));
        self.instruction(&statement.instruction);
    }

    fn instruction(&mut self, instruction: &Instruction) {
        match instruction {
            Instruction::From(from) => {
                self.all([&from.image].into_iter().chain(&from.platform));
                from.platform_flag.iter().for_each(|span| self.span(*span));
                if let Some(alias) = &from.alias {
                    self.all([&alias.keyword, &alias.written]);
                    assert_eq!(alias.name, alias.written.text().to_lowercase());
                }
            }
            Instruction::Run(run) => self.run(run),
            Instruction::Cmd(command) | Instruction::Entrypoint(command) => self.command(command),
            Instruction::Env(pairs) | Instruction::Label(pairs) => self.pairs(pairs),
            Instruction::Expose(words) | Instruction::Volume(words) | Instruction::Shell(words) => {
                self.all(words);
            }
            Instruction::Maintainer(text)
            | Instruction::User(text)
            | Instruction::Workdir(text)
            | Instruction::Stopsignal(text)
            | Instruction::Unknown(text) => self.mapped(text),
            Instruction::Add(add) => self.add(add),
            Instruction::Copy(copy) => self.copy(copy),
            Instruction::Arg(arguments) => {
                for Argument { name, default } in arguments {
                    self.all([name].into_iter().chain(default));
                }
            }
            Instruction::Onbuild(onbuild) => {
                self.size += onbuild.expression.len();
                self.instruction(&onbuild.trigger);
            }
            Instruction::Healthcheck(Healthcheck::Check { command, .. }) => self.command(command),
            Instruction::Healthcheck(Healthcheck::None) => {}
        }
    }

    fn run(&mut self, run: &Run) {
        self.command(&run.command);
        self.all(run.mounts.iter().map(rbuild_frontend::MountSpec::written));
        self.all(run.mounts.iter().filter_map(rbuild_frontend::MountSpec::from));
        self.all(&run.devices);
        run.network.iter().for_each(|network| self.span(network.span));
        run.security.iter().for_each(|security| self.span(security.span));
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Shell(text) => self.mapped(text),
            Command::Exec(words) => self.all(words),
        }
    }

    fn pairs(&mut self, pairs: &Pairs) {
        assert!(!pairs.pairs.is_empty());
        pairs.pairs.iter().for_each(|pair| self.all([&pair.key, &pair.value]));
    }

    fn add(&mut self, add: &Add) {
        self.transfer(&add.transfer);
        self.all(add.chown.iter().chain(&add.chmod).chain(&add.checksum).chain(&add.exclude));
        self.flags([&add.link, &add.keep_git_dir, &add.unpack]);
    }

    fn copy(&mut self, copy: &Copy) {
        self.transfer(&copy.transfer);
        self.all(copy.from.iter().chain(&copy.chown).chain(&copy.chmod).chain(&copy.exclude));
        self.flags([&copy.link, &copy.parents]);
    }

    fn transfer(&mut self, transfer: &Transfer) {
        self.all(&transfer.sources);
        self.mapped(&transfer.destination);
        transfer.inline.iter().for_each(|heredoc| self.heredoc(heredoc));
    }

    fn flags<'f>(&self, flags: impl IntoIterator<Item = &'f Option<Spanned<bool>>>) {
        flags.into_iter().flatten().for_each(|flag| self.span(flag.span));
    }

    fn heredoc(&mut self, heredoc: &Heredoc) {
        self.all([&heredoc.word, &heredoc.body, &heredoc.content()]);
        self.size += heredoc.name.len();
    }

    fn all<'m>(&mut self, texts: impl IntoIterator<Item = &'m Mapped>) {
        texts.into_iter().for_each(|text| self.mapped(text));
    }

    fn mapped(&mut self, mapped: &Mapped) {
        self.size += mapped.text().len();
        self.span(mapped.span());
        for (at, character) in mapped.text().char_indices() {
            let span = mapped.span_of(at..at + character.len_utf8());
            self.span(span);
            let written = self.source.slice(span);
            // Only JSON's escapes are decoded.
            let is_same = written.chars().eq([character]) || written.starts_with('\\');
            assert!(is_same, "{character:?} is said to be {written:?}");
        }
    }

    fn span(&self, span: Span) {
        let text = self.source.text().get(span.range());
        assert!(text.is_some(), "{span:?} is outside or within a character");
        for offset in [span.start, span.end] {
            let position = self.source.position(offset);
            assert!(position.line <= self.source.line_count() && position.column > 0);
        }
    }
}
