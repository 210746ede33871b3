//! The state on RocksDB, without its write-ahead log: the Raft log is the one that counts.
//!
//! Every option here either keeps the law of [`super::Engine`] (atomic flush, no flush on the way out), bounds memory, or keeps RocksDB from doing work
//! that this layout doesn't need: rows arrive few, large and in ascending order, from one thread.
//!
//! Not here: what is written (`flush.rs`), and when.

use super::{Batch, Change, Engine, EngineFactory, Row, RowRef, Rows, Staged, Usage};
use crate::error::{REPLACE_ADVICE, StoreError};
use crate::schema::Family;
use bytes::Bytes;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator, ErrorKind,
    FlushOptions, IngestExternalFileOptions, Options, ReadOptions, SstFileWriter, WriteBatch, WriteOptions,
};
use std::io::ErrorKind as IoErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Far above what one flush writes (about 30 MiB per 256 k events), so that RocksDB never flushes on its own account.
const WRITE_BUFFER_BYTES: usize = 1 << 30;

/// Compaction moves whole files of the ascending families; this is how much it moves, or drops, at a time.
const FILE_BYTES: u64 = 64 << 20;

/// Small enough that reading one page of 3 KiB reads little else.
const BLOCK_BYTES: usize = 4 << 10;

/// Pages of accounts are only ever read one after the other, all of them.
const ACCOUNTS_BLOCK_BYTES: usize = 64 << 10;

/// Accounts are written again a stripe at a time, which is some five of these: what shares a file with an end of the stripe is written
/// again with it.
const ACCOUNTS_FILE_BYTES: u64 = 1 << 20;

/// The folder, in the database's, of tables that are not yet part of it.
const STAGED_DIR: &str = "staged";

/// More than all accounts take. Theirs are the only pages that are written again and again; with a single level beneath the
/// newest files, compaction moves each version once, and not once per level.
const ACCOUNTS_LEVEL_BYTES: u64 = 1 << 40;

/// Bounds the memory that open tables take, at the price of opening some again.
const OPEN_FILES_MAX: i32 = 512;

/// Two threads: one may move files while the other flushes.
const BACKGROUND_JOBS: i32 = 2;

/// Keeps the kernel from gathering dirty pages for one long stall.
const BYTES_PER_SYNC: u64 = 1 << 20;

#[derive(Clone)]
pub struct RocksEngines {
    /// Blocks read from disk, tables' indexes included. Shared by all that this factory opens.
    cache: Cache,
    compacts: bool,
}

impl RocksEngines {
    pub fn new(cache_bytes: usize) -> RocksEngines {
        RocksEngines { cache: Cache::new_lru_cache(cache_bytes), compacts: true }
    }

    /// For simulations: which files there are follows from the flushes alone, and not from RocksDB's own threads.
    pub fn without_compaction(self) -> RocksEngines {
        RocksEngines { compacts: false, ..self }
    }
}

impl RocksEngines {
    fn engine(&self, db: DB, dir: &Path) -> RocksEngine {
        RocksEngine {
            db,
            dir: dir.to_owned(),
            cache: self.cache.clone(),
            staged_count: AtomicU64::new(0),
            rows: Mutex::default(),
        }
    }
}

impl std::fmt::Debug for RocksEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RocksEngine({})", self.dir.display())
    }
}

impl EngineFactory for RocksEngines {
    fn open(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        let families = Family::ALL.map(|family| {
            let mut options = family_options(family, &self.cache);
            options.set_disable_auto_compactions(!self.compacts);
            ColumnFamilyDescriptor::new(family.name(), options)
        });
        let db = DB::open_cf_descriptors(&database_options(), dir, families)
            .map_err(|error| failed("opening the state", dir, error))?;
        clear_staged(&dir.join(STAGED_DIR))?;
        Ok(Arc::new(self.engine(db, dir)))
    }

    fn open_read_only(&self, dir: &Path) -> Result<Arc<dyn Engine>, StoreError> {
        let families = Family::ALL.map(Family::name);
        let db = DB::open_cf_for_read_only(&Options::default(), dir, families, false)
            .map_err(|error| failed("opening the checkpoint", dir, error))?;
        Ok(Arc::new(self.engine(db, dir)))
    }

    fn forget(&self, _dir: &Path) {}
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // All families become durable together: without a write-ahead log it is the only promise RocksDB makes about several of them.
    options.set_atomic_flush(true);
    // A node that is dropped must be like one that crashed: nothing becomes durable that our own flush didn't ask for.
    options.set_avoid_flush_during_shutdown(true);
    options.set_paranoid_checks(true);
    options.set_force_consistency_checks(true);
    options.set_allow_concurrent_memtable_write(false);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_bytes_per_sync(BYTES_PER_SYNC);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options
}

fn family_options(family: Family, cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(if family == Family::Accounts { ACCOUNTS_BLOCK_BYTES } else { BLOCK_BYTES });
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES);
    options.set_target_file_size_base(if family == Family::Accounts { ACCOUNTS_FILE_BYTES } else { FILE_BYTES });
    options.set_max_bytes_for_level_base(if family == Family::Accounts {
        ACCOUNTS_LEVEL_BYTES
    } else {
        4 * FILE_BYTES
    });
    options.set_compression_type(match family {
        // Records of 128 bytes with many zeros, rewritten whole: a third of the bytes, and writing those costs more than LZ4.
        Family::Accounts => DBCompressionType::Lz4,
        // Packed already.
        Family::Meta | Family::Journal | Family::Runs | Family::Rows => DBCompressionType::None,
    });
    options
}

/// Throws away what a crash left aside.
fn clear_staged(dir: &Path) -> Result<(), StoreError> {
    let cleared = match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != IoErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => std::fs::create_dir(dir),
    };
    cleared.map_err(|error| StoreError::io("clearing", dir, error))
}

/// The options are ours to give, and the write-ahead log is empty.
fn remove_what_nobody_needs(checkpoint: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(checkpoint)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("OPTIONS-") || name.ends_with(".log") {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

pub struct RocksEngine {
    db: DB,
    dir: PathBuf,
    cache: Cache,
    /// Names the files that are written aside.
    staged_count: AtomicU64,
    /// The rows of the batch that is being written. Kept from one to the next: tens of megabytes that would otherwise be given back to the
    /// operating system and asked of it again, zeroed, at each flush.
    rows: Mutex<WriteBatch>,
}

impl RocksEngine {
    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("every family was made when the database was opened")
    }

    fn failed(&self, doing: &'static str, error: rocksdb::Error) -> StoreError {
        failed(doing, &self.dir, error)
    }

    /// The row under the iterator, if it stands on one.
    fn row(&self, iterator: &DBRawIterator<'_>) -> Result<Option<Row>, StoreError> {
        match iterator.item() {
            Some((key, value)) => Ok(Some((key.to_vec(), Bytes::copy_from_slice(value)))),
            None => iterator.status().map(|()| None).map_err(|error| self.failed("reading", error)),
        }
    }
}

struct RocksRows<'e> {
    engine: &'e RocksEngine,
    iterator: DBRawIterator<'e>,
    /// The row under the iterator has been handed out.
    shown: bool,
}

impl Rows for RocksRows<'_> {
    fn next(&mut self) -> Result<Option<RowRef<'_>>, StoreError> {
        if std::mem::replace(&mut self.shown, true) {
            self.iterator.next();
        }
        if self.iterator.valid() {
            return Ok(self.iterator.item());
        }
        // An end that is one stays one: asking again must not move an iterator that stands nowhere.
        self.shown = false;
        self.iterator.status().map(|()| None).map_err(|error| self.engine.failed("reading", error))
    }
}

fn failed(doing: &'static str, dir: &Path, error: rocksdb::Error) -> StoreError {
    let advice = if error.kind() == ErrorKind::Corruption { format!(". {REPLACE_ADVICE}") } else { String::new() };
    StoreError::Engine { doing, path: dir.to_owned(), reason: format!("{}{advice}", error.into_string()) }
}

impl Engine for RocksEngine {
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_pinned_cf(self.family(family), key).map_err(|error| self.failed("reading", error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn at_or_before(&self, family: Family, key: &[u8]) -> Result<Option<Row>, StoreError> {
        let mut iterator = self.db.raw_iterator_cf(self.family(family));
        iterator.seek_for_prev(key);
        self.row(&iterator)
    }

    fn at_or_after(&self, family: Family, key: &[u8]) -> Result<Option<Row>, StoreError> {
        let mut iterator = self.db.raw_iterator_cf(self.family(family));
        iterator.seek(key);
        self.row(&iterator)
    }

    fn rows<'e>(&'e self, family: Family, from: &[u8], to: &[u8], ahead_bytes: usize) -> Box<dyn Rows + 'e> {
        let mut options = ReadOptions::default();
        options.set_readahead_size(ahead_bytes);
        options.set_iterate_upper_bound(to.to_vec());
        options.fill_cache(false);
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(family), options);
        iterator.seek(from);
        Box::new(RocksRows { engine: self, iterator, shown: false })
    }

    fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let mut rows = self.rows.lock().expect("no holder of this lock panics");
        rows.clear();
        for change in batch.changes {
            match change {
                Change::Put { family, key, value } => rows.put_cf(self.family(family), key, value),
                Change::Delete { family, key } => rows.delete_cf(self.family(family), key),
                Change::DeleteRange { family, from, to } => rows.delete_range_cf(self.family(family), from, to),
            }
        }
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(&rows, &options).map_err(|error| self.failed("writing", error))
    }

    fn flush(&self) -> Result<(), StoreError> {
        let families = Family::ALL.map(|family| self.family(family));
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&families.each_ref(), &options).map_err(|error| self.failed("flushing", error))
    }

    fn stage(&self, batch: Batch) -> Result<Staged, StoreError> {
        let number = self.staged_count.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(STAGED_DIR).join(format!("{number:06}.sst"));
        let Some(Change::Put { family, .. }) = batch.changes.first() else { unreachable!("what is staged is a put") };
        let options = family_options(*family, &self.cache);
        let write = || {
            let mut table = SstFileWriter::create(&options);
            table.open(&path)?;
            for change in &batch.changes {
                let Change::Put { key, value, .. } = change else { unreachable!("only puts are written aside") };
                table.put(key, value)?;
            }
            table.finish()
        };
        write().map_err(|error| failed("writing", &path, error))?;
        Ok(Staged::File(path))
    }

    fn ingest(&self, family: Family, parts: Vec<Staged>) -> Result<(), StoreError> {
        let path = |part| match part {
            Staged::File(path) => path,
            Staged::Rows(_) => unreachable!("this engine stages files"),
        };
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        // Rows in between, which would need a flush, are against the contract.
        options.set_allow_blocking_flush(false);
        let paths: Vec<PathBuf> = parts.into_iter().map(path).collect();
        let ingested = self.db.ingest_external_file_cf_opts(self.family(family), &options, paths);
        ingested.map_err(|error| self.failed("ingesting", error))
    }

    fn let_go(&self, family: Family, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        let dropped = self.db.delete_file_in_range_cf(self.family(family), from, to);
        dropped.map_err(|error| self.failed("letting go of tables", error))
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), StoreError> {
        // The flush that this includes is atomic over the families, and with it the copy.
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(dir))
            .map_err(|error| failed("making a checkpoint in", dir, error))?;
        remove_what_nobody_needs(dir).map_err(|error| StoreError::io("clearing a checkpoint in", dir, error))
    }

    fn scrub(&self) -> Result<(), StoreError> {
        self.db.verify_checksum().map_err(|error| self.failed("verifying checksums in", error))
    }

    fn usage(&self) -> Usage {
        let sum = |property: &str| -> u64 {
            Family::ALL
                .iter()
                .filter_map(|family| self.db.property_int_value_cf(self.family(*family), property).ok().flatten())
                .sum()
        };
        Usage {
            memory_bytes: sum("rocksdb.cur-size-all-mem-tables") + sum("rocksdb.estimate-table-readers-mem"),
            disk_bytes: sum("rocksdb.total-sst-files-size"),
        }
    }
}
