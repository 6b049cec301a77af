//! The peers that other tests rely on, tested themselves: by a second, independent client
//! (`oci-client`) and by a plain one that shows every byte.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod support;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use oci_client::Reference;
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, RootCertStore};
use support::dns::{Answer, Dns};
use support::image::{DOCKER_SCHEMA1, Flavour, Image, LAYERS, digest};
use support::pki::{Ca, Flaw};
use support::proxy::Proxy;
use support::registry::{self, Auth, RateLimit, Redirect};
use support::tcp::{Behaviour, Blackhole, Closed, Peer};
use support::token::{self, Fields, Post};
use support::web::{Flow, Reply};
use support::{AUTH, BLOBS, PASSWORD, REGISTRY, REPOSITORY, TAG, USER, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// No step of these tests takes this long on loopback, on however busy a machine.
const LONG: Duration = Duration::from_secs(30);
/// Silence that lasts this long is silence.
const SILENCE: Duration = Duration::from_millis(700);

// --- A client that shows everything ---------------------------------------------------------

/// What came back.
#[derive(Debug)]
struct Got {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// How the body ended.
    end: End,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Whole,
    Silence,
    /// RST.
    Reset,
    /// FIN, or anything else that is not the promised end.
    Cut,
}

impl End {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut chain = std::iter::successors(Some(error), |error| error.source());
        let is_reset = |e: &(dyn std::error::Error + 'static)| {
            let io = e.downcast_ref::<std::io::Error>();
            io.is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
        };
        if chain.any(is_reset) {
            Self::Reset
        } else {
            Self::Cut
        }
    }
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A request under construction.
struct Ask<'a> {
    ca: &'a Ca,
    url: url::Url,
    /// Where the host of the URL is.
    addr: SocketAddr,
    method: Method,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// How long to wait for each next piece of the answer.
    patience: Duration,
}

impl<'a> Ask<'a> {
    fn new(world: &'a World, method: Method, url: &str) -> Self {
        let url: url::Url = url.parse().unwrap();
        let ip = world.dns.lookup(url.host_str().unwrap()).unwrap();
        Self {
            ca: &world.ca,
            addr: SocketAddr::new(ip, url.port().unwrap()),
            url,
            method,
            headers: vec![("accept", "*/*".to_owned())],
            body: String::new(),
            patience: LONG,
        }
    }

    fn get(world: &'a World, url: &str) -> Self {
        Self::new(world, Method::GET, url)
    }

    /// Takes [`SILENCE`] for an answer.
    fn impatient(mut self) -> Self {
        self.patience = SILENCE;
        self
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.push((name, value.into()));
        self
    }

    fn basic(self, user: &str, password: &str) -> Self {
        use base64::Engine as _;
        let encoded =
            base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.with("authorization", format!("Basic {encoded}"))
    }

    fn form(mut self, fields: &[(&str, &str)]) -> Self {
        self.body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.with("content-type", "application/x-www-form-urlencoded")
    }

    /// Sends it. `None`: no response head in time; `Err`: the connection failed before.
    async fn send(self) -> Result<Option<Got>, End> {
        timeout(2 * LONG, self.exchange())
            .await
            .expect("an end in time")
    }

    async fn got(self) -> Got {
        self.send().await.unwrap().expect("a response head")
    }

    async fn exchange(self) -> Result<Option<Got>, End> {
        let stream = TcpStream::connect(self.addr)
            .await
            .map_err(|e| End::of(&e))?;
        if self.url.scheme() == "http" {
            return self.over(TokioIo::new(stream)).await;
        }
        let name = self.url.host_str().unwrap().to_owned();
        let stream = shake(self.ca, &name, stream)
            .await
            .map_err(|e| End::of(&e))?;
        self.over(TokioIo::new(stream)).await
    }

    async fn over<S>(self, io: TokioIo<S>) -> Result<Option<Got>, End>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let query = self.url.query().map(|q| format!("?{q}"));
        let path = format!("{}{}", self.url.path(), query.unwrap_or_default());
        let authority = self.url.authority().to_owned();
        let mut request = Request::builder()
            .method(self.method)
            .uri(path)
            .header("host", authority);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::<Bytes>::from(self.body)).unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .map_err(|e| End::of(&e))?;
        tokio::spawn(connection);
        let sent = timeout(self.patience, sender.send_request(request)).await;
        let response = match sent {
            Err(_) => return Ok(None),
            Ok(Err(error)) => return Err(End::of(&error)),
            Ok(Ok(response)) => response,
        };
        let (head, mut body) = response.into_parts();
        let mut bytes = Vec::new();
        let end = loop {
            match timeout(self.patience, body.frame()).await {
                Err(_) => break End::Silence,
                Ok(None) => break End::Whole,
                Ok(Some(Err(error))) => break End::of(&error),
                Ok(Some(Ok(frame))) => bytes.extend(frame.into_data().unwrap_or_default()),
            }
        };
        Ok(Some(Got {
            status: head.status.as_u16(),
            headers: head.headers,
            body: bytes,
            end,
        }))
    }
}

async fn shake(
    ca: &Ca,
    name: &str,
    stream: TcpStream,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn registry_url(world: &World, path: &str) -> String {
    format!("{}://{}{path}", world.scheme(), world.registry_host())
}

fn manifest_url(world: &World) -> String {
    registry_url(world, &format!("/v2/{REPOSITORY}/manifests/{TAG}"))
}

fn blob_url(world: &World) -> String {
    let digest = &world.image.platform("amd64").layers[0].digest;
    registry_url(world, &format!("/v2/{REPOSITORY}/blobs/{digest}"))
}

/// Asks for a layer, follows one redirect, and returns the request for what it leads to.
async fn redirected(world: &World) -> Ask<'_> {
    let first = Ask::get(world, &blob_url(world)).got().await;
    assert_eq!(first.status, 307);
    Ask::get(world, first.header("location"))
}

/// A world whose registry requires no login.
async fn open_world() -> World {
    let world = World::healthy().await;
    world.registry.knobs().auth = Auth::Open;
    world
}

// --- The name server --------------------------------------------------------------------------

fn question(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn over_udp(dns: &Dns, name: &str, kind: RecordType, patience: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(dns.addr).await.unwrap();
    socket.send(&question(7, name, kind)).await.unwrap();
    let mut buffer = vec![0; 4096];
    let length = timeout(patience, socket.recv(&mut buffer)).await.ok()?;
    buffer.truncate(length.unwrap());
    Some(buffer)
}

async fn over_tcp(dns: &Dns, name: &str, kind: RecordType) -> Message {
    tcp_answer(dns, name, kind, LONG).await.unwrap()
}

async fn tcp_answer(
    dns: &Dns,
    name: &str,
    kind: RecordType,
    patience: Duration,
) -> Option<Message> {
    let mut stream = TcpStream::connect(dns.addr).await.unwrap();
    let question = question(7, name, kind);
    let length = u16::try_from(question.len()).unwrap();
    stream.write_u16(length).await.unwrap();
    stream.write_all(&question).await.unwrap();
    let length = timeout(patience, stream.read_u16()).await.ok()?;
    let mut answer = vec![0; usize::from(length.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Some(Message::from_vec(&answer).unwrap())
}

async fn ask(dns: &Dns, name: &str, kind: RecordType) -> Message {
    let answer = over_udp(dns, name, kind, LONG).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

/// No answer comes.
async fn ignored(dns: &Dns, name: &str, kind: RecordType) -> bool {
    over_udp(dns, name, kind, SILENCE).await.is_none()
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn the_name_server_answers_from_its_zone() {
    let dns = Dns::start().await;
    let (v4, v6): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    dns.host("both.test", &[v4, v6]);
    dns.host("four.test", &[v4]);
    dns.ttl("four.test", 5);
    dns.alias("one.test", "two.test");
    dns.alias("two.test", "both.test");
    dns.alias("dangling.test", "nowhere.test");
    dns.alias("circle.test", "circle.test");

    for (name, kind, code, records, expected) in [
        (
            "both.test.",
            RecordType::A,
            ResponseCode::NoError,
            1,
            vec![v4],
        ),
        (
            "BOTH.test.",
            RecordType::AAAA,
            ResponseCode::NoError,
            1,
            vec![v6],
        ),
        (
            "four.test.",
            RecordType::AAAA,
            ResponseCode::NoError,
            0,
            vec![],
        ),
        (
            "one.test.",
            RecordType::A,
            ResponseCode::NoError,
            3,
            vec![v4],
        ),
        (
            "none.test.",
            RecordType::A,
            ResponseCode::NXDomain,
            0,
            vec![],
        ),
        (
            "dangling.test.",
            RecordType::A,
            ResponseCode::NXDomain,
            1,
            vec![],
        ),
        (
            "circle.test.",
            RecordType::A,
            ResponseCode::ServFail,
            16,
            vec![],
        ),
    ] {
        let answer = ask(&dns, name, kind).await;
        assert_eq!(answer.metadata.response_code, code, "{name} {kind}");
        assert_eq!(answer.answers.len(), records, "{name} {kind}");
        assert_eq!(addresses(&answer), expected, "{name} {kind}");
        assert_eq!(answer.metadata.id, 7);
    }
    let answer = over_tcp(&dns, "four.test.", RecordType::A).await;
    assert_eq!(answer.answers[0].ttl, 5);
    let last = dns.questions().pop().unwrap();
    assert_eq!((last.name.as_str(), last.tcp), ("four.test", true));
    assert_eq!(dns.questions().len(), 8);
}

#[tokio::test]
async fn the_name_server_misbehaves_as_configured() {
    let dns = Dns::start().await;
    let v4: IpAddr = "192.0.2.1".parse().unwrap();
    dns.host("x.test", &[v4]);
    for (answer, code) in [
        (Answer::NxDomain, ResponseCode::NXDomain),
        (Answer::NoData, ResponseCode::NoError),
        (Answer::ServFail, ResponseCode::ServFail),
        (Answer::Refused, ResponseCode::Refused),
    ] {
        dns.answer("x.test", answer);
        let got = ask(&dns, "x.test.", RecordType::A).await;
        assert_eq!(got.metadata.response_code, code, "{answer:?}");
        assert!(got.answers.is_empty(), "{answer:?}");
    }

    dns.answer("x.test", Answer::Drop);
    assert!(ignored(&dns, "x.test.", RecordType::A).await);
    let got = tcp_answer(&dns, "x.test.", RecordType::A, SILENCE).await;
    assert!(got.is_none());

    dns.answer("x.test", Answer::DropAaaa);
    assert!(ignored(&dns, "x.test.", RecordType::AAAA).await);
    let got = ask(&dns, "x.test.", RecordType::A).await;
    assert_eq!(addresses(&got), [v4]);

    dns.answer("x.test", Answer::NxDomainAaaa);
    for (kind, code) in [
        (RecordType::A, ResponseCode::NoError),
        (RecordType::AAAA, ResponseCode::NXDomain),
    ] {
        let got = ask(&dns, "x.test.", kind).await;
        assert_eq!(got.metadata.response_code, code);
    }

    dns.answer("x.test", Answer::DropUdp);
    assert!(ignored(&dns, "x.test.", RecordType::A).await);
    let got = over_tcp(&dns, "x.test.", RecordType::A).await;
    assert_eq!(addresses(&got), [v4]);

    dns.answer("x.test", Answer::TruncateUdp);
    let got = ask(&dns, "x.test.", RecordType::A).await;
    assert!(got.metadata.truncation && got.answers.is_empty());
    let got = over_tcp(&dns, "x.test.", RecordType::A).await;
    assert!(!got.metadata.truncation);
    assert_eq!(addresses(&got), [v4]);

    dns.answer("x.test", Answer::Garbage);
    let got = over_udp(&dns, "x.test.", RecordType::A, LONG)
        .await
        .unwrap();
    assert!(Message::from_vec(&got).is_err());

    dns.answer("x.test", Answer::WrongId);
    let got = ask(&dns, "x.test.", RecordType::A).await;
    assert_ne!(got.metadata.id, 7);

    let late = Duration::from_millis(150);
    dns.answer("x.test", Answer::After(late));
    let asked = Instant::now();
    let got = ask(&dns, "x.test.", RecordType::A).await;
    assert_eq!(addresses(&got), [v4]);
    assert!(asked.elapsed() >= late);
}

#[tokio::test]
async fn an_answer_too_long_for_udp_is_truncated_unasked() {
    let dns = Dns::start().await;
    let many: Vec<IpAddr> = (0..100u8).map(|n| IpAddr::from([192, 0, 2, n])).collect();
    dns.host("many.test", &many);
    let got = ask(&dns, "many.test.", RecordType::A).await;
    assert!(got.metadata.truncation);
    let got = over_tcp(&dns, "many.test.", RecordType::A).await;
    assert_eq!(addresses(&got), many);
}

// --- The whole world, as another client sees it -----------------------------------------------

/// `oci-client` resolves by the system; a proxy that resolves by our zone is in between.
fn second_opinion(world: &World, proxy: &Proxy) -> Client {
    // It fails when another test of this process was first, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::new(ClientConfig {
        tls_certs_only: vec![Certificate {
            encoding: CertificateEncoding::Pem,
            data: world.ca.pem().as_bytes().to_vec(),
        }],
        https_proxy: Some(format!("http://{}", proxy.addr)),
        platform_resolver: Some(Box::new(oci_client::client::linux_amd64_resolver)),
        connect_timeout: Some(LONG),
        read_timeout: Some(LONG),
        ..ClientConfig::default()
    })
}

fn right_password() -> RegistryAuth {
    RegistryAuth::Basic(USER.to_owned(), PASSWORD.to_owned())
}

async fn pull_layer(client: &Client, world: &World) -> Result<Vec<u8>, String> {
    let layer = &world.image.platform("amd64").layers[0];
    let descriptor = OciDescriptor {
        digest: layer.digest.clone(),
        size: i64::try_from(layer.bytes.len()).unwrap(),
        ..OciDescriptor::default()
    };
    let reference: Reference = world.reference().parse().unwrap();
    let mut bytes = Vec::new();
    client
        .pull_blob(&reference, &descriptor, &mut bytes)
        .await
        .map_err(|e| e.to_string())?;
    Ok(bytes)
}

#[tokio::test]
async fn another_client_pulls_from_it_by_token_and_redirect() {
    let world = World::healthy().await;
    let proxy = Proxy::start(&world.dns).await;
    let client = second_opinion(&world, &proxy);
    let reference: Reference = world.reference().parse().unwrap();

    let (_, digest, config) = client
        .pull_manifest_and_config(&reference, &right_password())
        .await
        .unwrap();
    let image = world.image.platform("amd64");
    assert_eq!(digest, image.manifest.digest);
    assert_eq!(config.as_bytes(), image.config.bytes);
    let layer = pull_layer(&client, &world).await.unwrap();
    assert_eq!(layer, image.layers[0].bytes);

    // It went by all three hosts, and took its credential to two of them.
    assert!(world.tokens.server.count(&Method::GET, "/token") >= 1);
    let asked = world.tokens.server.seen();
    let basic = asked[0].basic();
    assert_eq!(basic, Some((USER.to_owned(), PASSWORD.to_owned())));
    let blobs = world.blobs.server.seen();
    assert!(!blobs.is_empty());
    for seen in &blobs {
        assert!(seen.authorization().is_none());
        assert_eq!(seen.parameters("X-Amz-Signature").len(), 1);
        assert!(seen.host.starts_with(BLOBS));
    }
    let tunnels = proxy.targets();
    for host in [REGISTRY, AUTH, BLOBS] {
        assert!(tunnels.iter().any(|t| t.starts_with(host)), "{host}");
    }
    // Nothing but tokens reaches the registry.
    for seen in world.registry.server.seen() {
        assert!(seen.basic().is_none());
    }
}

#[tokio::test]
async fn another_client_pulls_from_it_in_the_other_ways() {
    let world = World::healthy().await;
    let proxy = Proxy::start(&world.dns).await;
    let reference: Reference = world.reference().parse().unwrap();
    let public: Reference = world.public_reference().parse().unwrap();

    let digest = second_opinion(&world, &proxy)
        .fetch_manifest_digest(&public, &RegistryAuth::Anonymous)
        .await
        .unwrap();
    assert_eq!(digest, world.image.top().digest);

    world.registry.knobs().redirect = Redirect::Relative;
    let client = second_opinion(&world, &proxy);
    client
        .pull_manifest(&reference, &right_password())
        .await
        .unwrap();
    pull_layer(&client, &world).await.unwrap();

    {
        let mut knobs = world.registry.knobs();
        knobs.auth = World::basic();
        knobs.redirect = Redirect::Direct;
    }
    let client = second_opinion(&world, &proxy);
    client
        .pull_manifest(&reference, &right_password())
        .await
        .unwrap();
    pull_layer(&client, &world).await.unwrap();
    assert_eq!(world.blobs.server.seen().len(), 0);
}

#[tokio::test]
async fn another_client_is_refused_what_it_may_not_have() {
    let world = World::healthy().await;
    let proxy = Proxy::start(&world.dns).await;
    let reference: Reference = world.reference().parse().unwrap();
    let wrong = RegistryAuth::Basic(USER.to_owned(), "wrong".to_owned());
    for auth in [RegistryAuth::Anonymous, wrong] {
        let client = second_opinion(&world, &proxy);
        client.pull_manifest(&reference, &auth).await.unwrap_err();
    }
    let absent: Reference = format!("{}/team/app:absent", world.registry_host())
        .parse()
        .unwrap();
    let error = second_opinion(&world, &proxy)
        .pull_manifest(&absent, &right_password())
        .await
        .unwrap_err();
    assert!(
        format!("{error:?}").contains("ManifestUnknown"),
        "{error:?}"
    );
}

// --- Protocols and certificates -----------------------------------------------------------------

#[tokio::test]
async fn hosts_speak_with_tls_or_without() {
    for world in [World::healthy().await, World::plain().await] {
        world.registry.knobs().auth = Auth::Open;
        let got = Ask::get(&world, &manifest_url(&world)).got().await;
        assert_eq!(got.status, 200);
        let seen = world.registry.server.seen();
        assert_eq!(seen[0].host, world.registry_host());
    }
}

#[tokio::test]
async fn each_flawed_certificate_is_refused_for_its_flaw() {
    let world = World::healthy().await;
    let server = &world.registry.server;
    for (flaw, expected) in [
        (Flaw::None, None),
        (Flaw::Expired, Some("expired")),
        (Flaw::NotYetValid, Some("not valid yet")),
        (Flaw::WrongName, Some("name")),
        (Flaw::SelfSigned, Some("issuer")),
        (Flaw::OtherCa, Some("issuer")),
        (Flaw::MissingIntermediate, Some("issuer")),
    ] {
        server.set_tls(Some(world.config(REGISTRY, flaw)));
        let stream = TcpStream::connect(server.addr).await.unwrap();
        let shaken = timeout(LONG, shake(&world.ca, REGISTRY, stream));
        let fault = shaken.await.unwrap().err().map(|error| {
            let error = error.into_inner().unwrap();
            match error.downcast_ref::<rustls::Error>() {
                Some(rustls::Error::InvalidCertificate(why)) => match why {
                    CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                        "expired"
                    }
                    CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                        "not valid yet"
                    }
                    CertificateError::NotValidForName
                    | CertificateError::NotValidForNameContext { .. } => "name",
                    CertificateError::UnknownIssuer => "issuer",
                    _ => panic!("{flaw:?}: {why:?}"),
                },
                _ => panic!("{flaw:?}: {error:?}"),
            }
        });
        assert_eq!(fault, expected, "{flaw:?}");
    }
    assert_eq!(
        std::fs::read_to_string(world.ca.file()).unwrap(),
        world.ca.pem()
    );
}

// --- The token service --------------------------------------------------------------------------

const SCOPE: &str = "repository:team/app:pull";

fn by_get(world: &World) -> Ask<'_> {
    let url = format!("{}?service={REGISTRY}&scope={SCOPE}", world.realm());
    Ask::get(world, &url)
}

fn by_post<'a>(world: &'a World, password: &str) -> Ask<'a> {
    Ask::new(world, Method::POST, &world.realm()).form(&[
        ("grant_type", "password"),
        ("username", USER),
        ("password", password),
        ("service", REGISTRY),
        ("client_id", "test"),
        ("scope", SCOPE),
    ])
}

/// The status of a manifest asked for with this token, and the challenge that came with it.
async fn with_token(world: &World, token: &str) -> (u16, String) {
    let got = Ask::get(world, &manifest_url(world))
        .with("authorization", format!("Bearer {token}"))
        .got()
        .await;
    (got.status, got.header("www-authenticate").to_owned())
}

fn has(got: &Got, field: &str) -> bool {
    got.json().get(field).is_some()
}

fn text(got: &Got, field: &str) -> String {
    got.json()[field].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn tokens_are_given_by_both_forms_and_taken_by_the_registry() {
    let world = World::healthy().await;
    let challenge = Ask::get(&world, &manifest_url(&world)).got().await;
    assert_eq!(challenge.status, 401);
    let expected = format!(
        "Bearer realm=\"{}\",service=\"{REGISTRY}\",scope=\"{SCOPE}\"",
        world.realm()
    );
    assert_eq!(challenge.header("www-authenticate"), expected);
    assert_eq!(challenge.json()["errors"][0]["code"], "UNAUTHORIZED");

    let post = by_post(&world, PASSWORD).got().await;
    assert!(!has(&post, "token"));
    assert_eq!(
        with_token(&world, &text(&post, "access_token")).await.0,
        200
    );

    let get = by_get(&world).basic(USER, PASSWORD).got().await;
    let token = text(&get, "token");
    assert_eq!(text(&get, "access_token"), token);
    assert_eq!(get.json()["expires_in"], 300);
    assert_eq!(with_token(&world, &token).await.0, 200);
    assert_eq!(token.split('.').count(), 3);

    world.tokens.revoke();
    let (status, challenge) = with_token(&world, &token).await;
    assert_eq!(status, 401);
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");

    // Identity tokens are sent by POST only.
    let identity = "identity-token".to_owned();
    world
        .tokens
        .knobs()
        .identity_tokens
        .insert(identity, USER.to_owned());
    let refreshed = Ask::new(&world, Method::POST, &world.realm())
        .form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", "identity-token"),
            ("service", REGISTRY),
            ("client_id", "test"),
            ("scope", SCOPE),
        ])
        .got()
        .await;
    assert_eq!(
        with_token(&world, &text(&refreshed, "access_token"))
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn tokens_without_the_right_are_not_enough() {
    let world = World::healthy().await;
    let anonymous = by_get(&world).got().await;
    assert_eq!(anonymous.status, 200);
    let (status, challenge) = with_token(&world, &text(&anonymous, "token")).await;
    assert_eq!(status, 401);
    assert!(
        challenge.contains("error=\"insufficient_scope\""),
        "{challenge}"
    );

    world.tokens.knobs().deny_scope = true;
    let denied = by_post(&world, PASSWORD).got().await;
    assert_eq!(denied.status, 200);
    assert_eq!(
        with_token(&world, &text(&denied, "access_token")).await.0,
        401
    );

    world.tokens.knobs().anonymous = false;
    assert_eq!(by_get(&world).got().await.status, 401);

    {
        let mut knobs = world.tokens.knobs();
        knobs.deny_scope = false;
        knobs.lifetime = Duration::ZERO;
    }
    let expired = by_post(&world, PASSWORD).got().await;
    let (status, challenge) = with_token(&world, &text(&expired, "access_token")).await;
    assert_eq!(status, 401);
    assert!(challenge.contains("invalid_token"), "{challenge}");
}

#[tokio::test]
async fn the_token_service_fails_as_configured() {
    let world = World::healthy().await;
    for got in [
        by_post(&world, "wrong").got().await,
        by_get(&world).basic(USER, "wrong").got().await,
    ] {
        assert_eq!(got.status, 401);
        assert_eq!(got.json()["errors"][0]["code"], "UNAUTHORIZED");
    }
    for status in [400, 401, 404, 405] {
        world.tokens.knobs().post = Post::Status(status);
        assert_eq!(by_post(&world, PASSWORD).got().await.status, status);
        assert_eq!(by_get(&world).basic(USER, PASSWORD).got().await.status, 200);
    }
    world.tokens.knobs().post = Post::OnlyToken;
    let got = by_post(&world, PASSWORD).got().await;
    assert!(has(&got, "token") && !has(&got, "access_token"));
    for (fields, token, access_token) in [
        (Fields::Token, true, false),
        (Fields::AccessToken, false, true),
        (Fields::Neither, false, false),
    ] {
        world.tokens.knobs().get = fields;
        let got = by_get(&world).basic(USER, PASSWORD).got().await;
        assert_eq!(has(&got, "token"), token, "{fields:?}");
        assert_eq!(has(&got, "access_token"), access_token, "{fields:?}");
    }
    world.tokens.knobs().hide_lifetime = true;
    assert!(!has(
        &by_get(&world).basic(USER, PASSWORD).got().await,
        "expires_in"
    ));

    world
        .tokens
        .knobs()
        .manners
        .fail_times(1, "/token", Reply::new(500));
    assert_eq!(by_get(&world).got().await.status, 500);
    assert_eq!(by_get(&world).got().await.status, 200);
    world
        .tokens
        .knobs()
        .manners
        .fail_times(1, "/token", token::huge(3 << 20));
    assert_eq!(by_get(&world).got().await.body.len(), (3 << 20) + 12);
    world.tokens.knobs().manners.delay = 2 * SILENCE;
    let got = by_get(&world).impatient().send().await;
    assert!(got.unwrap().is_none());
}

// --- The registry -------------------------------------------------------------------------------

#[tokio::test]
async fn the_registry_serves_what_was_pushed() {
    let world = open_world().await;
    let index = world.image.top();
    let got = Ask::get(&world, &manifest_url(&world)).got().await;
    assert_eq!((got.status, got.end), (200, End::Whole));
    assert_eq!(got.body, index.bytes);
    assert_eq!(digest(&got.body), index.digest);
    let url = manifest_url(&world);
    let head = Ask::new(&world, Method::HEAD, &url).got().await;
    assert_eq!(head.header("docker-content-digest"), index.digest);
    assert_eq!(head.header("content-length"), index.bytes.len().to_string());
    assert_eq!(head.header("content-type"), index.media_type);
    assert!(head.body.is_empty());
    let listed: serde_json::Value = serde_json::from_slice(&index.bytes).unwrap();
    assert_eq!(listed["manifests"].as_array().unwrap().len(), 3);
    let layers = &world.image.platform("arm64").layers;
    assert_eq!(
        layers.iter().map(|l| l.bytes.len()).collect::<Vec<_>>(),
        LAYERS
    );

    let version = registry_url(&world, "/v2/");
    let got = Ask::get(&world, &version).got().await;
    assert_eq!(
        got.header("docker-distribution-api-version"),
        "registry/2.0"
    );
    for (path, status, code) in [
        ("/v2/team/app/manifests/none", 404, "MANIFEST_UNKNOWN"),
        ("/v2/team/none/manifests/1.0", 404, "NAME_UNKNOWN"),
        ("/v2/team/app/blobs/sha256:00", 404, "BLOB_UNKNOWN"),
    ] {
        let got = Ask::get(&world, &registry_url(&world, path)).got().await;
        assert_eq!(got.status, status, "{path}");
        assert_eq!(got.json()["errors"][0]["code"], code, "{path}");
    }
    // Who does not take an index gets none.
    let narrow = Ask::get(&world, &manifest_url(&world)).with("accept", "text/plain");
    assert_eq!(narrow.got().await.status, 404);

    let store = &world.registry.store;
    let docker = Image::build(2, Flavour::Docker, &["amd64"], &[512]);
    store.push(REPOSITORY, "docker", &docker);
    store.push(REPOSITORY, "single", &Image::single(3, "s390x"));
    for (tag, ending) in [
        ("docker", "manifest.list.v2+json"),
        ("single", "manifest.v1+json"),
    ] {
        let url = registry_url(&world, &format!("/v2/{REPOSITORY}/manifests/{tag}"));
        let got = Ask::get(&world, &url).got().await;
        assert!(got.header("content-type").ends_with(ending), "{tag}");
    }
}

#[tokio::test]
async fn the_registry_fails_as_configured() {
    let world = open_world().await;
    let url = manifest_url(&world);
    let get = || Ask::get(&world, &url);
    let turn = |change: fn(&mut registry::RegistryKnobs)| change(&mut world.registry.knobs());

    for (reply, status, code) in [
        (registry::denied(), 403, "DENIED"),
        (registry::manifest_unknown(), 404, "MANIFEST_UNKNOWN"),
        (registry::name_unknown(), 404, "NAME_UNKNOWN"),
        (registry::too_many_requests("60"), 429, "TOOMANYREQUESTS"),
        (
            registry::oci_error(503, "UNAVAILABLE", "later"),
            503,
            "UNAVAILABLE",
        ),
    ] {
        world
            .registry
            .knobs()
            .manners
            .fail_times(1, "/manifests/", reply);
        let got = get().got().await;
        assert_eq!(got.status, status);
        assert_eq!(got.json()["errors"][0]["code"], code);
        if status == 429 {
            assert_eq!(got.header("retry-after"), "60");
        }
    }
    world
        .registry
        .knobs()
        .manners
        .fail_times(1, "/v2/", Reply::html(200));
    let got = get().got().await;
    assert!(got.header("content-type").starts_with("text/html"));
    assert_eq!(get().got().await.status, 200);

    turn(|k| k.head_405 = true);
    assert_eq!(Ask::new(&world, Method::HEAD, &url).got().await.status, 405);
    assert_eq!(get().got().await.status, 200);

    turn(|k| {
        k.rate_limit = Some(RateLimit {
            limit: 100,
            remaining: 3,
            window_seconds: 21600,
            source: "203.0.113.7".to_owned(),
        });
    });
    let got = get().got().await;
    assert_eq!(got.header("ratelimit-remaining"), "3;w=21600");
    assert_eq!(got.header("docker-ratelimit-source"), "203.0.113.7");

    turn(|k| k.hide_digest = true);
    assert_eq!(get().got().await.header("docker-content-digest"), "");
    turn(|k| {
        k.hide_digest = false;
        k.corrupt_manifests = true;
    });
    let got = get().got().await;
    assert_ne!(digest(&got.body), got.header("docker-content-digest"));
    turn(|k| k.schema1 = true);
    assert_eq!(get().got().await.header("content-type"), DOCKER_SCHEMA1);

    turn(|k| k.manners.clock_skew_seconds = 7200);
    let date = get().got().await.header("date").to_owned();
    let date = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(&date)
        .unwrap();
    let ahead = date.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((7100..=7200).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn a_rule_waits_for_the_credential_unless_it_is_early() {
    let world = World::healthy().await;
    let url = manifest_url(&world);
    world
        .registry
        .knobs()
        .manners
        .fail("/manifests/", registry::echo(403));
    assert_eq!(Ask::get(&world, &url).got().await.status, 401);
    let token = text(&by_post(&world, PASSWORD).got().await, "access_token");
    let sent = format!("Bearer {token}");
    let got = Ask::get(&world, &url)
        .with("authorization", &sent)
        .got()
        .await;
    assert_eq!(got.status, 403);
    assert_eq!(got.header("x-debug"), sent);
    let message = got.json()["errors"][0]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(message, format!("rejected credential {sent}"));

    world
        .registry
        .knobs()
        .manners
        .fail_early("/manifests/", Reply::new(503));
    assert_eq!(Ask::get(&world, &url).got().await.status, 503);

    let challenge = "Bearer realm=\"http://169.254.169.254/token\"";
    world.registry.knobs().challenge = Some(challenge.to_owned());
    let ping = Ask::get(&world, &registry_url(&world, "/v2/")).got().await;
    assert_eq!(ping.header("www-authenticate"), challenge);
    world.registry.knobs().ping_open = true;
    let ping = Ask::get(&world, &registry_url(&world, "/v2/")).got().await;
    assert_eq!(ping.status, 200);
}

#[tokio::test]
async fn a_connection_can_be_good_for_one_request() {
    let world = open_world().await;
    world.registry.knobs().manners.close_each = true;
    let url = manifest_url(&world);
    let got = Ask::get(&world, &url).got().await;
    assert_eq!((got.header("connection"), got.end), ("close", End::Whole));
    let got = Ask::get(&world, &url).got().await;
    assert_eq!((got.status, got.end), (200, End::Whole));
    assert_eq!(world.registry.server.connections(), 2);
}

#[tokio::test]
async fn an_answer_breaks_off_where_it_is_configured_to() {
    let world = open_world().await;
    let url = manifest_url(&world);
    let whole = world.image.top().bytes.len();
    let get = || Ask::get(&world, &url);
    for (flow, length, end) in [
        (Flow::StallAfter(10), 10, End::Silence),
        (Flow::StallAfter(0), 0, End::Silence),
        (Flow::TruncateAfter(10), 10, End::Cut),
        (Flow::ResetAfter(10), 10, End::Reset),
    ] {
        let reply = Reply::new(200)
            .body("text/plain", world.image.top().bytes.clone())
            .flow(flow);
        world
            .registry
            .knobs()
            .manners
            .fail_times(1, "/manifests/", reply);
        let ask = match end {
            End::Silence => get().impatient(),
            _ => get(),
        };
        let got = ask.got().await;
        let length_said = got.header("content-length").to_owned();
        assert_eq!(length_said, whole.to_string(), "{flow:?}");
        assert_eq!(got.body.len(), length, "{flow:?}");
        assert_eq!(got.end, end, "{flow:?}");
    }
    for (flow, expected) in [
        (Flow::Hang, None),
        (Flow::Reset, Some(End::Reset)),
        (Flow::Close, Some(End::Cut)),
    ] {
        let once = |k: &mut registry::RegistryKnobs| k.manners.fail_times(1, "/manifests/", flow);
        once(&mut world.registry.knobs());
        let ask = match flow {
            Flow::Hang => get().impatient(),
            _ => get(),
        };
        match ask.send().await {
            Ok(None) => assert_eq!(expected, None, "{flow:?}"),
            Err(end) => assert_eq!(expected, Some(end), "{flow:?}"),
            Ok(Some(got)) => panic!("{flow:?}: {got:?}"),
        }
    }
}

// --- The object store ---------------------------------------------------------------------------

#[tokio::test]
async fn blobs_come_whole_or_in_ranges() {
    let world = open_world().await;
    let bytes = world.image.platform("amd64").layers[0].bytes.clone();
    let end = bytes.len() - 1;
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=1000-", 1000, end),
        ("bytes=-5", end - 4, end),
        ("bytes=0-999999999", 0, end),
    ] {
        let got = redirected(&world).await.with("range", range).got().await;
        assert_eq!(got.status, 206, "{range}");
        assert_eq!(got.body, bytes[first..=last], "{range}");
        let expected = format!("bytes {first}-{last}/{}", bytes.len());
        assert_eq!(got.header("content-range"), expected);
    }
    let beyond = redirected(&world).await.with("range", "bytes=999999999-");
    assert_eq!(beyond.got().await.status, 416);
    let got = redirected(&world).await.got().await;
    assert_eq!((got.status, got.body.as_slice()), (200, &bytes[..]));

    world.blobs.knobs().serving.ignore_range = true;
    let got = redirected(&world)
        .await
        .with("range", "bytes=0-0")
        .got()
        .await;
    assert_eq!((got.status, got.body.len()), (200, bytes.len()));

    // The registry's own blobs have the same knobs.
    world.registry.knobs().redirect = Redirect::Direct;
    let got = Ask::get(&world, &blob_url(&world))
        .with("range", "bytes=0-9")
        .got()
        .await;
    assert_eq!((got.status, got.body.as_slice()), (206, &bytes[..10]));
}

#[tokio::test]
async fn redirects_lead_where_they_are_configured_to() {
    let world = open_world().await;
    let url = blob_url(&world);
    let location = async |redirect: Redirect| {
        world.registry.knobs().redirect = redirect;
        let got = Ask::get(&world, &url).got().await;
        assert_eq!(got.status, 307);
        got.header("location").to_owned()
    };
    assert!(
        location(Redirect::Relative)
            .await
            .starts_with("/stored/sha256:")
    );
    assert_eq!(location(Redirect::Nowhere).await, "");
    let metadata = "http://169.254.169.254/latest/meta-data/";
    assert_eq!(location(Redirect::To(metadata.to_owned())).await, metadata);

    world.registry.knobs().redirect = Redirect::Signed(world.blob_base());
    world.blobs.knobs().hops = 2;
    let mut ask = redirected(&world).await;
    for _ in 0..2 {
        let at = ask.url.clone();
        let got = ask.got().await;
        assert_eq!(got.status, 307);
        let next = at.join(got.header("location")).unwrap();
        ask = Ask::get(&world, next.as_str());
    }
    assert_eq!(ask.got().await.status, 200);

    world.blobs.knobs().redirect_loop = true;
    let ask = redirected(&world).await;
    let at = ask.url.clone();
    let got = ask.got().await;
    assert_eq!(at.join(got.header("location")).unwrap(), at);
}

#[tokio::test]
async fn the_object_store_refuses_in_its_own_words() {
    let world = open_world().await;
    world.blobs.knobs().access_denied = true;
    let got = redirected(&world).await.got().await;
    assert_eq!(got.status, 403);
    assert!(
        String::from_utf8(got.body)
            .unwrap()
            .contains("<Code>AccessDenied</Code>")
    );
    world.blobs.knobs().access_denied = false;

    // The signature is for GET of this path: HEAD is another request.
    let mut head = redirected(&world).await;
    head.method = Method::HEAD;
    assert_eq!(head.got().await.status, 403);
    let mut other = redirected(&world).await;
    other.url.set_query(None);
    assert_eq!(other.got().await.status, 403);

    let gone = &world.image.platform("amd64").layers[0].digest;
    let ask = redirected(&world).await;
    world.registry.store.delete(gone);
    assert_eq!(ask.got().await.status, 404);
}

#[tokio::test]
async fn a_credential_at_the_object_store_fails_the_test() {
    let world = open_world().await;
    let leak = async || {
        let ask = redirected(&world).await.with("authorization", "Bearer x");
        assert_eq!(ask.got().await.status, 400);
    };
    leak().await;
    assert_eq!(world.blobs.take_leaks().len(), 1);
    leak().await;
    let World { blobs, .. } = world;
    let dropped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(blobs)));
    assert!(dropped.is_err());
}

// --- Peers below HTTP ---------------------------------------------------------------------------

/// Connects, says something, and reads to the end: the bytes that came and how it ended.
async fn say(
    addr: SocketAddr,
    words: &[u8],
    patience: Duration,
) -> (Vec<u8>, Result<End, std::io::ErrorKind>) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let mut bytes = Vec::new();
    if let Err(error) = stream.write_all(words).await {
        return (bytes, Err(error.kind()));
    }
    let end = match timeout(patience, stream.read_to_end(&mut bytes)).await {
        Err(_) => Ok(End::Silence),
        Ok(Ok(_)) => Ok(End::Whole),
        Ok(Err(error)) => Err(error.kind()),
    };
    (bytes, end)
}

#[tokio::test]
async fn raw_peers_do_what_they_are_configured_to() {
    use std::io::ErrorKind::ConnectionReset;
    for (behaviour, bytes, end) in [
        (Behaviour::ResetAfterHello, &b""[..], Err(ConnectionReset)),
        (Behaviour::CloseAfterHello, b"", Ok(End::Whole)),
        (Behaviour::Hang, b"", Ok(End::Silence)),
        (Behaviour::ssh(), b"SSH-2.0-", Ok(End::Silence)),
        (Behaviour::plain_http(), b"HTTP/1.1 400 ", Ok(End::Whole)),
        (
            Behaviour::alert(40),
            &[21, 3, 3, 0, 2, 2, 40],
            Ok(End::Whole),
        ),
        (
            Behaviour::part_of_server_hello(),
            &[22, 3, 3],
            Ok(End::Silence),
        ),
    ] {
        let peer = Peer::start(behaviour.clone()).await;
        let patience = if end == Ok(End::Silence) {
            SILENCE
        } else {
            LONG
        };
        let (got, ended) = say(peer.addr, b"hello", patience).await;
        assert!(got.starts_with(bytes), "{behaviour:?}: {got:?}");
        assert_eq!(ended, end, "{behaviour:?}");
        let heard = peer.received();
        assert!(heard.is_empty() || heard == [b"hello"], "{behaviour:?}");
    }
    // Without a word from us there is no race between it and the end.
    let peer = Peer::start(Behaviour::Close).await;
    assert_eq!(say(peer.addr, b"", LONG).await, (vec![], Ok(End::Whole)));
    let peer = Peer::start(Behaviour::Reset).await;
    assert_eq!(
        say(peer.addr, b"", LONG).await,
        (vec![], Err(ConnectionReset))
    );
}

#[tokio::test]
async fn a_closed_port_refuses_and_a_full_queue_is_silent() {
    let closed = Closed::new();
    let error = TcpStream::connect(closed.addr).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);

    let hole = Blackhole::new().await;
    for _ in 0..2 {
        // Longer than the first retransmission of a SYN (RFC 6298: 1 s).
        let attempt = timeout(Duration::from_millis(1500), TcpStream::connect(hole.addr));
        assert!(attempt.await.is_err());
    }
}
