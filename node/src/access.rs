//! Who may what: the one table of calls and roles, and the guards that go by it.
//!
//!     certificate ─┐
//!                  ├─► Grant (name, roles, ledgers) ──► TABLE: may it make this call? ──► Access, among the call's extensions
//!     token ───────┘                                                                         └► the service asks it for ledgers
//!
//! Laws
//! * Deny by default: a call that isn't in the table is nobody's, a role that wasn't granted isn't there.
//! * A caller is believed for what its certificate or its token says, and only while that holds: also on a connection, and in a
//!   stream, that began before.
//! * Whoever shows a token is who the token says, whatever the certificate beside it; and nobody, if it isn't good. In plain text
//!   a token is refused: whoever listened has it.
//! * Whoever may not is told so before a byte of the request is read, and nothing was done.
//! * A node speaks for the callers whose calls it hands on; nobody else does.
//!
//! Without TLS nobody can prove anything, and everybody may everything: see `tls.mode` in `config.rs`.
//!
//! Not here: how certificates are checked (`proto::transport`), what a grant looks like in one (`proto::grant`), how tokens are made
//! and revoked (`raft_store::admin`).

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Extensions, HeaderMap, header::AUTHORIZATION};
use jangbu_ledger::{Account, Transfer};
use jangbu_proto::{
    batch::Operation,
    cluster::v1::{self, Token},
    grant::{Grant, Identity, Ledgers, Role, Roles},
    reason,
    token::{self, BearerToken},
    transport::{Caller, Guard, Holder},
};
use jangbu_raft_store::StateReader;
use tokio::time::Instant;
use tonic::{Request, Status, metadata::MetadataValue};

use crate::{api::status::to_status, environment::Clock, error::CallError};

/// Whom a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Also those who don't say who they are: balancers ask whether a node serves.
    Anybody,
    /// Those who have one of these roles.
    Roles(Roles),
}

const READ: For = For::Roles(Roles::of([Role::Reader, Role::Writer, Role::Auditor]));
const WRITE: For = For::Roles(Roles::of([Role::Writer]));
const LOOK: For = For::Roles(Roles::of([Role::Operator, Role::Auditor, Role::Admin]));
const OPERATE: For = For::Roles(Roles::of([Role::Operator, Role::Admin]));
const GRANT: For = For::Roles(Roles::of([Role::Admin]));
const KNOWN: For = For::Roles(Roles::of(Role::ALL));

/// Every call of the client door, in order of its path.
pub const TABLE: &[(&str, For)] = &[
    ("/cluster.v1.Operator/AddMember", OPERATE),
    ("/cluster.v1.Operator/Audit", LOOK),
    ("/cluster.v1.Operator/CreateToken", GRANT),
    ("/cluster.v1.Operator/Drain", OPERATE),
    ("/cluster.v1.Operator/FinalizeUpgrade", OPERATE),
    ("/cluster.v1.Operator/Identify", LOOK),
    ("/cluster.v1.Operator/Initialize", OPERATE),
    ("/cluster.v1.Operator/ListTokens", LOOK),
    ("/cluster.v1.Operator/MoveLeader", OPERATE),
    ("/cluster.v1.Operator/PromoteMember", OPERATE),
    ("/cluster.v1.Operator/ReadLog", OPERATE),
    ("/cluster.v1.Operator/ReadSnapshot", OPERATE),
    ("/cluster.v1.Operator/RecordBackup", OPERATE),
    ("/cluster.v1.Operator/RemoveMember", OPERATE),
    ("/cluster.v1.Operator/RevokeToken", GRANT),
    ("/cluster.v1.Operator/Status", LOOK),
    ("/cluster.v1.Operator/TakeSnapshot", OPERATE),
    ("/cluster.v1.Operator/UpdateMember", OPERATE),
    ("/cluster.v1.Operator/Verify", LOOK),
    ("/grpc.health.v1.Health/Check", For::Anybody),
    ("/grpc.health.v1.Health/List", For::Anybody),
    ("/grpc.health.v1.Health/Watch", For::Anybody),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", KNOWN),
    ("/jangbu.v1.Ledger/CreateAccounts", WRITE),
    ("/jangbu.v1.Ledger/CreateTransfers", WRITE),
    ("/jangbu.v1.Ledger/GetAccountBalances", READ),
    ("/jangbu.v1.Ledger/GetAccountTransfers", READ),
    ("/jangbu.v1.Ledger/GetChangeEvents", READ),
    ("/jangbu.v1.Ledger/LookupAccounts", READ),
    ("/jangbu.v1.Ledger/LookupTransfers", READ),
    ("/jangbu.v1.Ledger/QueryAccounts", READ),
    ("/jangbu.v1.Ledger/QueryTransfers", READ),
    ("/jangbu.v1.Ledger/Submit", WRITE),
];

/// Whom the call at this path is for. What isn't in the table is for nobody.
pub fn whom(path: &str) -> For {
    match TABLE.binary_search_by(|(known, _)| (*known).cmp(path)) {
        Ok(at) => TABLE[at].1,
        Err(_) => For::Roles(Roles::NONE),
    }
}

/// What a call may do; among the extensions of each request, put there by the guard of the door.
#[derive(Debug, Clone)]
pub struct Access {
    /// `None`: everything, as nobody can prove anything.
    grant: Option<Arc<Grant>>,
    /// What proved the grant.
    proof: Option<Arc<Proof>>,
    /// Who is said to call, where a peer hands on what it was asked.
    handed_on_for: Option<String>,
    /// Where the caller's connection came from.
    from: Option<IpAddr>,
    allowance: Option<Arc<Allowance>>,
}

impl Access {
    /// Of a request that came through a door.
    pub fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get::<Access>().cloned().expect("a guard stands at every door")
    }

    /// The caller's name; `-` where none was proved.
    pub fn who(&self) -> &str {
        let own = self.grant.as_ref().map(|grant| grant.name.as_str());
        self.handed_on_for.as_deref().or(own).unwrap_or("-")
    }

    /// Where the caller's connection came from, as far as the transport knows; of a call that was handed on, as far as the node
    /// knew that handed it on.
    pub fn address(&self) -> Option<IpAddr> {
        self.from
    }

    /// The ledgers that may be touched; `None`: all.
    pub fn scope(&self) -> Option<&[u32]> {
        match &self.grant.as_ref()?.ledgers {
            Ledgers::All => None,
            Ledgers::Only(ledgers) => Some(ledgers),
        }
    }

    pub fn may_touch(&self, ledger: u32) -> bool {
        self.grant.as_ref().is_none_or(|grant| grant.ledgers.include(ledger))
    }

    /// Refuses records of ledgers that weren't granted. A post or void that leaves its ledger to the pending transfer (0) is
    /// one of them: which ledger that is can't be told before it is done.
    pub fn check_records(&self, operation: Operation, records: &[u8]) -> Result<(), CallError> {
        if self.scope().is_none() {
            return Ok(());
        }
        let records = records.as_chunks().0;
        let ledgers: &mut dyn Iterator<Item = u32> = match operation {
            Operation::CreateAccounts => &mut records.iter().map(|record| Account::decode(record).ledger),
            Operation::CreateTransfers => &mut records.iter().map(|record| Transfer::decode(record).ledger),
        };
        for (index, ledger) in ledgers.enumerate() {
            if !self.may_touch(ledger) {
                return Err(self.not_granted(&format!("event {index} is of ledger {ledger}")));
            }
        }
        Ok(())
    }

    /// Refuses a question over all ledgers, or over one that wasn't granted.
    pub fn check_query(&self, ledger: u32) -> Result<(), CallError> {
        match ledger {
            _ if self.may_touch(ledger) => Ok(()),
            0 => Err(self.not_granted("this asks for all ledgers: set the filter's `ledger`")),
            ledger => Err(self.not_granted(&format!("this asks for ledger {ledger}"))),
        }
    }

    /// Refuses what can't be divided by ledgers.
    pub fn check_all(&self) -> Result<(), CallError> {
        match self.scope() {
            None => Ok(()),
            Some(_) => Err(self.not_granted("this tells of all ledgers")),
        }
    }

    fn not_granted(&self, what: &str) -> CallError {
        let granted = self.grant.as_ref().map(|grant| grant.ledgers.to_string()).unwrap_or_default();
        let message = format!("{what}; `{}` is granted ledgers {granted}", self.who());
        CallError::denied(reason::LEDGER_NOT_GRANTED, message)
    }

    /// Counts one more call against what the caller may make in a second.
    fn count_one(&self) -> Result<(), CallError> {
        self.allowance.as_ref().map_or(Ok(()), |allowance| allowance.take())
    }

    /// Admits one more request of a stream: counts it, and asks whether what was shown when the stream began still holds.
    pub fn admit_one_more(&self) -> Result<(), CallError> {
        self.proof.as_ref().map_or(Ok(()), |proof| proof.still_holds())?;
        self.count_one()
    }
}

/// On calls that a node hands on to the leader: for whom, …
const FOR: &str = "jangbu-caller";
/// … and from where that one called.
const FROM: &str = "jangbu-caller-address";

/// Says for whom a call is handed on.
pub fn hand_on<T>(access: &Access, request: &mut Request<T>) {
    let address = access.address().map(|address| address.to_string()).unwrap_or_default();
    for (header, value) in [(FOR, access.who()), (FROM, &address)] {
        if let Ok(value) = MetadataValue::try_from(value) {
            request.metadata_mut().insert(header, value);
        }
    }
}

/// How a caller's calls are kept apart in time: so many a second, and a second's worth at once.
#[derive(Debug)]
struct Allowance {
    interval: Duration,
    /// When the next call would be due if all came evenly.
    due: Mutex<Instant>,
}

impl Allowance {
    fn new(calls_per_second: u32) -> Self {
        Self { interval: Duration::from_secs(1) / calls_per_second, due: Mutex::new(Instant::now()) }
    }

    fn take(&self) -> Result<(), CallError> {
        let now = Instant::now();
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (*due).max(now) + self.interval;
        let ahead = next.saturating_duration_since(now);
        if ahead > Duration::from_secs(1) {
            let what = "more calls than this caller may make (limits.identity_calls_per_second)";
            return Err(CallError::Overloaded { what, retry_after: ahead - Duration::from_secs(1) });
        }
        *due = next;
        Ok(())
    }
}

/// The tokens that a replica knows, and its log time.
pub trait Tokens: Send + Sync + 'static {
    /// Whatever its state.
    fn token(&self, id: &str) -> Option<Token>;
    /// Nanoseconds since the Unix epoch, of the last entry applied.
    fn log_time_ns(&self) -> u64;
}

impl Tokens for StateReader {
    fn token(&self, id: &str) -> Option<Token> {
        StateReader::token(self, id)
    }

    fn log_time_ns(&self) -> u64 {
        self.applied().timestamp
    }
}

/// What certificates and tokens are held against.
pub struct Registry {
    /// Whose certificates are believed.
    pub cluster: String,
    pub clock: Arc<dyn Clock>,
    pub tokens: Arc<dyn Tokens>,
}

impl Registry {
    /// The token as the cluster knows it, if it holds.
    fn token(&self, shown: &BearerToken) -> Result<Token, CallError> {
        let known = self.tokens.token(shown.id()).filter(|known| known.secret_hash[..] == shown.hash());
        let Some(known) = known else {
            let message = "this token isn't known here; a node that is behind learns of a new one in a moment";
            return Err(CallError::unauthenticated(reason::NO_IDENTITY, message));
        };
        if known.revoked_at > 0 {
            let message = format!("token `{}` was revoked", shown.id());
            return Err(CallError::unauthenticated(reason::IDENTITY_REVOKED, message));
        }
        // A clock that is behind doesn't lengthen a token's life.
        let now = self.clock.wall_ns().max(self.tokens.log_time_ns());
        if known.expires_at > 0 && known.expires_at <= now {
            let message = format!("token `{}` has expired", shown.id());
            return Err(CallError::unauthenticated(reason::IDENTITY_EXPIRED, message));
        }
        Ok(known)
    }
}

/// What proved who the caller is, and what it is held against.
struct Proof {
    shown: Shown,
    registry: Arc<Registry>,
}

enum Shown {
    Certificate(Holder),
    Token(BearerToken),
}

impl Proof {
    fn still_holds(&self) -> Result<(), CallError> {
        let Registry { cluster, clock, .. } = &*self.registry;
        match &self.shown {
            Shown::Certificate(holder) => valid(holder, cluster, &**clock).map(drop),
            Shown::Token(token) => self.registry.token(token).map(drop),
        }
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.shown {
            Shown::Certificate(holder) => write!(f, "{holder:?}"),
            Shown::Token(token) => write!(f, "{token:?}"),
        }
    }
}

/// Of all callers that were seen. Names are of certificates and tokens, so there are not many; beyond this they begin afresh.
const ALLOWANCES_MAX: usize = 10_000;

/// Stands at the client door.
pub struct ClientGuard {
    /// `None`: without TLS, when everybody may everything.
    registry: Option<Arc<Registry>>,
    calls_per_second: u32,
    allowances: Mutex<BTreeMap<String, Arc<Allowance>>>,
}

impl ClientGuard {
    /// `calls_per_second`: of each identity; 0: no bound.
    pub fn new(registry: Option<Registry>, calls_per_second: u32) -> Self {
        Self { registry: registry.map(Arc::new), calls_per_second, allowances: Mutex::default() }
    }

    fn access(&self, caller: &Caller, path: &str, headers: &HeaderMap) -> Result<Access, CallError> {
        let (from, handed_on_for) = (caller.address(), None);
        let needed = match whom(path) {
            For::Roles(needed) => needed,
            For::Anybody => {
                let nothing = Grant { name: "-".into(), roles: Roles::NONE, ledgers: Ledgers::Only(Vec::new()) };
                return Ok(Access {
                    grant: Some(Arc::new(nothing)),
                    proof: None,
                    handed_on_for,
                    from,
                    allowance: None,
                });
            }
        };
        let shown = shown_token(headers)?;
        let Some(registry) = &self.registry else {
            if shown.is_some() {
                let message = "a token in plain text is everybody's who listens: revoke it, and call with TLS (--ca)";
                return Err(CallError::unauthenticated(reason::NO_IDENTITY, message));
            }
            let allowance = self.allowance(&from.map(|from| from.to_string()).unwrap_or_default());
            return Ok(Access { grant: None, proof: None, handed_on_for, from, allowance });
        };
        let (grant, shown) = proved(registry, caller, shown)?;
        if !grant.roles.has_any_of(needed) {
            return Err(role_missing(&grant, path, needed));
        }
        let allowance = self.allowance(&grant.name);
        let proof = Some(Arc::new(Proof { shown, registry: registry.clone() }));
        Ok(Access { grant: Some(grant), proof, handed_on_for, from, allowance })
    }

    fn allowance(&self, name: &str) -> Option<Arc<Allowance>> {
        if self.calls_per_second == 0 {
            return None;
        }
        let mut allowances = self.allowances.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(allowance) = allowances.get(name) {
            return Some(allowance.clone());
        }
        if allowances.len() >= ALLOWANCES_MAX {
            allowances.clear();
        }
        let allowance = Arc::new(Allowance::new(self.calls_per_second));
        allowances.insert(name.to_owned(), allowance.clone());
        Some(allowance)
    }
}

/// The token that a call carries, if it carries any.
fn shown_token(headers: &HeaderMap) -> Result<Option<BearerToken>, CallError> {
    let strange = |what: &str| CallError::unauthenticated(reason::NO_IDENTITY, format!("{}: {what}", token::HEADER));
    let mut values = headers.get_all(AUTHORIZATION).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let text = value.to_str().ok().and_then(|text| text.strip_prefix(token::SCHEME));
            let text = text.ok_or_else(|| strange("takes `Bearer` and a token"))?;
            BearerToken::parse(text).map(Some).map_err(|malformed| strange(&malformed.to_string()))
        }
        (Some(_), Some(_)) => Err(strange("is there more than once")),
    }
}

/// What the caller proved that it was granted, and by what.
fn proved(registry: &Registry, caller: &Caller, token: Option<BearerToken>) -> Result<(Arc<Grant>, Shown), CallError> {
    if let Some(token) = token {
        let grant = granted_by(registry.token(&token)?);
        return Ok((Arc::new(grant), Shown::Token(token)));
    }
    let Some(holder) = caller.holder() else {
        let message = "who calls? Show a client certificate of this cluster (jangbu: --cert and --key), or a token \
                       (--token-file)";
        return Err(CallError::unauthenticated(reason::NO_IDENTITY, message));
    };
    match valid(holder, &registry.cluster, &*registry.clock)? {
        Identity::Client { grant, .. } => Ok((grant.clone(), Shown::Certificate(holder.clone()))),
        Identity::Node { id, .. } => {
            let message = format!("this is the client door, and node {id} is no client");
            Err(CallError::unauthenticated(reason::NO_IDENTITY, message))
        }
    }
}

/// Named so that no certificate can be: a token and a certificate of one name are two identities.
fn granted_by(token: Token) -> Grant {
    let roles = match token.role() {
        v1::Role::Unspecified => Roles::NONE,
        v1::Role::Reader => Roles::of([Role::Reader]),
        v1::Role::Writer => Roles::of([Role::Writer]),
        v1::Role::Operator => Roles::of([Role::Operator]),
        v1::Role::Auditor => Roles::of([Role::Auditor]),
        v1::Role::Admin => Roles::of([Role::Admin]),
    };
    let mut ledgers = token.ledgers;
    ledgers.sort_unstable();
    ledgers.dedup();
    let ledgers = if ledgers.is_empty() { Ledgers::All } else { Ledgers::Only(ledgers) };
    Grant { name: format!("token:{}", token.token_id), roles, ledgers }
}

fn role_missing(grant: &Grant, path: &str, needed: Roles) -> CallError {
    let call = path.rsplit('/').next().unwrap_or(path);
    let message = if needed == Roles::NONE {
        format!("{call} is a call for nobody")
    } else {
        format!("{call} needs one of the roles {needed}; `{}` is granted {}", grant.name, shown(grant.roles))
    };
    CallError::denied(reason::ROLE_MISSING, message)
}

fn shown(roles: Roles) -> String {
    if roles == Roles::NONE { "none".into() } else { roles.to_string() }
}

/// What a certificate says, if it is one of this cluster and still holds.
fn valid<'a>(holder: &'a Holder, cluster: &str, clock: &dyn Clock) -> Result<&'a Identity, CallError> {
    let identity = match &holder.identity {
        Ok(identity) => identity,
        Err(malformed) => return Err(CallError::unauthenticated(reason::NO_IDENTITY, malformed.to_string())),
    };
    if holder.expires_at_s <= (clock.wall_ns() / 1_000_000_000) as i64 {
        let message = format!("the certificate of {identity} has expired");
        return Err(CallError::unauthenticated(reason::IDENTITY_EXPIRED, message));
    }
    if identity.cluster() != cluster {
        let message = format!("{identity} belongs to another cluster than this one, {cluster}");
        return Err(CallError::denied(reason::WRONG_CLUSTER, message));
    }
    Ok(identity)
}

impl Guard for ClientGuard {
    fn admit(&self, caller: &Caller, path: &str, headers: &HeaderMap, found: &mut Extensions) -> Result<(), Status> {
        let access = self.access(caller, path, headers).map_err(to_status)?;
        access.count_one().map_err(to_status)?;
        found.insert(access);
        Ok(())
    }
}

/// The node that calls, as its certificate proves; among the extensions of each request at the peer door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerCaller {
    Proved(u64),
    /// Without TLS.
    Unproved,
}

impl PeerCaller {
    pub fn of<T>(request: &Request<T>) -> Self {
        *request.extensions().get::<PeerCaller>().expect("a guard stands at every door")
    }

    /// Whether the caller may speak as this node.
    pub fn may_be(self, node_id: u64) -> bool {
        match self {
            Self::Proved(proved) => proved == node_id,
            Self::Unproved => true,
        }
    }
}

/// Stands at the peer door: only nodes of this cluster pass.
pub struct PeerGuard {
    /// `None`: without TLS.
    cluster: Option<String>,
    clock: Arc<dyn Clock>,
}

impl PeerGuard {
    pub fn new(cluster: Option<String>, clock: Arc<dyn Clock>) -> Self {
        Self { cluster, clock }
    }

    fn peer(&self, caller: &Caller) -> Result<PeerCaller, CallError> {
        let Some(cluster) = &self.cluster else { return Ok(PeerCaller::Unproved) };
        let holder = caller.holder().ok_or_else(|| {
            CallError::unauthenticated(reason::NO_IDENTITY, "the peer door is for nodes, which show a certificate")
        })?;
        match valid(holder, cluster, &*self.clock)? {
            Identity::Node { id, .. } => Ok(PeerCaller::Proved(*id)),
            client @ Identity::Client { .. } => {
                Err(CallError::denied(reason::ROLE_MISSING, format!("the peer door is for nodes; {client} is none")))
            }
        }
    }
}

impl Guard for PeerGuard {
    /// A stalled snapshot must not hold up votes.
    fn trusts(&self) -> bool {
        true
    }

    fn admit(&self, caller: &Caller, _: &str, headers: &HeaderMap, found: &mut Extensions) -> Result<(), Status> {
        found.insert(self.peer(caller).map_err(to_status)?);
        // Whoever hands a call on has admitted it.
        let said = |header: &str| headers.get(header).and_then(|value| value.to_str().ok());
        let handed_on_for = said(FOR).map(str::to_owned);
        // A program before this one doesn't say from where.
        let from = said(FROM).map_or_else(|| caller.address(), |address| address.parse().ok());
        found.insert(Access { grant: None, proof: None, handed_on_for, from, allowance: None });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(ledgers: &str) -> Access {
        let grant = Grant { name: "shop".into(), roles: Roles::of(Role::ALL), ledgers: ledgers.parse().unwrap() };
        Access { grant: Some(Arc::new(grant)), proof: None, handed_on_for: None, from: None, allowance: None }
    }

    struct At(u64);
    impl Clock for At {
        fn wall_ns(&self) -> u64 {
            self.0
        }
    }

    struct Known {
        tokens: Vec<Token>,
        log_time_ns: u64,
    }
    impl Tokens for Known {
        fn token(&self, id: &str) -> Option<Token> {
            self.tokens.iter().find(|token| token.token_id == id).cloned()
        }
        fn log_time_ns(&self) -> u64 {
            self.log_time_ns
        }
    }

    fn bearer() -> BearerToken {
        BearerToken::new("shop", [7; 32]).unwrap()
    }

    fn known() -> Token {
        let hash = bearer().hash().to_vec();
        Token { token_id: "shop".into(), secret_hash: hash.into(), role: v1::Role::Writer.into(), ..Token::default() }
    }

    fn registry(token: Token, wall_ns: u64, log_time_ns: u64) -> Registry {
        let tokens = Known { tokens: vec![token], log_time_ns };
        Registry { cluster: "test".into(), clock: Arc::new(At(wall_ns)), tokens: Arc::new(tokens) }
    }

    fn asks(registry: Option<Registry>, headers: &[&str]) -> Result<Access, CallError> {
        let headers = headers.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect();
        ClientGuard::new(registry, 0).access(&Caller::default(), "/jangbu.v1.Ledger/CreateTransfers", &headers)
    }

    fn refusal(answer: Result<Access, CallError>) -> &'static str {
        match answer.expect_err("it must be refused") {
            CallError::Unauthenticated { reason, .. } | CallError::Denied { reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_is_believed_for_what_the_cluster_knows_of_it_and_only_while_that_holds() {
        let shown = format!("Bearer {}", bearer().to_secret().reveal());
        let ask = |registry| asks(Some(registry), &[&shown]);
        let let_in = ask(registry(Token { expires_at: 100, ledgers: vec![710, 700], ..known() }, 99, 99)).unwrap();
        assert_eq!((let_in.who(), let_in.scope()), ("token:shop", Some(&[700, 710][..])));
        assert!(ask(registry(known(), 99, 99)).unwrap().scope().is_none(), "no ledgers named: all");

        let expiring = || Token { expires_at: 100, ..known() };
        assert_eq!(refusal(ask(registry(expiring(), 100, 0))), reason::IDENTITY_EXPIRED, "by the clock");
        assert_eq!(
            refusal(ask(registry(expiring(), 0, 100))),
            reason::IDENTITY_EXPIRED,
            "by the log, if the clock is late"
        );
        assert_eq!(refusal(ask(registry(Token { revoked_at: 1, ..known() }, 0, 0))), reason::IDENTITY_REVOKED);
        assert_eq!(refusal(ask(registry(Token { token_id: "other".into(), ..known() }, 0, 0))), reason::NO_IDENTITY);
        assert_eq!(
            refusal(ask(registry(Token { secret_hash: vec![7; 32].into(), ..known() }, 0, 0))),
            reason::NO_IDENTITY
        );
        let reader = Token { role: v1::Role::Reader.into(), ..known() };
        assert_eq!(refusal(ask(registry(reader, 0, 0))), reason::ROLE_MISSING);
        let nobody = Token { role: v1::Role::Unspecified.into(), ..known() };
        assert_eq!(refusal(ask(registry(nobody, 0, 0))), reason::ROLE_MISSING);
    }

    #[test]
    fn what_is_no_token_or_two_or_in_plain_text_lets_nobody_in() {
        let shown = format!("Bearer {}", bearer().to_secret().reveal());
        let registry = || Some(registry(known(), 0, 0));
        for headers in [&["Basic c2hvcDpob3A="][..], &["Bearer"], &["Bearer hunter2"], &[&shown, &shown]] {
            assert_eq!(refusal(asks(registry(), headers)), reason::NO_IDENTITY, "{headers:?}");
        }
        assert!(asks(registry(), &[&shown]).is_ok());
        assert!(asks(None, &[]).is_ok(), "without TLS everybody may everything, …");
        assert_eq!(refusal(asks(None, &[&shown])), reason::NO_IDENTITY, "… and a token is given away");
    }

    #[test]
    fn a_stream_ends_with_the_token_that_began_it() {
        let shown = bearer();
        let access = |token: Token| Access {
            proof: Some(Arc::new(Proof {
                shown: Shown::Token(shown.clone()),
                registry: Arc::new(registry(token, 0, 0)),
            })),
            ..access("all")
        };
        assert!(access(known()).admit_one_more().is_ok());
        assert!(access(Token { revoked_at: 1, ..known() }).admit_one_more().is_err());
    }

    #[test]
    fn the_table_is_in_order_so_that_each_call_is_found() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        for (path, whom_for) in TABLE {
            assert_eq!(whom(path), *whom_for);
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_for_nobody() {
        for path in ["", "/", "/jangbu.v1.Ledger", "/jangbu.v1.Ledger/Steal", "/cluster.v1.Peer/Forward"] {
            assert_eq!(whom(path), For::Roles(Roles::NONE), "{path}");
        }
    }

    #[test]
    fn records_of_another_ledger_are_refused_by_their_place() {
        let mut records = Vec::new();
        for ledger in [700, 700, 710] {
            let mut record = [0; Transfer::BYTES];
            Transfer { ledger, ..Transfer::default() }.encode(&mut record);
            records.extend_from_slice(&record);
        }
        let check = |ledgers| access(ledgers).check_records(Operation::CreateTransfers, &records);
        assert!(check("all").is_ok());
        assert!(check("700+710").is_ok());
        let refused = check("700").unwrap_err().to_string();
        assert!(refused.contains("event 2 is of ledger 710"), "{refused}");
        assert!(check("").is_err());
    }

    #[test]
    fn a_question_over_all_ledgers_needs_all_ledgers() {
        assert!(access("all").check_query(0).is_ok() && access("all").check_all().is_ok());
        assert!(access("700").check_query(700).is_ok());
        assert!(access("700").check_query(0).is_err() && access("700").check_query(710).is_err());
        assert!(access("700").check_all().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_may_make_a_seconds_worth_at_once_and_then_so_many_a_second() {
        let allowance = Allowance::new(10);
        let burst = (0..100).filter(|_| allowance.take().is_ok()).count();
        assert_eq!(burst, 10);
        let CallError::Overloaded { retry_after, .. } = allowance.take().unwrap_err() else { panic!("overloaded") };
        tokio::time::advance(retry_after).await;
        assert!(allowance.take().is_ok(), "it is told when to come back");
        assert!(allowance.take().is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..100).filter(|_| allowance.take().is_ok()).count(), 10, "what was not used is not kept");
    }
}
