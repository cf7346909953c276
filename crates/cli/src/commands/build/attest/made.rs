//! The attestations of a result.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rbuild_exporter::{
    Attestation, BuildFacts, Described, ExportError, ExportStore, Image, SPDX_DOCUMENT, provenance,
    snapshot_inventory, spdx_document,
};
use rbuild_oci::{DiffId, Platform, Reference};
use rbuild_solver::{Progress, Snapshot};
use serde_json::Value;

use super::options::AttestPlan;

/// How many files that could not be read are named.
const MOST_WARNINGS: usize = 5;

/// The attestations that a build's outputs get.
#[derive(Clone, Debug)]
pub(crate) struct Attesting {
    pub(crate) plan: AttestPlan,
    /// One a platform, in their order.
    pub(crate) platforms: Arc<Vec<PlatformFacts>>,
}

/// What is said of one platform.
#[derive(Clone, Debug)]
pub(crate) struct PlatformFacts {
    /// For provenance, if that is wanted.
    pub(crate) build: Option<BuildFacts>,
    /// `SOURCE_DATE_EPOCH`.
    pub(crate) epoch: Option<i64>,
    /// Stages and contexts that are looked into for packages, by their names.
    pub(crate) scans: Vec<(String, Snapshot)>,
}

impl Attesting {
    /// Whether files are looked into.
    pub(crate) fn needs_files(&self) -> bool {
        self.plan.sbom
    }

    /// The files that are looked into beside the results.
    pub(crate) fn scanned(&self) -> impl Iterator<Item = &Snapshot> {
        let scans = self.platforms.iter().flat_map(|facts| &facts.scans);
        scans.map(|(_, snapshot)| snapshot)
    }

    /// How the results were made, as the metadata file says it: without layers, which depend on the output.
    pub(crate) fn provenance(
        &self,
        platforms: impl Iterator<Item = Platform>,
    ) -> Vec<(Platform, Value)> {
        let Some(wanted) = &self.plan.provenance else { return Vec::new() };
        let each = platforms.zip(self.platforms.iter());
        let said = each.filter_map(|(platform, facts)| {
            let build = facts.build.as_ref()?;
            Some((platform, provenance(build, &wanted.options, &[]).predicate))
        });
        said.collect()
    }

    /// What is said of an image.
    pub(crate) fn of_image(
        &self,
        store: ExportStore<'_>,
        platform: usize,
        (snapshot, image): (&Snapshot, &Image),
        names: &[Reference],
        progress: &Progress,
    ) -> Result<Vec<Attestation>, ExportError> {
        let facts = &self.platforms[platform];
        let mut made = Vec::new();
        if let (Some(wanted), Some(build)) = (&self.plan.provenance, &facts.build) {
            made.push(provenance(build, &wanted.options, &image.manifest.layers));
        }
        if self.plan.sbom {
            let name = names.first().map_or_else(|| "image".to_owned(), Reference::familiar);
            let named = Described { name: &name, is_image: true, created: created(facts.epoch) };
            made.push(sbom(store, snapshot, &image.diff_ids(), named, progress)?);
            made.extend(scans(store, facts, progress)?);
        }
        Ok(made)
    }

    /// What is said of the files of a result.
    pub(crate) fn of_files(
        &self,
        store: ExportStore<'_>,
        platform: usize,
        snapshot: &Snapshot,
        progress: &Progress,
    ) -> Result<Vec<Attestation>, ExportError> {
        let facts = &self.platforms[platform];
        let mut made = Vec::new();
        let wanted = self.plan.provenance.as_ref().filter(|wanted| !wanted.inline_only);
        if let (Some(wanted), Some(build)) = (wanted, &facts.build) {
            made.push(provenance(build, &wanted.options, &[]));
        }
        if self.plan.sbom {
            let named = Described { name: "files", is_image: false, created: created(facts.epoch) };
            made.push(sbom(store, snapshot, &[], named, progress)?);
            made.extend(scans(store, facts, progress)?);
        }
        Ok(made)
    }
}

/// What stages and contexts are of.
fn scans(
    store: ExportStore<'_>,
    facts: &PlatformFacts,
    progress: &Progress,
) -> Result<Vec<Attestation>, ExportError> {
    let said = facts.scans.iter().map(|(name, snapshot)| {
        let described = Described { name, is_image: false, created: created(facts.epoch) };
        let attestation = sbom(store, snapshot, &[], described, progress)?;
        // A stage's name has no slash.
        Ok(Attestation { file_name: format!("sbom-{name}.spdx.json"), ..attestation })
    });
    said.collect()
}

fn created(epoch: Option<i64>) -> i64 {
    epoch.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| now.as_secs().cast_signed())
    })
}

fn sbom(
    store: ExportStore<'_>,
    snapshot: &Snapshot,
    diff_ids: &[DiffId],
    described: Described<'_>,
    progress: &Progress,
) -> Result<Attestation, ExportError> {
    let inventory = snapshot_inventory(store, snapshot, diff_ids)?;
    for (path, reason) in inventory.unread.iter().take(MOST_WARNINGS) {
        progress.warn(format!("the SBOM has not all of `/{path}`: {reason}"));
    }
    if let Some(more) = inventory.unread.len().checked_sub(MOST_WARNINGS).filter(|more| *more > 0) {
        progress.warn(format!("the SBOM has not all of {more} more files: its comment says which"));
    }
    Ok(Attestation {
        predicate_type: SPDX_DOCUMENT,
        predicate: spdx_document(&inventory, described),
        file_name: "sbom.spdx.json".to_owned(),
    })
}
