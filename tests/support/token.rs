//! The token service of a registry: the OAuth2 form and the older GET form
//! (distribution, `spec/auth/token.md` and `spec/auth/oauth.md`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use serde_json::{Value, json};

use super::image::hex_sha256;
use super::web::{Manners, Reply, Seen, Server};

/// Where the service answers.
pub const PATH: &str = "/token";

/// Counts tokens, so that no two are alike.
static ISSUED: AtomicU64 = AtomicU64::new(1);

/// What the bearer of a token may do.
#[derive(Clone, Debug)]
pub struct Grant {
    /// `None`: anonymous.
    pub user: Option<String>,
    /// Repositories that may be pulled from.
    pub pull: Vec<String>,
    pub expires: Timestamp,
}

/// Tokens given out, shared by the registry and its token service.
pub type Grants = Arc<Mutex<HashMap<String, Grant>>>;

/// What becomes of `POST`, the form containerd tries first when it has a credential.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Post {
    /// OAuth2, with `access_token`.
    #[default]
    Supported,
    /// 404, 405, 401, 400: containerd then asks by GET.
    Status(u16),
    /// 200 with `token` only, in which containerd finds no token.
    OnlyToken,
}

/// The fields of the answer to `GET`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fields {
    #[default]
    Both,
    Token,
    AccessToken,
    Neither,
}

#[derive(Clone, Debug)]
pub struct TokenKnobs {
    pub manners: Manners,
    /// User to password.
    pub users: HashMap<String, String>,
    /// Identity token (`refresh_token`) to user.
    pub identity_tokens: HashMap<String, String>,
    /// Repositories for everybody.
    pub public: Vec<String>,
    /// Who gives no name gets a token, empty but for public repositories; else 401.
    pub anonymous: bool,
    /// Users get a token without any right in it.
    pub deny_scope: bool,
    pub post: Post,
    pub get: Fields,
    pub lifetime: Duration,
    /// `expires_in` is left out: clients then take 60 s.
    pub hide_lifetime: bool,
}

impl Default for TokenKnobs {
    fn default() -> Self {
        Self {
            manners: Manners::default(),
            users: HashMap::new(),
            identity_tokens: HashMap::new(),
            public: Vec::new(),
            anonymous: true,
            deny_scope: false,
            post: Post::Supported,
            get: Fields::Both,
            lifetime: Duration::from_mins(5),
            hide_lifetime: false,
        }
    }
}

/// The service.
pub struct TokenService {
    pub server: Server,
    pub knobs: Arc<Mutex<TokenKnobs>>,
    pub grants: Grants,
}

impl TokenService {
    pub async fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let knobs = Arc::<Mutex<TokenKnobs>>::default();
        let grants = Grants::default();
        let server = {
            let (knobs, grants) = (knobs.clone(), grants.clone());
            let answer = move |seen: &Seen| {
                let mut knobs = knobs.lock().unwrap();
                let reply = knobs.manners.intercept(seen, true);
                let reply = reply.unwrap_or_else(|| answer(&knobs, &grants, seen));
                knobs.manners.finish(reply)
            };
            Server::start(tls, answer).await
        };
        Self {
            server,
            knobs,
            grants,
        }
    }

    pub fn knobs(&self) -> MutexGuard<'_, TokenKnobs> {
        self.knobs.lock().unwrap()
    }

    /// Forgets the tokens given out: the registry refuses them from now on.
    pub fn revoke(&self) {
        self.grants.lock().unwrap().clear();
    }
}

/// A body that goes beyond any bound a client can have for a token.
pub fn huge(bytes: usize) -> Reply {
    let body = format!("{{\"token\":\"{}\"}}", "a".repeat(bytes));
    Reply::new(200).body("application/json", body)
}

/// 401 in the words of Docker Hub and Harbor.
pub fn unauthorized() -> Reply {
    let error = json!({"code": "UNAUTHORIZED", "message": "incorrect username or password"});
    Reply::json(401, &json!({"errors": [error]}))
}

fn answer(knobs: &TokenKnobs, grants: &Grants, seen: &Seen) -> Reply {
    if seen.path != PATH {
        return Reply::new(404).body("text/plain", "404 page not found\n");
    }
    if seen.method == Method::POST {
        by_post(knobs, grants, seen)
    } else if seen.method == Method::GET {
        by_get(knobs, grants, seen)
    } else {
        Reply::new(405).header("allow", "GET, POST")
    }
}

/// RFC 6749, 4.3 (password) and 6 (refresh); `service` and `client_id` are the registry's own.
fn by_post(knobs: &TokenKnobs, grants: &Grants, seen: &Seen) -> Reply {
    if let Post::Status(status) = knobs.post {
        return Reply::new(status).body("text/plain", "no such form here\n");
    }
    let field = |name| seen.fields(name).into_iter().next().unwrap_or_default();
    if field("service").is_empty() || field("client_id").is_empty() {
        return Reply::json(400, &json!({"error": "invalid_request"}));
    }
    let user = match field("grant_type").as_str() {
        "password" => {
            let user = field("username");
            (knobs.users.get(&user) == Some(&field("password"))).then_some(user)
        }
        "refresh_token" => knobs.identity_tokens.get(&field("refresh_token")).cloned(),
        _ => return Reply::json(400, &json!({"error": "unsupported_grant_type"})),
    };
    let Some(user) = user else {
        return unauthorized();
    };
    let scopes = field("scope");
    let mut body = issue(knobs, grants, seen, Some(user), scopes.split(' '));
    if knobs.post != Post::OnlyToken {
        body["access_token"] = body["token"].clone();
        body["scope"] = json!(scopes);
        without(&mut body, "token");
    }
    Reply::json(200, &body)
}

fn by_get(knobs: &TokenKnobs, grants: &Grants, seen: &Seen) -> Reply {
    let user = match seen.basic() {
        Some((user, password)) if knobs.users.get(&user) == Some(&password) => Some(user),
        Some(_) => return unauthorized(),
        None if seen.authorization().is_some() || !knobs.anonymous => return unauthorized(),
        None => None,
    };
    let scopes = seen.parameters("scope");
    let scopes = scopes.iter().flat_map(|s| s.split(' '));
    let mut body = issue(knobs, grants, seen, user, scopes);
    let token = body["token"].clone();
    match knobs.get {
        Fields::Token => {}
        Fields::Both => body["access_token"] = token,
        Fields::AccessToken => {
            body["access_token"] = token;
            without(&mut body, "token");
        }
        Fields::Neither => without(&mut body, "token"),
    }
    Reply::json(200, &body)
}

/// A token with as much of the scopes as this user may have; its answer with the field `token`.
fn issue<'a>(
    knobs: &TokenKnobs,
    grants: &Grants,
    seen: &Seen,
    user: Option<String>,
    scopes: impl Iterator<Item = &'a str>,
) -> Value {
    let now = Timestamp::now();
    let lifetime = SignedDuration::try_from(knobs.lifetime).unwrap();
    let pull: Vec<String> = scopes
        .filter_map(pulled_repository)
        .filter(|repository| {
            knobs.public.contains(repository) || (user.is_some() && !knobs.deny_scope)
        })
        .collect();
    let access: Vec<Value> = pull
        .iter()
        .map(|name| json!({"type": "repository", "name": name, "actions": ["pull"]}))
        .collect();
    let number = ISSUED.fetch_add(1, Ordering::Relaxed);
    let service = seen
        .parameters("service")
        .into_iter()
        .chain(seen.fields("service"))
        .next();
    let claims = json!({
        "iss": "auth.test",
        "sub": user.clone().unwrap_or_default(),
        "aud": service.unwrap_or_default(),
        "iat": now.as_second(),
        "nbf": now.as_second(),
        "exp": (now + lifetime).as_second(),
        "jti": format!("token-{number}"),
        "access": access,
    });
    let token = jwt(&claims);
    grants.lock().unwrap().insert(
        token.clone(),
        Grant {
            user,
            pull,
            expires: now + lifetime,
        },
    );
    let mut body = json!({"token": token, "issued_at": now.to_string()});
    if !knobs.hide_lifetime {
        body["expires_in"] = json!(lifetime.as_secs());
    }
    body
}

/// The form of a JSON Web Token (RFC 7519); it is signed with no key.
fn jwt(claims: &Value) -> String {
    let part = |value: &str| URL_SAFE_NO_PAD.encode(value);
    let head = part(r#"{"alg":"ES256","typ":"JWT"}"#);
    let body = part(&claims.to_string());
    let signature = part(&hex_sha256(body.as_bytes()));
    format!("{head}.{body}.{signature}")
}

/// `team/app` of `repository:team/app:pull,push`, if pull is among the actions.
fn pulled_repository(scope: &str) -> Option<String> {
    let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
    actions
        .split(',')
        .any(|action| action == "pull")
        .then(|| name.to_owned())
}

fn without(body: &mut Value, field: &str) {
    if let Some(fields) = body.as_object_mut() {
        fields.remove(field);
    }
}
