//! Which hosts containerd queries for an image of one registry, and with which settings, according to its configuration
//! and release.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;

use super::behaviour::{Behaviour, Release};
use super::config_toml::{Auth, Registry, Tls};
use super::hosts::{self, ConfiguredHost};
use crate::model::credential::{CredentialId, CredentialSource};
use crate::model::endpoint::{Host, Scheme, split_port};
use crate::model::go_url::{self, GoUrl};
use crate::model::hosts::{HostKind, HostsEffect, HostsProblem, RegistryHost};
use crate::model::text::printable;
use crate::pull_secret::entry::Credential;
use crate::pull_secret::key::mask_key;
use crate::redact::Secret;

/// The hosts of a pull with `registry.mirrors`, without `config_path` (`registryEndpoints`).
///
/// # Errors
/// Why every pull from the registry fails.
pub fn by_mirrors(
    domain: &str,
    registry: &Registry,
    behaviour: Behaviour,
) -> Result<Vec<ConfiguredHost>, String> {
    let mut endpoints: Vec<String> = Vec::new();
    let mirror = registry.mirrors.get(domain);
    for endpoint in mirror.or(registry.mirrors.get("*")).into_iter().flatten() {
        endpoints.push(with_scheme(endpoint.expose(), behaviour)?);
    }
    let mut hosts = Vec::new();
    let mut has_own = false;
    for endpoint in &endpoints {
        let url = parse(endpoint, behaviour)?;
        has_own |= url.host == domain;
        hosts.extend(host(HostKind::Mirror, &url, domain, registry, behaviour)?);
    }
    if !has_own {
        let own = hosts::api_host(domain);
        let url = parse(&format!("{}://{own}", default_scheme(own)), behaviour)?;
        hosts.extend(host(HostKind::Registry, &url, domain, registry, behaviour)?);
    }
    Ok(hosts)
}

/// Removes hosts that have a header that Go refuses to send: they get no request, and containerd continues with the
/// next. If no host is left, the pull fails.
pub fn drop_unsendable(hosts: &mut Vec<ConfiguredHost>) -> Vec<HostsProblem> {
    let is_bad = |(name, value): &&(String, Secret)| {
        HeaderName::try_from(name).is_err() || value.header().is_none()
    };
    let bad = |host: &ConfiguredHost| {
        let (name, _) = host.headers.iter().find(is_bad)?;
        Some(format!(
            "host {}: header '{}' can't be sent because HTTP does not allow its name or value",
            host.host.endpoint,
            printable(name)
        ))
    };
    let reasons: Vec<String> = hosts.iter().filter_map(bad).collect();
    let is_all = reasons.len() == hosts.len();
    if !is_all {
        hosts.retain(|host| bad(host).is_none());
    }
    let (effect, end) = if is_all {
        (HostsEffect::PullFails, "there is no other host")
    } else {
        (HostsEffect::Ignored, "containerd tries the next host")
    };
    reasons
        .into_iter()
        .map(|reason| HostsProblem::of_hosts(effect, format!("{reason}; {end}")))
        .collect()
}

fn parse(endpoint: &str, behaviour: Behaviour) -> Result<GoUrl, String> {
    go_url::parse_url(endpoint, behaviour.parses_strict_colons()).map_err(|reason| {
        format!(
            "endpoint '{}' of registry.mirrors is not a URL ({reason}), so every pull through it fails",
            mask_key(endpoint)
        )
    })
}

/// `addDefaultScheme`.
fn with_scheme(endpoint: &str, behaviour: Behaviour) -> Result<String, String> {
    if endpoint.contains("://") {
        return Ok(endpoint.to_owned());
    }
    let url = parse(&format!("dummy://{endpoint}"), behaviour)?;
    Ok(format!("{}://{endpoint}", default_scheme(&url.host)))
}

/// `defaultScheme`: plain http is used at once for registries on loopback.
fn default_scheme(authority: &str) -> &'static str {
    if is_loopback(authority) {
        "http"
    } else {
        "https"
    }
}

/// `IsLocalhost`.
fn is_loopback(authority: &str) -> bool {
    // An IPv6 address needs brackets, and a port after them.
    match split_port(authority) {
        (_, None) if authority.starts_with('[') => false,
        (name, _) => Host::new(name).is_loopback(),
    }
}

/// One host; `None` if the URL has no host that can be queried.
fn host(
    kind: HostKind,
    url: &GoUrl,
    domain: &str,
    registry: &Registry,
    behaviour: Behaviour,
) -> Result<Option<ConfiguredHost>, String> {
    let Some(endpoint) = hosts::endpoint(url) else {
        return Ok(None);
    };
    let path = if url.path.is_empty() {
        "/v2"
    } else {
        url.path.trim_end_matches('/')
    };
    let host = RegistryHost {
        path: path.to_owned(),
        kind,
        namespace: hosts::namespace(&url.host, domain),
        falls_back_to_http: false,
        ..RegistryHost::plain(endpoint)
    };
    let mut host = hosts::plain(host, url.host.clone());
    let settings = registry.configs.get(&url.host);
    let tls = settings.and_then(|settings| settings.tls.as_ref());
    if let Some(tls) = tls.filter(|_| behaviour.release < Release::V2_0) {
        add_tls(&mut host, tls)?;
    }
    Ok(Some(host))
}

/// `getTLSConfig`.
fn add_tls(host: &mut ConfiguredHost, tls: &Tls) -> Result<(), String> {
    let shown = &host.authority;
    match (&*tls.cert_file, &*tls.key_file) {
        ("", "") => {}
        ("", _) | (_, "") => {
            return Err(format!(
                "registry.configs.'{shown}'.tls has only one of cert_file and key_file, so every \
                 pull fails"
            ));
        }
        (certificate, key) => {
            let pair = (PathBuf::from(certificate), Some(PathBuf::from(key)));
            host.client.push(pair);
            host.host.client_certificates = 1;
        }
    }
    if !tls.ca_file.is_empty() {
        host.ca.push(PathBuf::from(&tls.ca_file));
        host.ca_may_be_empty = true;
        host.host.ca_files.push(printable(&tls.ca_file));
    }
    host.host.skip_verify = tls.insecure_skip_verify;
    Ok(())
}

/// Adds the CRI plugin's settings to each host, whichever file names the host: headers, and the login that is used if
/// the kubelet sends no credential.
pub fn add_settings(
    hosts: &mut [ConfiguredHost],
    registry: &Registry,
    config: &Path,
    problems: &mut Vec<HostsProblem>,
) {
    for host in hosts {
        host.headers.extend(registry.headers.iter().cloned());
        let settings = registry.configs.get(&host.authority);
        let Some(auth) = settings.and_then(|settings| settings.auth.as_ref()) else {
            continue;
        };
        match login(auth) {
            Ok(Some((username, password))) => {
                let id = CredentialId {
                    source: CredentialSource::RuntimeConfig {
                        path: printable(&config.to_string_lossy()),
                    },
                    key: mask_key(&host.authority),
                };
                host.host.login = Some(id.clone());
                host.login = Some(Credential {
                    id,
                    identity_token: username.is_empty().then(|| password.clone()),
                    username,
                    password,
                });
            }
            Ok(None) => {}
            Err(()) => problems.push(HostsProblem::of_config(
                HostsEffect::Doubtful,
                format!(
                    "'auth' of registry.configs.'{}' is not the base64 of USER:PASSWORD, so a pull that has to log \
                     in there fails",
                    mask_key(&host.authority)
                ),
            )),
        }
    }
}

/// `ParseAuth`: a user and password, or an identity token without a user.
fn login(auth: &Auth) -> Result<Option<(String, Secret)>, ()> {
    if !auth.username.is_empty() {
        return Ok(Some((auth.username.clone(), auth.password.clone())));
    }
    if !auth.identity_token.is_empty() {
        return Ok(Some((String::new(), auth.identity_token.clone())));
    }
    if auth.auth.is_empty() {
        return Ok(None);
    }
    let bytes = STANDARD.decode(auth.auth.expose()).map_err(|_| ())?;
    let text = zeroize::Zeroizing::new(String::from_utf8(bytes).map_err(|_| ())?);
    let (username, password) = text.split_once(':').ok_or(())?;
    let password = Secret::new(password.trim_matches('\0'));
    Ok(Some((username.to_owned(), password)))
}

/// Logins that are never used, because the API host of the registry has another name.
pub fn unused_logins(domain: &str, registry: &Registry) -> Option<HostsProblem> {
    let has_login = |host: &str| {
        registry
            .configs
            .get(host)
            .is_some_and(|host| host.auth.is_some())
    };
    let is_unused = domain == "docker.io"
        && !has_login("registry-1.docker.io")
        && ["docker.io", "index.docker.io"]
            .iter()
            .any(|host| has_login(host));
    is_unused.then(|| {
        let reason = "config.toml has a login for docker.io, but containerd uses one for \
                      registry-1.docker.io: use that name under registry.configs, and restart containerd";
        HostsProblem::of_config(HostsEffect::Ignored, reason)
    })
}

/// Applies `--plain-http`, which concerns the registry itself.
pub fn make_plain(hosts: &mut [ConfiguredHost], own: &RegistryHost) {
    for host in hosts {
        if host.host.kind == HostKind::Registry && own.endpoint.scheme == Scheme::Http {
            host.host.endpoint = own.endpoint.clone();
            host.host.falls_back_to_http = false;
            host.host.skip_verify = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::containerd::config_toml::HostSettings;

    fn by(version: &str) -> Behaviour {
        let runtime = format!("containerd://{version}").parse().unwrap();
        Behaviour::candidates(Some(&runtime))[0]
    }

    fn with_mirrors(mirrors: &[(&str, &[&str])]) -> Registry {
        let owned = |list: &[&str]| list.iter().map(|one| Secret::new(*one)).collect();
        Registry {
            by_mirrors: true,
            mirrors: mirrors
                .iter()
                .map(|(name, list)| ((*name).to_owned(), owned(list)))
                .collect(),
            ..Registry::default()
        }
    }

    fn shown(hosts: &[ConfiguredHost]) -> Vec<String> {
        hosts
            .iter()
            .map(|host| format!("{}{}", host.host.endpoint, host.host.path))
            .collect()
    }

    #[test]
    fn endpoints_come_in_their_order_and_the_registry_last() {
        let registry = with_mirrors(&[
            (
                "docker.io",
                &[
                    "https://m.example.com/hub",
                    "127.0.0.1:5000",
                    "n.example.com/",
                ],
            ),
            ("own.example.com", &["own.example.com"]),
            ("*", &["https://any.example.com"]),
        ]);
        for (domain, want) in [
            (
                "docker.io",
                &[
                    "https://m.example.com/hub",
                    "http://127.0.0.1:5000/v2",
                    "https://n.example.com",
                    "https://registry-1.docker.io/v2",
                ][..],
            ),
            ("own.example.com", &["https://own.example.com/v2"]),
            (
                "other.example.com",
                &["https://any.example.com/v2", "https://other.example.com/v2"],
            ),
        ] {
            let hosts = by_mirrors(domain, &registry, by("1.7.24")).unwrap();
            assert_eq!(shown(&hosts), want, "{domain}");
        }
        let odd = with_mirrors(&[("a", &["https://m x"])]);
        let error = by_mirrors("a", &odd, by("1.7.24")).unwrap_err();
        assert!(error.contains("not a URL"), "{error}");
    }

    #[test]
    fn registries_on_loopback_are_asked_by_plain_http_at_once() {
        for (domain, want) in [
            ("127.0.0.3:5000", "http://127.0.0.3:5000/v2"),
            ("localhost", "http://localhost/v2"),
            ("localhost:443", "http://localhost:443/v2"),
            ("[::1]:5000", "http://[::1]:5000/v2"),
            ("127.example.com", "https://127.example.com/v2"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
        ] {
            let hosts = by_mirrors(domain, &Registry::default(), by("1.6.20")).unwrap();
            assert_eq!(shown(&hosts), [want]);
            assert!(!hosts[0].host.falls_back_to_http);
        }
    }

    #[test]
    fn logins_are_those_of_the_host_and_its_port() {
        let auth = |username: &str, password: &str, auth: &str, token: &str| Auth {
            username: username.to_owned(),
            password: Secret::new(password),
            auth: Secret::new(auth),
            identity_token: Secret::new(token),
        };
        for (given, want) in [
            (auth("u", "p", "", ""), Some(("u", "p"))),
            (auth("u", "p", "", "t"), Some(("u", "p"))),
            (auth("", "p", "", "t"), Some(("", "t"))),
            (auth("", "", "YW5uOnB3OjE=", ""), Some(("ann", "pw:1"))),
            (auth("", "p", "", ""), None),
            (auth("", "", "YW5u", ""), None),
            (auth("", "", "YW5uOnB3OjE", ""), None),
        ] {
            let mut registry = Registry::default();
            let settings = HostSettings {
                auth: Some(given),
                ..HostSettings::default()
            };
            registry.configs = BTreeMap::from([("r.example.com:5000".to_owned(), settings)]);
            let mut hosts = by_mirrors("r.example.com:5000", &registry, by("2.1.9")).unwrap();
            let mut problems = Vec::new();
            add_settings(&mut hosts, &registry, Path::new("/c.toml"), &mut problems);
            let login = hosts[0].login.as_ref().map(|login| {
                let (username, password) = login.login();
                (username, password.expose())
            });
            assert_eq!(login, want);
            let id = hosts[0].login.as_ref().map(|login| &login.id);
            assert_eq!(hosts[0].host.login.as_ref(), id);
            assert!(!format!("{hosts:?}{problems:?}").contains("pw"));
            let mut other = by_mirrors("r.example.com", &registry, by("2.1.9")).unwrap();
            add_settings(&mut other, &registry, Path::new("/c.toml"), &mut problems);
            assert!(other[0].login.is_none());
        }
    }
}
