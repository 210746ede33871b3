//! A bucket of an S3-compatible service, reached with the house's own TLS.
//!
//! `object_store` signs the calls, reads the answers and tries again; the connection beneath is hyper and rustls as everywhere
//! here. Its own HTTP client would bring TLS 1.2 into every program of the workspace, the node among them.
//!
//! Settings are the usual variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT, or
//! the role of the machine.
//!
//! Laws
//! * TLS 1.3, with the authorities that this machine trusts. Plain text only where AWS_ALLOW_HTTP=true says so.
//!
//! Not here: what is stored (`vault.rs`).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use object_store::aws::AmazonS3Builder;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions, path};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::place::Place;

/// One call with all of its answer: an object of 8 MiB at 140 KB/s.
const CALL_LIMIT: Duration = Duration::from_secs(60);

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// `named`: BUCKET, or BUCKET/PREFIX.
pub fn bucket(named: &str) -> Result<Place, object_store::Error> {
    let (bucket, prefix) = named.split_once('/').unwrap_or((named, ""));
    let prefix = path::Path::parse(prefix)?;
    let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_http_connector(Wires);
    // Not every service that speaks S3 can delete many objects in one call.
    let builder = builder.with_disable_bulk_delete(true);
    Ok(Place::Bucket { store: Arc::new(builder.build()?), prefix })
}

#[derive(Debug)]
struct Wires;

impl HttpConnector for Wires {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain_allowed = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let tls = tls().map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })?;
        let dialer = Dialer { tls: Arc::new(tls).into(), plain_allowed };
        Ok(HttpClient::new(Caller(Client::builder(TokioExecutor::new()).build(dialer))))
    }
}

fn tls() -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // One that can't be read vouches for nobody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13]).map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Makes connections.
#[derive(Clone)]
struct Dialer {
    tls: TlsConnector,
    plain_allowed: bool,
}

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<Wire>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Wire>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            let dialled = timeout(CONNECT_LIMIT, dialer.dial(&uri)).await;
            dialled.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(TokioIo::new)
        })
    }
}

impl Dialer {
    async fn dial(&self, uri: &Uri) -> io::Result<Wire> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        if !is_tls && !self.plain_allowed {
            return Err(io::Error::other(format!("{host} is named with http: AWS_ALLOW_HTTP=true allows plain text")));
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        if !is_tls {
            return Ok(Wire(Box::pin(stream)));
        }
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        Ok(Wire(Box::pin(self.tls.connect(name, stream).await?)))
    }
}

struct Caller(Client<Dialer, HttpRequestBody>);

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caller")
    }
}

#[async_trait::async_trait]
impl HttpService for Caller {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answered = async {
            let response = self.0.request(request).await.map_err(|error| {
                let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
                HttpError::new(kind, io::Error::other(root(&error)))
            })?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?;
            Ok(HttpResponse::from_parts(parts, body.to_bytes().into()))
        };
        timeout(CALL_LIMIT, answered).await.map_err(|late| HttpError::new(HttpErrorKind::Timeout, late))?
    }
}

/// What it comes from: the outermost says no more than "client error".
fn root(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// A connection, encrypted or not.
struct Wire(Pin<Box<dyn Stream>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}
