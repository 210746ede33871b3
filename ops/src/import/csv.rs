//! Transfers, and optionally accounts, as comma-separated values with a header line.
//!
//! | file | columns that must be there | columns that may be there |
//! |---|---|---|
//! | transfers | `id` `debit_account_id` `credit_account_id` `amount` `ledger` `code` | `pending_id` `user_data_128` `user_data_64` `user_data_32` `timeout` `flags` |
//! | accounts | `id` `ledger` `code` | `user_data_128` `user_data_64` `user_data_32` `flags` `balance` |
//!
//! Ids are numbers from 1 to 2^128 - 2, in decimal or after `0x`. An amount is a decimal with at most as many places as `--scale` says.
//! Flags are names joined by `|`, or a number. `balance` is what the account should stand at after the import: credits
//! less debits. A column under another name is found by `--map field=column`.
//!
//! Not here: reading the files (`run.rs`).

use std::collections::BTreeMap;

use jangbu_ledger::{Account, AccountId, Amount, Transfer, TransferId};

use super::plan::{Plan, RecordedBalance, RefusedRow};
use crate::text;

/// How the files are to be read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Our field's name, and the name of its column in the file.
    pub map: BTreeMap<String, String>,
    /// Decimal places between the file's unit and the ledger's.
    pub scale: u32,
}

const TRANSFER_FIELDS: &[&str] = &[
    "id",
    "debit_account_id",
    "credit_account_id",
    "amount",
    "ledger",
    "code",
    "pending_id",
    "user_data_128",
    "user_data_64",
    "user_data_32",
    "timeout",
    "flags",
];
const ACCOUNT_FIELDS: &[&str] =
    &["id", "ledger", "code", "user_data_128", "user_data_64", "user_data_32", "flags", "balance"];

/// Works out the whole import. Never fails: what cannot be loaded is named in `Plan::refused`.
pub fn plan(transfers: &str, accounts: Option<&str>, reading: &Reading) -> Plan {
    let mut plan = Plan { scale: reading.scale, ..Plan::default() };
    if let Some(name) = reading.map.keys().find(|name| !TRANSFER_FIELDS.contains(&name.as_str())) {
        plan.refused.push(RefusedRow { line: 0, reason: format!("--map {name}=…: there is no field `{name}`") });
    }
    if let Some(accounts) = accounts {
        let reading = Reading { map: BTreeMap::new(), scale: reading.scale };
        each_row(accounts, ACCOUNT_FIELDS, 3, &reading, &mut plan, |plan, _, row| {
            let (account, recorded) = account(row)?;
            plan.accounts.push(account);
            plan.recorded.extend(recorded.map(|balance| RecordedBalance { account_id: account.id, balance }));
            Ok(())
        });
    }
    let mut seen: BTreeMap<TransferId, u64> = BTreeMap::new();
    each_row(transfers, TRANSFER_FIELDS, 6, reading, &mut plan, |plan, line, row| {
        let transfer = transfer(row)?;
        if let Some(first) = seen.insert(transfer.id, line) {
            return Err(format!("id {} is already on line {first}", transfer.id));
        }
        plan.rows_count += 1;
        plan.transfers.push((line, transfer));
        Ok(())
    });
    plan
}

/// One record, asked by our own names.
struct Row<'a> {
    record: &'a csv::StringRecord,
    columns: &'a BTreeMap<&'static str, usize>,
    scale: u32,
}

impl Row<'_> {
    /// Empty where the column is absent or has nothing in this row.
    fn text(&self, field: &str) -> &str {
        self.columns.get(field).and_then(|&column| self.record.get(column)).unwrap_or("")
    }

    /// Zero where the column is absent or empty.
    fn number<N: TryFrom<u128>>(&self, field: &str) -> Result<N, String> {
        let number = match self.text(field) {
            "" => 0,
            text => text::number(text).map_err(|reason| format!("{field}: {reason}"))?,
        };
        N::try_from(number).map_err(|_| format!("{field}: {number} is out of range"))
    }

    fn id(&self, field: &str) -> Result<u128, String> {
        match self.number(field)? {
            0 | u128::MAX => Err(format!("{field}: must lie between 1 and 2^128 - 2")),
            id => Ok(id),
        }
    }

    fn not_zero<N: TryFrom<u128> + Default + PartialEq>(&self, field: &str) -> Result<N, String> {
        let number: N = self.number(field)?;
        if number == N::default() { Err(format!("{field}: must not be zero")) } else { Ok(number) }
    }
}

fn each_row(
    content: &str,
    fields: &[&'static str],
    required_count: usize,
    reading: &Reading,
    plan: &mut Plan,
    mut take: impl FnMut(&mut Plan, u64, &Row) -> Result<(), String>,
) {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(content.as_bytes());
    let columns = match reader
        .headers()
        .map_err(|error| error.to_string())
        .and_then(|header| columns(header, fields, required_count, &reading.map))
    {
        Ok(columns) => columns,
        Err(reason) => return plan.refused.push(RefusedRow { line: 1, reason }),
    };
    for record in reader.records() {
        let (line, taken) = match record {
            Ok(record) => {
                let line = record.position().map_or(0, csv::Position::line);
                (line, take(plan, line, &Row { record: &record, columns: &columns, scale: reading.scale }))
            }
            Err(error) => (error.position().map_or(0, csv::Position::line), Err(error.to_string())),
        };
        if let Err(reason) = taken {
            plan.refused.push(RefusedRow { line, reason });
        }
    }
}

/// Where each field stands. Unknown columns are refused, except where a map was given: then the file is not ours.
fn columns(
    header: &csv::StringRecord,
    fields: &[&'static str],
    required_count: usize,
    map: &BTreeMap<String, String>,
) -> Result<BTreeMap<&'static str, usize>, String> {
    let mut columns = BTreeMap::new();
    for (i, field) in fields.iter().enumerate() {
        let name = map.get(*field).map_or(*field, String::as_str);
        match header.iter().position(|column| column == name) {
            Some(column) => _ = columns.insert(*field, column),
            None if i < required_count || map.contains_key(*field) => {
                return Err(format!("there is no column `{name}`; use --map {field}=COLUMN to name it"));
            }
            None => {}
        }
    }
    let unknown = header.iter().enumerate().find(|(column, _)| !columns.values().any(|known| known == column));
    match unknown {
        Some((_, name)) if map.is_empty() => {
            Err(format!("column `{name}` is unknown; there are: {}", fields.join(", ")))
        }
        _ => Ok(columns),
    }
}

fn transfer(row: &Row) -> Result<Transfer, String> {
    let amount = text::decimal(row.text("amount"), row.scale).map_err(|reason| format!("amount: {reason}"))?;
    Ok(Transfer {
        id: TransferId(row.id("id")?),
        debit_account_id: AccountId(row.id("debit_account_id")?),
        credit_account_id: AccountId(row.id("credit_account_id")?),
        amount: Amount(u128::try_from(amount).map_err(|_| "amount: must not be negative".to_string())?),
        pending_id: TransferId(row.number("pending_id")?),
        user_data_128: row.number("user_data_128")?,
        user_data_64: row.number("user_data_64")?,
        user_data_32: row.number("user_data_32")?,
        timeout: row.number("timeout")?,
        ledger: row.not_zero("ledger")?,
        code: row.not_zero("code")?,
        flags: text::transfer_flags(row.text("flags")).map_err(|reason| format!("flags: {reason}"))?,
        timestamp: 0,
    })
}

fn account(row: &Row) -> Result<(Account, Option<i128>), String> {
    let account = Account {
        id: AccountId(row.id("id")?),
        user_data_128: row.number("user_data_128")?,
        user_data_64: row.number("user_data_64")?,
        user_data_32: row.number("user_data_32")?,
        ledger: row.not_zero("ledger")?,
        code: row.not_zero("code")?,
        flags: text::account_flags(row.text("flags")).map_err(|reason| format!("flags: {reason}"))?,
        ..Account::default()
    };
    let recorded = match row.text("balance") {
        "" => None,
        text => Some(text::decimal(text, row.scale).map_err(|reason| format!("balance: {reason}"))?),
    };
    Ok((account, recorded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jangbu_ledger::{AccountFlags, TransferFlags};

    fn reasons(plan: &Plan) -> Vec<(u64, &str)> {
        plan.refused.iter().map(|row| (row.line, row.reason.as_str())).collect()
    }

    #[test]
    fn transfers_and_accounts_are_read_by_the_names_of_their_columns() {
        let plan = plan(
            "code,ledger,amount,credit_account_id,debit_account_id,id,flags\n9,1,2.50,20,10,0x1f,pending\n",
            Some("id,ledger,code,flags,balance\n10,1,3,history,-2.50\n20,1,3,,2.50\n"),
            &Reading { scale: 2, ..Reading::default() },
        );
        assert_eq!(reasons(&plan), []);
        assert_eq!((plan.accounts.len(), plan.accounts[0].flags), (2, AccountFlags::HISTORY));
        assert_eq!(plan.recorded[0], RecordedBalance { account_id: AccountId(10), balance: -250 });
        let (line, transfer) = plan.transfers[0];
        assert_eq!((line, transfer.id, transfer.amount, transfer.code), (2, TransferId(31), Amount(250), 9));
        assert_eq!(transfer.flags, TransferFlags::PENDING);
    }

    #[test]
    fn a_map_finds_fields_under_other_names_and_ignores_the_rest() {
        let map = [("id", "nr"), ("amount", "betrag")].map(|(field, column)| (field.into(), column.into())).into();
        let plan = plan(
            "nr,debit_account_id,credit_account_id,betrag,ledger,code,note\n1,10,20,5,1,1,hello\n",
            None,
            &Reading { map, scale: 0 },
        );
        assert_eq!(reasons(&plan), []);
        assert_eq!(plan.transfers[0].1.amount, Amount(5));
    }

    #[test]
    fn each_row_that_cannot_be_loaded_is_named_with_its_reason() {
        let header = "id,debit_account_id,credit_account_id,amount,ledger,code\n";
        for (row, reason) in [
            ("0,10,20,1,1,1", "id: must lie between 1 and 2^128 - 2"),
            ("1,10,20,0.5,1,1", "amount: `0.5` has more than 0 decimal places"),
            ("1,10,20,-5,1,1", "amount: must not be negative"),
            ("1,10,20,5,0,1", "ledger: must not be zero"),
            ("1,10,20,5,1,65536", "code: 65536 is out of range"),
        ] {
            let plan = plan(&format!("{header}{row}\n"), None, &Reading::default());
            assert_eq!(reasons(&plan), [(2, reason)]);
        }
    }

    #[test]
    fn a_missing_or_a_misspelt_column_is_refused() {
        let missing = plan("id,amount\n1,2\n", None, &Reading::default());
        assert!(missing.refused[0].reason.contains("no column `debit_account_id`"));
        let misspelt =
            plan("id,debit_account_id,credit_account_id,amount,ledger,code,flag\n", None, &Reading::default());
        assert!(misspelt.refused[0].reason.contains("column `flag` is unknown"));
    }

    #[test]
    fn an_id_used_twice_is_refused_the_second_time() {
        let header = "id,debit_account_id,credit_account_id,amount,ledger,code\n";
        let plan = plan(&format!("{header}1,10,20,5,1,1\n1,10,20,5,1,1\n"), None, &Reading::default());
        assert_eq!(reasons(&plan), [(3, "id 1 is already on line 2")]);
    }
}
