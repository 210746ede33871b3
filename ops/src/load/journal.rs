//! The acknowledged transfers of a run, in a file that outlives it.
//!
//! A header of 128 bytes (magic, the run's id, zeros), then each transfer as a record of 128 bytes, with the timestamp that
//! the cluster gave it. A record cut short by a crash at the end of the file is left out: it had not been counted yet.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jangbu_ledger::Transfer;

use crate::error::{During as _, Failure};

const MAGIC: &[u8; 16] = b"jangbu-journal-1";

pub struct Journal {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

impl Journal {
    pub fn create(path: &Path, run_id: u128) -> Result<Journal, Failure> {
        let file = File::create(path).during(|| path.display().to_string())?;
        let mut header = [0; Transfer::BYTES];
        header[..16].copy_from_slice(MAGIC);
        header[16..32].copy_from_slice(&run_id.to_le_bytes());
        let journal = Journal { path: path.to_path_buf(), file: Mutex::new(BufWriter::with_capacity(1 << 20, file)) };
        journal.write(&header)?;
        Ok(journal)
    }

    pub fn acknowledged(&self, transfers: &[Transfer]) -> Result<(), Failure> {
        let mut records = vec![0; transfers.len() * Transfer::BYTES];
        for (transfer, record) in transfers.iter().zip(records.as_chunks_mut().0) {
            transfer.encode(record);
        }
        self.write(&records)
    }

    pub fn finish(&self) -> Result<(), Failure> {
        self.file().flush().during(|| self.path.display().to_string())
    }

    fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        self.file().write_all(bytes).during(|| self.path.display().to_string())
    }

    fn file(&self) -> std::sync::MutexGuard<'_, BufWriter<File>> {
        self.file.lock().expect("nobody panics while writing")
    }
}

/// All transfers of a journal.
pub fn read(path: &Path) -> Result<Vec<Transfer>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::unreadable(path, &error))?;
    let (records, _cut_short) = bytes.as_chunks::<{ Transfer::BYTES }>();
    match records.split_first() {
        Some((header, records)) if header.starts_with(MAGIC) => Ok(records.iter().map(Transfer::decode).collect()),
        _ => Err(Failure::usage(format!("{} is no journal of `jangbu load`", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jangbu_ledger::TransferId;

    #[test]
    fn what_was_written_is_read_and_a_record_cut_short_is_left_out() {
        let path = std::env::temp_dir().join(format!("jangbu-journal-{}", std::process::id()));
        let transfers = [1, 2, 3].map(|id| Transfer { id: TransferId(id), timestamp: 7, ..Transfer::default() });
        let journal = Journal::create(&path, 5).unwrap();
        journal.acknowledged(&transfers[..1]).unwrap();
        journal.acknowledged(&transfers[1..]).unwrap();
        journal.finish().unwrap();
        assert_eq!(read(&path).unwrap(), transfers);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(read(&path).unwrap(), transfers[..2]);
        std::fs::write(&path, b"something else").unwrap();
        assert!(read(&path).is_err());
        std::fs::remove_file(path).unwrap();
    }
}
