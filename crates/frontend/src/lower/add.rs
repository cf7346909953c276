//! ADD.

use rbuild_oci::Digest;
use rbuild_solver::{CopyAction, Op, SourceOp, VertexMeta, redact_url};

use super::copy::{Item, Wanted};
use super::lowering::Lowering;
use super::place::{Fallible, Place, Scope};
use super::remote::{Remote, remote};
use crate::dockerfile::ast::Add;
use crate::dockerfile::mapped::Mapped;
use crate::git_url::GitUrl;
use crate::source::Span;

impl<'a> Lowering<'a> {
    /// Adds paths of the build context, archives among them unpacked, files behind addresses and git repositories.
    pub(super) fn add(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        add: &Add,
    ) -> Fallible<()> {
        let sources = self.expand_all(place, &scope.state, &add.transfer.sources)?;
        let mut remotes = Vec::with_capacity(sources.len());
        for (source, written) in sources.iter().zip(&add.transfer.sources) {
            let found = remote(source).map_err(|error| {
                place.error("git-url", written.span(), format!("failed to parse git ref: {error}"))
            })?;
            remotes.push(found);
        }
        let checksum = self.checksum(place, scope, add, &remotes)?;
        let fetch = Fetch { add, checksum: checksum.as_deref() };
        let mut fetched = Vec::with_capacity(sources.len());
        for ((source, written), remote) in sources.iter().zip(&add.transfer.sources).zip(remotes) {
            fetched.push(match remote {
                None => None,
                Some(Remote::Http { file_name }) => {
                    let source = fetch.http(place, source, &file_name)?;
                    Some((
                        source,
                        CopyAction {
                            src: format!("/{file_name}"),
                            attempt_unpack: add.unpack.is_some_and(|unpack| unpack.value),
                            ..CopyAction::default()
                        },
                    ))
                }
                Some(Remote::Git(url)) => {
                    let source = fetch.git(place, *url, written.span())?;
                    Some((
                        source,
                        CopyAction {
                            src: "/".to_owned(),
                            dir_copy_contents: true,
                            ..CopyAction::default()
                        },
                    ))
                }
            });
        }
        let items = fetched.into_iter().map(|fetched| {
            let (source, action) = fetched?;
            let meta = VertexMeta { name: source.shown(), ..VertexMeta::default() };
            let node = self.draft.add(Op::Source(source), Vec::new(), None, meta);
            Some(Item { node: Some(node), action })
        });
        let items = items.collect();
        let shown: Vec<String> = sources.iter().map(|source| redact_url(source)).collect();
        let wanted = Wanted {
            keyword: "ADD",
            transfer: &add.transfer,
            chown: add.chown.as_ref(),
            chmod: add.chmod.as_ref(),
            exclude: &add.exclude,
            link: add.link.is_some_and(|link| link.value),
            parents: false,
            unpack: add.unpack.is_none_or(|unpack| unpack.value),
        };
        self.add_from_context(place, scope, &wanted, &shown, items)
    }

    /// What `--checksum` says.
    fn checksum(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &Scope,
        add: &Add,
        remotes: &[Option<Remote>],
    ) -> Fallible<Option<String>> {
        let Some(written) = &add.checksum else { return Ok(None) };
        let text = self.expand(place, &scope.state, written)?;
        let message = match remotes {
            _ if text.is_empty() => return Ok(None),
            [Some(_)] => return Ok(Some(text)),
            [None] => "checksum requires HTTP(S) or Git sources",
            _ => "checksum can't be specified for multiple sources",
        };
        Err(place.error("checksum", written.span(), message))
    }
}

/// What flags say of sources that are fetched.
struct Fetch<'t> {
    add: &'t Add,
    checksum: Option<&'t str>,
}

impl Fetch<'_> {
    fn http(&self, place: &Place<'_, '_>, url: &str, file_name: &str) -> Fallible<SourceOp> {
        let mut source = SourceOp::new(url);
        source.attrs.insert("http.filename".to_owned(), file_name.to_owned());
        if let Some(checksum) = self.checksum {
            let digest = Digest::parse(checksum).map_err(|error| {
                let message = format!("invalid checksum {checksum:?}: {error}");
                place.error("checksum", self.checksum_span(), message)
            })?;
            source.attrs.insert("http.checksum".to_owned(), digest.to_string());
        }
        Ok(source)
    }

    fn git(&self, place: &Place<'_, '_>, mut url: GitUrl, span: Span) -> Fallible<SourceOp> {
        if let Some(keep) = self.add.keep_git_dir {
            if url.keep_git_dir.is_some_and(|said| said != keep.value) {
                let message = "inconsistent keep-git-dir configuration";
                return Err(place.error("keep-git-dir", span, message));
            }
            url.keep_git_dir = Some(keep.value);
        }
        if let Some(checksum) = self.checksum {
            if let Some(said) = url.checksum.as_deref().filter(|said| *said != checksum) {
                let message = format!("checksum mismatch {said:?} != {checksum:?}");
                return Err(place.error("checksum", self.checksum_span(), message));
            }
            let is_hex = checksum.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_hex || checksum.len() > 64 {
                let message = format!("invalid checksum {checksum:?}: it is no id of a commit");
                return Err(place.error("checksum", self.checksum_span(), message));
            }
            url.checksum = Some(checksum.to_owned());
        }
        Ok(url.source())
    }

    fn checksum_span(&self) -> Span {
        self.add.checksum.as_ref().map_or(Span::at(0), Mapped::span)
    }
}
