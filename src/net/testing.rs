//! Peers on loopback for the tests of this level: a CA, TLS servers, and servers that misbehave.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};

use crate::trust::{GoBuild, Pool};

/// The longest wait of a test; those that pass take much less.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// Runs `serve` on the first connection to a new port of loopback.
pub(crate) async fn peer<F, Fut>(serve: F) -> SocketAddr
where
    F: FnOnce(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream).await;
    });
    address
}

/// Closes with RST instead of FIN.
pub(crate) fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) der: CertificateDer<'static>,
}

pub(crate) struct Leaf {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

/// Three releases of Go as Debian builds with them.
pub(crate) fn builds() -> Vec<GoBuild> {
    let build = |release| GoBuild {
        of: "a test's build",
        release,
        language: 20,
    };
    [(19, 8), (24, 4), (27, 1)].map(build).to_vec()
}

/// A pool with this root only.
fn pool(root: &[u8]) -> Pool {
    let mut pool = Pool::default();
    pool.add(root, &"ca.pem".into()).unwrap();
    pool
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(&[], name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        Self { issuer, der }
    }

    pub(crate) fn roots(&self) -> Pool {
        pool(&self.der)
    }

    pub(crate) fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, |_| {})
    }

    pub(crate) fn leaf_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let mut params = params(names, "leaf");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            chain: vec![leaf.der().clone()],
            key: key.serialize_der(),
        }
    }
}

impl Leaf {
    /// As of `openssl req -x509`: self-issued, and marked as a CA.
    pub(crate) fn self_signed(names: &[&str], is_ca: IsCa) -> Self {
        let mut params = params(names, "self");
        params.is_ca = is_ca;
        let key = KeyPair::generate().unwrap();
        let leaf = params.self_signed(&key).unwrap();
        Self {
            chain: vec![leaf.der().clone()],
            key: key.serialize_der(),
        }
    }

    pub(crate) fn roots(&self) -> Pool {
        pool(&self.chain[0])
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    pub(crate) fn server(&self, alpn: &[&str]) -> ServerConfig {
        self.server_of(alpn, rustls::ALL_VERSIONS)
    }

    pub(crate) fn server_of(
        &self,
        alpn: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        let mut config = self.config(default_provider(), versions);
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }

    /// A server that has one key exchange group and one version.
    pub(crate) fn server_with(
        &self,
        group: &'static dyn SupportedKxGroup,
        version: &'static SupportedProtocolVersion,
    ) -> ServerConfig {
        let provider = CryptoProvider {
            kx_groups: vec![group],
            ..default_provider()
        };
        self.config(provider, &[version])
    }

    fn config(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key())
            .unwrap()
    }

    /// A server that accepts only clients with a certificate of `ca`.
    pub(crate) fn server_for_clients_of(&self, ca: &Ca) -> ServerConfig {
        let provider = Arc::new(default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(ca.der.clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key())
            .unwrap()
    }
}

/// The server side: makes the handshake, and then hands its stream over.
pub(crate) async fn accept(
    stream: TcpStream,
    config: ServerConfig,
) -> Option<tokio_rustls::server::TlsStream<TcpStream>> {
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
        .accept(stream)
        .await
        .ok()
}
