//! What is asked of the books: ids, filters, freshness.

use std::time::Duration;

use jangbu_ledger::{
    AccountFilter, AccountFilterFlags, AccountId, ChangeEventsFilter, Invalid, QueryFilter, QueryFilterFlags,
};

use super::{
    number::{u16_from_wire, u128_from_wire, u128_to_wire},
    request::check_count,
};
use crate::{
    Malformed,
    jangbu::v1::{self, read_options},
};

/// The stalest a bounded read may ask for: an hour. Beyond it a caller means [`Consistency::Local`].
pub const STALENESS_MAX: Duration = Duration::from_secs(3_600);

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write acknowledged before the read was asked, on whichever node.
    #[default]
    Linearizable,
    /// At most this stale: 1 ms to [`STALENESS_MAX`]. Served also without a quorum.
    BoundedStaleness(Duration),
    /// Whatever the node has. Served also without a quorum.
    Local,
}

pub fn consistency(options: Option<&v1::ReadOptions>) -> Result<Consistency, Malformed> {
    use read_options::Consistency as Wire;
    match options.and_then(|options| options.consistency.as_ref()) {
        None | Some(Wire::Linearizable(_)) => Ok(Consistency::Linearizable),
        Some(Wire::Local(_)) => Ok(Consistency::Local),
        Some(Wire::BoundedStaleness(bound)) => {
            let max = Duration::from_millis(bound.max_ms.into());
            if max.is_zero() || max > STALENESS_MAX {
                let reason = format!("{} is not within 1 to {}", bound.max_ms, STALENESS_MAX.as_millis());
                return Err(Malformed::new("read.bounded_staleness.max_ms", reason));
            }
            Ok(Consistency::BoundedStaleness(max))
        }
    }
}

/// A bound is rounded down to whole milliseconds and cut to what the wire can say: never staler than was asked for, save
/// that it is at least one millisecond.
pub fn consistency_to_wire(consistency: Consistency) -> v1::ReadOptions {
    use read_options::Consistency as Wire;
    let consistency = match consistency {
        Consistency::Linearizable => Wire::Linearizable(v1::Linearizable {}),
        Consistency::Local => Wire::Local(v1::Local {}),
        Consistency::BoundedStaleness(max) => {
            let max_ms = max.min(STALENESS_MAX).as_millis().max(1) as u32;
            Wire::BoundedStaleness(v1::BoundedStaleness { max_ms })
        }
    };
    v1::ReadOptions { consistency: Some(consistency) }
}

/// The ids of a lookup: 1 to 8,189.
pub fn ids(ids: &[v1::Uint128]) -> Result<Vec<u128>, Malformed> {
    check_count("ids", ids.len())?;
    Ok(ids.iter().map(|id| u128_from_wire(&Some(*id))).collect())
}

pub fn ids_to_wire(ids: impl IntoIterator<Item = u128>) -> Vec<v1::Uint128> {
    // In a list there is no "unset": zero is written out.
    ids.into_iter().map(|id| u128_to_wire(id).unwrap_or_default()).collect()
}

pub fn account_filter(filter: Option<&v1::AccountFilter>) -> Result<AccountFilter, Malformed> {
    let wire = present(filter)?;
    let filter = AccountFilter {
        account_id: AccountId(u128_from_wire(&wire.account_id)),
        user_data_128: u128_from_wire(&wire.user_data_128),
        user_data_64: wire.user_data_64,
        user_data_32: wire.user_data_32,
        code: u16_from_wire("filter.code", wire.code)?,
        timestamp_min: wire.timestamp_min,
        timestamp_max: wire.timestamp_max,
        limit: wire.limit,
        flags: AccountFilterFlags(wire.flags),
    };
    filter.validate().map_err(in_filter)?;
    Ok(filter)
}

pub fn account_filter_to_wire(filter: &AccountFilter) -> v1::AccountFilter {
    v1::AccountFilter {
        account_id: u128_to_wire(filter.account_id.0),
        user_data_128: u128_to_wire(filter.user_data_128),
        user_data_64: filter.user_data_64,
        user_data_32: filter.user_data_32,
        code: filter.code as u32,
        timestamp_min: filter.timestamp_min,
        timestamp_max: filter.timestamp_max,
        limit: filter.limit,
        flags: filter.flags.0,
    }
}

pub fn query_filter(filter: Option<&v1::QueryFilter>) -> Result<QueryFilter, Malformed> {
    let wire = present(filter)?;
    let filter = QueryFilter {
        user_data_128: u128_from_wire(&wire.user_data_128),
        user_data_64: wire.user_data_64,
        user_data_32: wire.user_data_32,
        ledger: wire.ledger,
        code: u16_from_wire("filter.code", wire.code)?,
        timestamp_min: wire.timestamp_min,
        timestamp_max: wire.timestamp_max,
        limit: wire.limit,
        flags: QueryFilterFlags(wire.flags),
    };
    filter.validate().map_err(in_filter)?;
    Ok(filter)
}

pub fn query_filter_to_wire(filter: &QueryFilter) -> v1::QueryFilter {
    v1::QueryFilter {
        user_data_128: u128_to_wire(filter.user_data_128),
        user_data_64: filter.user_data_64,
        user_data_32: filter.user_data_32,
        ledger: filter.ledger,
        code: filter.code as u32,
        timestamp_min: filter.timestamp_min,
        timestamp_max: filter.timestamp_max,
        limit: filter.limit,
        flags: filter.flags.0,
    }
}

pub fn change_events_filter(filter: Option<&v1::ChangeEventsFilter>) -> Result<ChangeEventsFilter, Malformed> {
    let wire = present(filter)?;
    let filter =
        ChangeEventsFilter { timestamp_min: wire.timestamp_min, timestamp_max: wire.timestamp_max, limit: wire.limit };
    filter.validate().map_err(in_filter)?;
    Ok(filter)
}

pub fn change_events_filter_to_wire(filter: &ChangeEventsFilter) -> v1::ChangeEventsFilter {
    v1::ChangeEventsFilter {
        timestamp_min: filter.timestamp_min,
        timestamp_max: filter.timestamp_max,
        limit: filter.limit,
    }
}

/// A filter that isn't there would ask for everything; nobody means that by saying nothing.
fn present<T>(filter: Option<&T>) -> Result<&T, Malformed> {
    filter.ok_or_else(|| Malformed::new("filter", "is missing"))
}

fn in_filter(invalid: Invalid) -> Malformed {
    Malformed::new(format!("filter.{}", invalid.field), invalid.reason)
}
