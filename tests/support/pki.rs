//! A certificate authority of one's own, and certificates with one flaw each.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::NamedTempFile;

const DAY: Duration = Duration::from_hours(24);

/// A root certificate, its key, and its PEM in a file for `--ca-file`.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
    file: NamedTempFile,
}

/// What is wrong with a server's certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flaw {
    None,
    /// Ended yesterday.
    Expired,
    /// Begins tomorrow.
    NotYetValid,
    /// Made out to `elsewhere.test`.
    WrongName,
    SelfSigned,
    /// A root that no client trusts.
    OtherCa,
    /// Signed by an intermediate that the server forgets to send; it says where that is to be had.
    MissingIntermediate,
    /// An ingress controller's own, in place of one for the name.
    OfIngress,
    /// Good for clients only (RFC 5280, 4.2.1.12).
    ForClients,
    /// Good, and ends tomorrow.
    Ending,
}

/// A server's certificate chain and key.
pub struct Leaf {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Ca {
    pub fn new() -> Self {
        Self::named("Pullpath test root")
    }

    pub fn named(name: &str) -> Self {
        Self::with(authority(name))
    }

    /// A root that ended yesterday.
    pub fn expired() -> Self {
        let mut params = authority("Old test root");
        let yesterday = (SystemTime::now() - DAY)
            .duration_since(UNIX_EPOCH)
            .unwrap();
        params.not_after = date_time_ymd(1970, 1, 1) + yesterday;
        Self::with(params)
    }

    /// A root that is not marked as one.
    pub fn unmarked() -> Self {
        let mut params = authority("Unmarked test root");
        params.is_ca = IsCa::ExplicitNoCa;
        Self::with(params)
    }

    fn with(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = NamedTempFile::with_suffix(".pem").unwrap();
        std::fs::write(file.path(), certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            der: certificate.der().clone(),
            pem: certificate.pem(),
            file,
        }
    }

    /// The root as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Where the PEM of the root lies.
    pub fn file(&self) -> &Path {
        self.file.path()
    }

    /// A good certificate: valid from yesterday on, for 90 days.
    pub fn issue(&self, names: &[&str]) -> Leaf {
        self.issue_flawed(names, Flaw::None)
    }

    /// A certificate for these names (DNS names or addresses) with one flaw.
    pub fn issue_flawed(&self, names: &[&str], flaw: Flaw) -> Leaf {
        let now = SystemTime::now();
        let (from, until) = match flaw {
            Flaw::Expired => (now - 90 * DAY, now - DAY),
            Flaw::NotYetValid => (now + DAY, now + 90 * DAY),
            Flaw::Ending => (now - 90 * DAY, now + DAY),
            _ => (now - DAY, now + 90 * DAY),
        };
        match flaw {
            Flaw::WrongName => self.issue_between(&["elsewhere.test"], from, until),
            Flaw::OtherCa => Self::named("Unknown test root").issue_between(names, from, until),
            Flaw::SelfSigned => {
                let key = KeyPair::generate().unwrap();
                let certificate = server(names, from, until).self_signed(&key).unwrap();
                Leaf::new(certificate.der().clone(), &key)
            }
            Flaw::ForClients => {
                let key = KeyPair::generate().unwrap();
                let mut params = server(names, from, until);
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                let certificate = params.signed_by(&key, &self.issuer).unwrap();
                Leaf::new(certificate.der().clone(), &key)
            }
            Flaw::MissingIntermediate => {
                let between = KeyPair::generate().unwrap();
                let params = authority("Pullpath test intermediate");
                // Signed for the sake of a true chain; the server does not send it.
                params.signed_by(&between, &self.issuer).unwrap();
                let key = KeyPair::generate().unwrap();
                let mut leaf = server(names, from, until);
                leaf.custom_extensions = vec![issuer_at("http://pki.test/intermediate.crt")];
                let issuer = Issuer::new(params, between);
                let certificate = leaf.signed_by(&key, &issuer).unwrap();
                Leaf::new(certificate.der().clone(), &key)
            }
            Flaw::OfIngress => {
                let key = KeyPair::generate().unwrap();
                let mut params = server(&["ingress.local"], from, until);
                params.distinguished_name = DistinguishedName::new();
                params.distinguished_name.push(
                    DnType::CommonName,
                    "Kubernetes Ingress Controller Fake Certificate",
                );
                let certificate = params.self_signed(&key).unwrap();
                Leaf::new(certificate.der().clone(), &key)
            }
            _ => self.issue_between(names, from, until),
        }
    }

    /// A certificate valid between two instants.
    pub fn issue_between(&self, names: &[&str], from: SystemTime, until: SystemTime) -> Leaf {
        signed(names, from, until, &self.issuer)
    }
}

impl Leaf {
    fn new(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        Self {
            chain: vec![certificate],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    /// The certificate as PEM.
    pub fn pem(&self) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(&self.chain[0]);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    /// A server's configuration that shows this certificate. It would rather speak HTTP/2, as most
    /// registries do, to clients that offer it by ALPN (RFC 7301).
    pub fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// A certificate that is an authority and a server at once, and signed by itself, as
/// `openssl req -x509` makes them; and its PEM form.
pub fn self_signed_authority(name: &str) -> (Arc<ServerConfig>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let pem = certificate.pem();
    (Leaf::new(certificate.der().clone(), &key).config(), pem)
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// An authorityInfoAccess extension with one caIssuers (RFC 5280, 4.2.2.1).
fn issuer_at(url: &str) -> CustomExtension {
    let length = |bytes: usize| u8::try_from(bytes).unwrap();
    let method = [6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2];
    let mut access = vec![0x30, length(method.len() + 2 + url.len())];
    access.extend(method);
    access.extend([0x86, length(url.len())]);
    access.extend(url.as_bytes());
    let mut value = vec![0x30, length(access.len())];
    value.extend(access);
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], value)
}

fn server(names: &[&str], from: SystemTime, until: SystemTime) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let first = names.first().cloned().unwrap_or_default();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, first);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + from.duration_since(UNIX_EPOCH).unwrap();
    params.not_after = epoch + until.duration_since(UNIX_EPOCH).unwrap();
    params
}

fn signed(
    names: &[&str],
    from: SystemTime,
    until: SystemTime,
    issuer: &Issuer<'static, KeyPair>,
) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let certificate = server(names, from, until).signed_by(&key, issuer).unwrap();
    Leaf::new(certificate.der().clone(), &key)
}
