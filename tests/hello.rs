//! The ClientHello of a pull by a real containerd beside ours: the differences that a server or filter
//! on the path can see are listed here, and in docs/comparison.md.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;
mod support;

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::netns::Netns;
use lab::process::Process;
use support::hello::{ALPN, Hello, RENEGOTIATION_INFO_SCSV};
use tempfile::TempDir;

const REGISTRY: &str = "registry.test";

/// The largest hello that fits into one packet on any path that a tunnel does not make narrower
/// than 1,440 bytes.
const ONE_PACKET: usize = 1400;

/// Cipher suites that rustls does not have: AES in CBC mode, 3DES, and key exchange by RSA. From Go
/// 1.22 on the last two are offered only where the build asks for them.
const SUITES_NOT_OURS: [u16; 10] = [
    0xc009, 0xc013, 0xc00a, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035, 0xc012, 0x000a,
];

/// Signatures by SHA-1, which rustls does not have.
const SCHEMES_NOT_OURS: [u16; 2] = [0x0201, 0x0203];

/// Signatures by ML-DSA, which Go has from 1.27 on.
const SCHEMES_OF_NEW_GO: [u16; 3] = [0x0904, 0x0905, 0x0906];

/// signed_certificate_timestamp, signature_algorithms_cert (Go 1.27), and renegotiation_info (we
/// send the cipher suite that stands for it).
const EXTENSIONS_NOT_OURS: [u16; 3] = [18, 50, 0xff01];

/// extended_master_secret, which Go 1.19 lacks, and psk_key_exchange_modes.
const EXTENSIONS_OURS_ALONE: [u16; 2] = [23, 45];

const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;
const X25519: u16 = 29;
const SECP256R1: u16 = 23;
const SECP384R1: u16 = 24;
const SECP521R1: u16 = 25;

/// A server that reads the first record of each connection and closes.
struct Server(TcpListener);

impl Server {
    fn start(netns: &Netns) -> Self {
        let listener = netns.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn reference(&self) -> String {
        format!("{REGISTRY}:{}/team/app:1.0", self.port())
    }

    /// The first record of a connection that is there now.
    fn record(&self) -> Option<Vec<u8>> {
        match self.0.accept() {
            Ok((stream, _)) => Some(record(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

fn record(mut stream: TcpStream) -> Vec<u8> {
    stream.set_nonblocking(false).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut record = vec![0; 5];
    stream.read_exact(&mut record).unwrap();
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(5 + length, 0);
    stream.read_exact(&mut record[5..]).unwrap();
    record
}

/// Runs `command`, again if need be, until a record is there.
fn captured(server: &Server, command: impl Fn() -> Command) -> Hello {
    let start = Instant::now();
    loop {
        let mut command = command();
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        loop {
            if let Some(record) = server.record() {
                child.wait().unwrap();
                return Hello::read(&record);
            }
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "no hello by {command:?}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A pull by containerd as the kubelet asks for it, through CRI.
fn of_containerd(netns: &Netns, folder: &Path) -> Hello {
    let server = Server::start(netns);
    let config = folder.join("config.toml");
    let at = folder.display();
    fs::write(
        &config,
        format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\n\
         [grpc]\naddress = \"{at}/sock\"\n[ttrpc]\naddress = \"{at}/ttrpc\"\n\
         [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n"
        ),
    )
    .unwrap();
    let mut command = netns.command("containerd");
    command.env_remove("GODEBUG").arg("-c").arg(&config);
    let _containerd = Process::start("containerd", &mut command, folder);
    let request = folder.join("request");
    fs::write(&request, pull_request(&server.reference())).unwrap();
    captured(&server, || {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "20", "--http2-prior-knowledge"])
            .arg("--unix-socket")
            .arg(folder.join("sock"))
            .args(["--header", "content-type: application/grpc"])
            .args(["--header", "te: trailers", "--data-binary"])
            .arg(format!("@{}", request.display()))
            .arg("http://localhost/runtime.v1.ImageService/PullImage");
        curl
    })
}

/// PullImageRequest with an ImageSpec that holds the reference, in the framing of gRPC.
fn pull_request(reference: &str) -> Vec<u8> {
    let field = |content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        assert!(length < 128, "a length of one byte");
        [&[0x0a, length], content].concat()
    };
    let message = field(&field(reference.as_bytes()));
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &message].concat()
}

fn ours(netns: &Netns) -> Hello {
    let server = Server::start(netns);
    captured(&server, || {
        let mut command = netns.command(env!("CARGO_BIN_EXE_pullpath"));
        let none = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/data/no-credentials.json"
        );
        command
            .args(["probe", "--timeout", "1s", "--docker-config", none])
            .arg(server.reference());
        command
    })
}

/// What one has and the other has not.
fn without(all: &[u16], others: &[u16]) -> Vec<u16> {
    let more = all.iter().filter(|number| !others.contains(number));
    more.copied().collect()
}

fn sorted(mut all: Vec<u16>) -> Vec<u16> {
    all.sort_unstable();
    all
}

#[test]
fn our_hello_is_that_of_a_pull_but_for_a_known_list() {
    let netns = Netns::new();
    netns.hosts(&format!("127.0.0.1 localhost {REGISTRY}\n"));
    let folder = TempDir::new().unwrap();
    let theirs = of_containerd(&netns, folder.path());
    let ours = ours(&netns);
    for hello in [&theirs, &ours] {
        assert!(hello.bytes <= ONE_PACKET, "{hello:x?}");
        assert!(!hello.extensions.contains(&ALPN), "{hello:x?}");
        assert_eq!(hello.versions, [TLS_1_3, TLS_1_2]);
        assert_eq!(hello.groups, [X25519, SECP256R1, SECP384R1, SECP521R1]);
        assert_eq!(hello.shares, [(X25519, 32)], "no post-quantum share");
    }

    let common = without(&theirs.suites, &SUITES_NOT_OURS);
    let expected = [&common[..], &[RENEGOTIATION_INFO_SCSV]].concat();
    assert_eq!(ours.suites, expected, "in the same order");

    let known = [&SCHEMES_NOT_OURS[..], &SCHEMES_OF_NEW_GO].concat();
    let old = sorted(without(&theirs.signature_schemes, &known));
    let new = sorted([&old[..], &SCHEMES_OF_NEW_GO].concat());
    assert_eq!(sorted(ours.signature_schemes), new);

    let missing = without(&theirs.extensions, &ours.extensions);
    assert_eq!(without(&missing, &EXTENSIONS_NOT_OURS), [] as [u16; 0]);
    let more = without(&ours.extensions, &theirs.extensions);
    assert_eq!(without(&more, &EXTENSIONS_OURS_ALONE), [] as [u16; 0]);
}
