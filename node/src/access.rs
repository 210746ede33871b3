//! Who may what: the one table of calls and roles, and the guards that go by it.
//!
//!     certificate ──► Grant (name, roles, ledgers) ──► TABLE: may it make this call? ──► Access, among the call's extensions
//!                                                                                        └► the service asks it for ledgers
//!
//! Laws
//! * Deny by default: a call that isn't in the table is nobody's, a role that wasn't granted isn't there.
//! * A caller is believed for what its certificate says, and only while that is valid: also on a connection that was made
//!   before it expired.
//! * Whoever may not is told so before a byte of the request is read, and nothing was done.
//! * A node speaks for the callers whose calls it hands on; nobody else does.
//!
//! Without TLS nobody can prove anything, and everybody may everything: see `tls.mode` in `config.rs`.
//!
//! Not here: how certificates are checked (`proto::transport`), what a grant looks like in one (`proto::grant`).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Extensions, HeaderMap};
use jangbu_ledger::{Account, Transfer};
use jangbu_proto::{
    batch::Operation,
    grant::{Grant, Identity, Ledgers, Role, Roles},
    reason,
    transport::{Caller, Guard, Holder},
};
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
    /// Who is said to call, where a peer hands on what it was asked.
    handed_on_for: Option<String>,
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

    /// Where the connection came from, as far as the transport knows.
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
    pub fn count_one(&self) -> Result<(), CallError> {
        self.allowance.as_ref().map_or(Ok(()), |allowance| allowance.take())
    }
}

/// On calls that a node hands on to the leader: for whom.
const FOR: &str = "jangbu-caller";

/// Says for whom a call is handed on.
pub fn hand_on<T>(access: &Access, request: &mut Request<T>) {
    if let Ok(name) = MetadataValue::try_from(access.who()) {
        request.metadata_mut().insert(FOR, name);
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

/// Of all callers that were seen. Names come from certificates, so there are not many; beyond this they begin afresh.
const ALLOWANCES_MAX: usize = 10_000;

/// Stands at the client door.
pub struct ClientGuard {
    /// `None`: without TLS, when everybody may everything.
    cluster: Option<String>,
    clock: Arc<dyn Clock>,
    calls_per_second: u32,
    allowances: Mutex<BTreeMap<String, Arc<Allowance>>>,
}

impl ClientGuard {
    /// `cluster`: whose certificates are believed. `calls_per_second`: of each identity; 0: no bound.
    pub fn new(cluster: Option<String>, clock: Arc<dyn Clock>, calls_per_second: u32) -> Self {
        Self { cluster, clock, calls_per_second, allowances: Mutex::default() }
    }

    fn access(&self, caller: &Caller, path: &str) -> Result<Access, CallError> {
        let (from, handed_on_for) = (caller.address(), None);
        let Some(cluster) = &self.cluster else {
            let allowance = self.allowance(&from.map(|from| from.to_string()).unwrap_or_default());
            return Ok(Access { grant: None, handed_on_for, from, allowance });
        };
        let needed = match whom(path) {
            For::Roles(needed) => needed,
            For::Anybody => {
                let nothing = Grant { name: "-".into(), roles: Roles::NONE, ledgers: Ledgers::Only(Vec::new()) };
                return Ok(Access { grant: Some(Arc::new(nothing)), handed_on_for, from, allowance: None });
            }
        };
        let grant = self.grant(cluster, caller)?;
        if !grant.roles.has_any_of(needed) {
            return Err(role_missing(&grant, path, needed));
        }
        let allowance = self.allowance(&grant.name);
        Ok(Access { grant: Some(grant), handed_on_for, from, allowance })
    }

    /// What the caller proved that it was granted.
    fn grant(&self, cluster: &str, caller: &Caller) -> Result<Arc<Grant>, CallError> {
        let Some(holder) = caller.holder() else {
            let message = "who calls? Show a client certificate of this cluster (jangbu: --cert and --key)";
            return Err(CallError::unauthenticated(reason::NO_IDENTITY, message));
        };
        match valid(holder, cluster, &*self.clock)? {
            Identity::Client { grant, .. } => Ok(grant.clone()),
            Identity::Node { id, .. } => {
                let message = format!("this is the client door, and node {id} is no client");
                Err(CallError::unauthenticated(reason::NO_IDENTITY, message))
            }
        }
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
    fn admit(&self, caller: &Caller, path: &str, _: &HeaderMap, found: &mut Extensions) -> Result<(), Status> {
        let access = self.access(caller, path).map_err(to_status)?;
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
    fn admit(&self, caller: &Caller, _: &str, headers: &HeaderMap, found: &mut Extensions) -> Result<(), Status> {
        found.insert(self.peer(caller).map_err(to_status)?);
        // Whoever hands a call on has admitted it.
        let handed_on_for = headers.get(FOR).and_then(|name| name.to_str().ok()).map(str::to_owned);
        found.insert(Access { grant: None, handed_on_for, from: caller.address(), allowance: None });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(ledgers: &str) -> Access {
        let grant = Grant { name: "shop".into(), roles: Roles::of(Role::ALL), ledgers: ledgers.parse().unwrap() };
        Access { grant: Some(Arc::new(grant)), handed_on_for: None, from: None, allowance: None }
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
