//! `jangbu dev`: a whole cluster on this machine, in one folder.
//!
//! Each node is a real process with its own data folder and all its writes synced; the data centres are names. Several
//! clusters can run side by side, each in its own folder.
//!
//! Not here: how a folder is laid out (`folder.rs`), how processes are found again (`process.rs`).

pub mod folder;
pub mod process;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use jangbu_proto::cluster::v1::StatusReply;
use serde::Serialize;

use crate::access::Papers;
use crate::error::{During as _, Failure, Kind};
use crate::operator::Operator;
use crate::output::{self, Output};
use crate::{course, text};
use folder::{Folder, Node, Wish};
use process::{Life, Mark};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a cluster in a folder; make it first where there is none.
    #[command(after_help = "Examples:
  jangbu dev start                           three nodes in ./jangbu-dev
  jangbu dev start --dir /tmp/a --nodes 5    five nodes elsewhere
  jangbu dev start -o json                   the endpoints, for programs")]
    Start(StartArgs),
    /// Stop all nodes, in an orderly way.
    #[command(after_help = "Examples:
  jangbu dev stop
  jangbu dev stop --remove    and delete the folder with all its data")]
    Stop(StopArgs),
    /// Say which nodes run, where, and what they know.
    Status(DirArg),
    /// End a node with SIGKILL, as a crash would.
    #[command(after_help = "Examples:
  jangbu dev kill 2
  jangbu dev kill busan
  jangbu dev kill leader")]
    Kill(NodeArgs),
    /// Start a node that does not run; stop it first, in an orderly way, where it does.
    #[command(after_help = "Examples:
  jangbu dev restart 2
  jangbu dev restart        all that do not run")]
    Restart(RestartArgs),
}

#[derive(Debug, Args)]
pub struct DirArg {
    /// The cluster's folder.
    #[arg(long, value_name = "FOLDER", default_value = folder::DEFAULT)]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    pub dir: DirArg,
    /// How many nodes; an odd number survives the loss of the smaller half.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub nodes: u8,
    /// The names of the data centres, given to the nodes in turn.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "seoul,daejeon,busan")]
    pub data_centers: Vec<String>,
    /// The node's program. Default: `jangbud` beside this one.
    #[arg(long, value_name = "PATH", env = "JANGBU_JANGBUD")]
    pub jangbud: Option<PathBuf>,
    /// The timeouts between nodes: loopback, metro or continent.
    #[arg(long, value_name = "NAME", default_value = "loopback")]
    pub network: String,
    /// A further setting for every node, such as limits.requests_max=100. May be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// Speak in plain text, and let everybody do everything. Default: TLS, with certificates made in the folder.
    #[arg(long)]
    pub plain: bool,
    /// Do not make the nodes a cluster; leave that to `jangbu cluster init` or `jangbu member add`.
    #[arg(long)]
    pub no_init: bool,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub dir: DirArg,
    /// Delete the folder with all its data.
    #[arg(long)]
    pub remove: bool,
}

#[derive(Debug, Args)]
pub struct NodeArgs {
    /// A node's number, its data centre's name, or `leader`.
    pub node: String,
    #[command(flatten)]
    pub dir: DirArg,
}

#[derive(Debug, Args)]
pub struct RestartArgs {
    /// A node's number or its data centre's name. Default: all that do not run.
    pub node: Option<String>,
    #[command(flatten)]
    pub dir: DirArg,
}

impl StartArgs {
    /// Three nodes in `path`, as shipped.
    pub fn three_in(path: &Path) -> StartArgs {
        StartArgs {
            dir: DirArg { dir: path.to_path_buf() },
            nodes: 3,
            data_centers: ["seoul", "daejeon", "busan"].map(String::from).to_vec(),
            jangbud: None,
            network: "loopback".into(),
            set: Vec::new(),
            plain: false,
            no_init: false,
        }
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}`: write KEY=VALUE"))?;
    Ok((key.to_string(), value.to_string()))
}

impl Command {
    pub async fn run(self, output: Output, timeout: Duration) -> Result<(), Failure> {
        match self {
            Command::Start(args) => {
                let dir = args.dir.dir.display();
                course::next(format!(
                    "jangbu dev start --dir {dir} goes on; jangbu dev stop --dir {dir} stops what runs"
                ));
                let cluster = start(&args, timeout).await?;
                output::show(output, &cluster, started_text)
            }
            Command::Stop(args) => {
                let folder = Folder::existing(&args.dir.dir)?;
                stop(&folder, timeout).await?;
                if args.remove {
                    folder.remove()?;
                }
                output::show(output, &Stopped { stopped: true, removed: args.remove }, |stopped| {
                    format!("{} is stopped{}", folder.path.display(), if stopped.removed { " and removed" } else { "" })
                })
            }
            Command::Status(args) => {
                let folder = Folder::existing(&args.dir)?;
                let status = status(&folder, timeout).await;
                output::show(output, &status, status_text)?;
                status.verdict()
            }
            Command::Kill(args) => {
                let folder = Folder::existing(&args.dir.dir)?;
                let node = match args.node.as_str() {
                    "leader" => leader(&folder, timeout).await?,
                    name => folder.node(name)?,
                };
                kill(&folder, node, timeout).await?;
                output::show(output, &Killed { node_id: node.id }, |_| {
                    format!(
                        "node {} ({}) is killed; start it again with `jangbu dev restart {}`",
                        node.id, node.data_center, node.id
                    )
                })
            }
            Command::Restart(args) => {
                let folder = Folder::existing(&args.dir.dir)?;
                if let Some(name) = &args.node {
                    stop_node(&folder, folder.node(name)?, timeout).await?;
                }
                let only = args.node.as_deref().map(|name| folder.node(name)).transpose()?;
                let nodes: Vec<&Node> =
                    folder.nodes.iter().filter(|node| only.is_none_or(|only| only.id == node.id)).collect();
                for node in &nodes {
                    spawn(&folder, node)?;
                }
                for node in &nodes {
                    wait_ready(&folder, node, timeout).await?;
                }
                output::show(output, &status(&folder, timeout).await, status_text)
            }
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Started {
    pub folder: PathBuf,
    pub endpoints: Vec<String>,
    pub nodes: Vec<Node>,
    pub ready_after_ms: u64,
    #[serde(skip)]
    exports: String,
}

#[derive(Serialize)]
struct Stopped {
    stopped: bool,
    removed: bool,
}

#[derive(Serialize)]
struct Killed {
    node_id: u64,
}

fn started_text(started: &Started) -> String {
    let rows = started.nodes.iter().map(|node| {
        [node.id.to_string(), node.data_center.clone(), node.client.clone(), format!("http://{}/metrics", node.http)]
    });
    format!(
        "{}\n\nserving after {} ms; in this folder `jangbu` finds it by itself, elsewhere:\n  export JANGBU_ENDPOINTS={}",
        output::table(&["node", "data centre", "endpoint", "metrics"], rows),
        started.ready_after_ms,
        started.endpoints.join(","),
    ) + &started.exports
}

/// What to type where the folder isn't at hand, so that `jangbu` is somebody to its cluster.
pub fn exports(folder: &Folder) -> String {
    let Papers { ca, cert, key, .. } = folder.papers();
    let named = [("JANGBU_CA", ca), ("JANGBU_CERT", cert), ("JANGBU_KEY", key)];
    let line = |(name, file): (&str, Option<PathBuf>)| Some(format!("\n  export {name}={}", file?.display()));
    named.into_iter().filter_map(line).collect()
}

/// Starts what does not run, makes it a cluster where it is none yet, and waits until every node serves.
pub async fn start(args: &StartArgs, timeout: Duration) -> Result<Started, Failure> {
    let began = Instant::now();
    let folder = match Folder::open(&args.dir.dir)? {
        Some(folder) => folder,
        None => {
            let wish = Wish {
                nodes_count: usize::from(args.nodes),
                data_centers: &args.data_centers,
                jangbud: jangbud(args.jangbud.as_deref())?,
                network: &args.network,
                settings: &args.set,
                plain: args.plain,
            };
            Folder::create(&args.dir.dir, &wish)?
        }
    };
    for node in &folder.nodes {
        spawn(&folder, node)?;
    }
    if !args.no_init {
        initialize(&folder, timeout).await?;
        for node in &folder.nodes {
            wait_ready(&folder, node, timeout).await?;
        }
    }
    Ok(Started {
        endpoints: folder.client_addresses(),
        nodes: folder.nodes.clone(),
        exports: exports(&folder),
        ready_after_ms: began.elapsed().as_millis() as u64,
        folder: folder.path,
    })
}

/// Beside this program, unless another is named.
pub fn jangbud(named: Option<&Path>) -> Result<PathBuf, Failure> {
    let path = match named {
        Some(path) => path.to_path_buf(),
        None => std::env::current_exe()?.with_file_name("jangbud"),
    };
    std::fs::canonicalize(&path).map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display()))
            .advise("build it with `cargo build --release -p jangbu-node`, or name it with --jangbud")
    })
}

fn spawn(folder: &Folder, node: &Node) -> Result<(), Failure> {
    if folder.process(node).is_some() {
        return Ok(());
    }
    let config = folder.config_path(node);
    let arguments = ["--config", &config.to_string_lossy()];
    let pid = folder.pid_path(node);
    process::start(&folder.jangbud, Life::ItsOwn(&pid), &arguments, &folder.node_path(node), &folder.log_path(node))
        .during(|| format!("starting {}", folder.jangbud.display()))?;
    course::done(format!("node {} runs", node.id));
    Ok(())
}

/// Fresh nodes belong to no cluster: the first is asked to make one of all.
async fn initialize(folder: &Folder, timeout: Duration) -> Result<(), Failure> {
    for node in &folder.nodes {
        let status = wait_for(folder, node, timeout, |_| true).await?;
        if !status.cluster_id.is_empty() {
            return Ok(());
        }
    }
    Operator::new(&folder.way()?, &folder.nodes[0].client, timeout)?.initialize(folder.peer_addresses()).await.map(drop)
}

pub async fn wait_ready(folder: &Folder, node: &Node, timeout: Duration) -> Result<(), Failure> {
    wait_for(folder, node, timeout, |status| status.ready).await.map(drop)
}

/// Often enough that nobody waits for the asking.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

async fn wait_for(
    folder: &Folder,
    node: &Node,
    timeout: Duration,
    is_so: impl Fn(&StatusReply) -> bool,
) -> Result<StatusReply, Failure> {
    let (operator, log) = (Operator::new(&folder.way()?, &node.client, timeout)?, folder.log_path(node));
    let answer = wait_answer(&operator, || folder.process(node).is_some(), timeout, is_so).await;
    answer.map_err(|why| match why {
        Silent::Ended => Failure::general(format!("node {} ended: {}", node.id, last_words(&log)))
            .advise(format!("read {}", log.display())),
        Silent::NotYet(why) => Failure::new(Kind::Unavailable, format!("node {} does not serve yet: {why}", node.id))
            .advise(format!("read {}, or give it longer with --timeout", log.display())),
    })
}

/// Why a node that was started doesn't say what is waited for.
#[derive(Debug)]
pub enum Silent {
    /// Its process has ended.
    Ended,
    /// The time is up. What it, or the way to it, said last.
    NotYet(String),
}

/// The first answer of a node of this machine that `is_so`, for as long as its process runs.
pub async fn wait_answer(
    operator: &Operator,
    is_running: impl Fn() -> bool,
    limit: Duration,
    is_so: impl Fn(&StatusReply) -> bool,
) -> Result<StatusReply, Silent> {
    let deadline = Instant::now() + limit;
    loop {
        let why_not = match operator.status().await {
            Ok(status) if is_so(&status) => return Ok(status),
            Ok(status) => status.not_ready_because,
            Err(failure) => failure.message,
        };
        if !is_running() {
            return Err(Silent::Ended);
        }
        if Instant::now() >= deadline {
            return Err(Silent::NotYet(why_not));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// What a process said last, in its log.
pub fn last_words(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_string()
}

/// The node that says it leads; waits through an election.
pub async fn leader(folder: &Folder, timeout: Duration) -> Result<&Node, Failure> {
    let deadline = Instant::now() + timeout;
    let way = folder.way()?;
    loop {
        for node in &folder.nodes {
            if let Ok(status) = Operator::new(&way, &node.client, Duration::from_secs(1))?.status().await
                && status.role == "Leader"
                && status.leader_id == node.id
            {
                return Ok(node);
            }
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(Kind::Unavailable, "no node says that it leads")
                .advise("see which nodes run: jangbu dev status"));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

pub async fn kill(folder: &Folder, node: &Node, timeout: Duration) -> Result<(), Failure> {
    let Some(mark) = folder.process(node) else {
        return Err(Failure::new(Kind::Conflict, format!("node {} does not run", node.id)));
    };
    mark.kill()?;
    wait_ended(&mark, timeout)
        .await
        .then_some(())
        .ok_or_else(|| Failure::general(format!("process {} goes on", mark.pid)))
}

/// Starts one node and waits until it serves.
pub async fn restart(folder: &Folder, node: &Node, timeout: Duration) -> Result<(), Failure> {
    spawn(folder, node)?;
    wait_ready(folder, node, timeout).await
}

pub async fn stop(folder: &Folder, timeout: Duration) -> Result<(), Failure> {
    for node in &folder.nodes {
        if let Some(mark) = folder.process(node) {
            mark.terminate()?;
            course::done(format!("node {} was told to end", node.id));
        }
    }
    for node in &folder.nodes {
        stop_node(folder, node, timeout).await?;
    }
    Ok(())
}

async fn stop_node(folder: &Folder, node: &Node, timeout: Duration) -> Result<(), Failure> {
    let Some(mark) = folder.process(node) else { return Ok(()) };
    mark.terminate()?;
    if !wait_ended(&mark, timeout).await {
        output::note(format!("node {} did not end in {} s and is killed", node.id, timeout.as_secs()));
        mark.kill()?;
        wait_ended(&mark, timeout).await;
    }
    Ok(())
}

/// Whether it has, within that time.
pub async fn wait_ended(mark: &Mark, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    while mark.is_running() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    true
}

#[derive(Debug, Serialize)]
pub struct ClusterStatus {
    pub folder: PathBuf,
    pub nodes: Vec<NodeStatus>,
}

#[derive(Debug, Serialize)]
pub struct NodeStatus {
    #[serde(flatten)]
    pub node: Node,
    /// `None`: it does not run.
    pub pid: Option<u32>,
    pub ready: bool,
    pub role: String,
    pub term: u64,
    pub applied_index: u64,
    pub digest: String,
    pub why_not_ready: String,
}

impl ClusterStatus {
    fn verdict(&self) -> Result<(), Failure> {
        match self.nodes.iter().filter(|node| !node.ready).count() {
            0 => Ok(()),
            count => Err(Failure::new(Kind::Unhealthy, format!("{count} of {} nodes do not serve", self.nodes.len()))
                .advise("start what does not run: jangbu dev restart")),
        }
    }
}

async fn status(folder: &Folder, timeout: Duration) -> ClusterStatus {
    let mut nodes = Vec::with_capacity(folder.nodes.len());
    for node in &folder.nodes {
        let process = folder.process(node);
        let answer = match process {
            Some(_) => ask(folder, node, timeout).await.map_err(|failure| failure.message),
            None => Err("it does not run".into()),
        };
        let mut status = NodeStatus {
            node: node.clone(),
            pid: process.map(|mark| mark.pid),
            ready: false,
            role: "-".into(),
            term: 0,
            applied_index: 0,
            digest: String::new(),
            why_not_ready: String::new(),
        };
        match answer {
            Ok(answer) => {
                status.ready = answer.ready;
                status.role = answer.role;
                status.term = answer.term;
                status.applied_index = answer.applied_index;
                status.digest = text::hex(&answer.digest);
                status.why_not_ready = answer.not_ready_because;
            }
            Err(why) => status.why_not_ready = why,
        }
        nodes.push(status);
    }
    ClusterStatus { folder: folder.path.clone(), nodes }
}

async fn ask(folder: &Folder, node: &Node, timeout: Duration) -> Result<StatusReply, Failure> {
    Operator::new(&folder.way()?, &node.client, timeout)?.status().await
}

fn status_text(status: &ClusterStatus) -> String {
    let rows = status.nodes.iter().map(|status| {
        [
            status.node.id.to_string(),
            status.node.data_center.clone(),
            status.node.client.clone(),
            status.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
            status.role.clone(),
            status.applied_index.to_string(),
            if status.ready { "yes".into() } else { format!("no: {}", status.why_not_ready) },
        ]
    });
    output::table(&["node", "data centre", "endpoint", "pid", "role", "applied", "serves"], rows)
}
