//! A node whose clock is wrong leaves stamping to others.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use jangbu_node::{Environment, environment::Clock};
use jangbu_proto::cluster::v1::MoveLeaderRequest;

use crate::harness::{CREATED, Cluster, pay_once};

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3_600 * SECOND;

/// The system's clock, and by how much it is wrong.
#[derive(Clone, Default)]
struct WrongBy(Arc<AtomicI64>);

impl WrongBy {
    fn set(&self, ns: i64) {
        self.0.store(ns, Ordering::Relaxed);
    }
}

impl Clock for WrongBy {
    fn wall_ns(&self) -> u64 {
        now_ns().saturating_add_signed(self.0.load(Ordering::Relaxed))
    }
}

#[expect(clippy::disallowed_methods, reason = "the right time, to compare with")]
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_nanos() as u64
}

async fn cluster() -> (Cluster, [WrongBy; 3]) {
    let clocks: [WrongBy; 3] = Default::default();
    let kept = clocks.clone();
    let world = move |id| Environment { clock: Arc::new(kept[id as usize - 1].clone()), ..Environment::production() };
    let cluster = Cluster::in_world(3, |config| config.storage.digest_interval_ms = 100, world).await;
    cluster.open_accounts().await;
    (cluster, clocks)
}

impl Cluster {
    async fn until_clock_is(&self, id: u64, wrong: u64) {
        let what = if wrong == 1 { "it knows that its clock is wrong" } else { "it trusts its clock" };
        let deadline = tokio::time::Instant::now() + crate::harness::PATIENCE;
        while self.metric(id, "jangbu_clock_wrong").await != wrong {
            assert!(tokio::time::Instant::now() < deadline, "node {id}: waited in vain until {what}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Pays, and tells how far the stamp is from the right time, in seconds.
    async fn stamp_off_by(&self, through: u64, id: u128) -> i64 {
        self.pay(through, id, 1).await;
        let reply = pay_once(&mut self.ledger(through).await, id + 1_000_000, 1).await.expect("it is paid");
        assert_eq!(reply.results[0].status, CREATED);
        (reply.results[0].timestamp as i64 - now_ns() as i64) / SECOND
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_clock_goes_wrong_hands_over_and_leads_again_when_it_is_right() {
    let (cluster, clocks) = cluster().await;
    let wrong = cluster.leader(1).await;
    clocks[wrong as usize - 1].set(HOUR);
    cluster.until(wrong, "another leads", |status| ![0, wrong].contains(&status.leader_id)).await;
    assert!(cluster.stamp_off_by(wrong, 1).await.abs() < 60, "log time stays with the majority");

    // Made to lead, it hands over again before it stamps anything.
    let elsewhere = cluster.leader(wrong).await;
    let request = MoveLeaderRequest { node_id: wrong };
    let _ = cluster.operator(elsewhere).await.move_leader(request).await;
    assert!(cluster.stamp_off_by(elsewhere, 2).await.abs() < 60, "log time stays with the majority");
    cluster.until(wrong, "another leads again", |status| ![0, wrong].contains(&status.leader_id)).await;

    clocks[wrong as usize - 1].set(0);
    cluster.until_clock_is(wrong, 0).await;
    let elsewhere = cluster.leader(wrong).await;
    let moved = cluster.operator(elsewhere).await.move_leader(request).await.expect("it leads").into_inner();
    assert_eq!(moved.leader_id, wrong);
    cluster.pay(elsewhere, 3, 1).await;
    cluster.until_equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_clocks_differ_nobody_is_wrong_and_all_go_on() {
    let (cluster, clocks) = cluster().await;
    for (clock, ns) in clocks.iter().zip([-HOUR, 0, HOUR]) {
        clock.set(ns);
    }
    // One that is wrong shows that the clocks were compared …
    clocks[0].set(HOUR);
    cluster.until_clock_is(2, 1).await;
    // … and with the majority gone, it isn't any more.
    clocks[0].set(-HOUR);
    for id in 1..=3 {
        cluster.until_clock_is(id, 0).await;
    }
    for id in 1..=20_u128 {
        cluster.pay(1 + (id % 3) as u64, id, 1).await;
    }
    cluster.until_equal().await;
}
