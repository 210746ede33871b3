//! Who takes part in a run besides the nodes: the founder, the callers, the watcher, the operator, the finisher.
//!
//! Each stands on a host of its own and speaks to the cluster as a program would: through `jangbu_client`.
//!
//! Not here: what callers ask (`workload.rs`), what goes wrong (`cluster.rs`).

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use jangbu_client::{Client, ClientConfig, ClientError, OperatorClient};
use jangbu_node::environment::{Clock, Entropy};
use jangbu_raft_store::admin::VERSION_MAX;
use tokio::time::{sleep, timeout};

use crate::{
    auditor::{Books, records::*},
    chance::Dice,
    chronicle::{Chronicle, Command, Phase},
    cluster::{CLIENT_PORT, PEER_PORT},
    door,
    invariants::{MemberTold, News, Sighting},
    marks,
    wiretap::Wiretap,
    workload::{Generator, SharedTown},
    world::{SimClock, SimEntropy, SimTransport, http2, now_ns},
};

/// How a client of this run is configured; `name` gives it a stream of chance of its own.
pub fn client_config(seed: u64, name: &str, deadline: Duration, attempts_max: u32) -> ClientConfig {
    let clock = SimClock::default();
    let entropy = SimEntropy::new(Dice::new(seed, name));
    ClientConfig {
        deadline,
        attempt_deadline: deadline / 2,
        attempts_max,
        http2: http2(),
        transport: Arc::new(SimTransport::default()),
        clock: Arc::new(move || clock.wall_ns()),
        entropy: Arc::new(move || entropy.next_u64()),
        ..ClientConfig::default()
    }
}

pub fn door_of(node: usize) -> String {
    format!("n{}:{CLIENT_PORT}", node + 1)
}

pub fn peer_door_of(node: usize) -> String {
    format!("n{}:{PEER_PORT}", node + 1)
}

/// Makes the cluster and its accounts, then lets the load begin.
pub async fn founder(chronicle: Chronicle, seed: u64, nodes: usize, founding: Vec<Op>, town: SharedTown) {
    let peers: Vec<String> = (0..nodes).map(peer_door_of).collect();
    let config = client_config(seed, "founder", Duration::from_secs(3), 1);
    let operator = OperatorClient::connect([door_of(0)], config.clone()).expect("the address is one");
    // Whoever makes a cluster has its first version agreed on.
    chronicle.hear(&News::FinalizeAsked { at_ns: now_ns() });
    loop {
        match operator.initialize(&peers).await {
            Ok(_) => break,
            Err(ClientError::NotAllowed { reason, .. }) if reason == jangbu_client::reason::ALREADY_INITIALIZED => {
                break;
            }
            Err(error) => chronicle.line("founder", "note", format!("initialize: {error}")),
        }
        sleep(Duration::from_millis(200)).await;
    }
    let config = client_config(seed, "founder calls", Duration::from_secs(2), 1);
    let client = Client::connect((0..nodes).map(door_of), config).expect("the addresses are some");
    for op in founding {
        loop {
            let answer = ask(&chronicle, &client, 1_000, op.clone(), Level::Linearizable, false).await;
            town.borrow_mut().learn(&op, &answer);
            if matches!(answer, Answer::Written { .. }) {
                break;
            }
        }
    }
    chronicle.hear(&News::FinalizeOver { at_ns: now_ns() });
    chronicle.enter(Phase::Load);
}

/// One call, noted.
async fn ask(chronicle: &Chronicle, client: &Client, number: u32, op: Op, level: Level, retried: bool) -> Answer {
    let invoked_ns = now_ns();
    let answer = door::call(client, &op, level).await;
    let call = Call { client: number, op, level, invoked_ns, answered_ns: now_ns(), answer: answer.clone(), retried };
    chronicle.call(call);
    answer
}

/// How a caller goes about it.
#[derive(Clone)]
pub struct CallerConfig {
    pub number: u32,
    pub seed: u64,
    /// Places of the nodes it knows, the one it asks first in front.
    pub nodes: Vec<usize>,
    pub deadline: Duration,
    /// 1: every attempt is a call of its own, and its outcome is known exactly.
    pub attempts_max: u32,
    /// Sends several requests at once over a packed stream, now and then.
    pub packed: bool,
    /// Who listens on its lines.
    pub wiretap: Option<Wiretap>,
}

/// Asks until the load ends.
pub async fn caller(chronicle: Chronicle, config: CallerConfig, mut generator: Generator, town: SharedTown) {
    let name = format!("caller {}", config.number);
    let transport =
        SimTransport { tapped: config.wiretap.clone().map(|wiretap| (format!("c{}", config.number), wiretap)) };
    let client_config = ClientConfig {
        transport: Arc::new(transport),
        ..client_config(config.seed, &name, config.deadline, config.attempts_max)
    };
    let client = Client::connect(config.nodes.iter().copied().map(door_of), client_config).expect("addresses");
    let mut dice = Dice::new(config.seed, &name);
    chronicle.book().callers_running += 1;
    while chronicle.phase() == Phase::Founding {
        sleep(Duration::from_millis(20)).await;
    }
    while chronicle.phase() == Phase::Load {
        sleep(Duration::from_millis(generator.think_ms())).await;
        if config.packed && dice.percent(30) {
            burst(&chronicle, &client, &config, &mut generator, &town).await;
            continue;
        }
        let (op, level) = generator.request();
        let retried = config.attempts_max > 1;
        let answer = ask(&chronicle, &client, config.number, op.clone(), level, retried).await;
        town.borrow_mut().learn(&op, &answer);
    }
    chronicle.book().callers_running -= 1;
}

/// Several requests in flight on one stream.
async fn burst(
    chronicle: &Chronicle,
    client: &Client,
    config: &CallerConfig,
    generator: &mut Generator,
    town: &SharedTown,
) {
    let mut ops: Vec<Op> = (0..6).map(|_| generator.request().0).filter(Op::is_write).collect();
    ops.truncate(4);
    if ops.is_empty() {
        return;
    }
    let invoked_ns = now_ns();
    let answers = door::call_packed(client, &ops, config.deadline).await;
    for (op, (answer, retried)) in ops.into_iter().zip(answers) {
        town.borrow_mut().learn(&op, &answer);
        let number = config.number;
        let level = Level::Linearizable;
        chronicle.call(Call { client: number, op, level, invoked_ns, answered_ns: now_ns(), answer, retried });
    }
}

/// Asks every node how it is, all the time.
pub async fn watcher(chronicle: Chronicle, seed: u64, lives: Rc<RefCell<Vec<u64>>>) {
    let mut operators: Vec<OperatorClient> = Vec::new();
    while chronicle.phase() != Phase::Done {
        let count = lives.borrow().len();
        for node in operators.len()..count {
            let config = client_config(seed, &format!("watcher {node}"), Duration::from_millis(80), 1);
            operators.push(OperatorClient::connect([door_of(node)], config).expect("the address is one"));
        }
        for (node, operator) in operators.iter().enumerate() {
            let life = lives.borrow()[node];
            let asked = timeout(Duration::from_millis(100), operator.status()).await;
            if let Ok(Ok(status)) = asked
                && lives.borrow()[node] == life
            {
                chronicle.sighting(Sighting { at_ns: now_ns(), node, life, status });
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Does what the plan tells an operator to do.
pub async fn operator(chronicle: Chronicle, seed: u64, ids: Rc<RefCell<Vec<u64>>>, members: Rc<RefCell<Vec<usize>>>) {
    let config = client_config(seed, "operator", Duration::from_secs(5), 3);
    while chronicle.phase() != Phase::Done {
        sleep(Duration::from_millis(50)).await;
        let command = chronicle.book().commands.pop_front();
        let Some(command) = command else { continue };
        chronicle.book().commands_running += 1;
        chronicle.line("operator", "command", format!("{command:?}"));
        // A node that is in no cluster yet answers too, and knows no members: it is not asked.
        let members = members.borrow().clone();
        let serving =
            members.iter().copied().filter(|place| !matches!(command, Command::Replace { new, .. } if new == *place));
        let everyone = OperatorClient::connect(serving.map(door_of), config.clone()).expect("addresses");
        let done = match command {
            Command::Snapshot { node } => {
                let one = OperatorClient::connect([door_of(node)], config.clone()).expect("the address is one");
                one.take_snapshot().await.map(|reply| format!("snapshot at {}", reply.log_index))
            }
            Command::MoveLeader => everyone.move_leader(0).await.map(|reply| format!("leader is {}", reply.leader_id)),
            Command::Finalize => finalize(&chronicle, &everyone).await,
            Command::Replace { old, new } => {
                let (old_id, new_id) = (ids.borrow()[old], ids.borrow()[new]);
                replace(&chronicle, &everyone, old_id, new_id, new).await
            }
        };
        match done {
            Ok(text) => chronicle.line("operator", "done", text),
            Err(error) => chronicle.line("operator", "failed", error.to_string()),
        }
        chronicle.book().commands_running -= 1;
    }
}

/// A node that is down keeps the others waiting, and the operator has more to do.
const FINALIZE_DEADLINE: Duration = Duration::from_secs(2);

async fn finalize(chronicle: &Chronicle, everyone: &OperatorClient) -> Result<String, ClientError> {
    chronicle.hear(&News::FinalizeAsked { at_ns: now_ns() });
    let asked = everyone.with_deadline(FINALIZE_DEADLINE).finalize_upgrade(false).await;
    chronicle.hear(&News::FinalizeOver { at_ns: now_ns() });
    let reply = asked?;
    if reply.version > reply.version_before {
        chronicle.mark(&marks::FINALIZED);
    } else if reply.nodes.iter().any(|node| node.cluster_version_max > reply.version) {
        chronicle.mark(&marks::FINALIZED_MIXED);
    }
    let nodes: Vec<String> =
        reply.nodes.iter().map(|node| format!("{}: {}", node.node_id, node.cluster_version_max)).collect();
    Ok(format!("version {} -> {} ({})", reply.version_before, reply.version, nodes.join(", ")))
}

/// Adds a node, promotes it, and removes the one that is gone. Each step is asked again until it is done.
async fn replace(
    chronicle: &Chronicle,
    everyone: &OperatorClient,
    old_id: u64,
    new_id: u64,
    new: usize,
) -> Result<String, ClientError> {
    let is = |members: &[jangbu_proto::cluster::v1::MemberStatus], id: u64, voter: bool| {
        members
            .iter()
            .any(|member| member.node.as_ref().is_some_and(|node| node.node_id == id) && (member.voter || !voter))
    };
    let members = async || everyone.status().await.map(|status| status.members).unwrap_or_default();
    for attempt in 0..200 {
        let now = members().await;
        let (step, done) = if now.is_empty() {
            ("status", Ok(()))
        } else if !is(&now, new_id, false) {
            ("add", everyone.add_member(&peer_door_of(new)).await.map(drop))
        } else if !is(&now, new_id, true) {
            let told = || chronicle.book().members_told.push(MemberTold { id: new_id, voter: true });
            ("promote", everyone.promote_member(new_id).await.map(|_| told()))
        } else if is(&now, old_id, false) {
            let told = || chronicle.book().members_told.push(MemberTold { id: old_id, voter: false });
            ("remove", everyone.remove_member(old_id, true).await.map(|_| told()))
        } else {
            chronicle.mark(&marks::REPLACED);
            return Ok(format!("node {old_id} replaced by {new_id}"));
        };
        if let Err(error) = done
            && attempt % 10 == 0
        {
            chronicle.line("operator", "retry", format!("{step}: {error}"));
        }
        sleep(Duration::from_millis(250)).await;
    }
    Err(ClientError::Unavailable { reason: String::new(), message: "the node could not be replaced".into() })
}

/// After all faults are lifted: the cluster must serve, agree, and tell what became of everything.
pub async fn finisher(chronicle: Chronicle, seed: u64, members: Rc<RefCell<Vec<usize>>>, town: SharedTown) {
    while chronicle.phase() < Phase::Healing {
        sleep(Duration::from_millis(50)).await;
    }
    if let Err(text) = finish(&chronicle, seed, &members, &town).await {
        chronicle.broken("the_cluster_heals", text);
    }
    chronicle.enter(Phase::Done);
}

/// Simulated time that the cluster has for each step of its recovery.
const HEALING_MAX: Duration = Duration::from_secs(60);

async fn finish(
    chronicle: &Chronicle,
    seed: u64,
    members: &RefCell<Vec<usize>>,
    town: &SharedTown,
) -> Result<(), String> {
    // What an operator has begun, and callers wait for, comes to its end first; and a node that is stopping would serve one
    // question and not the next.
    within("what callers and the operator had begun", || {
        let book = chronicle.book();
        let idle = book.commands.is_empty() && book.commands_running == 0;
        idle && book.callers_running == 0 && book.stopping.is_empty()
    })
    .await?;
    let members = members.borrow().clone();
    let client_of = |nodes: &[usize], name: &str| {
        let config = client_config(seed, name, Duration::from_secs(5), 100);
        Client::connect(nodes.iter().copied().map(door_of), config).expect("the addresses are some")
    };
    for &node in &members {
        let client = client_of(&[node], &format!("finisher {node}"));
        fresh_payment(chronicle, &client, node).await?;
    }
    resolve_unknown(chronicle, &client_of(&members, "resolver"), town).await?;
    agree(chronicle, seed, &members).await?;
    read_books(chronicle, seed, &members).await
}

async fn within(what: &str, is_so: impl Fn() -> bool) -> Result<(), String> {
    let waited = timeout(HEALING_MAX, async {
        while !is_so() {
            sleep(Duration::from_millis(100)).await;
        }
    });
    waited.await.map_err(|_| format!("{what} did not come to an end within {HEALING_MAX:?}"))
}

/// A payment through each node by itself.
async fn fresh_payment(chronicle: &Chronicle, client: &Client, node: usize) -> Result<(), String> {
    let transfer = Transfer {
        id: (0xf1u128 << 64) + node as u128,
        debit_account_id: 1,
        credit_account_id: 1_000,
        amount: 1,
        ledger: 1,
        code: 1,
        ..Transfer::default()
    };
    let asked = timeout(HEALING_MAX, async {
        loop {
            let op = Op::CreateTransfers(vec![transfer]);
            let answer = ask(chronicle, client, 2_000 + node as u32, op, Level::Linearizable, true).await;
            if matches!(answer, Answer::Written { .. }) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    asked.await.map_err(|_| format!("n{} served no payment within {HEALING_MAX:?}", node + 1))
}

/// Asks again, with the same ids, for all that had no outcome.
async fn resolve_unknown(chronicle: &Chronicle, client: &Client, town: &SharedTown) -> Result<(), String> {
    let unknown = std::mem::take(&mut chronicle.book().unknown);
    for place in unknown {
        let op = chronicle.book().history[place].op.clone();
        let mut statuses = Vec::new();
        let resolved = timeout(HEALING_MAX, async {
            loop {
                let answer = ask(chronicle, client, 3_000, op.clone(), Level::Linearizable, true).await;
                town.borrow_mut().learn(&op, &answer);
                if let Answer::Written { results, .. } = answer {
                    statuses.extend(results.iter().map(|result| result.status));
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        if resolved.await.is_err() {
            chronicle.broken("every_outcome_is_found_out", format!("call {place} ({}) has no outcome", op.name()));
        }
        chronicle.book().unknown_resolved += 1;
        // The code is the same for accounts and transfers.
        if statuses.contains(&crate::auditor::codes::transfer::EXISTS) {
            chronicle.mark(&marks::UNKNOWN_WAS_DONE);
        } else if statuses.contains(&CREATED) {
            chronicle.mark(&marks::UNKNOWN_WAS_NOT);
        }
    }
    // Those that the finisher itself left open are of requests that were answered since.
    chronicle.book().unknown.clear();
    Ok(())
}

/// All replicas come to the same index, and a recount of all they hold gives the digest they keep.
async fn agree(chronicle: &Chronicle, seed: u64, members: &[usize]) -> Result<(), String> {
    within("agreement of the replicas", || {
        let book = chronicle.book();
        let mut indexes: Vec<u64> = members
            .iter()
            .map(|node| book.sightings.get(node).map_or(0, |sighting| sighting.status.applied_index))
            .collect();
        indexes.sort_unstable();
        indexes.dedup();
        indexes.len() == 1 && indexes[0] >= book.committed
    })
    .await?;
    way_back_was_open(chronicle, members);
    for &node in members {
        let config = client_config(seed, &format!("verifier {node}"), Duration::from_secs(20), 3);
        let operator = OperatorClient::connect([door_of(node)], config).expect("the address is one");
        let report =
            operator.verify(0).await.map_err(|error| format!("n{} could not be verified: {error}", node + 1))?;
        if report.digest != report.digest_recount {
            let text = format!("n{} at index {}: the recount differs", node + 1, report.log_index);
            chronicle.broken("the_digest_is_what_is_stored", text);
        }
        if report.accounts_over_limit != 0 {
            let text = format!("n{}: {} accounts are over their limit", node + 1, report.accounts_over_limit);
            chronicle.broken("no_account_breaks_its_limit", text);
        }
        for totals in &report.totals {
            if totals.debits_posted != totals.credits_posted || totals.debits_pending != totals.credits_pending {
                chronicle.broken("debits_equal_credits", format!("n{}: {totals:?}", node + 1));
            }
        }
    }
    Ok(())
}

/// Whoever was told that its program is too old was told so rightly.
fn way_back_was_open(chronicle: &Chronicle, members: &[usize]) {
    let (refused, raised) = {
        let book = chronicle.book();
        let raised =
            |node: &usize| book.sightings.get(node).is_some_and(|seen| seen.status.cluster_version == VERSION_MAX);
        (book.older_refused, members.iter().all(raised))
    };
    if refused && !raised {
        let text = "an older program was refused, and the version was not raised".into();
        chronicle.broken("the_way_back_is_open_until_finalized", text);
    }
}

/// Reads everything from every replica; they must hold the same.
async fn read_books(chronicle: &Chronicle, seed: u64, members: &[usize]) -> Result<(), String> {
    let mut first: Option<(usize, Books)> = None;
    for &node in members {
        let config = client_config(seed, &format!("reader {node}"), Duration::from_secs(10), 20);
        let client = Client::connect([door_of(node)], config).expect("the address is one");
        let read = timeout(HEALING_MAX, books_of(&client)).await;
        let books = read
            .map_err(|_| format!("the books of n{} could not be read in time", node + 1))?
            .map_err(|text| format!("the books of n{} could not be read: {text}", node + 1))?;
        match &first {
            None => first = Some((node, books)),
            Some((other, others)) => {
                if let Some(text) = difference(others, &books) {
                    chronicle.broken("the_replicas_agree", format!("n{} and n{}: {text}", other + 1, node + 1));
                }
            }
        }
    }
    chronicle.book().books = first.map(|(_, books)| books);
    Ok(())
}

const PAGE: u32 = 1_000;

/// Events and accounts of one moment: a pulse may run between two reads, so the events are read again until none is new.
async fn books_of(client: &Client) -> Result<Books, String> {
    let mut books = Books::default();
    loop {
        read_events(client, &mut books.events).await?;
        books.accounts = read_accounts(client).await?;
        if read_events(client, &mut books.events).await? == 0 {
            return Ok(books);
        }
    }
}

async fn read_accounts(client: &Client) -> Result<Vec<Account>, String> {
    let mut accounts: Vec<Account> = Vec::new();
    loop {
        let timestamp_min = accounts.last().map_or(0, |account| account.timestamp + 1);
        let filter = QueryFilter { timestamp_min, limit: PAGE, ..QueryFilter::default() };
        match door::call(client, &Op::QueryAccounts(filter), Level::Linearizable).await {
            Answer::Read { rows: Rows::Accounts(rows), .. } => {
                let full = rows.len() == PAGE as usize;
                accounts.extend(rows);
                if !full {
                    return Ok(accounts);
                }
            }
            answer => return Err(crate::auditor::describe(&answer)),
        }
    }
}

/// Reads on from the last; says how many were new.
async fn read_events(client: &Client, events: &mut Vec<ChangeEvent>) -> Result<usize, String> {
    let before = events.len();
    loop {
        let timestamp_min = events.last().map_or(0, |event| event.timestamp + 1);
        let filter = EventsFilter { timestamp_min, limit: PAGE, ..EventsFilter::default() };
        match door::call(client, &Op::ChangeEvents(filter), Level::Linearizable).await {
            Answer::Read { rows: Rows::Events(rows), .. } if rows.is_empty() => return Ok(events.len() - before),
            Answer::Read { rows: Rows::Events(rows), .. } => events.extend(rows),
            answer => return Err(crate::auditor::describe(&answer)),
        }
    }
}

/// Pulses may run between two reads of a living cluster; what is compared is what both had.
fn difference(one: &Books, other: &Books) -> Option<String> {
    let count = one.events.len().min(other.events.len());
    if let Some(index) = (0..count).find(|&index| one.events[index] != other.events[index]) {
        return Some(format!("change event {index}: {:?} and {:?}", one.events[index], other.events[index]));
    }
    if one.events.len() == other.events.len() && one.accounts != other.accounts {
        let index = (0..one.accounts.len()).find(|&index| one.accounts.get(index) != other.accounts.get(index));
        return Some(format!("account {index:?} differs"));
    }
    None
}
