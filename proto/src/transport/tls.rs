//! TLS 1.3 over another transport: both ends know who the other is before the first byte of a request is read.
//!
//!     Keyring        certificate, key and authority, read from files, and read again when these change
//!     TlsTransport   a transport whose connections are encrypted by a keyring
//!
//! The handshake of a connection that comes in is driven by whoever reads it first. So it happens in the connection's own
//! task, under the limit of time that holds for its first words (`server`), and holds up nobody else.
//!
//! Laws
//! * Nothing older than TLS 1.3 is spoken: rustls is built without it.
//! * A session is never resumed: each connection proves anew who it is, by the newest keys and authorities.
//! * A node is who its certificate says, whatever its address; a door for clients is who its address says.
//! * Keys that can't be used are never taken: the ones before go on, and the log says why.
//!
//! Not here: what the holder of a certificate may do (`node/src/access.rs`).

use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, RwLock},
    task::{Context, Poll, ready},
    time::SystemTime,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{
    Accept, TlsAcceptor, TlsConnector,
    rustls::{
        self, CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, ServerConfig,
        SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
            verify_server_cert_signed_by_trust_anchor,
        },
        crypto::{CryptoProvider, ring, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
        server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
        version::TLS13,
    },
    server::TlsStream,
};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::{Arrival, Holder, Io, Listener, Transport, restraint::Restraint};
use crate::{Malformed, Secret, grant::Identity};

/// What both ends speak inside.
const ALPN: &[u8] = b"h2";

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFiles {
    /// The certificates of the authorities that are believed; while one replaces another, both.
    pub authority: PathBuf,
    /// What this end shows of itself. A door must have it.
    pub own: Option<OwnFiles>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFiles {
    /// The certificate, followed by those between it and the authority, if any.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Whether callers must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certificates {
    Required,
    /// Whoever shows none is let in, without a name. One that is shown must be good.
    Optional,
}

/// Why keys can't be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub struct KeyError {
    pub path: PathBuf,
    pub message: String,
}

/// The newest usable keys of some files.
pub struct Keyring {
    files: KeyFiles,
    callers: Certificates,
    must_be: Option<Identity>,
    keys: RwLock<Arc<Keys>>,
    /// Of the files, when they were last read.
    seen: Mutex<Stamp>,
}

struct Keys {
    authority: Arc<RootCertStore>,
    own: Option<Own>,
    /// Made once, for all that come in.
    server: Option<Arc<ServerConfig>>,
}

struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    holder: Holder,
}

/// What tells a changed file: when it changed, its length, and which file it is.
type Stamp = Vec<Option<(SystemTime, u64, u64)>>;

impl Keyring {
    /// Reads the files; blocks on them. `callers`: for those who come in by these keys. `must_be`: whom the certificate must
    /// be of, if that is known.
    pub fn open(files: KeyFiles, callers: Certificates, must_be: Option<Identity>) -> Result<Arc<Self>, KeyError> {
        let seen = files.stamp();
        let keys = Keys::read(&files, callers, must_be.as_ref())?;
        Ok(Arc::new(Self { files, callers, must_be, keys: RwLock::new(Arc::new(keys)), seen: Mutex::new(seen) }))
    }

    /// Reads the files again if they have changed. True if there are new keys now. Connections go on with those they have.
    pub fn refresh(&self) -> Result<bool, KeyError> {
        // Taken before the files are read: what changes meanwhile is a change the next time.
        let stamp = self.files.stamp();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == stamp {
            return Ok(false);
        }
        *seen = stamp;
        let keys = Keys::read(&self.files, self.callers, self.must_be.as_ref())?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        Ok(true)
    }

    /// What this end shows of itself.
    pub fn own(&self) -> Option<Holder> {
        self.keys().own.as_ref().map(|own| own.holder.clone())
    }

    pub fn files(&self) -> &KeyFiles {
        &self.files
    }

    fn keys(&self) -> Arc<Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("files", &self.files).finish_non_exhaustive()
    }
}

impl KeyFiles {
    fn stamp(&self) -> Stamp {
        let own = self.own.iter().flat_map(|own| [&own.certificate, &own.key]);
        std::iter::once(&self.authority).chain(own).map(|path| stamp(path)).collect()
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

impl Keys {
    fn read(files: &KeyFiles, callers: Certificates, must_be: Option<&Identity>) -> Result<Self, KeyError> {
        let mut authority = RootCertStore::empty();
        for certificate in certificates(&files.authority)? {
            authority.add(certificate).map_err(|error| unusable(&files.authority, error))?;
        }
        let authority = Arc::new(authority);
        let own = files.own.as_ref().map(|at| Own::read(at, must_be)).transpose()?;
        let server = match (&own, &files.own) {
            (Some(own), Some(at)) => {
                let config = server_config(own, authority.clone(), callers);
                Some(Arc::new(config.map_err(|message| unusable(&at.certificate, message))?))
            }
            _ => None,
        };
        Ok(Self { authority, own, server })
    }

    fn client_config(&self, expected: &Expected) -> Result<ClientConfig, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
        let builder = match expected {
            Expected::Host => builder.with_root_certificates(self.authority.clone()),
            Expected::Node { cluster, id } => {
                let verifier = NodeVerifier {
                    authority: self.authority.clone(),
                    cluster: cluster.clone(),
                    id: *id,
                    provider: provider(),
                };
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut config = match &self.own {
            Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key())?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl Own {
    fn read(files: &OwnFiles, must_be: Option<&Identity>) -> Result<Self, KeyError> {
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unusable(&files.key, error))?;
        let holder = holder(&chain[0]).map_err(|message| unusable(&files.certificate, message))?;
        if let Some(must_be) = must_be
            && holder.identity.as_ref() != Ok(must_be)
        {
            let is = holder.identity.as_ref().map_or_else(Malformed::to_string, Identity::to_string);
            return Err(unusable(&files.certificate, format!("must be the certificate of {must_be}; it is: {is}")));
        }
        Ok(Self { chain, key, holder })
    }
}

/// At least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, KeyError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(unusable(path, "holds no certificate (PEM)")),
        read => read.map_err(|error| unusable(path, error)),
    }
}

fn unusable(path: &Path, message: impl fmt::Display) -> KeyError {
    KeyError { path: path.to_owned(), message: message.to_string() }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn server_config(own: &Own, authority: Arc<RootCertStore>, callers: Certificates) -> Result<ServerConfig, String> {
    let verifier = WebPkiClientVerifier::builder_with_provider(authority, provider());
    let verifier = match callers {
        Certificates::Required => verifier,
        Certificates::Optional => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(|error| error.to_string())?;
    let text = |error: TlsError| error.to_string();
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).map_err(text)?;
    let builder = builder.with_client_cert_verifier(verifier);
    let mut config = builder.with_single_cert(own.chain.clone(), own.key.clone_key()).map_err(text)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What a certificate says of its holder.
fn holder(certificate: &CertificateDer<'_>) -> Result<Holder, String> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let expires_at_s = certificate.validity().not_after.timestamp();
    Ok(Holder { identity: identity(&certificate), expires_at_s })
}

fn identity(certificate: &X509Certificate<'_>) -> Result<Identity, Malformed> {
    let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let mut ours = names.flatten().filter_map(|name| match name {
        GeneralName::URI(uri) if Identity::is_meant_by(uri) => Some(*uri),
        _ => None,
    });
    match (ours.next(), ours.next()) {
        (Some(uri), None) => uri.parse(),
        (None, _) => Err(Malformed::new("certificate", "names no identity: it has no URI jangbu://…")),
        (Some(_), Some(_)) => Err(Malformed::new("certificate", "names more than one identity")),
    }
}

/// Who must answer.
#[derive(Debug, Clone)]
enum Expected {
    /// Whoever the authority calls by the host that was connected to.
    Host,
    /// A node of this cluster; this one, if it is known which.
    Node { cluster: String, id: Option<u64> },
}

/// Believes the authority for nodes, and goes by the identity instead of the address: nodes move.
#[derive(Debug)]
struct NodeVerifier {
    authority: Arc<RootCertStore>,
    cluster: String,
    id: Option<u64>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.authority, intermediates, now, algorithms)?;
        let holder = holder(end_entity).map_err(TlsError::General)?;
        match holder.identity {
            Ok(Identity::Node { cluster, id })
                if cluster == self.cluster && self.id.is_none_or(|meant| meant == id) =>
            {
                Ok(ServerCertVerified::assertion())
            }
            Ok(other) => {
                let meant = match self.id {
                    Some(id) => format!("node {id} of cluster {}", self.cluster),
                    None => format!("a node of cluster {}", self.cluster),
                };
                Err(wrong(format!("{meant} was meant, and who answers is {other}")))
            }
            Err(malformed) => Err(wrong(malformed.to_string())),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn wrong(message: String) -> TlsError {
    let message = std::io::Error::other(message);
    TlsError::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(message))))
}

/// A transport whose connections are encrypted.
#[derive(Clone)]
pub struct TlsTransport {
    below: Arc<dyn Transport>,
    keyring: Arc<Keyring>,
    expected: Expected,
    token: Option<Secret>,
}

impl TlsTransport {
    /// Whoever answers must be called by the host's name or address in its certificate.
    pub fn to_hosts(below: Arc<dyn Transport>, keyring: Arc<Keyring>) -> Self {
        Self { below, keyring, expected: Expected::Host, token: None }
    }

    /// Whoever answers must be a node of `cluster`.
    pub fn to_nodes(below: Arc<dyn Transport>, keyring: Arc<Keyring>, cluster: &str) -> Self {
        Self { below, keyring, expected: Expected::Node { cluster: cluster.to_owned(), id: None }, token: None }
    }

    /// The same, where each call shows this token.
    pub fn with_token(self, token: Secret) -> Self {
        Self { token: Some(token), ..self }
    }

    /// The same, where one node is meant and no other.
    pub fn to_node(&self, meant: u64) -> Self {
        let mut to_node = self.clone();
        if let Expected::Node { id, .. } = &mut to_node.expected {
            *id = Some(meant);
        }
        to_node
    }
}

impl Transport for TlsTransport {
    fn listen(&self, address: String) -> BoxFuture<'static, io::Result<Listener>> {
        let (listening, keyring) = (self.below.listen(address), self.keyring.clone());
        async move {
            let Listener { address, incoming } = listening.await?;
            let restraint = Arc::new(Restraint::default());
            let incoming = incoming
                .filter_map(move |arrival| std::future::ready(encrypted(&keyring, arrival, restraint.clone())))
                .boxed();
            Ok(Listener { address, incoming })
        }
        .boxed()
    }

    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Io>> {
        let (connecting, keys, expected) =
            (self.below.connect(address.clone()), self.keyring.keys(), self.expected.clone());
        async move {
            let config = keys.client_config(&expected).map_err(io::Error::other)?;
            let name = server_name(&address)?;
            let io = TlsConnector::from(Arc::new(config)).connect(name, connecting.await?).await?;
            Ok(Box::new(io) as Io)
        }
        .boxed()
    }

    fn token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }
}

fn server_name(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    ServerName::try_from(host).map_err(io::Error::other)
}

/// `None`: there is no key to answer with, which only happens to a keyring that was made for calling.
fn encrypted(keyring: &Keyring, Arrival { io, caller }: Arrival, restraint: Arc<Restraint>) -> Option<Arrival> {
    let config = keyring.keys().server.clone()?;
    let state = State::Handshake(Box::new(TlsAcceptor::from(config).accept(io)));
    let handshake = Encrypted { caller: caller.clone(), state, restraint };
    Some(Arrival { io: Box::new(handshake), caller })
}

/// A connection that came in.
struct Encrypted {
    caller: super::Caller,
    state: State,
    /// Of the whole door.
    restraint: Arc<Restraint>,
}

enum State {
    Handshake(Box<Accept<Io>>),
    Open(Box<TlsStream<Io>>),
    Failed,
}

impl Encrypted {
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut TlsStream<Io>>>> {
        if let State::Handshake(handshake) = &mut self.state {
            match ready!(handshake.poll_unpin(cx)) {
                Ok(stream) => {
                    self.caller.secure(shown(&stream));
                    self.state = State::Open(Box::new(stream));
                }
                Err(error) => {
                    if let Some(unsaid) = self.restraint.say() {
                        let from = self.caller.address();
                        tracing::info!(?from, %error, unsaid, "a connection is refused: no handshake");
                    }
                    self.state = State::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match &mut self.state {
            State::Open(stream) => Ok(Pin::new(&mut **stream)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

fn shown(stream: &TlsStream<Io>) -> Option<Holder> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    let unreadable = |message| Holder { identity: Err(Malformed::new("certificate", message)), expires_at_s: 0 };
    Some(holder(certificate).unwrap_or_else(unreadable))
}

impl AsyncRead for Encrypted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_flush(cx)
    }

    /// A connection that ends before its handshake has nothing to say.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.state {
            State::Open(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
