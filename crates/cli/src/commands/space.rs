//! What the store takes on the disk: `du`, `prune`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use rbuild_cache::{
    DiskSpace, FilterError, Item, ItemFilter, ItemKind, KindUsage, PruneOptions, SpaceLimits,
    Store, Usage, prune as collect,
};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::amounts::{duration, space};
use super::images::{age, print, table};
use crate::args::{DuArgs, DuFormat, PruneArgs, SpaceArgs};
use crate::error::{CommandError, Kind};
use crate::printable;
use crate::progress::format::bytes;

/// `rbuild du`.
pub(crate) fn du(store: &Store, args: &DuArgs) -> Result<(), CommandError> {
    let filters = Filters::parse(&args.filter)?;
    let mut usage = Usage::measure(store).map_err(|error| {
        CommandError::caused(Kind::Environment, "cannot measure the store", error)
    })?;
    usage.items.retain(|item| filters.means(item));
    let format = args.format.unwrap_or(match args.verbose {
        true => DuFormat::Pretty,
        false => DuFormat::Table,
    });
    let mut out = String::new();
    match format {
        DuFormat::Json => {
            for item in &usage.items {
                out.push_str(&json_line(item));
            }
            return print(out.as_bytes());
        }
        DuFormat::Pretty => {
            for item in &usage.items {
                out.push_str(&paragraph(item));
            }
        }
        DuFormat::Table => {}
    }
    out.push_str(&totals(&usage, filters.is_any()));
    print(out.as_bytes())
}

/// What each kind takes, and everything; with `filtered` only of what is listed.
fn totals(usage: &Usage, filtered: bool) -> String {
    let row = |name: &str, count: String, size: u64, reclaimable: u64| {
        [name.to_owned(), count, bytes(size), bytes(reclaimable)]
    };
    let mut rows = Vec::new();
    for kind in ItemKind::ALL {
        let KindUsage { count, size, reclaimable, .. } = usage.of(kind);
        if count > 0 || !filtered {
            rows.push(row(heading(kind), count.to_string(), size, reclaimable));
        }
    }
    let all = KindUsage::of(&usage.items);
    if filtered {
        rows.push(row("Total", all.count.to_string(), all.size, all.reclaimable));
    } else {
        rows.push(row("Index", format!("{} records", usage.records), usage.index, 0));
        rows.push(row("Being made", String::new(), usage.pending, 0));
        let images = format!("{} images", usage.images);
        rows.push(row("Total", images, usage.total(), usage.reclaimable()));
    }
    table(["KIND", "COUNT", "SIZE", "RECLAIMABLE"], &rows)
}

fn heading(kind: ItemKind) -> &'static str {
    match kind {
        ItemKind::Layer => "Layers",
        ItemKind::Blob => "Blobs",
        ItemKind::CacheMount => "Cache mounts",
        ItemKind::Context => "Contexts",
        ItemKind::Repository => "Repositories",
        ItemKind::Left => "Left by failed steps",
        ItemKind::Log => "Logs",
        ItemKind::Builds => "Builds",
    }
}

/// An item as buildx prints it, with a blank line behind.
fn paragraph(item: &Item) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{:<14}{}", format!("{name}:"), printable::line(value));
    };
    line("ID", &item.id);
    if !item.parents.is_empty() {
        line("Parents", &item.parents.join(", "));
    }
    if let Some(created) = item.created {
        line("Created at", &timestamp(created));
    }
    line("Mutable", if item.kind.is_mutable() { "true" } else { "false" });
    line("Reclaimable", if item.in_use { "false" } else { "true" });
    line("Shared", if item.shared { "true" } else { "false" });
    line("Size", &bytes(item.size));
    if !item.description.is_empty() {
        line("Description", &item.description);
    }
    line("Usage count", &item.uses.to_string());
    if let Some(used) = item.used {
        line("Last used", &age(used));
    }
    line("Type", item.kind.name());
    text.push('\n');
    text
}

/// An item with buildx's keys, and its size in bytes.
fn json_line(item: &Item) -> String {
    let value = json!({
        "ID": item.id,
        "Parents": item.parents,
        "CreatedAt": item.created.map(timestamp),
        "LastUsedAt": item.used.map(timestamp),
        "Mutable": item.kind.is_mutable(),
        "Reclaimable": !item.in_use,
        "Shared": item.shared,
        "Size": bytes(item.size),
        "Bytes": item.size,
        "Description": item.description,
        "UsageCount": item.uses,
        "Type": item.kind.name(),
    });
    format!("{value}\n")
}

fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

/// `rbuild prune`.
pub(crate) fn prune(store: &Store, args: &PruneArgs) -> Result<(), CommandError> {
    let Filters { items, until } = Filters::parse(&args.filter)?;
    let keep_duration = args.keep_duration.as_deref().map(duration).transpose()?;
    if until.is_some() && keep_duration.is_some() {
        return Err(CommandError::usage(
            "`--filter until=` and `--keep-duration` say the same: give one",
        ));
    }
    let options = PruneOptions {
        all: args.all,
        keep_duration: keep_duration.or(until),
        limits: limits(store, &args.space, SpaceLimits::default())?,
        dangling_images: true,
        filter: items,
        spare_garbage: false,
    };
    let pruned = collect(store, &options).map_err(|error| {
        CommandError::caused(Kind::Environment, "cannot prune the store", error)
    })?;
    let mut text = String::new();
    if args.verbose {
        pruned.items.iter().for_each(|item| text.push_str(&paragraph(item)));
    }
    let _ = writeln!(
        text,
        "Removed {} layers, {} blobs, {} cache mounts, {} logs, {} cache records and {} images without a name: {} freed",
        pruned.layers.len(),
        pruned.blobs.len(),
        pruned.count(ItemKind::CacheMount),
        pruned.count(ItemKind::Log),
        pruned.records,
        pruned.images,
        bytes(pruned.freed)
    );
    print(text.as_bytes())
}

/// The limits that were given; `otherwise` for those that were not.
pub(crate) fn limits(
    store: &Store,
    args: &SpaceArgs,
    otherwise: SpaceLimits,
) -> Result<SpaceLimits, CommandError> {
    let given = [&args.reserved_space, &args.max_used_space, &args.min_free_space];
    if given.iter().all(|given| given.is_none()) {
        return Ok(otherwise);
    }
    let disk = DiskSpace::of(store.root()).map_err(|error| {
        CommandError::caused(Kind::Environment, "cannot measure the disk", error)
    })?;
    let read = |given: &Option<String>, otherwise| match given {
        Some(text) => space(text, disk.total),
        None => Ok(otherwise),
    };
    Ok(SpaceLimits {
        reserved: read(&args.reserved_space, otherwise.reserved)?,
        max_used: read(&args.max_used_space, otherwise.max_used)?,
        min_free: read(&args.min_free_space, otherwise.min_free)?,
    })
}

/// What `--filter` asks for.
#[derive(Debug, Default)]
struct Filters {
    items: ItemFilter,
    /// `until=DURATION`.
    until: Option<Duration>,
}

impl Filters {
    fn parse(filters: &[String]) -> Result<Self, CommandError> {
        let mut parsed = Self::default();
        for filter in filters {
            let until = ["until=", "unused-for="].iter().find_map(|key| filter.strip_prefix(key));
            match until {
                // Doubled where it is written for BuildKit's own client.
                Some(value) => {
                    parsed.until = Some(duration(value.strip_prefix('=').unwrap_or(value))?);
                }
                None => parsed.items.add(filter).map_err(|error| match error {
                    FilterError::Pattern { .. } => {
                        CommandError::caused(Kind::Usage, "cannot read `--filter`", error)
                    }
                    error => CommandError::usage(error),
                })?,
            }
        }
        Ok(parsed)
    }

    fn is_any(&self) -> bool {
        !self.items.is_empty() || self.until.is_some()
    }

    fn means(&self, item: &Item) -> bool {
        let unused = || {
            let used = item.used.or(item.created);
            used.map_or(Duration::MAX, |used| {
                SystemTime::now().duration_since(used).unwrap_or_default()
            })
        };
        self.items.matches(item) && self.until.is_none_or(|until| unused() >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let parse = |filters: &[&str]| {
            Filters::parse(&filters.iter().map(|filter| (*filter).to_owned()).collect::<Vec<_>>())
        };
        assert!(!parse(&[]).unwrap().is_any());
        for until in ["until=24h", "until==24h", "unused-for=24h"] {
            let parsed = parse(&["type=regular", until]).unwrap();
            assert_eq!(parsed.until, Some(Duration::from_secs(86_400)));
        }
        for bad in ["type", "type=frontend", "name=x", "until=soon", "until", "id~=("] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
