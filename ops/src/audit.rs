//! `jangbu audit`: who did what to the cluster, when, and from where.
//!
//! Not here: the record of money; that is the ledger itself (`jangbu events`, `jangbu verify --audit`).

use std::fmt::Write as _;

use clap::Subcommand;
use jangbu_proto::cluster::v1::{AdminCommand, AuditRecord, admin_command};
use jangbu_proto::trail;
use prost::Message as _;
use serde::Serialize;

use crate::cli::Global;
use crate::cluster;
use crate::error::{Failure, Kind};
use crate::operator::Operator;
use crate::{output, text};

/// Of one question.
const PAGE: u32 = trail::RECORDS_MAX as u32;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// The records, oldest first.
    #[command(after_help = "Examples:\n  jangbu audit list --last 20\n  jangbu audit list --from 1 -o json")]
    List {
        /// The first record's number. Default: the last 50.
        #[arg(long, conflicts_with = "last")]
        from: Option<u64>,
        /// So many records from the end.
        #[arg(long, default_value_t = 50)]
        last: u64,
    },
    /// Recompute the chain of hashes on every node, from the first record to the last.
    Verify,
}

#[derive(Serialize)]
struct Record {
    number: u64,
    log_index: u64,
    /// RFC 3339.
    time: String,
    who: String,
    from: String,
    node_id: u64,
    action: String,
    detail: String,
    outcome: String,
    hash: String,
}

impl From<AuditRecord> for Record {
    fn from(record: AuditRecord) -> Record {
        // What this program can't read it shows as such; the chain covers the bytes.
        let command = AdminCommand::decode(&record.command[..]).unwrap_or_default();
        let (action, detail, outcome) = describe(&command);
        let outcome = if record.refused.is_empty() { outcome } else { format!("refused: {}", record.refused) };
        Record {
            number: record.number,
            log_index: record.log_index,
            time: text::timestamp_text(record.timestamp),
            who: command.actor,
            from: command.address,
            node_id: command.node_id,
            action,
            detail,
            outcome,
            hash: text::hex(&record.hash),
        }
    }
}

/// Action, detail, outcome.
fn describe(command: &AdminCommand) -> (String, String, String) {
    use admin_command::Command::{CreateToken, Note, RaiseVersion, RevokeToken};
    match &command.command {
        Some(Note(note)) => {
            let outcome = if note.outcome.is_empty() { "asked for" } else { &note.outcome };
            (note.action.clone(), note.detail.clone(), outcome.to_owned())
        }
        Some(RaiseVersion(raise)) => {
            ("upgrade finalize".into(), format!("to version {}", raise.version), "done".into())
        }
        Some(CreateToken(create)) => {
            let token = create.token.clone().unwrap_or_default();
            let mut detail = format!("{} as {}", token.token_id, token.role().as_str_name());
            if !token.ledgers.is_empty() {
                let _ = write!(detail, " of ledgers {:?}", token.ledgers); // writing to a String never fails
            }
            ("token create".into(), detail, "done".into())
        }
        Some(RevokeToken(revoke)) => ("token revoke".into(), revoke.token_id.clone(), "done".into()),
        None => ("?".into(), "a command of a newer program".into(), String::new()),
    }
}

#[derive(Serialize)]
struct Verified {
    nodes: Vec<VerifiedNode>,
}

#[derive(Serialize)]
struct VerifiedNode {
    endpoint: String,
    records: u64,
    last_hash: String,
    /// What is wrong; absent: nothing.
    fault: Option<String>,
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Command::List { from, last } => list(global, from, last).await,
            Command::Verify => verify(global).await,
        }
    }
}

async fn list(global: &Global, from: Option<u64>, last: u64) -> Result<(), Failure> {
    let (operator, _) = cluster::any(global).await?;
    let from = match from {
        Some(from) => from,
        None => (operator.audit(1, 1).await?.records_count + 1).saturating_sub(last).max(1),
    };
    let mut records: Vec<Record> = Vec::new();
    loop {
        let page = operator.audit(from + records.len() as u64, PAGE).await?.records;
        if page.is_empty() {
            break;
        }
        records.extend(page.into_iter().map(Record::from));
    }
    output::show(global.output, &records, |records| {
        let rows = records.iter().map(|record| {
            [
                record.number.to_string(),
                record.time.clone(),
                record.who.clone(),
                record.from.clone(),
                record.action.clone(),
                record.detail.clone(),
                record.outcome.clone(),
            ]
        });
        output::table(&["number", "time", "who", "from", "action", "on", "outcome"], rows)
    })
}

async fn verify(global: &Global) -> Result<(), Failure> {
    let asked = cluster::ask_all(global).await?;
    // A check that has read nothing has found nothing good either.
    cluster::some_answer(&asked)?;
    let mut nodes = Vec::new();
    for node in asked.into_iter().filter(|node| node.status.is_some()) {
        nodes.push(verify_node(&Operator::new(&global.way()?, &node.endpoint, global.timeout)?).await?);
    }
    // A node that is a record behind has the same chain as far as it goes; two of equal length must end alike.
    for at in 1..nodes.len() {
        let twin = nodes[..at].iter().find(|node| node.records == nodes[at].records);
        if twin.is_some_and(|twin| twin.last_hash != nodes[at].last_hash) && nodes[at].fault.is_none() {
            nodes[at].fault = Some("its trail ends otherwise than another node's of the same length".into());
        }
    }
    let verified = Verified { nodes };
    output::show(global.output, &verified, |verified| {
        let rows = verified.nodes.iter().map(|node| {
            [
                node.endpoint.clone(),
                text::grouped(node.records),
                node.last_hash.chars().take(16).collect(),
                node.fault.clone().unwrap_or_else(|| "whole".into()),
            ]
        });
        output::table(&["endpoint", "records", "last hash", "trail"], rows)
    })?;
    match verified.nodes.iter().any(|node| node.fault.is_some()) {
        false => Ok(()),
        true => Err(Failure::new(Kind::Unhealthy, "an audit trail is not what was recorded")
            .advise("keep that node's folder for study and replace the node: jangbu node replace")),
    }
}

async fn verify_node(operator: &Operator) -> Result<VerifiedNode, Failure> {
    let mut end = (0, vec![0; 32]);
    let (records, last_hash) = loop {
        let page = operator.audit(end.0 + 1, PAGE).await?;
        let whole = page.records.is_empty();
        match trail::verify(end.clone(), &page.records) {
            Ok(next) => end = next,
            Err(fault) => {
                let last_hash = text::hex(&page.last_hash);
                return Ok(VerifiedNode {
                    endpoint: operator.address.clone(),
                    records: page.records_count,
                    last_hash,
                    fault: Some(fault),
                });
            }
        }
        if whole {
            break (page.records_count, page.last_hash);
        }
    };
    let fault = match (end.0 == records, end.1[..] == last_hash[..]) {
        (true, true) => None,
        (false, _) => Some(format!("it has {} of {records} records", end.0)),
        (_, false) => Some("its last record is not the one that the state knows".into()),
    };
    Ok(VerifiedNode { endpoint: operator.address.clone(), records, last_hash: text::hex(&last_hash), fault })
}
