//! Debian's docker-registry behind nginx, a token service whose tokens it accepts, name servers,
//! and an image pushed by skopeo.

#![allow(dead_code, reason = "each program uses a part")]
#![allow(
    unreachable_pub,
    reason = "shared by several crates, which are no libraries"
)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::lab::free_port;
use crate::lab::process::{Process, run};
use crate::support::image::Image;

pub const USER: &str = "puller";
pub const PASSWORD: &str = "canary-55d1-real:with:colons";
pub const REPOSITORY: &str = "team/app";
pub const TAG: &str = "1.0";

pub fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A private authority, and certificates of it in files.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    pub ca_file: PathBuf,
    folder: PathBuf,
}

impl Pki {
    pub fn new(folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "Pullpath lab root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let folder = folder.join("pki");
        fs::create_dir(&folder).unwrap();
        // skopeo and containerd read every *.crt of a folder as an authority.
        let ca_file = folder.join("ca.crt");
        fs::write(&ca_file, certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            ca_file,
            folder,
        }
    }

    /// Certificate and key for a name.
    pub fn issue(&self, name: &str) -> (PathBuf, PathBuf) {
        self.issue_for(name, vec![name.to_owned()], None)
    }

    /// The same for several names and addresses; the first text is their folder's. With its days: how old it
    /// is, and how many are left.
    pub fn issue_for(
        &self,
        name: &str,
        subjects: Vec<String>,
        days: Option<[u64; 2]>,
    ) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(subjects).unwrap();
        if let Some([ago, left]) = days.map(|days| days.map(|n| Duration::from_hours(24 * n))) {
            let now = SystemTime::now();
            params.not_before = (now - ago).into();
            params.not_after = (now + left).into();
        }
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).unwrap();
        let (certificate_file, key_file) = (folder.join("cert.pem"), folder.join("key.pem"));
        fs::write(&certificate_file, certificate.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        (certificate_file, key_file)
    }
}

/// How a docker-registry wants to be convinced.
pub enum Mode {
    Open,
    Htpasswd,
    Token { realm: String, signer: PathBuf },
}

/// Debian's docker-registry (distribution 2.8) on a port of its own.
pub struct Registry {
    pub port: u16,
    _process: Process,
}

impl Registry {
    pub fn start(
        folder: &Path,
        name: &str,
        storage: &Path,
        mode: &Mode,
        tls: Option<(PathBuf, PathBuf)>,
    ) -> Self {
        let port = free_port();
        let tls = tls.map_or_else(String::new, |(certificate, key)| {
            format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                certificate.display(),
                key.display()
            )
        });
        let http = format!("  addr: 127.0.0.1:{port}\n{tls}");
        let mut command = Command::new("docker-registry");
        let process = Self::serve(&mut command, folder, name, storage, mode, &http).listening(port);
        Self {
            port,
            _process: process,
        }
    }

    /// One at a path, where it is reached from every network namespace; the command starts it.
    pub fn on_socket(
        command: &mut Command,
        folder: &Path,
        name: &str,
        storage: &Path,
        mode: &Mode,
        socket: &Path,
    ) -> Process {
        let http = format!("  net: unix\n  addr: {}\n", socket.display());
        let start = Instant::now();
        let process = Self::serve(command, folder, name, storage, mode, &http);
        while UnixStream::connect(socket).is_err() {
            assert!(
                start.elapsed() < Duration::from_secs(15),
                "{name} is not ready:\n{}",
                process.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }

    fn serve(
        command: &mut Command,
        folder: &Path,
        name: &str,
        storage: &Path,
        mode: &Mode,
        http: &str,
    ) -> Process {
        let auth = match mode {
            Mode::Open => String::new(),
            Mode::Htpasswd => {
                let file = folder.join(format!("{name}.htpasswd"));
                fs::write(
                    &file,
                    run(Command::new("htpasswd").args(["-Bbn", USER, PASSWORD])),
                )
                .unwrap();
                format!(
                    "auth: {{htpasswd: {{realm: lab, path: {}}}}}\n",
                    file.display()
                )
            }
            Mode::Token { realm, signer } => format!(
                "auth: {{token: {{realm: '{realm}', service: lab-registry, issuer: lab-issuer, rootcertbundle: {}}}}}\n",
                signer.display()
            ),
        };
        let config = folder.join(format!("{name}.yml"));
        let text = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  secret: lab\n{http}{auth}",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        Process::start(name, command.arg("serve").arg(&config), folder)
    }
}

/// What a token service gives to who has the right password.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Grants {
    /// The access asked for.
    #[default]
    Asked,
    /// A good token, with an empty `access` claim.
    Nothing,
    /// The access asked for, signed by a key that the registry does not know.
    Forged,
}

/// How a token service behaves.
#[derive(Clone, Copy, Debug)]
pub struct TokenKnobs {
    pub grants: Grants,
    /// Whether it knows the OAuth2 form (POST); else it answers 405, as older ones do.
    pub answers_post: bool,
}

impl Default for TokenKnobs {
    fn default() -> Self {
        Self {
            grants: Grants::Asked,
            answers_post: true,
        }
    }
}

/// A key that signs tokens, and its own certificate.
struct Signer {
    pair: aws_lc_rs::signature::EcdsaKeyPair,
    /// The certificate in base64, as the `x5c` header has it (RFC 7515, 4.1.6).
    x5c: String,
    pem: String,
}

impl Signer {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "lab-issuer");
        let certificate = params.self_signed(&key).unwrap();
        let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            key.serialized_der(),
        )
        .unwrap();
        Self {
            pair,
            x5c: STANDARD.encode(certificate.der()),
            pem: certificate.pem(),
        }
    }
}

/// A token service in this process (plain http; nginx puts TLS before it) whose tokens a
/// docker-registry accepts: ES256 with the signer's certificate in `x5c`.
pub struct TokenService {
    pub port: u16,
    pub signer: PathBuf,
    listener: TcpListener,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl TokenService {
    pub fn start(folder: &Path, knobs: TokenKnobs) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self::on(listener, folder, knobs)
    }

    /// One that listens in the network namespace where this socket was made.
    pub fn on(listener: TcpListener, folder: &Path, knobs: TokenKnobs) -> Self {
        let known = Signer::new();
        let signer = folder.join("signer.pem");
        fs::write(&signer, &known.pem).unwrap();
        let key = match knobs.grants {
            Grants::Forged => Signer::new(),
            Grants::Asked | Grants::Nothing => known,
        };
        let port = listener.local_addr().unwrap().port();
        let accepting = listener.try_clone().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for stream in accepting.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(stream) = stream {
                    let _ = answer(stream, &key, knobs);
                }
            }
        });
        Self {
            port,
            signer,
            listener,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accept, from whatever namespace.
        let _ = socket2::SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers one request and closes.
fn answer(stream: TcpStream, key: &Signer, knobs: TokenKnobs) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "authorization" => authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let is_post = first.starts_with("POST ");
    let target = first.split(' ').nth(1).unwrap_or_default();
    let query = if is_post {
        String::from_utf8_lossy(&body).into_owned()
    } else {
        target
            .split_once('?')
            .map(|(_, q)| q.to_owned())
            .unwrap_or_default()
    };
    let field = |name: &str| {
        url::form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let allowed = if is_post {
        field("username").as_deref() == Some(USER) && field("password").as_deref() == Some(PASSWORD)
    } else {
        authorization
            == Some(format!(
                "Basic {}",
                STANDARD.encode(format!("{USER}:{PASSWORD}"))
            ))
    };
    let (status, text) = if is_post && !knobs.answers_post {
        ("405 Method Not Allowed", String::new())
    } else if allowed {
        let scope = match knobs.grants {
            Grants::Nothing => String::new(),
            Grants::Asked | Grants::Forged => field("scope").unwrap_or_default(),
        };
        let token = token(key, &scope);
        let name = if is_post { "access_token" } else { "token" };
        (
            "200 OK",
            json!({name: token, "expires_in": 300}).to_string(),
        )
    } else {
        (
            "401 Unauthorized",
            r#"{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}"#.to_owned(),
        )
    };
    let mut stream = reader.into_inner();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
}

fn token(key: &Signer, scope: &str) -> String {
    let now = jiff::Timestamp::now().as_second();
    let access: Vec<serde_json::Value> = scope
        .split(' ')
        .filter_map(|scope| {
            let mut parts = scope.split(':');
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            let actions: Vec<&str> = actions.split(',').collect();
            Some(json!({"type": kind, "name": name, "actions": actions}))
        })
        .collect();
    let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [key.x5c]}).to_string();
    let claims = json!({
        "iss": "lab-issuer", "sub": USER, "aud": "lab-registry", "exp": now + 300, "nbf": now - 10,
        "iat": now, "jti": format!("{now}"), "access": access
    });
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let random = aws_lc_rs::rand::SystemRandom::new();
    let signature = key.pair.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A server of nginx with TLS.
pub fn server_block(
    name: &str,
    listen: &[String],
    (certificate, key): &(PathBuf, PathBuf),
    locations: &str,
) -> String {
    let listen: String = listen
        .iter()
        .map(|at| format!("listen {at} ssl http2; "))
        .collect();
    format!(
        "server {{ {listen}server_name {name}; ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3;\n{locations}\n}}\n",
        certificate.display(),
        key.display()
    )
}

/// A registry behind nginx, which may send those who want blobs to a storage, with this signature.
pub fn registry_locations(upstream: &str, storage: Option<(&str, &str)>) -> String {
    let proxy = format!(
        "proxy_pass {upstream}; proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto https;"
    );
    let redirect = storage.map_or_else(String::new, |(url, signature)| {
        format!(
            "location ~ \"^/v2/.+/blobs/sha256:(([0-9a-f][0-9a-f])[0-9a-f]{{62}})$\" {{\n\
             if ($request_method = GET) {{ return 307 {url}/data/$2/$1/data?X-Amz-Signature={signature}; }}\n{proxy} }}\n"
        )
    });
    format!("client_max_body_size 0;\n{redirect}location / {{ {proxy} }}")
}

/// The storage: the registry's own files, for the signature `abc`.
pub fn blob_locations(storage: &Path) -> String {
    format!(
        "location /data/ {{ if ($args !~ \"X-Amz-Signature=abc\") {{ return 403; }} alias {}/docker/registry/v2/blobs/sha256/; }}",
        storage.display()
    )
}

/// Makes the folder `work`, with a configuration of these servers that the command gets.
pub fn nginx_args(command: &mut Command, work: &Path, servers: &str) {
    fs::create_dir(work).unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {}/{kind};\n", work.display()))
        .collect();
    let text = format!(
        "daemon off; master_process off; pid {}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off;\n{temporary}{servers}}}\n",
        work.display(),
    );
    let config = work.join("nginx.conf");
    fs::write(&config, text).unwrap();
    command.arg("-c").arg(&config).arg("-p").arg(work);
}

/// nginx with TLS: before the registry and its token service, and as the storage that blobs are
/// redirected to. It hands out the registry's own files, to who has the signed query.
pub struct Nginx {
    pub registry: u16,
    pub auth: u16,
    pub blobs: u16,
    _process: Process,
}

impl Nginx {
    /// `port` is that of the registry; `signature` what the redirect carries, and `abc` what storage wants.
    pub fn start(
        folder: &Path,
        pki: &Pki,
        ports: [u16; 3],
        registry: u16,
        tokens: u16,
        storage: &Path,
        signature: &str,
    ) -> Self {
        let [front, auth, blobs] = ports;
        let server = |name: &str, port: u16, locations: &str| {
            server_block(
                name,
                &[format!("127.0.0.1:{port}")],
                &pki.issue(name),
                locations,
            )
        };
        let upstream = format!("http://127.0.0.1:{registry}");
        let storage_url = format!("https://blobs.test:{blobs}");
        let auth_locations = format!("location / {{ proxy_pass http://127.0.0.1:{tokens}; }}");
        let blocks = [
            server(
                "registry.test",
                front,
                &registry_locations(&upstream, Some((&storage_url, signature))),
            ),
            server("auth.test", auth, &auth_locations),
            server("blobs.test", blobs, &blob_locations(storage)),
        ];
        let mut command = Command::new("nginx");
        nginx_args(&mut command, &folder.join("nginx"), &blocks.concat());
        let process = Process::start("nginx", &mut command, folder)
            .listening(front)
            .listening(auth)
            .listening(blobs);
        Self {
            registry: front,
            auth,
            blobs,
            _process: process,
        }
    }
}

/// dnsmasq with these options.
pub struct Dnsmasq {
    pub server: String,
    _process: Process,
}

impl Dnsmasq {
    pub fn start(folder: &Path, name: &str, port: Option<u16>, options: &[&str]) -> Self {
        let port = port.unwrap_or_else(free_port);
        let mut command = Command::new("dnsmasq");
        command.args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--pid-file=",
        ]);
        command
            .args(["--listen-address=127.0.0.1", "--bind-interfaces"])
            .arg(format!("--port={port}"))
            .args(options);
        let process = Process::start(name, &mut command, folder).listening(port);
        Self {
            server: format!("127.0.0.1:{port}"),
            _process: process,
        }
    }

    /// The three names, all on this machine.
    pub fn of_lab(folder: &Path, port: Option<u16>) -> Self {
        Self::start(
            folder,
            "dnsmasq",
            port,
            &[
                "--host-record=registry.test,127.0.0.1",
                "--host-record=auth.test,127.0.0.1",
                "--host-record=blobs.test,127.0.0.1",
                "--host-record=elsewhere.test,127.0.0.1",
                "--cname=alias.test,registry.test",
                "--address=/nx.test/",
            ],
        )
    }
}

/// unbound with these lines in its server clause and behind it.
pub struct Unbound {
    pub server: String,
    _process: Process,
}

impl Unbound {
    pub fn start(folder: &Path, server: &str, behind: &str) -> Self {
        let port = free_port();
        let config = folder.join("unbound.conf");
        let text = format!(
            "server:\n  interface: 127.0.0.1@{port}\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  directory: \"{}\"\n  pidfile: \"\"\n  use-syslog: no\n  module-config: \"iterator\"\n{server}\n{behind}\nremote-control:\n  control-enable: no\n",
            folder.display()
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("unbound");
        command.arg("-d").arg("-c").arg(&config);
        let process = Process::start("unbound", &mut command, folder).listening(port);
        Self {
            server: format!("127.0.0.1:{port}"),
            _process: process,
        }
    }
}

/// Writes the image as an OCI layout (image-spec, image-layout.md) and lets skopeo push it.
pub fn push(folder: &Path, image: &Image, to: &str, more: &[&str]) {
    let layout = folder.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let write = |digest: &str, bytes: &[u8]| {
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
    };
    for platform in image.platforms.iter().chain(&image.attestation) {
        for content in [&platform.manifest, &platform.config]
            .into_iter()
            .chain(&platform.layers)
        {
            write(&content.digest, &content.bytes);
        }
    }
    let top = image.top();
    write(&top.digest, &top.bytes);
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let descriptor = json!({
        "mediaType": top.media_type, "digest": top.digest, "size": top.bytes.len(),
        "annotations": {"org.opencontainers.image.ref.name": TAG}
    });
    fs::write(
        layout.join("index.json"),
        json!({"schemaVersion": 2, "manifests": [descriptor]}).to_string(),
    )
    .unwrap();
    let mut command = Command::new("skopeo");
    command
        .args([
            "--insecure-policy",
            "copy",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
        ])
        .args(more);
    run(command
        .arg(format!("oci:{}:{TAG}", layout.display()))
        .arg(format!("docker://{to}")));
}

/// The whole of it: registry with tokens behind nginx, storage elsewhere, name server, image.
pub struct Stack {
    pub folder: TempDir,
    pub pki: Pki,
    pub dns: Dnsmasq,
    pub nginx: Nginx,
    pub image: Image,
    pub storage: PathBuf,
    _registry: Registry,
    _tokens: TokenService,
}

impl Stack {
    pub fn start(signature: &str) -> Self {
        Self::with(signature, TokenKnobs::default(), None)
    }

    pub fn with_dns_port(signature: &str, dns_port: Option<u16>) -> Self {
        Self::with(signature, TokenKnobs::default(), dns_port)
    }

    pub fn with_tokens(knobs: TokenKnobs) -> Self {
        Self::with("abc", knobs, None)
    }

    fn with(signature: &str, knobs: TokenKnobs, dns_port: Option<u16>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage = folder.path().join("storage");
        let image = Image::build(
            7,
            crate::support::image::Flavour::Oci,
            &["amd64", "arm64"],
            &[2 << 20, 700_000, 4096],
        );
        {
            // Pushed directly to the registry: no token is required there.
            let door = Registry::start(folder.path(), "push", &storage, &Mode::Open, None);
            push(
                folder.path(),
                &image,
                &format!("127.0.0.1:{}/{REPOSITORY}:{TAG}", door.port),
                &[],
            );
        }
        let pki = Pki::new(folder.path());
        let dns = Dnsmasq::of_lab(folder.path(), dns_port);
        let tokens = TokenService::start(folder.path(), knobs);
        let ports = [free_port(), free_port(), free_port()];
        let mode = Mode::Token {
            realm: format!("https://auth.test:{}/token", ports[1]),
            signer: tokens.signer.clone(),
        };
        let registry = Registry::start(folder.path(), "registry", &storage, &mode, None);
        let nginx = Nginx::start(
            folder.path(),
            &pki,
            ports,
            registry.port,
            tokens.port,
            &storage,
            signature,
        );
        Self {
            folder,
            pki,
            dns,
            nginx,
            image,
            storage,
            _registry: registry,
            _tokens: tokens,
        }
    }

    pub fn reference(&self) -> String {
        format!("registry.test:{}/{REPOSITORY}:{TAG}", self.nginx.registry)
    }
}
