//! PostgreSQL in the comparison: a primary and two standbys, of which one has to have synced before a commit is answered
//! (`ANY 1`). The ledger on it is `postgres.sql`.
//!
//! It refuses to run as root; for root it runs as its package's own user.
//!
//! Not here: failover. Nothing takes the primary's place by itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::process::Command;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Statement};

use super::jangbu::one_found;
use super::process::{self, Process, User};
use super::row::{Freshness, Mix, Payment, Request, Row, Work};
use super::system::{Caller, System};
use crate::dev;
use crate::dev::folder::free_ports;
use crate::error::{During as _, Failure};

const SCHEMA: &str = include_str!("postgres.sql");
const DATABASE: &str = "postgres";
/// More connections than that make it slower on a small machine; callers beyond share one, and their requests wait in line.
const CONNECTIONS_MAX: u32 = 64;
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// What all three are started with. Everything is synced; the rest is generous to it.
const SETTINGS: &str = "\
fsync = on
synchronous_commit = on
full_page_writes = on
shared_buffers = 1GB
max_wal_size = 8GB
checkpoint_timeout = 1h
wal_compression = on
max_connections = 200
wal_level = replica
max_wal_senders = 10
hot_standby = on
listen_addresses = '127.0.0.1'
logging_collector = off
";

pub struct Postgres {
    programs: PathBuf,
    user: Option<User>,
    folder: PathBuf,
    ports: Vec<u16>,
    /// The primary first; none while it is killed.
    processes: Vec<Option<Process>>,
    killed: Option<usize>,
    /// No id is used twice, also not by callers of different rows.
    next_caller: AtomicI64,
}

impl Postgres {
    pub async fn start(folder: &Path) -> Result<Postgres, Failure> {
        let user = User::unless_we_are_nobody_special("postgres")?;
        let mut postgres = Postgres {
            programs: programs()?,
            folder: folder.to_path_buf(),
            ports: free_ports(3).during(|| "looking for free ports".into())?,
            processes: (0..3).map(|_| None).collect(),
            killed: None,
            next_caller: AtomicI64::new(0),
            user,
        };
        process::own(folder, postgres.user)?;
        postgres
            .run("initdb", &["-D", &postgres.data(0), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C"])
            .await?;
        postgres.configure(0, "synchronous_standby_names = 'ANY 1 (standby1, standby2)'\n")?;
        // The standbys are copies of a primary that waits for nobody yet.
        postgres.spawn(0, &["-c", "synchronous_standby_names="])?;
        let client = postgres.until_it_serves(0).await?;
        client.batch_execute(SCHEMA).await?;
        for standby in [1, 2] {
            postgres.copy(standby).await?;
            postgres.spawn(standby, &[])?;
            postgres.until_it_serves(standby).await?;
        }
        postgres.stop(0).await?;
        postgres.spawn(0, &[])?;
        postgres.until_standbys_follow().await?;
        Ok(postgres)
    }

    fn data(&self, replica: usize) -> String {
        self.folder.join(format!("replica-{replica}")).display().to_string()
    }

    /// Runs one of its programs to the end; it ends with us if we give up.
    async fn run(&self, program: &str, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).current_dir(&self.folder).stdin(Stdio::null()).kill_on_drop(true);
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        let output = command.output().await.during(|| program.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Failure::general(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
        }
    }

    fn configure(&self, replica: usize, more: &str) -> Result<(), Failure> {
        let path = Path::new(&self.data(replica)).join("postgresql.conf");
        let own = format!("port = {}\nunix_socket_directories = '{}'\n", self.ports[replica], self.folder.display());
        let known = fs::read_to_string(&path).during(|| path.display().to_string())?;
        fs::write(&path, format!("{known}\n{SETTINGS}{own}{more}")).during(|| path.display().to_string())
    }

    /// A standby is a copy of the primary that follows it.
    async fn copy(&self, standby: usize) -> Result<(), Failure> {
        let source = format!("host=127.0.0.1 port={} user=postgres application_name=standby{standby}", self.ports[0]);
        self.run("pg_basebackup", &["-D", &self.data(standby), "-d", &source, "-R", "-X", "stream", "-c", "fast"])
            .await?;
        self.configure(standby, "")
    }

    fn spawn(&mut self, replica: usize, more: &[&str]) -> Result<(), Failure> {
        let data = self.data(replica);
        let mut arguments = vec!["-D", &data];
        arguments.extend(more);
        let log = self.folder.join(format!("replica-{replica}.log"));
        let process = Process::start(&self.programs.join("postgres"), &arguments, &self.folder, &log, self.user)?;
        self.processes[replica] = Some(process);
        Ok(())
    }

    async fn stop(&mut self, replica: usize) -> Result<(), Failure> {
        match self.processes[replica].take() {
            // SIGINT: end all sessions, and then in an orderly way.
            Some(process) => process.end(libc::SIGINT, START_TIMEOUT).await,
            None => Ok(()),
        }
    }

    async fn connect(&self, replica: usize) -> Result<Client, tokio_postgres::Error> {
        let target = format!("host=127.0.0.1 port={} user=postgres dbname={DATABASE}", self.ports[replica]);
        let (client, connection) = tokio_postgres::connect(&target, NoTls).await?;
        tokio::spawn(connection); // it ends with its client
        Ok(client)
    }

    async fn until_it_serves(&self, replica: usize) -> Result<Client, Failure> {
        let began = Instant::now();
        loop {
            let error = match self.connect(replica).await {
                Ok(client) => match client.simple_query("select 1").await {
                    Ok(_) => return Ok(client),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if began.elapsed() > START_TIMEOUT {
                let said = dev::last_words(&self.folder.join(format!("replica-{replica}.log")));
                return Err(Failure::general(format!("PostgreSQL does not serve: {error}; {said}")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_standbys_follow(&self) -> Result<(), Failure> {
        let client = self.until_it_serves(0).await?;
        let began = Instant::now();
        let following = "select count(*) from pg_stat_replication where state = 'streaming' and sync_state = 'quorum'";
        while client.query_one(following, &[]).await?.get::<_, i64>(0) < 2 {
            if began.elapsed() > START_TIMEOUT {
                return Err(Failure::general("PostgreSQL's standbys do not follow"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn kill(&mut self, replica: usize) -> Result<(), Failure> {
        if let Some(process) = self.processes[replica].take() {
            process.kill_tree(START_TIMEOUT).await?;
        }
        self.killed = Some(replica);
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Standbys first: a primary waits for them to take the last of its log.
        for process in self.processes.iter_mut().rev().filter_map(Option::take) {
            process.end_now(libc::SIGQUIT);
        }
    }
}

impl System for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn replicas(&self) -> Vec<u32> {
        self.processes.iter().flatten().map(|process| process.pid()).collect()
    }

    /// Chains that stand or fall alone inside of one transaction would need a savepoint each; and its transactions on fewer
    /// accounts than this row's are what the others measure.
    fn can(&self, row: &Row) -> bool {
        !row.gathered
            && !matches!(row.work, Work::Pay { mix: Mix::Chains, .. })
            && row.accounts_count == super::row::ACCOUNTS_COUNT
            && row.work != Work::Lookup(Freshness::BoundedStaleness)
    }

    fn open_accounts(&self, count: u64) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let client = self.until_it_serves(0).await?;
            let last = count as i64 - 1;
            let open = "insert into accounts (id) select generate_series(0, $1::bigint) on conflict do nothing";
            client.execute(open, &[&last]).await?;
            client.batch_execute("vacuum analyze accounts").await?;
            client.batch_execute("analyze transfers").await?;
            Ok(())
        }
        .boxed()
    }

    fn callers<'a>(&'a self, row: &'a Row) -> BoxFuture<'a, Result<Vec<Box<dyn Caller>>, Failure>> {
        async move {
            let mut opened = Vec::new();
            for number in 0..row.callers_count.min(CONNECTIONS_MAX) as usize {
                // Standbys answer from what they have; only the primary knows what is committed.
                let replica = if row.work == Work::Lookup(Freshness::Local) { number % 3 } else { 0 };
                let client = self.connect(replica).await?;
                opened.push(Arc::new(Connection::prepare(client, row).await?));
            }
            let connections: Arc<[Arc<Connection>]> = opened.into();
            let caller = |number: usize| {
                let connection = connections[number % connections.len()].clone();
                let number = self.next_caller.fetch_add(1, Ordering::Relaxed);
                let others = connections.clone();
                Box::new(PostgresCaller { connection, others, next_id: number << 40, held: Vec::new() })
                    as Box<dyn Caller>
            };
            Ok((0..row.callers_count as usize).map(caller).collect())
        }
        .boxed()
    }

    /// What the log tells so far is written to the tables' files, on the primary and then on the standbys: the one that is killed
    /// replays what comes after it, and not all that was done since the start. Not before what is measured at full strength:
    /// after a checkpoint PostgreSQL logs whole pages.
    fn make_ready_for_a_kill(&self) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            for replica in 0..self.ports.len() {
                self.until_it_serves(replica).await?.batch_execute("checkpoint").await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn kill_follower(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        self.kill(1).boxed()
    }

    fn kill_leader(&mut self) -> Option<BoxFuture<'_, Result<(), Failure>>> {
        None
    }

    fn revive(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            let Some(replica) = self.killed.take() else { return Ok(()) };
            self.spawn(replica, &[])?;
            self.until_it_serves(replica).await?;
            self.until_standbys_follow().await
        }
        .boxed()
    }
}

/// Debian keeps them out of the way: several versions can be installed.
fn programs() -> Result<PathBuf, Failure> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.retain(|folder| folder.join("postgres").exists());
    folders.sort();
    folders.pop().ok_or_else(|| {
        Failure::usage("PostgreSQL is not installed")
            .advise("apt-get install postgresql, or leave it out with --systems")
    })
}

/// A connection with the statements of one row.
struct Connection {
    client: Client,
    statements: Vec<Statement>,
}

impl Connection {
    async fn prepare(client: Client, row: &Row) -> Result<Connection, Failure> {
        let texts: &[&str] = match row.work {
            Work::Pay { per_request: 1, .. } => &["select pay($1, $2, $3, $4)"],
            Work::Pay { .. } => &["select pay_many($1, $2, $3, $4, hold => false)"],
            Work::TwoPhase { .. } => &["select pay_many($1, $2, $3, $4, hold => true)", "select post_many($1, $2)"],
            Work::Lookup(_) => &["select * from accounts where id = $1"],
            Work::History => &["(select * from transfers where debit_id = $1 order by id desc limit 10) \
                union all (select * from transfers where credit_id = $1 order by id desc limit 10) \
                order by id desc limit 10"],
        };
        let mut statements = Vec::new();
        for text in texts {
            statements.push(client.prepare(text).await?);
        }
        Ok(Connection { client, statements })
    }
}

struct PostgresCaller {
    connection: Arc<Connection>,
    /// Where it goes when its replica is killed: all of the row's.
    others: Arc<[Arc<Connection>]>,
    next_id: i64,
    held: Vec<i64>,
}

/// A request's payments, field by field.
struct Columns {
    ids: Vec<i64>,
    debits: Vec<i64>,
    credits: Vec<i64>,
    amounts: Vec<i64>,
}

impl PostgresCaller {
    fn ids(&mut self, count: usize) -> Vec<i64> {
        let first = self.next_id;
        self.next_id += count as i64;
        (first..self.next_id).collect()
    }

    fn columns(&mut self, payments: &[Payment]) -> Columns {
        Columns {
            ids: self.ids(payments.len()),
            debits: payments.iter().map(|payment| payment.debit as i64).collect(),
            credits: payments.iter().map(|payment| payment.credit as i64).collect(),
            amounts: payments.iter().map(|payment| i64::from(payment.amount)).collect(),
        }
    }

    async fn one(&mut self, payment: &Payment) -> Result<(), Failure> {
        let id = self.ids(1)[0];
        let (debit, credit) = (payment.debit as i64, payment.credit as i64);
        let Connection { client, statements } = &*self.connection;
        let row = client.query_one(&statements[0], &[&id, &debit, &credit, &i64::from(payment.amount)]).await?;
        all_done(i64::from(row.get::<_, bool>(0)), 1)
    }

    async fn many(&mut self, payments: &[Payment]) -> Result<Vec<i64>, Failure> {
        let Columns { ids, debits, credits, amounts } = self.columns(payments);
        let Connection { client, statements } = &*self.connection;
        let row = client.query_one(&statements[0], &[&ids, &debits, &credits, &amounts]).await?;
        all_done(row.get(0), ids.len())?;
        Ok(ids)
    }

    /// How many were found. A standby may be gone; the primary is there as long as the row lasts.
    async fn lookup(&mut self, number: u64) -> Result<usize, Failure> {
        let ask = async |connection: &Connection| {
            connection.client.query(&connection.statements[0], &[&(number as i64)]).await.map(|found| found.len())
        };
        loop {
            match ask(&self.connection).await {
                Ok(count) => return Ok(count),
                Err(error) if !is_of_the_killed(&error) => return Err(error.into()),
                Err(error) => {
                    let asked = self.connection.clone();
                    let live = |other: &&Arc<Connection>| !other.client.is_closed() && !Arc::ptr_eq(other, &asked);
                    self.connection = self.others.iter().find(live).ok_or(error)?.clone();
                }
            }
        }
    }

    async fn post(&mut self) -> Result<(), Failure> {
        let held = std::mem::take(&mut self.held);
        let ids = self.ids(held.len());
        let Connection { client, statements } = &*self.connection;
        let row = client.query_one(&statements[1], &[&ids, &held]).await?;
        all_done(row.get(0), ids.len())
    }
}

impl Caller for PostgresCaller {
    fn ask<'a>(&'a mut self, request: &'a Request) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            match request {
                Request::Pay(payments) if payments.len() == 1 => self.one(&payments[0]).await,
                Request::Pay(payments) => self.many(payments).await.map(drop),
                Request::Hold(payments) => {
                    self.held = self.many(payments).await?;
                    Ok(())
                }
                Request::Post => self.post().await,
                Request::Lookup(number) => one_found(self.lookup(*number).await?, *number),
                Request::History(number) => {
                    let Connection { client, statements } = &*self.connection;
                    Ok(client.query(&statements[0], &[&(*number as i64)]).await.map(drop)?)
                }
            }
        }
        .boxed()
    }
}

/// A killed replica's connections end at once, or with a last word of the process behind them that has lost its parent.
fn is_of_the_killed(error: &tokio_postgres::Error) -> bool {
    error.is_closed() || matches!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN | &SqlState::CRASH_SHUTDOWN))
}

fn all_done(created: i64, asked: usize) -> Result<(), Failure> {
    match created == asked as i64 {
        true => Ok(()),
        false => Err(Failure::general(format!("PostgreSQL created {created} of {asked} transfers"))),
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::general(format!("PostgreSQL: {error}{cause}"))
    }
}
