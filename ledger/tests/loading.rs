//! What the store is asked to load: what memory can't answer, and nothing else. Each needless question is a look at the disk.

use jangbu_ledger::{
    Account, AccountFlags, AccountId, Amount, Books, EventNumber, IdState, PendingState, Transfer, TransferFlags,
    TransferId,
};

fn account(id: u128) -> Account {
    Account { id: AccountId(id), ledger: 1, code: 1, ..Account::default() }
}

fn imported(id: u128, timestamp: u64) -> Account {
    Account { flags: AccountFlags::IMPORTED, timestamp, ..account(id) }
}

fn transfer(id: u128) -> Transfer {
    Transfer {
        id: TransferId(id),
        debit_account_id: AccountId(1),
        credit_account_id: AccountId(2),
        amount: Amount(1),
        ledger: 1,
        code: 1,
        ..Transfer::default()
    }
}

fn post(id: u128, pending: u128) -> Transfer {
    Transfer {
        id: TransferId(id),
        pending_id: TransferId(pending),
        amount: Amount::MAX,
        flags: TransferFlags::POST_PENDING_TRANSFER,
        ..Transfer::default()
    }
}

/// Books with the accounts 1 and 2 at 100 and 200, and transfers 11 at 300, 12 at 400, all imported at 1,000 and 2,000.
fn books() -> Books {
    let mut books = Books::new();
    books.create_accounts(1_000, &[imported(1, 100), imported(2, 200)], &mut Vec::new());
    let transfers = [(11, 300), (12, 400)];
    let transfers =
        transfers.map(|(id, timestamp)| Transfer { flags: TransferFlags::IMPORTED, timestamp, ..transfer(id) });
    books.create_transfers(2_000, &transfers, &mut Vec::new());
    assert_eq!(books.head().last_transfer_timestamp, 400);
    books
}

fn flushed(mut books: Books) -> Books {
    books.freeze();
    books.forget_frozen();
    books
}

fn ids(books: &Books, events: &[Transfer]) -> Vec<u128> {
    let mut unresolved = Vec::new();
    books.unresolved_ids(events, &mut unresolved);
    unresolved.iter().map(|id| id.0).collect()
}

fn timestamps(books: &Books, events: &[Account]) -> Vec<u64> {
    let mut unresolved = Vec::new();
    books.unresolved_timestamps(events, &mut unresolved);
    unresolved
}

#[test]
fn an_id_in_memory_is_not_asked_for_and_one_that_was_flushed_is() {
    let mut books = books();
    assert_eq!(ids(&books, &[transfer(11), transfer(12), transfer(13)]), [13]);
    books.freeze();
    assert_eq!(ids(&books, &[transfer(11), transfer(12), transfer(13)]), [13]);
    books.forget_frozen();
    assert_eq!(ids(&books, &[transfer(11), transfer(12), transfer(13)]), [11, 12, 13]);
}

#[test]
fn a_pending_id_is_asked_for_only_by_a_post_or_void() {
    let books = books();
    let void = Transfer { flags: TransferFlags::VOID_PENDING_TRANSFER, ..post(15, 8) };
    let neither = Transfer { pending_id: TransferId(9), ..transfer(16) };
    assert_eq!(ids(&books, &[post(14, 7), void, neither, post(17, 11)]), [14, 7, 15, 8, 16, 17]);
}

#[test]
fn ids_that_name_nothing_are_not_asked_for() {
    let books = books();
    assert_eq!(ids(&books, &[transfer(0), transfer(u128::MAX), post(14, 0), post(15, u128::MAX)]), [14, 15]);
}

#[test]
fn a_timestamp_is_asked_for_only_where_a_flushed_transfer_may_have_it() {
    // Between the last account's (200) and the last transfer's (400), and not in memory.
    let events =
        [imported(3, 199), imported(3, 200), imported(3, 201), imported(3, 300), imported(3, 400), imported(3, 401)];
    assert_eq!(timestamps(&books(), &events), [201]);
    assert_eq!(timestamps(&flushed(books()), &events), [201, 300, 400]);
    let plain = Account { timestamp: 300, ..account(3) };
    assert_eq!(timestamps(&flushed(books()), &[plain]), [0; 0]);
}

#[test]
fn what_is_due_comes_in_order_and_within_the_limit() {
    let second = 1_000_000_000;
    let mut books = books();
    let pending = |id, timeout| Transfer { flags: TransferFlags::PENDING, timeout, ..transfer(id) };
    books.create_transfers(3_000, &[pending(21, 3), pending(22, 1), pending(23, 2)], &mut Vec::new());
    assert_eq!(books.next_expiry(), Some(2_999 + second));
    let due = |now, limit| {
        let mut due = Vec::new();
        books.due(now, limit, &mut due);
        due.iter().map(|number| number.0).collect::<Vec<_>>()
    };
    assert_eq!(due(2_998 + second, 9), [0; 0]);
    assert_eq!(due(2_999 + second, 9), [3]);
    assert_eq!(due(10 * second, 9), [3, 4, 2]);
    assert_eq!(due(10 * second, 2), [3, 4]);
}

#[test]
fn memory_tells_what_it_knows_of_ids_events_and_pendings() {
    let mut books = books();
    let pending = Transfer { flags: TransferFlags::PENDING, ..transfer(21) };
    books.create_transfers(
        3_000,
        &[pending, Transfer { credit_account_id: AccountId(9), ..transfer(22) }],
        &mut Vec::new(),
    );
    assert_eq!(books.recent_id(TransferId(21)), Some(IdState::Event(EventNumber(2))));
    assert_eq!(books.recent_id(TransferId(22)), Some(IdState::Burnt));
    assert_eq!(books.recent_id(TransferId(23)), None);
    assert_eq!(books.recent_pending_state(EventNumber(2)), Some(PendingState::Open));
    assert_eq!(books.recent_pending_state(EventNumber(0)), None);
    assert_eq!(books.recent_first(), EventNumber(0));
    assert_eq!(books.recent_events_count(), 3);
    let mut books = flushed(books);
    assert_eq!((books.recent_first(), books.recent_events_count()), (EventNumber(3), 0));
    assert_eq!(books.recent_id(TransferId(21)), None);
    assert_eq!(books.recent_event(EventNumber(2)), None);
    assert_eq!(books.recent_pending_state(EventNumber(2)), None);

    // Loaded, it is posted; what was loaded is forgotten, what was decided is not.
    books.load_transfer(EventNumber(2), Transfer { timestamp: 2_999, ..pending }, Some(PendingState::Open));
    books.create_transfers(4_000, &[post(24, 21)], &mut Vec::new());
    books.unload();
    assert_eq!(books.recent_pending_state(EventNumber(2)), Some(PendingState::Posted));
    assert_eq!(books.head().pendings_open, 0);
    assert_eq!(ids(&books, &[post(25, 21)]), [25, 21]);
}

#[test]
fn log_time_moves_on_and_never_back() {
    let mut books = books();
    books.advance(5_000);
    assert_eq!(books.head().last_timestamp, 5_000);
    books.advance(4_000);
    assert_eq!(books.head().last_timestamp, 5_000);
}

#[test]
#[should_panic(expected = "log time moves on by one for each event")]
fn a_request_that_would_reach_back_in_time_is_our_own_mistake() {
    books().create_transfers(2_001, &[transfer(31), transfer(32)], &mut Vec::new());
}

#[test]
fn a_request_may_begin_right_after_the_one_before() {
    let mut results = Vec::new();
    books().create_transfers(2_002, &[transfer(31), transfer(32)], &mut results);
    assert_eq!(results.iter().map(|result| result.timestamp).collect::<Vec<_>>(), [2_001, 2_002]);
}

#[test]
#[should_panic(expected = "one flush after the other")]
fn a_second_freeze_before_the_first_is_durable_is_our_own_mistake() {
    let mut books = books();
    books.freeze();
    books.freeze();
}

#[test]
fn what_was_loaded_counts_until_it_is_unloaded() {
    let mut books = flushed(books());
    let mut results = Vec::new();
    books.load_burnt(TransferId(41));
    books.load_transfer(EventNumber(0), Transfer { timestamp: 300, ..transfer(11) }, None);
    books.load_transfer_timestamp(300);
    books.create_transfers(3_000, &[transfer(41), transfer(11)], &mut results);
    assert_eq!(results.iter().map(|result| result.status.name()).collect::<Vec<_>>(), ["id_already_failed", "exists"]);
    books.unload();

    // As if the store had found nothing: it is the store that must ask and load anew for each request.
    results.clear();
    books.create_transfers(4_000, &[transfer(41), transfer(11)], &mut results);
    assert_eq!(results.iter().map(|result| result.status.name()).collect::<Vec<_>>(), ["created", "created"]);
    let mut accounts = Vec::new();
    books.create_accounts(5_000, &[imported(3, 300)], &mut accounts);
    assert_eq!(accounts[0].status.name(), "created");
}

#[test]
fn an_imported_account_is_refused_the_timestamp_of_a_loaded_transfer() {
    let mut books = flushed(books());
    books.load_transfer_timestamp(300);
    let mut accounts = Vec::new();
    books.create_accounts(5_000, &[imported(3, 300), imported(4, 301)], &mut accounts);
    let names: Vec<_> = accounts.iter().map(|result| result.status.name()).collect();
    assert_eq!(names, ["imported_event_timestamp_must_not_regress", "created"]);
}
