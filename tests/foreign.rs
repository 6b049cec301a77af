//! What servers send never shows a credential that they repeat, wherever it enters a report; and the image of a pod
//! leads to no service of the node.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod operated;
mod support;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use operated::{Daemon, eventually_within};
use pullpath::containerd::{self, BaseTrust, Settings};
use pullpath::diagnose::Pull;
use pullpath::model::connect::Roots;
use pullpath::model::credential::CredentialSource;
use pullpath::model::foreign::Source;
use pullpath::model::step::{Skip, Step};
use pullpath::model::text::hex;
use pullpath::model::vantage::{NetworkView, Vantage};
use pullpath::net::dns::Families;
use pullpath::net::resolv::ResolverConfig;
use pullpath::probe::check::{Check, Effort, Guard, Override};
use pullpath::probe::manifest::KnownManifests;
use pullpath::probe::network::{LargeDocuments, NoProgress, ProbeNetwork};
use pullpath::pull_secret::entry::Entry;
use pullpath::pull_secret::keyring::{Keyring, LoadedSource};
use pullpath::redact::Secret;
use pullpath::report::text::{self, Style};
use pullpath::report::{Document, Report};
use support::image::digest as sha256;
use support::pki::Ca;
use support::requests::next_head;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Mutex as Turn;

const REGISTRY: &str = "registry.test";
const USER: &str = "ann";
/// Letters of both cases, so that a host's name shows it in another case.
const PASSWORD: &str = "Canary7f3a9cQzX";
/// What is no secret, in the same places: it proves that the place is one.
const MARK: &str = "Markhere5d2b7eQ";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

// ---- servers ------------------------------------------------------------------------------------

/// The request line and headers, in lower case, to the bytes of the answer.
type Answer = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

struct Server {
    port: u16,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(answer: Answer, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let tls = tls.map(tokio_rustls::TlsAcceptor::from);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (answer, tls) = (Arc::clone(&answer), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, answer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            port,
            connections,
            task,
        }
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answer) {
    let mut buffer = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut buffer).await {
        let head = head.to_ascii_lowercase();
        if stream.write_all(&answer(&head)).await.is_err() {
            return;
        }
    }
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

// ---- a check ------------------------------------------------------------------------------------

struct Asking {
    /// `registry.test`, or an address.
    host: String,
    port: u16,
    scheme: &'static str,
    proxy: Option<u16>,
    guard: Option<Guard>,
    hosts_toml: Option<(String, String)>,
    /// Names that resolve to loopback.
    names: Vec<(String, IpAddr)>,
}

impl Asking {
    fn of(server: &Server) -> Self {
        Self {
            host: REGISTRY.to_owned(),
            port: server.port,
            scheme: "http",
            proxy: None,
            guard: None,
            hosts_toml: None,
            names: vec![(REGISTRY.to_owned(), IpAddr::V4(Ipv4Addr::LOCALHOST))],
        }
    }

    async fn ask(&self) -> Report {
        let folder = tempfile::tempdir().unwrap();
        if let Some((domain, text)) = &self.hosts_toml {
            let own = folder.path().join(domain);
            std::fs::create_dir(&own).unwrap();
            std::fs::write(own.join("hosts.toml"), text).unwrap();
        }
        let request = containerd::Request {
            hosts_dir: Some(folder.path().to_owned()),
            ..containerd::Request::default()
        };
        let proxy = self
            .proxy
            .map(|port| format!("http://{USER}:{PASSWORD}@127.0.0.1:{port}"));
        let variable = |name: &str| proxy.clone().filter(|_| name == "HTTPS_PROXY");
        let names = self.names.iter();
        let overrides = names.map(|(host, address)| Override {
            host: host.clone(),
            port: self.port,
            address: *address,
        });
        let trust = BaseTrust::new(pullpath::trust::Pool::default(), Roots::default());
        let probe_network = ProbeNetwork {
            resolver: ResolverConfig::default(),
            overrides: overrides.collect(),
            families: Families::Both,
            nat64: Vec::new(),
            trust,
            settings: Settings::load(&request, variable).unwrap(),
            trace: true,
            transfer_lock: Turn::new(()),
            large_documents: LargeDocuments::default(),
            vantage: Vantage {
                network: NetworkView::Node,
                ..Vantage::default()
            },
            netlink: None,
            wait: Duration::from_secs(5),
            known: Arc::new(KnownManifests::default()),
            own_limits: Vec::new(),
        };
        let domain = format!("{}:{}", self.host, self.port);
        let source = LoadedSource {
            source: CredentialSource::CommandLine,
            entries: vec![Entry::new(&domain, USER, Secret::new(PASSWORD), None)],
            problem: None,
            lint: Vec::new(),
            expiries: Vec::new(),
            is_for_others: false,
            at_usual_path: false,
        };
        let check = Check {
            reference: format!("{domain}/team/app:1.0").parse().unwrap(),
            platform: "linux/amd64".parse().unwrap(),
            pods: Vec::new(),
            requested_secrets: Vec::new(),
            keyring: Arc::new(Keyring::new(vec![source])),
            runtime: Some("containerd://1.7.24".parse().unwrap()),
            kubelet: None,
            plain_http: self.scheme == "http",
            compare_direct: false,
            guard: self.guard.clone(),
            effort: Effort::default(),
        };
        let evidence = pullpath::probe::pull(&check, &probe_network, &NoProgress, Timestamp::now());
        Report::conclude(Box::pin(evidence).await)
    }
}

/// All that a report shows.
fn shown(report: Report) -> String {
    let document = Document::new(vec![report]);
    let json = serde_json::to_string(&document).unwrap();
    let style = Style { color: false };
    format!(
        "{json}\n{}\n{document:?}",
        text::render_all(&document, style, true)
    )
}

// ---- echoed credentials -------------------------------------------------------------------------

/// The password, and the pair, in each form that travels.
fn forms() -> Vec<String> {
    let pair = format!("{USER}:{PASSWORD}");
    vec![
        PASSWORD.to_owned(),
        STANDARD.encode(PASSWORD),
        STANDARD.encode(&pair),
        URL_SAFE_NO_PAD.encode(&pair),
        hex(PASSWORD.as_bytes()),
        hex(PASSWORD.as_bytes()).to_ascii_uppercase(),
        hex(pair.as_bytes()),
    ]
}

/// Who repeats it, and with which answers.
enum Place {
    /// A registry over plain http.
    Registry(Answer),
    /// The proxy of an https registry.
    Proxy(Answer),
    /// A registry over https with a certificate for this name.
    Tls(String),
    /// No server decides this text, or none that is sent a credential.
    None,
}

/// A registry that requires Basic, and answers a request with the credential so.
fn after_login(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Place {
    Place::Registry(Arc::new(move |head| {
        if head.contains("\r\nauthorization: basic ") {
            answer(head)
        } else {
            http(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"x\"\r\n",
                "",
            )
        }
    }))
}

fn by_headers(status: &'static str, headers: String) -> Place {
    after_login(move |_| http(status, &headers, ""))
}

fn by_body(status: &'static str, headers: &'static str, body: String) -> Place {
    after_login(move |_| http(status, headers, &body))
}

/// The places where a server can repeat a word, for each source. A new source does not compile without its places.
#[expect(clippy::too_many_lines, reason = "a table")]
fn places(source: Source, word: &str) -> Vec<Place> {
    let json = |text: serde_json::Value| text.to_string();
    let error = |code: &str, message: &str| {
        json(serde_json::json!({"errors": [{"code": code, "message": message}]}))
    };
    match source {
        Source::FirstBytes => {
            let bytes = format!("{word} and more\r\n\r\n").into_bytes();
            let middle = format!("say {word}\r\n\r\n").into_bytes();
            vec![
                after_login(move |_| bytes.clone()),
                after_login(move |_| middle.clone()),
            ]
        }
        Source::ErrorCode => vec![by_body("403 Forbidden", "", error(word, "no"))],
        Source::ErrorMessage => vec![
            by_body(
                "403 Forbidden",
                "",
                error("DENIED", &format!("not for {word}")),
            ),
            by_body("500 Internal Server Error", "", format!("stack: {word}")),
            // Cut within the word.
            by_body(
                "403 Forbidden",
                "",
                error("DENIED", &format!("{} {word}", "x".repeat(288))),
            ),
        ],
        Source::RetryAfter => vec![by_headers("503 Busy", format!("Retry-After: {word}\r\n"))],
        Source::PageTitle => vec![by_body(
            "403 Forbidden",
            "Content-Type: text/html\r\n",
            format!("<html><title>{word}</title></html>"),
        )],
        Source::Encoding => vec![by_headers(
            "200 OK",
            format!("Content-Encoding: {word}\r\n"),
        )],
        Source::MediaType => {
            let text = format!(
                "Content-Type: application/{word}\r\nDocker-Content-Digest: {}\r\n",
                sha256(b"{}")
            );
            vec![after_login(move |_| http("200 OK", &text, "{}"))]
        }
        Source::Digest => vec![by_headers(
            "200 OK",
            format!("Content-Type: {MANIFEST}\r\nDocker-Content-Digest: sha256:{word}\r\n"),
        )],
        Source::Platform => {
            let index = json(serde_json::json!({
                "schemaVersion": 2, "mediaType": INDEX,
                "manifests": [{"mediaType": MANIFEST, "digest": sha256(b"x"), "size": 1,
                               "platform": {"architecture": word, "os": "linux"}}],
            }));
            let headers = format!(
                "Content-Type: {INDEX}\r\nDocker-Content-Digest: {}\r\n",
                sha256(index.as_bytes())
            );
            vec![after_login(move |head| {
                let is_head = head.starts_with("head ");
                let mut bytes = http("200 OK", &headers, &index);
                if is_head {
                    bytes.truncate(bytes.len() - index.len());
                }
                bytes
            })]
        }
        Source::Host => {
            let is_host = word.bytes().all(|b| b.is_ascii_alphanumeric());
            if !is_host {
                return Vec::new();
            }
            let to = format!("Location: http://{word}.invalid:1/x\r\n");
            let realm = format!(
                "WWW-Authenticate: Bearer realm=\"http://{word}.invalid:1/t\",service=\"s\"\r\n"
            );
            vec![
                by_headers("307 Temporary Redirect", to),
                by_headers("401 Unauthorized", realm),
            ]
        }
        Source::Challenge => {
            let of = |text: String| {
                by_headers("401 Unauthorized", format!("WWW-Authenticate: {text}\r\n"))
            };
            vec![
                of(format!("Basic realm=\"{word}\"")),
                of(format!("{word} x=\"y\"")),
                of(format!(
                    "Bearer realm=\"http://127.0.0.1:1/\",service=\"{word}\",scope=\"{word}\""
                )),
            ]
        }
        Source::TokenField => {
            let fields = format!("{{\"{word}\": 1}}");
            vec![Place::Registry(Arc::new(move |head| {
                if head.contains(" /token") {
                    return http("200 OK", "", &fields);
                }
                let host = head
                    .split("host: ")
                    .nth(1)
                    .unwrap()
                    .split('\r')
                    .next()
                    .unwrap();
                let challenge = format!(
                    "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"s\"\r\n"
                );
                http("401 Unauthorized", &challenge, "")
            }))]
        }
        Source::Header => {
            let headers = format!(
                "Server: {word}\r\nDocker-Distribution-Api-Version: {word}\r\nDocker-RateLimit-Source: {word}\r\n\
                 RateLimit-Limit: 9\r\nX-{word}: {word}\r\nSet-Cookie: {word}\r\n"
            );
            vec![Place::Registry(Arc::new(move |head| {
                let challenge = format!("{headers}WWW-Authenticate: Basic realm=\"x\"\r\n");
                if head.contains("\r\nauthorization: basic ") {
                    http("200 OK", &headers, "")
                } else {
                    http("401 Unauthorized", &challenge, "")
                }
            }))]
        }
        Source::Certificate | Source::CertificateName => {
            let is_host = word.bytes().all(|b| b.is_ascii_alphanumeric());
            if is_host {
                vec![Place::Tls(format!("{word}.test"))]
            } else {
                Vec::new()
            }
        }
        Source::ProxyReason => {
            let phrase = format!("HTTP/1.1 403 {word}\r\nContent-Length: 0\r\n\r\n").into_bytes();
            let squid = http("503 Busy", &format!("X-Squid-Error: {word} 0\r\n"), "");
            [phrase, squid]
                .into_iter()
                .map(|bytes| Place::Proxy(Arc::new(move |_| bytes.clone())))
                .collect()
        }
        Source::Words => vec![by_headers(
            "200 OK",
            format!("Content-Encoding: {word}, {word}\r\n"),
        )],
        Source::Trace => vec![by_headers(
            "200 OK",
            format!("Location: /{word}?a={word}\r\nX-A: {word}\r\n"),
        )],
        // ALPN has only what the client offers; a name server is sent no credential.
        Source::Session | Source::Dns => vec![Place::None],
    }
}

async fn report_of(place: Place) -> Option<Report> {
    let report = match place {
        Place::None => return None,
        Place::Registry(answer) => {
            let server = Server::start(answer, None).await;
            Asking::of(&server).ask().await
        }
        Place::Proxy(answer) => {
            let server = Server::start(answer, None).await;
            let asking = Asking {
                proxy: Some(server.port),
                scheme: "https",
                ..Asking::of(&server)
            };
            asking.ask().await
        }
        Place::Tls(name) => {
            let config = Ca::new().issue(&[name.as_str()]).config();
            let server = Server::start(Arc::new(|_| Vec::new()), Some(config)).await;
            let asking = Asking {
                scheme: "https",
                ..Asking::of(&server)
            };
            asking.ask().await
        }
    };
    Some(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_source_shows_a_credential_that_it_repeats() {
    let mut wrong = Vec::new();
    for source in Source::ALL.iter().copied() {
        // Without a scrubber, the word would be shown.
        let mut is_shown = Vec::new();
        for place in places(source, MARK) {
            if let Some(report) = report_of(place).await {
                is_shown.push(
                    shown(report)
                        .to_ascii_lowercase()
                        .contains(&MARK.to_ascii_lowercase()[..12]),
                );
            }
        }
        if !is_shown.is_empty() && !is_shown.contains(&true) {
            wrong.push(format!(
                "{source:?}: not shown without a scrubber: {is_shown:?}"
            ));
        }
        for form in forms() {
            for place in places(source, &form) {
                let Some(report) = report_of(place).await else {
                    continue;
                };
                let text = shown(report);
                let lower = text.to_ascii_lowercase();
                for one in forms() {
                    // A part of ten characters counts as well.
                    let begin = &one[..one.len().min(10)];
                    let is_in = text.contains(begin) || lower.contains(&begin.to_ascii_lowercase());
                    if is_in {
                        let at = lower.find(&begin.to_ascii_lowercase()).unwrap_or_default();
                        let around: String =
                            text.chars().skip(at.saturating_sub(80)).take(160).collect();
                        wrong.push(format!("{source:?} as {form}: {around}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The same in all that a daemon has to offer.
#[tokio::test(flavor = "multi_thread")]
async fn no_output_of_the_daemon_shows_a_credential_that_a_server_repeats() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, PASSWORD).unwrap();
    let (mut servers, mut targets) = (Vec::new(), String::new());
    for form in [
        PASSWORD.to_owned(),
        STANDARD.encode(format!("{USER}:{PASSWORD}")),
    ] {
        for place in Source::ALL.iter().flat_map(|source| places(*source, &form)) {
            let Place::Registry(answer) = place else {
                continue;
            };
            let server = Server::start(answer, None).await;
            let number = servers.len();
            let _ = writeln!(
                targets,
                "- {{name: t{number}, image: '127.0.0.1:{}/team/app:1.0', plain_http: true, \
                 credential: {{username: {USER}, password_file: '{}'}}}}",
                server.port,
                password_file.display()
            );
            servers.push(server);
        }
    }
    let text = format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nlog: {{format: json, level: trace}}\n\
         network: {{metadata: off}}\nschedule: {{first_check: 1m, timeout: 5s}}\ntargets:\n{targets}"
    );
    let daemon = Daemon::start_in(&text, folder);
    let is_checked = |text: &str| {
        serde_json::from_str(text).is_ok_and(|document: Document| !document.reports.is_empty())
    };
    let reports = || -> Vec<String> {
        let of = |number| daemon.get(&format!("/api/v1/reports/t{number}")).body;
        (0..servers.len())
            .map(of)
            .filter(|text| is_checked(text))
            .collect()
    };
    eventually_within("each target has a report", Duration::from_mins(4), || {
        reports().len() == servers.len()
    });
    let mut shown = reports();
    shown.extend(
        [
            "/",
            "/metrics",
            "/readyz",
            "/api/v1/targets",
            "/api/v1/reports",
        ]
        .map(|path| daemon.get(path).body),
    );
    shown.extend((0..servers.len()).map(|number| daemon.get(&format!("/targets/t{number}")).body));
    shown.extend(daemon.log());
    for text in &shown {
        for form in forms() {
            let begin = &form[..form.len().min(10)].to_ascii_lowercase();
            if let Some(at) = text.to_ascii_lowercase().find(begin.as_str()) {
                let around: String = text
                    .chars()
                    .skip(at.saturating_sub(200))
                    .take(400)
                    .collect();
                panic!("{form}: {around}");
            }
        }
    }
}

// ---- services of the node -----------------------------------------------------------------------

const CANARY: &str = "canary of a service";

async fn service() -> (Server, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&heads);
    let answer = move |head: &str| {
        seen.lock().unwrap().push(head.to_owned());
        http("500 Oops", "", CANARY)
    };
    (Server::start(Arc::new(answer), None).await, heads)
}

fn is_left_out(report: &Report) -> bool {
    let skipped = Step::skipped(Skip::NodeAddress);
    report
        .evidence
        .walk
        .legs
        .iter()
        .any(|leg| leg.connect.outcome == skipped)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_of_a_pod_leads_to_no_service_of_the_node() {
    let own = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // No packet is sent: only the route is looked up.
    own.connect("192.0.2.1:9").ok();
    let own = own.local_addr().map(|address| address.ip()).ok();
    let own = own.filter(|address| !address.is_unspecified());
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let forms = [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "[::ffff:7f00:1]",
        "[::1]",
        "localhost",
        REGISTRY,
    ];
    let own = own.map(|address| address.to_string());
    for host in forms.iter().copied().chain(own.as_deref()) {
        let (server, heads) = service().await;
        let asking = Asking {
            host: host.to_owned(),
            guard: Some(Guard::default()),
            names: vec![
                (REGISTRY.to_owned(), loopback),
                ("localhost".to_owned(), loopback),
            ],
            ..Asking::of(&server)
        };
        let report = asking.ask().await;
        assert_eq!(server.connections.load(Ordering::SeqCst), 0, "{host}");
        assert!(
            is_left_out(&report),
            "{host}: {:?}",
            report.evidence.walk.legs
        );
        assert_eq!(report.verdict.pull, Pull::Unknown, "{host}");
        let first = &report.verdict.findings[0];
        assert_eq!(first.cause.code(), "node_address", "{host}: {first:?}");
        assert!(
            first.hint.contains("kubernetes.local_registries"),
            "{first:?}"
        );
        assert!(!shown(report).contains(CANARY), "{host}");
        assert!(heads.lock().unwrap().is_empty(), "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_and_port_that_is_named_is_contacted() {
    for by in ["the operator", "hosts.toml", "a mirror of all registries"] {
        let (server, _) = service().await;
        let domain = format!("{REGISTRY}:{}", server.port);
        let text = format!("server = \"http://{domain}\"\n[host.\"http://{domain}\"]\n");
        let (guard, hosts_toml) = match by {
            "the operator" => (vec![(REGISTRY.to_owned(), server.port)], None),
            "hosts.toml" => (Vec::new(), Some((domain, text))),
            _ => (Vec::new(), Some(("_default".to_owned(), text))),
        };
        let asking = Asking {
            guard: Some(Guard {
                allowed: guard,
                node: Vec::new(),
            }),
            hosts_toml,
            ..Asking::of(&server)
        };
        let report = asking.ask().await;
        assert!(server.connections.load(Ordering::SeqCst) > 0, "{by}");
        assert!(!is_left_out(&report), "{by}");
    }
    // Another port is not named with it; nor is one for an image of the operator.
    let (server, _) = service().await;
    let other = Asking {
        guard: Some(Guard {
            allowed: vec![(REGISTRY.to_owned(), server.port ^ 1)],
            node: Vec::new(),
        }),
        ..Asking::of(&server)
    };
    assert!(is_left_out(&other.ask().await));
    assert!(!is_left_out(&Asking::of(&server).ask().await));
    assert!(server.connections.load(Ordering::SeqCst) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_realm_or_a_redirect_of_a_pods_registry_leads_to_no_other_service() {
    for is_realm in [true, false] {
        let (target, heads) = service().await;
        let to = target.port;
        let answer = move |_: &str| {
            if is_realm {
                let challenge = format!(
                    "WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{to}/t\",service=\"s\"\r\n"
                );
                http("401 Unauthorized", &challenge, "")
            } else {
                http(
                    "307 Temporary Redirect",
                    &format!("Location: http://127.0.0.1:{to}/x\r\n"),
                    "",
                )
            }
        };
        let server = Server::start(Arc::new(answer), None).await;
        let asking = Asking {
            guard: Some(Guard {
                allowed: vec![(REGISTRY.to_owned(), server.port)],
                node: Vec::new(),
            }),
            ..Asking::of(&server)
        };
        let report = asking.ask().await;
        assert!(server.connections.load(Ordering::SeqCst) > 0);
        assert!(heads.lock().unwrap().is_empty(), "realm: {is_realm}");
        assert!(!shown(report).contains(CANARY), "realm: {is_realm}");
    }
}

/// A proxy on the node resolves names itself, and reaches what this machine reaches. The answer here is compared first.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_not_asked_for_a_service_of_the_node() {
    for (host, address, is_asked) in [
        (REGISTRY, "127.0.0.1", false),
        (REGISTRY, "169.254.169.254", false),
        (REGISTRY, "192.0.2.9", true),
        ("127.0.0.1", "127.0.0.1", false),
        ("192.0.2.9", "192.0.2.9", true),
    ] {
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&heads);
        let answer = move |head: &str| {
            seen.lock().unwrap().push(head.to_owned());
            http("502 Bad Gateway", "", CANARY)
        };
        let proxy = Server::start(Arc::new(answer), None).await;
        let asking = Asking {
            host: host.to_owned(),
            scheme: "https",
            proxy: Some(proxy.port),
            guard: Some(Guard::default()),
            names: vec![(REGISTRY.to_owned(), address.parse().unwrap())],
            ..Asking::of(&proxy)
        };
        let report = asking.ask().await;
        assert_eq!(is_left_out(&report), !is_asked, "{host} {address}");
        let heads = heads.lock().unwrap().clone();
        let is_named = heads
            .iter()
            .any(|head| head.starts_with(&format!("connect {host}:")));
        assert_eq!(is_named, is_asked, "{host} {address}: {heads:?}");
        if !is_asked {
            assert_eq!(
                proxy.connections.load(Ordering::SeqCst),
                0,
                "{host} {address}"
            );
            assert_eq!(report.verdict.pull, Pull::Unknown, "{host} {address}");
        }
    }
}
