//! The certificates of a cluster under test: made by the shipped command; and, here, those that it wouldn't make.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use jangbu_proto::token::BearerToken;
use jangbu_proto::transport::{Certificates, KeyFiles, Keyring, OwnFiles, TcpTransport, TlsTransport, Transport};
use rcgen::{CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};

use crate::binaries::jangbu;

/// The name of every cluster under test.
pub const CLUSTER: &str = "test";

/// A folder of authorities, and of what they signed.
#[derive(Debug, Clone)]
pub struct Certs {
    pub dir: PathBuf,
}

impl Certs {
    /// New authorities, which nobody else believes.
    pub fn new(dir: &Path) -> Certs {
        let certs = Certs { dir: dir.to_owned() };
        certs.make(&["authority", "--cluster", CLUSTER]);
        certs
    }

    /// What node `id` needs, called by 127.0.0.1.
    pub fn node(&self, id: u64) {
        self.make(&["node", &id.to_string(), "--host", "127.0.0.1"]);
    }

    pub fn client(&self, name: &str, roles: &str, ledgers: &str) -> OwnFiles {
        self.make(&["client", name, "--roles", roles, "--ledgers", ledgers]);
        self.files(&format!("client-{name}"))
    }

    /// The same as [`Certs::client`], until yesterday.
    pub fn expired_client(&self, name: &str, roles: &str, ledgers: &str) -> OwnFiles {
        let uri = format!("jangbu://{CLUSTER}/client/{name}?roles={roles}&ledgers={ledgers}");
        let mut params = CertificateParams::default();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.sign(name, params, &uri)
    }

    /// A client certificate whose identity is whatever `uri` says.
    pub fn strange_client(&self, name: &str, uri: &str) -> OwnFiles {
        self.sign(name, CertificateParams::default(), uri)
    }

    fn sign(&self, name: &str, mut params: CertificateParams, uri: &str) -> OwnFiles {
        let read = |file: &str| fs::read_to_string(self.dir.join(file)).expect("the authority is there");
        let key = KeyPair::from_pem(&read("client-authority.key")).expect("it is a key");
        let issuer = Issuer::from_ca_cert_pem(&read("client-authority.crt"), key).expect("it is an authority");
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri.to_owned().try_into().expect("plain letters"))];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("chance is there");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate can be signed");
        let files = self.files(&format!("client-{name}"));
        fs::write(&files.certificate, certificate.pem()).expect("the folder takes files");
        fs::write(&files.key, key.serialize_pem()).expect("the folder takes files");
        files
    }

    /// By the shipped command.
    pub fn make(&self, arguments: &[&str]) {
        let mut command = Command::new(jangbu());
        let output =
            command.arg("cert").args(arguments).arg("--dir").arg(&self.dir).output().expect("it can be started");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn files(&self, name: &str) -> OwnFiles {
        OwnFiles { certificate: self.dir.join(format!("{name}.crt")), key: self.dir.join(format!("{name}.key")) }
    }

    /// To a client door, as the holder of `own`.
    pub fn way(&self, own: Option<OwnFiles>) -> Arc<dyn Transport> {
        let files = KeyFiles { authority: self.dir.join("client-authority.crt"), own };
        let keyring = Keyring::open(files, Certificates::Optional, None).expect("these keys are good");
        Arc::new(TlsTransport::to_hosts(Arc::new(TcpTransport), keyring))
    }

    /// To a client door, with a token and nothing else.
    pub fn way_with_token(&self, token: &BearerToken) -> Arc<dyn Transport> {
        let files = KeyFiles { authority: self.dir.join("client-authority.crt"), own: None };
        let keyring = Keyring::open(files, Certificates::Optional, None).expect("these keys are good");
        Arc::new(TlsTransport::to_hosts(Arc::new(TcpTransport), keyring).with_token(token.to_secret()))
    }

    /// To a peer door, as the holder of `own`.
    pub fn way_of_peers(&self, own: OwnFiles) -> TlsTransport {
        let files = KeyFiles { authority: self.dir.join("peer-authority.crt"), own: Some(own) };
        let keyring = Keyring::open(files, Certificates::Required, None).expect("these keys are good");
        TlsTransport::to_nodes(Arc::new(TcpTransport), keyring, CLUSTER)
    }

    /// What a node's configuration says of all this.
    pub fn settings(&self, id: u64) -> String {
        let door = |door: &str, own: &str| {
            let OwnFiles { certificate, key } = self.files(&format!("node-{id}-{own}"));
            let authority = self.dir.join(format!("{door}-authority.crt"));
            format!("[tls.{door}]\ncertificate = {certificate:?}\nkey = {key:?}\nauthority = {authority:?}\n")
        };
        let (client, peer) = (door("client", "client-door"), door("peer", "peer"));
        format!("[tls]\nmode = \"on\"\ncluster = \"{CLUSTER}\"\nclient_certificates = \"optional\"\n{client}{peer}")
    }
}
