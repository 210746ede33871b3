//! The world behind the product's seams: simulated network, clocks, chance, and lanes for blocking work.
//!
//!     node, client ── Transport ── turmoil's network          Clock ── simulated time, off by what the plan says
//!                  ── Vfs ──────── disk.rs                     Entropy ── the seed
//!                  ── Blocking ─── a simulated wait, then the work, on the host's own thread
//!
//! Laws
//! * Nothing here knows real time, real threads or real chance.
//! * Work that was handed to a lane is done in that order, and is lost when the host crashes before its turn.
//!
//! Not here: what goes wrong and when (`faults.rs`, `cluster.rs`).

use std::{
    collections::VecDeque,
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures_util::{future::BoxFuture, stream};
use jangbu_node::environment::{Clock, Entropy};
use jangbu_proto::transport::{Http2Settings, Io, Listener, Transport};
use jangbu_raft_store::blocking::{Blocking, LANES, Lane, Work};
use tokio::sync::oneshot;

use crate::{chance::Dice, wiretap::Wiretap};

/// 2025-03-01, the day that the vouchers stopped. Nanoseconds.
pub const EPOCH_NS: u64 = 1_740_787_200_000_000_000;

/// Simulated nanoseconds since the run began. In a destructor during a crash there is no simulation to ask: 0.
pub fn now_ns() -> u64 {
    turmoil::sim_elapsed().map_or(0, |elapsed| elapsed.as_nanos() as u64)
}

/// HTTP/2 as the simulation needs it. h2 measures the age of reset streams with the real clock: never is soon enough.
pub const RESET_STREAM_DURATION: Duration = Duration::from_secs(86_400);

pub fn http2() -> Http2Settings {
    Http2Settings {
        keepalive_interval: Duration::from_millis(500),
        keepalive_timeout: Duration::from_millis(1_000),
        connect_timeout: Duration::from_millis(500),
        reset_stream_duration: Some(RESET_STREAM_DURATION),
        fixed_date: true,
        ..Http2Settings::default()
    }
}

/// The simulated network. Addresses are host:port, with turmoil's host names.
#[derive(Clone, Default)]
pub struct SimTransport {
    /// The caller's host, and who listens on its lines.
    pub tapped: Option<(String, Wiretap)>,
}

impl Transport for SimTransport {
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Listener>> {
        Box::pin(async move {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            let port = port.ok_or_else(|| io::Error::other(format!("{address} is not host:port")))?;
            let listener = turmoil::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
            let incoming = stream::unfold(listener, |listener| async move {
                loop {
                    if let Ok((connection, _)) = listener.accept().await {
                        return Some(((Box::new(connection) as Io).into(), listener));
                    }
                }
            });
            Ok(Listener { address, incoming: Box::pin(incoming) })
        })
    }

    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Io>> {
        let tapped = self.tapped.clone();
        Box::pin(async move {
            let connection = Box::new(turmoil::net::TcpStream::connect(address.as_str()).await?) as Io;
            Ok(match tapped {
                Some((host, wiretap)) => wiretap.between(&host, address, connection),
                None => connection,
            })
        })
    }
}

/// The wall clock of one host. Clones are the same clock.
#[derive(Clone, Default)]
pub struct SimClock(Arc<Mutex<Skew>>);

#[derive(Debug, Clone, Copy, Default)]
struct Skew {
    offset_ns: i64,
    /// Parts per million, since `drift_since_ns`.
    drift_ppm: i64,
    drift_since_ns: u64,
    /// The last that was shown; all there is outside the simulation.
    last_ns: u64,
}

impl SimClock {
    pub fn jump(&self, ns: i64) {
        let mut skew = self.0.lock().expect("no holder of this lock panics");
        skew.offset_ns = skew.offset_ns.saturating_add(ns);
    }

    /// From now on the clock runs so much too fast. What it gained until now stays.
    pub fn drift(&self, ppm: i64, at_ns: u64) {
        let mut skew = self.0.lock().expect("no holder of this lock panics");
        skew.offset_ns += gained(&skew, at_ns);
        (skew.drift_ppm, skew.drift_since_ns) = (ppm, at_ns);
    }

    /// The clock is set right.
    pub fn mend(&self) {
        *self.0.lock().expect("no holder of this lock panics") = Skew::default();
    }
}

fn gained(skew: &Skew, at_ns: u64) -> i64 {
    (i128::from(at_ns.saturating_sub(skew.drift_since_ns)) * i128::from(skew.drift_ppm) / 1_000_000) as i64
}

impl Clock for SimClock {
    fn wall_ns(&self) -> u64 {
        let mut skew = self.0.lock().expect("no holder of this lock panics");
        if let Some(elapsed) = turmoil::sim_elapsed() {
            let elapsed = elapsed.as_nanos() as u64;
            skew.last_ns = (EPOCH_NS + elapsed).saturating_add_signed(skew.offset_ns + gained(&skew, elapsed));
        }
        skew.last_ns
    }
}

/// Chance of one host.
pub struct SimEntropy(Mutex<Dice>);

impl SimEntropy {
    pub fn new(dice: Dice) -> Self {
        Self(Mutex::new(dice))
    }
}

impl Entropy for SimEntropy {
    fn next_u64(&self) -> u64 {
        self.0.lock().expect("no holder of this lock panics").draw()
    }
}

/// Lanes of one life of a host.
pub struct SimBlocking {
    lanes: [Arc<Mutex<LaneQueue>>; LANES.len()],
    pace: Pace,
}

/// How long a host's disk takes. Shared with the plan, which can slow it down. Clones are the same pace.
#[derive(Clone)]
pub struct Pace(Arc<Mutex<PaceNow>>);

struct PaceNow {
    dice: Dice,
    slow_ms: u64,
    /// Nothing is done before this time.
    still_until_ns: u64,
}

/// How soon work that stands still notices that it may go on.
const STILL: Duration = Duration::from_millis(5);

impl Pace {
    pub fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(PaceNow { dice, slow_ms: 0, still_until_ns: 0 })))
    }

    /// Every piece of work takes up to so much longer.
    pub fn slow_down(&self, ms: u64) {
        self.now().slow_ms = ms;
    }

    /// No piece of work begins before this time.
    pub fn stand_still_until(&self, ns: u64) {
        self.now().still_until_ns = ns;
    }

    async fn pass(&self, lane: Lane) {
        tokio::time::sleep(self.wait(lane)).await;
        while now_ns() < self.now().still_until_ns {
            tokio::time::sleep(STILL).await;
        }
    }

    fn now(&self) -> MutexGuard<'_, PaceNow> {
        self.0.lock().expect("no holder of this lock panics")
    }

    fn wait(&self, lane: Lane) -> Duration {
        let PaceNow { dice, slow_ms, .. } = &mut *self.now();
        let usual_us = match lane {
            Lane::Log => dice.range(100, 1_500),
            Lane::Apply | Lane::Read | Lane::Scrub => dice.range(0, 1_000),
            Lane::Spare | Lane::Flush => dice.range(500, 8_000),
            Lane::Snapshot => dice.range(500, 10_000),
        };
        let slow_us = if *slow_ms > 0 { dice.range(*slow_ms * 300, *slow_ms * 1_000) } else { 0 };
        Duration::from_micros(usual_us + slow_us)
    }
}

#[derive(Default)]
struct LaneQueue {
    waiting: VecDeque<(Work, oneshot::Sender<()>)>,
    running: bool,
}

impl SimBlocking {
    pub fn new(pace: Pace) -> Self {
        Self { lanes: Default::default(), pace }
    }
}

impl Blocking for SimBlocking {
    fn run(&self, lane: Lane, work: Work) -> BoxFuture<'static, ()> {
        let (done, is_done) = oneshot::channel();
        let queue = self.lanes[lane as usize].clone();
        let start = {
            let mut queue = queue.lock().expect("no work is done under this lock");
            queue.waiting.push_back((work, done));
            !std::mem::replace(&mut queue.running, true)
        };
        // In a crash there is no runtime any more: the work is lost, as it would be.
        if start && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(work_off(queue, lane, self.pace.clone()));
        }
        Box::pin(async move {
            if is_done.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

async fn work_off(queue: Arc<Mutex<LaneQueue>>, lane: Lane, pace: Pace) {
    loop {
        let next = {
            let mut queue = queue.lock().expect("no work is done under this lock");
            let next = queue.waiting.pop_front();
            queue.running = next.is_some();
            next
        };
        let Some((work, done)) = next else { return };
        pace.pass(lane).await;
        work();
        let _ = done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_lane_of_the_store_does_its_work() {
        let blocking = SimBlocking::new(Pace::new(Dice::new(1, "lanes")));
        for lane in LANES {
            let (done, is_done) = oneshot::channel();
            blocking.run(lane, Box::new(move || done.send(lane).unwrap())).await;
            assert_eq!(is_done.await, Ok(lane));
        }
    }
}
