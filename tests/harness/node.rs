//! A replica: its folder, its addresses, and its process while it has one.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
};

use jangbu_proto::transport::{TcpTransport, Transport};
use rand::RngExt as _;

use crate::{
    binaries::jangbud,
    certs::Certs,
    cluster::Sizes,
    door::Door,
    process::{Ended, Process, Signal},
};

/// host:port of each of a node's doors.
#[derive(Debug, Clone)]
pub struct Addresses {
    pub client: String,
    pub peer: String,
    pub http: String,
}

impl Addresses {
    pub fn free() -> Addresses {
        let [client, peer, http] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
        Addresses { client, peer, http }
    }
}

const SMALL_STORAGE: &str = "
[storage]
flush_events = 1000
log_segment_bytes = 1048576
snapshot_after_log_bytes = 1048576
log_entries_kept = 100
digest_interval_ms = 500
";

/// A node of a cluster, whether it runs or not.
pub struct Node {
    pub id: u64,
    /// Where it keeps everything.
    pub data: PathBuf,
    pub addresses: Addresses,
    /// Its client door.
    pub door: Door,
    /// What it reads at its start.
    pub config: PathBuf,
    log: PathBuf,
    process: Option<Process>,
    certs: Option<Certs>,
}

impl Node {
    /// A node that keeps everything in `folder` and doesn't run yet.
    pub fn new(id: u64, folder: &Path, sizes: Sizes, certs: Option<&Certs>) -> Node {
        let addresses = Addresses::free();
        if let Some(certs) = certs {
            certs.node(id);
        }
        let node = Node {
            id,
            data: folder.join(format!("node-{id}")),
            door: Door::new(way(certs), &addresses.client),
            addresses,
            config: folder.join(format!("node-{id}.toml")),
            log: folder.join(format!("node-{id}.log")),
            process: None,
            certs: certs.cloned(),
        };
        node.configure(sizes);
        node
    }

    /// Has other addresses from its next start on, as a machine that moved.
    pub fn moves(&mut self, sizes: Sizes) {
        self.addresses = Addresses::free();
        self.door = Door::new(way(self.certs.as_ref()), &self.addresses.client);
        self.configure(sizes);
    }

    /// Writes its configuration, which it reads at its next start.
    pub fn configure(&self, sizes: Sizes) {
        let Addresses { client, peer, http } = &self.addresses;
        let (id, data) = (self.id, self.data.display());
        let storage = match sizes {
            Sizes::Small => SMALL_STORAGE,
            Sizes::Shipped => "",
        };
        let tls = match &self.certs {
            Some(certs) => certs.settings(id),
            None => "[tls]\nmode = \"off\"\n".into(),
        };
        let toml = format!(
            r#"node_id = {id}
data_dir = "{data}"
data_center = "dc-{id}"
network = "loopback"

[listen]
client = "{client}"
peer = "{peer}"
http = "{http}"

{tls}
{storage}"#
        );
        fs::write(&self.config, toml).expect("the test's folder takes files");
    }

    /// Adds to its configuration.
    pub fn adjust(&self, toml: &str) {
        let config = fs::read_to_string(&self.config).expect("it was configured");
        fs::write(&self.config, format!("{config}\n{toml}")).expect("the test's folder takes files");
    }

    pub fn start(&mut self) {
        self.start_in(&[], None);
    }

    /// With more in its environment, and with its log going to `errors` instead of its file.
    pub fn start_in(&mut self, environment: &[(&str, String)], errors: Option<Stdio>) {
        assert!(self.process.is_none(), "node {} runs already", self.id);
        let config = self.config.display().to_string();
        let arguments = ["--config", &config];
        self.process = Some(Process::start_in(environment, errors, &jangbud(), &arguments, &self.log));
    }

    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.exit_status().is_none())
    }

    /// SIGKILL; gone when this returns.
    pub fn kill(&mut self) {
        self.take_process().kill();
    }

    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self, because: &str) -> Ended {
        let because = format!("node {}: {because}", self.id);
        self.take_process().ended(&because).await
    }

    /// What it has said since it was started last.
    pub fn words(&self) -> String {
        self.process().words()
    }

    pub fn pid(&self) -> u32 {
        self.process().pid()
    }

    /// Everything it kept is gone.
    pub fn wipe(&mut self) {
        assert!(self.process.is_none(), "node {} still runs", self.id);
        fs::remove_dir_all(&self.data).expect("its folder can be removed");
    }

    /// The end of all that it said, over all its lives.
    pub fn last_words(&self, lines: usize) -> String {
        let all = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
        let skipped = all.lines().count().saturating_sub(lines);
        all.lines().skip(skipped).map(|line| format!("    {line}\n")).collect()
    }

    fn process(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("node {} doesn't run", self.id))
    }

    fn take_process(&mut self) -> Process {
        self.process.take().unwrap_or_else(|| panic!("node {} doesn't run", self.id))
    }
}

/// To a node's client door, as somebody who may everything.
pub(crate) fn way(certs: Option<&Certs>) -> Arc<dyn Transport> {
    match certs {
        Some(certs) => certs.way(Some(certs.files("client-everybody"))),
        None => Arc::new(TcpTransport),
    }
}

/// A port that nobody listens on. Below the range from which the system draws ports of its own, so that a node which
/// comes back finds its port still free; never the same twice in one program.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = rand::rng().random_range(10_000..32_000);
        let free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free && GIVEN.lock().expect("nothing here panics while it holds the lock").insert(port) {
            return port;
        }
    }
}
