//! The registries that lie, stall, flood and heal: each with its token service and storage, one of them behind a proxy.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::blobs::BlobKnobs;
use crate::support::image::OCI_MANIFEST;
use crate::support::pki::Flaw;
use crate::support::proxy::Proxy;
use crate::support::registry::{
    Redirect, RegistryKnobs, echo, manifest_unknown, name_unknown, oci_error,
};
use crate::support::token::{Post, huge};
use crate::support::web::{Flow, Reply};
use crate::support::{BLOBS, PUBLIC_REPOSITORY, REGISTRY, TAG, World};

/// The address of all servers, as the node knows it.
pub const SERVERS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The name of the registry that is reached over the proxy.
pub const PROXIED: &str = "proxied.test";

/// A registry with what belongs to it.
pub struct Place {
    pub name: String,
    pub world: World,
    /// In front of it, if there is one.
    pub gate: Option<Gate>,
}

/// One way to fail, and what it is called.
pub struct Fault {
    pub name: &'static str,
    /// One of these codes of docs/causes.md names it.
    pub codes: &'static [&'static str],
    /// Rounds without another fault afterwards: the daemon leaves the registry alone for as long.
    pub rests: usize,
    make: fn(&Place),
}

const fn fault(name: &'static str, codes: &'static [&'static str], make: fn(&Place)) -> Fault {
    Fault {
        name,
        codes,
        rests: 0,
        make,
    }
}

impl Fault {
    /// After a status 5xx.
    const fn resting(mut self) -> Self {
        self.rests = 3;
        self
    }
}

/// Some releases of containerd send the token along on a second redirect, and the node's is unknown here: its check may
/// send it to the storage (docs/security.md).
pub const IN_A_CIRCLE: &str = "redirects in a circle";

/// Larger than any document or token that is read.
const MUCH: usize = 24 << 20;

/// Of a registry, its token service or its storage.
pub const FAULTS: &[Fault] = &[
    // ---- they lie ---------------------------------------------------------------------------------
    fault("a web site", &["not_a_registry"], |place| {
        let mut knobs = place.world.registry.knobs();
        knobs.manners.fail_early("/", Reply::html(404));
    }),
    fault("no such tag", &["manifest_unknown"], |place| {
        let mut knobs = place.world.registry.knobs();
        knobs.manners.fail("/manifests/", manifest_unknown());
    }),
    fault("no such name", &["name_unknown"], |place| {
        let mut knobs = place.world.registry.knobs();
        knobs.manners.fail("/manifests/", name_unknown());
    }),
    fault("certificate expired", &["tls_expired"], |place| {
        certificate(place, Flaw::Expired);
    }),
    fault("another authority", &["tls_unknown_ca"], |place| {
        certificate(place, Flaw::OtherCa);
    }),
    fault("another name", &["tls_name"], |place| {
        certificate(place, Flaw::WrongName);
    }),
    fault("odd challenge", &["auth_bad_challenge"], |place| {
        place.world.registry.knobs().challenge = Some("Negotiate".to_owned());
    }),
    fault(
        "token in the wrong field",
        &["auth_token_format"],
        |place| {
            place.world.tokens.knobs().post = Post::OnlyToken;
        },
    ),
    fault("token service lies", &["auth_token_format"], |place| {
        let mut knobs = place.world.tokens.knobs();
        knobs.manners.fail("/token", Reply::html(200));
    }),
    fault("storage denies", &["blob_denied"], |place| {
        place.world.blobs.knobs().access_denied = true;
    }),
    fault("layer lost", &["blob_unknown"], |place| {
        let lost = Reply::s3_error(404, "NoSuchKey", "The specified key does not exist.");
        place.world.blobs.knobs().manners.fail("/", lost);
    }),
    fault(
        IN_A_CIRCLE,
        &["redirect_broken", "release_decides"],
        |place| {
            place.world.blobs.knobs().redirect_loop = true;
        },
    ),
    fault("redirect to metadata", &["redirect_untrusted"], |place| {
        let to = "http://169.254.169.254/latest/meta-data/".to_owned();
        place.world.registry.knobs().redirect = Redirect::To(to);
    }),
    fault("repeats the credential", &["registry_5xx"], |place| {
        let mut knobs = place.world.registry.knobs();
        knobs.manners.fail("/manifests/", echo(500));
    })
    .resting(),
    fault("out of service", &["registry_5xx"], |place| {
        let down = oci_error(503, "UNAVAILABLE", "maintenance");
        place
            .world
            .registry
            .knobs()
            .manners
            .fail_early("/manifests/", down);
    })
    .resting(),
    // ---- they stall -------------------------------------------------------------------------------
    fault("registry hangs", &["http_timeout"], |place| {
        let mut knobs = place.world.registry.knobs();
        knobs.manners.fail_early("/manifests/", Flow::Hang);
    }),
    fault(
        "token service hangs",
        &["http_timeout", "auth_realm_unreachable"],
        |place| {
            place
                .world
                .tokens
                .knobs()
                .manners
                .fail("/token", Flow::Hang);
        },
    ),
    fault(
        "storage hangs",
        &["http_timeout", "redirect_blob"],
        |place| {
            place.world.blobs.knobs().manners.fail("/", Flow::Hang);
        },
    ),
    fault("registry resets", &["tcp_reset"], |place| {
        let mut knobs = place.world.registry.knobs();
        knobs.manners.fail_early("/manifests/", Flow::Reset);
    }),
    fault("layer ends early", &["unexpected_eof"], |place| {
        place.world.blobs.knobs().serving.flow = Flow::TruncateAfter(0);
    }),
    fault(
        "nothing listens at the storage",
        &["tcp_refused", "redirect_blob"],
        |place| {
            // A port that the kernel never assigns.
            let nowhere = format!("https://{BLOBS}:9");
            place.world.registry.knobs().redirect = Redirect::Signed(nowhere);
        },
    ),
    // ---- they flood -------------------------------------------------------------------------------
    fault("endless token", &["probe_limit"], |place| {
        place
            .world
            .tokens
            .knobs()
            .manners
            .fail("/token", huge(MUCH));
    }),
    fault(
        "endless manifest",
        &[
            "manifest_invalid",
            "probe_limit",
            "manifest_unsupported",
            "request_refused",
        ],
        |place| {
            let much = Reply::new(200).body(OCI_MANIFEST, vec![b' '; MUCH]);
            let mut knobs = place.world.registry.knobs();
            knobs
                .manners
                .fail_method(Method::HEAD, "/manifests/", much.clone());
            knobs.manners.fail_method(Method::GET, "/manifests/", much);
        },
    ),
    fault(
        "endless error",
        &["manifest_unknown", "not_a_registry", "registry_5xx"],
        |place| {
            let much = Reply::new(404).body("application/json", vec![b'['; MUCH]);
            place
                .world
                .registry
                .knobs()
                .manners
                .fail("/manifests/", much);
        },
    ),
];

/// Of the proxy.
pub const PROXY_FAULTS: &[Fault] = &[
    fault(
        "proxy resets",
        &["proxy_misconfigured", "tcp_reset", "tls_reset"],
        |place| {
            gate(place, Mode::Reset);
        },
    ),
    fault(
        "proxy hangs",
        &["proxy_misconfigured", "http_timeout", "tls_hang"],
        |place| {
            gate(place, Mode::Hang);
        },
    ),
    fault(
        "proxy says anything",
        &["proxy_misconfigured", "http_malformed"],
        |place| {
            gate(place, Mode::Say(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"));
        },
    ),
    fault(
        "proxy denies",
        &["proxy_misconfigured", "fw_403"],
        |place| {
            gate(
                place,
                Mode::Say(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
            );
        },
    ),
    fault(
        "proxy floods",
        &["proxy_misconfigured", "http_malformed"],
        |place| {
            gate(place, Mode::Flood);
        },
    ),
];

fn certificate(place: &Place, flaw: Flaw) {
    let flawed = place.world.config(REGISTRY, flaw);
    place.world.registry.server.set_tls(Some(flawed));
}

fn gate(place: &Place, mode: Mode) {
    place.gate.as_ref().unwrap().set(mode);
}

impl Place {
    pub async fn start(number: usize) -> Self {
        let world = World::healthy().await;
        Self {
            name: format!("broken-{number}"),
            world,
            gate: None,
        }
    }

    /// A registry behind a proxy, whose name all know from `names`.
    pub async fn proxied(names: &World) -> Self {
        let mut place = Self::start(0).await;
        "proxied".clone_into(&mut place.name);
        place.gate = Some(Gate::start(Proxy::start(&names.dns).await).await);
        place.heal();
        place
    }

    /// The image that is checked there.
    pub fn reference(&self) -> String {
        if self.gate.is_none() {
            return self.world.reference();
        }
        let port = self.world.registry.server.port();
        format!("{PROXIED}:{port}/{PUBLIC_REPOSITORY}:{TAG}")
    }

    pub fn faults(&self) -> &'static [Fault] {
        if self.gate.is_some() {
            PROXY_FAULTS
        } else {
            FAULTS
        }
    }

    pub fn fail(&self, fault: &Fault) {
        (fault.make)(self);
    }

    /// All as at the start.
    pub fn heal(&self) {
        let world = &self.world;
        let auth = world.bearer();
        let redirect = Redirect::Signed(world.blob_base());
        *world.registry.knobs() = RegistryKnobs {
            auth,
            redirect,
            ..RegistryKnobs::default()
        };
        {
            let mut knobs = world.tokens.knobs();
            knobs.manners.rules.clear();
            knobs.post = Post::Supported;
        }
        *world.blobs.knobs() = BlobKnobs::default();
        let good = world.ca.issue(&[REGISTRY, PROXIED]).config();
        world.registry.server.set_tls(Some(good));
        if let Some(gate) = &self.gate {
            gate.set(Mode::Pass);
        }
    }
}

/// What a proxy does with each connection.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Pass,
    Reset,
    Hang,
    /// These bytes, whatever it is asked.
    Say(&'static [u8]),
    /// Headers without an end.
    Flood,
}

/// In front of a proxy: it passes connections on, or does something else.
pub struct Gate {
    pub port: u16,
    mode: Arc<Mutex<Mode>>,
    _proxy: Proxy,
    task: JoinHandle<()>,
}

/// No connection lasts longer than a check.
const PATIENCE: Duration = Duration::from_mins(1);

impl Gate {
    async fn start(proxy: Proxy) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mode = Arc::new(Mutex::new(Mode::Pass));
        let (now, to) = (Arc::clone(&mode), proxy.addr);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((client, _)) = listener.accept().await else {
                    continue;
                };
                while connections.try_join_next().is_some() {}
                let mode = *now.lock().unwrap();
                connections.spawn(tokio::time::timeout(PATIENCE, pass(client, to, mode)));
            }
        });
        Self {
            port,
            mode,
            _proxy: proxy,
            task,
        }
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, to: std::net::SocketAddr, mode: Mode) {
    let mut asked = [0; 4096];
    match mode {
        Mode::Pass => {
            if let Ok(mut proxy) = TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut proxy).await;
            }
        }
        Mode::Reset => {
            let _ = client.read(&mut asked).await;
            let _ = socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO));
        }
        Mode::Hang => while matches!(client.read(&mut asked).await, Ok(1..)) {},
        Mode::Say(bytes) => {
            let _ = client.read(&mut asked).await;
            let _ = client.write_all(bytes).await;
            let _ = client.shutdown().await;
            while matches!(client.read(&mut asked).await, Ok(1..)) {}
        }
        Mode::Flood => {
            let _ = client.read(&mut asked).await;
            let mut much = b"HTTP/1.1 200 OK\r\n".to_vec();
            while client.write_all(&much).await.is_ok() {
                much = b"X-Flood: 0123456789\r\n".repeat(512);
            }
        }
    }
}

/// The addresses of all names.
pub fn give_names(world: &World) {
    let address = [IpAddr::V4(SERVERS)];
    for name in [REGISTRY, crate::support::AUTH, BLOBS, PROXIED] {
        world.dns.host(name, &address);
    }
}
