//! Callers that mean harm are cut off, cost a bounded amount of memory, and are not noticed by anybody else.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use jangbu_ledger::{Account, AccountId};
use jangbu_proto::{
    jangbu::v1::{QueryAccountsRequest, QueryFilter},
    reason,
};
use jangbu_tests::{Cluster, Consistency, DEADLINE, Door, LEDGER, Payer, Settings, Sizes, judge, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tonic::codegen::http::{Request, Version};

/// What harm may cost: far more than any of these tests needs, far less than what is tried.
const GROWTH_MAX_KIB: u64 = 400 * 1024;

async fn cluster(limits: &str, tls: bool) -> Cluster {
    let mut cluster = Cluster::unborn(Settings { nodes_count: 1, sizes: Sizes::Small, tls });
    cluster.node(1).adjust(&format!("[limits]\n{limits}\n"));
    cluster.start_all();
    cluster.initialize().await;
    cluster.serves().await;
    cluster
}

/// Does `harm` while others pay: they must not notice, and the node must not grow.
async fn harms_nobody(mut cluster: Cluster, harm: impl AsyncFnOnce(&Cluster)) {
    let payer = Payer::start(&cluster).await;
    payer.progresses(50, "before anything happens").await;
    let before = memory_kib(&cluster);
    harm(&cluster).await;
    payer.progresses(50, "after the harm").await;
    let grown = memory_kib(&cluster).saturating_sub(before);
    assert!(grown < GROWTH_MAX_KIB, "the node grew by {grown} KiB");
    println!("the node grew by {grown} KiB");
    judge(&mut cluster, &payer.stop().await).await;
}

fn memory_kib(cluster: &Cluster) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.node(1).pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("Linux says so");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

type Sender = h2::client::SendRequest<Bytes>;

/// A bare HTTP/2 connection, and how it ends.
async fn http2(cluster: &Cluster, window: u32) -> (Sender, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let io = TcpStream::connect(&cluster.node(1).addresses.client).await.expect("the door is open");
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).max_concurrent_reset_streams(100_000);
    let (sender, connection) = builder.handshake::<_, Bytes>(io).await.expect("HTTP/2 is spoken");
    (sender, tokio::spawn(connection))
}

fn call(cluster: &Cluster, path: &str) -> Request<()> {
    let uri = format!("http://{}{path}", cluster.node(1).addresses.client);
    let request = Request::post(uri).version(Version::HTTP_2).header("content-type", "application/grpc");
    request.header("te", "trailers").body(()).expect("a request")
}

/// A gRPC message, with its head.
pub(crate) fn framed(message: &impl prost::Message) -> Bytes {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_and_never_reads_is_cut_off() {
    harms_nobody(cluster("unread_ms_max = 1000", false).await, async |cluster| {
        let account = |id| Account { id: AccountId(id), ledger: LEDGER, code: 1, ..Account::default() };
        let many: Vec<Account> = (10_000..18_189).map(account).collect();
        cluster.door(1).create_accounts(&many, Duration::from_secs(20)).await.expect("there is something to ask for");
        for window in [0, 100_000] {
            let (mut sender, ended) = http2(cluster, window).await;
            let filter = QueryFilter { limit: 8_189, ..Default::default() };
            let asked = framed(&QueryAccountsRequest { filter: Some(filter), read: None });
            let mut unread = Vec::new();
            for _ in 0..100 {
                let Ok(ready) = sender.clone().ready().await else { break };
                sender = ready;
                let (answer, mut body) =
                    sender.send_request(call(cluster, "/jangbu.v1.Ledger/QueryAccounts"), false).expect("it is sent");
                body.send_data(asked.clone(), true).expect("it is sent");
                // Kept, and never read.
                unread.push(answer);
            }
            // Nothing at this end closes it: the calls are kept.
            let cut = timeout(DEADLINE, ended).await;
            assert!(cut.is_ok(), "window {window}: it is not cut off");
        }
        let cuts = || cluster.node(1).words().matches("answers are left unread").count();
        until("each connection is cut for this, and that is told", async || (cuts() == 2).then_some(())).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_opens_and_resets_calls_in_a_flood_is_cut_off() {
    harms_nobody(cluster("", false).await, async |cluster| {
        let (mut sender, ended) = http2(cluster, 65_535).await;
        let mut opened = 0;
        let until = Instant::now() + DEADLINE;
        while !ended.is_finished() && Instant::now() < until {
            let Ok(ready) = sender.clone().ready().await else { break };
            sender = ready;
            let path = "/jangbu.v1.Ledger/CreateTransfers";
            let Ok((_, mut body)) = sender.send_request(call(cluster, path), false) else { break };
            body.send_reset(h2::Reason::CANCEL);
            opened += 1;
        }
        let cut = timeout(DEADLINE, ended).await.expect("it is cut off").expect("no panic");
        assert!(cut.is_err(), "after {opened} calls: {cut:?}");
        println!("cut off after {opened} resets");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_what_one_connection_may_have_open_are_refused() {
    harms_nobody(cluster("", false).await, async |cluster| {
        let mut io = TcpStream::connect(&cluster.node(1).addresses.client).await.expect("the door is open");
        let authority = cluster.node(1).addresses.client.clone();
        // By hand: a client library keeps to what it is told.
        let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        flood.extend(frame(SETTINGS, 0, 0, &[]));
        for number in 0..FLOOD {
            flood.extend(frame(HEADERS, END_HEADERS, number * 2 + 1, &begun_call(&authority)));
        }
        let (mut heard, mut words) = io.split();
        let (sent, seen) = tokio::join!(words.write_all(&flood), refusals(&mut heard));
        let Seen { refused, cut } = seen;
        assert!(refused >= FLOOD - 256 || cut, "of {FLOOD} calls {refused} are refused ({sent:?})");
        println!("{refused} of {FLOOD} calls are refused; cut off: {cut}");
    })
    .await;
}

const FLOOD: u32 = 2_000;

// Kinds of frames, and a flag (RFC 9113).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;
const REFUSED_STREAM: u32 = 7;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Headers of a call whose message never comes: each a literal that isn't to be remembered (RFC 7541, 6.2.2).
fn begun_call(authority: &str) -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/jangbu.v1.Ledger/CreateTransfers"),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    let literal = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    headers.iter().flat_map(|(name, value)| [vec![0], literal(name), literal(value)].concat()).collect()
}

struct Seen {
    refused: u32,
    cut: bool,
}

/// What the node answers, until all that is too much is refused or nothing more comes.
async fn refusals(heard: &mut (impl tokio::io::AsyncRead + Unpin)) -> Seen {
    let mut seen = Seen { refused: 0, cut: false };
    let listening = async {
        while seen.refused < FLOOD - 256 {
            let mut head = [0; 9];
            if heard.read_exact(&mut head).await.is_err() {
                seen.cut = true;
                return;
            }
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if heard.read_exact(&mut payload).await.is_err() {
                seen.cut = true;
                return;
            }
            match head[3] {
                RST_STREAM if payload == REFUSED_STREAM.to_be_bytes() => seen.refused += 1,
                GOAWAY => seen.cut = true,
                _ => {}
            }
        }
    };
    let _ = timeout(DEADLINE, listening).await; // what was seen until then counts
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_all_bounds_is_refused_before_it_comes() {
    harms_nobody(cluster("", false).await, async |cluster| {
        for claimed in [4 * 1024 * 1024 + 1, u32::MAX] {
            let (sender, _ended) = http2(cluster, 65_535).await;
            let mut sender = sender.ready().await.expect("it is open");
            let request = call(cluster, "/jangbu.v1.Ledger/CreateTransfers");
            let (answer, mut body) = sender.send_request(request, false).expect("it is sent");
            let head = [&[0][..], &claimed.to_be_bytes()].concat();
            body.send_data(head.into(), false).expect("it is sent");
            let answer = timeout(DEADLINE, answer).await.expect("an answer").expect("an answer");
            let status = answer.headers().get("grpc-status").expect("it is refused").clone();
            assert_eq!(status, "11", "OUT_OF_RANGE; {claimed} bytes: {answer:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_begun_and_not_ended_cost_a_bounded_amount_and_end_their_calls() {
    // Far less than the gigabyte that 256 of the largest messages are.
    const HALF_SENT_MAX_KIB: u64 = 160 * 1024;
    harms_nobody(cluster("unread_ms_max = 1000", false).await, async |cluster| {
        let (mut sender, _ended) = http2(cluster, 65_535).await;
        let before = memory_kib(cluster);
        let almost_all = Bytes::from(vec![0; 4 * 1024 * 1024 - 100]);
        let head = [&[0][..], &(4u32 * 1024 * 1024).to_be_bytes()].concat();
        let (mut answers, mut bodies) = (Vec::new(), Vec::new());
        for _ in 0..250 {
            sender = sender.ready().await.expect("it is open");
            let request = call(cluster, "/jangbu.v1.Ledger/CreateTransfers");
            let (answer, mut body) = sender.send_request(request, false).expect("it is sent");
            body.send_data(head.clone().into(), false).expect("it is sent");
            body.send_data(almost_all.clone(), false).expect("it is sent");
            answers.push(answer);
            // Kept, and never ended.
            bodies.push(body);
        }
        let mut most = 0;
        for answer in answers.drain(..12) {
            let answer = timeout(DEADLINE, answer).await.expect("its call is ended").expect("an answer");
            let status = answer.headers().get("grpc-status").expect("it is refused").clone();
            assert_eq!(status, "4", "DEADLINE_EXCEEDED: {answer:?}");
            most = memory_kib(cluster).max(most);
        }
        let grown = most.saturating_sub(before);
        assert!(grown < HALF_SENT_MAX_KIB, "the node grew by {grown} KiB while 250 messages were half sent");
        println!("the node grew by {grown} KiB while 250 messages were half sent");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_beyond_all_bounds_are_refused() {
    harms_nobody(cluster("", false).await, async |cluster| {
        for _ in 0..20 {
            let (sender, _ended) = http2(cluster, 65_535).await;
            let mut sender = sender.ready().await.expect("it is open");
            let mut request = call(cluster, "/jangbu.v1.Ledger/LookupAccounts");
            request.headers_mut().insert("x-large", "x".repeat(1 << 20).parse().expect("a header"));
            let (answer, _) = sender.send_request(request, true).expect("it is sent");
            let answer = timeout(DEADLINE, answer).await.expect("an answer, or the end");
            assert!(
                answer.as_ref().is_err() || answer.as_ref().is_ok_and(|answer| answer.status() != 200),
                "{answer:?}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_take_all_connections() {
    harms_nobody(cluster("connections_per_address_max = 20", false).await, async |cluster| {
        let connect = async || -> io::Result<TcpStream> {
            let socket = TcpSocket::new_v4()?;
            socket.bind("127.0.0.2:0".parse().expect("an address"))?;
            socket.connect(cluster.node(1).addresses.client.parse().expect("an address")).await
        };
        let mut held = Vec::new();
        for _ in 0..100 {
            held.push(connect().await.expect("the kernel lets it in"));
        }
        // A node greets whoever it lets in.
        let greeted = join_all(held.iter_mut().map(async |io| io.read_u8().await.is_ok())).await;
        assert_eq!(greeted.iter().filter(|greeted| **greeted).count(), 20);
        let told = async || cluster.node(1).words().contains("FromThisAddress").then_some(());
        until("the log says why", told).await;
        // Those who go make room.
        drop(held);
        until("there is room again", async || {
            let mut io = connect().await.ok()?;
            io.read_u8().await.ok().map(drop)
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_is_begun_and_not_ended_is_cut_off() {
    harms_nobody(cluster("", true).await, async |cluster| {
        let begun = (0..200).map(async |number| {
            let mut io = TcpStream::connect(&cluster.node(1).addresses.client).await.expect("the door is open");
            // The head of a handshake of 512 bytes, which never come; or nothing at all.
            if number % 2 == 0 {
                io.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await.expect("it listens");
            }
            let mut heard = Vec::new();
            timeout(DEADLINE, io.read_to_end(&mut heard)).await.is_ok()
        });
        let ended = join_all(begun).await;
        assert!(ended.iter().all(|ended| *ended), "each is hung up on");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_identity_that_asks_too_much_is_told_when_to_come_back_and_others_are_served() {
    let cluster = cluster("identity_calls_per_second = 100", true).await;
    let certs = cluster.certs.clone().expect("it is secured");
    let door = |own| Door::new(certs.way(Some(own)), &cluster.node(1).addresses.client);
    let greedy = door(certs.client("greedy", "reader", "all"));
    let modest = door(certs.client("modest", "reader", "all"));
    let ids = [AccountId(1)];
    let asked = join_all((0..500).map(|_| greedy.accounts(&ids, Consistency::Local))).await;
    let refused: Vec<_> = asked.into_iter().filter_map(Result::err).collect();
    assert!(refused.len() >= 200, "{} of 500 were refused", refused.len());
    for status in &refused {
        let told = reason::told(status);
        assert_eq!(told.reason, reason::OVERLOADED, "{status:?}");
        assert!(told.retry_after.is_some_and(|after| after <= Duration::from_secs(1)), "{status:?}");
    }
    assert!(modest.accounts(&ids, Consistency::Local).await.is_ok(), "others have an allowance of their own");
    let after = reason::told(&refused[0]).retry_after.expect("it was told");
    tokio::time::sleep(after).await;
    jangbu_tests::until_ok("it is served again", async || greedy.accounts(&ids, Consistency::Local).await).await;
}
