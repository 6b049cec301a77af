//! What pods pull from: docker-registry with its three ways to log in, behind nginx with names of their own; a token
//! service; dnsmasq; images that run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::lab::process::{Process, run};
use crate::stack::{
    Dnsmasq, Mode, Pki, Registry, TokenKnobs, TokenService, nginx_args, push, registry_locations,
    server_block,
};
use crate::support::image::{Content, Image, OCI_CONFIG, OCI_INDEX, digest};

pub const NODE_ADDRESS: &str = "10.0.1.10";
/// Where all names of the lab lead to.
const FRONT: &str = "10.0.2.20";
/// An address without servers, and one whose packets are dropped.
const CLOSED: &str = "10.0.2.24";
const SILENT: &str = "10.0.2.25";
/// The registry that needs no TLS: that of the sandbox image and of Pullpath's own.
pub const LOOPBACK: &str = "127.0.0.1:5000";
/// One with TLS, whose authority is not known.
pub const LOOPBACK_TLS: &str = "127.0.0.3:5443";
/// The image of Pullpath.
pub const OWN: &str = "pullpath/pullpath";

/// All servers, ended with this.
pub struct Servers {
    pub images: Images,
    _nginx: Process,
    _tokens: TokenService,
    _registries: [Registry; 3],
    _dns: Dnsmasq,
}

/// Names with the same images: what they are like is in the name.
const OPEN: &[&str] = &["open.lab.test", "mirror.lab.test"];
const PRIVATE: &[&str] = &["priv.lab.test", "prov.lab.test"];

impl Servers {
    pub fn start(folder: &Path) -> Self {
        for address in [NODE_ADDRESS, crate::kube::API, FRONT, CLOSED, SILENT] {
            run(Command::new("ip").args(["address", "add", &format!("{address}/32"), "dev", "lo"]));
        }
        run(Command::new("nft").arg(format!(
            "table inet lab {{\nchain input {{\ntype filter hook input priority 0;\nip daddr {SILENT} drop\n}}\n}}\n"
        )));
        let dns = names(folder);
        let pki = Pki::new(folder);
        fs::write(
            "/etc/ssl/certs/ca-certificates.crt",
            fs::read(&pki.ca_file).unwrap(),
        )
        .unwrap();
        let storage = folder.join("storage");
        let tokens = TokenService::start(folder, TokenKnobs::default());
        let token = Mode::Token {
            realm: "https://auth.lab.test/token".to_owned(),
            signer: tokens.signer.clone(),
        };
        let registry =
            |name: &str, mode: &Mode| Registry::start(folder, name, &storage, mode, None);
        let registries = [
            registry("open", &Mode::Open),
            registry("private", &Mode::Htpasswd),
            registry("tokens", &token),
        ];
        let nginx = front(folder, &pki, &registries, tokens.port);
        let images = Images::push(folder, &storage, registries[0].port);
        Self {
            images,
            _nginx: nginx,
            _tokens: tokens,
            _registries: registries,
            _dns: dns,
        }
    }
}

/// The node's own resolver: all names of the lab but those of `nx`.
fn names(folder: &Path) -> Dnsmasq {
    let of_front = format!("--address=/lab.test/{FRONT}");
    let closed = format!("--address=/closed.lab.test/{CLOSED}");
    let blobs = format!("--address=/blob.lab.test/{CLOSED}");
    let silent = format!("--address=/silent.lab.test/{SILENT}");
    let here = format!("--listen-address={NODE_ADDRESS}");
    let options = [&here, &of_front, &closed, &blobs, &silent];
    let mut options: Vec<&str> = options.into_iter().map(String::as_str).collect();
    options.extend(["--address=/nx.lab.test/", "--local=/test/"]);
    let dns = Dnsmasq::start(folder, "dnsmasq", Some(53), &options);
    // It may be a link to what is not there.
    let _ = fs::remove_file("/etc/resolv.conf");
    fs::write(
        "/etc/resolv.conf",
        format!("nameserver {NODE_ADDRESS}\noptions timeout:2\n"),
    )
    .unwrap();
    fs::write("/etc/hosts", "127.0.0.1 localhost\n").unwrap();
    fs::write("/etc/nsswitch.conf", "hosts: files dns\n").unwrap();
    dns
}

/// nginx before all registries, each with a name and a certificate.
fn front(folder: &Path, pki: &Pki, [open, private, tokens]: &[Registry; 3], realm: u16) -> Process {
    let upstream = |registry: &Registry| format!("http://127.0.0.1:{}", registry.port);
    let listen = [format!("{FRONT}:443")];
    let server =
        |name: &str, locations: &str| server_block(name, &listen, &pki.issue(name), locations);
    let to = |registry: &Registry| registry_locations(&upstream(registry), None);
    let mut blocks = Vec::new();
    for name in OPEN {
        blocks.push(server(name, &to(open)));
    }
    for name in PRIVATE {
        blocks.push(server(name, &to(private)));
    }
    blocks.push(server("token.lab.test", &to(tokens)));
    blocks.push(server(
        "auth.lab.test",
        &format!("location / {{ proxy_pass http://127.0.0.1:{realm}; }}"),
    ));
    let dead = ("https://blob.lab.test", "abc");
    let redirects = registry_locations(&upstream(open), Some(dead));
    blocks.push(server("redir.lab.test", &redirects));
    // Layers at 300 kB a second.
    let slow = format!("limit_rate 300k;\n{}", to(open));
    blocks.push(server("slow.lab.test", &slow));
    // Of an authority that the node does not know.
    let strangers = folder.join("strangers");
    fs::create_dir(&strangers).unwrap();
    let strangers = Pki::new(&strangers);
    for name in ["unk.lab.test", "skip.lab.test", "skiptop.lab.test"] {
        blocks.push(server_block(
            name,
            &listen,
            &strangers.issue(name),
            &to(open),
        ));
    }
    let at = [LOOPBACK_TLS.to_owned()];
    blocks.push(server_block(
        "127.0.0.3",
        &at,
        &strangers.issue("127.0.0.3"),
        &to(open),
    ));
    let old = pki.issue_for(
        "old.lab.test",
        vec!["old.lab.test".to_owned()],
        Some([30, 0]),
    );
    blocks.push(server_block("old.lab.test", &listen, &old, &to(open)));
    for listen in [LOOPBACK.to_owned(), format!("{FRONT}:5000")] {
        blocks.push(format!(
            "server {{ listen {listen}; client_max_body_size 0; location / {{ proxy_pass {}; proxy_set_header Host $http_host; }} }}\n",
            upstream(open)
        ));
    }
    // Hosts of these registries are declared to containerd.
    let hosts = |registry: &str, text: &str| {
        let folder = Path::new("/etc/containerd/certs.d").join(registry);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("hosts.toml"), text).unwrap();
    };
    hosts(
        "skip.lab.test",
        "[host.\"https://skip.lab.test\"]\n  skip_verify = true\n",
    );
    hosts(
        "skiptop.lab.test",
        "server = \"https://skiptop.lab.test\"\nskip_verify = true\n",
    );
    hosts(
        "mirrored.lab.test",
        "server = \"https://nx.lab.test\"\n[host.\"https://mirror.lab.test\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
    );
    let mut command = Command::new("nginx");
    nginx_args(&mut command, &folder.join("nginx"), &blocks.concat());
    Process::start("nginx", &mut command, folder).listening(443)
}

/// The registry's storage with images.
pub struct Images {
    storage: PathBuf,
    /// That of `team/app`, by which it can be pulled.
    pub digest: String,
}

impl Images {
    /// Pushes an image that runs until it is ended, and Pullpath's own.
    fn push(folder: &Path, storage: &Path, port: u16) -> Self {
        let pause = pause(folder);
        let own = own(folder);
        let app = |seed: u32, architecture: &str, more: Option<Content>| {
            image(
                architecture,
                seed,
                std::iter::once(pause.clone()).chain(more).collect(),
                "/pause",
            )
        };
        let mebibytes: Vec<u8> = (0..6_u32 << 18)
            .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect();
        let big = file_layer(folder, "data", &mebibytes);
        let small = file_layer(folder, "unique", b"of redir.lab.test alone");
        let all = [
            ("team/app", app(1, native(), None)),
            ("team/dead", app(2, native(), Some(small))),
            ("team/slow", app(3, native(), Some(big))),
            ("team/arm", with_index(app(4, foreign(), None))),
            ("team/arm-alone", app(6, foreign(), None)),
            (OWN, image(native(), 5, own, "/usr/bin/pullpath")),
        ];
        for (repository, image) in &all {
            let folder = folder.join("images").join(repository);
            fs::create_dir_all(&folder).unwrap();
            push(
                &folder,
                image,
                &format!("127.0.0.1:{port}/{repository}:1"),
                &[],
            );
        }
        let images = Self {
            storage: storage.to_owned(),
            digest: all[0].1.top().digest.clone(),
        };
        images.copy("team/app", "lab/pause");
        images
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.storage
            .join("docker/registry/v2/repositories")
            .join(name)
    }

    /// The same image in another repository.
    pub fn copy(&self, from: &str, to: &str) {
        let to = self.repository(to);
        if to.exists() {
            return;
        }
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        run(Command::new("cp")
            .arg("-r")
            .arg(self.repository(from))
            .arg(to));
    }
}

/// The image below an index that has no other platform.
fn with_index(mut image: Image) -> Image {
    let manifest = &image.platforms[0].manifest;
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [{"mediaType": manifest.media_type, "digest": manifest.digest, "size": manifest.bytes.len(),
                       "platform": {"architecture": foreign(), "os": "linux"}}]});
    image.index = Some(Content::new(OCI_INDEX, index.to_string()));
    image
}

fn image(architecture: &str, seed: u32, layers: Vec<Content>, entrypoint: &str) -> Image {
    let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "author": format!("lab {seed}"),
        "config": {"Entrypoint": [entrypoint], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": digests},
    });
    Image::configured(Content::new(OCI_CONFIG, config.to_string()), layers)
}

/// This machine, in the words of images.
fn native() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    }
}

/// Another machine.
fn foreign() -> &'static str {
    if native() == "arm64" {
        "amd64"
    } else {
        "arm64"
    }
}

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer with all of a folder.
fn layer(folder: &Path) -> Content {
    let archive = folder.with_extension("tar");
    run(Command::new("tar")
        .args([
            "--create",
            "--owner=0",
            "--group=0",
            "--mtime=@0",
            "--sort=name",
            "--file",
        ])
        .arg(&archive)
        .arg("--directory")
        .arg(folder)
        .arg("."));
    let bytes = fs::read(&archive).unwrap();
    Content {
        digest: digest(&bytes),
        media_type: LAYER.to_owned(),
        bytes: bytes.into(),
    }
}

fn file_layer(folder: &Path, name: &str, bytes: &[u8]) -> Content {
    let root = folder.join(format!("layer-{name}"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join(name), bytes).unwrap();
    layer(&root)
}

/// A program that waits to be ended, as that of the sandbox image does.
fn pause(folder: &Path) -> Content {
    let root = folder.join("layer-pause");
    fs::create_dir(&root).unwrap();
    let source = folder.join("pause.c");
    fs::write(
        &source,
        "#include <signal.h>\n#include <unistd.h>\nstatic void end(int s) { (void)s; _exit(0); }\n\
         int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }\n",
    )
    .unwrap();
    run(Command::new("cc")
        .args(["-static", "-Os", "-s", "-o"])
        .arg(root.join("pause"))
        .arg(&source));
    layer(&root)
}

/// What deploy/Containerfile puts in the image, but for the licenses.
fn own(folder: &Path) -> Vec<Content> {
    let root = folder.join("layer-own");
    for folder in ["usr/bin", "etc/ssl/certs"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let program = std::env::var_os("PULLPATH_PROGRAM").unwrap();
    fs::copy(program, root.join("usr/bin/pullpath")).unwrap();
    fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), "").unwrap();
    vec![layer(&root)]
}
