//! `jangbu-sim`: a whole cluster in one thread, from one seed.

#![expect(clippy::disallowed_methods, reason = "what is told to people here is real time")]

use std::{
    io::{IsTerminal, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use jangbu_simulation::{
    determinism,
    faults::{HABITS, KINDS, Plan},
    invariants, marks, minimize, report,
    run::{self, Outcome},
    runner::{self, OUTCOME_MARK},
    scenarios::{self, Scenario},
    tell::{self, Tell},
    totals::Totals,
};

#[derive(Parser)]
#[command(
    name = "jangbu-sim",
    version,
    about = "Runs a whole Jangbu cluster in one thread, from one seed, and judges it."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs many seeds, each in a process of its own, and tells what was found.
    Run {
        /// As A..B; B is not included.
        #[arg(long, default_value = "0..100", value_parser = parse_seeds)]
        seeds: std::ops::Range<u64>,
        /// A hand-written story instead of what the seeds draw; `all` for one after the other.
        #[arg(long)]
        scenario: Option<String>,
        /// Ends after so many minutes, whatever is left.
        #[arg(long)]
        minutes: Option<f64>,
        /// Runs at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Of a hundred seeds, so many are run twice and must tell the same story.
        #[arg(long, default_value_t = 5)]
        twice_percent: u64,
        /// Tells the figures as JSON on the last line.
        #[arg(long)]
        json: bool,
    },
    /// Runs one seed and prints its story.
    Replay {
        #[command(flatten)]
        which: Which,
        /// Tells every call as well, also those that were answered.
        #[arg(long)]
        everything: bool,
        /// Writes the plan down, to be changed by hand and run with `--plan`.
        #[arg(long)]
        save_plan: Option<PathBuf>,
        /// Tells the outcome as JSON on the last line.
        #[arg(long)]
        json: bool,
    },
    /// Shrinks a failing seed to the fewest faults and the least work that still fail.
    Minimize {
        #[command(flatten)]
        which: Which,
        /// Where the shrunk plan goes.
        #[arg(long)]
        out: Option<PathBuf>,
        /// Ends after so many minutes with the smallest that was found.
        #[arg(long)]
        minutes: Option<f64>,
    },
    /// Writes one HTML file with the timeline of a seed.
    Report {
        #[command(flatten)]
        which: Which,
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Describes scenarios, faults, habits and laws.
    List,
    /// Plants known bugs one after the other and tells how soon each is found.
    Bugs {
        /// Seeds tried for each.
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Only the bug of this name.
        #[arg(long)]
        only: Option<String>,
    },
    /// One run, told on stdout; `run` starts these.
    #[command(hide = true)]
    One {
        #[arg(long)]
        plan: String,
    },
}

/// One run: a seed's, a scenario's with a seed, or a plan's from a file.
#[derive(Args)]
struct Which {
    seed: u64,
    /// A hand-written story, with what this seed draws for it.
    #[arg(long)]
    scenario: Option<String>,
    /// A plan from a file, as `minimize` and `replay --save-plan` write it.
    #[arg(long)]
    plan: Option<PathBuf>,
}

impl Which {
    fn plan(&self) -> anyhow::Result<Plan> {
        if let Some(file) = &self.plan {
            let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
            return Ok(serde_json::from_str(&text)?);
        }
        match &self.scenario {
            Some(name) => Ok(find(name)?.plan_of(self.seed)),
            None => Ok(Plan::of_seed(self.seed)),
        }
    }

    /// The one command that repeats it.
    fn again(&self) -> String {
        again(self.seed, self.scenario.as_deref(), self.plan.as_deref())
    }
}

fn parse_seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let (first, end) = text.split_once("..").ok_or("seeds are given as A..B")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    Ok(number(first)?..number(end)?)
}

fn main() -> ExitCode {
    match act(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("jangbu-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all laws held.
fn act(arguments: Arguments) -> anyhow::Result<bool> {
    match arguments.command {
        Command::Run { seeds, scenario, minutes, jobs, twice_percent, json } => {
            let must_meet = scenario.is_none();
            let plans = plans(seeds, scenario.as_deref())?;
            let until = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
            Ok(run_many(plans, jobs, until, twice_percent, must_meet, json))
        }
        Command::Replay { which, everything, save_plan, json } => {
            log_if_asked();
            let plan = which.plan()?;
            if let Some(file) = save_plan {
                std::fs::write(&file, serde_json::to_string_pretty(&plan)?).context("the plan could not be written")?;
            }
            println!("{}", tell::plan(&plan));
            let story = run::run(&plan, if everything { Tell::Everything } else { Tell::Story });
            tell_end(&story.outcome, &which.again());
            if json {
                println!("{}", serde_json::to_string(&story.outcome)?);
            }
            Ok(story.outcome.broken.is_empty())
        }
        Command::Minimize { which, out, minutes } => shrink(&which.plan()?, out, minutes),
        Command::Report { which, out } => {
            let story = run::run(&which.plan()?, Tell::Nothing);
            let out = out.unwrap_or_else(|| format!("seed-{}.html", which.seed).into());
            std::fs::write(&out, report::html(&story, &runner::commit(), &which.again()))
                .context("the report could not be written")?;
            println!("{}", out.display());
            Ok(story.outcome.broken.is_empty())
        }
        Command::List => {
            list();
            Ok(true)
        }
        Command::Bugs { seeds, jobs, only } => bugs(seeds, jobs, only.as_deref()),
        Command::One { plan } => {
            let mut text = plan;
            if text == "-" {
                text.clear();
                std::io::stdin().read_to_string(&mut text)?;
            }
            let plan: Plan = serde_json::from_str(&text)?;
            let story = run::run(&plan, Tell::Nothing);
            println!("{OUTCOME_MARK}{}", serde_json::to_string(&story.outcome)?);
            Ok(true)
        }
    }
}

fn plans(seeds: std::ops::Range<u64>, scenario: Option<&str>) -> anyhow::Result<Box<dyn Iterator<Item = Plan>>> {
    Ok(match scenario {
        None => Box::new(seeds.map(Plan::of_seed)),
        // Each scenario gets seeds of its own: outcomes are told apart by them.
        Some("all") => Box::new(seeds.flat_map(|seed| {
            let all = scenarios::all();
            let count = all.len() as u64;
            all.into_iter().zip(0..).map(move |(scenario, index)| scenario.plan_of(seed * count + index))
        })),
        Some(name) => {
            let scenario = find(name)?;
            Box::new(seeds.map(move |seed| scenario.plan_of(seed)))
        }
    })
}

fn find(name: &str) -> anyhow::Result<Scenario> {
    scenarios::find(name).ok_or_else(|| anyhow!("there is no scenario {name}; `jangbu-sim list` names them"))
}

/// For whoever looks for a bug: `JANGBU_SIM_LOG` is a filter for what nodes and clients log.
fn log_if_asked() {
    if let Ok(filter) = std::env::var("JANGBU_SIM_LOG") {
        let filter = tracing_subscriber::EnvFilter::new(filter);
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
}

// ---------------------------------------------------------------------- run

fn run_many(
    plans: Box<dyn Iterator<Item = Plan>>,
    jobs: usize,
    until: Option<Instant>,
    twice_percent: u64,
    must_meet: bool,
    json: bool,
) -> bool {
    let began = Instant::now();
    let mut totals = Totals::default();
    runner::run_all(plans, jobs, until, |plan, mut outcome| {
        // Spread evenly over the seeds, not drawn: the same seeds each time.
        if outcome.broken.is_empty() && plan.seed * twice_percent % 100 < twice_percent {
            totals.twice += 1;
            if let Some(text) = determinism::check(plan, &outcome) {
                outcome.broken.push(run::BrokenLaw {
                    law: "the_same_seed_tells_the_same_story".into(),
                    text,
                    at_ns: 0,
                    call: None,
                });
            }
        }
        totals.add(&outcome);
        progress(&totals, began);
        if !outcome.broken.is_empty() {
            clear_progress();
            tell_failure(&outcome, &again(plan.seed, plan.scenario.as_deref(), None));
        }
    });
    clear_progress();
    totals.finish(runner::commit(), began.elapsed().as_secs_f64(), must_meet);
    print!("{}", totals.table());
    if json {
        println!("{}", serde_json::to_string(&totals).expect("figures can be written down"));
    }
    totals.is_good()
}

fn progress(totals: &Totals, began: Instant) {
    if std::io::stderr().is_terminal() {
        eprint!(
            "\r{} seeds, {} failed, {:.2} simulated hours, {} transfers, {:.0} s ",
            totals.seeds,
            totals.failed.len(),
            totals.simulated_hours,
            totals.transfers,
            began.elapsed().as_secs_f64()
        );
        let _ = std::io::stderr().flush();
    }
}

fn clear_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("\r{:80}\r", "");
    }
}

/// The last words of a replay.
fn tell_end(outcome: &Outcome, again: &str) {
    println!(
        "\n{:.1} s simulated, {} calls, {} transfers judged, {} unknown outcomes resolved, trace {} over {} lines",
        outcome.simulated_ms as f64 / 1e3,
        outcome.calls,
        outcome.transfers,
        outcome.unknown_resolved,
        outcome.trace,
        outcome.trace_lines
    );
    for (mark, count) in &outcome.marks {
        println!("  {mark} ({count})");
    }
    match outcome.broken.is_empty() {
        true => println!("All laws held."),
        false => tell_failure(outcome, again),
    }
}

/// The one command that repeats a run.
fn again(seed: u64, scenario: Option<&str>, plan: Option<&Path>) -> String {
    let scenario = scenario.map_or(String::new(), |name| format!(" --scenario {name}"));
    let plan = plan.map_or(String::new(), |file| format!(" --plan {}", file.display()));
    format!("jangbu-sim replay {seed}{scenario}{plan}")
}

fn tell_failure(outcome: &Outcome, again: &str) {
    if outcome.broken.is_empty() {
        return;
    }
    println!("\nFAILED  seed {}  commit {}", outcome.seed, runner::commit());
    for broken in outcome.broken.iter().take(3) {
        println!("  {} at {:.3} s\n    {}", broken.law, broken.at_ns as f64 / 1e9, broken.text);
    }
    println!("  again: {again}");
}

// ---------------------------------------------------------------------- the rest

fn shrink(plan: &Plan, out: Option<PathBuf>, minutes: Option<f64>) -> anyhow::Result<bool> {
    let until = minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    let minimized = minimize::minimize(plan, until, runner::run_in_child, |tries, smaller| {
        eprintln!(
            "try {tries}: {} faults, {} callers, {} ms",
            smaller.faults.len(),
            smaller.clients.len(),
            smaller.duration_ms
        );
    });
    let Some(found) = minimized else {
        bail!("seed {} breaks no law", plan.seed);
    };
    let text = serde_json::to_string_pretty(&found.plan)?;
    let out = out.unwrap_or_else(|| format!("seed-{}-minimal.json", plan.seed).into());
    std::fs::write(&out, &text).context("the plan could not be written")?;
    println!("{} after {} tries:\n  {}", found.law, found.tries, found.text);
    print!("{}", tell::plan(&found.plan));
    if found.unfinished {
        println!("  there was no time to try everything");
    }
    println!("  again: {}", again(plan.seed, None, Some(&out)));
    Ok(false)
}

fn list() {
    println!("Scenarios");
    for scenario in scenarios::all() {
        println!("  {:<28} {}", scenario.name, scenario.story);
    }
    println!("\nFaults");
    for kind in KINDS {
        println!("  {:<28} {}", kind.name, kind.about);
    }
    println!("\nHabits of callers\n  {HABITS:?}\n\nLaws");
    for law in invariants::TABLE {
        println!("  {:<44} {}", law.name, law.about);
    }
    println!("\nMarks: what must sometimes happen, and within how many seeds");
    for mark in marks::TABLE {
        println!("  {:<64} {}", mark.name, mark.within);
    }
}

#[cfg(not(feature = "planted"))]
fn bugs(_seeds: u64, _jobs: usize, _only: Option<&str>) -> anyhow::Result<bool> {
    bail!("this build has no planted bugs: build with --features planted")
}

/// Plants each bug in turn and runs seeds until one breaks a law.
#[cfg(feature = "planted")]
fn bugs(seeds: u64, jobs: usize, only: Option<&str>) -> anyhow::Result<bool> {
    use std::cell::RefCell;
    let (mut tries, mut missed) = (Vec::new(), Vec::new());
    println!("{:<28} {:>6} {:>8}  law", "bug", "seeds", "seconds");
    for bug in jangbu_ledger::planted::ALL {
        let name = format!("{bug:?}");
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let began = Instant::now();
        let found: RefCell<Option<(usize, String)>> = RefCell::default();
        let tried = RefCell::new(0);
        let planted = |seed| Plan { planted: *bug as u32, ..Plan::of_seed(seed) };
        let plans = (0..seeds).take_while(|_| found.borrow().is_none()).map(planted);
        runner::run_all(plans, jobs, None, |_, outcome| {
            *tried.borrow_mut() += 1;
            if let Some(broken) = outcome.broken.into_iter().next() {
                found.borrow_mut().get_or_insert((*tried.borrow(), broken.law));
            }
        });
        let seconds = began.elapsed().as_secs_f64();
        match found.into_inner() {
            Some((count, law)) => {
                println!("{name:<28} {count:>6} {seconds:>8.1}  {law}");
                tries.push(count);
            }
            None => {
                println!("{name:<28} {seeds:>6} {seconds:>8.1}  NOT FOUND");
                missed.push(name);
            }
        }
    }
    tries.sort_unstable();
    let median = tries.get(tries.len() / 2).copied().unwrap_or(0);
    println!("\n{} found, the median after {median} seeds; {} not found {missed:?}", tries.len(), missed.len());
    Ok(missed.is_empty())
}
