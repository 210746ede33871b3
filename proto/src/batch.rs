//! The body of a log entry: the requests of many callers, packed; and the replies to them.
//!
//!     body     header 16   { version u8 = 1, kind u8, zero u16, requests_count u32, time u64 }
//!              request 16  { operation u8, zero [u8; 3], events_count u32, zero u64 }, then its records, 128 bytes each
//!              request …
//!     or       header 16, then an administrative action, a protobuf message
//!
//!     replies  reply 16    { timestamp u64, events_count u32, exceptions_count u32 }, then its exceptions, 16 bytes each
//!              reply …        exception { index u32, status u32, timestamp u64 }
//!
//! All integers are little-endian. A body travels as it is from the node that was asked to the leader, to every log and
//! into every replica; the leader writes the time into it and nothing else. A request keeps its own borders: a chain of
//! linked events ends with it.
//!
//! Laws
//! * A body or a reply is parsed whole: every border is checked before the first record is looked at.
//! * The times of a body's requests follow from the body and the replica's last timestamp alone ([`Batch::stamped`]).
//!
//! Not here: what a record says (`ledger`), whether it makes sense (`convert`).

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub use jangbu_ledger::EVENTS_MAX;

use crate::Malformed;

/// An account or a transfer, packed.
pub const RECORD_BYTES: usize = 128;

/// The largest body. With its envelope it fits a peer message ([`crate::transport::PEER_MESSAGE_BYTES_MAX`]) twice.
pub const BODY_BYTES_MAX: usize = 31 * 1024 * 1024;

/// The largest administrative action.
pub const ADMIN_BYTES_MAX: usize = 64 * 1024;

/// The latest time a body can carry: the data model's own bound, 2^63 - 1. It keeps all arithmetic here from overflowing.
pub const TIME_MAX: u64 = jangbu_ledger::TIMESTAMP_MAX;

/// The status of an event that was carried out, for accounts and transfers alike.
pub const CREATED: u32 = u32::MAX;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 16;
const TIME_AT: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    CreateAccounts = 1,
    CreateTransfers = 2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Requests of clients.
    Batch = 1,
    /// No requests: expires what is due at the body's time.
    Pulse = 2,
    /// No requests: an administrative action (`cluster.v1.AdminCommand`) follows the header. From cluster version 2 on.
    Admin = 3,
}

// --- the body, written

/// Gathers requests into one body.
#[derive(Debug)]
pub struct BatchBuilder {
    body: BytesMut,
    requests_count: u32,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    pub fn new() -> Self {
        Self { body: BytesMut::zeroed(HEADER_BYTES), requests_count: 0 }
    }

    /// What [`push`](Self::push) will add for so many bytes of records.
    pub const fn bytes_of(records_bytes: usize) -> usize {
        HEADER_BYTES + records_bytes
    }

    /// Adds one request. `records` holds 1 to [`EVENTS_MAX`] whole records, and the body stays within
    /// [`BODY_BYTES_MAX`]: the caller has checked both.
    pub fn push(&mut self, operation: Operation, records: &[u8]) {
        let events_count = events_count(records.len()).expect("the door has checked the records");
        assert!(self.bytes() + Self::bytes_of(records.len()) <= BODY_BYTES_MAX, "a body stays within its bound");
        self.body.reserve(Self::bytes_of(records.len()));
        self.body.put_u8(operation as u8);
        self.body.put_bytes(0, 3);
        self.body.put_u32_le(events_count);
        self.body.put_u64_le(0);
        self.body.put_slice(records);
        self.requests_count += 1;
    }

    /// The number of requests.
    pub fn len(&self) -> usize {
        self.requests_count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.requests_count == 0
    }

    /// The size of the body so far.
    pub fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The body. `time` is 0 on the way to the leader, which stamps it ([`with_time`]).
    pub fn finish(mut self, time: u64) -> Bytes {
        write_header(&mut self.body, Kind::Batch, self.requests_count, time);
        self.body.freeze()
    }
}

/// The body that expires what is due at `time`.
pub fn pulse(time: u64) -> Bytes {
    let mut body = BytesMut::zeroed(HEADER_BYTES);
    write_header(&mut body, Kind::Pulse, 0, time);
    body.freeze()
}

/// The body of an administrative action, at `time`.
pub fn admin(command: &[u8], time: u64) -> Bytes {
    assert!(command.len() <= ADMIN_BYTES_MAX, "an administrative action stays within its bound");
    let mut body = BytesMut::zeroed(HEADER_BYTES);
    write_header(&mut body, Kind::Admin, 0, time);
    body.put_slice(command);
    body.freeze()
}

/// The same body with another time: in place when nobody else holds it.
pub fn with_time(body: Bytes, time: u64) -> Bytes {
    assert!(body.len() >= HEADER_BYTES, "a body begins with its header");
    assert!(time <= TIME_MAX, "the clock stays below 2^63 ns");
    let mut body = body.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    body[TIME_AT..HEADER_BYTES].copy_from_slice(&time.to_le_bytes());
    body.freeze()
}

fn write_header(body: &mut [u8], kind: Kind, requests_count: u32, time: u64) {
    assert!(time <= TIME_MAX, "the clock stays below 2^63 ns");
    let mut header = &mut body[..HEADER_BYTES];
    header.put_u8(VERSION);
    header.put_u8(kind as u8);
    header.put_u16_le(0);
    header.put_u32_le(requests_count);
    header.put_u64_le(time);
}

// --- the body, read

/// A body whose borders have been checked. Its requests are slices of it; nothing is copied.
#[derive(Debug, Clone)]
pub struct Batch {
    kind: Kind,
    time: u64,
    requests: Vec<RequestView>,
    /// Empty unless the kind is `Admin`.
    admin: Bytes,
}

/// One caller's request in a body.
#[derive(Debug, Clone)]
pub struct RequestView {
    pub operation: Operation,
    pub events_count: u32,
    /// `events_count` records of [`RECORD_BYTES`] each.
    pub records: Bytes,
}

impl RequestView {
    pub fn events(&self) -> impl ExactSizeIterator<Item = &[u8; RECORD_BYTES]> {
        let (records, rest) = self.records.as_chunks();
        debug_assert!(rest.is_empty());
        records.iter()
    }
}

impl Batch {
    pub fn parse(body: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(body, "body");
        reader.at_most(BODY_BYTES_MAX)?;
        reader.expect(VERSION as u64, 1, "version")?;
        let kind = match reader.u8("kind")? {
            1 => Kind::Batch,
            2 => Kind::Pulse,
            3 => Kind::Admin,
            other => return Err(reader.refuse("kind", format!("{other} is none"))),
        };
        reader.expect(0, 2, "reserved")?;
        let requests_count = reader.u32("requests_count")?;
        let time = reader.u64("time")?;
        if time > TIME_MAX {
            return Err(reader.refuse("time", "is beyond 2^63 - 1"));
        }
        match (kind, requests_count) {
            (Kind::Batch, 0) => return Err(reader.refuse("requests_count", "is zero")),
            (Kind::Pulse | Kind::Admin, 1..) => {
                return Err(reader.refuse("requests_count", "must be zero where there are no requests"));
            }
            _ => {}
        }
        if kind == Kind::Admin {
            if !(1..=ADMIN_BYTES_MAX).contains(&reader.remaining()) {
                return Err(reader.refuse("admin", format!("is not within 1 to {ADMIN_BYTES_MAX} bytes")));
            }
            let admin = reader.take(reader.remaining(), "admin")?;
            return Ok(Self { kind, time, requests: Vec::new(), admin });
        }

        // What the sender claims isn't reserved before it is seen to be there.
        let fit = reader.remaining() / BatchBuilder::bytes_of(RECORD_BYTES);
        let mut requests = Vec::with_capacity(fit.min(requests_count as usize));
        for _ in 0..requests_count {
            requests.push(read_request(&mut reader)?);
        }
        reader.end()?;
        Ok(Self { kind, time, requests, admin: Bytes::new() })
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the proposer stamped; 0 before.
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The administrative action, not parsed; empty of another kind.
    pub fn admin(&self) -> &Bytes {
        &self.admin
    }

    pub fn requests(&self) -> impl ExactSizeIterator<Item = &RequestView> {
        self.requests.iter()
    }

    pub fn events_count(&self) -> usize {
        self.requests.iter().map(|request| request.events_count as usize).sum()
    }

    /// The requests, each with its own time T: event i of n happens at T - n + i + 1.
    ///
    /// The first event of all happens at the stamped time, or right after `last_timestamp` if the stamp isn't later than
    /// that; the others follow, a nanosecond apart. So time never runs back, whatever the clocks of the leaders say.
    pub fn stamped(&self, last_timestamp: u64) -> impl ExactSizeIterator<Item = (u64, &RequestView)> {
        let mut time = self.time.max(last_timestamp + 1) - 1;
        self.requests.iter().map(move |request| {
            time += request.events_count as u64;
            (time, request)
        })
    }
}

fn read_request(reader: &mut Reader) -> Result<RequestView, Malformed> {
    let operation = match reader.u8("operation")? {
        1 => Operation::CreateAccounts,
        2 => Operation::CreateTransfers,
        other => return Err(reader.refuse("operation", format!("{other} is none"))),
    };
    reader.expect(0, 3, "reserved")?;
    let events_count = reader.u32("events_count")?;
    reader.expect(0, 8, "reserved")?;
    if events_count == 0 || events_count as usize > EVENTS_MAX {
        return Err(reader.refuse("events_count", format!("{events_count} is not within 1 to {EVENTS_MAX}")));
    }
    let records = reader.take(events_count as usize * RECORD_BYTES, "records")?;
    Ok(RequestView { operation, events_count, records })
}

/// How many records so many bytes hold: 1 to [`EVENTS_MAX`] whole ones, or a refusal of the field `records`.
pub fn events_count(records_bytes: usize) -> Result<u32, Malformed> {
    if !records_bytes.is_multiple_of(RECORD_BYTES) {
        return Err(Malformed::new(
            "records",
            format!("{records_bytes} bytes are not a whole number of {RECORD_BYTES}-byte records"),
        ));
    }
    let count = records_bytes / RECORD_BYTES;
    if count == 0 || count > EVENTS_MAX {
        return Err(Malformed::new("records", format!("holds {count}; 1 to {EVENTS_MAX} are allowed")));
    }
    Ok(count as u32)
}

// --- the replies

/// The answer to one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The number of a create_accounts or create_transfers status.
    pub status: u32,
    /// As in the ledger's `CreateResult`.
    pub timestamp: u64,
}

/// An answer that doesn't follow from the request's time and the event's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    /// The event's place in its request, from 0.
    pub index: u32,
    pub answer: Answer,
}

/// The bytes of one exception.
pub const EXCEPTION_BYTES: usize = 16;

/// When event `index` of `events_count` happened, in a request whose time is `timestamp`.
fn event_timestamp(timestamp: u64, events_count: u32, index: u32) -> u64 {
    debug_assert!(index < events_count && events_count as u64 <= timestamp);
    timestamp - (events_count - index - 1) as u64
}

/// Gathers the replies to the requests of one body, in their order.
#[derive(Debug, Default)]
pub struct RepliesBuilder {
    replies: BytesMut,
}

impl RepliesBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the reply to one request: its time, and the answer to each of its events, in order.
    pub fn push(&mut self, timestamp: u64, answers: impl ExactSizeIterator<Item = Answer>) {
        let events_count = u32::try_from(answers.len()).expect("a request has at most 8,189 events");
        assert!(events_count > 0 && timestamp >= events_count as u64, "each event has a time of its own");
        self.replies.put_u64_le(timestamp);
        self.replies.put_u32_le(events_count);
        let count_at = self.replies.len();
        self.replies.put_u32_le(0);
        let mut exceptions_count = 0u32;
        for (index, answer) in (0..).zip(answers) {
            let plain = Answer { status: CREATED, timestamp: event_timestamp(timestamp, events_count, index) };
            if answer != plain {
                self.replies.put_u32_le(index);
                self.replies.put_u32_le(answer.status);
                self.replies.put_u64_le(answer.timestamp);
                exceptions_count += 1;
            }
        }
        self.replies[count_at..count_at + 4].copy_from_slice(&exceptions_count.to_le_bytes());
    }

    pub fn finish(self) -> Bytes {
        self.replies.freeze()
    }
}

/// The replies to the requests of one body, in their order. Empty for a pulse.
#[derive(Debug, Clone, Default)]
pub struct Replies {
    replies: Vec<ReplyView>,
}

/// The reply to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyView {
    /// The request's time: that of its last event.
    pub timestamp: u64,
    pub events_count: u32,
    exceptions: Bytes,
}

impl Replies {
    pub fn parse(replies: Bytes) -> Result<Self, Malformed> {
        let mut reader = Reader::new(replies, "replies");
        let mut views = Vec::new();
        while reader.remaining() > 0 {
            let timestamp = reader.u64("timestamp")?;
            let events_count = reader.u32("events_count")?;
            let exceptions_count = reader.u32("exceptions_count")? as usize;
            let exceptions = reader.take(exceptions_count.saturating_mul(EXCEPTION_BYTES), "exceptions")?;
            views.push(ReplyView::new(timestamp, events_count, exceptions)?);
        }
        Ok(Self { replies: views })
    }

    pub fn len(&self) -> usize {
        self.replies.len()
    }

    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ReplyView> {
        self.replies.iter()
    }

    pub fn into_views(self) -> Vec<ReplyView> {
        self.replies
    }
}

impl ReplyView {
    /// `exceptions` as they travel in a stream's reply: [`EXCEPTION_BYTES`] each, ascending by index.
    pub fn new(timestamp: u64, events_count: u32, exceptions: Bytes) -> Result<Self, Malformed> {
        if events_count == 0 || events_count as usize > EVENTS_MAX {
            return Err(Malformed::new("events_count", format!("{events_count} is not within 1 to {EVENTS_MAX}")));
        }
        if timestamp < events_count as u64 {
            return Err(Malformed::new("timestamp", "leaves no time for each event"));
        }
        if !exceptions.len().is_multiple_of(EXCEPTION_BYTES) {
            return Err(Malformed::new("exceptions", "are not whole"));
        }
        let view = Self { timestamp, events_count, exceptions };
        let mut floor = 0;
        for exception in view.exceptions() {
            if exception.index < floor || exception.index >= events_count {
                return Err(Malformed::new("exceptions", "are not ascending within the request"));
            }
            floor = exception.index + 1;
        }
        Ok(view)
    }

    /// Only the answers that don't read "created, at the event's own time".
    pub fn exceptions(&self) -> impl ExactSizeIterator<Item = Exception> + '_ {
        self.exceptions.as_chunks::<EXCEPTION_BYTES>().0.iter().map(read_exception)
    }

    pub fn exceptions_bytes(&self) -> &Bytes {
        &self.exceptions
    }

    /// The answer to each event, in order.
    pub fn answers(&self) -> impl ExactSizeIterator<Item = Answer> + '_ {
        let mut exceptions = self.exceptions().peekable();
        (0..self.events_count).map(move |index| match exceptions.next_if(|exception| exception.index == index) {
            Some(exception) => exception.answer,
            None => self.plain(index),
        })
    }

    /// The answer to event `index`, which is below `events_count`.
    pub fn answer(&self, index: u32) -> Answer {
        assert!(index < self.events_count, "there is no such event");
        let exceptions = self.exceptions.as_chunks::<EXCEPTION_BYTES>().0;
        match exceptions.binary_search_by_key(&index, |bytes| read_exception(bytes).index) {
            Ok(at) => read_exception(&exceptions[at]).answer,
            Err(_) => self.plain(index),
        }
    }

    fn plain(&self, index: u32) -> Answer {
        Answer { status: CREATED, timestamp: event_timestamp(self.timestamp, self.events_count, index) }
    }
}

fn read_exception(bytes: &[u8; EXCEPTION_BYTES]) -> Exception {
    let mut bytes = &bytes[..];
    Exception {
        index: bytes.get_u32_le(),
        answer: Answer { status: bytes.get_u32_le(), timestamp: bytes.get_u64_le() },
    }
}

// --- reading, shared with `entry`

/// Takes bytes from the front; refuses instead of panicking when they end early.
pub(crate) struct Reader {
    bytes: Bytes,
    whole: &'static str,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes, whole: &'static str) -> Self {
        Self { bytes, whole }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn refuse(&self, field: &str, reason: impl Into<String>) -> Malformed {
        Malformed::new(format!("{}.{field}", self.whole), reason)
    }

    fn at_most(&self, bytes_max: usize) -> Result<(), Malformed> {
        if self.bytes.len() > bytes_max {
            let reason = format!("is {} bytes long; at most {bytes_max} are allowed", self.bytes.len());
            return Err(Malformed::new(self.whole, reason));
        }
        Ok(())
    }

    pub(crate) fn take(&mut self, count: usize, field: &str) -> Result<Bytes, Malformed> {
        if self.bytes.len() < count {
            return Err(self.refuse(field, format!("needs {count} bytes; {} are left", self.bytes.len())));
        }
        Ok(self.bytes.split_to(count))
    }

    fn need(&mut self, count: usize, field: &str) -> Result<(), Malformed> {
        if self.bytes.len() < count {
            return Err(self.refuse(field, "is cut off"));
        }
        Ok(())
    }

    pub(crate) fn u8(&mut self, field: &str) -> Result<u8, Malformed> {
        self.need(1, field)?;
        Ok(self.bytes.get_u8())
    }

    pub(crate) fn u16(&mut self, field: &str) -> Result<u16, Malformed> {
        self.need(2, field)?;
        Ok(self.bytes.get_u16_le())
    }

    pub(crate) fn u32(&mut self, field: &str) -> Result<u32, Malformed> {
        self.need(4, field)?;
        Ok(self.bytes.get_u32_le())
    }

    pub(crate) fn u64(&mut self, field: &str) -> Result<u64, Malformed> {
        self.need(8, field)?;
        Ok(self.bytes.get_u64_le())
    }

    /// The next `count` bytes, at most 8, as one number that can only be `value`.
    pub(crate) fn expect(&mut self, value: u64, count: usize, field: &str) -> Result<(), Malformed> {
        self.need(count, field)?;
        let found = self.bytes.get_uint_le(count);
        if found != value {
            return Err(self.refuse(field, format!("is {found}, not {value}")));
        }
        Ok(())
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if !self.bytes.is_empty() {
            return Err(Malformed::new(self.whole, format!("has {} bytes too many", self.bytes.len())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn records(events_count: usize) -> Bytes {
        (0..events_count * RECORD_BYTES).map(|at| at as u8).collect()
    }

    fn body(requests: &[(Operation, usize)], time: u64) -> Bytes {
        let mut builder = BatchBuilder::new();
        for (operation, events_count) in requests {
            builder.push(*operation, &records(*events_count));
        }
        builder.finish(time)
    }

    fn operation() -> impl Strategy<Value = Operation> {
        prop_oneof![Just(Operation::CreateAccounts), Just(Operation::CreateTransfers)]
    }

    proptest! {
        #[test]
        fn a_body_gives_back_its_requests(requests in vec((operation(), 1usize..40), 1..20), time in 0..=TIME_MAX) {
            let body = body(&requests, time);
            let batch = Batch::parse(body).expect("it was built so");
            prop_assert_eq!((batch.kind(), batch.time()), (Kind::Batch, time));
            let found: Vec<_> = batch.requests().map(|request| (request.operation, request.records.clone())).collect();
            let pushed: Vec<_> = requests.iter().map(|(operation, count)| (*operation, records(*count))).collect();
            prop_assert_eq!(found, pushed);
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(bytes in vec(any::<u8>(), 0..400), version in any::<bool>()) {
            let mut bytes = bytes;
            if let (true, Some(first)) = (version, bytes.first_mut()) {
                *first = VERSION;
            }
            let _ = Batch::parse(bytes.clone().into());
            let _ = Replies::parse(bytes.into());
        }

        #[test]
        fn a_body_cut_off_anywhere_is_refused(cut in 0usize..(16 + 16 + 3 * RECORD_BYTES)) {
            let whole = body(&[(Operation::CreateTransfers, 3)], 1);
            prop_assert!(Batch::parse(whole.slice(..cut)).is_err());
        }

        #[test]
        fn replies_give_back_each_answer(
            requests in vec((EVENTS_MAX as u64..TIME_MAX, vec(prop_oneof![3 => Just(None), 1 => any::<(u32, u64)>().prop_map(Some)], 1..60)), 0..10)
        ) {
            let answers: Vec<(u64, Vec<Answer>)> = requests.into_iter().map(|(timestamp, drawn)| {
                let count = drawn.len() as u32;
                let plain = |index| Answer { status: CREATED, timestamp: timestamp - count as u64 + index as u64 + 1 };
                let answer = |(index, drawn): (u32, Option<(u32, u64)>)| {
                    drawn.map_or(plain(index), |(status, timestamp)| Answer { status, timestamp })
                };
                (timestamp, (0..).zip(drawn).map(answer).collect())
            }).collect();
            let mut builder = RepliesBuilder::new();
            for (timestamp, answers) in &answers {
                builder.push(*timestamp, answers.iter().copied());
            }
            let replies = Replies::parse(builder.finish()).expect("they were built so");
            prop_assert_eq!(replies.len(), answers.len());
            for (view, (timestamp, answers)) in replies.iter().zip(&answers) {
                prop_assert_eq!(view.timestamp, *timestamp);
                prop_assert_eq!(&view.answers().collect::<Vec<_>>(), answers);
                let one_by_one: Vec<_> = (0..view.events_count).map(|index| view.answer(index)).collect();
                prop_assert_eq!(&one_by_one, answers);
            }
        }
    }

    #[test]
    fn a_plainly_created_event_costs_a_reply_no_bytes() {
        let mut builder = RepliesBuilder::new();
        builder.push(
            1_000,
            (993..=1_000u64).collect::<Vec<_>>().into_iter().map(|timestamp| Answer { status: CREATED, timestamp }),
        );
        assert_eq!(builder.finish().len(), 16);
    }

    #[test]
    fn the_layout_of_a_body_is_fixed() {
        let body = body(&[(Operation::CreateTransfers, 1)], 0x0102_0304_0506_0708);
        assert_eq!(body[..16], [1, 1, 0, 0, 1, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(body[16..32], [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(body[32..], records(1));
        assert_eq!(pulse(5)[..], [1, 2, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn the_leader_writes_the_time_and_nothing_else() {
        let unstamped = body(&[(Operation::CreateAccounts, 2)], 0);
        let shared = unstamped.clone();
        let stamped = with_time(unstamped, 77);
        assert_eq!(Batch::parse(stamped.clone()).unwrap().time(), 77);
        assert_eq!(Batch::parse(shared.clone()).unwrap().time(), 0, "another holder's bytes stay as they were");
        assert_eq!(stamped, body(&[(Operation::CreateAccounts, 2)], 77));
    }

    #[test]
    fn requests_follow_each_other_a_nanosecond_per_event() {
        let batch =
            Batch::parse(body(&[(Operation::CreateTransfers, 3), (Operation::CreateTransfers, 1)], 100)).unwrap();
        let times = |last| batch.stamped(last).map(|(time, _)| time).collect::<Vec<_>>();
        assert_eq!(times(50), [102, 103], "the first event happens at the stamped time");
        assert_eq!(times(99), [102, 103]);
        assert_eq!(times(100), [103, 104], "time never runs back, nor stands still");
        assert_eq!(times(500), [503, 504]);
    }

    fn refused(body: &[u8]) -> String {
        Batch::parse(Bytes::copy_from_slice(body)).expect_err("it must be refused").field
    }

    #[test]
    fn each_field_of_a_body_is_checked() {
        let good = body(&[(Operation::CreateTransfers, 2)], 9);
        let with = |at: usize, value: u8| {
            let mut body = good.to_vec();
            body[at] = value;
            body
        };
        assert_eq!(refused(&[]), "body.version");
        assert_eq!(refused(&with(0, 2)), "body.version");
        assert_eq!(refused(&with(1, 4)), "body.kind");
        assert_eq!(refused(&with(1, 3)), "body.requests_count", "an administrative action has no requests");
        assert_eq!(refused(&admin(b"x", 9)[..16]), "body.admin");
        assert_eq!(Batch::parse(admin(b"x", 9)).unwrap().admin()[..], b"x"[..]);
        assert_eq!(refused(&with(1, 2)), "body.requests_count", "a pulse has no requests");
        assert_eq!(refused(&with(2, 1)), "body.reserved");
        assert_eq!(refused(&with(4, 0)), "body.requests_count");
        assert_eq!(refused(&with(4, 2)), "body.operation", "a second request isn't there");
        assert_eq!(refused(&with(15, 0x80)), "body.time");
        assert_eq!(refused(&with(16, 0)), "body.operation");
        assert_eq!(refused(&with(17, 1)), "body.reserved");
        assert_eq!(refused(&with(20, 0)), "body.events_count");
        assert_eq!(refused(&with(21, 0x20)), "body.events_count", "8,194 events are too many");
        assert_eq!(refused(&with(20, 3)), "body.records");
        assert_eq!(refused(&with(20, 1)), "body", "bytes are left over");
        assert_eq!(refused(&with(24, 1)), "body.reserved");
        assert_eq!(refused(&vec![0; BODY_BYTES_MAX + 1]), "body");
    }

    #[test]
    fn exceptions_out_of_order_or_out_of_the_request_are_refused() {
        let exception = |index: u32| [index.to_le_bytes(), [1, 0, 0, 0], [9, 0, 0, 0], [0; 4]].concat();
        let view =
            |indexes: &[u32]| ReplyView::new(100, 4, indexes.iter().flat_map(|index| exception(*index)).collect());
        assert!(view(&[0, 1, 3]).is_ok());
        for indexes in [&[4][..], &[1, 1], &[2, 1]] {
            assert_eq!(view(indexes).unwrap_err().field, "exceptions");
        }
        assert_eq!(ReplyView::new(100, 4, Bytes::from_static(&[0; 15])).unwrap_err().field, "exceptions");
        assert_eq!(ReplyView::new(3, 4, Bytes::new()).unwrap_err().field, "timestamp");
        assert_eq!(ReplyView::new(3, 0, Bytes::new()).unwrap_err().field, "events_count");
    }
}
