//! Hand-written runs: each law with a case that keeps it and one that breaks it.

use super::{
    codes::transfer as tc,
    records::{account_flags as af, transfer_flags as tf, *},
    *,
};

const S: u64 = 1_000_000_000;

fn account(id: u128, flags: u16) -> Account {
    Account { id, ledger: 1, code: 1, flags, ..Account::default() }
}

fn pay(id: u128, from: u128, to: u128, amount: u128) -> Transfer {
    Transfer { id, debit_account_id: from, credit_account_id: to, amount, ledger: 1, code: 1, ..Transfer::default() }
}

fn flagged(transfer: Transfer, flags: u16) -> Transfer {
    Transfer { flags, ..transfer }
}

fn post(id: u128, pending_id: u128, amount: u128) -> Transfer {
    Transfer { id, pending_id, amount, flags: tf::POST, ..Transfer::default() }
}

fn void(id: u128, pending_id: u128) -> Transfer {
    Transfer { id, pending_id, flags: tf::VOID, ..Transfer::default() }
}

/// Accounts 1 (unlimited), 2 (debits limited, history), 3 (debits limited).
fn model() -> Model {
    let mut model = Model::default();
    let limited = af::DEBITS_MUST_NOT_EXCEED_CREDITS;
    let made = model.create_accounts(10, &[account(1, 0), account(2, limited | af::HISTORY), account(3, limited)]);
    assert!(made.iter().all(|outcome| outcome.status == CREATED));
    model
}

fn statuses(outcomes: &[Outcome]) -> Vec<u32> {
    outcomes.iter().map(|outcome| outcome.status).collect()
}

fn spendable(model: &Model, id: u128) -> (u128, u128) {
    let account = model.account(id).unwrap();
    (account.credits_posted - account.debits_posted, account.debits_pending)
}

#[test]
fn the_last_won_is_spent_once() {
    let mut model = model();
    model.create_transfers(20, &[pay(1, 1, 2, 5)]);
    let outcomes = model.create_transfers(30, &[pay(2, 2, 3, 5), pay(3, 2, 3, 1), pay(3, 2, 3, 1)]);
    assert_eq!(statuses(&outcomes), [CREATED, tc::EXCEEDS_CREDITS, tc::ID_ALREADY_FAILED]);
    assert_eq!(outcomes[2].timestamp, 30);
    assert_eq!(spendable(&model, 2), (0, 0));
}

#[test]
fn pending_credits_cannot_be_spent() {
    let mut model = model();
    model.create_transfers(20, &[flagged(pay(1, 1, 2, 5), tf::PENDING)]);
    assert_eq!(statuses(&model.create_transfers(30, &[pay(2, 2, 3, 1)])), [tc::EXCEEDS_CREDITS]);
}

#[test]
fn a_broken_chain_restores_the_transfer_it_posted() {
    let mut model = model();
    model.create_transfers(20, &[pay(1, 1, 2, 5), flagged(pay(2, 2, 3, 4), tf::PENDING)]);
    let outcomes = model
        .create_transfers(30, &[flagged(post(3, 2, AMOUNT_MAX), tf::POST | tf::LINKED), pay(4, 2, 3, 100), void(5, 2)]);
    assert_eq!(statuses(&outcomes), [tc::LINKED_EVENT_FAILED, tc::EXCEEDS_CREDITS, CREATED]);
    assert_eq!(spendable(&model, 2), (5, 0));
}

#[test]
fn an_open_chain_says_so_at_its_end() {
    let mut model = model();
    let chain = |id| flagged(pay(id, 1, 2, 1), tf::LINKED);
    assert_eq!(
        statuses(&model.create_transfers(30, &[chain(1), chain(2)])),
        [tc::LINKED_EVENT_FAILED, tc::LINKED_EVENT_CHAIN_OPEN]
    );
    assert!(model.transfer(1).is_none());
}

#[test]
fn posting_part_releases_the_rest_and_a_retry_exists() {
    let mut model = model();
    model.create_transfers(20, &[pay(1, 1, 2, 9), flagged(pay(2, 2, 3, 9), tf::PENDING)]);
    let outcomes = model.create_transfers(30, &[post(3, 2, 4), post(3, 2, 4), post(3, 2, AMOUNT_MAX), void(4, 2)]);
    assert_eq!(
        statuses(&outcomes),
        [CREATED, tc::EXISTS, tc::EXISTS_WITH_DIFFERENT_AMOUNT, tc::PENDING_TRANSFER_ALREADY_POSTED]
    );
    assert_eq!(spendable(&model, 2), (5, 0));
}

#[test]
fn expiry_is_exact_for_a_post_and_waits_for_the_sweep_for_balances() {
    let mut model = model();
    let held = Transfer { timeout: 1, ..flagged(pay(2, 1, 3, 9), tf::PENDING) };
    model.create_transfers(20, &[held]);
    assert_eq!(statuses(&model.create_transfers(20 + S, &[post(3, 2, 4)])), [tc::PENDING_TRANSFER_EXPIRED]);
    assert_eq!(model.account(3).unwrap().credits_pending, 9);
    assert!(model.expire(2, 21 + S).is_ok());
    assert_eq!(model.account(3).unwrap().credits_pending, 0);
    assert!(model.expire(2, 22 + S).is_err());
}

#[test]
fn a_sweep_out_of_order_is_noticed() {
    let mut model = model();
    let held = |id, timeout| Transfer { timeout, ..flagged(pay(id, 1, 3, 9), tf::PENDING) };
    model.create_transfers(20, &[held(2, 2), held(3, 1)]);
    assert!(model.expire(2, 5 * S).unwrap_err().contains("before transfer 3"));
}

#[test]
fn balancing_clips_and_closing_is_undone_by_a_void() {
    let mut model = model();
    model.create_transfers(20, &[pay(1, 1, 2, 9)]);
    let outcomes = model.create_transfers(
        40,
        &[
            flagged(pay(2, 2, 3, 100), tf::BALANCING_DEBIT),
            flagged(pay(2, 2, 3, 50), tf::BALANCING_DEBIT),
            flagged(pay(3, 3, 1, 0), tf::PENDING | tf::CLOSING_DEBIT),
            pay(4, 3, 1, 1),
            void(5, 3),
            pay(6, 3, 1, 1),
        ],
    );
    assert_eq!(statuses(&outcomes), [CREATED, tc::EXISTS, CREATED, tc::DEBIT_ACCOUNT_ALREADY_CLOSED, CREATED, CREATED]);
    assert_eq!(model.transfer(2).unwrap().amount, 9);
}

#[test]
fn history_answers_with_the_balance_after_each_transfer() {
    let mut model = model();
    model.create_transfers(20, &[pay(1, 1, 2, 9)]);
    model.create_transfers(30, &[pay(2, 2, 3, 4)]);
    let filter = AccountFilter { account_id: 2, limit: 9, debits: true, credits: true, ..AccountFilter::default() };
    let Rows::Balances(rows) = model.answer(&Op::AccountBalances(filter), 0) else { panic!() };
    assert_eq!(rows.iter().map(|row| (row.debits_posted, row.credits_posted)).collect::<Vec<_>>(), [(0, 9), (4, 9)]);
    let other = AccountFilter { account_id: 3, ..filter };
    assert_eq!(model.answer(&Op::AccountBalances(other), 0), Rows::Balances(vec![]));
}

// ---------------------------------------------------------------------- whole runs

/// A run in which calls follow one another, ten simulated nanoseconds apart.
struct Run {
    history: Vec<Call>,
    books: Books,
}

fn call(op: Op, at: u64, answer: Answer) -> Call {
    Call { client: 0, op, level: Level::Linearizable, invoked_ns: at, answered_ns: at + 5, answer, retried: false }
}

fn written(log_index: u64, timestamp: u64, results: Vec<Outcome>) -> Answer {
    Answer::Written { log_index, term: 1, timestamp, results }
}

/// Two accounts, one payment of 5, a read of both balances; all as it should be.
fn good_run() -> Run {
    let accounts = vec![account(1, 0), account(2, 0)];
    let transfers = vec![pay(7, 1, 2, 5)];
    let mut model = Model::default();
    let made = model.create_accounts(10, &accounts);
    let paid = model.create_transfers(20, &transfers);
    let lookup = Op::LookupAccounts(vec![2]);
    let rows = model.answer(&lookup, 0);
    let read = Answer::Read { log_index: 2, timestamp: 20, staleness_ns: 0, rows, scanned_to: 0 };
    Run {
        history: vec![
            call(Op::CreateAccounts(accounts), 0, written(1, 10, made)),
            call(Op::CreateTransfers(transfers), 10, written(2, 20, paid)),
            call(lookup, 20, read),
        ],
        books: books_of(&model),
    }
}

fn books_of(model: &Model) -> Books {
    Books {
        accounts: model.accounts().to_vec(),
        events: (0..model.events_count()).map(|index| model.event(index)).collect(),
    }
}

fn laws_broken(run: &Run) -> Vec<&'static str> {
    judge(&run.history, &run.books).violations.iter().map(|violation| violation.law).collect()
}

#[test]
fn a_good_run_passes() {
    let run = good_run();
    let verdict = judge(&run.history, &run.books);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    assert_eq!((verdict.writes, verdict.reads, verdict.silent), (2, 1, 0));
}

#[test]
fn a_wrong_answer_is_found() {
    let mut run = good_run();
    run.history[1].answer = written(2, 20, vec![Outcome { status: tc::EXCEEDS_CREDITS, timestamp: 20 }]);
    assert!(laws_broken(&run).contains(&"every_answer_is_right"));
}

#[test]
fn a_lost_acknowledged_payment_is_found() {
    let mut run = good_run();
    run.books.events.clear();
    assert!(laws_broken(&run).contains(&"the_books_agree_with_the_answers"));
}

#[test]
fn a_payment_nobody_asked_for_is_found() {
    let mut run = good_run();
    let mut phantom = run.books.events[0];
    phantom.transfer.id = 99;
    phantom.timestamp = 30;
    run.books.events.push(phantom);
    assert!(laws_broken(&run).contains(&"no_phantom"));
}

#[test]
fn a_read_of_the_past_is_found() {
    let mut run = good_run();
    let rows = Rows::Accounts(vec![Account { timestamp: 10, ..account(2, 0) }]);
    run.history[2].answer = Answer::Read { log_index: 1, timestamp: 10, staleness_ns: 0, rows, scanned_to: 0 };
    assert_eq!(laws_broken(&run), ["a_linearizable_read_sees_what_was_answered"]);
    run.history[2].level = Level::Local;
    assert_eq!(laws_broken(&run), ["a_stale_read_is_no_staler_than_it_says"]);
    let Answer::Read { staleness_ns, .. } = &mut run.history[2].answer else { panic!() };
    *staleness_ns = 10;
    assert_eq!(laws_broken(&run), [""; 0], "it said that it is stale");
}

#[test]
fn an_unknown_outcome_may_have_happened_but_a_promise_is_held() {
    let mut run = good_run();
    run.history[1].answer = Answer::Unknown("no answer in time".into());
    assert_eq!(laws_broken(&run), [""; 0]);
    assert_eq!(judge(&run.history, &run.books).silent, 1);
    run.history[1].answer = Answer::Unavailable("no leader".into());
    assert_eq!(laws_broken(&run)[0], "nothing_done_means_nothing_done");
}

#[test]
fn an_unknown_outcome_may_not_have_happened_either() {
    let mut run = good_run();
    run.history[1].answer = Answer::Unknown("no answer in time".into());
    run.history.truncate(2);
    run.books.events.clear();
    for account in &mut run.books.accounts {
        (account.debits_posted, account.credits_posted) = (0, 0);
    }
    assert_eq!(laws_broken(&run), [""; 0]);
}

#[test]
fn a_payment_ordered_before_an_earlier_answer_is_found() {
    let mut run = good_run();
    // The same payment again, asked last, answered with a place in the log before the first.
    let again =
        call(run.history[1].op.clone(), 40, written(2, 15, vec![Outcome { status: tc::EXISTS, timestamp: 20 }]));
    run.history.push(again);
    assert!(laws_broken(&run).contains(&"a_write_comes_after_what_was_answered"));
}

/// Found by seed 4074: another caller repeated a payment whose answer had been lost, and was answered first.
#[test]
fn of_two_calls_that_can_have_done_it_the_one_asked_first_did() {
    let mut run = good_run();
    let mut model = Model::default();
    model.create_accounts(10, &[account(1, 0), account(2, 0)]);
    model.create_transfers(20, &[pay(7, 1, 2, 5)]);
    let other = model.create_transfers(30, &[pay(8, 1, 2, 5)]);
    run.books = books_of(&model);
    let lost = run.history[1].op.clone();
    let exists = || vec![Outcome { status: tc::EXISTS, timestamp: 20 }];
    let retried = |at, until, answer| Call { answered_ns: until, retried: true, ..call(lost.clone(), at, answer) };
    run.history.truncate(1);
    run.history.push(call(Op::CreateTransfers(vec![pay(8, 1, 2, 5)]), 20, written(3, 30, other)));
    run.history.push(retried(30, 35, written(4, 40, exists())));
    run.history.push(retried(10, 60, written(5, 50, exists())));
    assert_eq!(laws_broken(&run), [""; 0]);
    run.history[3].invoked_ns = 36;
    assert_eq!(laws_broken(&run), ["a_write_comes_after_what_was_answered"]);
}

#[test]
fn an_id_said_to_have_failed_needs_an_attempt_that_can_have_failed() {
    let mut model = Model::default();
    let accounts = vec![account(1, 0), account(2, af::DEBITS_MUST_NOT_EXCEED_CREDITS)];
    let made = model.create_accounts(10, &accounts);
    let failed = Outcome { status: tc::ID_ALREADY_FAILED, timestamp: 20 };
    let mut run = Run {
        history: vec![
            call(Op::CreateAccounts(accounts), 0, written(1, 10, made)),
            call(Op::CreateTransfers(vec![pay(7, 2, 1, 5)]), 10, written(2, 20, vec![failed])),
        ],
        books: books_of(&model),
    };
    assert_eq!(laws_broken(&run), ["every_answer_is_right"]);
    run.history[1].retried = true;
    assert_eq!(laws_broken(&run), [""; 0]);
}

/// Found by seeds 20181, 20499, 20628 and 21903: the first of several calls that named the id was taken for the one that had
/// done it, though it would have done more than the books have.
#[test]
fn of_calls_that_named_an_id_it_was_one_that_would_have_done_just_what_is_in_the_books() {
    let mut model = Model::default();
    let accounts = vec![account(1, 0), account(2, 0)];
    let made = model.create_accounts(10, &accounts);
    let other = model.create_transfers(20, &[pay(8, 1, 2, 1)]);
    model.create_transfers(30, &[pay(7, 1, 2, 5)]);
    let after = model.create_transfers(40, &[pay(6, 1, 2, 3)]);
    let unknown = |events: Vec<Transfer>, at| call(Op::CreateTransfers(events), at, Answer::Unknown("late".into()));
    let mut run = Run {
        history: vec![
            call(Op::CreateAccounts(accounts), 0, written(1, 10, made)),
            call(Op::CreateTransfers(vec![pay(8, 1, 2, 1)]), 1, written(2, 20, other)),
            // It would have made 6 as well.
            unknown(vec![pay(6, 1, 2, 3), pay(7, 1, 2, 5)], 2),
            unknown(vec![pay(7, 1, 2, 5)], 3),
            call(Op::CreateTransfers(vec![pay(6, 1, 2, 3)]), 50, written(4, 40, after)),
        ],
        books: books_of(&model),
    };
    let verdict = judge(&run.history, &run.books);
    assert_eq!(
        (verdict.violations.len(), verdict.silent, verdict.assumed_burnt),
        (0, 1, 0),
        "{:?}",
        verdict.violations
    );
    run.history.remove(3);
    assert_eq!(laws_broken(&run), ["the_books_agree_with_the_answers"], "6 was made later, so it was never burnt");
}
