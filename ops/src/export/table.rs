//! A table in a file, whichever the format: rows in, rows out, a few at a time; and the file's checksum on the way.
//!
//! Laws
//! * Memory holds some thousands of rows, however long the table.
//! * A row that can't be read is refused with the file, the row and the field.
//!
//! Not here: what the columns are (`columns.rs`).

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::columns::Record;
use super::{csv, parquet};
use crate::error::{During as _, Failure, Kind};
use crate::text;

/// Rows that are read at a time.
pub const ROWS_AT_ONCE: usize = 8_192;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated values with a header line.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    pub fn extension(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Parquet => "parquet",
        }
    }

    /// `accounts.csv`.
    pub fn file_of<R: Record>(self) -> String {
        format!("{}.{}", R::TABLE, self.extension())
    }

    pub fn create<R: Record>(self, folder: &Path) -> Result<Box<dyn Sink<R>>, Failure> {
        let output = Output::create(folder.join(self.file_of::<R>()))?;
        Ok(match self {
            Format::Csv => Box::new(csv::Writer::new::<R>(output)?),
            Format::Parquet => Box::new(parquet::Writer::new(output)?),
        })
    }

    pub fn open<R: Record>(self, folder: &Path) -> Result<Box<dyn Rows<R>>, Failure> {
        let path = folder.join(self.file_of::<R>());
        Ok(match self {
            Format::Csv => Box::new(csv::Reader::open::<R>(path)?),
            Format::Parquet => Box::new(parquet::Reader::open::<R>(path)?),
        })
    }
}

/// Where a table's rows go.
pub trait Sink<R> {
    fn push(&mut self, row: &R) -> Result<(), Failure>;
    /// Writes the rest; durable when it returns.
    fn finish(self: Box<Self>) -> Result<Written, Failure>;
}

/// Where a table's rows come from.
pub trait Rows<R>: Send {
    /// The next ones, at most [`ROWS_AT_ONCE`]; none at the end.
    fn next(&mut self) -> Result<Vec<R>, Failure>;
}

/// A whole file, as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub name: String,
    pub rows_count: u64,
    pub bytes: u64,
    /// Hexadecimal: what `sha256sum` says.
    pub sha256: String,
}

/// A file on its way, with its checksum.
pub struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    sha256: Context,
    bytes: u64,
}

impl Output {
    fn create(path: PathBuf) -> Result<Output, Failure> {
        let file = File::create_new(&path).during(|| path.display().to_string())?;
        Ok(Output { path, file: BufWriter::with_capacity(1 << 20, file), sha256: Context::new(&SHA256), bytes: 0 })
    }

    pub fn failed(&self, error: impl std::fmt::Display) -> Failure {
        Failure::general(format!("{}: {error}", self.path.display()))
            .advise("nothing that was written is used: make room or name another folder, and begin again")
    }

    pub fn finish(mut self, rows_count: u64) -> Result<Written, Failure> {
        let done = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        done.map_err(|error| self.failed(error))?;
        Ok(Written {
            name: self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            rows_count,
            bytes: self.bytes,
            sha256: text::hex(self.sha256.finish().as_ref()),
        })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.sha256.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether a file is the one that was written.
pub fn check(folder: &Path, written: &Written) -> Result<(), Failure> {
    let path = folder.join(&written.name);
    let mut file = File::open(&path).map_err(|error| Failure::unreadable(&path, &error))?;
    let (mut sha256, mut buffer) = (Context::new(&SHA256), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).during(|| path.display().to_string())? {
            0 => break,
            count => sha256.update(&buffer[..count]),
        }
    }
    let found = text::hex(sha256.finish().as_ref());
    if found == written.sha256 {
        return Ok(());
    }
    Err(Failure::new(Kind::Unhealthy, format!("{} isn't what was exported: its checksum is {found}", path.display()))
        .advise("copy it again, or export again; files of your own are loaded with --format csv"))
}

/// What is wrong with a row.
pub fn malformed(path: &Path, row: u64, field: &str, why: &str) -> Failure {
    Failure::usage(format!("{}, row {row}: {field}: {why}", path.display()))
        .advise("rows are counted from 1, below the header; export again, or mend it and load it with --format csv")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::columns::tests::filled;
    use crate::export::columns::{Expiry, Kind as ColumnKind};
    use jangbu_ledger::{Account, Amount, Transfer};
    use std::os::unix::fs::FileExt as _;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("jangbu-table-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn write<R: Record>(format: Format, folder: &Path, rows: &[R]) -> Result<Written, Failure> {
        let mut sink = format.create::<R>(folder)?;
        rows.iter().try_for_each(|row| sink.push(row))?;
        sink.finish()
    }

    fn read<R: Record>(format: Format, folder: &Path) -> Result<Vec<R>, Failure> {
        let (mut table, mut all) = (format.open::<R>(folder)?, Vec::new());
        loop {
            let rows = table.next()?;
            if rows.is_empty() {
                return Ok(all);
            }
            all.extend(rows);
        }
    }

    /// More than a row group holds, with the least and the greatest of every column.
    fn rows<R: Record>() -> Vec<R> {
        let mut rows: Vec<R> = (0..140_000).map(filled).collect();
        let mut greatest = R::default();
        for column in R::COLUMNS {
            let max = match column.kind {
                ColumnKind::Amount => 10u128.pow(38) - 1,
                // All that have names.
                ColumnKind::Flags(_) => 0b11_1111,
                kind => kind.max(),
            };
            (column.set)(&mut greatest, max);
        }
        rows.extend([R::default(), greatest]);
        rows
    }

    #[test]
    fn what_is_read_back_is_what_was_written_in_both_formats() {
        fn round<R: Record + PartialEq + std::fmt::Debug>(format: Format, folder: &Path) {
            for rows in [Vec::new(), rows::<R>()] {
                let written = write(format, folder, &rows).unwrap();
                assert_eq!((written.rows_count, &*written.name), (rows.len() as u64, &*format.file_of::<R>()));
                check(folder, &written).unwrap();
                assert!(read::<R>(format, folder).unwrap() == rows, "{}", written.name);
                std::fs::remove_file(folder.join(written.name)).unwrap();
            }
        }
        for format in [Format::Csv, Format::Parquet] {
            let folder = Folder::new(format.extension());
            round::<Account>(format, &folder.0);
            round::<Transfer>(format, &folder.0);
            round::<Expiry>(format, &folder.0);
        }
    }

    #[test]
    fn an_amount_beyond_38_digits_is_for_csv() {
        let folder = Folder::new("wide");
        let rows = [Transfer { amount: Amount::MAX, ..Transfer::default() }];
        let refused = write(Format::Parquet, &folder.0, &rows).unwrap_err();
        assert!(refused.message.contains("row 1 of transfers: amount"), "{refused}");
        write(Format::Csv, &folder.0, &rows).unwrap();
        assert_eq!(read::<Transfer>(Format::Csv, &folder.0).unwrap(), rows);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_named_with_its_field() {
        let folder = Folder::new("bad");
        let good = "7,1,2,30,0,0,0,0,0,700,1,pending|linked,5";
        write::<Transfer>(Format::Csv, &folder.0, &[]).unwrap();
        let path = folder.0.join("transfers.csv");
        let header = std::fs::read_to_string(&path).unwrap();
        for (row, told) in [
            (good.replace("30", "-3"), "amount: `-3` is no number"),
            (good.replace("30", ""), "amount: `` is no number"),
            (good.replace("700", "4294967296"), "ledger: 4294967296 is more than 4294967295"),
            (good.replace("pending", "held"), "flags: `held` is no flag"),
            (
                good.replacen('7', "340282366920938463463374607431768211456", 1),
                "id: `340282366920938463463374607431768211456`",
            ),
            ("7,1,2".into(), "line:"),
        ] {
            std::fs::write(&path, format!("{header}{good}\n{row}\n")).unwrap();
            let refused = read::<Transfer>(Format::Csv, &folder.0).unwrap_err();
            assert!(refused.message.contains(&format!("transfers.csv, row 2: {told}")), "{refused}");
        }
        std::fs::write(&path, header.replace("amount", "sum")).unwrap();
        let refused = read::<Transfer>(Format::Csv, &folder.0).unwrap_err();
        assert!(refused.message.contains("the columns are not id,debit_account_id"), "{refused}");

        write(Format::Parquet, &folder.0, &rows::<Expiry>()).unwrap();
        std::fs::rename(folder.0.join("expiries.parquet"), folder.0.join("transfers.parquet")).unwrap();
        let refused = read::<Transfer>(Format::Parquet, &folder.0).unwrap_err();
        assert!(refused.message.contains("id: isn't the column"), "{refused}");
    }

    #[test]
    fn a_parquet_file_that_is_cut_short_is_refused() {
        let folder = Folder::new("cut");
        write(Format::Parquet, &folder.0, &(0..300).map(filled::<Transfer>).collect::<Vec<_>>()).unwrap();
        let path = folder.0.join("transfers.parquet");
        let whole = std::fs::read(&path).unwrap();
        for place in (0..whole.len()).step_by(whole.len() / 50 + 1) {
            std::fs::write(&path, &whole[..place]).unwrap();
            assert!(read::<Transfer>(Format::Parquet, &folder.0).is_err(), "cut to {place}");
        }
    }

    #[test]
    fn a_parquet_file_with_any_bit_flipped_is_read_or_refused() {
        let folder = Folder::new("flipped");
        write(Format::Parquet, &folder.0, &(0..3).map(filled::<Expiry>).collect::<Vec<_>>()).unwrap();
        let path = folder.0.join("expiries.parquet");
        let bytes = std::fs::read(&path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let mut refused = 0;
        for bit in 0..bytes.len() * 8 {
            let (byte, place) = (bytes[bit / 8], bit as u64 / 8);
            file.write_all_at(&[byte ^ 1 << (bit % 8)], place).unwrap();
            if let Err(failure) = read::<Expiry>(Format::Parquet, &folder.0) {
                assert!(failure.message.contains("expiries.parquet") && failure.advice.is_some(), "{failure}");
                refused += 1;
            }
            file.write_all_at(&[byte], place).unwrap();
        }
        assert!(refused > bytes.len(), "only {refused} of {} were refused", bytes.len() * 8);
    }
}
