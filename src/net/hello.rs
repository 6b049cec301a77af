//! The contents of a ClientHello: the key exchange groups and cipher suites that containerd offers (captured from pulls
//! with 1.6.20, 1.7.24 and 2.1.9; `tests/hello.rs` compares), as far as the provider has them.

use aws_lc_rs::agreement::{
    ECDH_P521, EphemeralPrivateKey, PublicKey, UnparsedPublicKey, agree_ephemeral,
};
use aws_lc_rs::rand::SystemRandom;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SharedSecret, SupportedKxGroup,
};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, SupportedCipherSuite};

/// The groups in Go's order. A key share is sent for the first one only.
const GROUPS: [&dyn SupportedKxGroup; 4] = [
    kx_group::X25519,
    kx_group::SECP256R1,
    kx_group::SECP384R1,
    &Secp521r1,
];

/// Go's order on a processor with AES instructions. The provider lacks some of Go's suites: AES in CBC mode, 3DES, and
/// RSA key exchange.
const SUITES: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// What containerd offers: a ClientHello that fits into one packet.
pub(super) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: SUITES.to_vec(),
        kx_groups: GROUPS.to_vec(),
        ..default_provider()
    }
}

/// The same with a post-quantum share in front, as Go sends it by default since 1.24: a ClientHello of two packets.
pub(super) fn post_quantum_provider() -> CryptoProvider {
    let mut provider = provider();
    provider.kx_groups.insert(0, kx_group::X25519MLKEM768);
    provider
}

/// ECDHE on P-521, which Go offers but the provider of rustls lacks.
#[derive(Clone, Copy, Debug)]
struct Secp521r1;

impl SupportedKxGroup for Secp521r1 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let private = EphemeralPrivateKey::generate(&ECDH_P521, &SystemRandom::new())
            .map_err(|_| GetRandomFailed)?;
        let public = private.compute_public_key().map_err(|_| GetRandomFailed)?;
        Ok(Box::new(Exchange { private, public }))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }
}

struct Exchange {
    private: EphemeralPrivateKey,
    public: PublicKey,
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        // TLS 1.3 allows no other form of a point (RFC 8446 section 4.2.8.2).
        if peer.first() != Some(&UNCOMPRESSED) {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        let peer = UnparsedPublicKey::new(&ECDH_P521, peer);
        let invalid = Error::from(PeerMisbehaved::InvalidKeyShare);
        agree_ephemeral(self.private, peer, invalid, |secret| {
            Ok(SharedSecret::from(secret))
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp521r1
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_ref()
    }
}

/// The first byte of an uncompressed point (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Box<dyn ActiveKeyExchange> {
        Secp521r1.start().unwrap()
    }

    #[test]
    fn both_sides_of_an_exchange_on_p521_get_the_same_secret() {
        let (ours, theirs) = (exchange(), exchange());
        let (our_share, their_share) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
        assert_eq!(our_share.len(), 133, "RFC 8446, 4.2.8.2");
        let secret = ours.complete(&their_share).unwrap();
        let other = theirs.complete(&our_share).unwrap();
        assert_eq!(secret.secret_bytes(), other.secret_bytes());
        assert_eq!(secret.secret_bytes().len(), 66, "RFC 8446, 7.4.2");
    }

    #[test]
    fn a_share_that_is_no_point_of_p521_is_refused() {
        let mut compressed = exchange().pub_key()[..67].to_vec();
        compressed[0] = 2;
        let mut off_the_curve = exchange().pub_key().to_vec();
        off_the_curve[132] ^= 1;
        for share in [&[][..], &[4], &compressed, &off_the_curve] {
            let refused = exchange().complete(share).err();
            assert_eq!(refused, Some(PeerMisbehaved::InvalidKeyShare.into()));
        }
    }
}
