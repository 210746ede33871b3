//! What is done to the cluster: recorded on every node, and no newer than every node understands.

use std::time::Duration;

use jangbu_proto::cluster::v1::{
    AdminCommand, AuditRecord, AuditRequest, CreateTokenRequest, DrainRequest, FinalizeUpgradeRequest,
    ListTokensRequest, MoveLeaderRequest, RevokeTokenRequest, Role, TakeSnapshotRequest, Token, admin_command::Command,
};
use jangbu_proto::trail;
use jangbu_raft_store::admin::VERSION_MAX;
use prost::Message as _;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::harness::{CREATED, Cluster, PATIENCE, pay_once, reason};

async fn trail(cluster: &Cluster, id: u64) -> Vec<AuditRecord> {
    let reply = cluster.operator(id).await.audit(AuditRequest { from_number: 1, limit: 1_000 }).await.unwrap();
    let reply = reply.into_inner();
    let end = trail::verify((0, vec![0; 32]), &reply.records).expect("the chain is whole");
    assert_eq!(end, (reply.records_count, reply.last_hash.to_vec()));
    reply.records
}

/// Waits until a node has so many records.
async fn trail_of(cluster: &Cluster, id: u64, count: usize) -> Vec<AuditRecord> {
    let grown = async {
        loop {
            let records = trail(cluster, id).await;
            if records.len() >= count {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, grown).await.expect("the record comes")
}

/// Action and outcome, of notes; what else there is by its name.
fn told(record: &AuditRecord) -> (String, String) {
    match AdminCommand::decode(&record.command[..]).unwrap().command.unwrap() {
        Command::Note(note) => (note.action, note.outcome),
        Command::RaiseVersion(raise) => ("upgrade finalize".into(), raise.version.to_string()),
        Command::CreateToken(create) => ("token create".into(), create.token.unwrap().token_id),
        Command::RevokeToken(revoke) => ("token revoke".into(), revoke.token_id),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_the_cluster_is_recorded_on_every_node_and_outlives_restarts_and_snapshots() {
    let mut cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let status = cluster.status(1).await.unwrap();
    assert_eq!((status.cluster_version, status.cluster_version_max), (VERSION_MAX, VERSION_MAX), "a new one is new");

    let follower = cluster.a_follower().await;
    cluster.operator(follower).await.move_leader(MoveLeaderRequest { node_id: follower }).await.unwrap();
    cluster.until(1, "it knows the new leader", |status| status.leader_id == follower).await;
    cluster.operator(1).await.move_leader(MoveLeaderRequest { node_id: 99 }).await.unwrap_err();
    let records = trail_of(&cluster, 1, 6).await;
    let acts: Vec<(String, String)> = records.iter().map(told).collect();
    assert_eq!(acts[0], ("upgrade finalize".into(), VERSION_MAX.to_string()));
    assert_eq!(acts[1], ("cluster init".into(), "done".into()));
    assert_eq!(acts[2], ("leader move".into(), String::new()), "asked for, before it is done");
    assert_eq!(acts[3], ("leader move".into(), "done".into()), "recorded by the next leader, at the word of this one");
    assert!(acts.contains(&("leader move".into(), "node 99 is no voter".into())), "{acts:?}");

    // Flushed, or only in the log: both come back.
    cluster.operator(1).await.take_snapshot(TakeSnapshotRequest {}).await.unwrap();
    for id in 1..=3 {
        cluster.stop(id).await;
        cluster.start(id).await;
        cluster.until_ready(id).await;
    }
    for id in 1..=3 {
        let now = trail_of(&cluster, id, records.len()).await;
        assert_eq!(now[..records.len()], records[..], "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_known_and_revoked_on_every_node() {
    let cluster = Cluster::of(3).await;
    let token = Token {
        token_id: "shop-1".into(),
        secret_hash: vec![7; 32].into(),
        role: Role::Writer.into(),
        ledgers: vec![1],
        ..Token::default()
    };
    let create = CreateTokenRequest { token: Some(token) };
    cluster.operator(1).await.create_token(create.clone()).await.unwrap();
    let refused = cluster.operator(2).await.create_token(create).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "REFUSED"), "made once");
    cluster.operator(3).await.revoke_token(RevokeTokenRequest { token_id: "shop-1".into() }).await.unwrap();
    for id in 1..=3 {
        trail_of(&cluster, id, 5).await;
        let tokens = cluster.operator(id).await.list_tokens(ListTokensRequest {}).await.unwrap().into_inner().tokens;
        assert!(matches!(&tokens[..], [token] if token.token_id == "shop-1" && token.revoked_at > 0), "{tokens:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_rises_when_all_nodes_know_it_and_until_then_there_is_a_way_back() {
    let mut cluster = Cluster::adjusted(3, |config| config.limits.cluster_version_max = 1).await;
    cluster.open_accounts().await;
    cluster.pay(1, 1, 10).await;
    let restart = async |cluster: &mut Cluster, id: u64| {
        cluster.stop(id).await;
        cluster.start(id).await;
        cluster.until_ready(id).await;
    };
    let finalize = FinalizeUpgradeRequest { dry_run: false };

    // Two of three on the new program, one still on the old one.
    cluster.adjust = |config| config.limits.cluster_version_max = if config.node_id == 3 { 1 } else { VERSION_MAX };
    restart(&mut cluster, 1).await;
    restart(&mut cluster, 2).await;
    cluster.pay(2, 2, 10).await;
    let told = cluster.operator(1).await.finalize_upgrade(finalize).await.unwrap().into_inner();
    assert_eq!((told.version_before, told.version), (1, 1), "node 3 does not know more");
    let token = CreateTokenRequest { token: Some(Token { token_id: "x".into(), ..Token::default() }) };
    let refused = cluster.operator(1).await.create_token(token).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "WRONG_VERSION"));

    // Back, with everything that was written meanwhile; and forth again, all of them.
    cluster.adjust = |config| config.limits.cluster_version_max = 1;
    restart(&mut cluster, 1).await;
    cluster.pay(1, 3, 10).await;
    cluster.adjust = |_| {};
    for id in 1..=3 {
        restart(&mut cluster, id).await;
    }
    let dry = cluster.operator(2).await.finalize_upgrade(FinalizeUpgradeRequest { dry_run: true }).await.unwrap();
    assert_eq!((dry.get_ref().version_before, dry.get_ref().version), (1, VERSION_MAX));
    assert_eq!(cluster.status(2).await.unwrap().cluster_version, 1, "a dry run changes nothing");
    cluster.operator(2).await.finalize_upgrade(finalize).await.unwrap();
    cluster.operator(2).await.finalize_upgrade(finalize).await.expect("asking again is no error");
    for id in 1..=3 {
        cluster.until(id, "it is raised", |status| status.cluster_version == VERSION_MAX).await;
    }
    cluster.pay(3, 4, 10).await;

    // The way back is closed now: the old program does not serve with what it can't understand.
    cluster.stop(3).await;
    cluster.adjust = |config| config.limits.cluster_version_max = if config.node_id == 3 { 1 } else { VERSION_MAX };
    cluster.start_and_end(3).await;
    cluster.adjust = |_| {};
    cluster.start(3).await;
    cluster.until_ready(3).await;
    assert_eq!(cluster.paid(3, None).await.unwrap(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_is_drained_without_an_error_and_leads_again_when_the_drain_is_taken_back() {
    let cluster = Cluster::of(3).await;
    cluster.open_accounts().await;
    let leader = cluster.leader(1).await;
    // Callers that never retry, one at the leader itself.
    let done = CancellationToken::new();
    let mut paying = Vec::new();
    for through in 1..=3 {
        let (mut ledger, stop) = (cluster.ledger(through).await, done.clone());
        paying.push(tokio::spawn(async move {
            let mut paid = 0;
            while !stop.is_cancelled() {
                let id = u128::from(through) << 64 | (paid + 1);
                let reply = pay_once(&mut ledger, id, 1).await.expect("a drain is not noticed");
                assert_eq!(reply.results[0].status, CREATED);
                paid += 1;
            }
            paid
        }));
    }
    let drained = cluster.operator(leader).await.drain(DrainRequest { undrain: false }).await.unwrap().into_inner();
    assert!(drained.led && drained.leader_id != leader, "{drained:?}");
    let status = cluster.until(leader, "it says so", |status| !status.ready).await;
    assert!(status.draining && status.not_ready_because == "it is draining", "{status:?}");
    // Elected again, it hands over again.
    cluster.operator(leader).await.move_leader(MoveLeaderRequest { node_id: leader }).await.ok();
    cluster.until(leader, "another leads", |status| status.leader_id != 0 && status.leader_id != leader).await;

    cluster.operator(leader).await.drain(DrainRequest { undrain: true }).await.unwrap();
    cluster.until_ready(leader).await;
    let again = async {
        let back = MoveLeaderRequest { node_id: leader };
        // The new leader may have yet to hear how far this one is.
        while cluster.operator(leader).await.move_leader(back).await.is_err() {}
    };
    timeout(PATIENCE, again).await.expect("it leads again");
    done.cancel();
    let mut paid = 0;
    for caller in paying {
        paid += caller.await.unwrap();
    }
    assert_eq!(cluster.paid(1, None).await.unwrap(), paid);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_one_node_is_recorded_too_and_from_where_it_was_asked() {
    let cluster = Cluster::of(3).await;
    let (follower, leader) = (cluster.a_follower().await, cluster.leader(1).await);
    cluster.operator(follower).await.drain(DrainRequest { undrain: false }).await.unwrap();
    cluster.operator(follower).await.drain(DrainRequest { undrain: true }).await.unwrap();
    cluster.operator(follower).await.take_snapshot(TakeSnapshotRequest {}).await.unwrap();
    cluster.operator(leader).await.drain(DrainRequest { undrain: false }).await.unwrap();
    // After the version and the making of the cluster.
    let records = &trail_of(&cluster, 1, 10).await[2..];
    let acts: Vec<(String, String)> = records.iter().map(told).collect();
    let of = |action: &str, outcome: &str| (action.to_owned(), outcome.to_owned());
    let done = ["node drain", "node undrain", "snapshot", "node drain"];
    let wanted: Vec<_> = done.into_iter().flat_map(|action| [of(action, ""), of(action, "done")]).collect();
    assert_eq!(acts, wanted);
    for (record, node_id) in records.iter().zip([follower; 6].into_iter().chain([leader; 2])) {
        let command = AdminCommand::decode(&record.command[..]).unwrap();
        assert_eq!((command.node_id, command.address.as_str()), (node_id, "127.0.0.1"), "{command:?}");
    }
}
