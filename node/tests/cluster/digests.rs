//! A replica whose state is wrong although every checksum on its disk is right; and one whose checksums tell.

use std::{path::PathBuf, sync::Arc};

use jangbu_ledger::{Account, AccountId, Amount};
use jangbu_node::{Environment, Node, NodeError};
use jangbu_proto::{
    cluster::v1::{AddMemberRequest, PromoteMemberRequest, RemoveMemberRequest, VerifyRequest},
    jangbu::v1::CreateTransfersRequest,
};
use jangbu_raft_store::{
    engine::{Batch, Engine, EngineFactory as _, get_sealed, rocks::RocksEngines},
    schema::{Family, RunPart, accounts_page},
};
use tokio::time::{Instant, timeout};

use crate::harness::{Cluster, PATIENCE, local, payment};

/// Flushes soon, and compares digests often.
async fn cluster_with_flushed_state() -> Cluster {
    let cluster = Cluster::adjusted(3, |config| {
        config.storage.flush_events = Some(100);
        config.storage.digest_interval_ms = 100;
    })
    .await;
    cluster.open_accounts().await;
    let transfers = (1..=300).map(|id| payment(id, 1)).collect();
    cluster.ledger(1).await.create_transfers(CreateTransfersRequest { transfers }).await.expect("they are paid");
    for id in 1..=3 {
        cluster.until(id, "it has the payments", |status| status.events_count == 300).await;
    }
    cluster
}

/// The state of a node that doesn't run.
fn stored(cluster: &Cluster, id: u64) -> Arc<dyn Engine> {
    let group = cluster.data_dir(id).join("group-0");
    let current = std::fs::read_to_string(group.join("CURRENT")).expect("it has a state");
    let dir: PathBuf = group.join(current.split_whitespace().next().expect("it names a state"));
    // The last task of a node that has ended may still be closing it.
    let deadline = Instant::now() + PATIENCE;
    loop {
        match RocksEngines::new(8 << 20).open(&dir) {
            Ok(engine) => return engine,
            Err(error) => assert!(Instant::now() < deadline, "nobody else has it open: {error}"),
        }
        std::thread::yield_now();
    }
}

/// Gives account 2 one more than it was paid, with the seal of a state that is right.
fn give_for_nothing(engine: &dyn Engine) {
    let key = accounts_page(0);
    let page = get_sealed(engine, Family::Accounts, &key).expect("it can be read").expect("it was flushed");
    let mut page = page.to_vec();
    let records = page.as_chunks_mut::<{ Account::BYTES }>().0;
    let record = records.iter_mut().find(|record| Account::decode(record).id == AccountId(2)).expect("it is there");
    let mut account = Account::decode(record);
    account.credits_posted = Amount(account.credits_posted.0 + 1);
    account.encode(record);
    let mut batch = Batch::new();
    batch.put_sealed(Family::Accounts, &key, page);
    engine.write(batch).and_then(|()| engine.flush()).expect("it can be written");
}

async fn ended(cluster: &mut Cluster, id: u64) -> NodeError {
    let node = cluster.nodes.get_mut(&id).expect("it runs");
    let ended = timeout(PATIENCE, &mut node.ended).await.expect("it ends").expect("without a panic");
    ended.expect_err("it can't go on")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_differs_from_a_majority_fences_itself_and_the_cluster_goes_on() {
    let mut cluster = cluster_with_flushed_state().await;
    let harmed = cluster.a_follower().await;
    let well: Vec<u64> = (1..=3).filter(|id| *id != harmed).collect();
    cluster.stop(harmed).await;
    give_for_nothing(&*stored(&cluster, harmed));
    cluster.start(harmed).await;
    cluster.until(harmed, "it takes part", |status| status.ready).await;

    // Digests are recorded at every 1,024th entry.
    let mut id = 1_000;
    while !cluster.nodes[&harmed].ended.is_finished() {
        id += 1;
        assert!(id < 6_000, "nobody noticed in {id} payments");
        cluster.pay(well[0], id, 1).await;
    }
    let cause = ended(&mut cluster, harmed).await;
    assert!(matches!(cause, NodeError::Fenced(_)), "{cause}");
    let says = cause.to_string();
    assert!(says.contains("remove this node and add it again under a new id"), "{says}");
    assert!(cluster.status(harmed).await.is_none(), "it answers nobody");
    assert!(cluster.paid(harmed, local()).await.is_err(), "not even with what it has");
    says_again_that_it_was_fenced(&cluster, harmed).await;

    cluster.pay(well[1], 900, 1).await;
    cluster.start(4).await;
    let peer_address = cluster.nodes[&4].peer_address.clone();
    let mut operator = cluster.operator(well[0]).await;
    operator.add_member(AddMemberRequest { peer_address }).await.expect("the fresh node is added");
    cluster.until(4, "it has the books", |status| status.accounts_count == 2 && status.staleness_ns < 1 << 30).await;
    operator.promote_member(PromoteMemberRequest { node_id: 4 }).await.expect("it has caught up");
    operator.remove_member(RemoveMemberRequest { node_id: harmed, force: false }).await.expect("the others go on");
    cluster.until_ready(4).await;
    cluster.until_equal().await;
    let report = cluster.operator(4).await.verify(VerifyRequest::default()).await.expect("a report").into_inner();
    assert_eq!(report.digest, report.digest_recount);
    assert_eq!(report.totals[0].debits_posted, report.totals[0].credits_posted);
}

/// Its state is kept for study, and is never started with again.
async fn says_again_that_it_was_fenced(cluster: &Cluster, id: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Node::start(cluster.config(id), Environment::production()).await {
            Err(error) if error.to_string().contains("was fenced") => return,
            // The runtime that it ran on may hold the folder for a moment longer.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
            Ok(_) => panic!("it started with a state that was fenced"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_in_an_index_that_no_recount_reads_is_found_by_a_deep_one_and_ends_the_node() {
    let mut cluster = cluster_with_flushed_state().await;
    let harmed = cluster.a_follower().await;
    cluster.stop(harmed).await;
    damage_a_page_of_history(&*stored(&cluster, harmed));
    cluster.start(harmed).await;
    cluster.until_ready(harmed).await;

    let mut operator = cluster.operator(harmed).await;
    let report = operator.verify(VerifyRequest::default()).await.expect("a recount doesn't read it").into_inner();
    assert_eq!(report.digest, report.digest_recount);
    let status = operator.verify(VerifyRequest { log_index: 0, deep: true }).await.expect_err("this one does");
    assert!(status.message().contains("runs/"), "it names the key: {status}");
    let cause = ended(&mut cluster, harmed).await.to_string();
    assert!(cause.contains("runs/") && cause.contains("add it again under a new id"), "{cause}");

    let well = (1..=3).find(|id| *id != harmed).expect("there are others");
    let mut operator = cluster.operator(well).await;
    let report = operator.verify(VerifyRequest { log_index: 0, deep: true }).await.expect("a report").into_inner();
    assert!(report.values_read_count > 10 && report.values_read_bytes > 10_000, "{report:?}");
    cluster.pay(well, 900, 1).await;
}

/// Flips a bit in an index from accounts to their transfers, behind the engine's checksums.
fn damage_a_page_of_history(engine: &dyn Engine) {
    let mut pages = Vec::new();
    let mut gather = |key: &[u8], value: &[u8]| {
        pages.push((key.to_vec(), value.to_vec()));
        Ok(())
    };
    engine.scan(Family::Runs, &[], &[0xff; 40], &mut gather).expect("it can be read");
    // Keys of history are small: an account's place and side. Those of ids are hashes.
    let of_history = |key: &[u8]| key[8] == RunPart::Page as u8 && key[9..16] == [0; 7];
    let (key, mut value) = pages.into_iter().find(|(key, _)| of_history(key)).expect("accounts have a history");
    value[3] ^= 1;
    let mut batch = Batch::new();
    batch.put(Family::Runs, &key, value);
    engine.write(batch).and_then(|()| engine.flush()).expect("it can be written");
}
