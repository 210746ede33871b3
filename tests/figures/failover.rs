//! What a caller sees when the leader dies.
//!
//! One caller per node, each paying one payment after the other through the client library, which knows all nodes. The
//! pause of a kill is the longest time any of them had to wait between two acknowledgements around it.

use std::time::{Duration, Instant};

use jangbu_tests::{Cluster, Payer, Payments, Settings, Sizes, judge};

use crate::report::{Report, median};

const KILLS_COUNT: usize = 20;

pub(crate) async fn measure(report: &mut Report) {
    let mut cluster = Cluster::start_with(Settings { sizes: Sizes::Shipped, ..Settings::default() }).await;
    let callers = Payments { callers_count: 3, batch_count: 1, deadline: Duration::from_secs(10) };
    let payer = Payer::start_at(&cluster, &cluster.ids(), callers).await;
    let mut pauses_ms = Vec::new();
    for _ in 0..KILLS_COUNT {
        cluster.serves().await;
        payer.progresses(300, "before the next kill").await;
        let leader = cluster.leader().await;
        let killed_at = Instant::now();
        cluster.node_mut(leader).kill();
        payer.progresses(300, "after the kill").await;
        let pause = payer.waits(killed_at).longest();
        pauses_ms.push(pause.as_secs_f64() * 1e3);
        cluster.node_mut(leader).start();
    }
    let journal = payer.stop().await;
    judge(&mut cluster, &journal).await;
    report.add("failover_kills_count", KILLS_COUNT as f64, "");
    report.add("failover_pause_worst_ms", pauses_ms.iter().copied().fold(0.0, f64::max), "ms");
    report.add("failover_pause_median_ms", median(pauses_ms), "ms");
}
