//! Who may what: a name, its roles, and the ledgers they hold for; and how a certificate says so.
//!
//!     jangbu://CLUSTER/node/3                                        node 3 of the cluster
//!     jangbu://CLUSTER/client/shop?roles=reader+writer&ledgers=700   a client
//!     jangbu://CLUSTER/client/anna?roles=operator&ledgers=all        another
//!
//! Such a URI is the subject alternative name of a certificate that our authorities have signed.
//!
//! Laws
//! * What isn't said isn't granted: no role without `roles`, no ledger without `ledgers`.
//! * A URI reads back as what was written, or is refused with the part that makes no sense.
//!
//! Not here: which call needs which role (`node/src/access.rs`), how certificates are checked (`transport/tls.rs`).

use std::{fmt, str::FromStr, sync::Arc};

use crate::Malformed;

const SCHEME: &str = "jangbu://";
/// Of a cluster's or a client's name.
pub const NAME_BYTES_MAX: usize = 64;
/// More belong under a name of their own, or under `all`.
pub const LEDGERS_MAX: usize = 100;

/// What a client may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads accounts, transfers and balances.
    Reader,
    /// Creates accounts and transfers, and reads, as asking again after a doubt needs it.
    Writer,
    /// Runs the cluster: its members, its leader, snapshots.
    Operator,
    /// Reads everything, money and administration, and verifies; changes nothing.
    Auditor,
    /// Grants and revokes, and whatever an operator does. Moves no money.
    Admin,
}

impl Role {
    pub const ALL: [Role; 5] = [Role::Reader, Role::Writer, Role::Operator, Role::Auditor, Role::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Role::Reader => "reader",
            Role::Writer => "writer",
            Role::Operator => "operator",
            Role::Auditor => "auditor",
            Role::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| {
            Malformed::new("roles", format!("`{text}` is none of reader, writer, operator, auditor, admin"))
        })
    }
}

/// A set of roles.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    pub const NONE: Roles = Roles(0);

    pub const fn of<const N: usize>(roles: [Role; N]) -> Self {
        let (mut set, mut i) = (0, 0);
        while i < N {
            set |= 1 << roles[i] as u8;
            i += 1;
        }
        Self(set)
    }

    pub fn with(self, role: Role) -> Self {
        Self(self.0 | 1 << role as u8)
    }

    pub fn has_any_of(self, others: Roles) -> bool {
        self.0 & others.0 != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has_any_of(Roles::NONE.with(*role)))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        roles.into_iter().fold(Roles::NONE, Roles::with)
    }
}

/// Joined with `+`, as in a certificate.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Role::name).collect();
        f.write_str(&names.join("+"))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roles({self})")
    }
}

impl FromStr for Roles {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        text.split(['+', ',']).filter(|part| !part.is_empty()).map(Role::from_str).collect()
    }
}

/// The ledgers that a grant holds for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ledgers {
    All,
    /// Sorted, each once, at most [`LEDGERS_MAX`].
    Only(Vec<u32>),
}

impl Ledgers {
    pub fn include(&self, ledger: u32) -> bool {
        match self {
            Ledgers::All => true,
            Ledgers::Only(ledgers) => ledgers.binary_search(&ledger).is_ok(),
        }
    }
}

/// `all`, or numbers joined with `+`, as in a certificate.
impl fmt::Display for Ledgers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ledgers::All => f.write_str("all"),
            Ledgers::Only(ledgers) => {
                let numbers: Vec<String> = ledgers.iter().map(u32::to_string).collect();
                f.write_str(&numbers.join("+"))
            }
        }
    }
}

impl FromStr for Ledgers {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if text == "all" {
            return Ok(Ledgers::All);
        }
        let number = |part: &str| match part.parse() {
            Ok(0) | Err(_) => {
                Err(Malformed::new("ledgers", format!("`{part}` is no ledger: write `all` or numbers from 1")))
            }
            Ok(number) => Ok(number),
        };
        let mut ledgers: Vec<u32> =
            text.split(['+', ',']).filter(|part| !part.is_empty()).map(number).collect::<Result<_, _>>()?;
        ledgers.sort_unstable();
        ledgers.dedup();
        if ledgers.len() > LEDGERS_MAX {
            return Err(Malformed::new(
                "ledgers",
                format!("more than {LEDGERS_MAX}: write `all`, or use several names"),
            ));
        }
        Ok(Ledgers::Only(ledgers))
    }
}

/// What somebody may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Letters, digits, `.`, `_`, `-`; 1 to [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    pub roles: Roles,
    pub ledgers: Ledgers,
}

/// What a certificate says of its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    Node { cluster: String, id: u64 },
    Client { cluster: String, grant: Arc<Grant> },
}

impl Identity {
    /// Whether a name may be a cluster's or a client's.
    pub fn check_name(field: &str, name: &str) -> Result<(), Malformed> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match name.len() {
            1..=NAME_BYTES_MAX if name.bytes().all(is_good) => Ok(()),
            _ => Err(Malformed::new(
                field,
                format!("`{name}` is not 1 to {NAME_BYTES_MAX} letters, digits, dots, hyphens and underscores"),
            )),
        }
    }

    /// Is this text one of ours at all?
    pub fn is_meant_by(uri: &str) -> bool {
        uri.starts_with(SCHEME)
    }

    pub fn cluster(&self) -> &str {
        match self {
            Identity::Node { cluster, .. } | Identity::Client { cluster, .. } => cluster,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Node { cluster, id } => write!(f, "{SCHEME}{cluster}/node/{id}"),
            Identity::Client { cluster, grant } => {
                let Grant { name, roles, ledgers } = &**grant;
                write!(f, "{SCHEME}{cluster}/client/{name}?roles={roles}&ledgers={ledgers}")
            }
        }
    }
}

impl FromStr for Identity {
    type Err = Malformed;

    fn from_str(uri: &str) -> Result<Self, Malformed> {
        let strange =
            || Malformed::new("identity", format!("`{uri}` is not {SCHEME}CLUSTER/node/N or …/client/NAME?…"));
        let mut parts = uri.strip_prefix(SCHEME).ok_or_else(strange)?.splitn(3, '/');
        let (Some(cluster), Some(kind), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(strange());
        };
        Identity::check_name("cluster", cluster)?;
        let cluster = cluster.to_owned();
        match kind {
            "node" => match rest.parse() {
                Ok(id) if id > 0 => Ok(Identity::Node { cluster, id }),
                _ => Err(Malformed::new("node", format!("`{rest}` is no node id"))),
            },
            "client" => Ok(Identity::Client { cluster, grant: Arc::new(grant(rest)?) }),
            _ => Err(strange()),
        }
    }
}

fn grant(text: &str) -> Result<Grant, Malformed> {
    let (name, query) = text.split_once('?').unwrap_or((text, ""));
    Identity::check_name("client", name)?;
    let mut grant = Grant { name: name.to_owned(), roles: Roles::NONE, ledgers: Ledgers::Only(Vec::new()) };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("roles", roles)) => grant.roles = roles.parse()?,
            Some(("ledgers", ledgers)) => grant.ledgers = ledgers.parse()?,
            // Whoever made it meant something by it; guessing what could grant too much.
            _ => return Err(Malformed::new("client", format!("`{pair}` is neither roles=… nor ledgers=…"))),
        }
    }
    Ok(grant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_was_written() {
        for uri in [
            "jangbu://demo/node/3",
            "jangbu://demo.eu-1/client/shop?roles=reader+writer&ledgers=700+710",
            "jangbu://demo/client/anna?roles=operator+auditor+admin&ledgers=all",
            "jangbu://demo/client/nobody?roles=&ledgers=",
        ] {
            assert_eq!(uri.parse::<Identity>().unwrap().to_string(), uri);
        }
    }

    #[test]
    fn what_is_not_said_is_not_granted() {
        let Identity::Client { grant, .. } = "jangbu://demo/client/shop".parse().unwrap() else { panic!("a client") };
        assert_eq!(grant.roles, Roles::NONE);
        assert!(!grant.ledgers.include(1));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (uri, field) in [
            ("https://demo/node/3", "identity"),
            ("jangbu://demo/node", "identity"),
            ("jangbu://demo/king/3", "identity"),
            ("jangbu:///node/3", "cluster"),
            ("jangbu://a b/node/3", "cluster"),
            ("jangbu://demo/node/0", "node"),
            ("jangbu://demo/node/-3", "node"),
            ("jangbu://demo/node/3/4", "node"),
            ("jangbu://demo/client/?roles=reader", "client"),
            ("jangbu://demo/client/shop?role=reader", "client"),
            ("jangbu://demo/client/shop?roles=king", "roles"),
            ("jangbu://demo/client/shop?ledgers=0", "ledgers"),
            ("jangbu://demo/client/shop?ledgers=ALL", "ledgers"),
        ] {
            assert_eq!(uri.parse::<Identity>().unwrap_err().field, field, "{uri}");
        }
    }
}
