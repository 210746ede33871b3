//! What can be typed: the tree of commands and what holds for all of them.
//!
//! Not here: what a command does (its own file).

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use serde::Serialize;

use crate::access::{self, Papers, Way};
use crate::error::{EXIT_CODES, Failure};
use crate::output::{self, Output};
use crate::{
    account, audit, backup, bench, cert, cluster, demo, dev, events, export, import, inspect, leader, load, member,
    node, recover, support_bundle, text, token, top, transfer, upgrade, verify,
};

/// The operator's command of Jangbu, a ledger cluster that stays open.
#[derive(Debug, Parser)]
#[command(name = "jangbu", version, propagate_version = true, arg_required_else_help = true, max_term_width = 110)]
#[command(after_help = format!("Begin with:
  jangbu dev start       a cluster of three nodes on this machine
  jangbu cluster status  what its nodes say

{EXIT_CODES}"))]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The nodes' client doors, host:port, separated by commas. Default: the cluster in ./jangbu-dev.
    #[arg(long, global = true, value_name = "ADDRESSES", value_delimiter = ',', env = "JANGBU_ENDPOINTS")]
    pub endpoints: Vec<String>,
    /// How results are written.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub output: Output,
    /// How long a call may take, as 500ms, 5s or 1m.
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = text::duration)]
    pub timeout: Duration,
    #[command(flatten)]
    pub papers: Papers,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a cluster on this machine: start, stop, status, kill, restart.
    #[command(subcommand)]
    Dev(dev::Command),
    /// Make a cluster, and ask how it is.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Certificates: make authorities, nodes and clients; show what one says.
    #[command(subcommand)]
    Cert(cert::Command),
    /// Bearer tokens, for who has no certificate: create, list, revoke.
    #[command(subcommand)]
    Token(token::Command),
    /// The nodes of a cluster: list, add, update, promote, remove.
    #[command(subcommand)]
    Member(member::Command),
    /// One node's duties: drain, undrain, decommission, replace.
    #[command(subcommand)]
    Node(node::Command),
    /// The cluster's version: status, finalize.
    #[command(subcommand)]
    Upgrade(upgrade::Command),
    /// Who did what to the cluster: list, verify.
    #[command(subcommand)]
    Audit(audit::Command),
    /// Back a cluster up, and get it back: run, list, verify, drill, restore, prune.
    #[command(subcommand)]
    Backup(backup::Command),
    /// A majority is lost for good: make a survivor, which doesn't run, a cluster of its own.
    Recover(recover::Arguments),
    /// The node that leads: show, move, balance.
    #[command(subcommand)]
    Leader(leader::Command),
    /// Accounts: create, show, history, list.
    #[command(subcommand)]
    Account(account::Command),
    /// Transfers: create, show, post, void, list.
    #[command(subcommand)]
    Transfer(transfer::Command),
    /// Follow what happens, gap-free and in order.
    Events(events::Arguments),
    /// Bring in a bank's transactions, after a dry run.
    Import(import::Arguments),
    /// Write accounts and transfers as of one moment to files that other programs read.
    Export(export::Arguments),
    /// Put load on a cluster, and measure what its clients see.
    Load(load::Arguments),
    /// Watch a cluster: who leads, how fast, what is turned away.
    Top(top::Arguments),
    /// Look into the folder of a node that doesn't run.
    #[command(subcommand)]
    Inspect(inspect::Command),
    /// What somebody else needs to see of a cluster that misbehaves, in one file, without its secrets.
    SupportBundle(support_bundle::Arguments),
    /// Prove that the replicas agree, that debits equal credits, and that nothing acknowledged is lost.
    Verify(verify::Arguments),
    /// The same work on this cluster, PostgreSQL and etcd, side by side.
    Bench(bench::Arguments),
    /// The whole story: start, pay, kill the leader, go on, prove.
    Demo(demo::Arguments),
    /// Completions for a shell.
    #[command(after_help = "Example:\n  jangbu completion bash > ~/.local/share/bash-completion/completions/jangbu")]
    Completion {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// The version of this program.
    Version,
}

impl Cli {
    pub async fn run(self) -> Result<(), Failure> {
        let global = self.global;
        match self.command {
            Command::Dev(command) => command.run(global.output, global.timeout).await,
            Command::Cluster(command) => command.run(&global).await,
            Command::Cert(command) => command.run(global.output),
            Command::Token(command) => command.run(&global).await,
            Command::Member(command) => command.run(&global).await,
            Command::Node(command) => command.run(&global).await,
            Command::Upgrade(command) => command.run(&global).await,
            Command::Audit(command) => command.run(&global).await,
            Command::Backup(command) => command.run(&global).await,
            Command::Recover(arguments) => arguments.run(global.output).await,
            Command::Leader(command) => command.run(&global).await,
            Command::Account(command) => command.run(&global).await,
            Command::Transfer(command) => command.run(&global).await,
            Command::Events(arguments) => arguments.run(&global).await,
            Command::Import(arguments) => arguments.run(&global).await,
            Command::Export(arguments) => arguments.run(&global).await,
            Command::Load(arguments) => arguments.run(&global).await,
            Command::Top(arguments) => arguments.run(&global).await,
            Command::Inspect(command) => command.run(global.output),
            Command::SupportBundle(arguments) => arguments.run(&global).await,
            Command::Verify(arguments) => arguments.run(&global).await,
            Command::Bench(arguments) => arguments.run(&global).await,
            Command::Demo(arguments) => arguments.run(&global).await,
            Command::Completion { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "jangbu", &mut script);
                output::line(&String::from_utf8_lossy(&script))
            }
            Command::Version => {
                output::show(global.output, &Version { version: env!("CARGO_PKG_VERSION") }, |version| {
                    format!("jangbu {}", version.version)
                })
            }
        }
    }
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

impl Global {
    /// The nodes to ask: those named, or those of the cluster in this folder.
    pub fn endpoints(&self) -> Result<Vec<String>, Failure> {
        let named: Vec<String> = self
            .endpoints
            .iter()
            .map(|address| address.trim().to_string())
            .filter(|address| !address.is_empty())
            .collect();
        if !named.is_empty() {
            return Ok(named);
        }
        match folder_here()? {
            Some(folder) => Ok(folder.client_addresses()),
            None => Err(Failure::usage("no cluster is named")
                .advise("name its nodes with --endpoints or JANGBU_ENDPOINTS, or start one here: jangbu dev start")),
        }
    }

    /// How nodes are reached: with the certificates named, or with those of the cluster in this folder if it is the one that
    /// is meant; otherwise in plain text.
    pub fn way(&self) -> Result<Way, Failure> {
        if let Some(way) = self.papers.way()? {
            return Ok(way);
        }
        let endpoints = self.endpoints()?;
        match folder_here()? {
            Some(folder) if endpoints.iter().all(|endpoint| folder.client_addresses().contains(endpoint)) => {
                folder.way()
            }
            _ => Ok(access::plain()),
        }
    }
}

fn folder_here() -> Result<Option<dev::folder::Folder>, Failure> {
    dev::folder::Folder::open(&PathBuf::from(dev::folder::DEFAULT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_of_commands_is_sound() {
        Cli::command().debug_assert();
    }

    /// At three in the morning, what is typed from a page must be a command.
    #[test]
    fn every_command_that_the_runbook_names_can_be_typed() {
        let runbook = "../docs/runbook";
        let mut tried = 0;
        for page in std::fs::read_dir(runbook).expect("there is a runbook") {
            let page = page.expect("it can be listed").path();
            let text = std::fs::read_to_string(&page).expect("it is text");
            for command in text.split('`').filter(|span| span.starts_with("jangbu ")) {
                let typed = command.replace("PEER", "10.0.0.4:7401").replace(" N", " 2");
                // Named without its subcommand, it stands for all of them: `--help` is what one would type next.
                let named = |words: &str| Cli::try_parse_from(words.split_whitespace());
                let known =
                    named(&typed).is_ok() || named(&format!("{typed} --help")).is_err_and(|error| !error.use_stderr());
                assert!(known, "{}: `{command}`", page.display());
                tried += 1;
            }
        }
        assert!(tried > 20, "only {tried} commands were found");
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "`{}` has no description", command.get_name());
            for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
                assert!(argument.get_help().is_some(), "`{}` of `{}`", argument.get_id(), command.get_name());
            }
            command.get_subcommands().filter(|command| command.get_name() != "help").for_each(check);
        }
        check(&Cli::command());
    }
}
