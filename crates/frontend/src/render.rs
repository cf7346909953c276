//! Draws diagnostics with the lines that they are about.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level as Drawn, Origin, Patch, Renderer, Snippet,
};

use crate::diagnostic::{Diagnostic, Level};
use crate::source::{Source, Span};

/// Bytes of a long line that are shown before and after what is marked.
const CONTEXT: u32 = 120;
/// At most so many bytes are marked; more would be a wall of `^`.
const MAX_MARKED: u32 = 1_200;
/// At most so many lines of a span are shown.
const MAX_LINES: u32 = 8;
/// At most so many other places are shown.
const MAX_LABELS: usize = 8;

/// Narrower than this nothing can be read, and the library computes with the width unchecked.
const MIN_WIDTH: usize = 40;
const MAX_WIDTH: usize = 1_000;

/// How to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderOptions {
    /// Whether to use ANSI colours and Unicode lines.
    pub color: bool,
    /// The width of the terminal; drawn for 40 to 1,000 columns.
    pub width: usize,
    /// At most so many errors, and so many warnings, are drawn; the others are counted.
    pub limit: usize,
}

/// Draws warnings, then errors, each in the given order.
pub fn render(source: &Source, diagnostics: &[Diagnostic], options: RenderOptions) -> String {
    let renderer = match options.color {
        true => Renderer::styled().decor_style(DecorStyle::Unicode),
        false => Renderer::plain(),
    };
    let renderer = renderer.term_width(options.width.clamp(MIN_WIDTH, MAX_WIDTH));
    let mut drawn = String::new();
    for (level, name) in [(Level::Warning, "warning"), (Level::Error, "error")] {
        let mut rest = diagnostics.iter().filter(|diagnostic| diagnostic.level == level);
        for diagnostic in rest.by_ref().take(options.limit) {
            drawn.push_str(&renderer.render(&report(source, diagnostic)));
            drawn.push_str("\n\n");
        }
        match rest.count() {
            0 => {}
            1 => drawn.extend(["and 1 more ", name, "\n\n"]),
            more => drawn.extend(["and ", &more.to_string(), " more ", name, "s\n\n"]),
        }
    }
    drawn.truncate(drawn.trim_end().len());
    if !drawn.is_empty() {
        drawn.push('\n');
    }
    drawn
}

fn report<'a>(source: &'a Source, diagnostic: &'a Diagnostic) -> Vec<Group<'a>> {
    let level = match diagnostic.level {
        Level::Error => Drawn::ERROR,
        Level::Warning => Drawn::WARNING,
    };
    let excerpt = Excerpt::around(source, diagnostic.span);
    let mut group =
        Group::with_title(level.primary_title(&*diagnostic.message).id(diagnostic.code));
    let mut annotations =
        vec![excerpt.mark(AnnotationKind::Primary, diagnostic.span, &diagnostic.label)];
    let mut elsewhere = Vec::new();
    for label in diagnostic.labels.iter().take(MAX_LABELS) {
        match excerpt.holds(label.span) {
            true => {
                annotations.push(excerpt.mark(AnnotationKind::Context, label.span, &label.text));
            }
            false => elsewhere.push(label),
        }
    }
    if let Some(origin) = excerpt.origin() {
        group = group.element(origin);
    }
    group = group.element(excerpt.snippet().annotations(annotations));
    for label in elsewhere {
        let excerpt = Excerpt::around(source, label.span);
        if let Some(origin) = excerpt.origin() {
            group = group.element(origin);
        }
        group = group.element(excerpt.snippet().annotation(excerpt.mark(
            AnnotationKind::Context,
            label.span,
            &label.text,
        )));
    }
    if let Some(url) = diagnostic.url {
        group = group.element(Drawn::NOTE.message(url));
    }
    let mut groups = Vec::new();
    let fix = fix(source, diagnostic);
    if let (Some(help), None) = (&diagnostic.help, &fix) {
        group = group.element(Drawn::HELP.message(&**help));
    }
    groups.push(group);
    groups.extend(fix);
    groups
}

/// What the text would be when mended; `None` if that cannot be shown in one place.
fn fix<'a>(source: &'a Source, diagnostic: &'a Diagnostic) -> Option<Group<'a>> {
    let all = diagnostic.fixes.iter().map(|edit| edit.span).reduce(Span::to)?;
    let excerpt = Excerpt::around(source, all);
    if !excerpt.holds(all) || excerpt.origin().is_some() {
        return None;
    }
    let help = diagnostic.help.as_deref().unwrap_or("try this");
    let patches = diagnostic
        .fixes
        .iter()
        .map(|edit| Patch::new(excerpt.range(edit.span), &*edit.replacement));
    Some(
        Group::with_title(Drawn::HELP.secondary_title(help))
            .element(excerpt.patches().patches(patches)),
    )
}

/// A stretch of the source that is small enough to be drawn.
struct Excerpt<'a> {
    source: &'a Source,
    span: Span,
    /// What of a line was left out at its start, if anything: then columns must be said apart.
    cut_at: Option<u32>,
}

impl<'a> Excerpt<'a> {
    fn around(source: &'a Source, span: Span) -> Self {
        let first = source.line(span.start);
        let last = source.line(span.end).min(first + MAX_LINES - 1);
        let line = |number| source.line_span(number).unwrap_or(Span::at(source.len()));
        let marked_end = span.end.min(span.start.saturating_add(MAX_MARKED));
        let mut start = line(first).start;
        let mut cut_at = None;
        if span.start - start > MAX_MARKED {
            start = source.floor_char_boundary(span.start - CONTEXT);
            cut_at = Some(span.start);
        }
        let end = line(last)
            .end
            .min(source.floor_char_boundary(marked_end.saturating_add(CONTEXT).min(source.len())));
        Self { source, span: Span::new(start, end.max(start)), cut_at }
    }

    fn holds(&self, span: Span) -> bool {
        self.span.start <= span.start && span.end <= self.span.end
    }

    /// A span within the excerpt, or as much of it as there is.
    fn range(&self, span: Span) -> std::ops::Range<usize> {
        let marked =
            self.source.floor_char_boundary(span.end.min(span.start.saturating_add(MAX_MARKED)));
        let end = marked.clamp(self.span.start, self.span.end);
        let start = span.start.clamp(self.span.start, end);
        (start - self.span.start) as usize..(end - self.span.start) as usize
    }

    fn mark(&self, kind: AnnotationKind, span: Span, label: &'a str) -> Annotation<'a> {
        let annotation = kind.span(self.range(span));
        if label.is_empty() { annotation } else { annotation.label(label) }
    }

    fn origin(&self) -> Option<Origin<'a>> {
        let position = self.source.position(self.cut_at?);
        Some(
            Origin::path(self.source.name())
                .line(position.line as usize)
                .char_column(position.column as usize),
        )
    }

    fn snippet(&self) -> Snippet<'a, Annotation<'a>> {
        let snippet =
            Snippet::source(self.source.slice(self.span)).line_start(self.line()).fold(false);
        match self.cut_at {
            Some(_) => snippet,
            None => snippet.path(self.source.name()),
        }
    }

    fn patches(&self) -> Snippet<'a, Patch<'a>> {
        Snippet::source(self.source.slice(self.span))
            .line_start(self.line())
            .path(self.source.name())
    }

    fn line(&self) -> usize {
        self.source.line(self.span.start) as usize
    }
}
