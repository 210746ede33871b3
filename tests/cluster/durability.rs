//! What a disk does to a node stays that node's trouble.
//!
//! A replica that can't trust its disk says which file and where, stops, and never votes or answers with it. The cluster
//! goes on without it, and a fresh node takes its place.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jangbu_proto::cluster::v1::TakeSnapshotRequest;
use jangbu_tests::{
    Cluster, Door, Ended, Payer, Payments,
    damage::{self, SmallDisk},
    judge, payment, until,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_log_is_named_and_the_node_is_replaced() {
    let (mut cluster, payer, harmed) = with_a_follower_killed().await;
    let segment = log_segments(&cluster, harmed).remove(0);
    damage::flip(&segment, damage::written_bytes(&segment) / 2);

    cluster.node_mut(harmed).start();
    let ended = cluster.node_ended(harmed, "its log is damaged").await;
    ended.assert_gave_up_saying(&["damaged", &name(&segment), "at byte", "jangbu member"]);
    goes_on_and_is_replaced(cluster, payer, harmed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_vote_is_named_and_the_node_never_votes_again() {
    let (mut cluster, payer, harmed) = with_a_follower_killed().await;
    let (segment, offset) = log_segments(&cluster, harmed)
        .into_iter()
        .find_map(|segment| damage::first_log_record(&segment, damage::VOTE_RECORD).map(|offset| (segment, offset)))
        .expect("it has voted");
    const TERM: u64 = 48;
    damage::flip(&segment, offset + TERM);

    cluster.node_mut(harmed).start();
    let ended = cluster.node_ended(harmed, "its vote is damaged").await;
    ended.assert_gave_up_saying(&["damaged", &name(&segment), &format!("at byte {offset}")]);
    goes_on_and_is_replaced(cluster, payer, harmed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bytes_in_the_state_are_named_before_they_are_answered() {
    let (mut cluster, payer, harmed) = with_a_follower_killed().await;
    let mut ended = None;
    for _attempt in 0..5 {
        flip_each_table(&cluster, harmed);
        cluster.node_mut(harmed).start();
        ended = ended_when_recounted(&mut cluster, harmed).await;
        if ended.is_some() {
            break;
        }
        cluster.node_mut(harmed).kill();
    }
    let ended = ended.expect("one of five attempts meets damage that no snapshot has healed");
    // RocksDB names the table, or its own manifest where it can't read what a table says of itself.
    ended.assert_gave_up_saying(&["Corruption", "group-0/state-", "jangbu member"]);
    goes_on_and_is_replaced(cluster, payer, harmed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_a_snapshot_is_noticed_before_it_is_installed_and_a_later_one_is() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let away = cluster.other_than(&[leader]);
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != away).collect();
    let payer = Payer::start_at(&cluster, &others, heavy()).await;
    payer.progresses(1_000, "before anything happens").await;
    cluster.node_mut(away).kill();
    cluster.purges_what_is_needed_by(away).await;
    let journal = payer.stop().await;
    // Nothing is written from here on, so this one stays the newest.
    take_snapshot(&mut cluster).await;

    // RocksDB's own manifest is copied into a snapshot; its tables are shared with the state.
    let snapshots = cluster.node(leader).data.join("group-0/snapshots");
    let copied = damage::files_under(&snapshots).into_iter().filter(|file| name(file).starts_with("MANIFEST"));
    let copied: Vec<PathBuf> = copied.collect();
    assert!(!copied.is_empty(), "a snapshot holds RocksDB's manifest");
    copied.iter().for_each(|file| damage::flip(file, damage::written_bytes(file) / 2));
    cluster.node_mut(away).start();
    until("the receiver says that the snapshot is damaged", async || {
        cluster.node(away).words().contains("checksum").then_some(())
    })
    .await;
    let (offered, installed) = (cluster.status(leader).await.snapshot_index, cluster.status(away).await.snapshot_index);
    assert!(installed < offered, "the damaged snapshot at {offered} was installed");

    // A snapshot at the same index would be the same one: a payment more makes it a new one.
    let payment = payment(1);
    journal.asked(payment);
    cluster.door(leader).create_transfers(&[payment], Duration::from_secs(5)).await.unwrap();
    take_snapshot(&mut cluster).await;
    judge(&mut cluster, &journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_node_with_a_clear_word_and_freed_space_brings_it_back() {
    let mut cluster = Cluster::unborn(Default::default());
    let small = 3;
    let Some(disk) = SmallDisk::mount(&cluster.node(small).data, 24) else {
        eprintln!("SKIPPED: only root may mount a small disk. A full disk was NOT tested.");
        return;
    };
    cluster.start_all();
    cluster.initialize().await;
    cluster.serves().await;
    let full_speed = Payments { callers_count: 2, batch_count: 2_000, ..Payments::default() };
    let payer = Payer::start_at(&cluster, &[1, 2], full_speed).await;
    let ended = cluster.node_ended(small, "its disk is full").await;
    ended.assert_gave_up_saying(&["No space left"]);
    payer.progresses(1_000, "without the node whose disk is full").await;
    let journal = payer.stop().await;

    disk.resize(1_024);
    cluster.node_mut(small).start();
    judge(&mut cluster, &journal).await;
}

async fn take_snapshot(cluster: &mut Cluster) {
    let ask = async |door: &Door| door.operator().take_snapshot(TakeSnapshotRequest {}).await;
    cluster.by_the_leader("a snapshot is taken", ask).await;
}

/// A cluster under load in which a follower was killed after its state was flushed.
async fn with_a_follower_killed() -> (Cluster, Payer, u64) {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let harmed = cluster.other_than(&[leader]);
    let others: Vec<u64> = cluster.ids().into_iter().filter(|id| *id != harmed).collect();
    let payer =
        Payer::start_at(&cluster, &others, Payments { callers_count: 2, batch_count: 100, ..Payments::default() })
            .await;
    payer.progresses(3_000, "so that something lies on the disks").await;
    cluster.node_mut(harmed).kill();
    (cluster, payer, harmed)
}

fn flip_each_table(cluster: &Cluster, id: u64) {
    let state = cluster.node(id).data.join("group-0").join(state_in_use(cluster, id));
    let mut tables = damage::files_ending(&state, ".sst");
    // The kill may have come while a table was begun: that one holds nothing, and nobody knows of it.
    tables.retain(|table| damage::written_bytes(table) > 0);
    assert!(!tables.is_empty(), "the state was flushed");
    // Each of them, as a recount of the state doesn't read its indexes.
    tables.iter().for_each(|table| damage::flip(table, damage::written_bytes(table) / 2));
}

/// A damaged file is noticed when it is opened or when it is read: at the latest when everything is read. `None`: a busy cluster had
/// purged what the node lacked meanwhile, and sent it a snapshot, which took the place of the damaged state.
async fn ended_when_recounted(cluster: &mut Cluster, id: u64) -> Option<Ended> {
    let door = cluster.door(id).clone();
    let recounts = tokio::spawn(async move {
        loop {
            let _ = door.verify().await;
            tokio::task::yield_now().await;
        }
    });
    let was_replaced = until("the damage is noticed, or the state is replaced", async || {
        let words = cluster.node(id).words();
        let is_noticed = words.contains("Corruption").then_some(false);
        is_noticed.or(words.contains("a snapshot is installed").then_some(true))
    })
    .await;
    let ended = if was_replaced { None } else { Some(cluster.node_ended(id, "its state is damaged").await) };
    recounts.abort();
    ended
}

/// The others serve, a fresh node takes the place of the harmed one, and nothing is missing.
async fn goes_on_and_is_replaced(mut cluster: Cluster, payer: Payer, harmed: u64) {
    payer.progresses(200, "without the harmed node").await;
    cluster.furnish(4).start();
    cluster.admit(4).await;
    cluster.dismiss(harmed).await;
    let _harmed = cluster.give_away(harmed);
    payer.progresses(200, "with the fresh node").await;
    judge(&mut cluster, &payer.stop().await).await;
}

fn heavy() -> Payments {
    Payments { callers_count: 2, batch_count: 100, ..Payments::default() }
}

/// The folder that `CURRENT` names.
fn state_in_use(cluster: &Cluster, id: u64) -> String {
    let current = std::fs::read_to_string(cluster.node(id).data.join("group-0/CURRENT")).expect("it has a state");
    current.split_whitespace().next().expect("it names a state").to_owned()
}

fn log_segments(cluster: &Cluster, id: u64) -> Vec<PathBuf> {
    damage::files_ending(&cluster.node(id).data.join("group-0/log"), ".log")
}

fn name(path: &Path) -> String {
    path.file_name().expect("a file has a name").to_string_lossy().into_owned()
}
