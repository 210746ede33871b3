//! `jangbu backup verify`: reads everything that a place holds, and names what is missing or damaged.
//!
//! Each object's checksum or seal, each file's checksum over all its pieces, and that the log's entries follow on each other. What
//! comes of them is shown by a restore alone (`drill.rs`).

use std::collections::BTreeSet;

use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::record::{Archive, Full, Span, piece_name, pieces};
use super::segment::Segment;
use super::vault::Vault;
use super::{PlaceArguments, megabytes};
use crate::cli::Global;
use crate::error::{Failure, Kind};
use crate::{output, progress, text};

#[derive(Serialize)]
struct Report {
    place: String,
    fulls_count: usize,
    segments_count: usize,
    bytes_read: String,
    /// The last entry that can be restored from the newest full backup on.
    restorable_to: u64,
    /// Entries between segments that no segment holds, as first and last.
    gaps: Vec<(u64, u64)>,
    /// What is missing or damaged, by name.
    faults: Vec<String>,
}

/// Reads a segment of the log.
pub async fn segment(vault: &Vault, span: Span) -> Result<Segment, Failure> {
    let name = span.name();
    Segment::parse(vault.get(&name).await?, span).map_err(|why| vault.damaged(&name, &why))
}

pub async fn run(arguments: &PlaceArguments, global: &Global) -> Result<(), Failure> {
    let vault = arguments.existing()?;
    vault.existing().await?;
    let report = read_all(&vault).await?;
    output::show(global.output, &report, text_of)?;
    match report.faults.len() {
        0 if report.fulls_count == 0 => {
            Err(Failure::new(Kind::Unhealthy, format!("{}: there is no full backup", report.place))
                .advise("none has come to its end: jangbu backup run PLACE"))
        }
        0 => Ok(()),
        count => Err(Failure::new(Kind::Unhealthy, format!("{count} of the backup's objects are missing or damaged"))
            .advise("make another full backup now, in another place; and find out what this one does to its objects")),
    }
}

async fn read_all(vault: &Vault) -> Result<Report, Failure> {
    let archive = Archive::read(vault).await?;
    let mut report = Report {
        place: vault.place().to_owned(),
        fulls_count: archive.fulls.len(),
        segments_count: archive.spans.len(),
        bytes_read: String::new(),
        restorable_to: archive.newest().map_or(0, |full| archive.end_behind(full.last.index)),
        gaps: gaps(&archive),
        faults: Vec::new(),
    };
    let files = files_of(&archive.fulls)?;
    let bar = progress::bar("verifying", (files.len() + archive.spans.len()) as u64);
    let mut bytes_read = 0;
    for (xxh3_128, bytes) in files {
        match read_file(vault, &xxh3_128, bytes).await {
            Ok(()) => bytes_read += bytes,
            Err(failure) => report.faults.push(failure.message),
        }
        bar.inc(1);
    }
    for span in &archive.spans {
        match segment(vault, *span).await {
            Ok(segment) => bytes_read += segment.entries.iter().map(|(_, entry)| entry.len() as u64).sum::<u64>(),
            Err(failure) => report.faults.push(failure.message),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    report.bytes_read = bytes_read.to_string();
    Ok(report)
}

/// Each once, however many backups share it.
fn files_of(fulls: &[Full]) -> Result<BTreeSet<(String, u64)>, Failure> {
    let mut files = BTreeSet::new();
    for full in fulls {
        files.extend(full.manifest()?.files.into_iter().map(|file| (file.xxh3_128, file.bytes)));
    }
    Ok(files)
}

async fn read_file(vault: &Vault, xxh3_128: &str, bytes: u64) -> Result<(), Failure> {
    let mut hasher = Xxh3::new();
    for (piece, _) in pieces(bytes) {
        hasher.update(&vault.get(&piece_name(xxh3_128, bytes, piece)).await?);
    }
    if text::hex(&hasher.digest128().to_be_bytes()) == xxh3_128 {
        return Ok(());
    }
    Err(vault.damaged(&format!("files/{xxh3_128}-{bytes}"), "its pieces together aren't the file that its name says"))
}

/// Between the oldest full backup and the end of what is there. What is missing at the end nobody can know.
fn gaps(archive: &Archive) -> Vec<(u64, u64)> {
    let index = |full: Option<&Full>| full.map_or(0, |full| full.last.index);
    let (mut end, newest) = (index(archive.fulls.first()), index(archive.newest()));
    let mut gaps = Vec::new();
    for span in &archive.spans {
        if span.first > end + 1 {
            gaps.push((end + 1, span.first - 1));
        }
        end = end.max(span.last);
    }
    if newest > end {
        gaps.push((end + 1, newest));
    }
    gaps
}

fn text_of(report: &Report) -> String {
    let gaps: Vec<String> = report.gaps.iter().map(|(first, last)| format!("{first} to {last}")).collect();
    let mut text = output::pairs([
        ("place", report.place.clone()),
        ("full backups", report.fulls_count.to_string()),
        ("segments of the log", report.segments_count.to_string()),
        ("read", megabytes(report.bytes_read.parse().unwrap_or(0))),
        ("restorable to entry", text::grouped(report.restorable_to)),
        ("entries not archived", if gaps.is_empty() { "none".into() } else { gaps.join(", ") }),
        ("missing or damaged", report.faults.len().to_string()),
    ]);
    text.extend(report.faults.iter().map(|fault| format!("\n- {fault}")));
    text
}
