//! Tables of an export, as an import takes them back.

#[path = "../../ops/src/export/columns.rs"]
mod columns;
#[path = "../../ops/src/export/csv.rs"]
mod csv;
#[path = "../../ops/src/export/pages.rs"]
mod pages;
#[path = "../../ops/src/export/parquet.rs"]
mod parquet;
#[path = "../../ops/src/export/table.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod table;

use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use columns::{Expiry, Kind, Record};
use jangbu_ledger::{Account, Transfer};
use table::{Format, ROWS_AT_ONCE};

use crate::error::Failure;

/// A few bytes of Parquet can say "the same row, two billion times", which is read as patiently as it was written.
const ROWS_MAX: usize = 4 * ROWS_AT_ONCE;

/// Of this process, in memory where there is such a place.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    // Parquet's library panics, and its reader here catches that: a finding is what comes through, which ends the process as well.
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map_or("", |at| at.file());
        if !at.contains("/parquet-") {
            eprintln!("{panic}");
        }
    }));
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = parent.join(format!("jangbu-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("there is room for a file");
    folder
});

/// The first byte says which table it is, and in which format.
pub fn exported(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let format = if which % 2 == 0 { Format::Csv } else { Format::Parquet };
    match which / 2 % 3 {
        0 => check::<Account>(format, bytes),
        1 => check::<Transfer>(format, bytes),
        _ => check::<Expiry>(format, bytes),
    }
}

/// What is taken is written and read back as it is.
fn check<R: Record + PartialEq + Debug>(format: Format, bytes: &[u8]) {
    let path = FOLDER.join(format.file_of::<R>());
    fs::write(&path, bytes).expect("there is room for a file");
    let mut rows = match read::<R>(format) {
        Ok(rows) => rows,
        Err(refused) => {
            assert!(refused.message.starts_with(&*path.to_string_lossy()), "it names the file: {refused}");
            assert!(refused.advice.is_some(), "it says what to do next: {refused}");
            return;
        }
    };
    fs::remove_file(&path).expect("it is there");
    rows.retain(|row| R::COLUMNS.iter().all(|column| has_names((column.get)(row), column.kind)));
    if write(format, &rows).is_ok() {
        assert_eq!(read::<R>(format).expect("what was written can be read"), rows);
    }
}

/// Flags may be given as a number, for the ledger to refuse; written are those that have names.
fn has_names(number: u128, kind: Kind) -> bool {
    match kind {
        Kind::Flags(names) => (names.from_text)(&(names.to_text)(number)) == Ok(number),
        _ => true,
    }
}

fn read<R: Record>(format: Format) -> Result<Vec<R>, Failure> {
    let (mut table, mut rows) = (format.open::<R>(&FOLDER)?, Vec::new());
    while rows.len() < ROWS_MAX {
        match table.next()? {
            more if more.is_empty() => break,
            more => rows.extend(more),
        }
    }
    Ok(rows)
}

/// Refused are amounts that Parquet's decimals don't hold.
fn write<R: Record>(format: Format, rows: &[R]) -> Result<(), Failure> {
    let mut table = format.create::<R>(&FOLDER)?;
    rows.iter().try_for_each(|row| table.push(row))?;
    table.finish().map(drop)
}
