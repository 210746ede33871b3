//! The chain of hashes that holds the audit trail together.
//!
//! Laws
//! * Each record carries the hash of the one before: whoever changes one must change all that follow, and the last hash, which
//!   every replica holds and compares.
//!
//! Not here: what is recorded, and when (`raft_store::admin`, `node/src/administration.rs`).

use sha2::{Digest as _, Sha256};

use crate::cluster::v1::AuditRecord;

pub const HASH_BYTES: usize = 32;

/// Of one answer to `cluster.v1.Operator/Audit`.
pub const RECORDS_MAX: usize = 1_000;

/// What links a record to all before it.
pub fn hash_of(record: &AuditRecord) -> [u8; HASH_BYTES] {
    let mut hasher = Sha256::new();
    for number in [record.number, record.log_index, record.timestamp, record.command.len() as u64] {
        hasher.update(number.to_le_bytes());
    }
    hasher.update(&record.command);
    hasher.update((record.refused.len() as u64).to_le_bytes());
    hasher.update(record.refused.as_bytes());
    hasher.update(&record.previous_hash);
    hasher.finalize().into()
}

/// The first fault of a part of the trail that follows on `before` (its number and hash; 0 and zero at the beginning).
/// Otherwise the number and hash of its end.
pub fn verify(mut before: (u64, Vec<u8>), records: &[AuditRecord]) -> Result<(u64, Vec<u8>), String> {
    for record in records {
        if record.number != before.0 + 1 {
            return Err(format!("record {} follows on record {}", record.number, before.0));
        }
        if record.previous_hash[..] != before.1[..] {
            return Err(format!("record {} does not name the hash of the record before it", record.number));
        }
        if hash_of(record)[..] != record.hash[..] {
            return Err(format!("record {} does not match its own hash: it was changed", record.number));
        }
        before = (record.number, record.hash.to_vec());
    }
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail() -> Vec<AuditRecord> {
        let mut previous_hash = vec![0; HASH_BYTES];
        let record = |number: u64| {
            let mut record = AuditRecord {
                number,
                log_index: number + 10,
                timestamp: number * 100,
                command: format!("act {number}").into_bytes().into(),
                previous_hash: previous_hash.clone().into(),
                ..AuditRecord::default()
            };
            previous_hash = hash_of(&record).to_vec();
            record.hash = previous_hash.clone().into();
            record
        };
        (1..=4).map(record).collect()
    }

    #[test]
    fn a_record_that_was_changed_dropped_or_moved_breaks_the_trail() {
        let start = || (0, vec![0; HASH_BYTES]);
        assert_eq!(verify(start(), &trail()), Ok((4, trail()[3].hash.to_vec())));
        let with = |change: &dyn Fn(&mut Vec<AuditRecord>)| {
            let mut records = trail();
            change(&mut records);
            verify(start(), &records)
        };
        assert!(with(&|records| records[1].command = b"act 9".to_vec().into()).is_err());
        assert!(with(&|records| records[2].timestamp += 1).is_err());
        assert!(with(&|records| drop(records.remove(1))).is_err());
        assert!(with(&|records| records.swap(1, 2)).is_err());
        assert!(with(&|records| records[3].refused = "no".into()).is_err());
    }
}
