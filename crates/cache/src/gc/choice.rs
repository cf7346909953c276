//! What goes: the least valuable first, until the limits are kept.
//!
//! Everything that is in the store is held by somebody here, also what nobody needs; what goes is what nobody holds in the end.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use rbuild_oci::Digest;
use rbuild_solver::LayerId;

use super::item::{Item, ItemKind};
use super::lineage::Lineage;
use super::outside::Outside;
use super::prune::PruneOptions;
use super::references::{Counted, References};
use super::stock::Stock;
use super::survey::Survey;
use super::urgency::{Stake, urgency};
use crate::lease::Pinned;

/// Bytes a second in which a blob is made from its layer, about.
const COMPRESSION: u64 = 50_000_000;

/// Finds out what goes.
pub(super) struct Choice<'a, 's> {
    options: &'a PruneOptions,
    survey: &'s Survey,
    lineage: &'a Lineage<'s>,
    stock: &'a Stock,
    outside: &'a [Outside],
    references: References<'s>,
    garbage: Vec<Unit>,
    now: SystemTime,
}

/// What was found out.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    /// What is held afterwards.
    pub(super) references: References<'a>,
    /// The rows of the records that go.
    pub(super) records: Vec<i64>,
    /// The things outside that go.
    pub(super) outside: HashSet<usize>,
}

/// What can be given up by itself.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// The record with this index.
    Record(usize),
    /// A layer that no record holds.
    Layer(LayerId),
    /// A blob that can be made again from its layer, or that nobody needs.
    Blob(Digest),
    /// The thing with this index.
    Outside(usize),
}

/// A unit and its place in the order.
#[derive(Debug)]
struct Ranked {
    unit: Unit,
    urgency: f64,
    /// Of equal urgency, what lies on top goes first.
    depth: usize,
}

impl<'a, 's> Choice<'a, 's> {
    pub(super) fn new(
        options: &'a PruneOptions,
        survey: &'s Survey,
        lineage: &'a Lineage<'s>,
        stock: &'a Stock,
        pinned: &Pinned,
        outside: &'a [Outside],
    ) -> Self {
        let counted = match options.filter.is_empty() {
            true => Counted::Everything,
            false => {
                let layers = stock.layers.iter().filter(|(_, item)| options.counts(item));
                let blobs = stock.blobs.iter().filter(|(_, item)| options.counts(item));
                Counted::These {
                    layers: layers.map(|(id, _)| *id).collect(),
                    blobs: blobs.map(|(digest, _)| *digest).collect(),
                }
            }
        };
        let mut references = References::counting(survey, pinned, counted);
        survey.records.iter().for_each(|record| references.hold_record(record));
        let mut garbage = Vec::new();
        for id in stock.layers.keys() {
            if references.layer(id) == 0 {
                references.hold_layer(id);
                garbage.push(Unit::Layer(*id));
            }
        }
        for digest in stock.blobs.keys() {
            if references.blob(digest) == 0 {
                references.hold_blob(digest);
                garbage.push(Unit::Blob(*digest));
            }
        }
        let now = SystemTime::now();
        Self { options, survey, lineage, stock, outside, references, garbage, now }
    }

    /// Gives up what goes, on a disk with so many free bytes.
    pub(super) fn run(mut self, free: u64) -> Chosen<'s> {
        let mut chosen = HashSet::new();
        let mut records = Vec::new();
        let mut ranked = Vec::new();
        for unit in std::mem::take(&mut self.garbage) {
            if self.goes_at_once(unit) {
                self.release(unit);
            } else if self.options.gives_up() {
                ranked.extend(self.rank_garbage(unit));
            }
        }
        if self.options.gives_up() {
            self.rank(&mut ranked);
        }
        ranked.sort_by(|one, other| {
            let by_depth = other.depth.cmp(&one.depth);
            other.urgency.total_cmp(&one.urgency).then(by_depth)
        });
        let things = self.outside.iter().filter(|thing| self.options.counts(&thing.item));
        let mut around: u64 = things.map(|thing| thing.item.size).sum();
        let limits = self.options.limits;
        let allowed = match limits.is_any() {
            true => limits.allowed(self.references.size() + around, free),
            false => 0,
        };
        let mut above = self.lineage.counts_above();
        for Ranked { unit, .. } in ranked {
            if limits.is_any() && self.references.size() + around <= allowed {
                break;
            }
            match unit {
                // What lies on it stays, so it does, too.
                Unit::Record(index) if above[index] > 0 => continue,
                Unit::Record(index) => {
                    self.lineage.below(index).into_iter().for_each(|below| above[below] -= 1);
                    records.push(self.lineage.record(index).id);
                }
                Unit::Outside(index) => {
                    around -= self.outside[index].item.size;
                    chosen.insert(index);
                }
                Unit::Layer(_) | Unit::Blob(_) => {}
            }
            self.release(unit);
        }
        Chosen { references: self.references, records, outside: chosen }
    }

    /// Whether something that no record holds is no concern of limits.
    fn goes_at_once(&self, unit: Unit) -> bool {
        let options = self.options;
        let item = self.item(unit);
        if options.spare_garbage || item.is_some_and(|item| item.in_use) {
            return false;
        }
        match item {
            // It is worth something to who looks into it.
            Some(item) if item.kind == ItemKind::Left && options.gives_up() => false,
            Some(item) => options.filter.matches(item),
            None => false,
        }
    }

    fn rank_garbage(&self, unit: Unit) -> Option<Ranked> {
        let item = self.item(unit).filter(|item| self.options.means(item))?;
        let urgency = match item.kind {
            ItemKind::Left => self.urgency_of(item, None),
            _ => f64::INFINITY,
        };
        Some(Ranked { unit, urgency, depth: 0 })
    }

    /// Adds what can be given up and is not garbage.
    fn rank(&self, ranked: &mut Vec<Ranked>) {
        let records = &self.survey.records;
        let mut urgencies: Vec<f64> =
            (0..records.len()).map(|index| self.urgency_of_record(index)).collect();
        self.lineage.inherit(&mut urgencies, f64::min);
        for (index, urgency) in urgencies.into_iter().enumerate() {
            if self.means_record(index) {
                let depth = self.lineage.depth(index);
                ranked.push(Ranked { unit: Unit::Record(index), urgency, depth });
            }
        }
        for digest in self.repeated_blobs() {
            let item = &self.stock.blobs[&digest];
            if self.options.means(item) {
                let making = Duration::from_millis(item.size * 1000 / COMPRESSION);
                let urgency = self.urgency_of(item, Some(making));
                ranked.push(Ranked { unit: Unit::Blob(digest), urgency, depth: 0 });
            }
        }
        for (index, thing) in self.outside.iter().enumerate() {
            if self.options.means(&thing.item) {
                let urgency = self.urgency_of(&thing.item, None);
                ranked.push(Ranked { unit: Unit::Outside(index), urgency, depth: 0 });
            }
        }
    }

    /// The blobs that are held by layers alone, all of which are there themselves.
    fn repeated_blobs(&self) -> HashSet<Digest> {
        let mut repeated = HashSet::new();
        let mut alone = HashSet::new();
        for known in self.survey.known.values() {
            if self.references.layer(&known.id) == 0 {
                continue;
            }
            match self.stock.layers.contains_key(&known.id) {
                true => repeated.extend(known.blobs.iter().copied()),
                false => alone.extend(known.blobs.iter().copied()),
            }
        }
        repeated.retain(|digest| {
            let item = self.stock.blobs.get(digest);
            !alone.contains(digest) && item.is_some_and(|item| !item.in_use)
        });
        repeated
    }

    /// Whether a record may go: one of its own layers is meant, or it has none and is meant itself.
    fn means_record(&self, index: usize) -> bool {
        let mut own =
            self.lineage.layers_of(index).filter_map(|id| self.stock.layers.get(id)).peekable();
        if own.peek().is_some() {
            return own.any(|item| self.options.means(item));
        }
        let record = self.lineage.record(index);
        let id = self.lineage.layers_of(index).next();
        self.options.means(&Item {
            id: id.map(ToString::to_string).unwrap_or_default(),
            kind: ItemKind::Layer,
            name: None,
            parents: Vec::new(),
            description: record.name.clone(),
            size: 0,
            created: Some(record.created),
            used: Some(self.lineage.used(index)),
            uses: record.uses,
            in_use: false,
            shared: false,
        })
    }

    fn urgency_of_record(&self, index: usize) -> f64 {
        let own = self.lineage.layers_of(index).filter_map(|id| self.stock.layers.get(id));
        let record = self.lineage.record(index);
        urgency(Stake {
            unused: self.unused(Some(record.used)),
            size: own.map(|item| item.size).sum(),
            making: Some(record.duration),
            uses: record.uses,
        })
    }

    fn urgency_of(&self, item: &Item, making: Option<Duration>) -> f64 {
        let unused = self.unused(item.used.or(item.created));
        urgency(Stake { unused, size: item.size, making, uses: item.uses })
    }

    fn unused(&self, used: Option<SystemTime>) -> Duration {
        let used = used.unwrap_or(SystemTime::UNIX_EPOCH);
        self.now.duration_since(used).unwrap_or_default()
    }

    fn item(&self, unit: Unit) -> Option<&'a Item> {
        match unit {
            Unit::Layer(id) => self.stock.layers.get(&id),
            Unit::Blob(digest) => self.stock.blobs.get(&digest),
            Unit::Outside(index) => self.outside.get(index).map(|thing| &thing.item),
            Unit::Record(_) => None,
        }
    }

    fn release(&mut self, unit: Unit) {
        match unit {
            Unit::Record(index) => self.references.release_record(self.lineage.record(index)),
            Unit::Layer(id) => self.references.release_layer(&id),
            Unit::Blob(digest) => self.references.drop_blob(&digest),
            Unit::Outside(_) => {}
        }
    }
}
