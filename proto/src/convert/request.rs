//! What is asked to be created: typed messages straight to packed records.
//!
//! A typed request is packed once, where it comes in, without a list of structs in between; from then on it is bytes.

use bytes::{BufMut, Bytes, BytesMut};
use jangbu_ledger::{Account, Transfer};

use super::record::{account_from_wire, account_to_wire, transfer_from_wire, transfer_to_wire};
use crate::{
    Malformed,
    batch::{self, EVENTS_MAX, Operation, RECORD_BYTES},
    jangbu::v1,
};

/// The records of 1 to [`EVENTS_MAX`] accounts.
pub fn pack_accounts(request: &v1::CreateAccountsRequest) -> Result<Bytes, Malformed> {
    pack("accounts", &request.accounts, |account, record| {
        account_from_wire(account)?.encode(record);
        Ok(())
    })
}

/// The records of 1 to [`EVENTS_MAX`] transfers.
pub fn pack_transfers(request: &v1::CreateTransfersRequest) -> Result<Bytes, Malformed> {
    pack("transfers", &request.transfers, |transfer, record| {
        transfer_from_wire(transfer)?.encode(record);
        Ok(())
    })
}

fn pack<T>(
    list: &str,
    events: &[T],
    encode: impl Fn(&T, &mut [u8; RECORD_BYTES]) -> Result<(), Malformed>,
) -> Result<Bytes, Malformed> {
    check_count(list, events.len())?;
    let mut records = BytesMut::with_capacity(events.len() * RECORD_BYTES);
    let mut record = [0; RECORD_BYTES];
    for (index, event) in events.iter().enumerate() {
        encode(event, &mut record).map_err(|refusal| refusal.within(&format!("{list}[{index}]")))?;
        records.put_slice(&record);
    }
    Ok(records.freeze())
}

/// 1 to [`EVENTS_MAX`] of something.
pub(super) fn check_count(list: &str, count: usize) -> Result<(), Malformed> {
    if count == 0 || count > EVENTS_MAX {
        return Err(Malformed::new(list, format!("holds {count}; 1 to {EVENTS_MAX} are allowed")));
    }
    Ok(())
}

/// What one request of a packed stream asks: its operation, and 1 to [`EVENTS_MAX`] records.
pub fn submitted(request: v1::SubmitRequest) -> Result<(Operation, Bytes), Malformed> {
    let operation = match v1::Operation::try_from(request.operation) {
        Ok(v1::Operation::CreateAccounts) => Operation::CreateAccounts,
        Ok(v1::Operation::CreateTransfers) => Operation::CreateTransfers,
        Ok(v1::Operation::Unspecified) | Err(_) => {
            return Err(Malformed::new("operation", format!("{} is none", request.operation)));
        }
    };
    batch::events_count(request.records.len())?;
    Ok((operation, request.records))
}

/// The ids in packed records: the first field of an account and of a transfer.
pub fn record_ids(records: &[u8]) -> impl ExactSizeIterator<Item = u128> + '_ {
    let (records, _) = records.as_chunks::<RECORD_BYTES>();
    records.iter().map(|record| {
        let (id, _) = record.split_first_chunk().expect("a record is longer than its id");
        u128::from_le_bytes(*id)
    })
}

// --- the client's side

pub fn accounts_to_wire(accounts: &[Account]) -> v1::CreateAccountsRequest {
    v1::CreateAccountsRequest { accounts: accounts.iter().map(account_to_wire).collect() }
}

pub fn transfers_to_wire(transfers: &[Transfer]) -> v1::CreateTransfersRequest {
    v1::CreateTransfersRequest { transfers: transfers.iter().map(transfer_to_wire).collect() }
}

/// The accounts in packed records.
pub fn unpack_accounts(records: &[u8]) -> impl ExactSizeIterator<Item = Account> + '_ {
    records.as_chunks::<RECORD_BYTES>().0.iter().map(Account::decode)
}

/// The transfers in packed records.
pub fn unpack_transfers(records: &[u8]) -> impl ExactSizeIterator<Item = Transfer> + '_ {
    records.as_chunks::<RECORD_BYTES>().0.iter().map(Transfer::decode)
}
