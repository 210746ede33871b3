//! Several nodes on one machine, as one cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
    thread,
};

use jangbu_proto::cluster::v1::{
    AddMemberRequest, InitializeRequest, MoveLeaderRequest, PromoteMemberRequest, RemoveMemberRequest, StatusReply,
};
use jangbu_proto::transport::Transport;
use tempfile::TempDir;

use crate::{
    binaries::workshop,
    certs::Certs,
    door::Door,
    node::Node,
    wait::{until, until_ok},
};

/// How many lines of each node's log are printed when a test fails.
const LAST_WORDS_LINES: usize = 40;

/// What a cluster under test is made of.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub nodes_count: u64,
    pub sizes: Sizes,
    /// With certificates; otherwise in plain text.
    pub tls: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { nodes_count: 3, sizes: Sizes::Small, tls: false }
    }
}

/// How much is gathered before it is flushed, cut off, packed or purged.
#[derive(Debug, Clone, Copy)]
pub enum Sizes {
    /// The smallest that a node takes, so that flushes, new segments, snapshots and purges all happen within a test's
    /// few seconds.
    Small,
    /// As shipped.
    Shipped,
}

/// A cluster, and the folder that holds it. Dropping it kills what runs and removes the folder.
pub struct Cluster {
    sizes: Sizes,
    pub certs: Option<Certs>,
    nodes: BTreeMap<u64, Node>,
    folder: TempDir,
}

impl Cluster {
    /// Three nodes that serve.
    pub async fn start() -> Cluster {
        Cluster::start_with(Settings::default()).await
    }

    /// Returns when every node serves.
    pub async fn start_with(settings: Settings) -> Cluster {
        let mut cluster = Cluster::unborn(settings);
        cluster.start_all();
        cluster.initialize().await;
        cluster.serves().await;
        cluster
    }

    /// Nodes that don't run yet and know nothing of each other.
    pub fn unborn(settings: Settings) -> Cluster {
        let folder =
            tempfile::Builder::new().prefix("cluster-").tempdir_in(workshop()).expect("there is room for tests");
        let certs = settings.tls.then(|| Certs::new(&folder.path().join("certs")));
        if let Some(certs) = &certs {
            certs.client("everybody", "reader,writer,operator,auditor,admin", "all");
        }
        let node = |id| (id, Node::new(id, folder.path(), settings.sizes, certs.as_ref()));
        let nodes = (1..=settings.nodes_count).map(node).collect();
        Cluster { sizes: settings.sizes, certs, nodes, folder }
    }

    pub async fn initialize(&self) {
        let peer_addresses: Vec<String> = self.nodes.values().map(|node| node.addresses.peer.clone()).collect();
        let door = &self.node(self.ids()[0]).door;
        until_ok("the nodes become a cluster", async || {
            let request = InitializeRequest { peer_addresses: peer_addresses.clone() };
            door.operator().initialize(request).await
        })
        .await;
    }

    /// How its client doors are reached, as somebody who may everything.
    pub fn way(&self) -> Arc<dyn Transport> {
        crate::node::way(self.certs.as_ref())
    }

    // --- its nodes

    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    pub fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    pub fn door(&self, id: u64) -> &Door {
        &self.node(id).door
    }

    /// A fresh node, not a member yet. It doesn't run.
    pub fn furnish(&mut self, id: u64) -> &mut Node {
        let node = Node::new(id, self.folder.path(), self.sizes, self.certs.as_ref());
        let replaced = self.nodes.insert(id, node);
        assert!(replaced.is_none(), "there is a node {id} already");
        self.node_mut(id)
    }

    /// It is none of this cluster's any more, and is not judged with it.
    pub fn give_away(&mut self, id: u64) -> Node {
        self.nodes.remove(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    pub fn start_all(&mut self) {
        self.nodes.values_mut().for_each(Node::start);
    }

    pub fn kill_all(&mut self) {
        self.nodes.values_mut().for_each(Node::kill);
    }

    /// Another node than these.
    pub fn other_than(&self, these: &[u64]) -> u64 {
        self.ids().into_iter().find(|id| !these.contains(id)).expect("there is another node")
    }

    fn running(&mut self) -> BTreeSet<u64> {
        self.nodes.iter_mut().filter_map(|(id, node)| node.runs().then_some(*id)).collect()
    }

    // --- its members

    /// Makes a fresh node a member: it learns, catches up, and votes.
    pub async fn admit(&mut self, id: u64) {
        let peer_address = self.node(id).addresses.peer.clone();
        self.by_the_leader(format!("node {id} is listed"), async |door| {
            door.operator().add_member(AddMemberRequest { peer_address: peer_address.clone() }).await
        })
        .await;
        // Refused while it lags, which passes.
        self.by_the_leader(format!("node {id} votes"), async |door| {
            door.operator().promote_member(PromoteMemberRequest { node_id: id }).await
        })
        .await;
    }

    /// Removes a member for good.
    pub async fn dismiss(&mut self, id: u64) {
        self.by_the_leader(format!("node {id} is no member"), async |door| {
            door.operator().remove_member(RemoveMemberRequest { node_id: id, force: false }).await
        })
        .await;
    }

    /// Hands the leadership to this node.
    pub async fn move_leader(&mut self, id: u64) {
        until(format!("node {id} leads"), async || {
            let leader = self.leader().await;
            if leader != id {
                // Refused while it lags, which passes.
                let _ = self.door(leader).operator().move_leader(MoveLeaderRequest { node_id: id }).await;
            }
            (self.leader().await == id).then_some(())
        })
        .await;
    }

    /// Asks the leader, whoever it is by then, until it agrees.
    pub async fn by_the_leader<T>(&mut self, what: impl Display, ask: impl AsyncFn(&Door) -> Result<T, tonic::Status>) {
        until_ok(what, async || {
            let leader = self.leader().await;
            ask(self.door(leader)).await
        })
        .await;
    }

    // --- its state

    /// Who leads, by its own word and that of every node that runs and belongs to the cluster.
    pub async fn leader(&mut self) -> u64 {
        let mut members = Vec::new();
        for id in self.running() {
            if !self.status(id).await.cluster_id.is_empty() {
                members.push(id);
            }
        }
        self.leader_among(&members).await
    }

    /// Who leads by the word of each of these nodes. Others, which may be paused or mistaken, aren't asked.
    pub async fn leader_among(&self, ids: &[u64]) -> u64 {
        until(format!("nodes {ids:?} agree on a leader among them"), async || {
            let mut named = BTreeSet::new();
            for id in ids {
                let status = self.door(*id).status().await.ok()?;
                named.insert((status.term, status.leader_id));
            }
            let (_, leader) = named.pop_first()?;
            (named.is_empty() && ids.contains(&leader)).then_some(leader)
        })
        .await
    }

    /// Waits until every node that runs is ready, and has applied what any of them knew as committed when this was asked.
    pub async fn serves(&mut self) {
        let running = self.running();
        let mut level = 0;
        for id in &running {
            level = self.status(*id).await.committed_index.max(level);
        }
        for id in &running {
            until(format!("node {id} is ready and has applied entry {level}"), async || {
                let status = self.door(*id).status().await.ok()?;
                (status.ready && status.applied_index >= level).then_some(())
            })
            .await;
        }
    }

    /// Waits until the log that a node lacks, which doesn't run, is purged: only a snapshot can help it then. The load must
    /// go on meanwhile.
    pub async fn purges_what_is_needed_by(&mut self, away: u64) {
        let leader = self.leader().await;
        let needed = self.status(leader).await.last_log_index + 1;
        until(format!("the log that node {away} needs is purged"), async || {
            let status = self.door(leader).status().await.ok()?;
            (status.purged_index > needed).then_some(())
        })
        .await;
    }

    pub async fn status(&self, id: u64) -> StatusReply {
        until(format!("node {id} tells its status"), async || self.door(id).status().await.ok()).await
    }

    /// Waits until a node has ended by itself, whichever way.
    pub async fn node_ended(&mut self, id: u64, because: &str) -> crate::process::Ended {
        self.node_mut(id).ended(because).await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for node in self.nodes.values() {
            eprintln!("--- the last words of node {} ({})", node.id, node.addresses.client);
            eprint!("{}", node.last_words(LAST_WORDS_LINES));
        }
    }
}
