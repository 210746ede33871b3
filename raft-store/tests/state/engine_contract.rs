//! What every engine promises, on every engine.

use crate::harness::*;
use jangbu_raft_store::engine::{Batch, Engine, EngineFactory, Staged};
use jangbu_raft_store::schema::Family;
use std::path::Path;
use std::sync::Arc;

fn put(engine: &dyn Engine, family: Family, key: &[u8], value: &[u8]) {
    let mut batch = Batch::new();
    batch.put(family, key, value.to_vec());
    engine.write(batch).unwrap();
}

fn rows(engine: &dyn Engine, family: Family) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        rows.push((key.to_vec(), value.to_vec()));
        Ok(())
    };
    engine.scan(family, &[], &[0xff; 40], &mut visit).unwrap();
    rows
}

fn on_each(test: impl Fn(Arc<dyn EngineFactory>, &Path)) {
    for kind in KINDS {
        let dir = tempfile::tempdir().unwrap();
        test(engines(kind), &dir.path().join("state"));
    }
}

#[test]
fn a_batch_is_seen_whole_and_later_changes_win() {
    on_each(|engines, dir| {
        let engine = engines.open(dir).unwrap();
        let mut batch = Batch::new();
        batch.put(Family::Rows, b"a", b"1".to_vec());
        batch.put(Family::Journal, b"a", b"2".to_vec());
        batch.put(Family::Rows, b"b", b"3".to_vec());
        batch.delete(Family::Rows, b"b");
        batch.put(Family::Rows, b"c", b"4".to_vec());
        batch.delete_range(Family::Rows, b"c", b"d");
        engine.write(batch).unwrap();
        assert_eq!(rows(&*engine, Family::Rows), [(b"a".to_vec(), b"1".to_vec())]);
        assert_eq!(engine.get(Family::Journal, b"a").unwrap().unwrap(), "2");
        assert_eq!(engine.get(Family::Rows, b"b").unwrap(), None);
    });
}

#[test]
fn neighbours_are_found_in_both_directions_and_within_their_family() {
    on_each(|engines, dir| {
        let engine = engines.open(dir).unwrap();
        for key in [b"b", b"d", b"f"] {
            put(&*engine, Family::Journal, key, key);
        }
        // Found across what is durable, what isn't, and what is deleted.
        engine.flush().unwrap();
        put(&*engine, Family::Journal, b"e", b"e");
        put(&*engine, Family::Accounts, b"z", b"");
        put(&*engine, Family::Runs, b"a", b"");
        let mut batch = Batch::new();
        batch.delete(Family::Journal, b"d");
        engine.write(batch).unwrap();
        let before = |key: &[u8]| engine.at_or_before(Family::Journal, key).unwrap().map(|(key, _)| key);
        let after = |key: &[u8]| engine.at_or_after(Family::Journal, key).unwrap().map(|(key, _)| key);
        assert_eq!(before(b"a"), None);
        assert_eq!(before(b"b"), Some(b"b".to_vec()));
        assert_eq!(before(b"d"), Some(b"b".to_vec()));
        assert_eq!(before(b"ee"), Some(b"e".to_vec()));
        assert_eq!(before(b"zz"), Some(b"f".to_vec()));
        assert_eq!(after(b""), Some(b"b".to_vec()));
        assert_eq!(after(b"c"), Some(b"e".to_vec()));
        assert_eq!(after(b"f"), Some(b"f".to_vec()));
        assert_eq!(after(b"g"), None);
    });
}

#[test]
fn a_crash_loses_what_was_not_flushed_and_nothing_else() {
    on_each(|engines, dir| {
        let engine = engines.open(dir).unwrap();
        put(&*engine, Family::Rows, b"a", b"1");
        put(&*engine, Family::Meta, b"a", b"1");
        engine.flush().unwrap();
        put(&*engine, Family::Rows, b"a", b"2");
        put(&*engine, Family::Meta, b"b", b"2");
        let mut batch = Batch::new();
        batch.delete_range(Family::Meta, b"a", b"b");
        engine.write(batch).unwrap();
        drop(engine);
        let engine = engines.open(dir).unwrap();
        assert_eq!(rows(&*engine, Family::Rows), [(b"a".to_vec(), b"1".to_vec())]);
        assert_eq!(rows(&*engine, Family::Meta), [(b"a".to_vec(), b"1".to_vec())]);
    });
}

#[test]
fn a_checkpoint_holds_what_was_written_and_stays_as_it_is() {
    on_each(|engines, dir| {
        let engine = engines.open(dir).unwrap();
        put(&*engine, Family::Rows, b"a", b"1");
        engine.flush().unwrap();
        put(&*engine, Family::Rows, b"b", b"2");
        let copy = dir.with_file_name("copy");
        engine.checkpoint(&copy).unwrap();
        put(&*engine, Family::Rows, b"c", b"3");
        engine.flush().unwrap();
        let expected = [(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())];
        assert_eq!(rows(&*engines.open_read_only(&copy).unwrap(), Family::Rows), expected);
        drop(engine);
        engines.forget(dir);
        std::fs::remove_dir_all(dir).ok();
        assert_eq!(rows(&*engines.open(&copy).unwrap(), Family::Rows), expected, "without the state it was taken from");
    });
}

fn staged(engine: &dyn Engine, keys: &[&[u8]]) -> Staged {
    let mut batch = Batch::new();
    keys.iter().for_each(|key| batch.put(Family::Runs, key, b"staged".to_vec()));
    engine.stage(batch).unwrap()
}

fn keys(engine: &dyn Engine) -> Vec<Vec<u8>> {
    rows(engine, Family::Runs).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn what_is_staged_appears_when_it_is_ingested_and_is_durable_then() {
    on_each(|engines, dir| {
        let engine = engines.open(dir).unwrap();
        put(&*engine, Family::Runs, b"c", b"flushed");
        engine.flush().unwrap();
        put(&*engine, Family::Runs, b"f", b"not flushed");
        let parts = vec![staged(&*engine, &[b"a", b"b"]), staged(&*engine, &[b"d", b"e"])];
        let left_aside = staged(&*engine, &[b"x"]);
        assert_eq!(keys(&*engine), [b"c", b"f"]);
        engine.ingest(Family::Runs, parts).unwrap();
        assert_eq!(keys(&*engine), [b"a", b"b", b"c", b"d", b"e", b"f"]);
        drop((engine, left_aside));
        assert_eq!(keys(&*engines.open(dir).unwrap()), [b"a", b"b", b"c", b"d", b"e"], "what was not flushed is gone");
    });
}

#[test]
fn what_nobody_needs_goes_and_its_neighbours_stay() {
    on_each(|engines, dir| {
        let engine = engines.open(dir).unwrap();
        for part in [[b"a", b"b"], [b"c", b"d"], [b"e", b"f"]] {
            let part = staged(&*engine, &part.map(|key| key.as_slice()));
            engine.ingest(Family::Runs, vec![part]).unwrap();
        }
        engine.let_go(Family::Runs, b"bb", b"dd").unwrap();
        assert_eq!(keys(&*engine), [b"a", b"b", b"e", b"f"]);
        drop(engine);
        assert_eq!(keys(&*engines.open(dir).unwrap()), [b"a", b"b", b"e", b"f"]);
    });
}

#[test]
fn an_error_of_the_visitor_ends_a_scan() {
    on_each(|engines, dir| {
        let engine = engines.open(dir).unwrap();
        put(&*engine, Family::Rows, b"a", b"1");
        put(&*engine, Family::Rows, b"b", b"2");
        let mut seen = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            seen += 1;
            Err(jangbu_raft_store::StoreError::DamagedState("enough".into()))
        };
        assert!(engine.scan(Family::Rows, b"a", b"z", &mut visit).is_err());
        assert_eq!(seen, 1);
    });
}

#[test]
fn rows_come_one_by_one_within_their_bounds_and_an_end_stays_an_end() {
    on_each(|engines, dir| {
        let engine = engines.open(dir).unwrap();
        for key in [b"a", b"b", b"c", b"d"] {
            put(&*engine, Family::Rows, key, key);
        }
        put(&*engine, Family::Meta, b"c", b"another family's");
        engine.flush().unwrap();
        let mut rows = engine.rows(Family::Rows, b"b", b"d", 0);
        assert_eq!(rows.next().unwrap(), Some((&b"b"[..], &b"b"[..])));
        assert_eq!(rows.next().unwrap(), Some((&b"c"[..], &b"c"[..])));
        assert_eq!(rows.next().unwrap(), None);
        assert_eq!(rows.next().unwrap(), None);
        assert_eq!(engine.rows(Family::Rows, b"e", b"f", 0).next().unwrap(), None);
    });
}
