//! What is exported is of one moment, whatever is paid meanwhile; and an empty cluster that takes it back has the same balances.

use std::{fs, path::Path, time::Duration};

use jangbu_ledger::{
    Account, AccountFlags, AccountId, Amount, CreateAccountStatus, CreateTransferStatus, Transfer, TransferFlags,
    TransferId,
};
use jangbu_tests::{Cluster, Consistency, Payer, Process, Settings, Signal, damage, jangbu, until};
use serde_json::Value;

use crate::backup::{code, json};
use crate::command::{CONFLICT, UNAVAILABLE, UNHEALTHY, USAGE, WELL, exits};

const ONE: Settings = Settings { nodes_count: 1, sizes: jangbu_tests::Sizes::Small, tls: false };
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn an_export_under_load_is_of_one_moment_and_an_empty_cluster_takes_it_back_with_the_same_balances() {
    let bank = Cluster::start_with(Settings::default()).await;
    write_all_kinds_of_books(&bank).await;
    let payer = Payer::start(&bank).await;
    payer.progresses(300, "before the export").await;
    let folder = bank.node(1).data.with_file_name("exports");
    fs::create_dir(&folder).expect("a folder");
    let path = |name: &str| folder.join(name).display().to_string();

    let under_load = export(&bank, &["export", &path("under-load")]);
    payer.progresses(100, "behind the export").await;
    for ledger in under_load["ledgers"].as_array().expect("there are some") {
        assert_eq!(ledger["debits_posted"], ledger["credits_posted"], "{under_load}");
        assert_eq!(ledger["debits_pending"], ledger["credits_pending"], "{under_load}");
    }
    let journal = payer.stop().await;
    let end = bank.status(1).await;
    assert!(under_load["log_index"].as_u64() < Some(end.applied_index));

    let place = path("backups");
    exits(WELL, &bank, &["backup", "run", &place]);
    let of_backup = json(&["export", &path("of-backup"), "--from", &place, "--format", "parquet"]);
    for format in ["csv", "parquet"] {
        let out = path(format);
        let exported = export(&bank, &["export", &out, "--format", format]);
        assert_eq!(exported["balances_digest"], of_backup["balances_digest"], "the same books, from a backup");
        assert_eq!(exported["transfers_count"].as_u64(), of_backup["transfers_count"].as_u64());
        assert!(exported["transfers_count"].as_u64() > Some(journal.acknowledged_count() as u64), "{exported}");
        assert_eq!(
            (exported["expiries_count"].as_u64(), exported["pendings_expiring_count"].as_u64()),
            (Some(1), Some(1))
        );
        let refused = exits(CONFLICT, &bank, &["export", &out]);
        assert!(String::from_utf8_lossy(&refused.stderr).contains(&format!("{out} is there already")), "{refused:?}");
        // It keeps its timestamps: only an empty cluster can take it.
        exits(CONFLICT, &Cluster::start_with(ONE).await.inhabited().await, &["import", &out, "--format", "export"]);

        let heir = Cluster::start_with(ONE).await;
        let dry = told(&heir, &["import", &out, "--format", "export", "--dry-run"]);
        assert_eq!((dry["dry_run"].as_bool(), &dry["balances_digest"]), (Some(true), &Value::Null));
        let imported = told(&heir, &["import", &out, "--format", "export", "--batch", "500"]);
        assert_eq!(imported["balances_digest"], exported["balances_digest"], "{imported}");
        let all = exported["transfers_count"].as_u64().map(|transfers| transfers + 1);
        assert_eq!(imported["transfers_created"].as_u64(), all, "and one that voids what had expired: {imported}");
        let again = told(&heir, &["import", &out, "--format", "export"]);
        assert_eq!((again["transfers_created"].as_u64(), again["transfers_already_there"].as_u64()), (Some(0), all));

        let second = export(&heir, &["export", &path(&format!("{format}-again")), "--format", "csv"]);
        assert_eq!(second["balances_digest"], exported["balances_digest"], "exported again: {second}");
        assert_ne!(second["state_digest"], exported["state_digest"], "its history says that it was imported");
        exits(WELL, &heir, &["verify"]);
        is_all_there(&bank, &heir).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_broken_off_or_altered_is_never_taken_for_an_export() {
    let mut bank = Cluster::start_with(ONE).await;
    let payer = Payer::start(&bank).await;
    payer.progresses(1_000, "so that there is something to read").await;
    payer.stop().await;
    let folder = bank.node(1).data.with_file_name("exports");
    fs::create_dir(&folder).expect("a folder");
    let (out, work) = (folder.join("out"), folder.join("out.exporting"));
    let out_text = out.display().to_string();
    let endpoints = bank.node(1).addresses.client.clone();
    let slowly = ["export", &out_text, "--rate", "1", "--endpoints", &endpoints];
    let half = || Process::start(&jangbu(), &slowly, &folder.with_file_name("export.log"));
    let begun = async || until("it reads", async || damage::files_under(&work).len().gt(&2).then_some(())).await;

    let export = half();
    begun().await;
    export.signal(Signal::Interrupt);
    export.ended("of Ctrl-C").await.assert_gave_up_saying(&["nothing was changed", "type it again"]);
    assert!(!out.exists() && !work.exists(), "nothing is left of it");
    let export = half();
    begun().await;
    export.kill();
    assert!(!out.exists(), "half an export has no name");
    // What it has left goes with the next; what somebody else keeps there stays.
    fs::write(work.join("notes.txt"), "mine").expect("the folder takes more");
    let (_, refused) = code(CONFLICT, &slowly);
    assert!(refused.contains("notes.txt is there, and of no export"), "{refused}");
    fs::remove_file(work.join("notes.txt")).expect("it stayed");
    exits(WELL, &bank, &["export", &out_text]);
    assert!(!work.exists());

    let import = ["import", &out_text, "--format", "export", "--dry-run"];
    code(WELL, &import);
    for table in ["accounts.csv", "transfers.csv", "expiries.csv"] {
        let whole = fs::read(out.join(table)).expect("it was written");
        damage::flip(&out.join(table), whole.len() as u64 / 2);
        let (_, refused) = code(UNHEALTHY, &import);
        assert!(refused.contains(table) && refused.contains("isn't what was exported"), "{refused}");
        fs::write(out.join(table), &whole).expect("it was there");
    }
    let (_, refused) = code(USAGE, &[&import[..], &["--scale", "2"]].concat());
    assert!(refused.contains("--scale says nothing about an export"), "{refused}");
    fs::remove_file(out.join("manifest.json")).expect("it was written");
    let (_, refused) = code(USAGE, &import);
    assert!(refused.contains("manifest.json") && refused.contains("to its end"), "{refused}");
    bank.node_mut(1).kill();
    code(
        UNAVAILABLE,
        &["export", &folder.join("b").display().to_string(), "--endpoints", &endpoints, "--timeout", "1s"],
    );
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1, "the one that was whole");
}

trait Inhabited {
    async fn inhabited(self) -> Cluster;
}

impl Inhabited for Cluster {
    async fn inhabited(self) -> Cluster {
        create_accounts(&self, &[account(999, AccountFlags::NONE)]).await;
        self
    }
}

fn told(cluster: &Cluster, arguments: &[&str]) -> Value {
    let output = exits(WELL, cluster, &[arguments, &["-o", "json"]].concat());
    serde_json::from_slice(&output.stdout).expect("JSON was asked for")
}

fn export(cluster: &Cluster, arguments: &[&str]) -> Value {
    let told = told(cluster, arguments);
    let manifest = fs::read(Path::new(arguments[1]).join("manifest.json")).expect("it was written");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(told["balances_digest"], manifest["balances_digest"]);
    told
}

const LEDGER: u32 = 7;

fn account(id: u128, flags: AccountFlags) -> Account {
    let user_data_128 = u128::MAX / id;
    Account { id: AccountId(id), user_data_128, ledger: LEDGER, code: 3, flags, ..Account::default() }
}

fn transfer(id: u128, debit: u128, credit: u128, amount: u128, flags: TransferFlags) -> Transfer {
    let accounts = (AccountId(debit), AccountId(credit));
    Transfer {
        id: TransferId(id),
        debit_account_id: accounts.0,
        credit_account_id: accounts.1,
        amount: Amount(amount),
        user_data_64: u64::MAX / id as u64,
        ledger: LEDGER,
        code: 9,
        flags,
        ..Transfer::default()
    }
}

async fn create_accounts(cluster: &Cluster, accounts: &[Account]) {
    let reply = cluster.door(1).create_accounts(accounts, PATIENCE).await.expect("it serves");
    let created = reply.results.iter().all(|result| result.status == CreateAccountStatus::Created.code());
    assert!(created, "{reply:?}");
}

async fn create(cluster: &Cluster, transfers: &[Transfer]) {
    assert_eq!(statuses(cluster, transfers).await, vec![CreateTransferStatus::Created.code(); transfers.len()]);
}

async fn statuses(cluster: &Cluster, transfers: &[Transfer]) -> Vec<u32> {
    let reply = cluster.door(1).create_transfers(transfers, PATIENCE).await.expect("it serves");
    reply.results.iter().map(|result| result.status).collect()
}

/// Imported, limited, linked, balancing; pending that are open, posted in part, voided, expired; closed by a transfer, opened again, born closed.
async fn write_all_kinds_of_books(bank: &Cluster) {
    use TransferFlags as Is;
    let imported =
        |id, timestamp| Account { timestamp, ..account(id, AccountFlags::IMPORTED.with(AccountFlags::HISTORY)) };
    create_accounts(bank, &[imported(101, 1_000), imported(102, 2_000)]).await;
    let past = |id, timestamp, flags| Transfer { timestamp, ..transfer(id, 101, 102, 5_000, Is::IMPORTED.with(flags)) };
    create(bank, &[past(1, 3_000, Is::NONE), past(2, 4_000, Is::PENDING)]).await;
    let limited = AccountFlags::DEBITS_MUST_NOT_EXCEED_CREDITS.with(AccountFlags::HISTORY);
    create_accounts(
        bank,
        &[
            account(103, limited),
            account(104, AccountFlags::NONE),
            account(105, AccountFlags::CLOSED),
            account(106, AccountFlags::LINKED),
            account(107, AccountFlags::NONE),
        ],
    )
    .await;
    let held = |id, amount, timeout| Transfer { timeout, ..transfer(id, 103, 104, amount, Is::PENDING) };
    let of = |id, pending: u128, amount, flags| Transfer {
        pending_id: TransferId(pending),
        ..transfer(id, 103, 104, amount, flags)
    };
    create(
        bank,
        &[
            transfer(10, 102, 103, 1_000, Is::NONE),
            held(11, 300, 1),
            held(12, 200, 0),
            of(13, 12, 150, Is::POST_PENDING_TRANSFER),
            held(14, 100, 0),
            of(15, 14, 100, Is::VOID_PENDING_TRANSFER),
            held(16, 50, 3_600),
            transfer(17, 103, 104, u128::MAX, Is::BALANCING_DEBIT),
            transfer(18, 102, 106, 1, Is::LINKED),
            transfer(19, 106, 102, 1, Is::NONE),
            transfer(20, 106, 102, 0, Is::PENDING.with(Is::CLOSING_DEBIT)),
            transfer(21, 102, 107, 5, Is::PENDING.with(Is::CLOSING_CREDIT)),
            Transfer { pending_id: TransferId(21), ..transfer(22, 102, 107, 5, Is::VOID_PENDING_TRANSFER) },
        ],
    )
    .await;
    let broke = transfer(23, 103, 104, 300, Is::NONE);
    assert_eq!(statuses(bank, &[broke]).await, [CreateTransferStatus::ExceedsCredits.code()]);
    // What was held comes back by itself, and only then there is enough for this.
    until("the held money is released", async || {
        let (_, accounts) = bank.door(1).accounts(&[AccountId(103)], Consistency::Linearizable).await.ok()?;
        (accounts[0].debits_pending == Amount(50)).then_some(())
    })
    .await;
    create(bank, &[Transfer { id: TransferId(24), ..broke }]).await;
}

/// Every account and transfer of these books, as far as an import can carry it.
async fn is_all_there(bank: &Cluster, heir: &Cluster) {
    let ids: Vec<AccountId> = (101..=107).map(AccountId).collect();
    let accounts =
        async |cluster: &Cluster| cluster.door(1).accounts(&ids, Consistency::Linearizable).await.expect("it serves").1;
    let (old, new) = (accounts(bank).await, accounts(heir).await);
    assert_eq!(old.len(), ids.len());
    for (old, new) in old.iter().zip(&new) {
        assert_eq!(*new, Account { flags: old.flags.with(AccountFlags::IMPORTED), ..*old });
    }
    assert!(new[4].flags.contains(AccountFlags::CLOSED) && new[5].flags.contains(AccountFlags::CLOSED));
    assert!(!new[6].flags.contains(AccountFlags::CLOSED), "it was opened again");
    let ids: Vec<TransferId> = (1..=24).map(TransferId).collect();
    let transfers = async |cluster: &Cluster| {
        cluster.door(1).transfers(&ids, Consistency::Linearizable).await.expect("it serves").1
    };
    let (old, new) = (transfers(bank).await, transfers(heir).await);
    assert_eq!(old.len(), 16, "all that weren't refused or never asked for");
    for (old, new) in old.iter().zip(&new) {
        assert_eq!(*new, Transfer { flags: old.flags.with(TransferFlags::IMPORTED), timeout: 0, ..*old });
    }
    // A late duplicate moves nothing, also one of what has expired.
    let expired = Transfer { timeout: 1, ..transfer(11, 103, 104, 300, TransferFlags::PENDING) };
    assert_eq!(statuses(heir, &[expired]).await, [CreateTransferStatus::ExistsWithDifferentFlags.code()]);
}
