//! `jangbu backup prune`: old full backups go, with the log before the oldest that is kept and the pieces of files that nothing needs.
//!
//! Laws
//! * Kept is all there is from one full backup on: it, those after it, and the log behind it. The newest is always among them.
//! * Nothing is removed unless every piece of what is kept is there.
//! * A record goes before what it names: broken off, what is listed is whole, and typed again it goes on.
//! * A backup that is taken meanwhile may count on a piece that goes. It looks again once its record is put, and so does this, once
//!   all is removed: one of the two sees it, and says so.
//!
//! Not here: whether what is kept can be restored (`verify.rs`, `drill.rs`).

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize;

use super::record::{Archive, Full};
use super::vault::Vault;
use super::{PlaceArguments, megabytes};
use crate::cli::Global;
use crate::clock::now_ns;
use crate::error::{Failure, Kind};
use crate::{course, output, progress, text};

const DAY_NS: u64 = 24 * 3_600 * 1_000_000_000;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Keep so many full backups, the newest ones, and all of the log behind them.
    #[arg(long, value_name = "N", required_unless_present = "keep_days", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,
    /// Keep what is needed to restore any moment of the last so many days.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub keep_days: Option<u32>,
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Serialize)]
struct Report {
    place: String,
    dry_run: bool,
    fulls_kept: usize,
    /// From this entry on everything that is there stays restorable.
    kept_from: u64,
    /// Log time of it.
    kept_from_time: String,
    fulls_removed: usize,
    segments_removed: usize,
    pieces_removed: usize,
    bytes_removed: String,
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let vault = self.place.existing()?;
        vault.existing().await?;
        let plan = self.plan(&vault).await?;
        if !self.dry_run {
            plan.carry_out(&vault).await?;
        }
        output::show(global.output, &plan.report(&vault, self.dry_run), text_of)
    }

    async fn plan(&self, vault: &Vault) -> Result<Plan, Failure> {
        let archive = Archive::read(vault).await?;
        let since = self.keep_days.map(|days| now_ns().saturating_sub(u64::from(days) * DAY_NS));
        let Some(first) = first_kept(&archive.fulls, self.keep, since) else {
            return Err(Failure::new(Kind::Unhealthy, format!("{}: there is no full backup", vault.place()))
                .advise("none has come to its end, and nothing is removed: jangbu backup run PLACE"));
        };
        let (pieces, segments) = (vault.list("files").await?, vault.list("log").await?);
        let (old, kept) = archive.fulls.split_at(first);
        let needed = all_there(vault, kept, &pieces)?;
        let oldest = kept[0].last.index;
        let is_old = |name: &String| archive.spans.iter().any(|span| span.last <= oldest && span.name() == *name);
        Ok(Plan {
            oldest: kept[0].clone(),
            fulls_kept: kept.len(),
            fulls: old.iter().map(Full::name).collect(),
            segments: segments.into_iter().filter(|(name, _)| is_old(name)).collect(),
            pieces: pieces.into_iter().filter(|(name, _)| !needed.contains(name)).collect(),
        })
    }
}

/// The place of the oldest one that is kept, among all, oldest first. `since`: log time.
fn first_kept(fulls: &[Full], keep: Option<u32>, since: Option<u64>) -> Option<usize> {
    let newest = fulls.len().checked_sub(1)?;
    let by_count = keep.map(|keep| fulls.len().saturating_sub(keep as usize));
    // The last one before the moment: from there the log leads to it.
    let by_time = since.map(|since| fulls.iter().rposition(|full| full.timestamp <= since).unwrap_or(0));
    Some(by_count.into_iter().chain(by_time).min().unwrap_or(0).min(newest))
}

/// The pieces of these backups, which must all be there.
fn all_there(vault: &Vault, fulls: &[Full], there: &BTreeMap<String, u64>) -> Result<BTreeSet<String>, Failure> {
    let mut needed = BTreeSet::new();
    for full in fulls {
        for (name, bytes) in full.pieces()? {
            if there.get(&name) != Some(&bytes) {
                let message = format!(
                    "{} is missing, and the full backup of entry {} needs it",
                    vault.named(&name),
                    full.last.index
                );
                return Err(Failure::new(Kind::Unhealthy, message)
                    .advise("make another full backup now (jangbu backup run), then look: jangbu backup verify"));
            }
            needed.insert(name);
        }
    }
    Ok(needed)
}

/// What goes: names, and sizes where there is something to be won.
struct Plan {
    oldest: Full,
    fulls_kept: usize,
    fulls: Vec<String>,
    segments: BTreeMap<String, u64>,
    pieces: BTreeMap<String, u64>,
}

impl Plan {
    async fn carry_out(&self, vault: &Vault) -> Result<(), Failure> {
        let names = || self.fulls.iter().chain(self.segments.keys()).chain(self.pieces.keys());
        let count = names().count();
        let bar = progress::bar("removing", count as u64);
        for name in names() {
            course::so_far(format!("{} of {count} objects are removed, and perhaps one more", bar.position()));
            vault.remove(name).await?;
            bar.inc(1);
        }
        course::so_far(format!("{count} of {count} objects are removed"));
        bar.finish_and_clear();
        let left = Archive::read(vault).await?;
        all_there(vault, &left.fulls, &vault.list("files").await?).map(drop)
    }

    fn report(&self, vault: &Vault, dry_run: bool) -> Report {
        Report {
            place: vault.place().to_owned(),
            dry_run,
            fulls_kept: self.fulls_kept,
            kept_from: self.oldest.last.index,
            kept_from_time: text::timestamp_text(self.oldest.timestamp),
            fulls_removed: self.fulls.len(),
            segments_removed: self.segments.len(),
            pieces_removed: self.pieces.len(),
            bytes_removed: self.segments.values().chain(self.pieces.values()).sum::<u64>().to_string(),
        }
    }
}

fn text_of(report: &Report) -> String {
    let kept = format!(
        "{} full backup(s), restorable from entry {} on, log time {}",
        report.fulls_kept,
        text::grouped(report.kept_from),
        report.kept_from_time
    );
    let removed = format!(
        "{} full backup(s), {} segment(s) of the log, {} piece(s) of files: {}",
        report.fulls_removed,
        report.segments_removed,
        report.pieces_removed,
        megabytes(report.bytes_removed.parse().unwrap_or(0))
    );
    let verb = if report.dry_run { "would go" } else { "removed" };
    output::pairs([("place", report.place.clone()), ("kept", kept), (verb, removed)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fulls(timestamps: &[u64]) -> Vec<Full> {
        timestamps.iter().map(|timestamp| Full::at(*timestamp)).collect()
    }

    #[test]
    fn what_is_kept_by_count_or_by_time_is_kept() {
        let fulls = fulls(&[10, 20, 30, 40]);
        for (keep, since, first) in [
            (Some(1), None, 3),
            (Some(3), None, 1),
            (Some(9), None, 0),
            (None, Some(30), 2),
            (None, Some(29), 1),
            (None, Some(5), 0),
            (None, Some(99), 3),
            (Some(1), Some(25), 1),
            (Some(3), Some(99), 1),
        ] {
            assert_eq!(first_kept(&fulls, keep, since), Some(first), "{keep:?} {since:?}");
        }
        assert_eq!(first_kept(&[], Some(1), None), None);
    }
}
