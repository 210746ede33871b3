//! `jangbu token`: who may come in by a secret instead of a certificate.
//!
//! Laws
//! * The secret is made here and shown once. The cluster is told its hash, and nobody the secret.
//!
//! Not here: what a token looks like (`proto::token`), when it is believed (`node/src/access.rs`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use jangbu_proto::cluster::v1;
use jangbu_proto::grant::{Ledgers, Role};
use jangbu_proto::token::{self, BearerToken};
use serde::Serialize;

use crate::cli::Global;
use crate::clock::now_ns;
use crate::error::{During as _, Failure, Kind};
use crate::{cluster, course, output, text, whole};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token, and show its secret: once, as the cluster keeps only the hash.
    #[command(after_help = "Examples:
  jangbu token create shop --role writer --ledgers 700,710 --out shop.token
  jangbu token create nightly --role auditor --ledgers all --expires 365d -o json
  jangbu --token-file shop.token --ca certs/client-authority.crt account list --ledger 700

Roles: reader, writer, operator, auditor, admin; see `jangbu cert client --help`. A token has one.")]
    Create(Create),
    /// All tokens, those that hold no longer included.
    List,
    /// End a token for good, on every node that hears of it. Its name is never used again.
    #[command(after_help = "Example:\n  jangbu token revoke shop")]
    Revoke {
        /// The token's name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    /// Its name: letters, digits, '-' and '_'; never used before.
    #[arg(value_parser = name)]
    name: String,
    /// reader, writer, operator, auditor or admin.
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,
    /// The ledgers that it holds for, separated by commas; or `all`.
    #[arg(long, value_name = "LEDGERS", value_parser = ledgers)]
    ledgers: Ledgers,
    /// When it ends: after a time (90d, 12h), at a time (2027-01-01T00:00:00Z), or `never`.
    #[arg(long, value_name = "WHEN", default_value = "90d", value_parser = expiry)]
    expires: Expiry,
    /// Write it into this new file, which only you can read, instead of showing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    Never,
    After(Duration),
    /// ns since 1970.
    At(u64),
}

fn name(text: &str) -> Result<String, String> {
    token::check_id(text).map(|()| text.to_owned()).map_err(|malformed| malformed.reason)
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|malformed: jangbu_proto::Malformed| malformed.reason)
}

fn ledgers(text: &str) -> Result<Ledgers, String> {
    match text.parse() {
        Ok(Ledgers::Only(ledgers)) if ledgers.is_empty() => Err("name at least one ledger, or `all`".into()),
        Ok(ledgers) => Ok(ledgers),
        Err(malformed) => Err(malformed.reason),
    }
}

fn expiry(text: &str) -> Result<Expiry, String> {
    let strange = |_| format!("`{text}`: write 90d, 12h, 2027-01-01T00:00:00Z or never");
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    match days {
        _ if text == "never" => Ok(Expiry::Never),
        Some(0) => Err("a token that has expired is of no use".into()),
        Some(days) => Ok(Expiry::After(Duration::from_secs(u64::from(days) * 24 * 3_600))),
        None if text.contains('T') => text::timestamp(text).map(Expiry::At).map_err(strange),
        None => text::duration(text).map(Expiry::After).map_err(strange),
    }
}

impl Expiry {
    /// ns since 1970; 0: never.
    fn at(self, now: u64) -> Result<u64, Failure> {
        match self {
            Expiry::Never => Ok(0),
            Expiry::At(at) if at <= now => Err(Failure::usage("--expires: that time has passed")),
            Expiry::At(at) => Ok(at),
            Expiry::After(time) => Ok(now.saturating_add(time.as_nanos() as u64)),
        }
    }
}

/// As the cluster knows it.
#[derive(Serialize)]
struct Token {
    name: String,
    role: &'static str,
    /// `all`, or numbers joined with `+`.
    ledgers: String,
    /// holds, expired or revoked; by this machine's clock.
    state: &'static str,
    /// RFC 3339; `-`: it never was, or never will be.
    created: String,
    expires: String,
    revoked: String,
}

impl Token {
    fn new(token: v1::Token, now: u64) -> Token {
        let state = match (token.revoked_at, token.expires_at) {
            (1.., _) => "revoked",
            (_, expires_at) if expires_at > 0 && expires_at <= now => "expired",
            _ => "holds",
        };
        let role = role_name(token.role());
        let ledgers = if token.ledgers.is_empty() { Ledgers::All } else { Ledgers::Only(token.ledgers) };
        Token {
            name: token.token_id,
            role,
            ledgers: ledgers.to_string(),
            state,
            created: text::timestamp_text(token.created_at),
            expires: text::timestamp_text(token.expires_at),
            revoked: text::timestamp_text(token.revoked_at),
        }
    }
}

fn role_name(role: v1::Role) -> &'static str {
    let known = Role::ALL.into_iter().find(|known| wire(*known) == role);
    known.map_or("?", Role::name)
}

fn wire(role: Role) -> v1::Role {
    match role {
        Role::Reader => v1::Role::Reader,
        Role::Writer => v1::Role::Writer,
        Role::Operator => v1::Role::Operator,
        Role::Auditor => v1::Role::Auditor,
        Role::Admin => v1::Role::Admin,
    }
}

/// A token that was just made.
#[derive(Serialize)]
struct Made {
    name: String,
    role: &'static str,
    ledgers: String,
    expires: String,
    /// Shown this once; absent: it is in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
}

impl Made {
    fn text(&self) -> String {
        let mut rows = vec![
            ("name", self.name.clone()),
            ("role", self.role.to_owned()),
            ("ledgers", self.ledgers.clone()),
            ("expires", self.expires.clone()),
        ];
        rows.extend(self.token.iter().map(|token| ("token", token.clone())));
        rows.extend(self.file.iter().map(|file| ("file", file.display().to_string())));
        output::pairs(rows)
    }
}

impl Command {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Command::Create(wish) => create(global, wish).await,
            Command::List => list(global).await,
            Command::Revoke { name } => {
                let (operator, _) = cluster::any(global).await?;
                operator.revoke_token(name.clone()).await?;
                output::note(format!("token {name} is revoked, on every node that has heard of it"));
                list(global).await
            }
        }
    }
}

async fn create(global: &Global, wish: Create) -> Result<(), Failure> {
    let (operator, _) = cluster::any(global).await?;
    let made =
        BearerToken::new(&wish.name, rand::random()).map_err(|malformed| Failure::usage(malformed.to_string()))?;
    let expires_at = wish.expires.at(now_ns())?;
    // Before the cluster knows it: a token that can't be kept must not be there.
    if let Some(path) = &wish.out {
        write_new(path, made.to_secret().reveal())?;
    }
    let asked = v1::Token {
        token_id: wish.name.clone(),
        secret_hash: made.hash().to_vec().into(),
        role: wire(wish.role).into(),
        ledgers: match &wish.ledgers {
            Ledgers::All => Vec::new(),
            Ledgers::Only(ledgers) => ledgers.clone(),
        },
        expires_at,
        ..v1::Token::default()
    };
    course::next(doubt(&wish));
    if let Err(failure) = operator.create_token(asked).await {
        let is_unknown = failure.kind == Kind::OutcomeUnknown;
        return Err(if is_unknown { failure.advise(doubt(&wish)) } else { without_file(failure, &wish) });
    }
    if wish.out.is_none() {
        output::note("keep the token now: it is not shown again");
    }
    let made = Made {
        name: wish.name,
        role: wish.role.name(),
        ledgers: wish.ledgers.to_string(),
        expires: text::timestamp_text(expires_at),
        token: wish.out.is_none().then(|| made.to_secret().reveal().to_owned()),
        file: wish.out,
    };
    output::show(global.output, &made, Made::text)
}

/// It may be there by now; with a file, it is of use then.
fn doubt(wish: &Create) -> String {
    let name = &wish.name;
    match &wish.out {
        Some(path) => format!("if `jangbu token list` has {name}, the token in {} is good", path.display()),
        None => format!("if `jangbu token list` has {name}, revoke it: nobody knows its secret; then make another"),
    }
}

/// Nothing was made, so there is nothing to keep.
fn without_file(failure: Failure, wish: &Create) -> Failure {
    if let Some(path) = &wish.out {
        let _ = std::fs::remove_file(path); // what is left of it opens nothing
    }
    failure
}

fn write_new(path: &Path, token: &str) -> Result<(), Failure> {
    whole::create(path, format!("{token}\n").as_bytes(), 0o600).during(|| path.display().to_string())
}

async fn list(global: &Global) -> Result<(), Failure> {
    let (operator, _) = cluster::any(global).await?;
    let now = now_ns();
    let tokens: Vec<Token> =
        operator.list_tokens().await?.tokens.into_iter().map(|token| Token::new(token, now)).collect();
    output::show(global.output, &tokens, |tokens| {
        let rows = tokens.iter().map(|token| {
            [
                token.name.clone(),
                token.role.to_owned(),
                token.ledgers.clone(),
                token.state.to_owned(),
                token.created.clone(),
                token.expires.clone(),
                token.revoked.clone(),
            ]
        });
        output::table(&["name", "role", "ledgers", "state", "created", "expires", "revoked"], rows)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_when_it_was_told_to() {
        let day = 24 * 3_600 * 1_000_000_000;
        let at = |text: &str| expiry(text).unwrap().at(1_000).unwrap();
        assert_eq!(at("never"), 0);
        assert_eq!(at("90d"), 1_000 + 90 * day);
        assert_eq!(at("12h"), 1_000 + day / 2);
        assert_eq!(at("2027-01-01T00:00:00Z"), 1_798_761_600_000_000_000);
        assert!(expiry("1970-01-01T00:00:00Z").unwrap().at(1_000).is_err(), "that has passed");
        for text in ["", "0d", "soon", "90", "-1d", "1.5d"] {
            assert!(expiry(text).is_err() || text == "90", "{text}");
        }
    }

    #[test]
    fn a_token_is_told_by_its_state() {
        let state = |token: v1::Token| Token::new(token, 100).state;
        assert_eq!(state(v1::Token::default()), "holds");
        assert_eq!(state(v1::Token { expires_at: 101, ..Default::default() }), "holds");
        assert_eq!(state(v1::Token { expires_at: 100, ..Default::default() }), "expired");
        assert_eq!(state(v1::Token { expires_at: 100, revoked_at: 1, ..Default::default() }), "revoked");
    }
}
