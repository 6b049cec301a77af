//! The TLS phase: one handshake as containerd would make it, with the server's chain recorded whatever the result.
//! Verification is never disabled: a rejected certificate is a result, even if containerd is configured to continue
//! with it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, InvalidMessage,
    PeerMisbehaved, ProtocolVersion, SignatureScheme,
};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::chain::{self, Presented, Shown};
use super::hello;
use super::recorded_stream::{End, Recorded, RecordedStream};
use super::roots::is_public;
use super::stream::{Stream, TlsStream};
use crate::model::connect::{Session, Tls};
use crate::model::endpoint::Host;
use crate::model::fault::TlsFault;
use crate::model::step::Step;
use crate::model::text::{hex, printable};
use crate::model::units::Bytes;
use crate::own;
use crate::trust::{self, Certificate, GoBuild, Pool};

/// The result of the TLS phase.
#[derive(Debug)]
pub struct Secured {
    /// The handshake and the chain, as evidence.
    pub tls: Tls,
    /// The stream to use; `None` if the phase failed.
    pub stream: Option<TlsStream>,
}

/// A TLS client with one set of roots.
#[derive(Clone, Debug)]
pub struct TlsClient {
    provider: Arc<CryptoProvider>,
    pool: Arc<Pool>,
    /// The roots that the runtime has for certain, if its bundle was changed; otherwise `None`.
    unchanged: Option<Arc<Pool>>,
    /// The builds whose rules decide about certificates.
    pub builds: Arc<[GoBuild]>,
    /// Continue with a rejected certificate, and record that (`skip_verify` of hosts.toml): verification still runs.
    /// Nothing secret may be sent then; see [`Tls::unverified`].
    pub pardons: bool,
    /// Client certificates; one is selected as Go does.
    pub client: Arc<ClientCertificates>,
    /// ALPN protocols, most preferred first.
    protocols: &'static [&'static [u8]],
}

impl TlsClient {
    /// A client with these roots. Its verdicts are those of `builds`: if they differ, the result is undecided.
    pub fn new(pool: Pool, builds: &[GoBuild]) -> Self {
        Self {
            provider: Arc::new(hello::provider()),
            unchanged: pool.unchanged(is_public).map(Arc::new),
            pool: Arc::new(pool),
            builds: builds.into(),
            pardons: false,
            client: Arc::default(),
            // containerd's transport offers no ALPN.
            protocols: &[],
        }
    }

    /// A client for handshakes over which nothing is sent: it accepts any certificate.
    pub fn for_trials() -> Self {
        Self {
            pardons: true,
            ..Self::new(Pool::default(), &[])
        }
    }

    /// The same client with a ClientHello that needs two packets, as Go's own client sends it by default since 1.24:
    /// with a post-quantum share and ALPN.
    #[must_use]
    pub fn with_large_hello(self) -> Self {
        Self {
            provider: Arc::new(hello::post_quantum_provider()),
            protocols: &[b"h2", b"http/1.1"],
            ..self
        }
    }

    /// The size of the first TLS record of [`Self::handshake`], in bytes; `None` if the host is not valid in TLS.
    pub fn hello_size(&self, host: &Host) -> Option<Bytes> {
        let config = Arc::new(self.config(host, &Presented::default()));
        let mut connection = ClientConnection::new(config, server_name(host)?).ok()?;
        let size = connection.write_tls(&mut io::sink()).ok()?;
        Some(Bytes(u64::try_from(size).ok()?))
    }

    /// Makes one handshake with `host` over `stream`.
    pub async fn handshake(
        &self,
        host: &Host,
        stream: impl Into<Stream>,
        limit: Duration,
    ) -> Secured {
        let started = Instant::now();
        let presented = Presented::default();
        let result = self.session(host, stream.into(), limit, &presented).await;
        let took = started.elapsed();
        let shown = presented.shown();
        let (fault, bad_link) = shown.refused.map_or((None, None), |refused| {
            (Some(refused.fault), refused.bad_link)
        });
        let (result, stream, unverified) = match result {
            Ok((session, stream)) => (Ok(session), Some(stream), fault),
            Err(other) => (Err(other.or(fault).unwrap_or_else(unexplained)), None, None),
        };
        Secured {
            tls: Tls {
                chain: chain::certificates(&shown.chain),
                unverified,
                bad_link,
                leaf_trusted: shown.trusted_itself,
                depends_on_changed_roots: shown.depends_on_changed_roots,
                retransmits: None,
                outcome: Step::from_result(result, took),
            },
            stream,
        }
    }

    async fn session(
        &self,
        host: &Host,
        stream: Stream,
        limit: Duration,
        presented: &Presented,
    ) -> Result<(Session, TlsStream), Option<TlsFault>> {
        let name = server_name(host).ok_or_else(|| TlsFault::Other {
            reason: printable(&format!("{host} is not a valid server name for TLS")),
        });
        let name = name.map_err(Some)?;
        let connector = TlsConnector::from(Arc::new(self.config(host, presented)));
        let (stream, record) = RecordedStream::new(stream);
        match own::within(limit, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok((session_of(stream.get_ref().1), stream)),
            // The alert with the reason has been sent by then, unless the socket blocked.
            Ok(Err(error)) => Err(self.failure(&error, &record.recorded(), &presented.shown())),
            Err(elapsed) => {
                let recorded = record.recorded();
                let received = Bytes(recorded.received);
                let silence = || elapsed.or(TlsFault::Timeout { received });
                Err(Some(not_tls(&recorded.first).unwrap_or_else(silence)))
            }
        }
    }

    /// The configuration for one handshake with `host`; the chain is recorded in `presented`.
    pub(super) fn config(&self, host: &Host, presented: &Presented) -> ClientConfig {
        let verifier = Recorder {
            client: self.clone(),
            host: host.bare(),
            presented: presented.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has cipher suites of both versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.client.clone());
        config.alpn_protocols = self.protocols.iter().map(|name| name.to_vec()).collect();
        // A resumed session shows no chain; Go's client does not resume by default either.
        config.resumption = Resumption::disabled();
        config
    }

    /// The fault for a handshake message above 64 KiB, such as a chain of hundreds of certificates.
    fn too_large(&self) -> TlsFault {
        let reason = "the server sends more than 64 KiB of certificates".to_owned();
        if self.builds.iter().any(GoBuild::takes_large_chains) {
            let reason = format!(
                "{reason}, which containerd's newer builds accept but this program does not"
            );
            TlsFault::Undecided { reason }
        } else {
            TlsFault::BadCertificate { reason }
        }
    }

    /// Why a handshake with [`Self::config`] failed, without a record of its bytes.
    pub(super) fn fault(&self, error: &io::Error, presented: &Presented) -> TlsFault {
        let shown = presented.shown();
        let other = self.failure(error, &Recorded::default(), &shown);
        other
            .or(shown.refused.map(|refused| refused.fault))
            .unwrap_or_else(unexplained)
    }

    /// Maps the end of a handshake to its fault. `None`: this client rejected the certificate; the recorded chain shows
    /// why.
    fn failure(&self, error: &io::Error, recorded: &Recorded, shown: &Shown) -> Option<TlsFault> {
        let tls = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        let reason = || printable(&error.to_string());
        // Versions below 1.2, which this program does not support; containerd does up to 1.6.8.
        let is_too_old = |fault| {
            if self.builds.iter().any(GoBuild::offers_tls10) {
                return TlsFault::Undecided {
                    reason: "the server supports no TLS version above 1.1; containerd up to 1.6.8 accepts that, \
                             later releases do not"
                        .to_owned(),
                };
            }
            fault
        };
        match tls {
            Some(rustls::Error::InvalidCertificate(_)) if !shown.accepted => return None,
            // The chain was valid, but its owner's handshake signature was not.
            Some(rustls::Error::InvalidCertificate(error)) => {
                return Some(match &shown.unchecked {
                    Some(reason) => TlsFault::Undecided {
                        reason: printable(reason),
                    },
                    None => TlsFault::BadCertificate {
                        reason: printable(&format!("handshake signature: {error}")),
                    },
                });
            }
            Some(rustls::Error::AlertReceived(alert)) => {
                let (alert, name) = alert_name(*alert);
                let fault = TlsFault::Alert { alert, name };
                return Some(match alert {
                    70 => is_too_old(fault),
                    _ => fault,
                });
            }
            _ => {}
        }
        if let Some(fault) = not_tls(&recorded.first) {
            return Some(fault);
        }
        let received = Bytes(recorded.received);
        Some(match (tls, &recorded.end) {
            (Some(rustls::Error::PeerIncompatible(_)), _) => {
                is_too_old(TlsFault::Incompatible { reason: reason() })
            }
            (Some(rustls::Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge)), _) => {
                self.too_large()
            }
            (
                Some(rustls::Error::PeerMisbehaved(
                    PeerMisbehaved::UnsolicitedEncryptedExtension
                    | PeerMisbehaved::UnsolicitedServerHelloExtension,
                )),
                _,
            ) => TlsFault::Incompatible {
                reason: "the server's response has an extension that was not requested (ALPN)"
                    .to_owned(),
            },
            // Go may be less strict.
            (Some(rustls::Error::PeerMisbehaved(_)), _) => TlsFault::Undecided { reason: reason() },
            (Some(rustls::Error::NoCertificatesPresented), _) => {
                TlsFault::BadCertificate { reason: reason() }
            }
            (None, Some(End::OwnLimit(limit))) => TlsFault::from(*limit),
            (None, Some(End::Reset)) => TlsFault::Reset { received },
            (None, Some(End::Close)) => TlsFault::Closed { received },
            (None, Some(End::Timeout)) => TlsFault::Timeout { received },
            _ => TlsFault::Other { reason: reason() },
        })
    }
}

/// The fault if rustls itself rejects a certificate.
fn unexplained() -> TlsFault {
    TlsFault::Undecided {
        reason: "the TLS library rejected the certificate before it could be checked".to_owned(),
    }
}

/// SNI has no trailing dot (RFC 6066 section 3), and certificates have none in their names.
fn server_name(host: &Host) -> Option<ServerName<'static>> {
    match host {
        Host::Address(address) => Some(ServerName::from(*address)),
        Host::Name(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            ServerName::try_from(name.to_owned()).ok()
        }
    }
}

/// The fault if the first bytes of a response are not a TLS record (RFC 8446 section 5.1: a content type of 20 to 24,
/// then a version that begins with 3).
fn not_tls(first: &[u8]) -> Option<TlsFault> {
    match first {
        [] | [20..=24] | [20..=24, 3, ..] => None,
        _ if first.starts_with(b"HTTP/") => Some(TlsFault::PlainHttp),
        _ => Some(TlsFault::NotTls {
            first_bytes: hex(first),
        }),
    }
}

/// Number and name of an alert in RFC 8446 section 6 and the IANA registry.
pub(super) fn alert_name(alert: rustls::AlertDescription) -> (u8, String) {
    let number = u8::from(alert);
    let name = match number {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        22 => "record_overflow",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        100 => "no_renegotiation",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        121 => "ech_required",
        _ => "unknown",
    };
    (number, name.to_owned())
}

fn session_of(connection: &ClientConnection) -> Session {
    let protocol = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
        other => format!("{other:?}"),
    };
    let cipher_suite = connection
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str())
        .unwrap_or("unknown")
        // The prefix is rustls' own; IANA's names begin with TLS_ in all versions.
        .replacen("TLS13_", "TLS_", 1);
    Session {
        protocol,
        cipher_suite,
        key_exchange: connection
            .negotiated_key_exchange_group()
            .map(|group| format!("{:?}", group.name())),
        alpn: None,
    }
}

// ---- client certificates ------------------------------------------------------------------------

/// Client certificates, in the order of their configuration.
#[derive(Debug, Default)]
pub struct ClientCertificates(Vec<Arc<CertifiedKey>>);

/// Why a pair of certificate and key can't be used. Go fails the same way (`tls.X509KeyPair`).
#[derive(Debug, thiserror::Error)]
pub enum ClientCertificateError {
    /// There is no certificate.
    #[error("contains no PEM certificate")]
    NoCertificate,
    /// There is no private key.
    #[error("contains no PEM private key")]
    NoKey,
    /// The key's type is not supported, or the key does not belong to the certificate.
    #[error("has a key of an unsupported type, or one that does not match the certificate")]
    BadKey,
}

impl ClientCertificates {
    /// Adds a pair in PEM form. `key` may be the same bytes as `certificate`.
    ///
    /// # Errors
    /// If the certificate or key is missing, or they can't be used together.
    pub fn add(&mut self, certificate: &[u8], key: &[u8]) -> Result<(), ClientCertificateError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| ClientCertificateError::NoCertificate)?;
        if chain.is_empty() {
            return Err(ClientCertificateError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ClientCertificateError::NoKey)?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
            .map_err(|_| ClientCertificateError::BadKey)?;
        self.0.push(Arc::new(key));
        Ok(())
    }
}

impl ResolvesClientCert for ClientCertificates {
    /// The first certificate whose chain leads to an authority that the server names (`SupportsCertificate`).
    fn resolve(
        &self,
        root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let issued = |certificate: &CertificateDer<'_>| {
            X509Certificate::from_der(certificate)
                .is_ok_and(|(_, parsed)| root_hint_subjects.contains(&parsed.issuer().as_raw()))
        };
        let fits = |pair: &&Arc<CertifiedKey>| {
            pair.key.choose_scheme(schemes).is_some()
                && (root_hint_subjects.is_empty() || pair.cert.iter().any(issued))
        };
        self.0.iter().find(fits).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

// ---- the verifier -------------------------------------------------------------------------------

/// Records the chain and Go's verdict on it. rustls checks the handshake signature, as far as it can.
#[derive(Debug)]
struct Recorder {
    client: TlsClient,
    host: String,
    presented: Presented,
}

impl Recorder {
    /// A signature that rustls rejects is bad only if rustls checks the same as Go: not for RSA keys below 2048 bits,
    /// nor for certificates that it can't parse.
    fn checked(
        &self,
        result: Result<HandshakeSignatureValid, rustls::Error>,
        leaf: &CertificateDer<'_>,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let Err(error) = &result else {
            return result;
        };
        let bits = Certificate::parse(leaf)
            .ok()
            .and_then(|leaf| trust::rsa_bits(&leaf));
        let is_bad = matches!(
            error,
            rustls::Error::InvalidCertificate(CertificateError::BadSignature)
        );
        match bits {
            Some(bits) if bits < 2048 => self.presented.leave_unchecked(format!(
                "the server's RSA key has {bits} bits, and this program can't check signatures with keys \
                 below 2048 bits"
            )),
            _ if is_bad => {}
            _ => self.presented.leave_unchecked(format!(
                "this program can't check the server's handshake signature: {error}"
            )),
        }
        result
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<&[u8]> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(AsRef::as_ref)
            .collect();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let client = &self.client;
        let by = |pool: &Pool| chain::judge(pool, &chain, &self.host, now, &client.builds);
        let mut shown = by(&client.pool);
        let unchanged = client.unchanged.as_deref().filter(|_| !client.pardons);
        shown.depends_on_changed_roots =
            unchanged.is_some_and(|unchanged| shown.may_differ_by(|| by(unchanged)));
        let refused = shown
            .refused
            .as_ref()
            .filter(|refused| !client.pardons || refused.is_unreadable)
            .map(|refused| chain::alert(&refused.fault));
        shown.accepted = refused.is_none();
        self.presented.record(shown);
        match refused {
            None => Ok(ServerCertVerified::assertion()),
            Some(error) => Err(error.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.client.provider.signature_verification_algorithms;
        let result = rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms);
        self.checked(result, cert)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.client.provider.signature_verification_algorithms;
        let result = rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms);
        self.checked(result, cert)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.client.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use tokio::time::timeout;

    use super::*;
    use crate::net::testing::{self, Ca, LONG, Leaf, peer};

    async fn handshake(
        roots: Pool,
        host: &str,
        at: std::net::SocketAddr,
        limit: Duration,
    ) -> Secured {
        let stream = TcpStream::connect(at).await.unwrap();
        TlsClient::new(roots, &testing::builds())
            .handshake(&Host::new(host), stream, limit)
            .await
    }

    /// Makes a handshake with a TLS server that does nothing afterwards.
    async fn with_server(roots: Pool, host: &str, config: rustls::ServerConfig) -> Secured {
        let at = peer(|stream| async move {
            let mut stream = testing::accept(stream, config).await;
            if let Some(stream) = &mut stream {
                let _ = stream.read(&mut [0; 1]).await;
            }
        })
        .await;
        handshake(roots, host, at, LONG).await
    }

    /// Reads a part of the ClientHello, then does what the test needs.
    async fn with_peer<F, Fut>(limit: Duration, serve: F) -> TlsFault
    where
        F: FnOnce(TcpStream) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let at = peer(|mut stream| async move {
            // All of it: unread data would turn FIN into RST.
            let mut header = [0; 5];
            stream.read_exact(&mut header).await.unwrap();
            let length = u16::from_be_bytes([header[3], header[4]]).into();
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            serve(stream).await;
        })
        .await;
        let secured = handshake(Ca::new("any").roots(), "registry.test", at, limit).await;
        assert!(secured.stream.is_none());
        assert_eq!(secured.tls.chain, vec![]);
        secured.tls.outcome.fault().unwrap().clone()
    }

    #[tokio::test]
    async fn a_healthy_server_gives_a_session_and_its_chain() {
        let ca = Ca::new("Test CA");
        for (versions, alpn, protocol) in [
            (&rustls::version::TLS13, &["h2", "http/1.1"][..], "TLSv1.3"),
            (&rustls::version::TLS13, &[][..], "TLSv1.3"),
            (&rustls::version::TLS12, &[][..], "TLSv1.2"),
        ] {
            let leaf = ca.leaf(&["registry.test", "*.registry.test", "10.1.2.3"]);
            let secured = with_server(
                ca.roots(),
                "registry.test",
                leaf.server_of(alpn, &[versions]),
            )
            .await;
            let session = secured.tls.outcome.done().unwrap();
            assert_eq!(session.protocol, protocol);
            assert!(session.cipher_suite.starts_with("TLS_"), "{session:?}");
            assert!(!session.cipher_suite.starts_with("TLS13_"), "{session:?}");
            assert_eq!(session.key_exchange.as_deref(), Some("X25519"));
            assert_eq!(session.alpn, None);
            assert!(secured.stream.is_some());
            let [certificate] = &secured.tls.chain[..] else {
                panic!("{:?}", secured.tls.chain)
            };
            assert_eq!(
                certificate.names,
                ["registry.test", "*.registry.test", "10.1.2.3"]
            );
            assert_eq!(certificate.subject, "CN=leaf");
            assert!(certificate.issuer.contains("CN=Test CA"));
            assert_eq!(certificate.sha256.len(), 64);
        }
    }

    #[test]
    fn the_usual_hello_fits_into_one_packet_and_the_large_one_does_not() {
        let long = format!("{}.test", ["a"; 60].concat());
        for host in [
            "a.test",
            "10.1.2.3",
            "registry.eu-central-1.example.com",
            &long,
        ] {
            let host = Host::new(host);
            let usual = TlsClient::for_trials();
            let size = usual.hello_size(&host).unwrap();
            assert!(size < Bytes(400), "{host}: {size}");
            // 1500 bytes of Ethernet hold 1460 of TCP, without its options.
            let size = usual.with_large_hello().hello_size(&host).unwrap();
            assert!((1461..2000).contains(&size.0), "{host}: {size}");
        }
    }

    #[tokio::test]
    async fn a_large_hello_is_spoken_by_both_kinds_of_server() {
        let ca = Ca::new("Test CA");
        let leaf = ca.leaf(&["registry.test"]);
        let old = leaf.server_with(hello::provider().kx_groups[0], &rustls::version::TLS12);
        for (config, group) in [(leaf.server(&["h2"]), "X25519MLKEM768"), (old, "X25519")] {
            let at = peer(|stream| async move {
                let _ = testing::accept(stream, config).await;
            })
            .await;
            let stream = TcpStream::connect(at).await.unwrap();
            let secured = TlsClient::for_trials()
                .with_large_hello()
                .handshake(&Host::new("registry.test"), stream, LONG)
                .await;
            let session = secured.tls.outcome.done().unwrap();
            assert_eq!(session.key_exchange.as_deref(), Some(group));
        }
    }

    #[tokio::test]
    async fn each_group_of_containerd_is_spoken() {
        let ca = Ca::new("Test CA");
        for group in hello::provider().kx_groups {
            for version in rustls::ALL_VERSIONS {
                let config = ca.leaf(&["registry.test"]).server_with(group, version);
                let secured = with_server(ca.roots(), "registry.test", config).await;
                let session = secured.tls.outcome.done().unwrap();
                let expected = format!("{:?}", group.name());
                assert_eq!(session.key_exchange, Some(expected), "{version:?}");
            }
        }
    }

    #[tokio::test]
    async fn names_with_a_final_dot_and_addresses_are_verified_too() {
        let ca = Ca::new("Test CA");
        for host in ["registry.test.", "Registry.Test", "127.0.0.1", "[::1]"] {
            let leaf = ca.leaf(&["registry.test", "127.0.0.1", "::1"]);
            let secured = with_server(ca.roots(), host, leaf.server(&[])).await;
            assert!(secured.stream.is_some(), "{host}: {:?}", secured.tls);
        }
        let secured =
            with_server(ca.roots(), "127.0.0.2", ca.leaf(&["127.0.0.1"]).server(&[])).await;
        assert_eq!(
            secured.tls.outcome.fault(),
            Some(&TlsFault::NameMismatch {
                expected: "127.0.0.2".to_owned(),
                presented: vec!["127.0.0.1".to_owned()]
            })
        );
    }

    #[tokio::test]
    async fn a_refused_certificate_is_on_record_with_the_reason() {
        let ca = Ca::new("Test CA");
        let other = Ca::new("Corp Inspection CA");
        let y = rcgen::date_time_ymd;
        let healthy = || ca.leaf(&["registry.test"]);
        for (name, leaf, roots, check) in [
            (
                "unknown issuer",
                other.leaf(&["registry.test"]),
                ca.roots(),
                (|f: &TlsFault| matches!(f, TlsFault::UnknownIssuer { issuer } if issuer.contains("Corp Inspection CA")))
                    as fn(&TlsFault) -> bool,
            ),
            ("no roots", healthy(), Pool::default(), |f| {
                *f == TlsFault::NoRoots
            }),
            (
                "name mismatch",
                ca.leaf(&["*.example.com", "10.0.0.1"]),
                ca.roots(),
                |f| {
                    *f == TlsFault::NameMismatch {
                        expected: "registry.test".to_owned(),
                        presented: vec!["*.example.com".to_owned(), "10.0.0.1".to_owned()],
                    }
                },
            ),
            (
                "no name at all",
                ca.leaf(&[]),
                ca.roots(),
                |f| matches!(f, TlsFault::NameMismatch { presented, .. } if presented.is_empty()),
            ),
            (
                "expired",
                ca.leaf_with(&["registry.test"], |p| {
                    p.not_before = y(2000, 1, 1);
                    p.not_after = y(2001, 1, 1);
                }),
                ca.roots(),
                |f| {
                    matches!(f, TlsFault::Expired { not_after, local_time }
                    if not_after.to_string() == "2001-01-01T00:00:00Z" && local_time > not_after)
                },
            ),
            (
                "not yet valid",
                ca.leaf_with(&["registry.test"], |p| {
                    p.not_before = y(4000, 1, 1);
                    p.not_after = y(9999, 12, 31);
                }),
                ca.roots(),
                |f| {
                    matches!(f, TlsFault::NotYetValid { not_before, local_time }
                    if not_before.to_string() == "4000-01-01T00:00:00Z" && local_time < not_before)
                },
            ),
            (
                "for clients only",
                ca.leaf_with(&["registry.test"], |p| {
                    p.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
                }),
                ca.roots(),
                |f| matches!(f, TlsFault::BadCertificate { .. }),
            ),
        ] {
            let secured = with_server(roots, "registry.test", leaf.server(&["h2"])).await;
            let fault = secured.tls.outcome.fault().unwrap();
            assert!(check(fault), "{name}: {fault:?}");
            assert!(secured.stream.is_none(), "{name}");
            assert_eq!(secured.tls.chain.len(), 1, "{name}");
        }
    }

    #[tokio::test]
    async fn the_issuer_named_is_the_one_above_the_whole_chain() {
        let root = Ca::new("Hidden Root");
        let mut leaf = Ca::new("Intermediate").leaf(&["registry.test"]);
        let above = root.leaf_with(&[], |p| {
            p.distinguished_name = rcgen::DistinguishedName::new();
            p.distinguished_name
                .push(rcgen::DnType::CommonName, "Intermediate");
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        });
        leaf.chain.extend(above.chain);
        let secured =
            with_server(Ca::new("Other").roots(), "registry.test", leaf.server(&[])).await;
        assert_eq!(secured.tls.chain.len(), 2);
        assert!(
            matches!(secured.tls.outcome.fault(), Some(TlsFault::UnknownIssuer { issuer }) if issuer.contains("Hidden Root")),
            "{:?}",
            secured.tls.outcome
        );
    }

    #[tokio::test]
    async fn a_self_signed_server_is_judged_as_go_does_also_when_it_says_it_is_a_ca() {
        let is_ca = || IsCa::Ca(BasicConstraints::Unconstrained);
        for (kind, label) in [(is_ca(), "CA"), (IsCa::ExplicitNoCa, "no CA")] {
            let leaf = Leaf::self_signed(&["registry.test"], kind);
            let trusted = with_server(leaf.roots(), "registry.test", leaf.server(&[])).await;
            assert!(trusted.stream.is_some(), "{label}: {:?}", trusted.tls);

            let other_name = with_server(leaf.roots(), "other.test", leaf.server(&[])).await;
            assert!(
                matches!(
                    other_name.tls.outcome.fault(),
                    Some(TlsFault::NameMismatch { .. })
                ),
                "{label}: {:?}",
                other_name.tls
            );

            // Same name, other key: not the one in the roots.
            let twin = Leaf::self_signed(&["registry.test"], is_ca());
            let unknown = with_server(twin.roots(), "registry.test", leaf.server(&[])).await;
            assert!(
                matches!(
                    unknown.tls.outcome.fault(),
                    Some(TlsFault::UnknownIssuer { .. })
                ),
                "{label}: {:?}",
                unknown.tls
            );
        }
        let leaf = Leaf::self_signed(&["registry.test"], is_ca());
        let secured =
            with_server(Ca::new("Other").roots(), "registry.test", leaf.server(&[])).await;
        assert!(
            matches!(
                secured.tls.outcome.fault(),
                Some(TlsFault::UnknownIssuer { .. })
            ),
            "{:?}",
            secured.tls
        );
        // Signed by a trusted CA, and marked as a CA itself, which Go ignores.
        let ca = Ca::new("Test CA");
        let marked = ca.leaf_with(&["registry.test"], |p| p.is_ca = is_ca());
        let secured = with_server(ca.roots(), "registry.test", marked.server(&[])).await;
        assert!(secured.stream.is_some(), "{:?}", secured.tls);
        assert_eq!(secured.tls.leaf_trusted, None);
    }

    #[tokio::test]
    async fn a_server_whose_own_certificate_is_a_root_is_reported() {
        let leaf = Ca::new("Test CA").leaf(&["registry.test"]);
        let secured = with_server(leaf.roots(), "registry.test", leaf.server(&[])).await;
        assert!(secured.stream.is_some(), "{:?}", secured.tls);
        assert_eq!(secured.tls.leaf_trusted.as_deref(), Some("ca.pem"));
    }

    #[tokio::test]
    async fn a_peer_that_speaks_no_tls_is_recognized_by_its_first_bytes() {
        for (says, fault) in [
            (
                &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
                TlsFault::PlainHttp,
            ),
            (
                b"SSH-2.0-OpenSSH_9.2\r\n",
                TlsFault::NotTls {
                    first_bytes: "5353482d322e302d4f70656e5353485f".to_owned(),
                },
            ),
            (
                b"+OK",
                TlsFault::NotTls {
                    first_bytes: "2b4f4b".to_owned(),
                },
            ),
        ] {
            let fin = with_peer(LONG, move |mut stream| async move {
                stream.write_all(says).await.unwrap();
            })
            .await;
            assert_eq!(fin, fault);
            let hang = with_peer(Duration::from_millis(300), move |mut stream| async move {
                stream.write_all(says).await.unwrap();
                let _ = stream.read(&mut [0; 1]).await;
            })
            .await;
            assert_eq!(hang, fault);
        }
    }

    #[tokio::test]
    async fn reset_fin_and_silence_after_our_hello_are_three_things() {
        let part = &[22, 3, 3, 0, 90, 2][..];
        for (sent, received) in [(&[][..], Bytes(0)), (part, Bytes(6))] {
            let reset = with_peer(LONG, move |mut stream| async move {
                stream.write_all(sent).await.unwrap();
                // RST must not overtake the data in the client's queue.
                tokio::time::sleep(Duration::from_millis(50)).await;
                testing::reset(stream);
            })
            .await;
            assert_eq!(reset, TlsFault::Reset { received });
            let closed = with_peer(LONG, move |mut stream| async move {
                stream.write_all(sent).await.unwrap();
            })
            .await;
            assert_eq!(closed, TlsFault::Closed { received });
            let silent = with_peer(Duration::from_millis(300), move |mut stream| async move {
                stream.write_all(sent).await.unwrap();
                let _ = stream.read(&mut [0; 1]).await;
            })
            .await;
            assert_eq!(silent, TlsFault::Timeout { received });
        }
    }

    #[tokio::test]
    async fn an_alert_has_its_number_and_name() {
        for (number, name) in [
            (40, "handshake_failure"),
            (70, "protocol_version"),
            (112, "unrecognized_name"),
            (120, "no_application_protocol"),
            (200, "unknown"),
        ] {
            let fault = with_peer(LONG, move |mut stream| async move {
                stream
                    .write_all(&[21, 3, 3, 0, 2, 2, number])
                    .await
                    .unwrap();
            })
            .await;
            assert_eq!(
                fault,
                TlsFault::Alert {
                    alert: number,
                    name: name.to_owned()
                }
            );
        }
    }

    #[tokio::test]
    async fn a_server_hello_of_an_old_version_is_incompatible() {
        // ServerHello, TLS 1.0, no session, TLS_RSA_WITH_AES_128_CBC_SHA, no compression.
        let mut hello = vec![22, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1];
        hello.extend([7; 32]);
        hello.extend([0, 0, 0x2f, 0]);
        let fault = with_peer(LONG, move |mut stream| async move {
            stream.write_all(&hello).await.unwrap();
            let _ = stream.read(&mut [0; 1]).await;
        })
        .await;
        assert!(matches!(fault, TlsFault::Incompatible { .. }), "{fault:?}");
    }

    #[tokio::test]
    async fn after_a_refusal_the_server_gets_the_reason() {
        let ca = Ca::new("Test CA");
        let config = ca.leaf(&["registry.test"]).server(&[]);
        let (sender, received) = tokio::sync::oneshot::channel();
        let at = peer(|stream| async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let error = acceptor.accept(stream).await.err();
            let _ = sender.send(error);
        })
        .await;
        let secured = handshake(Ca::new("Other").roots(), "registry.test", at, LONG).await;
        assert!(secured.stream.is_none());
        let error = timeout(LONG, received).await.unwrap().unwrap().unwrap();
        let alert = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        assert_eq!(
            alert,
            Some(&rustls::Error::AlertReceived(
                rustls::AlertDescription::UnknownCA
            ))
        );
    }

    #[tokio::test]
    async fn a_name_tls_cannot_carry_is_a_fault_and_no_panic() {
        let at = peer(|_| async {}).await;
        let secured = handshake(Pool::default(), "not a name", at, LONG).await;
        assert!(matches!(
            secured.tls.outcome.fault(),
            Some(TlsFault::Other { .. })
        ));
    }
}
