//! Messages to ledger types: complete, or refused with the field's name; and ledger types to messages.
//!
//!     request.rs    what is asked to be created: typed messages straight to packed records
//!     record.rs     one account, one transfer
//!     read.rs       what is asked of the books: ids, filters, freshness
//!     reply.rs      what is answered: results, records, balances, change events
//!     node.rs       who a node is
//!     number.rs     128-bit numbers: on the wire, and as decimal strings
//!
//! Laws
//! * What goes over a wire and comes back is the same.
//! * A refused message names the path of the field as the client wrote it: `transfers[3].code`, `filter.limit`.
//! * Nothing is judged here that the rules of money judge: an id of zero passes, and is answered by a status.
//!
//! Not here: gRPC statuses (`reason`), the form of a log entry's body (`batch`).

mod node;
mod number;
mod read;
mod record;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use node::{bytes_16, node_from_wire, node_to_wire};
pub use number::{from_decimal, to_decimal, u128_from_wire, u128_to_wire};
pub use read::{
    Consistency, STALENESS_MAX, account_filter, account_filter_to_wire, change_events_filter,
    change_events_filter_to_wire, consistency, consistency_to_wire, ids, ids_to_wire, query_filter,
    query_filter_to_wire,
};
pub use record::{account_from_wire, account_to_wire, transfer_from_wire, transfer_to_wire};
pub use reply::{
    ChangeEvent, CreateStatus, accounts, accounts_reply, answer, applied, applied_at, balances, balances_reply,
    change_events, change_events_reply, create_accounts_reply, create_transfers_reply, results, results_of, transfers,
    transfers_reply, view_of_applied,
};
pub use request::{
    accounts_to_wire, pack_accounts, pack_transfers, record_ids, submitted, transfers_to_wire, unpack_accounts,
    unpack_transfers,
};
