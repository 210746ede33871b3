//! `jangbud`: one node of a Jangbu cluster.

use std::{
    fmt, fs, path::PathBuf, process::ExitCode, sync::Arc, sync::atomic::Ordering, sync::mpsc, thread, time::Duration,
};

use clap::Parser;
use jangbu_node::{
    Environment, Node, NodeConfig,
    config::{ENVIRONMENT_PREFIX, LogFormat, Logging},
    environment::{LinesLost, Term},
    service_manager::ServiceManager,
    traces::Exporter,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{Event, Subscriber};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Json, Writer},
    },
    registry::LookupSpan,
};

/// Lines that wait for whoever reads the log: some seconds of a node that has much to tell, and some megabytes.
const LOG_LINES_MAX: usize = 16_384;

/// One node of a Jangbu cluster.
#[derive(Parser)]
#[command(
    name = "jangbud",
    version,
    after_help = "Settings come from the file, then from the environment (JANGBU__SECTION__KEY), then from --set.\n\n\
                  Examples:\n  jangbud --config /etc/jangbu/node.toml\n  \
                  jangbud --config node.toml --set network=metro --set limits.requests_max=5000\n  \
                  jangbud --config node.toml --check\n\n\
                  SIGTERM and SIGINT drain: the leadership is handed over, calls in flight end, exit 0.\n\
                  Under systemd (Type=notify, WatchdogSec) it says when its doors are open, and that it is alive."
)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Overrides one setting; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Checks the configuration, says what is wrong with it, and ends.
    #[arg(long)]
    check: bool,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a setting is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Exit codes: 0 stopped as asked, 1 the node can't go on, 2 the configuration is wrong.
fn main() -> ExitCode {
    keep_large_blocks();
    let arguments = Arguments::parse();
    let config = match read_config(&arguments) {
        Ok(config) => config,
        Err(message) => {
            eprintln!("jangbud: {}: {message}", arguments.config.display());
            return ExitCode::from(2);
        }
    };
    if arguments.check {
        println!("{}: this configuration is good", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    // Dropping it writes what is still buffered.
    let term = Term::default();
    let (writer, lines_lost) = log_to_stderr(&config.logging, config.node_id, term.clone());
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.enable_all().thread_name("jangbud").worker_threads(worker_threads(&config)).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("jangbud: no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    // As a task: this thread is none of the runtime's, and each time it is woken costs more than the work it is woken for.
    let ended = runtime
        .block_on(runtime.spawn(serve(config, lines_lost, term)))
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    drop(writer);
    if let Err(error) = &ended {
        last_words(format!("jangbud: {error}"));
    }
    leave(if ended.is_ok() { 0 } else { 1 })
}

/// Says why the node ends, but not for ever: one that can't go on must go, whether or not anybody reads why.
#[expect(clippy::disallowed_methods, reason = "the runtime has ended; nothing of it is simulated")]
fn last_words(words: String) {
    let (said, is_said) = mpsc::channel();
    thread::spawn(move || {
        eprintln!("{words}");
        let _ = said.send(()); // nobody waits any more
    });
    let _ = is_said.recv_timeout(Duration::from_secs(1));
}

/// As many as processors unless told otherwise. Fewer wake each other less, a tenth of the CPU of small requests; but a lone
/// caller with full requests then waits a third longer, because what one entry needs is done one after the other.
fn worker_threads(config: &NodeConfig) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, |count| count.get());
    config.limits.worker_threads.unwrap_or_else(processors)
}

/// Ends the process without running RocksDB's global destructors: its threads may still be at work, and one that takes a
/// mutex that was destroyed aborts the process. There is nothing to lose: what counts was synced when it was written.
fn leave(code: i32) -> ! {
    // SAFETY: _exit ends the process at once and touches no memory of it.
    unsafe { libc::_exit(code) }
}

/// glibc gives blocks above 128 KiB back to the kernel at every free. A flush frees and takes megabytes again and again,
/// and half of its time in the kernel goes into that.
fn keep_large_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets numbers of the allocator, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 20);
    }
}

async fn serve(config: NodeConfig, log_lines_lost: LinesLost, term: Term) -> anyhow::Result<()> {
    let manager = Arc::new(ServiceManager::from_environment());
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stopping, told) = (stop.clone(), manager.clone());
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.tell("STOPPING=1");
        stopping.cancel();
        // Whoever asks twice doesn't want to wait.
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        leave(1);
    });
    let exporter = Exporter::start(&config.tracing, config.node_id).map_err(anyhow::Error::msg)?;
    let traces = exporter.as_ref().map(Exporter::traces).unwrap_or_default();
    let node = Node::start(config, Environment { log_lines_lost, term, traces, ..Environment::production() }).await?;
    manager.tell("READY=1");
    let core_answers = node.core_answers();
    tokio::spawn(async move { manager.keep_telling(core_answers).await });
    let ended = node.serve(stop).await;
    if let Some(exporter) = exporter {
        #[expect(clippy::disallowed_methods, reason = "the node has ended; nothing of it is simulated")]
        let _ = tokio::task::spawn_blocking(|| exporter.stop()).await; // nothing is lost but spans
    }
    Ok(ended?)
}

fn read_config(arguments: &Arguments) -> Result<NodeConfig, String> {
    let toml = fs::read_to_string(&arguments.config).map_err(|error| error.to_string())?;
    let environment = std::env::vars().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX));
    NodeConfig::read(&toml, environment, arguments.set.clone())
}

/// A node must not wait for whoever reads its log: lines are written by a thread of their own, and lost when it can't
/// keep up. How many were lost is counted.
fn log_to_stderr(logging: &Logging, node_id: u64, term: Term) -> (WorkerGuard, LinesLost) {
    let builder = NonBlockingBuilder::default().buffered_lines_limit(LOG_LINES_MAX).lossy(true);
    let (writer, guard) = builder.thread_name("log").finish(std::io::stderr());
    let lost = writer.error_counter();
    let filter = EnvFilter::try_new(&logging.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match logging.format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().map_event_format(|json| OfNode { json, node_id, term }).init(),
    }
    (guard, Arc::new(move || lost.dropped_lines() as u64))
}

/// Lines of JSON that say which node they are of, and in which term it was: they meet those of other nodes where logs are
/// gathered.
struct OfNode {
    json: Format<Json>,
    node_id: u64,
    term: Term,
}

impl<S, N> FormatEvent<S, N> for OfNode
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    Format<Json>: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.json.format_event(context, Writer::new(&mut line), event)?;
        let fields = line.strip_prefix('{').unwrap_or(&line);
        write!(writer, "{{\"node_id\":{},\"term\":{},{fields}", self.node_id, self.term.load(Ordering::Relaxed))
    }
}
