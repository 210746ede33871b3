//! `jangbu backup`: the cluster's books, kept somewhere else, and had back with proof.
//!
//! ```text
//!     node ──ReadSnapshot──► run ──► vault ◄── restore ──► a folder that a node starts with
//!          ──ReadLog───────►  │       │  ▲
//!                             │       │  └─ verify · list · drill
//!     source    the node that is read
//!     record    full backups, and how far the log behind them reaches
//!     segment   entries of the log, with the digest of the state behind them
//!     vault     names, tries again, sees that it is there; seal: checksum or cipher; place: folder or bucket; s3: the wire
//! ```
//!
//! prune takes away what is old.
//!
//! Laws
//! * A running node is asked by its door, as everybody asks it; its folder is left alone.
//! * What is restored has the digest that a node recorded at that index, or isn't given out.
//! * Every command may be broken off and typed again: what is there already stays.
//!
//! Not here: the state and the log themselves (`raft_store`), why it is so (docs/decisions/0015-backup.md).

pub mod drill;
pub mod place;
pub mod prune;
pub mod record;
pub mod restore;
pub mod run;
pub mod s3;
pub mod seal;
pub mod segment;
pub mod source;
pub mod vault;
pub mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::cli::Global;
use crate::error::Failure;
use crate::{output, text};
use record::Archive;
use vault::Vault;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Back a cluster up: all of it, then the log behind it; with --follow for as long as this runs.
    #[command(after_help = "Examples:
  jangbu backup run /mnt/backup/bank                         a full backup; what is there already isn't sent again
  jangbu backup run s3://bank-backup/main --key-file k --follow   and whatever happens from then on, seconds later
  openssl rand -hex 32 > k; chmod 600 k                      makes a key; keep a copy where the backup isn't

Reads from a node that doesn't lead, if there is one. The role operator is needed, for all ledgers.
A place belongs to one cluster. S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT.")]
    Run(run::Arguments),
    /// The full backups in a place, and how far the log behind each of them reaches.
    List(PlaceArguments),
    /// Read everything that is in a place, and name what is missing or damaged.
    #[command(
        after_help = "Exit code 3: something is missing or damaged, and is named. `jangbu backup drill` goes further:
it restores the newest backup and starts a node with it."
    )]
    Verify(PlaceArguments),
    /// Remove old full backups, and all that only they need.
    #[command(after_help = "Examples:
  jangbu backup prune /mnt/backup/bank --keep 7 --dry-run        what would go, and how much room that makes
  jangbu backup prune s3://bank-backup/main --key-file k --keep-days 90 --keep 3

What is kept is everything from one full backup on: it, those after it, and the log behind it. With both flags the older of the
two. Begin with a drill: a backup that was never restored is a hope. Needs the right to delete there, which `run` doesn't.")]
    Prune(prune::Arguments),
    /// Make the folder of a new cluster's first node, as of the end, of an index or of a time.
    #[command(after_help = "Examples:
  jangbu backup restore /mnt/backup/bank --into /var/lib/jangbu --node-id 4 --peer-address 10.0.1.5:7401 --client-address 10.0.1.5:7400
  … --index 120345                    as of that entry of the log
  … --time 2026-11-23T09:00:00Z       as of that moment of log time

Needs no cluster. The node is the only member of a new cluster: start it, look, then add others (jangbu member add).
Broken off, it goes on where it was.")]
    Restore(restore::Arguments),
    /// Restore the newest backup into a temporary folder, start a node with it, compare, and clean up.
    #[command(after_help = "Examples:
  jangbu backup drill /mnt/backup/bank
  jangbu backup drill s3://bank-backup/main --key-file k --dir /var/tmp")]
    Drill(drill::Arguments),
}

#[derive(Clone, Debug, Args)]
pub struct PlaceArguments {
    /// A folder, or s3://BUCKET/PREFIX.
    #[arg(value_name = "PLACE")]
    pub place: String,
    /// The file of the key that the backups are encrypted with: 64 hexadecimal digits.
    #[arg(long, value_name = "FILE", env = "JANGBU_BACKUP_KEY_FILE")]
    pub key_file: Option<PathBuf>,
}

impl PlaceArguments {
    pub fn vault(&self) -> Result<Vault, Failure> {
        Vault::at(&self.place, self.key_file.as_deref())
    }

    /// Of a place that is to be read: none is made.
    pub fn existing(&self) -> Result<Vault, Failure> {
        if !self.place.contains("://") && !std::path::Path::new(&self.place).is_dir() {
            return Err(Failure::usage(format!("{}: there is no such folder", self.place))
                .advise("name the place that `jangbu backup run` was given"));
        }
        self.vault()
    }
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Command::Run(arguments) => arguments.run(global).await,
            Command::List(arguments) => list(&arguments, global).await,
            Command::Verify(arguments) => verify::run(&arguments, global).await,
            Command::Restore(arguments) => arguments.run(global).await,
            Command::Drill(arguments) => arguments.run(global).await,
            Command::Prune(arguments) => arguments.run(global).await,
        }
    }
}

#[derive(Serialize)]
struct Listed {
    place: String,
    cluster_id: String,
    backups: Vec<Backup>,
}

/// A full backup and the log behind it.
#[derive(Serialize)]
struct Backup {
    log_index: u64,
    /// Log time of the state.
    time: String,
    digest: String,
    bytes: String,
    taken_at: String,
    node_id: u64,
    /// The last entry that can be restored from here on.
    restorable_to: u64,
}

async fn list(arguments: &PlaceArguments, global: &Global) -> Result<(), Failure> {
    let vault = arguments.existing()?;
    let marker = vault.existing().await?;
    let archive = Archive::read(&vault).await?;
    let backup = |full: &record::Full| Backup {
        log_index: full.last.index,
        time: text::timestamp_text(full.timestamp),
        digest: full.digest.clone(),
        bytes: full.bytes.to_string(),
        taken_at: text::timestamp_text(full.taken_at),
        node_id: full.node_id,
        restorable_to: archive.end_behind(full.last.index),
    };
    let listed = Listed {
        place: vault.place().to_owned(),
        cluster_id: marker.cluster_id,
        backups: archive.fulls.iter().map(backup).collect(),
    };
    output::show(global.output, &listed, list_text)
}

fn list_text(listed: &Listed) -> String {
    let rows = listed.backups.iter().map(|backup| {
        [
            text::grouped(backup.log_index),
            text::grouped(backup.restorable_to),
            backup.time.clone(),
            megabytes(backup.bytes.parse().unwrap_or(0)),
            backup.node_id.to_string(),
            backup.digest.clone(),
        ]
    });
    let table = output::table(&["entry", "log to", "log time", "size", "of node", "digest"], rows);
    format!("{}: backups of cluster {}\n\n{table}", listed.place, listed.cluster_id)
}

/// For people.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Who types, for the audit trail of a cluster that can't be asked.
pub fn operator_name() -> String {
    let named = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    format!("{} (offline)", named.as_deref().unwrap_or("-"))
}
