//! COPY, and what ADD has in common with it.

use rbuild_solver::{
    ChownSpec, CopyAction, FileAction, FileActionKind, FileOp, MergeOp, MkfileAction, Op,
    VertexMeta, clean_path, has_wildcards,
};

use super::lowering::Lowering;
use super::ownership::{needs_names, parse_chmod, parse_chown};
use super::place::{Fallible, Place, Scope};
use super::remote::{Remote, remote};
use super::state::join;
use super::step_name::{shown, without_passwords};
use crate::check::Rule;
use crate::dockerfile::ast::{Copy, Heredoc, Transfer};
use crate::dockerfile::mapped::Mapped;
use crate::draft::Node;
use crate::shell::Shell;
use crate::source::{Span, Spanned};
use crate::stage::Origin;

/// The local source of the main context.
pub(super) const CONTEXT: &str = "context";

/// What COPY and ADD say, but for variables.
#[derive(Debug)]
pub(super) struct Wanted<'t> {
    /// `COPY` or `ADD`.
    pub(super) keyword: &'static str,
    pub(super) transfer: &'t Transfer,
    pub(super) chown: Option<&'t Mapped>,
    pub(super) chmod: Option<&'t Mapped>,
    pub(super) exclude: &'t [Mapped],
    pub(super) link: bool,
    pub(super) parents: bool,
    pub(super) unpack: bool,
}

/// Where sources are looked for.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Context,
    Local(String),
    /// Files of a stage or an image; `None` for none at all.
    Files(Option<Node>),
}

/// What is copied.
#[derive(Debug)]
struct Sources<'s> {
    /// Where paths are looked for.
    from: &'s Source,
    /// The paths, or the addresses as they may be shown.
    paths: &'s [String],
    /// In the place of a path, what was fetched instead.
    fetched: Vec<Option<Item>>,
}

/// One thing that is copied.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) node: Option<Node>,
    pub(super) action: CopyAction,
}

impl<'a> Lowering<'a> {
    pub(super) fn copy(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        copy: &Copy,
    ) -> Fallible<()> {
        let Some(source) = self.source(place, copy)? else { return Ok(()) };
        let is_set = |flag: &Option<Spanned<bool>>| flag.is_some_and(|flag| flag.value);
        let wanted = Wanted {
            keyword: "COPY",
            transfer: &copy.transfer,
            chown: copy.chown.as_ref(),
            chmod: copy.chmod.as_ref(),
            exclude: &copy.exclude,
            link: is_set(&copy.link),
            parents: is_set(&copy.parents),
            unpack: false,
        };
        let sources = self.expand_all(place, &scope.state, &copy.transfer.sources)?;
        for (source, written) in sources.iter().zip(&copy.transfer.sources) {
            match remote(source) {
                Ok(Some(Remote::Git(_))) | Err(_) => {
                    let message = "source can't be a git ref for COPY";
                    return Err(place.error("copy-source", written.span(), message));
                }
                Ok(Some(Remote::Http { .. })) => {
                    let message = "source can't be a URL for COPY";
                    return Err(place.error("copy-source", written.span(), message));
                }
                Ok(None) => {}
            }
        }
        self.transfer(
            place,
            scope,
            &wanted,
            Sources { from: &source, paths: &sources, fetched: Vec::new() },
        )
    }

    /// Adds files of the main context, or in their places what was fetched. `sources` are the words that say it.
    pub(super) fn add_from_context(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        wanted: &Wanted<'_>,
        sources: &[String],
        fetched: Vec<Option<Item>>,
    ) -> Fallible<()> {
        let sources = Sources { from: &Source::Context, paths: sources, fetched };
        self.transfer(place, scope, wanted, sources)
    }

    /// What `--from` names; `None` if that is an error which was told.
    fn source(&mut self, place: &Place<'_, 'a>, copy: &Copy) -> Fallible<Option<Source>> {
        let Some(written) = &copy.from else { return Ok(Some(Source::Context)) };
        self.origin(place.step.from.as_ref()).map_err(|stage| {
            let message = format!(
                "cannot copy from stage {:?}, it needs to be defined before current stage {:?}",
                written.text(),
                place.label
            );
            let span = place.plan.stages[stage].statement.original.span();
            let error = place.error("stage-order", written.span(), message);
            Box::new(error.with_other(span, "defined here"))
        })
    }

    /// The files of what a name stands for; `None` for what is an error that was told. A stage that is not done yet is
    /// an error.
    pub(super) fn origin(&mut self, origin: Option<&Origin>) -> Result<Option<Source>, usize> {
        Ok(match origin {
            None => None,
            Some(Origin::Scratch) => Some(Source::Files(None)),
            Some(Origin::Image(image)) => Some(Source::Files(self.copied_image(image))),
            Some(Origin::Local(name)) => Some(Source::Local(name.clone())),
            Some(Origin::Stage(stage)) => {
                let root = self.roots[*stage].ok_or(*stage)?;
                Some(Source::Files(root.node))
            }
        })
    }

    fn transfer(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        wanted: &Wanted<'_>,
        sources: Sources<'_>,
    ) -> Fallible<()> {
        let Sources { from: source, paths: sources, fetched } = sources;
        let state = &scope.state;
        let written_destination = &wanted.transfer.destination;
        let destination = self.expand(place, state, written_destination)?;
        let is_link = wanted.link && wanted.chmod.is_none();
        // A link stands on nothing, so that it has no files to look names up in.
        let names_from = state.root.filter(|_| !is_link).map(|_| 0);
        let (chown, owner) = self.chown(place, scope, wanted, is_link, names_from)?;
        let state = &scope.state;
        let chmod_text = match wanted.chmod {
            Some(chmod) => self.expand(place, state, chmod)?,
            None => String::new(),
        };
        let chmod = parse_chmod(&chmod_text).map_err(|message| {
            let span = wanted.chmod.map_or(Span::at(0), Mapped::span);
            place.error("chmod", span, message)
        })?;
        // Every source has all of that again.
        let exclude = wanted.exclude.iter().map(|text| text.text().len() + size_of::<String>());
        let repeated = state.directory().len() + destination.len() + chown.len() + chmod_text.len();
        let count = sources.len() + wanted.transfer.inline.len();
        self.spend(count * (repeated + exclude.sum::<usize>()), place)?;
        let state = &scope.state;
        let template = CopyAction {
            dest: destination_path(state.directory(), &destination),
            owner,
            mode: chmod.mode,
            mode_str: chmod.symbolic.clone(),
            create_dest_path: true,
            timestamp: self.timestamp(),
            exclude_patterns: wanted.exclude.iter().map(|text| text.text().to_owned()).collect(),
            ..CopyAction::default()
        };
        let mut items = Vec::new();
        let fetched = fetched.into_iter().chain(std::iter::repeat_with(|| None));
        for ((path, written), fetched) in sources.iter().zip(&wanted.transfer.sources).zip(fetched)
        {
            if let Some(Item { node, action }) = fetched {
                items.push(Item { node, action: of_fetched(action, &template) });
                continue;
            }
            let node = match source {
                Source::Files(node) => *node,
                Source::Context => {
                    self.lint_ignored(place, wanted, path, written);
                    let node = self.main_context();
                    self.draft.follow(CONTEXT, &join("/", path));
                    Some(node)
                }
                Source::Local(name) => {
                    let node = self.local(name);
                    self.draft.follow(name, &join("/", path));
                    Some(node)
                }
            };
            items.push(Item { node, action: of_path(path, wanted, &template) });
        }
        for heredoc in &wanted.transfer.inline {
            let node = self.inline(place, scope, heredoc)?;
            let src = join("/", &heredoc.name);
            items.push(Item { node: Some(node), action: CopyAction { src, ..template.clone() } });
        }
        let created_by = created_by(wanted, &chown, &chmod_text, sources, &destination);
        self.add_copy(place, scope, items, is_link);
        self.commit(place, &mut scope.state, created_by, true)
    }

    fn chown(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &Scope,
        wanted: &Wanted<'_>,
        is_link: bool,
        names_from: Option<u32>,
    ) -> Fallible<(String, Option<ChownSpec>)> {
        let Some(written) = wanted.chown else { return Ok((String::new(), None)) };
        let text = self.expand(place, &scope.state, written)?;
        let owner = parse_chown(&text, names_from);
        if is_link && owner.as_ref().is_some_and(needs_names) {
            let message = "invalid user index: a name in --chown cannot be used with --link";
            let error = place.error("chown", written.span(), message);
            let help = "with --link the copy stands on nothing, so that there is no /etc/passwd; use numbers";
            return Err(Box::new(error.with_help(help)));
        }
        Ok((text, owner))
    }

    /// The vertices of a copy.
    fn add_copy(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        items: Vec<Item>,
        is_link: bool,
    ) {
        let state = &mut scope.state;
        let base = state.root.filter(|_| !is_link);
        let mut inputs: Vec<Node> = base.into_iter().collect();
        let secondary: Vec<Option<u32>> =
            items.iter().map(|item| item.node.map(|node| index_of(&mut inputs, node))).collect();
        let (count, last) = (inputs.len() as u32, items.len().saturating_sub(1));
        let actions = items
            .into_iter()
            .zip(secondary)
            .enumerate()
            .map(|(index, (item, secondary_input))| FileAction {
                // After the first, each goes on with what the one before it left.
                input: match index {
                    0 => base.map(|_| 0),
                    _ => Some(count + index as u32 - 1),
                },
                secondary_input,
                output: (index == last).then_some(0),
                kind: FileActionKind::Copy(item.action),
            })
            .collect();
        let command = shown(place.step.statement.original.text(), self.shell, &state.environment);
        let command = without_passwords(&command);
        let is_trigger = place.step.trigger_of.is_some();
        let name = scope.names.next(&command, is_trigger, &state.platform, &state.environment);
        let meta = self.meta(place, name);
        let copied = self.draft.add(Op::File(FileOp { actions }), inputs, None, meta);
        let below = state.root.filter(|_| is_link);
        state.root = Some(match below {
            None => copied,
            Some(below) => {
                scope.names.done -= usize::from(scope.names.total > 0);
                let command = format!("LINK {command}");
                let name =
                    scope.names.next(&command, is_trigger, &state.platform, &state.environment);
                let meta = self.meta(place, name);
                let merge = MergeOp { inputs: vec![Some(0), Some(1)] };
                self.draft.add(Op::Merge(merge), vec![below, copied], None, meta)
            }
        });
    }

    /// A file that is written in the Dockerfile.
    fn inline(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &Scope,
        heredoc: &Heredoc,
    ) -> Fallible<Node> {
        let data = match heredoc.expand {
            true => {
                let content = heredoc.content();
                let shell = Shell::for_heredoc();
                self.expand_with(shell, place, &scope.state, &content)?.value.into_bytes()
            }
            false => heredoc.content_bytes(),
        };
        Ok(self.inline_file(&heredoc.name, 0o644, data))
    }

    /// A directory with nothing but this file in it.
    pub(super) fn inline_file(&mut self, name: &str, mode: u32, data: Vec<u8>) -> Node {
        let mkfile = MkfileAction {
            path: join("/", name),
            mode,
            data,
            owner: None,
            // Not even with an epoch: the copy from here sets it.
            timestamp: None,
        };
        let kind = FileActionKind::Mkfile(mkfile);
        let action = FileAction { input: None, secondary_input: None, output: Some(0), kind };
        let name = "[internal] preparing inline document".to_owned();
        let meta = VertexMeta { name, ..VertexMeta::default() };
        self.draft.add(Op::File(FileOp { actions: vec![action] }), Vec::new(), None, meta)
    }

    fn lint_ignored(
        &mut self,
        place: &Place<'_, 'a>,
        wanted: &Wanted<'_>,
        path: &str,
        written: &Mapped,
    ) {
        let Some(ignored) = &self.ignored else { return };
        let path = clean_path(path);
        let relative = path.strip_prefix('/').unwrap_or(&path);
        let is_ignored = match relative {
            "" | "." => {
                let is_all = |pattern: &String| matches!(pattern.as_str(), "*" | "**" | "**/*");
                self.options.context_ignore.iter().any(is_all)
            }
            relative => ignored.matches(relative.as_bytes()),
        };
        if is_ignored {
            let verb = if wanted.keyword == "ADD" { "Add" } else { "Copy" };
            let message =
                format!("Attempting to {verb} file {path:?} that is excluded by .dockerignore");
            self.warn(Rule::CopyIgnoredFile, place.step.place(written.span()), message);
        }
    }
}

/// The action that copies a source path.
fn of_path(path: &str, wanted: &Wanted<'_>, template: &CopyAction) -> CopyAction {
    let mut action = CopyAction {
        follow_symlink: true,
        dir_copy_contents: true,
        attempt_unpack: wanted.unpack,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..template.clone()
    };
    if !wanted.parents {
        action.src = join("/", path);
        return action;
    }
    // What comes before `/./` is only where to look, what comes after is kept at the destination.
    let (root, pattern) = path.split_once("/./").unwrap_or(("/", path));
    let pattern = join("/", pattern);
    action.src = join("/", root);
    if !has_wildcards(root) && !has_wildcards(&pattern) {
        action.required_paths = vec![join("/", &format!("{root}/{pattern}"))];
    }
    action.include_patterns = vec![pattern.trim_start_matches('/').to_owned()];
    action
}

/// The action that copies what was fetched: what is said of all sources, and from where it comes.
fn of_fetched(action: CopyAction, template: &CopyAction) -> CopyAction {
    CopyAction {
        src: action.src,
        attempt_unpack: action.attempt_unpack,
        dir_copy_contents: action.dir_copy_contents,
        ..template.clone()
    }
}

/// A destination as BuildKit's client writes it: absolute and clean, but with the slash or the `/.` at its end that says
/// that it is a directory. `..` at the end does not say so.
fn destination_path(directory: &str, destination: &str) -> String {
    let end = match destination {
        "" | "." => "/",
        _ if destination.ends_with('/') => "/",
        _ if destination.ends_with("/.") => "/.",
        _ => "",
    };
    let path = join(directory, destination);
    match path.strip_suffix('/') {
        Some(root) if !end.is_empty() => format!("{root}{end}"),
        _ => path + end,
    }
}

/// The history's text: of all flags only these, and `--parents` first.
fn created_by(
    wanted: &Wanted<'_>,
    chown: &str,
    chmod: &str,
    sources: &[String],
    destination: &str,
) -> String {
    let mut text = String::from(wanted.keyword);
    if wanted.parents {
        text.push_str(" --parents");
    }
    for (flag, value) in [(" --chown=", chown), (" --chmod=", chmod)] {
        if !value.is_empty() {
            text.push_str(flag);
            text.push_str(value);
        }
    }
    for source in sources {
        text.push(' ');
        text.push_str(source);
    }
    for heredoc in &wanted.transfer.inline {
        text.push_str(" <<");
        text.push_str(&heredoc.name);
    }
    text.push(' ');
    text.push_str(destination);
    text.push_str(" # buildkit");
    text
}

/// The number of an input, which is added when it is a new one.
pub(super) fn index_of(inputs: &mut Vec<Node>, node: Node) -> u32 {
    let index = inputs.iter().position(|input| *input == node).unwrap_or_else(|| {
        inputs.push(node);
        inputs.len() - 1
    });
    index as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_1_destinations() {
        for (destination, expected) in [
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("a", "/w/a"),
            ("a/", "/w/a/"),
            (".", "/w/"),
            ("", "/w/"),
            ("./", "/w/"),
            ("./.", "/w/."),
            ("/.", "/."),
            ("..", "/"),
            ("../x/.", "/x/."),
            ("/", "/"),
            ("/a/../..", "/"),
            ("a/b/..", "/w/a"),
        ] {
            assert_eq!(destination_path("/w", destination), expected, "{destination}");
        }
    }
}
