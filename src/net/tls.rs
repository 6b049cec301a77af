//! TLS handshakes that record the server's chain also when they refuse it. Verification is rustls'
//! own and is never switched off.

use std::fmt::Write as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::model::endpoint::Host;
use crate::model::evidence::{Certificate, Session, Step, Tls};
use crate::model::fault::TlsFault;
use crate::model::text::printable;
use crate::model::units::Bytes;

/// Chains longer than this are cut in the evidence; public ones have two to four.
const MAX_CHAIN: usize = 10;

/// Names of a certificate kept in the evidence; some CDNs present a hundred.
const MAX_NAMES: usize = 20;

/// What came of a handshake.
#[derive(Debug)]
pub struct Secured {
    pub tls: Tls,
    pub stream: Option<TlsStream<Counted>>,
}

/// The client side of TLS with one set of roots, as containerd speaks it: TLS 1.2 and 1.3, HTTP/2
/// before HTTP/1.1, the post-quantum key exchange of Go 1.24 and later.
#[derive(Debug)]
pub struct TlsClient {
    provider: Arc<CryptoProvider>,
    /// `None` when there are no roots: nothing can be verified then.
    verifier: Option<Arc<WebPkiServerVerifier>>,
}

impl TlsClient {
    pub fn new(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .ok();
        Self { provider, verifier }
    }

    /// Secures a connection to `host`.
    pub async fn handshake(&self, host: &Host, stream: TcpStream, limit: Duration) -> Secured {
        let start = Instant::now();
        let recorder = Arc::new(Recorder {
            inner: self.verifier.clone(),
            provider: Arc::clone(&self.provider),
            chain: Mutex::default(),
        });
        let seen = Arc::new(Mutex::new(Seen::default()));
        let result = self.connect(host, stream, limit, &recorder, &seen).await;
        let took = start.elapsed();
        let chain = recorder
            .chain
            .lock()
            .map(|chain| chain.iter().map(certificate).collect())
            .unwrap_or_default();
        let outcome = match result {
            Ok(stream) => {
                let value = session(&stream);
                let tls = Tls {
                    chain,
                    outcome: Step::Done { value, took },
                };
                return Secured {
                    tls,
                    stream: Some(stream),
                };
            }
            Err(TlsFault::UnknownIssuer { .. }) => {
                // The authority that is missing issued the last certificate presented.
                let issuer = chain
                    .last()
                    .map(|top: &Certificate| top.issuer.clone())
                    .unwrap_or_default();
                Step::Failed {
                    fault: TlsFault::UnknownIssuer { issuer },
                    took,
                }
            }
            Err(fault) => Step::Failed { fault, took },
        };
        Secured {
            tls: Tls { chain, outcome },
            stream: None,
        }
    }

    async fn connect(
        &self,
        host: &Host,
        stream: TcpStream,
        limit: Duration,
        recorder: &Arc<Recorder>,
        seen: &Arc<Mutex<Seen>>,
    ) -> Result<TlsStream<Counted>, TlsFault> {
        let name = server_name(host)?;
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsFault::Other {
                reason: error.to_string(),
            })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(recorder) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let counted = Counted {
            inner: stream,
            seen: Arc::clone(seen),
        };
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, counted);
        let outcome = tokio::time::timeout(limit, handshake).await;
        let seen = seen.lock().map(|s| s.clone()).unwrap_or_default();
        match outcome {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(fault(&error, &seen, host)),
            Err(_) => Err(not_tls(&seen).unwrap_or(TlsFault::Timeout {
                received: Bytes(seen.received),
            })),
        }
    }
}

/// The name for SNI and verification; a final dot is DNS's, not TLS's (RFC 6066, 3).
fn server_name(host: &Host) -> Result<ServerName<'static>, TlsFault> {
    match host {
        Host::Address(address) => Ok(ServerName::IpAddress((*address).into())),
        Host::Name(name) => {
            ServerName::try_from(name.trim_end_matches('.').to_owned()).map_err(|_| {
                TlsFault::Other {
                    reason: format!("'{name}' can't be a name in a certificate"),
                }
            })
        }
    }
}

fn session(stream: &TlsStream<Counted>) -> Session {
    let (_, connection) = stream.get_ref();
    let protocol = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3".to_owned(),
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2".to_owned(),
        other => format!("{other:?}"),
    };
    Session {
        protocol,
        cipher_suite: connection
            .negotiated_cipher_suite()
            .map_or_else(String::new, |s| format!("{:?}", s.suite())),
        key_exchange: connection
            .negotiated_key_exchange_group()
            .map(|group| format!("{:?}", group.name())),
        alpn: connection
            .alpn_protocol()
            .map(|p| String::from_utf8_lossy(p).into_owned()),
    }
}

/// rustls' error, in our words.
fn fault(error: &io::Error, seen: &Seen, host: &Host) -> TlsFault {
    let received = Bytes(seen.received);
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(inner) = inner else {
        return match error.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                TlsFault::Reset { received }
            }
            io::ErrorKind::UnexpectedEof => not_tls(seen).unwrap_or(TlsFault::Closed { received }),
            _ => TlsFault::Other {
                reason: printable(&error.to_string()),
            },
        };
    };
    match inner {
        rustls::Error::InvalidCertificate(error) => certificate_fault(error, host),
        rustls::Error::AlertReceived(alert) => TlsFault::Alert {
            alert: u8::from(*alert),
            name: snake(&format!("{alert:?}")),
        },
        rustls::Error::PeerIncompatible(reason) => TlsFault::Incompatible {
            reason: format!("{reason:?}"),
        },
        rustls::Error::InvalidMessage(_) | rustls::Error::InappropriateMessage { .. } => {
            not_tls(seen).unwrap_or_else(|| TlsFault::Other {
                reason: printable(&inner.to_string()),
            })
        }
        _ => TlsFault::Other {
            reason: printable(&inner.to_string()),
        },
    }
}

fn certificate_fault(error: &CertificateError, host: &Host) -> TlsFault {
    match error {
        CertificateError::UnknownIssuer => TlsFault::UnknownIssuer {
            issuer: String::new(),
        },
        CertificateError::NotValidForNameContext { presented, .. } => TlsFault::NameMismatch {
            expected: host.to_string(),
            presented: presented.iter().map(|n| plain_name(n)).collect(),
        },
        CertificateError::NotValidForName => TlsFault::NameMismatch {
            expected: host.to_string(),
            presented: Vec::new(),
        },
        CertificateError::ExpiredContext { time, not_after } => TlsFault::Expired {
            not_after: timestamp(*not_after),
            local_time: timestamp(*time),
        },
        CertificateError::NotValidYetContext { time, not_before } => TlsFault::NotYetValid {
            not_before: timestamp(*not_before),
            local_time: timestamp(*time),
        },
        CertificateError::ApplicationVerificationFailure => TlsFault::NoRoots,
        other => TlsFault::BadCertificate {
            reason: printable(&other.to_string()),
        },
    }
}

/// rustls presents names as `DnsName("a.example.com")`.
fn plain_name(name: &str) -> String {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'))
        .unwrap_or(name);
    printable(inner.trim_matches('"'))
}

fn timestamp(time: UnixTime) -> Timestamp {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|s| Timestamp::from_second(s).ok())
        .unwrap_or(Timestamp::MAX)
}

/// What is no TLS record (RFC 8446, 5.1: content types 20 to 24, version 3.x), told by its first bytes.
fn not_tls(seen: &Seen) -> Option<TlsFault> {
    let first = seen.first.as_slice();
    if first.is_empty() {
        return None;
    }
    if first.starts_with(b"HTTP/") {
        return Some(TlsFault::PlainHttp);
    }
    let is_record = matches!(first[0], 20..=24) && first.get(1).is_none_or(|major| *major == 3);
    (!is_record).then(|| TlsFault::NotTls {
        first_bytes: first.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }),
    })
}

/// `HandshakeFailure` as the RFC writes it: `handshake_failure`.
fn snake(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        if character.is_uppercase()
            && !text.is_empty()
            && !text.ends_with(|c: char| c.is_uppercase())
        {
            text.push('_');
        }
        text.push(character.to_ascii_lowercase());
    }
    text
}

fn certificate(der: &CertificateDer<'static>) -> Certificate {
    let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
    let sha256 = sha256
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
    let Ok((_, parsed)) = X509Certificate::from_der(der) else {
        return Certificate {
            subject: "unreadable".to_owned(),
            issuer: "unreadable".to_owned(),
            names: Vec::new(),
            not_before: Timestamp::MIN,
            not_after: Timestamp::MAX,
            sha256,
        };
    };
    let names = parsed
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|extension| {
            extension
                .value
                .general_names
                .iter()
                .filter_map(general_name)
                .take(MAX_NAMES)
                .collect()
        });
    let at = |seconds: i64, otherwise| Timestamp::from_second(seconds).unwrap_or(otherwise);
    Certificate {
        subject: printable(&parsed.subject().to_string()),
        issuer: printable(&parsed.issuer().to_string()),
        names: names.unwrap_or_default(),
        not_before: at(parsed.validity().not_before.timestamp(), Timestamp::MIN),
        not_after: at(parsed.validity().not_after.timestamp(), Timestamp::MAX),
        sha256,
    }
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(printable(name)),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            let v6 = <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from);
            v4.or(v6).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// Keeps the chain, and leaves the judgement to rustls.
#[derive(Debug)]
struct Recorder {
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Ok(mut chain) = self.chain.lock() {
            let presented = std::iter::once(end_entity).chain(intermediates);
            *chain = presented
                .take(MAX_CHAIN)
                .map(|certificate| certificate.clone().into_owned())
                .collect();
        }
        match &self.inner {
            Some(inner) => {
                inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            // No roots: refused, by the one error that the verifier above never gives.
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What the peer sent so far.
#[derive(Clone, Debug, Default)]
struct Seen {
    received: u64,
    /// Its first bytes, enough to tell a protocol.
    first: Vec<u8>,
}

/// A TCP stream that counts what it receives and keeps the first bytes.
#[derive(Debug)]
pub struct Counted {
    inner: TcpStream,
    seen: Arc<Mutex<Seen>>,
}

const FIRST_BYTES: usize = 16;

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let new = &buffer.filled()[before..];
        if !new.is_empty()
            && let Ok(mut seen) = self.seen.lock()
        {
            seen.received += new.len() as u64;
            let room = FIRST_BYTES.saturating_sub(seen.first.len());
            seen.first.extend(new.iter().take(room));
        }
        poll
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
