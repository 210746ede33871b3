//! The transaction file of the PKDD'99 Discovery Challenge (Berka and Sochorova): a Czech bank, 1993 to 1998.
//!
//! Semicolon-separated, one header line:
//! `trans_id; account_id; date (YYMMDD); type; operation; amount; balance; k_symbol; bank; account`.
//! Each row becomes one transfer between the customer's account and an account of the bank, in haléř (1/100 koruna). A customer's money is the
//! bank's debt: `PRIJEM` credits the customer's account, `VYDAJ` and `VYBER` debit it, and a balance is credits less debits.
//!
//! How it is laid out in the ledger
//!
//! | what | how |
//! |---|---|
//! | ledger | 203, ISO 4217's number of the koruna |
//! | customer's account | id `berka:ACCOUNT_ID`, code 1, no limits (some go below zero) |
//! | the bank's accounts | cash code 10, cards 11, other banks 20 (one for each), interest paid 30, penalty interest 31, fees 32 |
//! | transfer | id `berka:TRANS_ID`, code 1 cash in, 2 cash out, 3 card, 4 from another bank, 5 to another bank, 6 interest, 7 penalty interest, 8 statement fee |
//! | its `user_data_128` | the other bank's account number |
//! | its `user_data_64` | the date, YYYYMMDD |
//! | its `user_data_32` | the k_symbol: 0 none, 1 UROK, 2 SANKC. UROK, 3 SLUZBY, 4 POJISTNE, 5 SIPO, 6 UVER, 7 DUCHOD |
//!
//! Transfers are created day by day and, within an account's day, in the order in which its balances follow
//! (`day_order.rs`): so an account's history in the ledger reads as it happened.
//!
//! Not here: reading the file (`run.rs`).

use std::collections::{BTreeMap, BTreeSet};

use jangbu_ledger::{Account, AccountId, Amount, Transfer, TransferId};

use super::day_order::{self, Movement, Placed};
use super::plan::{Disagreement, Plan, RecordedBalance, RefusedRow, source_id};
use crate::text;

/// ISO 4217's number of the Czech koruna.
pub const LEDGER: u32 = 203;
/// Koruna have two decimals.
pub const SCALE: u32 = 2;

const SOURCE: &str = "berka";
const COLUMNS: [&str; 10] =
    ["trans_id", "account_id", "date", "type", "operation", "amount", "balance", "k_symbol", "bank", "account"];

/// What the number in an id counts.
#[derive(Clone, Copy)]
enum IdKind {
    Customer = 1,
    Bank = 2,
    OtherBank = 3,
    Transaction = 4,
}

pub fn customer_id(account: u64) -> AccountId {
    AccountId(source_id(SOURCE, IdKind::Customer as u16, account))
}

pub fn transfer_id(transaction: u64) -> TransferId {
    TransferId(source_id(SOURCE, IdKind::Transaction as u16, transaction))
}

/// Where the money of a row comes from or goes to, on the bank's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counterpart {
    Cash,
    Cards,
    InterestPaid,
    PenaltyInterest,
    Fees,
    /// The bank's two letters; zeros where the file names none.
    OtherBank([u8; 2]),
}

impl Counterpart {
    pub fn account_id(self) -> AccountId {
        AccountId(match self {
            Counterpart::OtherBank(letters) => {
                source_id(SOURCE, IdKind::OtherBank as u16, u64::from(u16::from_be_bytes(letters)))
            }
            _ => source_id(SOURCE, IdKind::Bank as u16, u64::from(self.code())),
        })
    }

    pub fn code(self) -> u16 {
        match self {
            Counterpart::Cash => 10,
            Counterpart::Cards => 11,
            Counterpart::OtherBank(_) => 20,
            Counterpart::InterestPaid => 30,
            Counterpart::PenaltyInterest => 31,
            Counterpart::Fees => 32,
        }
    }
}

const CUSTOMER_CODE: u16 = 1;

/// Why the money moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    CashIn = 1,
    CashOut = 2,
    Card = 3,
    FromOtherBank = 4,
    ToOtherBank = 5,
    Interest = 6,
    PenaltyInterest = 7,
    StatementFee = 8,
}

/// One row, understood.
#[derive(Clone, Debug)]
struct Row {
    line: u64,
    transaction: u64,
    account: u64,
    /// YYYYMMDD.
    date: u32,
    credit: bool,
    amount: u64,
    balance: i128,
    purpose: Purpose,
    counterpart: Counterpart,
    symbol: u32,
    counterpart_account: u128,
}

impl Row {
    fn movement(&self) -> Movement {
        let amount = i128::from(self.amount);
        Movement { change: if self.credit { amount } else { -amount }, balance: self.balance }
    }

    fn transfer(&self) -> Transfer {
        let customer = customer_id(self.account);
        let bank = self.counterpart.account_id();
        let (debit_account_id, credit_account_id) = if self.credit { (bank, customer) } else { (customer, bank) };
        Transfer {
            id: transfer_id(self.transaction),
            debit_account_id,
            credit_account_id,
            amount: Amount(u128::from(self.amount)),
            user_data_128: self.counterpart_account,
            user_data_64: u64::from(self.date),
            user_data_32: self.symbol,
            ledger: LEDGER,
            code: self.purpose as u16,
            ..Transfer::default()
        }
    }
}

/// Works out the whole import. Never fails: what cannot be loaded is named in `Plan::refused`.
pub fn plan(content: &str) -> Plan {
    let mut plan = Plan { scale: SCALE, ..Plan::default() };
    let rows = parse(content, &mut plan);
    plan.rows_count = (rows.len() + plan.refused.len()) as u64;
    plan.accounts = accounts(&rows);

    let mut by_account: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
    for row in rows {
        by_account.entry(row.account).or_default().push(row);
    }
    let mut first_fit_count = 0;
    let mut transfers = Vec::new();
    for (account, mut rows) in by_account {
        rows.sort_by_key(|row| row.date); // stable: within a day the file's order stays
        let movements: Vec<(u32, Movement)> = rows.iter().map(|row| (row.date, row.movement())).collect();
        let best = day_order::best(0, &movements);
        first_fit_count += day_order::first_fit(0, &movements).placed.iter().filter(|placed| !placed.follows).count();
        plan.days_too_long += best.days_too_long;
        plan.disagreements.extend(disagreements(account, &rows, &best.placed));
        let last = best.placed.last().expect("an account is named by at least one row");
        plan.recorded.push(RecordedBalance { account_id: customer_id(account), balance: rows[last.row].balance });
        transfers.extend(best.placed.iter().map(|placed| {
            let row = &rows[placed.row];
            (row.date, (row.line, row.transfer()))
        }));
    }
    transfers.sort_by_key(|(date, _)| *date); // stable: an account's order within its day stays
    plan.transfers = transfers.into_iter().map(|(_, transfer)| transfer).collect();
    plan.disagreements_first_fit = Some(first_fit_count);
    plan
}

fn disagreements<'a>(account: u64, rows: &'a [Row], placed: &'a [Placed]) -> impl Iterator<Item = Disagreement> + 'a {
    placed.iter().filter(|placed| !placed.follows).map(move |placed| {
        let row = &rows[placed.row];
        Disagreement {
            line: row.line,
            transfer: row.transaction,
            account,
            date: row.date,
            before: placed.before,
            change: row.movement().change,
            recorded: row.balance,
        }
    })
}

fn accounts(rows: &[Row]) -> Vec<Account> {
    let account = |id, code, user_data_64| Account { id, ledger: LEDGER, code, user_data_64, ..Account::default() };
    let counterparts: BTreeSet<Counterpart> = rows.iter().map(|row| row.counterpart).collect();
    let customers: BTreeSet<u64> = rows.iter().map(|row| row.account).collect();
    let bank = counterparts.into_iter().map(|counterpart| account(counterpart.account_id(), counterpart.code(), 0));
    bank.chain(customers.into_iter().map(|number| account(customer_id(number), CUSTOMER_CODE, number))).collect()
}

fn parse(content: &str, plan: &mut Plan) -> Vec<Row> {
    let mut reader =
        csv::ReaderBuilder::new().delimiter(b';').trim(csv::Trim::All).flexible(true).from_reader(content.as_bytes());
    let header_fits = reader.headers().is_ok_and(|header| header.iter().eq(COLUMNS));
    if !header_fits {
        plan.refused.push(RefusedRow { line: 1, reason: format!("the header must be: {}", COLUMNS.join(";")) });
        return Vec::new();
    }
    let mut rows = Vec::new();
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    for record in reader.records() {
        let line = match &record {
            Ok(record) => record.position().map_or(0, csv::Position::line),
            Err(error) => error.position().map_or(0, csv::Position::line),
        };
        let row =
            record.map_err(|error| error.to_string()).and_then(|record| row(line, &record)).and_then(|row| match seen
                .insert(row.transaction, line)
            {
                Some(first) => Err(format!("trans_id {} is already on line {first}", row.transaction)),
                None => Ok(row),
            });
        match row {
            Ok(row) => rows.push(row),
            Err(reason) => plan.refused.push(RefusedRow { line, reason }),
        }
    }
    rows
}

fn row(line: u64, record: &csv::StringRecord) -> Result<Row, String> {
    if record.len() != COLUMNS.len() {
        return Err(format!("{} columns instead of {}", record.len(), COLUMNS.len()));
    }
    let field = |name: &str| {
        let column = COLUMNS.iter().position(|column| *column == name).expect("only our own columns are asked for");
        record[column].trim()
    };
    let number = |name: &str| field(name).parse::<u64>().map_err(|_| format!("{name}: `{}` is no number", field(name)));
    let money = |name: &str| text::decimal(field(name), SCALE).map_err(|reason| format!("{name}: {reason}"));

    let amount = u64::try_from(money("amount")?).map_err(|_| "amount: out of range".to_string())?;
    let credit = match field("type") {
        "PRIJEM" => true,
        "VYDAJ" | "VYBER" => false,
        other => return Err(format!("type: `{other}` is none of PRIJEM, VYDAJ, VYBER")),
    };
    let (purpose, counterpart) = meaning(field("operation"), field("k_symbol"), credit, field("bank"))?;
    Ok(Row {
        line,
        transaction: number("trans_id")?,
        account: number("account_id")?,
        date: date(field("date"))?,
        credit,
        amount,
        balance: money("balance")?,
        purpose,
        counterpart,
        symbol: symbol(field("k_symbol"))?,
        counterpart_account: match field("account") {
            "" => 0,
            text => text::number(text).map_err(|reason| format!("account: {reason}"))?,
        },
    })
}

/// What moves, and against which of the bank's accounts. The k_symbol says it first: statement fees and penalty interest
/// stand in the file as cash withdrawals, but no cash was handed out.
fn meaning(operation: &str, k_symbol: &str, credit: bool, bank: &str) -> Result<(Purpose, Counterpart), String> {
    match (k_symbol, operation, credit) {
        ("UROK", _, true) => Ok((Purpose::Interest, Counterpart::InterestPaid)),
        ("SANKC. UROK", _, false) => Ok((Purpose::PenaltyInterest, Counterpart::PenaltyInterest)),
        ("SLUZBY", _, false) => Ok((Purpose::StatementFee, Counterpart::Fees)),
        (_, "VKLAD", true) => Ok((Purpose::CashIn, Counterpart::Cash)),
        (_, "VYBER", false) => Ok((Purpose::CashOut, Counterpart::Cash)),
        (_, "VYBER KARTOU", false) => Ok((Purpose::Card, Counterpart::Cards)),
        (_, "PREVOD Z UCTU", true) => Ok((Purpose::FromOtherBank, other_bank(bank)?)),
        (_, "PREVOD NA UCET", false) => Ok((Purpose::ToOtherBank, other_bank(bank)?)),
        _ => {
            let direction = if credit { "a credit" } else { "a debit" };
            Err(format!("{direction} with operation `{operation}` and k_symbol `{k_symbol}` has no meaning here"))
        }
    }
}

fn other_bank(letters: &str) -> Result<Counterpart, String> {
    match letters.as_bytes() {
        [] => Ok(Counterpart::OtherBank([0, 0])),
        [a, b] if a.is_ascii_uppercase() && b.is_ascii_uppercase() => Ok(Counterpart::OtherBank([*a, *b])),
        _ => Err(format!("bank: `{letters}` is not two letters")),
    }
}

fn symbol(k_symbol: &str) -> Result<u32, String> {
    const SYMBOLS: [&str; 8] = ["", "UROK", "SANKC. UROK", "SLUZBY", "POJISTNE", "SIPO", "UVER", "DUCHOD"];
    let number = SYMBOLS.iter().position(|symbol| *symbol == k_symbol);
    number.map(|number| number as u32).ok_or_else(|| format!("k_symbol: `{k_symbol}` is unknown"))
}

/// YYMMDD of the nineties to YYYYMMDD.
fn date(text: &str) -> Result<u32, String> {
    let no_date = || format!("date: `{text}` is no YYMMDD");
    let number: u32 = text.parse().map_err(|_| no_date())?;
    let month = time::Month::try_from((number / 100 % 100) as u8).map_err(|_| no_date())?;
    let year = 1900 + (number / 10_000) as i32;
    time::Date::from_calendar_date(year, month, (number % 100) as u8).map_err(|_| no_date())?;
    if text.len() == 6 { Ok(19_000_000 + number) } else { Err(no_date()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "\"trans_id\";\"account_id\";\"date\";\"type\";\"operation\";\"amount\";\"balance\";\"k_symbol\";\"bank\";\"account\"\n";

    fn planned(rows: &str) -> Plan {
        plan(&format!("{HEADER}{rows}"))
    }

    /// A made-up account: opened with cash, paid from elsewhere, fee and interest at the month's end, in the wrong order.
    const MONTH: &str = "\
        11;7;930101;\"PRIJEM\";\"VKLAD\";1000.00;1000.00;\"\";;\n\
        12;7;930112;\"PRIJEM\";\"PREVOD Z UCTU\";500.50;1500.50;\"DUCHOD\";\"AB\";\"4711\"\n\
        14;7;930131;\"VYDAJ\";\"VYBER\";14.60;1490.00;\"SLUZBY\";;\n\
        13;7;930131;\"PRIJEM\";\"\";4.10;1504.60;\"UROK\";;\n\
        15;7;930202;\"VYBER\";\"VYBER\";2000.00;-510.00;\" \";;\n";

    #[test]
    fn rows_become_transfers_between_customer_and_bank_in_the_order_that_follows() {
        let plan = planned(MONTH);
        assert_eq!(plan.refused, []);
        assert_eq!(plan.disagreements, []);
        let ids: Vec<TransferId> = plan.transfers.iter().map(|(_, transfer)| transfer.id).collect();
        assert_eq!(ids, [11, 12, 13, 14, 15].map(transfer_id), "interest came before the fee");
        let (line, pension) = plan.transfers[1];
        assert_eq!(line, 3);
        assert_eq!(pension.debit_account_id, Counterpart::OtherBank(*b"AB").account_id());
        assert_eq!(pension.credit_account_id, customer_id(7));
        assert_eq!((pension.amount, pension.code), (Amount(50_050), 4));
        assert_eq!((pension.user_data_64, pension.user_data_32), (19_930_112, 7));
    }

    #[test]
    fn a_fee_is_the_banks_though_the_file_calls_it_a_withdrawal() {
        let plan = planned(MONTH);
        let fee = plan.transfers[3].1;
        assert_eq!(fee.credit_account_id, Counterpart::Fees.account_id());
        assert_eq!(fee.code, 8);
    }

    #[test]
    fn end_balances_are_the_exact_sums_also_below_zero() {
        let plan = planned(MONTH);
        let sums = plan.sums().unwrap();
        assert_eq!(sums[&customer_id(7)].balance(), -51_000);
        assert_eq!(sums.values().map(|sums| sums.balance()).sum::<i128>(), 0, "debits equal credits");
        assert_eq!(plan.end_balances_that_differ(), []);
    }

    #[test]
    fn a_rounded_balance_is_named_and_the_amount_still_counts() {
        let plan = planned(
            "1;7;930101;\"PRIJEM\";\"VKLAD\";100.00;100.00;\"\";;\n\
             2;7;930131;\"PRIJEM\";\"\";0.40;100.50;\"UROK\";;\n\
             3;7;930201;\"PRIJEM\";\"VKLAD\";1.00;101.50;\"\";;\n",
        );
        let [row] = plan.disagreements.as_slice() else { panic!("{:?}", plan.disagreements) };
        assert_eq!((row.line, row.transfer, row.account, row.difference()), (3, 2, 7, 10));
        assert_eq!(plan.end_balances_that_differ(), [(customer_id(7), 10_150, 10_140)]);
        assert_eq!(plan.transfers.len(), 3);
    }

    #[test]
    fn the_same_file_gives_the_same_ids() {
        let ids = |plan: Plan| plan.transfers.into_iter().map(|(_, transfer)| transfer.id).collect::<Vec<_>>();
        assert_eq!(ids(planned(MONTH)), ids(planned(MONTH)));
    }

    #[test]
    fn control_totals_count_rows_accounts_and_money() {
        let totals = planned(MONTH).control_totals();
        assert_eq!((totals.rows, totals.accounts, totals.transfers), (5, 5, 5));
        assert_eq!(totals.ledgers[&LEDGER], (5, 351_920));
    }

    #[test]
    fn each_row_that_cannot_be_understood_is_named_with_its_reason() {
        for (row, reason) in [
            ("1;7;930101;\"PRIJEM\";\"VKLAD\";1.005;1.00;\"\";;", "amount: `1.005` has more than 2 decimal places"),
            ("1;7;930101;\"PRIJEM\";\"VKLAD\";-1.00;1.00;\"\";;", "amount: out of range"),
            ("1;7;930231;\"PRIJEM\";\"VKLAD\";1.00;1.00;\"\";;", "date: `930231` is no YYMMDD"),
            ("1;7;930101;\"DAR\";\"VKLAD\";1.00;1.00;\"\";;", "type: `DAR` is none of PRIJEM, VYDAJ, VYBER"),
            (
                "1;7;930101;\"VYDAJ\";\"VKLAD\";1.00;1.00;\"\";;",
                "a debit with operation `VKLAD` and k_symbol `` has no meaning here",
            ),
            ("1;7;930101;\"PRIJEM\";\"VKLAD\";1.00;1.00;\"HRA\";;", "k_symbol: `HRA` is unknown"),
            ("1;7;930101;\"PRIJEM\";\"PREVOD Z UCTU\";1.00;1.00;\"\";ABC;", "bank: `ABC` is not two letters"),
            ("x;7;930101;\"PRIJEM\";\"VKLAD\";1.00;1.00;\"\";;", "trans_id: `x` is no number"),
            ("1;7;930101", "3 columns instead of 10"),
        ] {
            assert_eq!(planned(row).refused, [RefusedRow { line: 2, reason: reason.into() }]);
        }
    }

    #[test]
    fn a_transaction_named_twice_is_refused_the_second_time() {
        let twice = "1;7;930101;\"PRIJEM\";\"VKLAD\";1.00;1.00;\"\";;\n".repeat(2);
        assert_eq!(planned(&twice).refused, [RefusedRow { line: 3, reason: "trans_id 1 is already on line 2".into() }]);
    }

    #[test]
    fn a_file_of_another_kind_is_refused_by_its_header() {
        assert_eq!(plan("id,amount\n1,2\n").refused.len(), 1);
    }
}
