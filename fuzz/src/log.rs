//! Entries, and the records in which they lie.

#[path = "../../raft-store/src/log/record.rs"]
#[allow(dead_code, reason = "the product's file, of which not all is needed here")]
mod record;

use bytes::Bytes;
use jangbu_proto::{
    batch::{self, Batch},
    entry::Entry,
};
use record::{HEADER_BYTES, Head, Kind, parse, parse_header, record_bytes};

use crate::{
    admin::{Admin, VERSION_MAX},
    type_config,
};

/// Where the record is said to lie.
const SEGMENT: u64 = 7;
const POSITION: u64 = 4_096;
const GROUP: u32 = 0;

pub fn log_entry(bytes: &[u8]) {
    let Ok(entry) = Entry::parse(Bytes::copy_from_slice(bytes)) else { return };
    assert_eq!(&entry.encode()[..], bytes, "one entry, one encoding");
    let Ok(entry) = type_config::decode_entry(Bytes::copy_from_slice(bytes)) else { return };
    let (header, payload) = type_config::encode_entry(&entry);
    assert_eq!(type_config::decode_entry([&header[..], &payload].concat().into()).as_ref(), Ok(&entry));
    if let openraft::EntryPayload::Normal(type_config::Command(body)) = entry.payload {
        let Ok(batch) = Batch::parse(body) else { return };
        if batch.kind() == batch::Kind::Admin {
            // Whatever an administrative entry says, every replica records the same or stops.
            let mut admin = Admin::default();
            let applied = admin.apply(1, 1, batch.admin(), VERSION_MAX).is_ok();
            assert_eq!(admin.records_count(), u64::from(applied));
        }
    }
}

/// As they are, and with what chance never finds made right: the magic, the place, the checksums.
pub fn log_record(bytes: &[u8]) {
    check(bytes);
    let mut bytes = bytes.to_vec();
    if bytes.len() < HEADER_BYTES {
        return;
    }
    bytes[..4].copy_from_slice(b"JBLR");
    bytes[8..16].copy_from_slice(&SEGMENT.to_le_bytes());
    bytes[16..24].copy_from_slice(&POSITION.to_le_bytes());
    bytes[32..36].copy_from_slice(&GROUP.to_le_bytes());
    // A body that may lie within what there is.
    let claimed = u32::from_le_bytes(bytes[40..44].try_into().expect("four bytes"));
    if claimed as usize <= bytes.len() - HEADER_BYTES {
        let body = &bytes[HEADER_BYTES..HEADER_BYTES + claimed as usize];
        let checksum = crc32c::crc32c(body);
        bytes[44..48].copy_from_slice(&checksum.to_le_bytes());
        bytes.resize(bytes.len().max(record_bytes(claimed as usize) as usize), 0);
    }
    let checksum = crc32c::crc32c(&bytes[8..HEADER_BYTES]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    check(&bytes);
}

fn check(bytes: &[u8]) {
    if let Ok(header) = parse_header(bytes, SEGMENT, POSITION, GROUP) {
        assert_eq!(header.encode(), bytes[..HEADER_BYTES], "one header, one encoding");
        assert!(header.end() > POSITION);
    }
    let Ok(found) = parse(bytes, SEGMENT, POSITION, GROUP) else { return };
    assert!(found.body_range().end <= bytes.len());
    let body = found.body();
    match found.header.kind {
        Kind::Head => drop(Head::parse(body)),
        Kind::Entry => log_entry(body),
        Kind::Vote | Kind::Truncate | Kind::Purge | Kind::Mark => {}
    }
    let _ = (found.header.stamp.vote(), found.header.stamp.log_id(), found.header.committed.log_id());
}
