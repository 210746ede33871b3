//! What happened: change events, their numbers, and what becomes of a pending transfer.
//!
//! The journal is the only thing that grows. Everything else (balances, open pendings, ids) follows from it.
//!
//! Laws
//! * Event numbers are dense and from 0; timestamps of events strictly increase with them.
//! * A pending transfer has at most one event that resolves it: posted, voided or expired.
//!
//! Not here: where events are kept (`recent.rs`, and the store beyond it).

use crate::{AccountFlags, Balances, Digest, Slot, Transfer};

/// An event's place in the journal: dense, from 0, over all change events in log order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct EventNumber(pub u64);

/// The kinds of change events. The number is the wire value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EventKind {
    SinglePhase = 0,
    Pending = 1,
    Posted = 2,
    Voided = 3,
    Expired = 4,
}

impl EventKind {
    pub const fn code(self) -> u8 {
        self as u8
    }

    pub const fn from_code(code: u8) -> Option<EventKind> {
        match code {
            0 => Some(EventKind::SinglePhase),
            1 => Some(EventKind::Pending),
            2 => Some(EventKind::Posted),
            3 => Some(EventKind::Voided),
            4 => Some(EventKind::Expired),
            _ => None,
        }
    }

    /// What an event of this kind makes of the pending transfer it names.
    pub const fn resolves_to(self) -> Option<PendingState> {
        match self {
            EventKind::SinglePhase | EventKind::Pending => None,
            EventKind::Posted => Some(PendingState::Posted),
            EventKind::Voided => Some(PendingState::Voided),
            EventKind::Expired => Some(PendingState::Expired),
        }
    }

    /// Does an event of this kind record a transfer of its own? An expiry does not: it shows the pending one again.
    pub const fn records_transfer(self) -> bool {
        !matches!(self, EventKind::Expired)
    }
}

/// What has become of a pending transfer. The number is the stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PendingState {
    Open = 0,
    Posted = 1,
    Voided = 2,
    Expired = 3,
}

impl PendingState {
    pub const fn code(self) -> u8 {
        self as u8
    }

    pub const fn from_code(code: u8) -> Option<PendingState> {
        match code {
            0 => Some(PendingState::Open),
            1 => Some(PendingState::Posted),
            2 => Some(PendingState::Voided),
            3 => Some(PendingState::Expired),
            _ => None,
        }
    }
}

/// One account in an event, as it was right after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    pub slot: Slot,
    pub flags: AccountFlags,
    pub balances: Balances,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened, in log time. For an imported transfer that is later than the transfer's own timestamp.
    pub timestamp: u64,
    pub kind: EventKind,
    /// The transfer it recorded; for an expiry the pending transfer that expired.
    pub transfer: Transfer,
    /// The event of the pending transfer that this one resolves.
    pub pending: Option<EventNumber>,
    pub debit: Side,
    pub credit: Side,
}

/// What is known of a transfer id that has been used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdState {
    /// It is that of the transfer recorded by this event.
    Event(EventNumber),
    /// It failed for a reason that may pass, and can't be used any more.
    Burnt,
}

/// Where the books stand between two requests. With the accounts and the open expiries it is all that a restart needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub next_event: EventNumber,
    /// Log time: that of the last event of the last request, whether it took effect or not.
    pub last_timestamp: u64,
    /// The highest timestamp of an account; with imports it may be behind log time. 0: there is none.
    pub last_account_timestamp: u64,
    /// The highest timestamp of a transfer; with imports it may be behind log time. 0: there is none.
    pub last_transfer_timestamp: u64,
    /// How many pending transfers are neither posted, voided nor expired.
    pub pendings_open: u64,
    pub digest: Digest,
}

impl Head {
    pub(crate) const START: Head = Head {
        next_event: EventNumber(0),
        last_timestamp: 0,
        last_account_timestamp: 0,
        last_transfer_timestamp: 0,
        pendings_open: 0,
        digest: Digest::EMPTY,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_kinds_and_states_lead_back_to_them() {
        for code in 0..=4 {
            assert_eq!(EventKind::from_code(code).map(EventKind::code), Some(code));
        }
        assert_eq!(EventKind::from_code(5), None);
        for code in 0..=3 {
            assert_eq!(PendingState::from_code(code).map(PendingState::code), Some(code));
        }
        assert_eq!(PendingState::from_code(4), None);
    }
}
