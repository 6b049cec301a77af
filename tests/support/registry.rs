//! A registry that speaks the OCI distribution protocol, with a knob for each way it can fail.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use http::Method;
use jiff::Timestamp;
use rustls::ServerConfig;
use serde_json::json;

use super::blobs::{self, Blobs, Serving};
use super::image::{Content, DOCKER_SCHEMA1, Image};
use super::token::Grants;
use super::web::{Manners, Reply, Seen, Server};

/// How a registry wants to be convinced.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Auth {
    #[default]
    Open,
    Basic {
        user: String,
        password: String,
    },
    /// A token of the service at `realm`.
    Bearer {
        realm: String,
        service: String,
    },
}

/// What the registry does with `GET` of a blob.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Redirect {
    /// Hands it out itself.
    #[default]
    Direct,
    /// 307 to a signed URL below this: `https://blobs.test:1234`.
    Signed(String),
    /// 307 to a path of its own.
    Relative,
    /// 307 to exactly this, wherever it leads.
    To(String),
    /// 307 without `Location`.
    Nowhere,
}

/// The headers of a pull rate limit, as Docker Hub sends them.
#[derive(Clone, Debug)]
pub struct RateLimit {
    pub limit: u32,
    pub remaining: u32,
    pub window_seconds: u32,
    /// The address or account that is counted.
    pub source: String,
}

#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a knob of its own")]
pub struct RegistryKnobs {
    pub manners: Manners,
    pub auth: Auth,
    /// `WWW-Authenticate` as written here, in place of what `auth` asks for.
    pub challenge: Option<String>,
    /// `/v2/` answers 200 to everybody, as some registries do.
    pub ping_open: bool,
    /// HEAD of a manifest is 405: containerd then asks by GET.
    pub head_405: bool,
    /// Sent with manifests.
    pub rate_limit: Option<RateLimit>,
    /// No `Docker-Content-Digest`.
    pub hide_digest: bool,
    /// Manifests that do not match their digest.
    pub corrupt_manifests: bool,
    /// Manifests of schema 1, refused by containerd 2.
    pub schema1: bool,
    /// `Content-Type` of manifests as written here.
    pub media_type: Option<String>,
    pub redirect: Redirect,
    /// Of blobs that the registry hands out itself.
    pub serving: Serving,
}

#[derive(Default)]
struct Repository {
    /// By digest.
    manifests: HashMap<String, Content>,
    /// Tag to digest.
    tags: HashMap<String, String>,
    /// Digests of the layers and configs that are this repository's.
    blobs: Vec<String>,
}

/// Everything pushed.
#[derive(Clone, Default)]
pub struct Store {
    repositories: Arc<Mutex<HashMap<String, Repository>>>,
    pub blobs: Blobs,
}

/// The registry.
pub struct Registry {
    pub server: Server,
    pub knobs: Arc<Mutex<RegistryKnobs>>,
    pub store: Store,
}

/// An error body of the distribution-spec ("Error Codes").
pub fn oci_error(status: u16, code: &str, message: &str) -> Reply {
    let error = json!({"code": code, "message": message, "detail": null});
    Reply::json(status, &json!({"errors": [error]}))
}

/// 403, as for a credential that has no right to pull.
pub fn denied() -> Reply {
    oci_error(403, "DENIED", "requested access to the resource is denied")
}

pub fn manifest_unknown() -> Reply {
    oci_error(404, "MANIFEST_UNKNOWN", "manifest unknown")
}

pub fn name_unknown() -> Reply {
    let message = "repository name not known to registry";
    oci_error(404, "NAME_UNKNOWN", message)
}

/// 429 in Docker Hub's words.
pub fn too_many_requests(retry_after: &str) -> Reply {
    let message = "You have reached your unauthenticated pull rate limit.";
    oci_error(429, "TOOMANYREQUESTS", message).header("retry-after", retry_after)
}

/// An error that repeats the `Authorization` it was sent, in header and body.
pub fn echo(status: u16) -> Reply {
    oci_error(status, "DENIED", "rejected credential {authorization}")
        .header("x-debug", "{authorization}")
}

impl Store {
    /// Makes an image known under a repository and tag.
    pub fn push(&self, repository: &str, tag: &str, image: &Image) {
        let mut repositories = self.repositories.lock().unwrap();
        let into = repositories.entry(repository.to_owned()).or_default();
        let top = image.top().clone();
        into.tags.insert(tag.to_owned(), top.digest.clone());
        into.manifests.insert(top.digest.clone(), top);
        let mut blobs = self.blobs.lock().unwrap();
        for platform in image.platforms.iter().chain(&image.attestation) {
            let manifest = platform.manifest.clone();
            into.manifests.insert(manifest.digest.clone(), manifest);
            for blob in platform.layers.iter().chain([&platform.config]) {
                blobs.insert(blob.digest.clone(), blob.bytes.clone());
                into.blobs.push(blob.digest.clone());
            }
        }
    }

    /// Makes a tag known whose manifest is this, whatever it is.
    pub fn push_raw(&self, repository: &str, tag: &str, content: Content) {
        let mut repositories = self.repositories.lock().unwrap();
        let into = repositories.entry(repository.to_owned()).or_default();
        into.tags.insert(tag.to_owned(), content.digest.clone());
        into.manifests.insert(content.digest.clone(), content);
    }

    /// Deletes a manifest or a blob, as garbage collection gone wrong does.
    pub fn delete(&self, digest: &str) {
        self.blobs.lock().unwrap().remove(digest);
        for repository in self.repositories.lock().unwrap().values_mut() {
            repository.manifests.remove(digest);
        }
    }
}

impl Registry {
    /// Open at first; `grants` are the tokens it takes when it is not.
    pub async fn start(tls: Option<Arc<ServerConfig>>, store: Store, grants: Grants) -> Self {
        let knobs = Arc::<Mutex<RegistryKnobs>>::default();
        let server = {
            let (knobs, store) = (knobs.clone(), store.clone());
            let answer = move |seen: &Seen| {
                let mut knobs = knobs.lock().unwrap();
                let reply = answer(&mut knobs, &store, &grants, seen);
                let reply = reply.header("docker-distribution-api-version", "registry/2.0");
                knobs.manners.finish(reply)
            };
            Server::start(tls, answer).await
        };
        Self {
            server,
            knobs,
            store,
        }
    }

    pub fn knobs(&self) -> MutexGuard<'_, RegistryKnobs> {
        self.knobs.lock().unwrap()
    }
}

/// What a request is for.
enum Resource<'a> {
    Ping,
    Manifest(&'a str, &'a str),
    Blob(&'a str, &'a str),
    Tags(&'a str),
    /// A blob at the place that [`Redirect::Relative`] leads to.
    Stored(&'a str),
    Other,
}

impl<'a> Resource<'a> {
    fn of(path: &'a str) -> Self {
        if let Some(digest) = path.strip_prefix("/stored/") {
            return Self::Stored(digest);
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return Self::Other;
        };
        if rest.is_empty() {
            return Self::Ping;
        }
        if let Some((name, reference)) = rest.split_once("/manifests/") {
            return Self::Manifest(name, reference);
        }
        if let Some((name, digest)) = rest.split_once("/blobs/") {
            return Self::Blob(name, digest);
        }
        match rest.strip_suffix("/tags/list") {
            Some(name) => Self::Tags(name),
            None => Self::Other,
        }
    }

    fn repository(&self) -> Option<&'a str> {
        match self {
            Self::Manifest(name, _) | Self::Blob(name, _) | Self::Tags(name) => Some(name),
            Self::Ping | Self::Stored(_) | Self::Other => None,
        }
    }
}

fn answer(knobs: &mut RegistryKnobs, store: &Store, grants: &Grants, seen: &Seen) -> Reply {
    if let Some(reply) = knobs.manners.intercept(seen, false) {
        return reply;
    }
    let resource = Resource::of(&seen.path);
    let exempt = match resource {
        Resource::Ping => knobs.ping_open,
        // Signed by its query, as at an object store.
        Resource::Stored(_) => true,
        _ => false,
    };
    if !exempt && let Err(refusal) = authorise(knobs, grants, seen, resource.repository()) {
        return refusal;
    }
    if let Some(reply) = knobs.manners.intercept(seen, true) {
        return reply;
    }
    if seen.method != Method::GET && seen.method != Method::HEAD {
        return oci_error(405, "UNSUPPORTED", "The operation is unsupported.");
    }
    match resource {
        Resource::Ping => Reply::json(200, &json!({})),
        Resource::Manifest(name, reference) => manifest(knobs, store, seen, name, reference),
        Resource::Blob(name, digest) => blob(knobs, store, seen, name, digest),
        Resource::Tags(name) => tags(store, name),
        Resource::Stored(digest) => match store.blobs.lock().unwrap().get(digest) {
            Some(bytes) => blobs::serve(bytes, &knobs.serving, seen),
            None => oci_error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
        },
        Resource::Other => Reply::new(404).body("text/plain", "404 page not found\n"),
    }
}

/// Lets a request pass, or asks for what is missing (RFC 9110, 11.6.1; RFC 6750, 3).
fn authorise(
    knobs: &RegistryKnobs,
    grants: &Grants,
    seen: &Seen,
    repository: Option<&str>,
) -> Result<(), Reply> {
    let ask = |challenge: String| {
        let challenge = knobs.challenge.clone().unwrap_or(challenge);
        let reply = oci_error(401, "UNAUTHORIZED", "authentication required");
        reply.header("www-authenticate", challenge)
    };
    match &knobs.auth {
        Auth::Open => Ok(()),
        Auth::Basic { user, password } => match seen.basic() {
            Some((u, p)) if u == *user && p == *password => Ok(()),
            _ => Err(ask("Basic realm=\"Registry Realm\"".to_owned())),
        },
        Auth::Bearer { realm, service } => {
            let mut challenge = format!("Bearer realm=\"{realm}\",service=\"{service}\"");
            if let Some(repository) = repository {
                let _ = write!(challenge, ",scope=\"repository:{repository}:pull\"");
            }
            let Some(token) = seen.bearer() else {
                return Err(ask(challenge));
            };
            let grants = grants.lock().unwrap();
            match grants.get(token) {
                Some(grant) if grant.expires > Timestamp::now() => {
                    let enough =
                        repository.is_none_or(|wanted| grant.pull.iter().any(|r| r == wanted));
                    if enough {
                        return Ok(());
                    }
                    Err(ask(challenge + ",error=\"insufficient_scope\""))
                }
                _ => Err(ask(challenge + ",error=\"invalid_token\"")),
            }
        }
    }
}

fn manifest(
    knobs: &RegistryKnobs,
    store: &Store,
    seen: &Seen,
    name: &str,
    reference: &str,
) -> Reply {
    if knobs.head_405 && seen.method == Method::HEAD {
        return oci_error(405, "UNSUPPORTED", "The operation is unsupported.");
    }
    let repositories = store.repositories.lock().unwrap();
    let Some(repository) = repositories.get(name) else {
        return name_unknown();
    };
    let digest = repository
        .tags
        .get(reference)
        .map_or(reference, String::as_str);
    let Some(content) = repository.manifests.get(digest) else {
        return manifest_unknown();
    };
    // As distribution does: no conversion, and no answer in a form that was not asked for.
    if !seen.accepts(&content.media_type) {
        let message = format!("the Accept header does not admit {}", content.media_type);
        return oci_error(404, "MANIFEST_UNKNOWN", &message);
    }
    let mut body = content.bytes.clone();
    let mut media_type = content.media_type.clone();
    if knobs.schema1 {
        DOCKER_SCHEMA1.clone_into(&mut media_type);
        body = json!({"schemaVersion": 1, "name": name, "tag": reference, "architecture": "amd64",
            "fsLayers": [], "history": [], "signatures": []})
        .to_string()
        .into();
    }
    if knobs.corrupt_manifests {
        body = [&body[..], b"\n"].concat().into();
    }
    let media_type = knobs.media_type.as_deref().unwrap_or(&media_type);
    let mut reply = Reply::new(200).body(media_type, body);
    reply = reply.header("etag", format!("\"{digest}\""));
    if !knobs.hide_digest {
        reply = reply.header("docker-content-digest", digest);
    }
    if let Some(rate) = &knobs.rate_limit {
        let window = rate.window_seconds;
        reply = reply
            .header("ratelimit-limit", format!("{};w={window}", rate.limit))
            .header(
                "ratelimit-remaining",
                format!("{};w={window}", rate.remaining),
            )
            .header("docker-ratelimit-source", &rate.source);
    }
    reply
}

fn blob(knobs: &RegistryKnobs, store: &Store, seen: &Seen, name: &str, digest: &str) -> Reply {
    let repositories = store.repositories.lock().unwrap();
    let Some(repository) = repositories.get(name) else {
        return name_unknown();
    };
    // A manifest can be had as a blob too: containerd tries when it has only a digest.
    if let Some(content) = repository.manifests.get(digest) {
        return blobs::serve(&content.bytes, &knobs.serving, seen)
            .header("docker-content-digest", digest);
    }
    if !repository.blobs.iter().any(|d| d == digest) {
        return oci_error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    }
    match &knobs.redirect {
        Redirect::Direct => match store.blobs.lock().unwrap().get(digest) {
            Some(bytes) => {
                blobs::serve(bytes, &knobs.serving, seen).header("docker-content-digest", digest)
            }
            None => oci_error(404, "BLOB_UNKNOWN", "blob unknown to registry"),
        },
        Redirect::Signed(base) => {
            let path = blobs::signed_path(&seen.method, digest);
            Reply::redirect(307, &format!("{base}{path}"))
        }
        Redirect::Relative => Reply::redirect(307, &format!("/stored/{digest}")),
        Redirect::To(location) => Reply::redirect(307, location),
        Redirect::Nowhere => Reply::new(307),
    }
}

fn tags(store: &Store, name: &str) -> Reply {
    match store.repositories.lock().unwrap().get(name) {
        Some(repository) => {
            let mut tags: Vec<&String> = repository.tags.keys().collect();
            tags.sort();
            Reply::json(200, &json!({"name": name, "tags": tags}))
        }
        None => name_unknown(),
    }
}
