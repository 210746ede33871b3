//! `jangbu top`: a cluster at a glance, again and again, until somebody presses q.
//!
//! ```text
//!     sample    one look: what each node says of itself, and what its metrics say
//!     view      two looks, one after the other: rates and percentiles of the time between
//!     screen    a view as it is drawn
//! ```
//!
//! Laws
//! * The terminal is left as it was found, however this ends: by q, Ctrl-C, SIGTERM, an error or a panic.
//! * A node that doesn't answer holds nobody up: it is shown as such, and asked again.
//!
//! Not here: history (Prometheus), and alerts (`ops/deploy`).

pub mod sample;
pub mod screen;
pub mod view;

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::cli::Global;
use crate::error::{Failure, Kind};
use crate::output::{self, Output};
use crate::{cluster, course, text};
use sample::Sample;
use view::View;

/// How many looks the chart of the throughput goes back.
const HISTORY: usize = 120;

#[derive(Debug, Args)]
#[command(after_help = "Keys: q, Esc or Ctrl-C end it.

Examples:
  jangbu top
  jangbu top --interval 5s
  jangbu top --once             one look, as text; exit code 3 if something is wrong, 4 without a leader
  jangbu top --once -o json     the same for programs
  jangbu top -o json            a line of JSON for each look")]
pub struct Arguments {
    /// How long from one look to the next; rates are of this time.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = text::duration)]
    pub interval: Duration,
    /// Look once and end.
    #[arg(long)]
    pub once: bool,
}

impl Arguments {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        if self.interval < Duration::from_millis(100) {
            return Err(Failure::usage("--interval is too short").advise("100ms or longer"));
        }
        // Who doesn't answer within a look is shown so.
        let global =
            Global { timeout: global.timeout.min(self.interval.max(Duration::from_secs(1))), ..global.clone() };
        match (self.once, global.output) {
            (true, output) => self.once(&global, output).await,
            (false, Output::Json) => until_told(self.lines(&global)).await,
            (false, Output::Table) if !std::io::stdout().is_terminal() => {
                Err(Failure::usage("standard output is no terminal").advise("for programs: --once, or -o json"))
            }
            (false, Output::Table) => until_told(self.live(&global)).await,
        }
    }

    async fn once(&self, global: &Global, output: Output) -> Result<(), Failure> {
        let before = Sample::take(global).await?;
        tokio::time::sleep(self.interval).await;
        let view = View::between(&before, &Sample::take(global).await?);
        output::show(output, &view, screen::text)?;
        if view.nodes.iter().all(|node| node.error.is_some()) {
            return Err(cluster::no_answer(view.nodes.iter().map(|node| node.endpoint.as_str())));
        }
        match (view.leader_id, view.problems.len()) {
            (None, _) => Err(Failure::new(Kind::Unavailable, "no node leads")),
            (Some(_), 0) => Ok(()),
            (Some(_), count) => Err(Failure::new(Kind::Unhealthy, format!("{count} problem(s)"))),
        }
    }

    /// Ends when nobody reads any more.
    async fn lines(&self, global: &Global) -> Result<(), Failure> {
        let mut before = Sample::take(global).await?;
        let mut ticks = ticks(self.interval).await;
        loop {
            ticks.tick().await;
            let now = Sample::take(global).await?;
            output::json_line(&View::between(&before, &now))?;
            before = now;
        }
    }

    async fn live(&self, global: &Global) -> Result<(), Failure> {
        let mut before = Sample::take(global).await?;
        // Also puts the terminal back when something panics.
        let mut terminal = ratatui::try_init()?;
        let _restored = Restored;
        let mut keys = keys();
        let mut ticks = ticks(self.interval).await;
        let mut view = View::between(&before, &before);
        let mut throughput: Vec<u64> = Vec::new();
        loop {
            terminal.draw(|frame| screen::draw(frame, &view, &throughput))?;
            tokio::select! {
                biased;
                key = keys.recv() => match key {
                    Some(Key::Redraw) => {}
                    Some(Key::Leave) | None => return Ok(()),
                },
                _ = ticks.tick() => {
                    let now = Sample::take(global).await?;
                    view = View::between(&before, &now);
                    before = now;
                    throughput.push(view.events_per_second.round() as u64);
                    let older = throughput.len().saturating_sub(HISTORY);
                    throughput.drain(..older);
                }
            }
        }
    }
}

/// Who watches is ended by a signal: that is as good an end as any.
async fn until_told(watching: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let mut ending = course::ends_by_itself("");
    tokio::select! {
        biased;
        () = ending.heard() => Ok(()),
        ended = watching => ended,
    }
}

/// The first one comes after a whole interval: a rate needs two looks.
async fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    ticks
}

/// Puts the terminal back when it goes.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

enum Key {
    Leave,
    /// The window has another size.
    Redraw,
}

/// What is typed. The thread that waits for it ends with the process: nothing can wake it.
fn keys() -> mpsc::Receiver<Key> {
    let (sender, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            let key = match event {
                Event::Key(key) if key.kind == KeyEventKind::Press => {
                    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                    match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => Key::Leave,
                        _ if control_c => Key::Leave,
                        _ => continue,
                    }
                }
                Event::Resize(..) => Key::Redraw,
                _ => continue,
            };
            if sender.blocking_send(key).is_err() {
                return;
            }
        }
    });
    keys
}
