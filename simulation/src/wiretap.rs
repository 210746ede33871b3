//! Somebody on the line between callers and doors: hears every call, and has some said twice, said again, or said wrong.
//!
//!     caller ── duplex ── relay (a gRPC server and client on the caller's host) ── turmoil's network ── door
//!                           │ remembers, doubles, damages, cuts
//!                           ▼
//!                        Wiretap <── what the plan wants (cluster.rs)        replayer (a host of its own) ──> door
//!
//! Messages go through whole and undecoded, whatever the service. TCP neither doubles nor replays, so a doubled message is
//! one that was on its way by two roads. Only runs whose plan needs it are listened to: two more connections cost time.
//!
//! Laws
//! * When one side's connection ends, so does the other's: a relay keeps nothing alive that would be dead without it.
//! * Nobody hears more answers than they asked questions.
//!
//! Not here: when it is done (`faults.rs`), and what becomes of promises: where a message may be heard twice, "nothing was
//! done" can be promised by nobody (`chronicle.rs`).

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use futures_util::{StreamExt, future::BoxFuture, stream, stream::BoxStream};
use http::uri::PathAndQuery;
use jangbu_proto::transport::{Channel, Io, Listener, PEER_MESSAGE_BYTES_MAX, Transport, channel, door, serve};
use jangbu_raft_store::snapshot::manifest;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    server::NamedService,
};
use tower::Service;

use crate::{
    chance::Dice,
    chronicle::{Chronicle, Phase},
    faults::End,
    marks,
    world::{SimTransport, http2, now_ns},
};

/// Bytes on their way within a host.
const DUPLEX_BYTES: usize = 256 << 10;

/// Calls that are remembered to be made again. When there are more, one makes room that chance picks: some stay for long.
const HEARD_MAX: usize = 400;

/// Of a stream, so many messages are remembered from its beginning; heartbeats and votes have one.
const MESSAGES_MAX: usize = 8;

/// A call that was made again has so long to be answered; nobody waits for it.
const REPLAY_MAX: Duration = Duration::from_secs(3);

/// What is known and wanted on all lines of a run. Clones are the same.
#[derive(Clone)]
pub struct Wiretap(Arc<Mutex<Tap>>);

struct Tap {
    dice: Dice,
    heard: Vec<Heard>,
    /// Transfers of snapshots, newest last.
    snapshots: VecDeque<Heard>,
    /// When which call is made again: (simulated time, number).
    due: BTreeMap<(u64, u64), Heard>,
    /// Host -> of a hundred messages to it, so many arrive twice.
    doubled: BTreeMap<String, u64>,
    /// What is done to the next transfer of a snapshot.
    mischief: Option<Mischief>,
    happened: Vec<Happened>,
    count: u64,
}

/// A call as it was made.
#[derive(Clone)]
struct Heard {
    /// host:port
    to: String,
    path: PathAndQuery,
    metadata: MetadataMap,
    messages: Vec<Bytes>,
}

/// What can be done to the transfer of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mischief {
    /// One end dies once so many messages have passed.
    Cut { end: End, after: u64 },
    /// A bit flips in a chunk.
    Damage,
    /// The offer names another cluster, and is otherwise in order.
    Foreign,
}

/// What the harness must know of, because it has to act on it or tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// This host dies now.
    Cut {
        end: End,
        host: String,
    },
    Damaged,
    Foreign,
    /// A transfer that was tampered with was refused by the receiver.
    Refused {
        mischief: Mischief,
        why: String,
    },
}

impl Wiretap {
    pub fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(Tap {
            dice,
            heard: Vec::new(),
            snapshots: VecDeque::new(),
            due: BTreeMap::new(),
            doubled: BTreeMap::new(),
            mischief: None,
            happened: Vec::new(),
            count: 0,
        })))
    }

    /// From now on so much of what is said to `host` arrives twice; 0: nothing.
    pub fn double(&self, host: &str, percent: u64) {
        self.tap().doubled.insert(host.into(), percent);
    }

    /// Calls that were made to `host` are made again within the next `within_ms`. Says how many.
    pub fn replay(&self, host: &str, calls: u64, within_ms: u64) -> usize {
        let mut tap = self.tap();
        let known: Vec<usize> = (0..tap.heard.len()).filter(|&place| tap.heard[place].is_to(host)).collect();
        if known.is_empty() {
            return 0;
        }
        for _ in 0..calls {
            let place = *tap.dice.pick(&known);
            let delay_ms = tap.dice.range(1, within_ms.max(1));
            let heard = tap.heard[place].clone();
            tap.say_again(heard, delay_ms);
        }
        calls as usize
    }

    /// All transfers of snapshots to `host` that are remembered are made again.
    pub fn replay_snapshots(&self, host: &str) -> usize {
        let mut tap = self.tap();
        let known: Vec<Heard> = tap.snapshots.iter().filter(|heard| heard.is_to(host)).cloned().collect();
        for heard in &known {
            let delay_ms = tap.dice.range(1, 300);
            tap.say_again(heard.clone(), delay_ms);
        }
        known.len()
    }

    /// The next transfer of a snapshot is tampered with.
    pub fn tamper(&self, mischief: Mischief) {
        self.tap().mischief = Some(mischief);
    }

    /// Everybody hears everything once, and right.
    pub fn fall_silent(&self) {
        let mut tap = self.tap();
        tap.due.clear();
        tap.doubled.clear();
        tap.mischief = None;
    }

    /// What happened since this was asked last.
    pub fn happened(&self) -> Vec<Happened> {
        std::mem::take(&mut self.tap().happened)
    }

    /// Puts a relay in front of a connection. Must be called on the caller's host.
    pub fn between(&self, from: &str, to: String, connection: Io) -> Io {
        let (near, far) = tokio::io::duplex(DUPLEX_BYTES);
        let cut = CancellationToken::new();
        let upstream = Guarded { io: connection, _cut: cut.clone().drop_guard() };
        let once = Arc::new(Once(Mutex::new(Some(Box::new(upstream)))));
        let channel = channel(once, &to, &http2()).expect("it was an address a moment ago");
        let line = Line { tap: self.clone(), from: from.into(), to: to.clone(), channel, cut: cut.clone() };
        let incoming = stream::iter([(Box::new(far) as Io).into()]).chain(stream::pending()).boxed();
        let listener = Listener { address: to, incoming };
        let ended = cut.clone();
        tokio::spawn(async move {
            let door = door(&http2())
                .add_service(Relay::<Peer>::new(line.clone()))
                .add_service(Relay::<Operator>::new(line.clone()))
                .add_service(Relay::<Ledger>::new(line));
            let _ = serve(door, listener, &http2(), Arc::default(), ended.cancelled_owned(), Duration::ZERO).await;
        });
        Box::new(Guarded { io: Box::new(near), _cut: cut.drop_guard() })
    }

    fn take_due(&self, now_ns: u64) -> Vec<Heard> {
        let mut tap = self.tap();
        let later = tap.due.split_off(&(now_ns + 1, 0));
        std::mem::replace(&mut tap.due, later).into_values().collect()
    }

    fn tap(&self) -> MutexGuard<'_, Tap> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

impl Tap {
    fn say_again(&mut self, heard: Heard, delay_ms: u64) {
        self.count += 1;
        let key = (now_ns() + delay_ms * 1_000_000, self.count);
        self.due.insert(key, heard);
    }

    fn doubles(&mut self, to: &str) -> bool {
        let percent = self.doubled.get(host_of(to)).copied().unwrap_or(0);
        percent > 0 && self.dice.percent(percent)
    }

    fn remember(&mut self, heard: Heard) {
        if heard.is_snapshot() {
            self.snapshots.push_back(heard.clone());
            if self.snapshots.len() > 8 {
                self.snapshots.pop_front();
            }
        }
        if self.doubles(&heard.to) {
            let delay_ms = self.dice.range(0, 20);
            self.say_again(heard.clone(), delay_ms);
        }
        if self.heard.len() < HEARD_MAX {
            self.heard.push(heard);
        } else {
            let place = self.dice.below(HEARD_MAX as u64) as usize;
            self.heard[place] = heard;
        }
    }
}

impl Heard {
    fn is_to(&self, host: &str) -> bool {
        host_of(&self.to) == host
    }

    fn is_snapshot(&self) -> bool {
        self.path.path().ends_with("/InstallSnapshot")
    }

    /// The method, as the story tells it.
    fn name(&self) -> String {
        self.path.path().rsplit('/').next().unwrap_or_default().to_owned()
    }
}

fn host_of(address: &str) -> &str {
    address.split(':').next().unwrap_or(address)
}

// ---------------------------------------------------------------------- the relay

/// One connection that is listened to.
#[derive(Clone)]
struct Line {
    tap: Wiretap,
    from: String,
    to: String,
    channel: Channel,
    /// Ends the connection on both sides.
    cut: CancellationToken,
}

/// A call that is under way.
struct Call {
    line: Line,
    heard: Option<Heard>,
    messages: u64,
    /// Of the messages that are out and not answered: whether it is one that nobody asked.
    extra: Arc<Mutex<VecDeque<bool>>>,
    again: Option<Bytes>,
    /// Messages of this call can be doubled without an answer too many for whoever asked.
    can_double: bool,
    mischief: Option<Mischief>,
    tampered: Arc<Mutex<Option<Mischief>>>,
}

impl Line {
    async fn call(
        self,
        path: PathAndQuery,
        request: Request<Streaming<Bytes>>,
    ) -> Result<Response<BoxStream<'static, Result<Bytes, Status>>>, Status> {
        let (metadata, _, said) = request.into_parts();
        let heard = Heard { to: self.to.clone(), path: path.clone(), metadata: metadata.clone(), messages: Vec::new() };
        // Of these, each message has its answer.
        let counted = path.path().ends_with("/Append");
        let mischief = heard.is_snapshot().then(|| self.tap.tap().mischief.take()).flatten();
        let call = Call {
            line: self.clone(),
            messages: 0,
            extra: Arc::default(),
            again: None,
            can_double: counted || heard.is_snapshot(),
            heard: Some(heard),
            mischief,
            tampered: Arc::default(),
        };
        let (extra, tampered) = (call.extra.clone(), call.tampered.clone());
        let passed_on = stream::unfold((call, said), |(mut call, mut said)| async move {
            let message = call.next(&mut said).await?;
            Some((message, (call, said)))
        });
        let mut client = client(self.channel.clone());
        let out = Request::from_parts(metadata, Default::default(), passed_on);
        let asked = match client.ready().await {
            Ok(()) => client.streaming(out, path, Raw).await,
            Err(error) => Err(Status::from_error(Box::new(error))),
        };
        let line = self.clone();
        let answered = match asked {
            Ok(answered) => answered,
            Err(status) => return Err(line.failed(status, &tampered).await),
        };
        let answers = stream::unfold(Some((answered.into_inner(), line)), move |state| {
            let (extra, tampered) = (extra.clone(), tampered.clone());
            async move {
                let (mut answers, line) = state?;
                loop {
                    match answers.message().await {
                        Ok(Some(_)) if counted && extra.lock().expect(HELD).pop_front() == Some(true) => continue,
                        Ok(Some(answer)) => return Some((Ok(answer), Some((answers, line)))),
                        Ok(None) => return None,
                        Err(status) => return Some((Err(line.failed(status, &tampered).await), None)),
                    }
                }
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    /// What the door said goes through. What the network did to the call, it does to both sides.
    async fn failed(&self, status: Status, tampered: &Mutex<Option<Mischief>>) -> Status {
        if std::error::Error::source(&status).is_some() {
            self.cut.cancel();
            std::future::pending::<()>().await;
        }
        if let Some(mischief) = *tampered.lock().expect(HELD) {
            let why = status.message().to_owned();
            self.tap.tap().happened.push(Happened::Refused { mischief, why });
        }
        status
    }
}

const HELD: &str = "no holder of this lock panics";

impl Call {
    /// The next message that goes on to the door.
    async fn next(&mut self, said: &mut Streaming<Bytes>) -> Option<Bytes> {
        if let Some(again) = self.again.take() {
            self.extra.lock().expect(HELD).push_back(true);
            return Some(again);
        }
        // A broken call ends like a finished one here; the connection says the rest.
        let Ok(Some(mut message)) = said.message().await else { return None };
        self.messages += 1;
        self.listen(&message);
        self.tamper(&mut message).await;
        self.extra.lock().expect(HELD).push_back(false);
        // Only what answers can be told apart in, or what is not answered one by one.
        let is_stream = self.messages > 1 && self.can_double;
        if is_stream && self.line.tap.tap().doubles(&self.line.to) {
            self.again = Some(message.clone());
        }
        Some(message)
    }

    fn listen(&mut self, message: &Bytes) {
        let Some(heard) = &mut self.heard else { return };
        heard.messages.push(message.clone());
        if heard.messages.len() >= MESSAGES_MAX {
            self.remember();
        }
    }

    fn remember(&mut self) {
        if let Some(heard) = self.heard.take().filter(|heard| !heard.messages.is_empty()) {
            self.line.tap.tap().remember(heard);
        }
    }

    async fn tamper(&mut self, message: &mut Bytes) {
        match self.mischief {
            Some(Mischief::Cut { end, after }) if self.messages > after => {
                let host = match end {
                    End::Sender => self.line.from.clone(),
                    End::Receiver => host_of(&self.line.to).to_owned(),
                };
                self.mischief = None;
                self.line.tap.tap().happened.push(Happened::Cut { end, host });
                // Nothing passes any more until it has died.
                std::future::pending::<()>().await;
            }
            // A chunk's bytes come last in its message. The end of a transfer is too short to be one.
            Some(Mischief::Damage) if self.messages > 1 && message.len() > 64 => {
                let mut bytes = message.to_vec();
                let back = self.line.tap.tap().dice.below(bytes.len() as u64 / 2) as usize;
                let place = bytes.len() - 1 - back;
                bytes[place] ^= 0x40;
                *message = bytes.into();
                self.did(Mischief::Damage, Happened::Damaged);
            }
            Some(Mischief::Foreign) => {
                if let Some(forged) = of_another_cluster(message) {
                    *message = forged;
                    self.did(Mischief::Foreign, Happened::Foreign);
                }
            }
            _ => {}
        }
    }

    fn did(&mut self, mischief: Mischief, happened: Happened) {
        self.mischief = None;
        *self.tampered.lock().expect(HELD) = Some(mischief);
        self.line.tap.tap().happened.push(happened);
    }
}

impl Drop for Call {
    /// Whoever has the answer hangs up without another word.
    fn drop(&mut self) {
        self.remember();
    }
}

/// The offer of a snapshot, with another cluster's name in its manifest and the checksum that belongs to it. The manifest is
/// text and keeps its length, so nothing around it has to be understood.
fn of_another_cluster(offer: &Bytes) -> Option<Bytes> {
    let start = offer.windows(9).position(|bytes| bytes == b"{\"format\"")?;
    let mut manifest = manifest::Manifest::parse(&offer[start..]).ok()?;
    manifest.cluster_id = manifest.cluster_id.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect();
    let forged = manifest.encode();
    let mut bytes = offer.to_vec();
    bytes[start..].copy_from_slice(&forged);
    Some(bytes.into())
}

// ---------------------------------------------------------------------- saying it again

/// Makes calls again that somebody made before; on a host of its own, as what is late comes from nowhere in particular.
pub async fn replayer(chronicle: Chronicle, tap: Wiretap) {
    let mut channels: BTreeMap<String, Channel> = BTreeMap::new();
    while chronicle.phase() != Phase::Done {
        tokio::time::sleep(Duration::from_millis(1)).await;
        for heard in tap.take_due(now_ns()) {
            let channel = channels.entry(heard.to.clone()).or_insert_with(|| {
                let transport = Arc::new(SimTransport::default());
                channel(transport, &heard.to, &http2()).expect("it was an address when it was heard")
            });
            tokio::task::spawn_local(say(chronicle.clone(), channel.clone(), heard));
        }
    }
}

async fn say(chronicle: Chronicle, channel: Channel, heard: Heard) {
    let (to, name, is_snapshot) = (host_of(&heard.to).to_owned(), heard.name(), heard.is_snapshot());
    let said = timeout(REPLAY_MAX, repeat(channel, heard)).await;
    let answer = match &said {
        Ok(Ok(answers)) => format!("{answers} answers"),
        Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(_) => "no answer".into(),
    };
    chronicle.line("replayer", "again", format!("{to} hears {name} again: {answer}"));
    if let Ok(Ok(answers)) = said {
        chronicle.mark(&marks::HEARD_AGAIN);
        // Who needs it asks for its files first.
        if is_snapshot && answers == 1 {
            chronicle.mark(&marks::OLD_SNAPSHOT_KNOWN);
        }
    }
}

async fn repeat(channel: Channel, heard: Heard) -> Result<usize, Status> {
    let mut client = client(channel);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let request = Request::from_parts(heard.metadata, Default::default(), stream::iter(heard.messages));
    let mut answers = client.streaming(request, heard.path, Raw).await?.into_inner();
    let mut count = 0;
    while answers.message().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

fn client(channel: Channel) -> tonic::client::Grpc<Channel> {
    tonic::client::Grpc::new(channel)
        .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX)
}

// ---------------------------------------------------------------------- gRPC without knowing what is said

/// The services that are relayed.
struct Peer;
struct Operator;
struct Ledger;

struct Relay<S> {
    line: Line,
    service: PhantomData<fn() -> S>,
}

impl<S> Relay<S> {
    fn new(line: Line) -> Self {
        Self { line, service: PhantomData }
    }
}

impl<S> Clone for Relay<S> {
    fn clone(&self) -> Self {
        Self::new(self.line.clone())
    }
}

impl NamedService for Relay<Peer> {
    const NAME: &'static str = "cluster.v1.Peer";
}
impl NamedService for Relay<Operator> {
    const NAME: &'static str = "cluster.v1.Operator";
}
impl NamedService for Relay<Ledger> {
    const NAME: &'static str = "jangbu.v1.Ledger";
}

impl<S> Service<http::Request<Body>> for Relay<S> {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let line = self.line.clone();
        let path = request.uri().path_and_query().cloned().expect("a call has a path");
        Box::pin(async move {
            let call = tower::service_fn(move |request| Box::pin(line.clone().call(path.clone(), request)));
            let mut grpc = tonic::server::Grpc::new(Raw)
                .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(PEER_MESSAGE_BYTES_MAX);
            Ok(grpc.streaming(call, request).await)
        })
    }
}

/// Messages as bytes.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

// ---------------------------------------------------------------------- connections

/// A connection that takes another with it when it ends.
struct Guarded {
    io: Io,
    _cut: DropGuard,
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Gives the one connection there is, and no other after it.
struct Once(Mutex<Option<Io>>);

impl Transport for Once {
    fn listen(&self, _: String) -> BoxFuture<'static, io::Result<Listener>> {
        unreachable!("nobody listens on one end of a connection")
    }

    fn connect(&self, _: String) -> BoxFuture<'static, io::Result<Io>> {
        let connection = self.0.lock().expect(HELD).take();
        Box::pin(async { connection.ok_or_else(|| io::ErrorKind::NotConnected.into()) })
    }
}
