//! When a majority is lost for good, a survivor goes on with all that it has; and only if somebody says so twice.

use jangbu_tests::{Cluster, Payer, Payments, judge, replicas_agree};
use serde_json::Value;

use crate::backup::{code, json};
use crate::command::{CONFLICT, USAGE, WELL, exits};

#[tokio::test(flavor = "multi_thread")]
async fn of_three_nodes_two_are_destroyed_and_the_third_serves_alone_and_grows_again() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let survivor = cluster.other_than(&[leader]);
    let other = cluster.other_than(&[leader, survivor]);
    let payer = Payer::start_at(&cluster, &[leader], Payments::default()).await;
    payer.progresses(300, "while all is well").await;
    let dir = cluster.node(survivor).data.display().to_string();
    let (_, refused) = code(CONFLICT, &["recover", &dir]);
    assert!(refused.contains("another process has this data folder open"), "{refused}");

    // The survivor is the one that has less, to begin with: nothing may be lost by choosing wrongly.
    cluster.node_mut(survivor).kill();
    payer.progresses(100, "without the survivor").await;
    let journal = payer.stop().await;
    let (_, refused) = code(CONFLICT, &["recover", &dir]);
    assert!(refused.contains("it isn't lost"), "the other two serve: {refused}");
    cluster.node_mut(leader).kill();
    cluster.node_mut(other).kill();
    let better = cluster.node(leader).data.display().to_string();
    let (_, refused) = code(CONFLICT, &["recover", &dir, "--compare", &better]);
    assert!(refused.contains("has more"), "{refused}");

    // The better one has all that was acknowledged; it is the one that survives.
    cluster.give_away(survivor).wipe();
    let mut lost = cluster.give_away(other);
    let (said, refused) = code(CONFLICT, &["recover", &better, "-o", "json"]);
    let told: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(told["recovered"], false, "{told}");
    assert!(refused.contains("has to be asked for twice"), "{refused}");
    let last = told["survivor"]["last_index"].as_u64().expect("an index");
    let (_, refused) = code(CONFLICT, &["recover", &better, "--i-understand", &(last + 1).to_string()]);
    assert!(refused.contains("look again"), "{refused}");
    let told = json(&["recover", &better, "--i-understand", &last.to_string()]);
    assert_eq!(told["recovered"], true, "{told}");
    code(USAGE, &["recover", "/no/such/folder"]);

    cluster.node_mut(leader).start();
    cluster.serves().await;
    judge(&mut cluster, &journal).await;
    let trail = exits(WELL, &cluster, &["audit", "list"]);
    let trail = String::from_utf8_lossy(&trail.stdout);
    assert!(trail.contains("recover") && trail.contains(&format!("alone behind entry {last}")), "{trail}");
    exits(WELL, &cluster, &["audit", "verify"]);

    // One that wasn't lost after all is none of it any more.
    lost.start();
    lost.ended("it was removed").await.assert_gave_up_saying(&["was removed from the cluster"]);

    let payer = Payer::start_at(&cluster, &[leader], Payments::default()).await;
    for id in [4, 5] {
        cluster.furnish(id).start();
        cluster.admit(id).await;
    }
    payer.progresses(100, "as a cluster of three").await;
    payer.stop().await;
    cluster.serves().await;
    replicas_agree(&cluster).await;
}
