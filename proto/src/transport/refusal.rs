//! Why a node won't have a connection, in words that say what to do.
//!
//! In TLS 1.3 the caller believes that it is connected before the node has looked at its certificate. The node's no arrives as
//! an alert in the middle of the first call, and what HTTP/2 makes of it on its way up is "transport error". So the connection
//! notes the alert for its channel, and the channel puts it into the error of the call.
//!
//! Laws
//! * Only the words of an error change, never what is concluded from it: a call may fail after another connection of the same
//!   channel was refused.
//!
//! Not here: what a guard refuses, which is answered as a call (`guard`).

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::rustls::{AlertDescription as Alert, CertificateError, Error as TlsError};
use tonic::{Status, transport};

use super::Io;

/// Why the last connection of a channel was refused, if it was.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusal(Arc<Mutex<Option<String>>>);

impl Refusal {
    /// A new connection is tried.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Keeps the words, if the error is a refusal.
    fn note(&self, error: io::Error) -> io::Error {
        if let Some(words) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()).and_then(words) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
        }
        error
    }

    /// A connection that notes why it ends.
    pub(super) fn watch(&self, connected: io::Result<Io>) -> io::Result<Watched> {
        match connected {
            Ok(io) => Ok(Watched { io, refusal: self.clone() }),
            Err(error) => Err(self.note(error)),
        }
    }

    /// The error of a call, in words if there are any.
    pub(super) fn told(&self, error: transport::Error) -> Status {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let source: Arc<dyn Error + Send + Sync> = Arc::new(error);
        let status = Status::from_error(Box::new(source.clone()));
        let Some(words) = words else { return status };
        let mut in_words = Status::new(status.code(), words);
        in_words.set_source(source);
        in_words
    }
}

fn words(error: &TlsError) -> Option<String> {
    Some(match error {
        TlsError::AlertReceived(Alert::CertificateRequired) => {
            "the node lets nobody in without a client certificate; show one that its authority has signed".into()
        }
        TlsError::AlertReceived(Alert::CertificateExpired) => {
            "the certificate that was shown has expired; get a new one".into()
        }
        TlsError::AlertReceived(
            alert @ (Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::DecryptError
            | Alert::AccessDenied),
        ) => format!(
            "the node doesn't believe the certificate that was shown ({alert:?}); show one that this cluster's authority \
             for clients has signed"
        ),
        TlsError::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the authority that was named doesn't vouch for the node; name the one that signed its certificate".into()
        }
        TlsError::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the node's certificate has expired; its operator must replace it".into()
        }
        TlsError::InvalidCertificate(error) => format!("the node's certificate isn't good for this: {error}"),
        _ => return None,
    })
}

/// A connection that notes why it ends.
pub(super) struct Watched {
    io: Io,
    refusal: Refusal,
}

impl Watched {
    fn noted<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        polled.map_err(|error| self.refusal.note(error))
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        self.noted(polled)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.noted(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.noted(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(cx);
        self.noted(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.noted(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
