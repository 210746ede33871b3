//! Keys and certificates, made and read.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jangbu_proto::grant::{Grant, Identity};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{GeneralName, ParsedExtension, X509Certificate};

use super::check_name;
use crate::error::{During as _, Failure, Kind};
use crate::whole::{self, Together};

/// Clocks differ: what was signed here a moment ago is to hold on a machine that is late.
const BACKDATED: Duration = Duration::minutes(10);

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    pub fn of(dir: &Path, name: &str) -> Files {
        Files { certificate: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) }
    }

    pub fn client_authority(dir: &Path) -> Files {
        Files::of(dir, "client-authority")
    }

    pub fn peer_authority(dir: &Path) -> Files {
        Files::of(dir, "peer-authority")
    }

    pub fn node_to_peers(dir: &Path, id: u64) -> Files {
        Files::of(dir, &format!("node-{id}-peer"))
    }

    pub fn node_to_clients(dir: &Path, id: u64) -> Files {
        Files::of(dir, &format!("node-{id}-client-door"))
    }

    pub fn client(dir: &Path, name: &str) -> Files {
        Files::of(dir, &format!("client-{name}"))
    }

    /// In the place of what is there. Key first: what takes new files waits until they fit each other.
    fn replace(&self, pair: &Pair) -> Result<(), Failure> {
        for (path, text, mode) in [(&self.key, &pair.key, 0o600), (&self.certificate, &pair.certificate, 0o644)] {
            whole::replace(path, text.as_bytes(), mode).during(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn refuse_to_replace(&self) -> Result<(), Failure> {
        match [&self.certificate, &self.key].into_iter().find(|path| path.exists()) {
            Some(path) => Err(Failure::new(Kind::Conflict, format!("{} is there already", path.display()))
                .advise("name another folder with --dir; a node's or a client's can be replaced with --renew")),
            None => Ok(()),
        }
    }
}

/// A certificate and its key, as text (PEM).
struct Pair {
    certificate: String,
    key: String,
}

/// One command's pairs, put together: a key without its certificate would stand in the way of the next attempt.
struct Putting {
    together: Together,
    dir: PathBuf,
    renew: bool,
}

impl Putting {
    /// Takes back what was put under this name by a command that was killed; then none of these may be there, unless they are renewed.
    fn begin(dir: &Path, name: &str, wanted: &[&Files], renew: bool) -> Result<Putting, Failure> {
        let together = Together::begin(dir, name).during(|| dir.display().to_string())?;
        if !renew {
            wanted.iter().try_for_each(|files| files.refuse_to_replace())?;
        }
        Ok(Putting { together, dir: dir.to_owned(), renew })
    }

    fn put(self, pairs: &[(&Files, Pair)]) -> Result<(), Failure> {
        if self.renew {
            return pairs.iter().try_for_each(|(files, pair)| files.replace(pair));
        }
        let mut files: Vec<(&Path, &[u8], u32)> = Vec::new();
        for (Files { certificate, key }, pair) in pairs {
            files.extend([(&**key, pair.key.as_bytes(), 0o600), (&**certificate, pair.certificate.as_bytes(), 0o644)]);
        }
        self.together.create(&files).during(|| self.dir.display().to_string())
    }
}

/// How long something holds, and whether it may take another's place.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    pub days: u32,
    pub renew: bool,
}

/// The authority for clients, and the one for nodes.
pub fn authorities(dir: &Path, cluster: &str, days: u32) -> Result<(), Failure> {
    check_name("--cluster", cluster)?;
    fs::create_dir_all(dir).during(|| dir.display().to_string())?;
    let (clients, peers) = (Files::client_authority(dir), Files::peer_authority(dir));
    let putting = Putting::begin(dir, "authorities", &[&clients, &peers], false)?;
    let make = |signs: &str| {
        let mut params = params(&format!("{cluster} authority for {signs}"), cluster, days);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(unmade)?;
        let certificate = params.self_signed(&key).map_err(unmade)?;
        Ok::<_, Failure>(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    };
    putting.put(&[(&clients, make("clients")?), (&peers, make("nodes")?)])
}

/// What a node shows to peers, and what it shows to clients.
pub fn node(dir: &Path, id: u64, hosts: &[String], term: Term) -> Result<[Files; 2], Failure> {
    let (peers, clients) =
        (Authority::open(Files::peer_authority(dir))?, Authority::open(Files::client_authority(dir))?);
    let to_peers = Files::node_to_peers(dir, id);
    let to_clients = Files::node_to_clients(dir, id);
    let putting = Putting::begin(dir, &format!("node-{id}"), &[&to_peers, &to_clients], term.renew)?;
    let identity = Identity::Node { cluster: peers.cluster.clone(), id };
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let names = hosts.iter().map(|host| host_name(host)).collect::<Result<Vec<_>, _>>()?;
    let name = format!("node {id}");
    let shown_to_peers = peers.sign(&name, [vec![uri(&identity)?], names.clone()].concat(), &both, term)?;
    let shown_to_clients = clients.sign(&name, names, &both[..1], term)?;
    putting.put(&[(&to_peers, shown_to_peers), (&to_clients, shown_to_clients)])?;
    Ok([to_peers, to_clients])
}

/// What a client shows.
pub fn client(dir: &Path, grant: Grant, term: Term) -> Result<Files, Failure> {
    check_name("NAME", &grant.name)?;
    let authority = Authority::open(Files::client_authority(dir))?;
    let files = Files::client(dir, &grant.name);
    let name = grant.name.clone();
    let putting = Putting::begin(dir, &format!("client-{name}"), &[&files], term.renew)?;
    let identity = Identity::Client { cluster: authority.cluster.clone(), grant: Arc::new(grant) };
    let shown = authority.sign(&name, vec![uri(&identity)?], &[ExtendedKeyUsagePurpose::ClientAuth], term)?;
    putting.put(&[(&files, shown)])?;
    Ok(files)
}

struct Authority {
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
    expires_at_s: i64,
}

impl Authority {
    fn open(files: Files) -> Result<Authority, Failure> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|error| {
                Failure::unreadable(path, &error).advise("make the authorities first: jangbu cert authority")
            })
        };
        let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
        let strange = |why: String| Failure::usage(format!("{}: {why}", files.certificate.display()));
        let (_, pem) = parse_x509_pem(certificate.as_bytes()).map_err(|error| strange(error.to_string()))?;
        let parsed = pem.parse_x509().map_err(|error| strange(error.to_string()))?;
        let cluster = parsed.subject().iter_organization().next().and_then(|name| name.as_str().ok());
        let cluster =
            cluster.ok_or_else(|| strange("it isn't one of `jangbu cert authority`: no cluster's name".into()))?;
        let key = KeyPair::from_pem(&key).map_err(|error| strange(error.to_string()))?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key).map_err(|error| strange(error.to_string()))?;
        Ok(Authority { cluster: cluster.to_owned(), issuer, expires_at_s: parsed.validity().not_after.timestamp() })
    }

    fn sign(
        &self,
        name: &str,
        names: Vec<SanType>,
        usages: &[ExtendedKeyUsagePurpose],
        term: Term,
    ) -> Result<Pair, Failure> {
        let mut params = params(name, &self.cluster, term.days);
        if params.not_after.unix_timestamp() > self.expires_at_s {
            let left = (self.expires_at_s - OffsetDateTime::now_utc().unix_timestamp()) / 86_400;
            return Err(Failure::usage(format!("the authority itself expires in {left} days"))
                .advise(format!("ask for less, as --days {}, or make a new authority", left.max(0))));
        }
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(unmade)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(unmade)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

fn params(name: &str, cluster: &str, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACKDATED;
    params.not_after = now + Duration::days(days.into());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, cluster);
    params
}

fn uri(identity: &Identity) -> Result<SanType, Failure> {
    Ok(SanType::URI(identity.to_string().try_into().map_err(unmade)?))
}

fn host_name(host: &str) -> Result<SanType, Failure> {
    match host.parse::<IpAddr>() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => Ok(SanType::DnsName(host.to_owned().try_into().map_err(unmade)?)),
    }
}

fn unmade(error: rcgen::Error) -> Failure {
    Failure::general(format!("a certificate can't be made: {error}"))
}

/// What a certificate says.
pub struct Seen {
    pub identity: String,
    pub hosts: Vec<String>,
    pub authority: String,
    pub expires_at_s: i64,
}

/// Reads the first certificate of a PEM file.
pub fn read(pem: &[u8]) -> Result<Seen, String> {
    let (_, pem) = parse_x509_pem(pem).map_err(|_| "it holds no certificate (PEM)".to_string())?;
    let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
    let (mut identity, mut hosts) = (None, Vec::new());
    for name in alternative_names(&certificate) {
        match name {
            GeneralName::URI(uri) if Identity::is_meant_by(uri) => identity = Some(uri.to_string()),
            GeneralName::DNSName(name) => hosts.push(name.to_string()),
            GeneralName::IPAddress(bytes) => hosts.extend(address(bytes).map(|address| address.to_string())),
            _ => {}
        }
    }
    let common_name = |name: &x509_parser::x509::X509Name| {
        name.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or("-").to_owned()
    };
    Ok(Seen {
        identity: identity.unwrap_or_else(|| common_name(certificate.subject())),
        hosts,
        authority: common_name(certificate.issuer()),
        expires_at_s: certificate.validity().not_after.timestamp(),
    })
}

fn alternative_names<'a>(certificate: &'a X509Certificate<'a>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    names.flatten()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use jangbu_proto::grant::{Ledgers, Role, Roles};

    use super::*;

    fn folder(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("jangbu-cert-{name}-{}", std::process::id()))
    }

    fn shop() -> Grant {
        Grant { name: "shop".into(), roles: Roles::of([Role::Writer]), ledgers: Ledgers::Only(vec![700]) }
    }

    const YEAR: Term = Term { days: 365, renew: false };

    #[test]
    fn what_is_made_says_who_it_is_and_keys_are_their_owners() {
        let dir = folder("made");
        authorities(&dir, "demo", 3_650).unwrap();
        let [to_peers, to_clients] = node(&dir, 3, &["10.0.0.1".into(), "node3.example".into()], YEAR).unwrap();
        let shop = client(&dir, shop(), YEAR).unwrap();
        let seen = |files: &Files| read(&fs::read(&files.certificate).unwrap()).unwrap();
        assert_eq!(seen(&to_peers).identity, "jangbu://demo/node/3");
        assert_eq!(seen(&to_peers).authority, "demo authority for nodes");
        assert_eq!(seen(&to_clients).hosts, ["10.0.0.1", "node3.example"]);
        assert_eq!(seen(&shop).identity, "jangbu://demo/client/shop?roles=writer&ledgers=700");
        assert_eq!(seen(&shop).authority, "demo authority for clients");
        for files in [&to_peers, &to_clients, &shop, &Files::client_authority(&dir), &Files::peer_authority(&dir)] {
            let mode = fs::metadata(&files.key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", files.key.display());
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_is_overwritten_but_what_is_renewed() {
        let dir = folder("kept");
        authorities(&dir, "demo", 3_650).unwrap();
        let files = client(&dir, shop(), YEAR).unwrap();
        let (before, authority) = (fs::read(&files.key).unwrap(), fs::read(Files::client_authority(&dir).key).unwrap());
        assert_eq!(client(&dir, shop(), YEAR).unwrap_err().kind, Kind::Conflict);
        assert_eq!(authorities(&dir, "demo", 3_650).unwrap_err().kind, Kind::Conflict);
        assert_eq!(fs::read(&files.key).unwrap(), before);
        client(&dir, shop(), Term { renew: true, ..YEAR }).unwrap();
        assert_ne!(fs::read(&files.key).unwrap(), before);
        assert_eq!(fs::read(Files::client_authority(&dir).key).unwrap(), authority);
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().contains(".new-")), "{left:?}");
        fs::remove_dir_all(dir).unwrap();
    }

    /// As a kill leaves them after the first of four files, and after the last but one.
    #[test]
    fn certificates_of_which_some_were_put_when_the_command_was_killed_are_made_anew() {
        let dir = folder("killed");
        authorities(&dir, "demo", 3_650).unwrap();
        let [to_peers, to_clients] = node(&dir, 3, &["old.example".into()], YEAR).unwrap();
        let all = [&to_peers.key, &to_peers.certificate, &to_clients.key, &to_clients.certificate];
        for put in [1, 3] {
            let making = dir.join("node-3.making");
            fs::create_dir(&making).unwrap();
            for path in all {
                fs::rename(path, making.join(path.file_name().unwrap())).unwrap();
            }
            for path in &all[..put] {
                fs::hard_link(making.join(path.file_name().unwrap()), path).unwrap();
            }
            node(&dir, 3, &["new.example".into()], YEAR).unwrap();
            assert_eq!(read(&fs::read(&to_clients.certificate).unwrap()).unwrap().hosts, ["new.example"]);
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 8, "nothing is left beside them");
        }
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn nothing_outlives_its_authority() {
        let dir = folder("short");
        authorities(&dir, "demo", 10).unwrap();
        let failure = client(&dir, shop(), YEAR).unwrap_err();
        assert!(failure.message.contains("expires in"), "{}", failure.message);
        assert!(client(&dir, shop(), Term { days: 5, renew: false }).is_ok());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn without_an_authority_it_says_what_to_make_first() {
        let failure = client(&folder("none"), shop(), YEAR).unwrap_err();
        assert!(failure.advice.unwrap().contains("jangbu cert authority"));
    }
}
