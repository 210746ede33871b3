//! Data of format 1 opens, for ever: the fixture was written by the first release and is never written again.
//!
//! To make one for a new format: `JANGBU_WRITE_FIXTURE=1 cargo test -p jangbu-raft-store --test state a_fixture`, then state its digest below.

use crate::harness::*;
use jangbu_ledger::{AccountId, Amount, TransferId};
use std::path::{Path, PathBuf};

const SECOND: u64 = 1_000_000_000;

/// What the fixture's state has come to.
const DIGEST: &str = "c1c2a8be43f443a965b0ced8ae999141";

fn fixture() -> PathBuf {
    PathBuf::from("tests/fixtures/format-1")
}

fn write_fixture() {
    let mut replica = Replica::new(Kind::Rocks, tiny());
    replica.store().folder.join([7; 16]).unwrap();
    replica.apply(membership(&[1, 2, 3]));
    let accounts: Vec<_> = (1..=5).map(account).collect();
    replica.apply_body(accounts_body(SECOND, &accounts));
    for entry in 0..12u128 {
        let transfers: Vec<_> =
            (0..20).map(|n| transfer(1 + entry * 20 + n, 1 + n % 5, 1 + (n + 1) % 5, entry)).collect();
        replica.apply_body(transfers_body(SECOND * 2, &transfers));
    }
    drop(replica.snapshot());
    replica.store = None;
    std::fs::remove_dir_all(fixture()).ok();
    copy(replica.dir.path(), &fixture());
}

/// Without what RocksDB writes for people, and what the log keeps for later.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let (path, to) = (entry.path(), to.join(&name));
        if path.is_dir() {
            copy(&path, &to);
        } else if !["LOG", "LOCK", "lock", "OPTIONS", "spare"].iter().any(|start| name.starts_with(start)) {
            std::fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn a_fixture_of_format_1_opens_and_holds_what_was_put_into_it() {
    if std::env::var_os("JANGBU_WRITE_FIXTURE").is_some() {
        write_fixture();
    }
    let mut replica = Replica::new(Kind::Rocks, tiny());
    replica.store = None;
    replica.dir = tempfile::tempdir().unwrap();
    copy(&fixture(), replica.dir.path());
    replica.store = Some(replica.try_open().unwrap());

    let store = replica.store();
    assert_eq!(store.folder.identity().cluster_id, Some([7; 16]));
    assert_eq!(store.reader.highest_node_id(), 3);
    assert_eq!(store.reader.backed_up_at(), 0, "nobody kept that then");
    let report = now(store.reader.verify(None)).unwrap().unwrap();
    assert_eq!(report.at.log_index, 14);
    assert_eq!((report.accounts_count, report.events_count), (5, 240));
    assert_eq!(report.digest_recount, report.at.digest);
    let digest: String = report.at.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, DIGEST);
    // Each account was debited and credited four times an entry, by 0 to 11.
    for account in now(store.reader.lookup_accounts((1..=5).map(AccountId).collect())).unwrap().value {
        assert_eq!((account.debits_posted, account.credits_posted), (Amount(264), Amount(264)));
    }
    let transfers =
        now(store.reader.lookup_transfers(vec![TransferId(1), TransferId(240), TransferId(241)])).unwrap().value;
    assert_eq!(transfers.iter().map(|transfer| transfer.amount.0).collect::<Vec<_>>(), [0, 11]);
    let snapshot = now(openraft::storage::RaftStateMachine::get_current_snapshot(&mut store.state)).unwrap().unwrap();
    assert_eq!(snapshot.meta.last_log_id.unwrap().index, 14);
}
