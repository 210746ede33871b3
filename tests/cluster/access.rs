//! Who belongs is let in, and does what was granted; nobody else is, and nothing else is done.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::join_all, stream};
use jangbu_ledger::{Account, AccountId, Transfer, TransferId};
use jangbu_proto::{
    cluster::v1::{self as cluster, Envelope, RevokeTokenRequest, Vote, VoteRequest, peer_client::PeerClient},
    jangbu::v1 as wire,
    reason,
    token::BearerToken,
    transport::{Channel, Http2Settings, OwnFiles, Transport, channel},
};
use jangbu_tests::{
    ACCOUNTS, Certs, Cluster, Consistency, Door, LEDGER, Payer, Settings, judge, open_accounts, payment, until,
};
use prost::Message as _;
use prost_types::FileDescriptorProto;
use tonic::{Code, Request, Status, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::command::{CONFLICT, DENIED, USAGE, WELL, exits};

const SECURED: Settings = Settings { nodes_count: 3, sizes: jangbu_tests::Sizes::Small, tls: true };
const ONE: Settings = Settings { nodes_count: 1, ..SECURED };

const ROLES: [&str; 5] = ["reader", "writer", "operator", "auditor", "admin"];

/// What was promised, written down a second time: which roles may make a call.
fn promised(call: &str) -> Option<&'static [&'static str]> {
    Some(match call {
        "jangbu.v1.Ledger/CreateAccounts" | "jangbu.v1.Ledger/CreateTransfers" | "jangbu.v1.Ledger/Submit" => {
            &["writer"]
        }
        "jangbu.v1.Ledger/LookupAccounts"
        | "jangbu.v1.Ledger/LookupTransfers"
        | "jangbu.v1.Ledger/GetAccountTransfers"
        | "jangbu.v1.Ledger/GetAccountBalances"
        | "jangbu.v1.Ledger/QueryAccounts"
        | "jangbu.v1.Ledger/QueryTransfers"
        | "jangbu.v1.Ledger/GetChangeEvents" => &["reader", "writer", "auditor"],
        "cluster.v1.Operator/Status"
        | "cluster.v1.Operator/Identify"
        | "cluster.v1.Operator/Verify"
        | "cluster.v1.Operator/Audit"
        | "cluster.v1.Operator/ListTokens" => &["operator", "auditor", "admin"],
        "cluster.v1.Operator/CreateToken" | "cluster.v1.Operator/RevokeToken" => &["admin"],
        "cluster.v1.Operator/Initialize"
        | "cluster.v1.Operator/AddMember"
        | "cluster.v1.Operator/PromoteMember"
        | "cluster.v1.Operator/UpdateMember"
        | "cluster.v1.Operator/RemoveMember"
        | "cluster.v1.Operator/MoveLeader"
        | "cluster.v1.Operator/Drain"
        | "cluster.v1.Operator/FinalizeUpgrade"
        | "cluster.v1.Operator/ReadSnapshot"
        | "cluster.v1.Operator/ReadLog"
        | "cluster.v1.Operator/RecordBackup"
        | "cluster.v1.Operator/TakeSnapshot" => &["operator", "admin"],
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo" => &ROLES,
        _ => return None,
    })
}

/// Whoever asks may know whether a node serves.
fn is_for_anybody(call: &str) -> bool {
    call.starts_with("grpc.health.v1.Health/")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_refused_to_whoever_was_not_granted_it() {
    let cluster = Cluster::start_with(ONE).await;
    let certs = cluster.certs.clone().expect("it is secured");
    let calls = calls_of(cluster.door(1)).await;
    assert!(calls.len() >= 29, "reflection names them all: {calls:?}");
    let unknown: Vec<&String> = calls.iter().filter(|call| !is_for_anybody(call) && promised(call).is_none()).collect();
    assert!(unknown.is_empty(), "nobody has said who may make these: {unknown:?}");

    let elsewhere = Certs::new(&certs.dir.join("elsewhere"));
    let foreign = elsewhere.client("foreign", &ROLES.join(","), "all");
    let strangers: Vec<(&str, Option<OwnFiles>)> = vec![
        ("anonymous", None),
        ("wrong authority", Some(foreign)),
        ("expired", Some(certs.expired_client("late", &ROLES.join("+"), "all"))),
        (
            "another cluster",
            Some(certs.strange_client("other", "jangbu://other/client/a?roles=admin+writer&ledgers=all")),
        ),
        ("no identity", Some(certs.strange_client("nameless", "https://example.org/"))),
        ("no role", Some(certs.strange_client("idle", "jangbu://test/client/idle"))),
    ];
    let mut tried = 0;
    for (who, own) in strangers {
        let door = door_of(&cluster, &certs, own);
        for call in &calls {
            let answer = make(&door, call).await;
            let let_in = is_let_in(&answer);
            let wanted = is_for_anybody(call) && !["wrong authority", "expired"].contains(&who);
            assert_eq!(let_in, wanted, "{who}: {call}: {answer:?}");
            tried += 1;
        }
    }
    for role in ROLES {
        let door = door_of(&cluster, &certs, Some(certs.client(role, role, "all")));
        for call in &calls {
            let answer = make(&door, call).await;
            let wanted = is_for_anybody(call) || promised(call).is_some_and(|roles| roles.contains(&role));
            assert_eq!(is_let_in(&answer), wanted, "{role}: {call}: {answer:?}");
            if let (false, Some(status)) = (wanted, answer) {
                assert_eq!(reason::told(&status).reason, reason::ROLE_MISSING, "{role}: {call}: {status:?}");
            }
            tried += 1;
        }
    }
    tried += every_call_with_tokens(&cluster, &certs, &calls).await;
    println!("{} calls, {tried} times tried", calls.len());
}

/// The same with tokens: those that hold, of each role, and those that don't. Returns how many calls were made.
async fn every_call_with_tokens(cluster: &Cluster, certs: &Certs, calls: &BTreeSet<String>) -> usize {
    knows_tokens(cluster).await;
    let admin = door_of(cluster, certs, Some(certs.files("client-admin")));
    let mut bearers: Vec<(String, BearerToken, Option<&str>)> = Vec::new();
    for role in ROLES {
        let token = bearer(&format!("role-{role}"));
        create(&admin, &token, role, vec![], 0).await;
        bearers.push((format!("token of a {role}"), token, Some(role)));
    }
    let never_made = bearer("never-made");
    let wrong_secret = BearerToken::new("role-admin", [1; 32]).expect("a name");
    let expired = bearer("expired");
    create(&admin, &expired, "admin", vec![], 1).await;
    let revoked = bearer("revoked");
    create(&admin, &revoked, "admin", vec![], 0).await;
    let revoke = RevokeTokenRequest { token_id: "revoked".into() };
    admin.operator().revoke_token(revoke).await.expect("it was made a moment ago");
    for (what, token) in
        [("never made", never_made), ("wrong secret", wrong_secret), ("expired", expired), ("revoked", revoked)]
    {
        bearers.push((format!("token {what}"), token, None));
    }
    let mut tried = 0;
    for (who, token, role) in bearers {
        let door = Door::new(certs.way_with_token(&token), &cluster.node(1).addresses.client);
        for call in calls {
            let answer = make(&door, call).await;
            let is_granted = || role.is_some_and(|role| promised(call).is_some_and(|roles| roles.contains(&role)));
            assert_eq!(is_let_in(&answer), is_for_anybody(call) || is_granted(), "{who}: {call}: {answer:?}");
            tried += 1;
        }
    }
    tried
}

/// A cluster that was made while the machine was busy may be at its first version still, which knows no tokens.
pub(crate) async fn knows_tokens(cluster: &Cluster) {
    let finalize = cluster::FinalizeUpgradeRequest { dry_run: false };
    until("the version is raised", async || {
        let raised = cluster.door(1).operator().finalize_upgrade(finalize).await.ok()?.into_inner();
        (raised.version >= 2).then_some(())
    })
    .await;
}

/// A token whose secret is the beginning of its name.
fn bearer(name: &str) -> BearerToken {
    let mut secret = [0x5e; 32];
    secret[..name.len()].copy_from_slice(name.as_bytes());
    BearerToken::new(name, secret).expect("a name")
}

async fn create(admin: &Door, token: &BearerToken, role: &str, ledgers: Vec<u32>, expires_at: u64) {
    let role = cluster::Role::from_str_name(&format!("ROLE_{}", role.to_uppercase())).expect("a role").into();
    let (token_id, secret_hash) = (token.id().to_owned(), token.hash().to_vec().into());
    let token = cluster::Token { token_id, secret_hash, role, ledgers, expires_at, ..Default::default() };
    let request = cluster::CreateTokenRequest { token: Some(token) };
    admin.operator().create_token(request).await.expect("an admin makes tokens");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_by_command_pays_in_its_ledger_at_every_node_until_it_is_revoked() {
    let mut cluster = Cluster::start_with(SECURED).await;
    let certs = cluster.certs.clone().expect("it is secured");
    knows_tokens(&cluster).await;
    open_accounts(&cluster, 1).await;
    let authority = certs.dir.join("client-authority.crt");
    let admin = certs.client("boss", "admin", "all");
    let path = |path: &std::path::Path| path.to_str().expect("plain letters").to_owned();
    let (ca, cert, key) = (path(&authority), path(&admin.certificate), path(&admin.key));
    let as_admin = ["--ca", &ca, "--cert", &cert, "--key", &key];
    let file = path(&certs.dir.join("shop.token"));
    let ledger = LEDGER.to_string();
    let made = ["token", "create", "shop", "--role", "writer", "--ledgers", &ledger, "--out", &file, "-o", "json"];
    exits(WELL, &cluster, &[&as_admin[..], &made[..]].concat());
    exits(
        CONFLICT,
        &cluster,
        &[&as_admin[..], &["token", "create", "shop", "--role", "admin", "--ledgers", "all"]].concat(),
    );
    let text = std::fs::read_to_string(&file).expect("it was written");
    let token = BearerToken::parse(text.trim()).expect("it is a token");

    let patience = Duration::from_secs(5);
    let doors: Vec<Door> = cluster
        .ids()
        .into_iter()
        .map(|id| Door::new(certs.way_with_token(&token), &cluster.node(id).addresses.client))
        .collect();
    for door in &doors {
        until("the node has heard of the token", async || {
            door.create_transfers(&[payment(1)], patience).await.ok().map(drop)
        })
        .await;
        let elsewhere = Transfer { ledger: FOREIGN_LEDGER, ..payment(1) };
        let refused = door.create_transfers(&[elsewhere], patience).await.unwrap_err();
        assert_eq!(reason::told(&refused).reason, reason::LEDGER_NOT_GRANTED, "{refused:?}");
    }
    let lookup = ["--ca", &ca, "--token-file", &file, "account", "show", "1"];
    exits(WELL, &cluster, &lookup);

    // In plain text it isn't even sent, and where it comes in plain text it opens nothing.
    exits(USAGE, &cluster, &["--token-file", &file, "account", "show", "1"]);

    // A stream that was begun with it ends its work with it.
    let (asking, asked) = tokio::sync::mpsc::channel(1);
    let requests = stream::unfold(asked, |mut asked| async { Some((asked.recv().await?, asked)) });
    let mut replies = doors[0].ledger().submit(requests).await.expect("a writer may").into_inner();
    let mut pay = async || {
        let mut record = [0; Transfer::BYTES];
        payment(1).encode(&mut record);
        let operation = wire::Operation::CreateTransfers as i32;
        let packed = wire::SubmitRequest { tag: 1, operation, records: record.to_vec().into(), deadline_ms: 0 };
        asking.send(packed).await.expect("the stream is open");
        replies.next().await.expect("an answer").expect("an answer").outcome.expect("an outcome")
    };
    assert!(matches!(pay().await, wire::submit_reply::Outcome::Applied(_)));
    exits(WELL, &cluster, &[&as_admin[..], &["token", "revoke", "shop"]].concat());
    let refused = until("the stream is told", async || match pay().await {
        wire::submit_reply::Outcome::Failure(failure) => Some(failure),
        wire::submit_reply::Outcome::Applied(_) => None,
    })
    .await;
    assert_eq!(refused.reason, reason::IDENTITY_REVOKED);
    for door in &doors {
        let refused =
            until("the node has heard of its end", async || door.accounts(&ACCOUNTS, Consistency::Local).await.err())
                .await;
        assert_eq!(reason::told(&refused).reason, reason::IDENTITY_REVOKED, "{refused:?}");
    }
    exits(DENIED, &cluster, &lookup);

    let secret = text.trim().rsplit('.').next().expect("it has parts").to_owned();
    let trail = exits(WELL, &cluster, &[&as_admin[..], &["audit", "list", "-o", "json"]].concat());
    let trail = String::from_utf8_lossy(&trail.stdout).into_owned();
    assert!(trail.contains("token create") && trail.contains("token revoke") && trail.contains("\"boss\""), "{trail}");
    for id in cluster.ids() {
        let seen = cluster.node(id).words() + &metrics(&cluster.node(id).addresses.http) + &trail;
        assert!(!seen.contains(&secret), "node {id} shows the secret");
    }
    cluster.kill_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_some_ledgers_neither_backs_up_nor_exports_the_books_of_all() {
    let mut cluster = Cluster::start_with(ONE).await;
    let certs = cluster.certs.clone().expect("it is secured");
    let authority = certs.dir.join("client-authority.crt").display().to_string();
    let out = certs.dir.join("out").display().to_string();
    for (ledgers, expected) in [("7", DENIED), ("all", WELL)] {
        let operator = certs.client(&format!("operator-{ledgers}"), "operator", ledgers);
        let own = [operator.certificate, operator.key].map(|path| path.display().to_string());
        let papers = ["--ca", &authority, "--cert", &own[0], "--key", &own[1]];
        let place = format!("{out}-backup");
        for command in [["backup", "run", &place], ["export", &out, "--timeout=10s"]] {
            let told = exits(expected, &cluster, &[&papers[..], &command[..]].concat());
            let complained = String::from_utf8_lossy(&told.stderr);
            assert!(expected == WELL || complained.contains("this tells of all ledgers"), "{complained}");
            assert_eq!(
                std::path::Path::new(&out).join("manifest.json").exists(),
                expected == WELL && command[0] == "export"
            );
        }
    }
    cluster.kill_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_knock_without_end_fill_no_log() {
    let mut cluster = Cluster::start_with(ONE).await;
    let knocks = (0..500).map(async |_| {
        let mut io = tokio::net::TcpStream::connect(&cluster.node(1).addresses.client).await.expect("the door is open");
        tokio::io::AsyncWriteExt::write_all(&mut io, b"GET / HTTP/1.1\r\n\r\n").await.ok()
    });
    join_all(knocks).await;
    let lines = async || cluster.node(1).words().matches("no handshake").count();
    until("the log tells of it", async || (lines().await > 0).then_some(())).await;
    assert!(cluster.door(1).status().await.is_ok(), "and others are let in");
    assert!(lines().await < 100, "{} lines of 500 knocks", lines().await);
    cluster.kill_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_plain_text_opens_nothing() {
    let mut cluster = Cluster::start_with(Settings { tls: false, ..ONE }).await;
    let mut request = Request::new(cluster::StatusRequest {});
    let shown = bearer("shop").to_secret();
    request
        .metadata_mut()
        .insert("authorization", format!("Bearer {}", shown.reveal()).parse().expect("plain letters"));
    let refused = cluster.door(1).operator().status(request).await.unwrap_err();
    assert_eq!(reason::told(&refused).reason, reason::NO_IDENTITY, "{refused:?}");
    cluster.kill_all();
}

/// Every `package.Service/Method` that reflection tells of.
async fn calls_of(door: &Door) -> BTreeSet<String> {
    let ask = async |question| {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let asked = stream::iter([request]);
        let mut client = ServerReflectionClient::new(door.channel());
        let mut replies = client.server_reflection_info(asked).await.expect("everybody may ask").into_inner();
        replies.next().await.expect("an answer").expect("an answer").message_response.expect("an answer")
    };
    let MessageResponse::ListServicesResponse(services) = ask(MessageRequest::ListServices(String::new())).await else {
        panic!("a list of services was asked for")
    };
    let mut calls = BTreeSet::new();
    for service in services.service {
        let question = MessageRequest::FileContainingSymbol(service.name.clone());
        let MessageResponse::FileDescriptorResponse(files) = ask(question).await else {
            panic!("{} is described nowhere", service.name)
        };
        for file in files.file_descriptor_proto {
            let file = FileDescriptorProto::decode(&file[..]).expect("a description");
            for described in &file.service {
                let name = format!("{}.{}", file.package(), described.name());
                calls.extend(described.method.iter().map(|method| format!("{name}/{}", method.name())));
            }
        }
    }
    calls
}

fn door_of(cluster: &Cluster, certs: &Certs, own: Option<OwnFiles>) -> Door {
    Door::new(certs.way(own), &cluster.node(1).addresses.client)
}

/// Makes a call with an empty message; whichever error it ends with. `None`: it was answered, or goes on.
async fn make(door: &Door, call: &str) -> Option<Status> {
    let mut client = tonic::client::Grpc::new(door.channel());
    let path: PathAndQuery = format!("/{call}").parse().expect("a path");
    let made = async {
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        client.unary(Request::new(()), path, ProstCodec::<(), ()>::default()).await
    };
    tokio::time::timeout(Duration::from_secs(2), made).await.ok()?.err()
}

/// Whether the service heard of it: what it says to an empty message is its own affair.
fn is_let_in(answer: &Option<Status>) -> bool {
    answer.as_ref().is_none_or(|status| {
        let was_refused = matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied);
        let was_hung_up_on = reason::told(status).reason.is_empty()
            && matches!(status.code(), Code::Unknown | Code::Unavailable | Code::Cancelled);
        !was_refused && !was_hung_up_on
    })
}

const FOREIGN_LEDGER: u32 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_granted_one_ledger_neither_changes_nor_sees_another() {
    let mut cluster = Cluster::start_with(ONE).await;
    open_accounts(&cluster, 1).await;
    let foreign =
        [901, 902].map(|id| Account { id: AccountId(id), ledger: FOREIGN_LEDGER, code: 1, ..Account::default() });
    let patience = Duration::from_secs(5);
    cluster.door(1).create_accounts(&foreign, patience).await.unwrap();
    let elsewhere = Transfer {
        id: TransferId(77),
        debit_account_id: AccountId(901),
        credit_account_id: AccountId(902),
        ledger: FOREIGN_LEDGER,
        ..payment(77)
    };
    cluster.door(1).create_transfers(&[elsewhere], patience).await.unwrap();

    let certs = cluster.certs.clone().expect("it is secured");
    let own = certs.client("shop", "writer,reader,auditor", &LEDGER.to_string());
    let shop = door_of(&cluster, &certs, Some(own));
    assert!(shop.create_transfers(&[payment(1)], patience).await.is_ok(), "its own ledger");
    let not_granted = |what: &str, status: Status| {
        assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status:?}");
        assert_eq!(reason::told(&status).reason, reason::LEDGER_NOT_GRANTED, "{what}");
    };
    let mixed = [payment(2), Transfer { id: TransferId(78), ..elsewhere }];
    not_granted("a transfer", shop.create_transfers(&mixed, patience).await.unwrap_err());
    not_granted("an account", shop.create_accounts(&foreign, patience).await.unwrap_err());
    let unsaid = Transfer { ledger: 0, ..payment(3) };
    not_granted("a ledger left open", shop.create_transfers(&[unsaid], patience).await.unwrap_err());
    let (_, seen) = shop.transfers(&[mixed[0].id], Consistency::Linearizable).await.unwrap();
    assert!(seen.is_empty(), "of a refused request nothing was done");

    let mut record = [0; Transfer::BYTES];
    Transfer { id: TransferId(79), ..elsewhere }.encode(&mut record);
    let packed = wire::SubmitRequest {
        tag: 1,
        operation: wire::Operation::CreateTransfers as i32,
        records: record.to_vec().into(),
        deadline_ms: 0,
    };
    let mut replies = shop.ledger().submit(stream::iter([packed])).await.unwrap().into_inner();
    let reply = replies.next().await.unwrap().unwrap();
    let Some(wire::submit_reply::Outcome::Failure(failure)) = reply.outcome else { panic!("{reply:?}") };
    assert_eq!(failure.reason, reason::LEDGER_NOT_GRANTED);

    let ids = [ACCOUNTS[0], AccountId(901)];
    let (_, accounts) = shop.accounts(&ids, Consistency::Linearizable).await.unwrap();
    assert_eq!(accounts.iter().map(|account| account.id).collect::<Vec<_>>(), [ACCOUNTS[0]]);
    let (_, transfers) = shop.transfers(&[TransferId(77)], Consistency::Linearizable).await.unwrap();
    assert!(transfers.is_empty(), "as if it weren't there");
    let filter = wire::AccountFilter {
        account_id: Some(wire::Uint128 { high: 0, low: 901 }),
        limit: 10,
        flags: 3,
        ..Default::default()
    };
    let request = wire::GetAccountTransfersRequest { filter: Some(filter), read: None };
    assert!(shop.ledger().get_account_transfers(request).await.unwrap().into_inner().transfers.is_empty());
    let request = wire::GetAccountBalancesRequest { filter: Some(filter), read: None };
    assert!(shop.ledger().get_account_balances(request).await.unwrap().into_inner().balances.is_empty());
    for (ledger, is_granted) in [(LEDGER, true), (FOREIGN_LEDGER, false), (0, false)] {
        let filter = Some(wire::QueryFilter { ledger, limit: 10, ..Default::default() });
        let accounts = shop.ledger().query_accounts(wire::QueryAccountsRequest { filter, read: None }).await;
        let transfers = shop.ledger().query_transfers(wire::QueryTransfersRequest { filter, read: None }).await;
        assert_eq!((accounts.is_ok(), transfers.is_ok()), (is_granted, is_granted), "ledger {ledger}");
    }
    let filter = Some(wire::ChangeEventsFilter { limit: 10, ..Default::default() });
    let events = shop.ledger().get_change_events(wire::GetChangeEventsRequest { filter, read: None }).await;
    not_granted("all events", events.unwrap_err());
    let whole = cluster.door(1).verify().await.unwrap();
    assert_eq!(whole.accounts_count, ACCOUNTS.len() as u64 + 2);
    cluster.kill_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_payments_go_on_when_the_leader_is_killed_under_load() {
    let mut cluster = Cluster::start_with(SECURED).await;
    let payer = Payer::start(&cluster).await;
    payer.progresses(100, "before anything happens").await;
    let leader = cluster.leader().await;
    cluster.node_mut(leader).kill();
    payer.progresses(200, "without the dead leader").await;
    cluster.node_mut(leader).start();
    cluster.serves().await;
    payer.progresses(100, "with all three again").await;
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_replaced_under_load_without_a_dropped_request() {
    let cluster = Cluster::start_with(SECURED).await;
    let certs = cluster.certs.clone().expect("it is secured");
    open_accounts(&cluster, 1).await;
    // One attempt each, no second thoughts: whatever is dropped is seen.
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = cluster
        .ids()
        .into_iter()
        .map(|id| {
            let (door, stopped) = (cluster.door(id).clone(), stopped.clone());
            tokio::spawn(async move {
                let mut answered: u64 = 0;
                while !*stopped.borrow() {
                    let transfer = payment(1);
                    let reply = door.create_transfers(&[transfer], Duration::from_secs(10)).await;
                    reply.unwrap_or_else(|status| panic!("node {id} dropped a request: {status:?}"));
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let old: Vec<Door> = cluster.ids().into_iter().map(|id| cluster.door(id).clone()).collect();

    // The new ones name another host, so that a new connection shows which one it was given.
    for id in cluster.ids() {
        certs.make(&["node", &id.to_string(), "--host", "node.example", "--renew"]);
    }
    for id in cluster.ids() {
        let refused = until(format!("node {id} shows its new certificate"), async || {
            let fresh = Door::new(cluster.way(), &cluster.node(id).addresses.client);
            fresh.status().await.err()
        })
        .await;
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        let told = async || cluster.node(id).words().contains("new keys are taken").then_some(());
        until(format!("node {id} tells of its new keys"), told).await;
    }
    for door in &old {
        assert!(door.status().await.is_ok(), "connections that are there go on");
    }
    // Nodes know each other by their identity and not by their host: they connect anew with the new ones.
    stop.send(true).unwrap();
    let answered = join_all(callers).await.into_iter().map(|answered| answered.expect("no request was dropped"));
    assert!(answered.into_iter().all(|count| count > 0));

    // What can't be used isn't taken.
    let files = certs.files("node-1-client-door");
    std::fs::write(&files.key, "-----BEGIN PRIVATE KEY-----\nbm8=\n-----END PRIVATE KEY-----\n").unwrap();
    until("node 1 says so", async || cluster.node(1).words().contains("new keys can't be used").then_some(())).await;
    assert!(old[0].status().await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_were_given_new_certificates_find_each_other_again() {
    let mut cluster = Cluster::start_with(SECURED).await;
    let certs = cluster.certs.clone().expect("it is secured");
    let payer = Payer::start(&cluster).await;
    for id in cluster.ids() {
        certs.make(&["node", &id.to_string(), "--host", "127.0.0.1", "--renew"]);
    }
    for id in cluster.ids() {
        until("new keys are taken", async || cluster.node(id).words().contains("new keys are taken").then_some(()))
            .await;
    }
    let leader = cluster.leader().await;
    cluster.node_mut(leader).kill();
    payer.progresses(200, "with new keys and without the old leader").await;
    cluster.node_mut(leader).start();
    cluster.serves().await;
    judge(&mut cluster, &payer.stop().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_who_its_certificate_says_and_nobody_else() {
    let mut cluster = Cluster::start_with(SECURED).await;
    let certs = cluster.certs.clone().expect("it is secured");
    let status = cluster.status(1).await;
    let member = |id: u64| {
        let nodes = status.members.iter().filter_map(|member| member.node.as_ref());
        nodes.clone().find(|node| node.node_id == id).expect("a member").clone()
    };
    let vote_as = |from: u64| VoteRequest {
        envelope: Some(Envelope {
            cluster_id: status.cluster_id.clone(),
            from_node: from,
            from_incarnation: member(from).incarnation,
            to_node: 1,
            group: 0,
            to_incarnation: member(1).incarnation,
        }),
        // Of a term long gone: it changes nothing.
        vote: Some(Vote { term: 0, node_id: from, committed: false }),
        last_log_id: None,
        leadership_transfer: false,
    };
    let address = cluster.node(1).addresses.peer.clone();
    let peer = |way: Arc<dyn Transport>| {
        PeerClient::new(channel(way, &address, &Http2Settings::default()).expect("an address"))
    };
    let node_2 = certs.way_of_peers(certs.files("node-2-peer"));

    // Called: node 1 believes node 2 that it is node 2, and not that it is node 3.
    let answered = peer(Arc::new(node_2.clone())).pre_vote(vote_as(2)).await;
    assert!(answered.is_ok(), "{answered:?}");
    let refused = peer(Arc::new(node_2.clone())).pre_vote(vote_as(3)).await.unwrap_err();
    assert_eq!(reason::told(&refused).reason, reason::WRONG_NODE, "{refused:?}");
    // Calling: who means node 3 doesn't speak with node 1.
    assert!(peer(Arc::new(node_2.to_node(1))).pre_vote(vote_as(2)).await.is_ok());
    let refused = peer(Arc::new(node_2.to_node(3))).pre_vote(vote_as(2)).await.unwrap_err();
    assert!(refused.message().contains("node 3 of cluster test was meant"), "{refused:?}");
    // A client's certificate is none of a node's, nor is one of other authorities; and nobody gets in without.
    let client = certs.way_of_peers(certs.files("client-everybody"));
    told_whose_signature_is_missing(peer(Arc::new(client)), vote_as(2)).await;
    let elsewhere = Certs::new(&certs.dir.join("elsewhere"));
    elsewhere.node(2);
    let impostor = certs.way_of_peers(elsewhere.files("node-2-peer"));
    told_whose_signature_is_missing(peer(Arc::new(impostor)), vote_as(2)).await;
    assert!(peer(Arc::new(jangbu_proto::transport::TcpTransport)).pre_vote(vote_as(2)).await.is_err(), "plain text");

    // A node that was given another's certificate doesn't start, and says whose it is.
    cluster.node_mut(3).kill();
    for end in ["crt", "key"] {
        std::fs::copy(certs.dir.join(format!("node-2-peer.{end}")), certs.dir.join(format!("node-3-peer.{end}")))
            .unwrap();
    }
    cluster.node_mut(3).start();
    let ended = cluster.node_ended(3, "it shows the certificate of node 2").await;
    assert!(
        ended.words.contains("must be the certificate of jangbu://test/node/3; it is: jangbu://test/node/2"),
        "{}",
        ended.words
    );
}

/// The node's word travels behind a connection that looks open, and may be overtaken by its end.
async fn told_whose_signature_is_missing(to: PeerClient<Channel>, asked: VoteRequest) {
    until("a stranger is told why it is refused", async || {
        let refused = to.clone().pre_vote(asked.clone()).await.expect_err("a stranger is let in");
        refused.message().contains("doesn't believe the certificate that was shown").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_seen_in_logs_errors_or_metrics() {
    let mut cluster = Cluster::start_with(ONE).await;
    let certs = cluster.certs.clone().expect("it is secured");
    open_accounts(&cluster, 1).await;
    certs.make(&["node", "1", "--host", "127.0.0.1", "--renew"]);
    until("new keys are taken", async || cluster.node(1).words().contains("new keys are taken").then_some(())).await;
    // Certificate and key mixed up, the likeliest way for a key to get into a message.
    let files = certs.files("node-1-client-door");
    let key = std::fs::read_to_string(&files.key).unwrap();
    std::fs::write(&files.certificate, &key).unwrap();
    until("it can't be used", async || cluster.node(1).words().contains("new keys can't be used").then_some(())).await;
    let mut secrets: Vec<String> = vec!["PRIVATE KEY".into()];
    for entry in std::fs::read_dir(&certs.dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "key") {
            let text = std::fs::read_to_string(&path).unwrap();
            secrets.extend(text.lines().filter(|line| line.len() >= 40 && !line.starts_with('-')).map(String::from));
        }
    }
    assert!(secrets.len() > 5);
    let seen = cluster.node(1).words() + &metrics(&cluster.node(1).addresses.http);
    let leaked: Vec<&String> = secrets.iter().filter(|secret| seen.contains(*secret)).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert!(seen.contains("jangbu_"), "the metrics were read");
    cluster.kill_all();
}

/// What a node's HTTP door tells to Prometheus.
pub(crate) fn metrics(address: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut door = std::net::TcpStream::connect(address).expect("the HTTP door is open");
    door.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it listens");
    let mut text = String::new();
    door.read_to_string(&mut text).expect("it answers");
    text
}
