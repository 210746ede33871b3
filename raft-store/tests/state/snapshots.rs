//! A snapshot's way from one replica to another: built, offered, sent, broken off, resumed, verified, installed.

use crate::harness::*;
use bytes::Bytes;
use jangbu_ledger::{AccountFilter, AccountFilterFlags, AccountId, TransferId};
use jangbu_proto::batch::admin;
use jangbu_proto::cluster::v1::{AdminCommand, Note, RaiseVersion, admin_command};
use jangbu_raft_store::admin::{NOTE_BACKUP, NOTE_DONE, VERSION_MAX};
use jangbu_raft_store::engine::memory::MemoryEngines;
use jangbu_raft_store::snapshot::manifest::{FileInfo, Manifest};
use jangbu_raft_store::testing::{CrashVfs, Dice, Survival};
use jangbu_raft_store::{Incoming, Offered, ReceiveError, StateConfig, Store, StoreEnv, StoreError, log_id};
use openraft::storage::{IOFlushed, RaftLogStorage, RaftStateMachine};
use prost::Message as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SECOND: u64 = 1_000_000_000;
const CHUNK: usize = 3_000;

/// Does some work: `entries` entries of 20 transfers among ten accounts, ids from `first_id` on.
fn work(replica: &mut Replica, first_id: u128, entries: u128) {
    if replica.log.is_empty() {
        replica.apply(membership(&[1, 2, 3]));
        let accounts: Vec<_> = (1..=10).map(account).collect();
        replica.apply_body(accounts_body(SECOND, &accounts));
    }
    for entry in 0..entries {
        let transfers: Vec<_> =
            (0..20).map(|n| transfer(first_id + entry * 20 + n, 1 + n % 10, 1 + (n + 3) % 10, n)).collect();
        replica.apply_body(transfers_body(SECOND * 2, &transfers));
    }
}

fn join(replica: &mut Replica, cluster: u8) {
    replica.store().folder.join([cluster; 16]).unwrap();
}

/// Sends up to `chunks_max` chunks of what is wanted; `true` if that was all.
fn send(from: &Snapshot, incoming: &mut Incoming, chunks_max: usize) -> Result<bool, ReceiveError> {
    let mut chunks = 0;
    for (file, mut offset) in incoming.wants() {
        loop {
            let data = now(from.snapshot.read(&file, offset, CHUNK)).unwrap();
            if data.is_empty() {
                break;
            }
            if chunks == chunks_max {
                return Ok(false);
            }
            chunks += 1;
            let bytes = data.len() as u64;
            now(incoming.write(&file, offset, data))?;
            offset += bytes;
        }
    }
    Ok(true)
}

/// Offers a snapshot to a replica that needs it.
fn begin(to: &mut Store, manifest: Bytes) -> Result<Incoming, ReceiveError> {
    match now(to.incoming.begin(manifest))? {
        Offered::Wanted(incoming) => Ok(*incoming),
        Offered::Here => panic!("the replica has it already"),
    }
}

fn transfer_and_install(snapshot: &Snapshot, to: &mut Store) -> Result<(), ReceiveError> {
    let mut incoming = begin(to, snapshot.snapshot.manifest())?;
    assert!(send(snapshot, &mut incoming, usize::MAX)?);
    let received = now(incoming.finish())?;
    assert_eq!(received.meta, snapshot.meta);
    now(to.state.install_snapshot(&received.meta, received.snapshot))
        .map_err(|error| StoreError::Fenced(error.to_string()))?;
    Ok(())
}

fn same_answers(one: &mut Replica, other: &mut Replica) {
    let (one, other) = (one.store().reader.clone(), other.store().reader.clone());
    assert_eq!(one.applied(), other.applied());
    assert_eq!(one.head(), other.head());
    for id in 1..=10 {
        let flags = AccountFilterFlags::DEBITS.with(AccountFilterFlags::CREDITS);
        let filter = AccountFilter { account_id: AccountId(id), limit: 8_189, flags, ..AccountFilter::default() };
        assert_eq!(now(one.get_account_transfers(filter)).unwrap(), now(other.get_account_transfers(filter)).unwrap());
        assert_eq!(now(one.get_account_balances(filter)).unwrap(), now(other.get_account_balances(filter)).unwrap());
    }
    let ids: Vec<_> = (0..3_000).map(TransferId).collect();
    assert_eq!(now(one.lookup_transfers(ids.clone())).unwrap(), now(other.lookup_transfers(ids)).unwrap());
    for reader in [one, other] {
        let report = now(reader.verify(None)).unwrap().unwrap();
        assert_eq!(report.at.digest, report.digest_recount);
    }
}

#[test]
fn a_snapshot_brings_an_empty_replica_to_the_same_state() {
    for kind in KINDS {
        let (mut leader, mut fresh) = (Replica::new(kind, tiny()), Replica::new(kind, tiny()));
        join(&mut leader, 5);
        join(&mut fresh, 5);
        work(&mut leader, 1, 40);
        let snapshot = leader.snapshot();
        transfer_and_install(&snapshot, fresh.store()).unwrap();
        same_answers(&mut leader, &mut fresh);
        let current = now(fresh.store().state.get_current_snapshot()).unwrap().unwrap();
        assert_eq!(current.meta, snapshot.meta, "it can be sent on");

        // Life goes on from there, over crashes and further snapshots, retries included.
        (fresh.log, fresh.replies) = (leader.log.clone(), leader.replies.clone());
        for round in 0..3 {
            for replica in [&mut leader, &mut fresh] {
                work(replica, 700 + round * 100, 10);
            }
            same_answers(&mut leader, &mut fresh);
            fresh.crash_and_replay();
            same_answers(&mut leader, &mut fresh);
            drop(fresh.snapshot());
        }
    }
}

#[test]
fn a_snapshot_replaces_the_state_of_a_replica_that_fell_behind() {
    for kind in KINDS {
        let (mut leader, mut behind) = (Replica::new(kind, tiny()), Replica::new(kind, tiny()));
        for replica in [&mut leader, &mut behind] {
            join(replica, 5);
            work(replica, 1, 12);
        }
        work(&mut leader, 10_000, 40);
        transfer_and_install(&leader.snapshot(), behind.store()).unwrap();
        same_answers(&mut leader, &mut behind);
        behind.crash_and_replay();
        same_answers(&mut leader, &mut behind);
    }
}

#[test]
fn a_snapshot_says_what_was_applied_when_it_was_asked_for() {
    for kind in KINDS {
        let mut replica = Replica::new(kind, tiny());
        work(&mut replica, 1, 3);
        let applied = replica.applied_index();
        let snapshot = replica.snapshot();
        assert_eq!(snapshot.meta.last_log_id.unwrap().index, applied);
        assert_eq!(snapshot.meta.last_membership.voter_ids().collect::<Vec<_>>(), [1, 2, 3]);
        // Found again after a crash.
        replica.crash_and_replay();
        let found = now(replica.store().state.get_current_snapshot()).unwrap().unwrap();
        assert_eq!(found.meta, snapshot.meta);
        assert_eq!(found.snapshot.manifest(), snapshot.snapshot.manifest());
    }
}

#[test]
fn a_broken_transfer_goes_on_where_it_stopped() {
    for kind in KINDS {
        let (mut leader, mut fresh) = (Replica::new(kind, tiny()), Replica::new(kind, tiny()));
        join(&mut leader, 5);
        join(&mut fresh, 5);
        work(&mut leader, 1, 60);
        let snapshot = leader.snapshot();
        let all: u64 = snapshot.snapshot.description().files.iter().map(|file| file.bytes).sum();
        let mut chunks = 0;
        let received = loop {
            let mut incoming = begin(fresh.store(), snapshot.snapshot.manifest()).unwrap();
            let lacking: u64 = incoming
                .wants()
                .iter()
                .map(|(name, from)| snapshot.snapshot.description().file(name).unwrap().bytes - from)
                .sum();
            assert_eq!(lacking, all.saturating_sub(sent_bytes(&snapshot, chunks)), "nothing is sent twice");
            chunks += 2;
            if send(&snapshot, &mut incoming, 2).unwrap() {
                break now(incoming.finish()).unwrap();
            }
            drop(incoming);
            fresh.store = None;
            fresh.store = Some(fresh.try_open().unwrap());
        };
        now(fresh.store().state.install_snapshot(&received.meta, received.snapshot)).unwrap();
        same_answers(&mut leader, &mut fresh);
    }
}

/// How many bytes the first so many chunks hold: a file's last one may be short.
fn sent_bytes(snapshot: &Snapshot, chunks: u64) -> u64 {
    let mut left = chunks;
    let mut bytes = 0;
    for file in &snapshot.snapshot.description().files {
        let take = left.min(file.bytes.div_ceil(CHUNK as u64));
        left -= take;
        bytes += (take * CHUNK as u64).min(file.bytes);
    }
    bytes
}

#[test]
fn what_does_not_match_is_refused_and_costs_one_file() {
    let (mut leader, mut fresh) = (Replica::new(Kind::Rocks, tiny()), Replica::new(Kind::Rocks, tiny()));
    join(&mut leader, 5);
    join(&mut fresh, 5);
    work(&mut leader, 1, 20);
    let snapshot = leader.snapshot();
    let mut incoming = begin(fresh.store(), snapshot.snapshot.manifest()).unwrap();
    let (file, _) = incoming.wants()[0].clone();
    let data = now(snapshot.snapshot.read(&file, 0, usize::MAX >> 1)).unwrap();

    assert!(malformed(now(incoming.write("nothing.sst", 0, data.clone()))));
    assert!(malformed(now(incoming.write(&file, 1, data.clone()))), "each file's bytes come in order");
    let mut flipped = data.to_vec();
    flipped[data.len() / 2] ^= 1;
    assert!(malformed(now(incoming.write(&file, 0, flipped.into()))));
    assert!(send(&snapshot, &mut incoming, usize::MAX).unwrap(), "the file is taken when it comes as it should");
    let received = now(incoming.finish()).unwrap();
    now(fresh.store().state.install_snapshot(&received.meta, received.snapshot)).unwrap();
    same_answers(&mut leader, &mut fresh);
}

#[test]
fn an_incomplete_snapshot_is_not_finished() {
    let (mut leader, mut fresh) = (Replica::new(Kind::Memory, tiny()), Replica::new(Kind::Memory, tiny()));
    work(&mut leader, 1, 20);
    let snapshot = leader.snapshot();
    let mut incoming = begin(fresh.store(), snapshot.snapshot.manifest()).unwrap();
    assert!(!send(&snapshot, &mut incoming, 1).unwrap());
    assert!(malformed(now(incoming.finish())));
}

/// Found by seed 21001: a follower that refuses what it has leaves a leader, who lost its answer, to offer it for ever.
#[test]
fn a_snapshot_of_what_is_here_already_need_not_be_sent_once_no_crash_can_take_that() {
    let mut replica = Replica::new(Kind::Memory, tiny());
    join(&mut replica, 5);
    work(&mut replica, 1, 5);
    let older = replica.snapshot().snapshot.manifest();
    assert!(matches!(now(replica.store().incoming.begin(older.clone())), Ok(Offered::Here)));
    let mut other = Replica::new(Kind::Memory, tiny());
    join(&mut other, 5);
    work(&mut other, 1, 5);
    let same = now(other.store().incoming.begin(older));
    assert!(matches!(same, Err(ReceiveError::TooSoon)), "applied, and in no log and no flush");
}

#[test]
fn foreign_and_damaged_snapshots_are_refused() {
    let (mut leader, mut other) = (Replica::new(Kind::Memory, tiny()), Replica::new(Kind::Memory, tiny()));
    join(&mut leader, 5);
    join(&mut other, 6);
    work(&mut leader, 1, 5);
    let snapshot = leader.snapshot();
    let manifest = snapshot.snapshot.manifest();
    assert!(malformed(begin(other.store(), manifest.clone())), "another cluster's");
    let mut fresh = Replica::new(Kind::Memory, tiny());
    for at in 0..manifest.len() {
        let mut damaged = manifest.to_vec();
        damaged[at] ^= 1;
        assert!(malformed(begin(fresh.store(), damaged.into())), "byte {at}");
    }
    // Past the door as well: openraft hands it over as what it isn't.
    work(&mut leader, 1_000, 5);
    let newer = leader.snapshot();
    assert!(now(fresh.store().state.install_snapshot(&newer.meta, snapshot.snapshot.clone())).is_err());
    assert!(fresh.store().fatal.cause().is_some());
}

fn malformed<T>(result: Result<T, ReceiveError>) -> bool {
    matches!(result, Err(ReceiveError::Malformed(_)))
}

#[test]
fn the_newest_snapshot_is_kept_and_an_older_one_while_it_is_read() {
    for kind in KINDS {
        let mut replica = Replica::new(kind, tiny());
        work(&mut replica, 1, 10);
        let first = replica.snapshot();
        work(&mut replica, 1_000, 10);
        let second = replica.snapshot();
        assert!(first.snapshot.dir().exists(), "it is being sent");
        assert_ne!(first.snapshot.dir(), second.snapshot.dir());
        let dir = first.snapshot.dir().to_owned();
        drop((first, second));
        work(&mut replica, 2_000, 10);
        drop(replica.snapshot());
        assert!(!dir.exists());
        assert_eq!(std::fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1);
    }
}

/// Asked for twice with nothing applied in between: by an operator, or because a receiver refused the first.
#[test]
fn a_snapshot_taken_again_at_the_same_index_can_be_sent_and_the_one_before_read_to_its_end() {
    for kind in KINDS {
        let mut replica = Replica::new(kind, tiny());
        work(&mut replica, 1, 10);
        let first = replica.snapshot();
        let again = replica.snapshot();
        drop(replica.snapshot());
        for read in [&first, &again] {
            let mut fresh = Replica::new(kind, tiny());
            transfer_and_install(read, fresh.store()).unwrap();
            assert_eq!(fresh.store().reader.applied(), replica.store().reader.applied());
        }
        let folder = first.snapshot.dir().parent().unwrap().to_owned();
        drop((first, again));
        drop(replica.snapshot());
        let newest = replica.snapshot();
        assert_eq!(folders(&folder), [newest.snapshot.dir()], "the newest alone stays");
    }
}

/// The others may be what a receiver has refused.
#[test]
fn of_several_snapshots_of_one_index_a_restart_keeps_the_newest() {
    for kind in KINDS {
        let mut replica = Replica::new(kind, tiny());
        work(&mut replica, 1, 10);
        let read: Vec<_> = (0..12).map(|_| replica.snapshot()).collect();
        let newest = read[11].snapshot.dir().to_owned();
        let folder = newest.parent().unwrap();
        assert_eq!(folders(folder).len(), read.len(), "each is read");
        drop(read);
        replica.crash_and_replay();
        assert_eq!(folders(folder), std::slice::from_ref(&newest));
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Else the cost of a snapshot would grow with history.
#[test]
fn files_that_were_in_the_last_snapshot_are_not_read_again() {
    // RocksDB's compaction may take a table away between the two.
    let outcomes = (0..5).map(|_| is_taken_from_the_last_snapshot());
    assert_eq!(outcomes.flatten().next(), Some(true));
}

/// `None`: the table is in the first of two snapshots only.
fn is_taken_from_the_last_snapshot() -> Option<bool> {
    let mut replica = Replica::new(Kind::Rocks, tiny());
    work(&mut replica, 1, 20);
    let first = replica.snapshot();
    let table = tables(&first).pop().expect("there is a newest table");
    // Were it read again, its checksum would differ.
    let path = first.snapshot.dir().join(&table.name);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let second = replica.snapshot();
    second.snapshot.description().file(&table.name).map(|found| *found == table)
}

fn tables(snapshot: &Snapshot) -> Vec<FileInfo> {
    snapshot.snapshot.description().files.iter().filter(|file| file.name.ends_with(".sst")).cloned().collect()
}

// --- snapshots that are no state

/// Harms a file of a snapshot as if it had happened before it was checksummed: everything about it agrees. `None`: there is no such file.
fn harm_unnoticed(snapshot: &Snapshot, file: &str) -> Option<Manifest> {
    let mut manifest = snapshot.snapshot.description().clone();
    let info = manifest.files.iter_mut().find(|info| info.name.contains(file))?;
    let path = snapshot.snapshot.dir().join(&info.name);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Not through the link: the state keeps what is right.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    info.xxh3_128 = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes));
    Some(manifest)
}

/// Offers a snapshot under another manifest, and sends it whole.
fn offer(snapshot: &Snapshot, manifest: &Manifest, to: &mut Store) -> Result<Snapshot, ReceiveError> {
    let mut incoming = begin(to, manifest.encode())?;
    assert!(send(snapshot, &mut incoming, usize::MAX)?);
    now(incoming.finish())
}

#[test]
fn a_snapshot_that_was_damaged_before_it_was_checksummed_is_refused_and_the_replica_goes_on() {
    let mut harmed = Vec::new();
    for (kind, file) in [(Kind::Rocks, ".sst"), (Kind::Rocks, "MANIFEST"), (Kind::Memory, "state.image")] {
        let (mut leader, mut behind) = (Replica::new(kind, tiny()), Replica::new(kind, tiny()));
        work(&mut leader, 1, 40);
        work(&mut behind, 1, 3);
        let before = behind.digest();
        let good = leader.snapshot();
        let Some(manifest) = harm_unnoticed(&good, file) else { continue };
        harmed.push(file);
        let refused = offer(&good, &manifest, behind.store()).unwrap_err();
        assert!(matches!(refused, ReceiveError::Unusable(_)), "{file}: {refused}");
        assert_eq!(behind.digest(), before);
        assert!(behind.store().fatal.cause().is_none(), "{file}: the sender's damage doesn't stop the receiver");
        let incoming = behind.dir.path().join("group-0/incoming");
        assert_eq!(std::fs::read_dir(incoming).unwrap().count(), 0, "{file}: nothing of it is kept");

        // The next one is welcome, and so is work.
        work(&mut behind, 61, 1);
        drop(good);
        work(&mut leader, 10_000, 1);
        let next = leader.snapshot();
        // Tables that the harmed one had keep the checksum they were built with.
        if file != ".sst" {
            transfer_and_install(&next, behind.store()).unwrap();
            same_answers(&mut leader, &mut behind);
        }
    }
    assert_eq!(harmed, [".sst", "MANIFEST", "state.image"]);
}

#[test]
fn a_snapshot_whose_manifest_tells_of_another_state_is_refused() {
    for kind in KINDS {
        let (mut leader, mut fresh) = (Replica::new(kind, tiny()), Replica::new(kind, tiny()));
        work(&mut leader, 1, 10);
        let snapshot = leader.snapshot();
        let mut manifest = snapshot.snapshot.description().clone();
        manifest.digest = "00".repeat(16);
        let refused = offer(&snapshot, &manifest, fresh.store()).unwrap_err();
        assert!(matches!(refused, ReceiveError::Unusable(_)), "{refused}");
        transfer_and_install(&snapshot, fresh.store()).unwrap();
    }
}

// --- crashes

/// A replica in memory on a disk that dies where it is told to.
struct Mortal {
    vfs: CrashVfs,
    engines: MemoryEngines,
}

impl Mortal {
    fn new() -> Mortal {
        let vfs = CrashVfs::default();
        Mortal { engines: MemoryEngines::new(Arc::new(vfs.clone())), vfs }
    }

    fn restart(self, survival: Survival) -> Mortal {
        let vfs = self.vfs.restart(survival);
        Mortal { engines: self.engines.on(Arc::new(vfs.clone())), vfs }
    }

    fn open(&self) -> Result<Store, StoreError> {
        let vfs = Arc::new(self.vfs.clone());
        let engines = Arc::new(self.engines.on(vfs.clone()));
        let env = StoreEnv { log_vfs: vfs.clone(), state_vfs: vfs, engines, blocking: Arc::new(Inline) };
        now(jangbu_raft_store::open(store_config(Path::new("/data"), tiny()), env))
    }
}

/// What the replica has before the snapshot comes: a part of the leader's log.
fn begin_life(mortal: &Mortal, leader: &Replica, entries: usize) -> Store {
    let mut store = mortal.open().unwrap();
    for entry in &leader.log[..entries] {
        apply(&mut store, entry.clone()).unwrap();
    }
    store
}

#[test]
fn a_crash_anywhere_in_receiving_and_installing_leaves_the_old_state_or_the_new() {
    let mut leader = Replica::new(Kind::Memory, tiny());
    work(&mut leader, 1, 30);
    let snapshot = leader.snapshot();
    let new_digest = leader.digest();

    let operations = {
        let mortal = Mortal::new();
        let mut store = begin_life(&mortal, &leader, 8);
        let before = mortal.vfs.operations();
        transfer_and_install(&snapshot, &mut store).unwrap();
        mortal.vfs.operations() - before
    };
    assert!(operations > 15, "the walk is long enough to be worth it: {operations}");

    let mut dice = Dice(3);
    let mut survived = [0, 0];
    for operation in 0..=operations {
        for survival in [Survival::Lost, Survival::Kept, Survival::TornLast(dice.roll()), Survival::Some(dice.roll())] {
            let mortal = Mortal::new();
            let mut store = begin_life(&mortal, &leader, 8);
            let flushed_index = store.reader.flushed_index();
            mortal.vfs.die_at(mortal.vfs.operations() + operation);
            let finished = transfer_and_install(&snapshot, &mut store).is_ok();
            drop(store);

            let mortal = mortal.restart(survival);
            let mut store =
                mortal.open().unwrap_or_else(|error| panic!("after operation {operation}, {survival:?}: {error}"));
            let applied = store.reader.applied();
            let is_new = applied.digest == new_digest;
            survived[usize::from(is_new)] += 1;
            if is_new {
                assert_eq!(applied.log_index, snapshot.meta.last_log_id.unwrap().index);
            } else {
                assert_eq!(applied.log_index, flushed_index, "operation {operation}, {survival:?}");
                assert!(!finished, "what was installed stays installed: operation {operation}, {survival:?}");
                // A part that the crash tore is found out when it is whole, and comes again.
                let again = transfer_and_install(&snapshot, &mut store);
                again.or_else(|_| transfer_and_install(&snapshot, &mut store)).unwrap();
            }
            let report = now(store.reader.verify(None)).unwrap().unwrap();
            assert_eq!((report.at.digest, report.digest_recount), (new_digest, new_digest));
        }
    }
    assert!(survived.iter().all(|count| *count > 0), "both outcomes were met: {survived:?}");
}

#[test]
fn a_crash_anywhere_in_building_a_snapshot_loses_at_most_the_snapshot() {
    let mut leader = Replica::new(Kind::Memory, tiny());
    work(&mut leader, 1, 12);
    let build = |store: &mut Store| {
        let mut builder = now(store.state.get_snapshot_builder());
        now(openraft::storage::RaftSnapshotBuilder::build_snapshot(&mut builder)).is_ok()
    };
    let operations = {
        let mortal = Mortal::new();
        let mut store = begin_life(&mortal, &leader, 10);
        let before = mortal.vfs.operations();
        assert!(build(&mut store));
        mortal.vfs.operations() - before
    };
    for operation in 0..=operations {
        for survival in [Survival::Lost, Survival::Kept, Survival::Some(operation)] {
            let mortal = Mortal::new();
            let mut store = begin_life(&mortal, &leader, 10);
            mortal.vfs.die_at(mortal.vfs.operations() + operation);
            let built = build(&mut store);
            drop(store);
            let mortal = mortal.restart(survival);
            let mut store = mortal.open().unwrap();
            let found = now(store.state.get_current_snapshot()).unwrap();
            assert!(!built || found.is_some(), "what was built is there: operation {operation}, {survival:?}");
            if let Some(found) = found {
                let mut fresh = Replica::new(Kind::Memory, tiny());
                transfer_and_install(&found, fresh.store()).unwrap();
            }
        }
    }
}

/// What raises the cluster's version, as a leader's program proposes it.
fn raise_version(version: u32) -> Bytes {
    let command = Some(admin_command::Command::RaiseVersion(RaiseVersion { version }));
    admin(&AdminCommand { command, ..AdminCommand::default() }.encode_to_vec(), SECOND * 3)
}

/// What says that there is a backup, as `jangbu backup run` has it said.
fn backup_is_done(timestamp: u64) -> Bytes {
    let note = Note { action: NOTE_BACKUP.into(), outcome: NOTE_DONE.into(), ..Note::default() };
    let command = Some(admin_command::Command::Note(note));
    admin(&AdminCommand { command, ..AdminCommand::default() }.encode_to_vec(), timestamp)
}

#[test]
fn every_replica_knows_of_the_newest_backup_over_crashes_restarts_and_snapshots() {
    for kind in KINDS {
        let (mut leader, mut fresh) = (Replica::new(kind, tiny()), Replica::new(kind, tiny()));
        join(&mut leader, 5);
        join(&mut fresh, 5);
        let knows = |replica: &mut Replica, at: u64| assert_eq!(replica.store().reader.backed_up_at(), at, "{kind:?}");
        work(&mut leader, 1, 10);
        knows(&mut leader, 0);
        leader.apply_body(raise_version(VERSION_MAX));
        leader.apply_body(backup_is_done(SECOND * 4));
        knows(&mut leader, SECOND * 4);
        leader.crash_and_replay();
        knows(&mut leader, SECOND * 4);

        transfer_and_install(&leader.snapshot(), fresh.store()).unwrap();
        knows(&mut fresh, SECOND * 4);
        // A snapshot was flushed, and so was the state that it was installed as: no log brings this back.
        for replica in [&mut leader, &mut fresh] {
            replica.store = None;
            replica.store = Some(replica.try_open().unwrap());
            knows(replica, SECOND * 4);
        }
        leader.apply_body(backup_is_done(SECOND * 5));
        transfer_and_install(&leader.snapshot(), fresh.store()).unwrap();
        knows(&mut fresh, SECOND * 5);
    }
}

#[test]
fn a_snapshot_of_a_version_that_the_program_does_not_know_stops_it_and_changes_nothing() {
    let older = StateConfig { version_max: VERSION_MAX - 1, ..tiny() };
    let (mut leader, mut old) = (Replica::new(Kind::Memory, tiny()), Replica::new(Kind::Memory, older));
    join(&mut leader, 5);
    join(&mut old, 5);
    work(&mut leader, 1, 10);
    transfer_and_install(&leader.snapshot(), old.store()).expect("it knows this version");
    let before = old.store().reader.applied();
    leader.apply_body(raise_version(VERSION_MAX));
    work(&mut leader, 700, 10);

    // Of another cluster it is refused, and is no reason to end.
    let snapshot = leader.snapshot();
    let mut stranger = Replica::new(Kind::Memory, StateConfig { version_max: VERSION_MAX - 1, ..tiny() });
    join(&mut stranger, 6);
    assert!(matches!(begin(stranger.store(), snapshot.snapshot.manifest()), Err(ReceiveError::Malformed(_))));
    assert!(stranger.store().fatal.cause().is_none());

    let refused = begin(old.store(), snapshot.snapshot.manifest());
    assert!(matches!(refused, Err(ReceiveError::Store(StoreError::TooNew { .. }))));
    let cause = old.store().fatal.cause().expect("the replica stops").to_string();
    assert!(cause.contains("start the newer program again"), "{cause}");
    assert_eq!(old.store().reader.applied(), before);

    old.config = tiny();
    old.store = None;
    old.store = Some(old.try_open().unwrap());
    transfer_and_install(&snapshot, old.store()).expect("the newer program loses nothing");
    same_answers(&mut leader, &mut old);
}

#[test]
fn what_was_purged_from_the_log_a_snapshot_holds_again_after_the_newest_was_lost() {
    for kind in KINDS {
        let mut replica = Replica::new(kind, tiny());
        join(&mut replica, 5);
        work(&mut replica, 1, 10);
        drop(replica.snapshot());
        let (entries, purged) = (replica.log.clone(), log_id(1, 1, replica.applied_index()));
        now(replica.store().log.append(entries, IOFlushed::noop())).unwrap();
        now(replica.store().log.purge(purged)).unwrap();
        replica.store = None;
        std::fs::remove_dir_all(replica.dir.path().join("group-0/snapshots")).unwrap();
        replica.store = Some(replica.try_open().unwrap());
        let index = |store: &mut Store| {
            let current = now(store.state.get_current_snapshot()).unwrap();
            current.and_then(|current| current.meta.last_log_id).map_or(0, |id| id.index)
        };
        assert_eq!(index(replica.store()), 0);
        now(replica.store().stand_behind_the_log()).unwrap();
        assert_eq!(index(replica.store()), purged.index);
    }
}
