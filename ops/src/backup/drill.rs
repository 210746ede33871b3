//! `jangbu backup drill`: is the newest backup one? Restores it, starts a node with it, compares, and cleans up.
//!
//! The node serves on this machine's loopback alone, in plain text, from a folder that is removed in the end.
//!
//! Not here: how often that should be done. A backup that was never restored is a hope.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use jangbu_proto::cluster::v1::VerifyReply;
use jangbu_proto::entry::NodeInfo;
use serde::Serialize;

use super::PlaceArguments;
use super::restore::{Moment, Restored, restore};
use crate::cli::Global;
use crate::dev::folder::free_ports;
use crate::dev::process::{self, Life};
use crate::dev::{self, Silent};
use crate::error::{During as _, Failure, Kind};
use crate::operator::Operator;
use crate::whole::Scratch;
use crate::{access, output, text};

/// Beyond the restore itself: start, read everything once, stop.
const START_LIMIT: Duration = Duration::from_secs(120);
const VERIFY_LIMIT: Duration = Duration::from_secs(3_600);
const STOP_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Where there is room for all of it, for as long as it takes.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// The node's program. Default: `jangbud` beside this one.
    #[arg(long, value_name = "PATH", env = "JANGBU_JANGBUD")]
    pub jangbud: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    restored: Restored,
    started_after_seconds: f64,
    /// Every value was read, and the digest counted afresh.
    verified_after_seconds: f64,
    accounts_count: u64,
    events_count: u64,
    digest: String,
    values_read_count: u64,
    seconds: f64,
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let vault = self.place.existing()?;
        let jangbud = dev::jangbud(self.jangbud.as_deref())?;
        let parent = self.dir.unwrap_or_else(std::env::temp_dir);
        let folder = scratch(&parent)?;
        let began = Instant::now();

        let ports = free_ports(2).during(|| "looking for free ports".into())?;
        let [client_address, peer_address] = [ports[0], ports[1]].map(|port| format!("127.0.0.1:{port}"));
        let node = NodeInfo {
            client_address: client_address.clone(),
            peer_address: peer_address.clone(),
            ..Default::default()
        };
        // Above whatever the cluster has used; nobody else will ever meet it.
        let node_id = u64::MAX >> 1;
        let data = folder.path().join("data");
        let restored = restore(&vault, Moment::End, &data, node_id, node).await?;

        let config = format!(
            "node_id = {node_id}\ndata_dir = {data:?}\nnetwork = \"loopback\"\n[listen]\nclient = {client_address:?}\npeer = {peer_address:?}\n[tls]\nmode = \"off\"\n"
        );
        let started = Instant::now();
        let running = Running::start(&jangbud, folder.path(), &config)?;
        let operator = Operator::new(&access::plain(), &client_address, VERIFY_LIMIT)?;
        running.serves(&operator).await?;
        let started_after_seconds = started.elapsed().as_secs_f64();
        let verified = operator.verify_deep().await?;
        let verified_after_seconds = started.elapsed().as_secs_f64() - started_after_seconds;
        running.stop().await?;
        compare(&restored, &verified)?;
        let report = Report {
            restored,
            started_after_seconds,
            verified_after_seconds,
            accounts_count: verified.accounts_count,
            events_count: verified.events_count,
            digest: text::hex(&verified.digest),
            values_read_count: verified.values_read_count,
            seconds: began.elapsed().as_secs_f64(),
        };
        output::show(global.output, &report, text_of)
    }
}

/// What the node counts for itself, with what was restored. Pending transfers that were due meanwhile have expired in it: those are
/// events of its own, and its digest is another one then.
fn compare(restored: &Restored, verified: &VerifyReply) -> Result<(), Failure> {
    let counted = text::hex(&verified.digest_recount);
    let kept = text::hex(&verified.digest);
    let expired = verified.events_count > restored.events_count;
    let balanced = verified
        .totals
        .iter()
        .all(|sums| sums.debits_posted == sums.credits_posted && sums.debits_pending == sums.credits_pending);
    let why = if counted != kept {
        format!("the node counts digest {counted}, and has kept {kept}")
    } else if !expired && kept != restored.digest {
        format!("the node has digest {kept}, and {} was restored", restored.digest)
    } else if !balanced || verified.accounts_over_limit > 0 {
        "debits don't equal credits, or an account is over its limit".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::new(Kind::Unhealthy, why).advise("this backup can't be trusted: make another full one now"))
}

fn text_of(report: &Report) -> String {
    output::pairs([
        ("restored", format!("entry {}, digest {}", text::grouped(report.restored.log_index), report.restored.digest)),
        ("proven", report.restored.proof()),
        ("restore", format!("{:.1} s", report.restored.seconds)),
        ("start", format!("{:.1} s, until a node served it", report.started_after_seconds)),
        (
            "recount",
            format!(
                "{:.1} s: {} accounts, {} events, {} values read; digest {}",
                report.verified_after_seconds,
                text::grouped(report.accounts_count),
                text::grouped(report.events_count),
                text::grouped(report.values_read_count),
                report.digest
            ),
        ),
        ("in all", format!("{:.1} s; everything is removed again", report.seconds)),
    ])
}

fn scratch(parent: &Path) -> Result<Scratch, Failure> {
    let path = parent.join(format!("jangbu-drill-{:016x}", rand::random::<u64>()));
    std::fs::create_dir(&path).map_err(|error| {
        Failure::usage(format!("{}: {error}", path.display())).advise("name a folder with room with --dir")
    })?;
    Ok(Scratch::new(path))
}

/// The node; killed when this goes, if it was not stopped, and by the system if this process is.
struct Running {
    mark: process::Mark,
    log: PathBuf,
}

impl Running {
    fn start(jangbud: &Path, folder: &Path, config: &str) -> Result<Running, Failure> {
        let (path, log) = (folder.join("node.toml"), folder.join("node.log"));
        std::fs::write(&path, config).during(|| path.display().to_string())?;
        let mark = process::start(jangbud, Life::Ours, &["--config", &path.to_string_lossy()], folder, &log)
            .during(|| format!("starting {}", jangbud.display()))?;
        Ok(Running { mark, log })
    }

    async fn serves(&self, operator: &Operator) -> Result<(), Failure> {
        let served = dev::wait_answer(operator, || self.mark.is_running(), START_LIMIT, |status| status.ready).await;
        served.map(drop).map_err(|why| {
            let why = match why {
                Silent::Ended => dev::last_words(&self.log),
                Silent::NotYet(why) => why,
            };
            Failure::new(Kind::Unhealthy, format!("no node serves what was restored: {why}"))
                .advise("restore it into a folder that stays, and look: jangbu backup restore")
        })
    }

    async fn stop(self) -> Result<(), Failure> {
        self.mark.terminate()?;
        // One that doesn't end in time is killed when this goes.
        dev::wait_ended(&self.mark, STOP_LIMIT).await;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, if all went well.
        let _ = self.mark.kill();
    }
}
