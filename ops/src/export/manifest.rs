//! What an export is of, and what its tables add up to: `manifest.json`, written last.
//!
//! Laws
//! * Whoever reads the tables and adds up finds what the manifest says: an import does so before it creates anything.
//! * The digest of balances can be computed by anyone who has the accounts: no field of ours alone goes into it.
//!
//! Not here: the files (`table.rs`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use jangbu_ledger::{Account, Sum, Totals, Transfer};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::columns::Expiry;
use super::table::{Format, Written};
use crate::error::{During as _, Failure, Kind};
use crate::text;

pub const FILE_NAME: &str = "manifest.json";

/// Of these files; a program that doesn't know it refuses them.
const FORMAT: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format_version: u32,
    pub format: Format,
    pub cluster_id: String,
    /// The last entry of the log whose effects are in it.
    pub log_index: u64,
    /// Log time of that: RFC 3339, and nanoseconds since 1970.
    pub time: String,
    pub timestamp: String,
    /// Of the whole state at that entry, as the replicas kept it; counted afresh from what was written.
    pub state_digest: String,
    /// By the clock of the machine that wrote it.
    pub exported_at: String,
    pub pendings_open_count: u64,
    /// Those of them that would have expired.
    pub pendings_expiring_count: u64,
    #[serde(flatten)]
    pub sums: Sums,
    pub files: Vec<Written>,
}

/// What the rows of the tables add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    pub accounts_count: u64,
    pub transfers_count: u64,
    pub expiries_count: u64,
    /// SHA-256, hexadecimal, over one line per account in order of creation, each ended by a line feed:
    /// `id,ledger,debits_pending,debits_posted,credits_pending,credits_posted`.
    pub balances_digest: String,
    pub ledgers: Vec<LedgerSums>,
}

/// Decimal, as sums over many can pass 128 bits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerSums {
    pub ledger: u32,
    pub accounts_count: u64,
    pub debits_pending: String,
    pub debits_posted: String,
    pub credits_pending: String,
    pub credits_posted: String,
    pub transfers_count: u64,
    /// Of all amounts of transfers, whatever their kind.
    pub transfers_amount: String,
}

impl Manifest {
    /// All but what the tables say.
    pub fn new(format: Format, cluster_id: String, contents: &jangbu_raft_store::contents::Contents) -> Manifest {
        Manifest {
            format_version: FORMAT,
            format,
            cluster_id,
            log_index: contents.log_index(),
            time: text::timestamp_text(contents.timestamp()),
            timestamp: contents.timestamp().to_string(),
            state_digest: text::hex(&contents.digest().to_bytes()),
            exported_at: text::timestamp_text(crate::clock::now_ns()),
            pendings_open_count: contents.pendings_open(),
            pendings_expiring_count: 0,
            sums: Sums::default(),
            files: Vec::new(),
        }
    }

    pub fn write(&self, folder: &Path) -> Result<(), Failure> {
        let path = folder.join(FILE_NAME);
        let json = serde_json::to_string_pretty(self).map_err(std::io::Error::other)?;
        fs::write(&path, json + "\n").during(|| path.display().to_string())?;
        fs::File::open(&path).and_then(|file| file.sync_all()).during(|| path.display().to_string())
    }

    pub fn read(folder: &Path) -> Result<Manifest, Failure> {
        let path = folder.join(FILE_NAME);
        let bytes = fs::read(&path).map_err(|error| {
            Failure::unreadable(&path, &error).advise("name a folder that `jangbu export` has written to its end")
        })?;
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::usage(format!("{}: {error}", path.display())).advise("export again: this isn't what was written")
        })?;
        if manifest.format_version != FORMAT {
            let message = format!("{}: format_version {} is not known", path.display(), manifest.format_version);
            return Err(Failure::new(Kind::Conflict, message).advise("import it with the newer program that wrote it"));
        }
        Ok(manifest)
    }
}

/// Adds rows up.
pub struct Tally {
    ledgers: BTreeMap<u32, (Totals, u64, Sum)>,
    balances: Context,
    sums: Sums,
    line: String,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { ledgers: BTreeMap::new(), balances: Context::new(&SHA256), sums: Sums::default(), line: String::new() }
    }
}

impl Tally {
    /// In order of creation.
    pub fn account(&mut self, account: &Account) {
        use std::fmt::Write as _;
        self.sums.accounts_count += 1;
        self.ledgers.entry(account.ledger).or_default().0.add(account);
        self.line.clear();
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.line,
            "{},{},{},{},{},{}",
            account.id,
            account.ledger,
            account.debits_pending,
            account.debits_posted,
            account.credits_pending,
            account.credits_posted
        );
        self.balances.update(self.line.as_bytes());
    }

    pub fn transfer(&mut self, transfer: &Transfer) {
        self.sums.transfers_count += 1;
        let (_, count, amount) = self.ledgers.entry(transfer.ledger).or_default();
        *count += 1;
        amount.add(transfer.amount);
    }

    pub fn expiry(&mut self, _: &Expiry) {
        self.sums.expiries_count += 1;
    }

    pub fn finish(self) -> Sums {
        let ledger = |(ledger, (totals, transfers_count, amount)): (u32, (Totals, u64, Sum))| LedgerSums {
            ledger,
            accounts_count: totals.accounts as u64,
            debits_pending: totals.debits_pending.to_string(),
            debits_posted: totals.debits_posted.to_string(),
            credits_pending: totals.credits_pending.to_string(),
            credits_posted: totals.credits_posted.to_string(),
            transfers_count,
            transfers_amount: amount.to_string(),
        };
        Sums {
            balances_digest: text::hex(self.balances.finish().as_ref()),
            ledgers: self.ledgers.into_iter().map(ledger).collect(),
            ..self.sums
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jangbu_ledger::{AccountId, Amount};

    #[test]
    fn the_digest_of_balances_is_what_sha256sum_says_of_the_lines() {
        let mut tally = Tally::default();
        for id in 1..=2u128 {
            let (debits_posted, credits_posted) = (Amount(id), Amount(3 - id));
            let account = Account { id: AccountId(id), ledger: 7, debits_posted, credits_posted, ..Account::default() };
            tally.account(&account);
        }
        // printf '1,7,0,1,0,2\n2,7,0,2,0,1\n' | sha256sum
        let sums = tally.finish();
        assert_eq!(sums.balances_digest, "7cea2c757ede68c8e4a7b50f5eab2db3a7b35aed6d61da14d3b2b1c30a4a7660");
        assert_eq!((sums.ledgers.len(), &*sums.ledgers[0].debits_posted), (1, "3"));
    }
}
