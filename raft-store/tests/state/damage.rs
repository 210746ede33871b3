//! A flipped bit anywhere in the state is found before it becomes an answer, and stops the replica.

use crate::harness::*;
use jangbu_ledger::{ChangeEventsFilter, TransferId};
use jangbu_raft_store::StoreError;
use jangbu_raft_store::engine::Batch;
use jangbu_raft_store::schema::Family;
use openraft::storage::RaftStateMachine;
use std::path::{Path, PathBuf};

const SECOND: u64 = 1_000_000_000;

/// A replica whose state has every kind of value, all of it flushed.
fn filled(kind: Kind) -> Replica {
    let mut replica = Replica::new(kind, tiny());
    replica.apply(membership(&[1]));
    let accounts: Vec<_> = (1..=40).map(account).collect();
    replica.apply_body(accounts_body(SECOND, &accounts));
    for entry in 0..30u128 {
        let mut transfers: Vec<_> = (0..20).map(|n| transfer(1 + entry * 20 + n, 1 + n, 2 + n, 5)).collect();
        transfers[3].flags = jangbu_ledger::TransferFlags::PENDING;
        transfers[3].timeout = 1_000;
        // Burnt: there is no such account.
        transfers[4].debit_account_id = jangbu_ledger::AccountId(77_777);
        if entry > 0 {
            transfers[5] = jangbu_ledger::Transfer {
                id: transfers[5].id,
                pending_id: TransferId(1 + (entry - 1) * 20 + 3),
                amount: jangbu_ledger::Amount::MAX,
                flags: jangbu_ledger::TransferFlags::POST_PENDING_TRANSFER,
                ..Default::default()
            };
        }
        replica.apply_body(transfers_body(SECOND * 2, &transfers));
    }
    drop(replica.snapshot());
    let report = now(replica.store().reader.verify(None)).unwrap().unwrap();
    assert_eq!(report.at.digest, report.digest_recount);
    replica
}

/// Opens the damaged state and asks it everything. The first error, if there is one.
fn ask_everything(replica: &mut Replica) -> Option<StoreError> {
    let store = match replica.try_open() {
        Ok(store) => store,
        Err(error) => return Some(error),
    };
    let everything = async {
        let head = store.reader.head();
        store.reader.verify(None).await?;
        store.reader.change_events(ChangeEventsFilter { limit: 8_189, ..Default::default() }).await?;
        store.reader.lookup_transfers((1..=600).map(TransferId).collect()).await?;
        for id in 1..=40 {
            let flags = jangbu_ledger::AccountFilterFlags(3);
            let account_id = jangbu_ledger::AccountId(id);
            let filter = jangbu_ledger::AccountFilter { account_id, limit: 8_189, flags, ..Default::default() };
            store.reader.get_account_transfers(filter).await?;
        }
        Ok::<_, StoreError>(head)
    };
    let error = now(everything).err();
    assert_eq!(error.is_some(), store.fatal.cause().is_some(), "whoever meets damage stops the replica");
    error.or_else(|| {
        // Retries look into the runs and the rows of burnt ids, posts into the resolutions.
        let mut store = store;
        let mut retries: Vec<_> = (1..=600).map(|id| transfer(id, 1, 2, 5)).collect();
        for (place, retry) in retries.iter_mut().enumerate().filter(|(place, _)| place % 20 == 6) {
            *retry = jangbu_ledger::Transfer {
                id: TransferId(1_000_000 + place as u128),
                pending_id: TransferId(place as u128 - 2),
                amount: jangbu_ledger::Amount::MAX,
                flags: jangbu_ledger::TransferFlags::POST_PENDING_TRANSFER,
                ..Default::default()
            };
        }
        let index = now(store.state.applied_state()).unwrap().0.unwrap().index + 1;
        let body = transfers_body(SECOND * 3, &retries);
        let payload = openraft::EntryPayload::Normal(jangbu_raft_store::Command(body));
        let entry = jangbu_raft_store::Entry { log_id: jangbu_raft_store::log_id(1, 1, index), payload };
        apply(&mut store, entry).err().map(|error| StoreError::Fenced(error.to_string()))
    })
}

/// Behind the engine's own checksums, as a fault of memory or of the engine would.
#[test]
fn a_flipped_bit_in_any_value_is_found() {
    let mut families_seen = Vec::new();
    for family in Family::ALL {
        let mut replica = filled(Kind::Memory);
        replica.store = None;
        let dir = replica.dir.path().join("group-0/state-0");
        let mut rows = Vec::new();
        let engine = replica.engines.open(&dir).unwrap();
        let mut visit = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok(())
        };
        engine.scan(family, &[], &[0xff; 40], &mut visit).unwrap();
        // Some thirty of each family: every value has the same seal.
        for (place, (key, value)) in rows.iter().enumerate().step_by(rows.len().div_ceil(30)) {
            let mut damaged = value.clone();
            let at = place * 7 % damaged.len();
            damaged[at] ^= 1 << (place % 8);
            overwrite(&*engine, family, key, damaged);
            let found = ask_everything(&mut replica);
            assert!(found.is_some(), "{}, row {place} of {}, byte {at}", family.name(), rows.len());
            overwrite(&*engine, family, key, value.clone());
        }
        families_seen.push((family.name(), !rows.is_empty()));
    }
    assert!(families_seen.iter().all(|(_, seen)| *seen), "every family has something to lose: {families_seen:?}");
}

/// A scrub reads what no query happens to ask for: the value alone gives the damage away.
#[test]
fn a_scrub_finds_a_flipped_bit_in_any_value_and_names_its_key() {
    let mut replica = filled(Kind::Memory);
    let scrubbed = now(replica.store().reader.scrub()).unwrap();
    assert!(scrubbed.values_count > 50 && scrubbed.values_bytes > 50_000, "{scrubbed:?}");
    replica.store = None;
    let engine = replica.engines.open(&replica.dir.path().join("group-0/state-0")).unwrap();
    for family in [Family::Journal, Family::Runs, Family::Rows] {
        let mut rows = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            rows.push((key.to_vec(), value.to_vec()));
            Ok(())
        };
        engine.scan(family, &[], &[0xff; 40], &mut visit).unwrap();
        let (key, value) = rows.swap_remove(rows.len() / 2);
        let mut damaged = value.clone();
        damaged[0] ^= 1;
        overwrite(&*engine, family, &key, damaged);
        let error = match replica.try_open() {
            // A page that is needed to open at all.
            Err(error) => error,
            Ok(store) => now(store.reader.scrub()).unwrap_err(),
        };
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(error.to_string().contains(&format!("{}/{hex}", family.name())), "{error}");
        overwrite(&*engine, family, &key, value);
    }
}

fn overwrite(engine: &dyn jangbu_raft_store::engine::Engine, family: Family, key: &[u8], value: Vec<u8>) {
    let mut batch = Batch::new();
    batch.put(family, key, value);
    engine.write(batch).unwrap();
    engine.flush().unwrap();
}

#[test]
fn a_flipped_byte_in_a_table_is_found() {
    let mut replica = filled(Kind::Rocks);
    replica.store = None;
    let tables: Vec<PathBuf> = files(&replica.dir.path().join("group-0/state-0"), ".sst");
    assert!(tables.len() > 3);
    let (mut flips, mut meaningless) = (0, 0);
    for table in tables {
        let bytes = std::fs::read(&table).unwrap();
        // A walk over the file that meets its first and last bytes.
        let step = (bytes.len() / 9).max(1);
        for at in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            write_unlinked(&table, &damaged);
            flips += 1;
            if !found_by_scrub(&mut replica) {
                // Some bytes mean nothing: statistics, and room between blocks.
                assert!(answers_are_right(&mut replica), "byte {at} of {} in {}", bytes.len(), table.display());
                meaningless += 1;
            }
        }
        write_unlinked(&table, &bytes);
    }
    assert!(!found_by_scrub(&mut replica), "nothing is found where nothing is wrong");
    assert!(flips > 30 && meaningless * 5 < flips, "{meaningless} of {flips} flips were not found");
}

fn answers_are_right(replica: &mut Replica) -> bool {
    let store = replica.try_open().unwrap();
    let report = now(store.reader.verify(None)).unwrap().unwrap();
    report.at.digest == report.digest_recount
}

/// A read of everything by the engine: what an operator's scrub does.
fn found_by_scrub(replica: &mut Replica) -> bool {
    match replica.try_open() {
        Ok(store) => now(store.reader.scrub()).is_err(),
        Err(_) => true,
    }
}

/// Tables are linked from snapshots: those stay as they are.
fn write_unlinked(path: &Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    paths.sort();
    paths
}

#[test]
fn a_snapshot_with_a_damaged_manifest_is_no_snapshot() {
    for kind in KINDS {
        let mut replica = filled(kind);
        let current = now(replica.store().state.get_current_snapshot()).unwrap().unwrap();
        let manifest = current.snapshot.dir().join("jangbu.manifest");
        drop(current);
        replica.store = None;
        let mut bytes = std::fs::read(&manifest).unwrap();
        bytes[40] ^= 1;
        std::fs::write(&manifest, bytes).unwrap();
        replica.store = Some(replica.try_open().unwrap());
        assert!(now(replica.store().state.get_current_snapshot()).unwrap().is_none());
        assert!(!manifest.exists());
        drop(replica.snapshot());
    }
}

#[test]
fn an_entry_that_cannot_be_read_stops_the_replica() {
    let mut replica = filled(Kind::Memory);
    let index = replica.applied_index() + 1;
    let payload =
        openraft::EntryPayload::Normal(jangbu_raft_store::Command(bytes::Bytes::from_static(b"of a later version")));
    let entry = jangbu_raft_store::Entry { log_id: jangbu_raft_store::log_id(1, 1, index), payload };
    assert!(apply(replica.store(), entry).is_err());
    assert!(replica.store().fatal.cause().is_some());
}
