//! Connections are made in good time, kept alive, paced when they are refused, and gone when a door has closed.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use futures_util::{StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    time::{Instant, advance, sleep, timeout},
};
use tonic::{Code, Request, Response, Status, server::NamedService};

use super::*;
use crate::cluster::v1::{DigestsReply, DigestsRequest, Envelope, peer_client::PeerClient};

// --- a service that echoes, and can be told to wait

/// Answers every call with an empty message once it is let go.
#[derive(Clone)]
struct Echo {
    hold: Arc<tokio::sync::Semaphore>,
}

impl NamedService for Echo {
    const NAME: &'static str = "cluster.v1.Peer";
}

impl tower::Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        let hold = self.hold.clone();
        Box::pin(async move {
            let _go = hold.acquire().await;
            Ok(Status::new(Code::Aborted, "echo").into_http())
        })
    }
}

async fn ask(channel: &Channel) -> Result<Response<DigestsReply>, Status> {
    let request = DigestsRequest { envelope: Some(Envelope::default()) };
    PeerClient::new(channel.clone()).digests(Request::new(request)).await
}

/// The echo's answer.
fn is_echo<T: std::fmt::Debug>(outcome: Result<T, Status>) -> bool {
    matches!(outcome, Err(status) if status.code() == Code::Aborted)
}

/// Serves the echo on a wire of the test's own.
struct Served {
    wires: mpsc::UnboundedSender<Io>,
    stop: oneshot::Sender<()>,
    hold: Arc<tokio::sync::Semaphore>,
    ended: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
}

fn served(settings: Http2Settings, grace: Duration) -> Served {
    let (wires, incoming) = mpsc::unbounded_channel();
    let incoming =
        stream::unfold(incoming, |mut wires| async move { Some((Arrival::from(wires.recv().await?), wires)) });
    let listener = Listener { address: "memory:1".into(), incoming: incoming.boxed() };
    let hold = Arc::new(tokio::sync::Semaphore::new(1_000));
    let (stop, stopped) = oneshot::channel::<()>();
    let echo = Echo { hold: hold.clone() };
    let ended = tokio::spawn(async move {
        let stop = async { stopped.await.unwrap_or(()) };
        serve(door(&settings).add_service(echo), listener, &settings, Arc::default(), stop, grace).await
    });
    Served { wires, stop, hold, ended }
}

/// A transport whose connections the test decides on, one by one.
#[derive(Default)]
struct Script {
    connects: Mutex<Vec<Instant>>,
    outcomes: Mutex<VecDeque<Io>>,
}

impl Transport for Script {
    fn listen(&self, _: String) -> BoxFuture<'static, io::Result<Listener>> {
        unreachable!("nobody listens here")
    }

    /// The next wire that was laid down; without one the connection is refused.
    fn connect(&self, _: String) -> BoxFuture<'static, io::Result<Io>> {
        self.connects.lock().unwrap().push(Instant::now());
        let wire = self.outcomes.lock().unwrap().pop_front();
        Box::pin(async move { wire.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()) })
    }
}

impl Script {
    fn lay(&self, wire: Io) {
        self.outcomes.lock().unwrap().push_back(wire);
    }

    fn connects(&self) -> Vec<Instant> {
        self.connects.lock().unwrap().clone()
    }
}

fn through(script: &Arc<Script>) -> Channel {
    channel(script.clone(), "node:1", &Http2Settings::default()).expect("it is an address")
}

// --- the way to a node

#[tokio::test(start_paused = true)]
async fn a_refused_connection_never_spins() {
    let script = Arc::new(Script::default());
    let channel = through(&script);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        // As a caller without patience would: again at once.
        assert!(ask(&channel).await.is_err());
    }
    let connects = script.connects();
    assert!((40..50).contains(&connects.len()), "{} attempts in ten seconds", connects.len());
    assert_eq!(connects[1] - connects[0], Duration::from_millis(20), "the second one soon");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_is_found_within_the_longest_pause() {
    let script = Arc::new(Script::default());
    let channel = through(&script);
    for _ in 0..20 {
        assert!(ask(&channel).await.is_err());
    }
    let back_at = Instant::now();
    let served = served(Http2Settings::default(), Duration::ZERO);
    let (here, there) = tokio::io::duplex(1 << 16);
    served.wires.send(Box::new(there)).unwrap();
    script.lay(Box::new(here));
    assert!(is_echo(ask(&channel).await));
    assert!(back_at.elapsed() <= Duration::from_millis(250), "{:?}", back_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_connections_and_drops_them_is_paced_as_well() {
    let script = Arc::new(Script::default());
    let channel = through(&script);
    for _ in 0..1_000 {
        script.lay(Box::new(tokio::io::duplex(1 << 16).0));
    }
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        assert!(ask(&channel).await.is_err());
    }
    assert!(script.connects().len() < 50, "{} attempts in ten seconds", script.connects().len());
}

#[tokio::test(start_paused = true)]
async fn after_a_quiet_time_the_first_attempt_is_made_at_once() {
    let script = Arc::new(Script::default());
    let channel = through(&script);
    for _ in 0..20 {
        assert!(ask(&channel).await.is_err());
    }
    sleep(Duration::from_secs(5)).await;
    let asked_at = Instant::now();
    assert!(ask(&channel).await.is_err());
    assert_eq!(*script.connects().last().unwrap(), asked_at);
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_other_end_is_silent_is_given_up() {
    let script = Arc::new(Script::default());
    let channel = through(&script);
    let served = served(Http2Settings::default(), Duration::ZERO);
    let (here, cable) = tokio::io::duplex(1 << 16);
    let (plug, there) = tokio::io::duplex(1 << 16);
    served.wires.send(Box::new(there)).unwrap();
    script.lay(Box::new(here));
    let unplug = joined(cable, plug);
    assert!(is_echo(ask(&channel).await));
    unplug.send(()).unwrap();
    let asked_at = Instant::now();
    assert!(!is_echo(ask(&channel).await));
    // A ping after a second of silence, and two seconds for its answer.
    assert!(asked_at.elapsed() <= Duration::from_millis(3_100), "{:?}", asked_at.elapsed());
}

/// Carries bytes between two wires until it is unplugged; then both ends stay open and silent.
fn joined(mut one: tokio::io::DuplexStream, mut other: tokio::io::DuplexStream) -> oneshot::Sender<()> {
    let (unplug, unplugged) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut one, &mut other) => {}
            _ = unplugged => {}
        }
        std::future::pending::<()>().await;
        drop((one, other));
    });
    unplug
}

#[test]
fn only_host_and_port_make_an_address() {
    let script: Arc<dyn Transport> = Arc::new(Script::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _entered = runtime.enter();
    for address in ["localhost:1", "10.0.0.1:65535", "[::1]:80", "node-1.example:3001"] {
        assert!(channel(script.clone(), address, &Http2Settings::default()).is_ok(), "{address}");
    }
    for address in ["", "localhost", ":1", "a:b", "a:1/x", "a:99999", "http://a:1", "a b:1", "a@b:1"] {
        let refusal = channel(script.clone(), address, &Http2Settings::default()).err().map(|refusal| refusal.field);
        assert_eq!(refusal.as_deref(), Some("address"), "{address}");
    }
}

// --- the door

async fn connected(served: &Served) -> Channel {
    let script = Arc::new(Script::default());
    let (here, there) = tokio::io::duplex(1 << 16);
    script.lay(Box::new(here));
    served.wires.send(Box::new(there)).unwrap();
    let channel = through(&script);
    assert!(is_echo(ask(&channel).await));
    channel
}

#[tokio::test(start_paused = true)]
async fn a_door_that_closes_lets_calls_in_flight_finish() {
    let served = served(Http2Settings::default(), Duration::from_secs(5));
    let channel = connected(&served).await;
    let held = served.hold.clone().acquire_many_owned(1_000).await.unwrap();
    let call = tokio::spawn(async move { ask(&channel).await });
    sleep(Duration::from_millis(10)).await;
    served.stop.send(()).unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(!served.ended.is_finished());
    drop(held);
    assert!(is_echo(call.await.unwrap()));
    served.ended.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_door_that_closes_cuts_off_what_takes_longer_than_the_grace() {
    let served = served(Http2Settings::default(), Duration::from_secs(5));
    let channel = connected(&served).await;
    let _held = served.hold.clone().acquire_many_owned(1_000).await.unwrap();
    let call = tokio::spawn(async move { ask(&channel).await });
    sleep(Duration::from_millis(10)).await;
    let stopped_at = Instant::now();
    served.stop.send(()).unwrap();
    served.ended.await.unwrap().unwrap();
    assert!((5_000..5_100).contains(&stopped_at.elapsed().as_millis()), "{:?}", stopped_at.elapsed());
    assert!(!is_echo(call.await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn dropping_a_door_leaves_no_connection() {
    let served = served(Http2Settings::default(), Duration::from_secs(5));
    let channel = connected(&served).await;
    let _held = served.hold.clone().acquire_many_owned(1_000).await.unwrap();
    let call = tokio::spawn(async move { ask(&channel).await });
    sleep(Duration::from_millis(10)).await;
    served.ended.abort();
    let outcome = timeout(Duration::from_millis(10), call).await.expect("it is cut off at once").unwrap();
    assert!(!is_echo(outcome));
}

#[tokio::test(start_paused = true)]
async fn a_full_door_turns_the_next_one_away() {
    let settings = Http2Settings { connections_max: 1, ..Http2Settings::default() };
    let served = served(settings, Duration::ZERO);
    let first = connected(&served).await;
    let (mut here, there) = tokio::io::duplex(1 << 16);
    served.wires.send(Box::new(there)).unwrap();
    assert_eq!(here.read(&mut [0; 1]).await.unwrap(), 0, "closed without a word");
    assert!(is_echo(ask(&first).await));
    drop(first);
    advance(Duration::from_millis(10)).await;
    connected(&served).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_never_speaks_is_hung_up_on() {
    let settings = Http2Settings { connections_max: 1, ..Http2Settings::default() };
    for said in ["", "PRI * HTTP/2.0"] {
        let served = served(settings.clone(), Duration::ZERO);
        let (mut here, there) = tokio::io::duplex(1 << 16);
        served.wires.send(Box::new(there)).unwrap();
        let called_at = Instant::now();
        here.write_all(said.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        here.read_to_end(&mut heard).await.unwrap();
        assert_eq!(called_at.elapsed().as_secs(), 10, "{said}");
        connected(&served).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_has_spoken_may_be_silent_for_long() {
    let served = served(Http2Settings::default(), Duration::ZERO);
    let channel = connected(&served).await;
    sleep(Duration::from_secs(3_600)).await;
    let _none_left_to_connect_with = served.wires;
    assert!(is_echo(ask(&channel).await));
}

#[tokio::test(start_paused = true)]
async fn the_date_is_fixed_when_it_is_told_so() {
    for fixed_date in [true, false] {
        let served = served(Http2Settings { fixed_date, ..Http2Settings::default() }, Duration::ZERO);
        let channel = connected(&served).await;
        let status = ask(&channel).await.unwrap_err();
        let date = status.metadata().get("date").expect("hyper puts one").to_str().unwrap();
        assert_eq!(date == "Thu, 01 Jan 1970 00:00:00 GMT", fixed_date, "{date}");
    }
}

// --- the real network

#[tokio::test]
async fn tcp_listens_at_a_free_port_and_takes_it_again() {
    let mut listener = TcpTransport.listen("127.0.0.1:0".into()).await.unwrap();
    let address = listener.address.clone();
    assert_ne!(address, "127.0.0.1:0");
    let (here, there) = tokio::join!(TcpTransport.connect(address.clone()), listener.incoming.next());
    let (mut here, mut there) = (here.unwrap(), there.unwrap().io);
    here.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    there.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    // The one who closes first keeps the port busy in the kernel for a minute; a node must get it back all the same.
    drop((there, listener));
    assert_eq!(here.read(&mut heard).await.unwrap(), 0);
    drop(here);
    assert_eq!(TcpTransport.listen(address.clone()).await.unwrap().address, address);
}

#[tokio::test]
async fn tcp_refuses_an_address_in_use() {
    let listener = TcpTransport.listen("127.0.0.1:0".into()).await.unwrap();
    let error = TcpTransport.listen(listener.address.clone()).await.err().expect("somebody listens there");
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
