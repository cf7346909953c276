//! ADD.

use super::copy::Wanted;
use super::lowering::Lowering;
use super::place::{Fallible, Place, Scope};
use super::remote::{Remote, remote};
use crate::dockerfile::ast::Add;

impl<'a> Lowering<'a> {
    /// Adds paths of the build context, archives among them unpacked.
    pub(super) fn add(
        &mut self,
        place: &Place<'_, 'a>,
        scope: &mut Scope,
        add: &Add,
    ) -> Fallible<()> {
        let sources = self.expand_all(place, &scope.state, &add.transfer.sources)?;
        for (source, written) in sources.iter().zip(&add.transfer.sources) {
            let what = match remote(source) {
                Some(Remote::Git) => "ADD of a git repository",
                Some(Remote::Http) => "ADD of a URL",
                None => continue,
            };
            let help = "fetch it in a RUN of an earlier stage and take it with COPY --from";
            return Err(place.unsupported(written.span(), what, help));
        }
        if let Some(checksum) = &add.checksum {
            let message = match sources.as_slice() {
                [_] => "checksum requires HTTP(S) or Git sources",
                _ => "checksum can't be specified for multiple sources",
            };
            return Err(place.error("checksum", checksum.span(), message));
        }
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
        self.add_from_context(place, scope, &wanted, &sources)
    }
}
