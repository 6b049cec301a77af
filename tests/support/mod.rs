//! Peers for tests and the demo: a name server, a registry, its token service and its object
//! store, all in this process and on ports of their own of 127.0.0.1, each with knobs to make it
//! fail in one way.
//!
//! ```ignore
//! let world = World::healthy().await;
//! world.registry.knobs().head_405 = true;
//! world.tokens.server.set_tls(Some(world.config("auth.test", Flaw::Expired)));
//! ```

#![allow(dead_code, reason = "each test uses a part")]
#![allow(
    unreachable_pub,
    reason = "shared by several crates, which are no libraries"
)]
#![allow(clippy::unwrap_used, reason = "this is test code")]

pub mod blobs;
pub mod dns;
pub mod hello;
pub mod image;
pub mod pki;
pub mod proxy;
pub mod registry;
pub mod requests;
pub mod tcp;
pub mod token;
pub mod web;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ServerConfig;
use serde_json::json;
use tempfile::TempDir;

use blobs::BlobHost;
use dns::Dns;
use image::Image;
use pki::{Ca, Flaw};
use registry::{Auth, Redirect, Registry, Store};
use token::TokenService;

/// The name of the registry, without its port.
pub const REGISTRY: &str = "registry.test";
/// The name of the token service.
pub const AUTH: &str = "auth.test";
/// The name of the object store.
pub const BLOBS: &str = "blobs.test";
/// The private image.
pub const REPOSITORY: &str = "team/app";
/// The image that everybody may pull.
pub const PUBLIC_REPOSITORY: &str = "library/hello";
pub const TAG: &str = "1.0";
pub const USER: &str = "puller";
/// No other text of a test holds this: where it turns up, a secret got out.
pub const PASSWORD: &str = "canary-7f3a9c-s3cret";

/// Everything that one pull meets.
///
/// As it starts all is well: [`REPOSITORY`] wants a token, [`USER`] gets one, an anonymous client
/// gets one without rights; blobs lie at [`BLOBS`] behind a signed redirect.
pub struct World {
    pub ca: Ca,
    pub dns: Dns,
    pub registry: Registry,
    pub tokens: TokenService,
    pub blobs: BlobHost,
    /// What both repositories hold under [`TAG`].
    pub image: Image,
    tls: bool,
    directory: TempDir,
}

impl World {
    /// All hosts by HTTPS.
    pub async fn healthy() -> Self {
        Self::start(true).await
    }

    /// All hosts by plain http.
    pub async fn plain() -> Self {
        Self::start(false).await
    }

    async fn start(tls: bool) -> Self {
        let ca = Ca::new();
        let config = |name: &str| tls.then(|| ca.issue(&[name]).config());
        let dns = Dns::start().await;
        for name in [REGISTRY, AUTH, BLOBS] {
            dns.host(name, &[IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        }
        let image = Image::multi(1);
        let store = Store::default();
        store.push(REPOSITORY, TAG, &image);
        store.push(PUBLIC_REPOSITORY, TAG, &image);
        let tokens = TokenService::start(config(AUTH)).await;
        let blobs = BlobHost::start(config(BLOBS), store.blobs.clone()).await;
        let registry = Registry::start(config(REGISTRY), store, tokens.grants.clone()).await;
        let world = Self {
            ca,
            dns,
            registry,
            tokens,
            blobs,
            image,
            tls,
            directory: TempDir::new().unwrap(),
        };
        {
            let mut knobs = world.tokens.knobs();
            knobs.users.insert(USER.to_owned(), PASSWORD.to_owned());
            knobs.public.push(PUBLIC_REPOSITORY.to_owned());
        }
        {
            let mut knobs = world.registry.knobs();
            knobs.auth = world.bearer();
            knobs.redirect = Redirect::Signed(world.blob_base());
        }
        world
    }

    /// `https`, or `http` in a plain world.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// `registry.test:PORT`: what credentials and references name.
    pub fn registry_host(&self) -> String {
        format!("{REGISTRY}:{}", self.registry.server.port())
    }

    /// The servers are on loopback: `kubernetes.local_registries` for images of pods.
    pub fn local_registries(&self) -> String {
        format!(
            "  local_registries: ['{}', '{AUTH}:{}', '{BLOBS}:{}']",
            self.registry_host(),
            self.tokens.server.port(),
            self.blobs.server.port()
        )
    }

    pub fn realm(&self) -> String {
        let port = self.tokens.server.port();
        format!("{}://{AUTH}:{port}{}", self.scheme(), token::PATH)
    }

    pub fn blob_base(&self) -> String {
        format!("{}://{BLOBS}:{}", self.scheme(), self.blobs.server.port())
    }

    /// The private image.
    pub fn reference(&self) -> String {
        format!("{}/{REPOSITORY}:{TAG}", self.registry_host())
    }

    pub fn public_reference(&self) -> String {
        format!("{}/{PUBLIC_REPOSITORY}:{TAG}", self.registry_host())
    }

    /// `IP:PORT` for `--nameserver`.
    pub fn nameserver(&self) -> String {
        self.dns.addr.to_string()
    }

    /// Tokens of this world's own service.
    pub fn bearer(&self) -> Auth {
        Auth::Bearer {
            realm: self.realm(),
            service: REGISTRY.to_owned(),
        }
    }

    /// User and password at the registry itself.
    pub fn basic() -> Auth {
        Auth::Basic {
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
        }
    }

    /// A certificate for this name with this flaw, to be given to [`web::Server::set_tls`].
    pub fn config(&self, name: &str, flaw: Flaw) -> Arc<ServerConfig> {
        let leaf = self.ca.issue_flawed(&[name], flaw);
        leaf.config()
    }

    /// A docker config with one server key.
    pub fn docker_config(key: &str, user: &str, password: &str) -> String {
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let entry = json!({"username": user, "password": password, "auth": auth});
        json!({"auths": {key: entry}}).to_string()
    }

    /// An imagePullSecret as `kubectl get secret -o yaml` prints it.
    pub fn secret(key: &str, user: &str, password: &str) -> String {
        let config = STANDARD.encode(Self::docker_config(key, user, password));
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: regcred\n  namespace: shop\n\
             type: kubernetes.io/dockerconfigjson\ndata:\n  .dockerconfigjson: {config}\n"
        )
    }

    /// A file with the right secret.
    pub fn secret_file(&self) -> PathBuf {
        let secret = Self::secret(&self.registry_host(), USER, PASSWORD);
        self.write("secret.yaml", &secret)
    }

    /// A `certs.d` whose folder for the world's registry has this hosts.toml.
    pub fn certs_d(&self, hosts_toml: &str) -> PathBuf {
        self.certs_d_for(&self.registry_host(), hosts_toml)
    }

    /// The same for another registry's name.
    pub fn certs_d_for(&self, domain: &str, hosts_toml: &str) -> PathBuf {
        let root = self.directory.path().join("certs.d");
        let folder = root.join(domain);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("hosts.toml"), hosts_toml).unwrap();
        root
    }

    /// Writes a file that lasts as long as the world.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}
