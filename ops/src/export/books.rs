//! The books that are exported, all of one index: a copy of a node's snapshot, or what a backup restores.
//!
//! Both become a state by the code with which a replica receives a snapshot; so what is exported was compared with the digest that
//! the replicas agreed on. The node is asked for its snapshot as by a backup: that holds up no payment, and it reads no faster than told.
//!
//! Laws
//! * The copy lies where it was told to, and is nobody's state: no node starts with it.
//!
//! Not here: what is read of it (`raft_store::contents`).

use std::path::Path;

use indicatif::ProgressBar;
use jangbu_raft_store::contents::Contents;
use jangbu_raft_store::restore::{RestoreError, Restoring};

use crate::backup::restore::{self, Moment};
use crate::backup::source::{Pace, Reading, Source};
use crate::backup::vault::Vault;
use crate::cli::Global;
use crate::error::{Failure, Kind};
use crate::progress;

/// The copy's: above whatever a cluster uses, and nobody will ever meet it.
const NODE_ID: u64 = u64::MAX >> 1;

/// A state that was copied. Its folder is locked while this lives.
pub struct Books {
    pub contents: Contents,
    pub cluster_id: String,
    _state: Restoring,
}

/// Of a cluster that runs.
pub async fn of_cluster(global: &Global, work: &Path, rate: u32) -> Result<Books, Failure> {
    let source = Source::choose(global, None).await?;
    let line = progress::spinner(format!("node {} takes a snapshot", source.status.node_id));
    source.snapshot().await?;
    line.finish_and_clear();
    let mut reading = Reading::open(&source.operator).await?;
    let manifest = reading.describe().await?.manifest;
    let drawn = (rand::random(), rand::random());
    let mut state = Restoring::open(work, NODE_ID, drawn, &manifest).await.map_err(failed)?;
    let bar = progress::bytes("reading", bytes_of(&manifest)?);
    let mut pace = Pace::new(rate);
    for (file, offset) in state.wants() {
        copy_file(&mut state, &mut reading, (&file, offset), &mut pace, &bar).await?;
    }
    bar.finish_and_clear();
    state.install().await.map_err(failed)?;
    Ok(Books { contents: state.contents(), cluster_id: source.status.cluster_id, _state: state })
}

/// Of a place of backups, as of a moment.
pub async fn of_backup(vault: &Vault, moment: Moment, work: &Path) -> Result<Books, Failure> {
    let cluster_id = vault.existing().await?.cluster_id;
    let state = restore::settle(vault, moment, work, NODE_ID).await?;
    Ok(Books { contents: state.contents(), cluster_id, _state: state })
}

async fn copy_file(
    state: &mut Restoring,
    reading: &mut Reading,
    (file, mut offset): (&str, u64),
    pace: &mut Pace,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    reading.ask(file, offset).await?;
    loop {
        let piece = reading.next().await?;
        let bytes = piece.data.len();
        state.write(file, offset, piece.data).await.map_err(failed)?;
        offset += bytes as u64;
        bar.inc(bytes as u64);
        pace.spend(bytes).await;
        if piece.end {
            return Ok(());
        }
    }
}

/// Nothing stays of an export that fails.
fn failed(error: RestoreError) -> Failure {
    let kind = match &error {
        RestoreError::Malformed(_) | RestoreError::Snapshot(_) => Kind::Unhealthy,
        RestoreError::Store(_) | RestoreError::Io(_) => Kind::General,
    };
    Failure::new(kind, format!("the copy of the books: {error}"))
        .advise("is there room for it beside the output? Begin again: nothing is left of this attempt")
}

fn bytes_of(manifest: &[u8]) -> Result<u64, Failure> {
    Ok(crate::backup::record::parse(manifest)?.files.iter().map(|file| file.bytes).sum())
}
