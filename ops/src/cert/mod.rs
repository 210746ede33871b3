//! `jangbu cert`: the certificates of a small cluster, without an authority of the house.
//!
//! ```text
//!     client-authority.crt .key        signs what clients and the client doors show
//!     peer-authority.crt .key          signs what nodes show each other
//!     node-1-peer.crt .key             node 1, to other nodes
//!     node-1-client-door.crt .key      node 1, to clients: named after the hosts it is called by
//!     client-shop.crt .key             a client, with its roles and ledgers
//! ```
//!
//! Laws
//! * Nothing is overwritten, unless `--renew` says so; an authority never is: all that it signed would be worth nothing.
//! * A key can be read by its owner only (0600), from the moment it exists.
//! * What a command makes is there whole, or the next one takes back what was put and makes it anew (`whole.rs`). Renewed files are
//!   put in place by renaming: a node that looks just then sees the old or the new file; cut off in between, renew them again.
//!
//! Not here: what an identity looks like (`proto::grant`), how a node takes new files (`node/src/keys.rs`).

pub mod make;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jangbu_proto::grant::{Grant, Identity, Ledgers, Roles};
use serde::Serialize;

use crate::error::{During as _, Failure};
use crate::output::{self, Output};
use crate::text;
use make::{Files, Seen};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the two authorities of a new cluster: one for clients, one for nodes.
    #[command(after_help = "Example:
  jangbu cert authority --cluster payments

Keep the two .key files away from the nodes: whoever has them can be anybody.")]
    Authority(AuthorityArgs),
    /// Make a node's certificates: one for other nodes, one for clients.
    #[command(after_help = "Examples:
  jangbu cert node 1 --host node1.example.org --host 10.0.0.1
  jangbu cert node 1 --host node1.example.org --renew    new ones in place of the old; the node takes them by itself")]
    Node(NodeArgs),
    /// Make a client's certificate, with its roles and ledgers.
    #[command(after_help = "Examples:
  jangbu cert client shop --roles writer --ledgers 700,710
  jangbu cert client anna --roles operator,auditor --ledgers all

Roles:
  reader     reads accounts, transfers and balances of its ledgers
  writer     creates accounts and transfers in its ledgers, and reads them
  operator   runs the cluster: members, leader, snapshots, verification
  auditor    reads everything, money and administration; changes nothing
  admin      grants and revokes, and whatever an operator does; moves no money")]
    Client(ClientArgs),
    /// Say whose certificates these are, by whom, and until when.
    #[command(after_help = "Example:\n  jangbu cert show certs/*.crt")]
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub struct DirArg {
    /// The folder of the authorities and of what is made.
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct DaysArg {
    /// Days until it expires.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub days: u32,
    /// Replace what is there by a new key and certificate.
    #[arg(long)]
    pub renew: bool,
}

#[derive(Debug, Args)]
pub struct AuthorityArgs {
    /// The cluster's name: letters, digits, dots, hyphens and underscores. Goes into tls.cluster of each node.
    #[arg(long, value_name = "NAME")]
    pub cluster: String,
    #[command(flatten)]
    pub dir: DirArg,
    /// Days until they expire.
    #[arg(long, value_name = "N", default_value_t = 3_650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
}

#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The node's id.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub id: u64,
    /// A name or an address by which clients call it. May be repeated.
    #[arg(long = "host", value_name = "HOST", required = true)]
    pub hosts: Vec<String>,
    #[command(flatten)]
    pub dir: DirArg,
    #[command(flatten)]
    pub days: DaysArg,
}

#[derive(Debug, Args)]
pub struct ClientArgs {
    /// The client's name: letters, digits, dots, hyphens and underscores.
    pub name: String,
    /// Separated by commas: reader, writer, operator, auditor, admin.
    #[arg(long, value_name = "ROLES", value_parser = roles)]
    pub roles: Roles,
    /// The ledgers that they hold for, separated by commas; or `all`.
    #[arg(long, value_name = "LEDGERS", value_parser = ledgers)]
    pub ledgers: Ledgers,
    #[command(flatten)]
    pub dir: DirArg,
    #[command(flatten)]
    pub days: DaysArg,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Certificates (PEM).
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

fn roles(text: &str) -> Result<Roles, String> {
    match text.parse() {
        Ok(Roles::NONE) => Err("name at least one role".into()),
        Ok(roles) => Ok(roles),
        Err(malformed) => Err(malformed.to_string()),
    }
}

fn ledgers(text: &str) -> Result<Ledgers, String> {
    match text.parse() {
        Ok(Ledgers::Only(ledgers)) if ledgers.is_empty() => Err("name at least one ledger, or `all`".into()),
        Ok(ledgers) => Ok(ledgers),
        Err(malformed) => Err(malformed.to_string()),
    }
}

impl Command {
    pub fn run(self, output: Output) -> Result<(), Failure> {
        let made = match self {
            Command::Authority(args) => {
                make::authorities(&args.dir.dir, &args.cluster, args.days)?;
                ["client-authority", "peer-authority"].map(|name| Files::of(&args.dir.dir, name)).to_vec()
            }
            Command::Node(args) => {
                make::node(&args.dir.dir, args.id, &hosts(&args.hosts)?, (&args.days).into())?.to_vec()
            }
            Command::Client(args) => {
                let grant = Grant { name: args.name, roles: args.roles, ledgers: args.ledgers };
                vec![make::client(&args.dir.dir, grant, (&args.days).into())?]
            }
            Command::Show(args) => return show(output, &args.files),
        };
        let certificates: Vec<PathBuf> = made.into_iter().map(|files| files.certificate).collect();
        show(output, &certificates)
    }
}

impl From<&DaysArg> for make::Term {
    fn from(args: &DaysArg) -> Self {
        Self { days: args.days, renew: args.renew }
    }
}

/// A host is called by its name or by its address, without a port.
fn hosts(named: &[String]) -> Result<Vec<String>, Failure> {
    let is_name =
        |host: &str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    match named.iter().find(|host| host.parse::<IpAddr>().is_err() && !is_name(host)) {
        Some(host) => Err(Failure::usage(format!("--host `{host}` is neither a name nor an address"))
            .advise("write it without a port, as node1.example.org or 10.0.0.1")),
        None => Ok(named.to_vec()),
    }
}

/// One certificate, as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    file: PathBuf,
    identity: String,
    hosts: Vec<String>,
    authority: String,
    expires: String,
}

fn show(output: Output, files: &[PathBuf]) -> Result<(), Failure> {
    let shown = files.iter().map(|file| seen(file)).collect::<Result<Vec<_>, _>>()?;
    output::show(output, &shown, |shown| {
        let rows = shown.iter().map(|one| {
            let hosts = if one.hosts.is_empty() { "-".into() } else { one.hosts.join(" ") };
            [one.file.display().to_string(), one.identity.clone(), hosts, one.authority.clone(), one.expires.clone()]
        });
        output::table(&["file", "identity", "hosts", "signed by", "expires"], rows)
    })
}

fn seen(file: &Path) -> Result<Shown, Failure> {
    let pem = std::fs::read(file).map_err(|error| Failure::unreadable(file, &error))?;
    let Seen { identity, hosts, authority, expires_at_s } =
        make::read(&pem).map_err(|why| Failure::usage(format!("{}: {why}", file.display())))?;
    let expires = text::timestamp_text(expires_at_s.max(0) as u64 * 1_000_000_000);
    Ok(Shown { file: file.to_owned(), identity, hosts, authority, expires })
}

/// What a cluster on this machine needs, in one go: authorities, nodes, and a client that may everything.
pub fn for_this_machine(dir: &Path, cluster: &str, nodes: impl Iterator<Item = u64>) -> Result<(), Failure> {
    std::fs::create_dir_all(dir).during(|| dir.display().to_string())?;
    let term = make::Term { days: 365, renew: false };
    make::authorities(dir, cluster, 3_650)?;
    let hosts = ["127.0.0.1".to_string(), "::1".into(), "localhost".into()];
    for id in nodes {
        make::node(dir, id, &hosts, term)?;
    }
    let roles = jangbu_proto::grant::Role::ALL.into_iter().collect();
    make::client(dir, Grant { name: DEV_CLIENT.into(), roles, ledgers: Ledgers::All }, term)?;
    Ok(())
}

/// Who a developer is to a cluster on the same machine.
pub const DEV_CLIENT: &str = "dev";

/// How a name may look, told to whoever typed it.
fn check_name(field: &str, name: &str) -> Result<(), Failure> {
    Identity::check_name(field, name).map_err(|malformed| Failure::usage(malformed.to_string()))
}
