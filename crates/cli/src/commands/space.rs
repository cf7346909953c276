//! What the store takes on the disk: `du`, `prune`.

use std::time::Duration;

use rbuild_cache::{PruneKinds, PruneOptions, Store, Usage, prune as collect};

use super::amounts::duration;
use super::images::{print, table};
use crate::args::{DuArgs, PruneArgs};
use crate::error::{CommandError, Kind};
use crate::progress::format::bytes;

/// `rbuild du`.
pub(crate) fn du(store: &Store, args: &DuArgs) -> Result<(), CommandError> {
    let usage = Usage::measure(store).map_err(|error| {
        CommandError::caused(Kind::Environment, "cannot measure the store", error)
    })?;
    let Filters { only, until } = Filters::parse(&args.filter)?;
    if until.is_some() {
        return Err(CommandError::usage("`rbuild du` can be filtered by `type` only"));
    }
    let shown = only.unwrap_or(ALL_KINDS);
    let mut out = String::new();
    if args.verbose && shown.regular {
        let rows: Vec<[String; 4]> = usage
            .each_layer
            .iter()
            .map(|layer| {
                let state = if layer.in_use { "in use" } else { "reclaimable" };
                [
                    layer.id.to_string()[..12].to_owned(),
                    bytes(layer.size),
                    state.to_owned(),
                    layer.description.clone(),
                ]
            })
            .collect();
        out.push_str(&table(["LAYER", "SIZE", "STATE", "DESCRIPTION"], &rows));
        out.push('\n');
    }
    if args.verbose && shown.cache_mounts && !usage.each_cache_mount.is_empty() {
        let mounts = usage.each_cache_mount.iter();
        let rows: Vec<[String; 3]> = mounts
            .map(|mount| {
                let state = if mount.in_use { "in use" } else { "reclaimable" };
                [mount.id.clone(), bytes(mount.size), state.to_owned()]
            })
            .collect();
        out.push_str(&table(["CACHE MOUNT", "SIZE", "STATE"], &rows));
        out.push('\n');
    }
    let row = |name: &str, count: u64, size: u64, reclaimable: u64| {
        [name.to_owned(), count.to_string(), bytes(size), bytes(reclaimable)]
    };
    let (layers, blobs, caches) = (usage.layers, usage.blobs, usage.cache_mounts);
    let rows = [
        row("Layers", layers.count, layers.size, layers.reclaimable),
        row("Blobs", blobs.count, blobs.size, blobs.reclaimable),
        row("Cache mounts", caches.count, caches.size, caches.reclaimable),
        row("Logs", usage.logs.count, usage.logs.size, usage.logs.reclaimable),
        row("Contexts", 0, usage.contexts, usage.contexts),
        row("Builds", 0, usage.builds, usage.builds),
        row("Index", usage.records, usage.index, 0),
        row("Being made", 0, usage.pending, 0),
        row("Total", usage.images, usage.total(), usage.reclaimable()),
    ];
    let is_shown = |row: &[String; 4]| match row[0].as_str() {
        "Layers" | "Blobs" => shown.regular,
        "Cache mounts" => shown.cache_mounts,
        "Contexts" => shown.contexts,
        _ => only.is_none(),
    };
    let rows = rows.into_iter().filter(is_shown).map(|mut row| {
        // Only layers, blobs, cache mounts, logs and records are counted; the others are amounts.
        row[1] = match row[0].as_str() {
            "Contexts" | "Builds" | "Being made" => String::new(),
            "Index" => format!("{} records", row[1]),
            "Total" => format!("{} images", row[1]),
            _ => row[1].clone(),
        };
        row
    });
    let rows: Vec<_> = rows.collect();
    out.push_str(&table(["KIND", "COUNT", "SIZE", "RECLAIMABLE"], &rows));
    print(out.as_bytes())
}

/// `rbuild prune`.
pub(crate) fn prune(store: &Store, args: &PruneArgs) -> Result<(), CommandError> {
    let Filters { only, until } = Filters::parse(&args.filter)?;
    let keep_duration = args.keep_duration.as_deref().map(duration).transpose()?;
    if until.is_some() && keep_duration.is_some() {
        return Err(CommandError::usage(
            "`--filter until=` and `--keep-duration` say the same: give one",
        ));
    }
    let options = PruneOptions {
        all: args.all,
        keep_duration: keep_duration.or(until),
        keep_storage: args.keep_storage.as_deref().map(size).transpose()?,
        dangling_images: true,
        only,
    };
    let pruned = collect(store, &options).map_err(|error| {
        CommandError::caused(Kind::Environment, "cannot prune the store", error)
    })?;
    let text = format!(
        "Removed {} layers, {} blobs, {} cache mounts, {} logs, {} cache records and {} images without a name: {} freed\n",
        pruned.layers.len(),
        pruned.blobs.len(),
        pruned.cache_mounts,
        pruned.logs,
        pruned.records,
        pruned.images,
        bytes(pruned.freed)
    );
    print(text.as_bytes())
}

const ALL_KINDS: PruneKinds =
    PruneKinds { regular: true, cache_mounts: true, contexts: true, repositories: true };

/// What `--filter` asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filters {
    /// `type=KIND`; of several, all of them.
    only: Option<PruneKinds>,
    /// `until=DURATION`.
    until: Option<Duration>,
}

impl Filters {
    /// The kinds have BuildKit's names.
    fn parse(filters: &[String]) -> Result<Self, CommandError> {
        let mut parsed = Self::default();
        for filter in filters {
            let (key, value) = filter.split_once('=').ok_or_else(|| {
                CommandError::usage(format!("`{filter}` is no filter: write it as KEY=VALUE"))
            })?;
            // Doubled where it is written for BuildKit's own client.
            let value = value.strip_prefix('=').unwrap_or(value);
            match key {
                "until" => parsed.until = Some(duration(value)?),
                "type" => {
                    let only = parsed.only.get_or_insert_default();
                    match value {
                        "regular" => only.regular = true,
                        "exec.cachemount" => only.cache_mounts = true,
                        "source.local" => only.contexts = true,
                        "source.git.checkout" => only.repositories = true,
                        _ => {
                            return Err(CommandError::usage(format!(
                                "the store has nothing of the type `{value}`: it is one of regular, exec.cachemount, source.local and source.git.checkout"
                            )));
                        }
                    }
                }
                _ => {
                    return Err(CommandError::usage(format!(
                        "cannot filter by `{key}`: only by `type` and `until`"
                    )));
                }
            }
        }
        Ok(parsed)
    }
}

/// `10GB`, `512MiB`, `1000`: bytes with decimal or binary units.
fn size(text: &str) -> Result<u64, CommandError> {
    let wrong =
        || CommandError::usage(format!("`{text}` is no size: write it as 10GB, 512MB or 1GiB"));
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let amount: f64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1_048_576.0,
        "gib" => 1_073_741_824.0,
        "tib" => 1_099_511_627_776.0,
        _ => return Err(wrong()),
    };
    Ok((amount * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let parse = |filters: &[&str]| {
            Filters::parse(&filters.iter().map(|filter| (*filter).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(parse(&[]).unwrap(), Filters::default());
        let some = parse(&["type=exec.cachemount", "type==regular", "until=24h"]).unwrap();
        let only = PruneKinds { regular: true, cache_mounts: true, ..PruneKinds::default() };
        assert_eq!(some.only, Some(only));
        assert_eq!(some.until, Some(Duration::from_secs(86_400)));
        for bad in ["type", "type=frontend", "id=x", "until=soon"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts() {
        assert_eq!(size("1.5GB").unwrap(), 1_500_000_000);
        assert_eq!(size("1KiB").unwrap(), 1024);
        for bad in ["", "GB", "5X", "-1"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
