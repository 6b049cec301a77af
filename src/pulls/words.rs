//! The words that are matched, by subject; in each table the more specific come first.
//!
//! They are those of Go's net, net/http, crypto/tls and crypto/x509 (1.17 and later), containerd 1.6 to 2.x,
//! the kubelet, containers/image (CRI-O, podman, skopeo), docker and BuildKit, and of registries.
//! `tests/data/pulls.yaml` and `tests/data/words.yaml` have them as found in the field and in sources.
//!
//! Words are compared without white space and in lower case, so that a line that a terminal wrapped still
//! matches.

use std::sync::LazyLock;

use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;

/// The causes that a text fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match {
    pub(super) cause: Cause,
    /// Alternatives, the likelier first.
    pub(super) or: &'static [Cause],
    pub(super) confidence: Confidence,
}

impl Match {
    /// High without an alternative, medium with one, low with several.
    pub(super) fn new(cause: Cause, or: &'static [Cause]) -> Self {
        Self {
            cause,
            or,
            confidence: match or.len() {
                0 => Confidence::High,
                1 => Confidence::Medium,
                _ => Confidence::Low,
            },
        }
    }

    /// The same with medium confidence: the likeliest cause, though words alone don't prove it.
    pub(super) fn likely(cause: Cause, or: &'static [Cause]) -> Self {
        Self {
            confidence: Confidence::Medium,
            ..Self::new(cause, or)
        }
    }
}

#[derive(Debug)]
struct Rule {
    /// The text contains all of them.
    words: Vec<Word>,
    found: Match,
}

#[derive(Debug)]
enum Word {
    /// Squashed.
    Plain(String),
    /// `before * after`: exactly one word is between the two.
    Around(&'static str, &'static str),
    /// `= words`: whole words, separated by blanks; a key such as `RateLimit` does not count.
    Whole(&'static str),
}

impl Word {
    fn new(word: &'static str) -> Self {
        if let Some(words) = word.strip_prefix("= ") {
            return Self::Whole(words);
        }
        match word.split_once(" * ") {
            Some((before, after)) => Self::Around(before, after),
            None => Self::Plain(squashed(word)),
        }
    }

    fn is_in(&self, text: &Words) -> bool {
        match self {
            Self::Plain(word) => text.squashed.contains(word.as_str()),
            Self::Whole(words) => text.spaced.match_indices(words).any(|(at, _)| {
                let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
                is_edge(text.spaced[..at].chars().next_back())
                    && is_edge(text.spaced[at + words.len()..].chars().next())
            }),
            Self::Around(before, after) => {
                let mut places = text.spaced.match_indices(before);
                places.any(|(at, _)| {
                    let rest = &text.spaced[at + before.len()..];
                    let mut parts = rest.splitn(3, ' ');
                    parts.next() == Some("")
                        && parts.next().is_some_and(|word| !word.is_empty())
                        && parts.next().is_some_and(|rest| rest.starts_with(after))
                })
            }
        }
    }
}

/// A text, prepared for the tables.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    /// Lower case, without white space.
    pub(super) squashed: String,
    /// Lower case, with single blanks.
    spaced: String,
}

impl Words {
    pub(super) fn new(text: &str) -> Self {
        let spaced: Vec<String> = text.split_whitespace().map(squashed).collect();
        Self {
            squashed: spaced.concat(),
            spaced: spaced.join(" "),
        }
    }

    /// Whether the text contains the words.
    pub(super) fn has(&self, word: &str) -> bool {
        self.squashed.contains(&squashed(word))
    }
}

/// Rules, in order.
#[derive(Debug)]
pub(super) struct Table(Vec<Rule>);

impl Table {
    /// The first rule whose words a text has.
    pub(super) fn find(&self, text: &Words) -> Option<Match> {
        let fits = |rule: &&Rule| rule.words.iter().all(|word| word.is_in(text));
        self.0.iter().find(fits).map(|rule| rule.found)
    }
}

/// In lower case, with plain quotes and without white space.
fn squashed(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| match c {
            '\u{2018}' | '\u{2019}' => '\'',
            '\u{201c}' | '\u{201d}' => '"',
            c => c.to_ascii_lowercase(),
        })
        .collect()
}

macro_rules! table {
    ($(#[$doc:meta])* $name:ident: $([$($word:literal),+] $cause:ident $(or $($other:ident),+)? $(@ $level:ident)?;)*) => {
        $(#[$doc])*
        pub(super) static $name: LazyLock<Table> = LazyLock::new(|| Table(vec![$(Rule {
            words: vec![$(Word::new($word)),+],
            found: {
                #[allow(unused_mut, reason = "only some rules have a confidence of their own")]
                let mut found = Match::new(Cause::$cause, &[$($(Cause::$other),+)?]);
                $(found.confidence = Confidence::$level;)?
                found
            },
        }),*]));
    };
}

table! {
    /// The runtime itself does not answer, or fails; no registry received a request.
    RUNTIME:
    ["cannot connect to the docker daemon"] RuntimeFault;
    ["is the docker daemon running"] RuntimeFault;
    ["failed to connect to the docker api"] RuntimeFault;
    ["docker daemon socket"] RuntimeFault;
    ["for api route and version"] RuntimeFault;
    ["error during connect"] RuntimeFault;
    ["cannot connect to podman"] RuntimeFault;
    ["unable to connect to podman"] RuntimeFault;
    ["unknown service runtime.v1"] RuntimeFault;
    ["unknown service containerd."] RuntimeFault;
    ["server is not initialized yet"] RuntimeFault;
    ["container runtime is down"] RuntimeFault;
    ["container runtime is not running"] RuntimeFault;
    ["container runtime network not ready"] RuntimeFault;
    ["validate service connection"] RuntimeFault;
    ["validate cri v1 image api"] RuntimeFault;
    ["failed to dial", ".sock"] RuntimeFault;
    ["dial unix", "snapshotter"] NodeStorage or RuntimeFault;
    ["dial unix", "stargz"] NodeStorage or RuntimeFault;
    ["dial unix", "nydus"] NodeStorage or RuntimeFault;
    ["dial unix", "soci-snapshotter"] NodeStorage or RuntimeFault;
    ["dial unix", "containerd"] RuntimeFault;
    ["dial unix", "cri"] RuntimeFault;
    ["dial unix", "docker"] RuntimeFault;
    ["dial unix", "podman"] RuntimeFault;
    ["dial unix", "buildkit"] RuntimeFault;
    ["dial unix"] RuntimeFault @Medium;
    ["transport: error while dialing"] RuntimeFault @Medium;
    ["open //./pipe/"] RuntimeFault;
    ["open \\\\.\\pipe\\"] RuntimeFault;
    ["error reading from server: eof"] RuntimeFault;
    ["error reading from server:", "use of closed network connection"] RuntimeFault;
    ["transport is closing"] RuntimeFault;
    ["grpc: the client connection is closing"] RuntimeFault;
    ["the connection is unavailable"] RuntimeFault;
    ["ttrpc: closed"] RuntimeFault;
    ["grpc: received message larger than max"] RuntimeFault;
    ["failed to create shim"] RuntimeFault;
    ["failed to start shim"] RuntimeFault;
    ["shim disconnected"] RuntimeFault;
    ["containerd-shim", "not installed"] RuntimeFault;
    ["no runtime for", "is configured"] RuntimeFault;
    ["runtime", "binary not installed"] RuntimeFault;
    ["oci runtime create failed"] RuntimeFault;
    ["oci runtime error"] RuntimeFault;
    ["ociruntimeerror"] RuntimeFault;
}

table! {
    /// Limits, settings and policies of the node. They name files and settings, not hosts.
    LOCAL:
    ["pull qps exceeded"] KubeletQps;
    ["no space left on device"] DiskFull;
    ["enospc"] DiskFull;
    ["disk quota exceeded"] DiskFull;
    ["not enough space on the disk"] DiskFull;
    ["free data blocks which is less than minimum required"] DiskFull;
    ["not enough free disk space"] DiskFull;
    ["insufficient disk space"] DiskFull;
    // Keys and decoders of encrypted layers.
    ["private key needed for decryption"] ImageEncrypted;
    ["decryptlayer failed"] ImageEncrypted;
    ["error decrypting layer"] ImageEncrypted;
    ["decrypting layer sha256"] ImageEncrypted;
    ["failed to get decrypt key"] ImageEncrypted;
    ["no suitable key unwrapper"] ImageEncrypted;
    ["no suitable key found for decrypting"] ImageEncrypted;
    ["ctd-decoder"] ImageEncrypted;
    ["+encrypted"] ImageEncrypted;
    // A registry's policy, before those of a node: Harbor's words speak of signatures too.
    ["cannot be pulled due to configured policy"] RegistryPolicy;
    ["projectpolicyviolation"] RegistryPolicy;
    ["image is not signed in"] RegistryPolicy;
    ["image is not signed by"] RegistryPolicy;
    // Names and settings.
    ["short-name", "did not resolve"] ShortName;
    ["short-name resolution enforced"] ShortName;
    ["no unqualified-search registries"] ShortName;
    ["no registries configured"] ShortName;
    ["short name and no search registries"] ShortName;
    ["short-name", "unqualified-search"] ShortName;
    ["short name mode is enforcing"] ShortName;
    ["invalid reference format"] ImageNameInvalid;
    ["couldn't parse image"] ImageNameInvalid;
    ["could not parse image"] ImageNameInvalid;
    ["invalidimagename"] ImageNameInvalid;
    ["repository name must be lowercase"] ImageNameInvalid;
    ["repository name must be canonical"] ImageNameInvalid;
    ["repository name must have at least one component"] ImageNameInvalid;
    ["invalid tag format"] ImageNameInvalid;
    ["invalid repository name"] ImageNameInvalid;
    ["both a tag and digest are currently not supported"] ImageNameInvalid;
    ["with both a tag and digest"] ImageNameInvalid;
    // containerd does not load its CRI plugin.
    ["cannot be set when `config_path` is provided"] HostsTomlInvalid;
    ["unable to read ca cert"] HostsTomlInvalid;
    ["unable to load ca cert"] HostsTomlInvalid;
    ["failed to load x509 key pair"] HostsTomlInvalid;
    ["unable to read cert file"] HostsTomlInvalid;
    ["get registry endpoints: "] HostsTomlInvalid;
    ["get tlsconfig for registry "] HostsTomlInvalid;
    ["http: no host in request url"] HostsTomlInvalid;
    ["net/http: invalid header field "] HostsTomlInvalid;
    ["loading registries configuration"] HostsTomlInvalid;
    ["failed to parse hosts file"] HostsTomlInvalid;
    ["failed to load hosts file"] HostsTomlInvalid;
    ["failed to decode hosts"] HostsTomlInvalid;
    ["invalid `host` tree"] HostsTomlInvalid;
    // The kubelet's own message about a Secret: no request was sent.
    ["unable to parse auth field"] SecretFormat;
    ["illegal base64 data at input byte"] SecretFormat;
    ["couldn't parse dockercfg"] SecretFormat;
    ["no username present in auth config"] SecretFormat;
    // Signatures and admission.
    ["signaturevalidationfailed"] ImagePolicy;
    ["source image rejected"] ImagePolicy;
    ["is rejected by policy"] ImagePolicy;
    ["a signature was required"] ImagePolicy;
    ["invalid gpg signature"] ImagePolicy;
    ["no policy.json file found"] ImagePolicy;
    ["/policy.json"] ImagePolicy;
    ["image verifier", "blocked"] ImagePolicy;
    ["isblockedin", "registries.conf"] ImagePolicy;
    ["registry", "is blocked in"] ImagePolicy;
    ["admission webhook", "denied the request"] ImagePolicy;
    ["admission webhook", "no matching"] ImagePolicy;
    ["image policy webhook"] ImagePolicy;
    ["imagepolicywebhook"] ImagePolicy;
    ["validatingadmissionpolicy"] ImagePolicy;
    ["no matching signatures"] ImagePolicy;
    ["no signatures found"] ImagePolicy;
    ["signature verification failed"] ImagePolicy;
    ["failed to verify signature"] ImagePolicy;
    ["failed to verify the image"] ImagePolicy;
    ["image signature", "verif"] ImagePolicy;
    ["remote trust data does not exist"] ImagePolicy;
    ["no valid trust data"] ImagePolicy;
    ["does not have trust data"] ImagePolicy;
    ["trust pinning"] ImagePolicy;
    ["registry access management"] ImagePolicy;
}

table! {
    /// Content and snapshots on the node, and what unpacks layers.
    STORE:
    // A fault of the layer, or of the node that stored it: its digest was right when it arrived.
    ["failed to register layer", "invalid tar header"] NodeStorage or LayerInvalid;
    ["wrong diff id calculated on extraction", "devmapper"] NodeStorage or LayerInvalid;
    ["wrong diff id calculated on extraction", "nydus"] NodeStorage or LayerInvalid;
    ["wrong diff id calculated on extraction", "stargz"] NodeStorage or LayerInvalid;
    ["wrong diff id calculated on extraction"] LayerInvalid or NodeStorage;
    ["archive/tar: invalid tar header"] LayerInvalid or NodeStorage;
    ["archive/tar: missed writing"] LayerInvalid or NodeStorage;
    ["layers from manifest don't match image configuration"] ManifestInvalid;
    ["content digest", "not found"] NodeStorage;
    ["failed to get reader from content store"] NodeStorage;
    ["parent snapshot", "does not exist"] NodeStorage;
    ["snapshot", "does not exist: not found"] NodeStorage;
    ["lease", "does not exist: not found"] NodeStorage;
    ["lease", "does not exist"] NodeStorage;
    ["ref ", "locked: unavailable"] NodeStorage;
    ["ref ", " locked for "] NodeStorage;
    ["locking ref ", "failed"] NodeStorage;
    ["missing parent", "bucket"] NodeStorage;
    ["failed to stat parent"] NodeStorage;
    ["failed to find image ref of snapshot"] NodeStorage;
    ["snapshotter", "was not found"] NodeStorage;
    ["snapshotter not loaded"] NodeStorage;
    ["snapshotter", "not loaded"] NodeStorage;
    ["failed to get snapshotter"] NodeStorage;
    ["no unpack platforms defined"] NodeStorage;
    ["unable to initialize unpacker"] NodeStorage;
    ["failed to initialize unpacker"] NodeStorage;
    ["image not known"] NodeStorage;
    ["layer not known"] NodeStorage;
    ["layer does not exist"] NodeStorage;
    ["not enough ids available in the namespace"] NodeStorage;
    ["potentially insufficient uids or gids"] NodeStorage;
    ["insufficient uids or gids available"] NodeStorage;
    ["read-only file system"] NodeStorage;
    ["input/output error"] NodeStorage;
    ["structure needs cleaning"] NodeStorage;
    ["stale file handle"] NodeStorage;
    ["too many open files"] NodeStorage;
    ["cannot allocate memory"] NodeStorage;
    ["too many levels of symbolic links"] NodeStorage;
    ["database not open"] NodeStorage;
    ["unlinkat ", "directory not empty"] NodeStorage;
    ["unpack destination", "already exists"] NodeStorage;
    ["failed to create temp dir"] NodeStorage;
    ["operation not supported on overlay"] NodeStorage;
    ["driver \"overlay\" failed"] NodeStorage;
    ["is not supported over"] NodeStorage;
    ["graphdriver"] NodeStorage;
    ["graph driver"] NodeStorage;
    ["hcsshim"] NodeStorage;
    ["hcs::"] NodeStorage;
    ["re-exec error", "unexpected eof"] LayerInvalid or NodeStorage;
    ["re-exec error", "invalid tar header"] LayerInvalid or NodeStorage;
    ["re-exec error"] NodeStorage;
    ["manifest blob", "no such file or directory"] NodeStorage;
    // Files below the folders of runtimes.
    ["/var/lib/docker/", "no such file or directory"] NodeStorage;
    ["/var/lib/docker/", "permission denied"] NodeStorage;
    ["/layerdb/", "file exists"] NodeStorage;
    ["/var/lib/containerd/", "no such file or directory"] NodeStorage;
    ["/var/lib/containerd/", "permission denied"] NodeStorage;
    ["/containers/storage/", "no such file or directory"] NodeStorage;
    ["/containers/storage/", "permission denied"] NodeStorage;
    ["/agent/containerd/", "no such file or directory"] NodeStorage;
    ["/agent/containerd/", "permission denied"] NodeStorage;
}

table! {
    /// The stage of a pull at which content has arrived and is stored and unpacked.
    UNPACKING:
    ["unexpected eof"] LayerInvalid or NodeStorage;
    ["gzip: invalid"] LayerInvalid or NodeStorage;
    ["flate: corrupt input"] LayerInvalid or NodeStorage;
    ["magic number mismatch"] LayerInvalid or NodeStorage;
    ["invalid checksum"] LayerInvalid or NodeStorage;
    ["zstd"] LayerInvalid or NodeStorage;
    ["context canceled"] NodeStorage or PullNoProgress;
    ["context deadline exceeded"] NodeStorage or Deadline;
    // The node refuses, whatever the layer has in it.
    ["operation not permitted"] NodeStorage;
    ["permission denied"] NodeStorage;
    ["operation not supported"] NodeStorage;
    ["function not implemented"] NodeStorage;
    ["subordinate ids"] NodeStorage;
    ["lchown", "invalid argument"] NodeStorage;
    ["too many links"] NodeStorage;
    ["signal: killed"] NodeStorage;
    ["re-exec error"] NodeStorage;
    ["failed to mount /"] NodeStorage;
    ["creating overlay mount"] NodeStorage;
    // The layer itself is not read yet, or no more.
    ["failed to prepare extraction snapshot"] NodeStorage;
    ["unable to prepare extraction snapshot"] NodeStorage;
    ["failed to create snapshot"] NodeStorage;
    ["failed to commit snapshot"] NodeStorage;
    ["locating image with id"] NodeStorage;
}

/// The words of that stage.
pub(super) const UNPACK_STAGE: [&str; 23] = [
    "failed to extract layer",
    "mount callback failed",
    "failed to prepare extraction snapshot",
    "unable to prepare extraction snapshot",
    "failed to register layer",
    "error registering layer",
    "applylayer",
    "error applying layer",
    "failed to apply layer",
    "apply layer error",
    "committing the finished image",
    "processing tar file",
    "adding layer with blob",
    "creating layer with id",
    "reading layer \"",
    "creating overlay mount",
    "/tmpmounts/",
    "error untarring",
    "untar error",
    "failed to mount /",
    "locating image with id",
    "failed to commit snapshot",
    "failed to create snapshot",
];

table! {
    /// Names, connections, TLS and HTTP, as Go reports them; and proxies.
    WIRE:
    ["proxyconnect tcp"] ProxyMisconfigured;
    ["proxy authentication required"] ProxyMisconfigured;
    ["invalid proxy address"] ProxyMisconfigured;
    ["proxy: unknown scheme"] ProxyMisconfigured;
    ["socks connect"] ProxyMisconfigured;
    // Go reports the same for a name without addresses, and the fix is the same.
    ["lookup ", "no such host"] DnsNxdomain or DnsNodata @High;
    ["lookup ", "server misbehaving"] DnsError or DnsServfail, DnsRefused;
    ["lookup ", "cannot unmarshal dns message"] DnsError;
    ["lookup ", "dnsquery:", "timeout period expired"] DnsTimeout;
    ["lookup ", "connection refused"] DnsServerUnreachable;
    ["lookup ", "network is unreachable"] DnsServerUnreachable;
    ["lookup ", "no route to host"] DnsServerUnreachable;
    ["lookup ", "operation not permitted"] DnsServerUnreachable or LocalPolicy;
    ["lookup ", "i/o timeout"] DnsTimeout;
    ["lookup ", "context deadline exceeded"] DnsTimeout;
    ["lookup ", "operation was canceled"] DnsTimeout @Medium;
    // The C library's resolver: no answer, or SERVFAIL.
    ["lookup ", "temporary failure in name resolution"] DnsTimeout or DnsServfail, DnsServerUnreachable;
    ["temporary failure in name resolution"] DnsTimeout or DnsServfail, DnsServerUnreachable;
    ["lookup ", "temporary error occurred during hostname resolution"] DnsTimeout or DnsServfail;
    ["lookup ", "try again"] DnsTimeout or DnsServfail;
    ["lookup ", "device or resource busy"] DnsTimeout or DnsServerUnreachable;
    ["lookup ", "name or service not known"] DnsNxdomain or DnsNodata @High;
    ["lookup ", "name does not resolve"] DnsNxdomain or DnsNodata @High;
    ["lookup ", "no address associated with"] DnsNodata;
    ["no such host is known"] DnsNxdomain or DnsNodata @High;
    ["dial tcp", "no such host"] DnsNxdomain or DnsNodata @High;
    ["could not resolve host"] DnsNxdomain or DnsNodata, DnsTimeout;
    ["no suitable address found"] DnsNodata;
    // A client that speaks TLS or plain HTTP to a port of the other kind.
    ["server gave http response to https client"] TlsPlainHttp;
    ["certificate signed by unknown authority", "http request to an https server"] TlsUnknownCa or TlsIntermediate;
    ["http request to an https server"] HostsTomlInvalid;
    ["plain http request was sent to https port"] HostsTomlInvalid;
    ["malformed http response \"\\x15\\x03"] HostsTomlInvalid;
    ["first record does not look like a tls handshake"] TlsNotTls;
    ["oversized record received"] TlsNotTls;
    ["ssl_error_rx_record_too_long"] TlsNotTls;
    ["malformed http response"] NotARegistry or TlsNotTls;
    ["malformed http status code"] NotARegistry;
    ["malformed http version"] NotARegistry;
    ["malformed mime header"] NotARegistry @Medium;
    ["connect: connection refused"] TcpRefused;
    ["dial tcp", "connection refused"] TcpRefused;
    ["actively refused it"] TcpRefused;
    ["connect: network is unreachable"] NetUnreachable or NetUnreachV6;
    ["connect: network is down"] NetUnreachable;
    ["attempted to an unreachable network"] NetUnreachable;
    ["attempted to an unreachable host"] HostUnreachable;
    ["connect: no route to host"] HostUnreachable or TcpProhibited;
    ["connect: host is down"] HostUnreachable;
    ["connect: operation not permitted"] LocalPolicy;
    ["connect: permission denied"] LocalPolicy or TcpProhibited;
    ["access a socket in a way forbidden"] LocalPolicy;
    ["connect: cannot assign requested address"] NoLocalAddress;
    ["connect: can't assign requested address"] NoLocalAddress;
    ["address family not supported"] NoLocalAddress;
    ["connect: connection timed out"] TcpTimeout;
    ["connect: operation timed out"] TcpTimeout;
    ["dial tcp", "read: connection timed out"] HttpTimeout or TcpTimeout;
    ["read: connection timed out"] HttpTimeout or MtuBlackhole;
    ["dial tcp", "i/o timeout"] TcpTimeout;
    ["dial tcp", "connection timed out"] TcpTimeout;
    ["connectex: a connection attempt failed"] TcpTimeout;
    ["did not properly respond after a period of time"] TcpTimeout;
    ["dial tcp", "context deadline exceeded"] TcpTimeout;
    ["dial tcp", "operation was canceled"] TcpTimeout @Medium;
    // The name, the connection or TLS took the time; Go does not report which.
    ["request canceled while waiting for con"] TcpTimeout or DnsTimeout, TlsHang;
    ["tls handshake timeout"] TlsHang or MtuBlackhole;
    ["parent certificate cannot sign this kind of certificate"] TlsCaUnfit;
    ["x509: too many intermediates for path length constraint"] TlsCaUnfit;
    ["x509: a root or intermediate certificate is not authorized to sign for this name"] TlsCaUnfit;
    ["x509: certificate is valid for ingress.local"] TlsDefaultCertificate;
    [".traefik.default, not "] TlsDefaultCertificate;
    ["x509: certificate signed by unknown authority"] TlsUnknownCa;
    ["unable to get local issuer certificate"] TlsUnknownCa;
    ["self-signed certificate"] TlsUnknownCa;
    ["self signed certificate"] TlsUnknownCa;
    ["certificate is not trusted"] TlsUnknownCa;
    ["certificate has expired or is not yet valid", "is after"] TlsExpired or ClockSkew;
    ["certificate has expired or is not yet valid", "is before"] TlsNotYetValid or ClockSkew;
    ["certificate has expired or is not yet valid"] TlsExpired or TlsNotYetValid, ClockSkew;
    ["certificate is expired"] TlsExpired or ClockSkew;
    ["certificate has expired"] TlsExpired or ClockSkew;
    ["x509: certificate is valid for"] TlsName;
    ["x509: certificate is not valid for any names"] TlsName;
    ["x509: cannot validate certificate for"] TlsName;
    ["x509: certificate relies on legacy common name"] TlsName;
    ["certificate name does not match input"] TlsName;
    ["remote error: tls: protocol version"] TlsIncompatible;
    ["server selected unsupported protocol version"] TlsIncompatible;
    ["no cipher suite supported by both"] TlsIncompatible;
    ["no supported versions satisfy"] TlsIncompatible;
    ["remote error: tls: "] TlsAlert;
    ["local error: tls: bad record mac"] TlsReset @Medium;
    ["x509: "] TlsBadCertificate;
    ["tls: failed to verify certificate"] TlsBadCertificate;
    ["tls: failed to parse certificate"] TlsBadCertificate;
    ["tls: handshake message of length "] TlsBadCertificate;
    ["stopped after 10 redirects"] RedirectBroken;
    ["response missing location header"] RedirectBroken;
    ["no location header in response"] RedirectBroken;
    ["failed to parse location header"] RedirectBroken;
    // `context deadline exceeded (Client.Timeout …)` of newer releases of Go includes the connection.
    ["context deadline exceeded (client.timeout exceeded while awaiting headers)"] HttpTimeout or TcpTimeout, TlsHang;
    ["client.timeout exceeded while awaiting headers"] HttpTimeout;
    ["context deadline exceeded (client.timeout"] HttpTimeout or TcpTimeout, TlsHang;
    ["client.timeout exceeded"] HttpTimeout or TcpTimeout, TlsHang;
    // docker 1.x, of any phase.
    ["network timed out while trying to connect"] TcpTimeout or HttpTimeout, NoEgress;
    ["client.timeout or context cancellation while reading body"] HttpTimeout @Medium;
    ["timeout awaiting response headers"] HttpTimeout;
    ["timeout awaiting response"] HttpTimeout;
    ["read tcp ", "i/o timeout"] HttpTimeout or MtuBlackhole;
    ["write tcp ", "i/o timeout"] HttpTimeout or MtuBlackhole;
    ["http2: client connection lost"] HttpTimeout or TcpReset;
}

table! {
    /// Lists of clients that are allowed, and policies of registries.
    LISTS:
    ["client with ip", "is not allowed access"] Fw403;
    ["aka.ms/acr/firewall"] Fw403;
    ["public network access is disabled"] Fw403;
    ["geo-ip blocked"] Fw403;
    ["region from which you are pulling"] Fw403;
    ["block access from your country"] Fw403;
    ["blocked in your country"] Fw403;
    ["not available in your country"] Fw403;
    ["not available in your region"] Fw403;
    ["not available in your location"] Fw403;
    ["export control"] Fw403;
    ["vpcservicecontrols"] Fw403 or RegistryPolicy;
    ["vpc service controls"] Fw403 or RegistryPolicy;
    ["vpc endpoint policy"] Fw403;
    ["cve allowlist"] RegistryPolicy;
    ["cve whitelist"] RegistryPolicy;
    ["ip address", "not allowed"] Fw403;
    ["ip address", "is blocked"] Fw403;
    ["ip address", "has been blocked"] Fw403;
    ["ip address", "not authorized"] Fw403;
    ["your ip", "blocked"] Fw403;
    ["your ip", "not allowed"] Fw403;
    ["not in the whitelist"] Fw403;
    ["not in the allowlist"] Fw403;
    ["not in whitelist"] Fw403;
    ["ip whitelist"] Fw403;
    ["ip allowlist"] Fw403;
    ["attention required! | cloudflare"] Fw403;
    ["sorry, you have been blocked"] Fw403;
    ["web page blocked"] Fw403;
    ["zscaler"] Fw403;
    ["fortiguard"] Fw403;
    ["fortinet"] Fw403;
    ["web filter"] Fw403;
    ["err_access_denied"] Fw403;
    ["request blocked"] Fw403;
    ["request is blocked"] Fw403;
    ["request could not be satisfied"] Fw403 or AuthDenied;
    ["xray", "block"] RegistryPolicy;
    ["download blocked by"] RegistryPolicy;
    ["blocked by policy"] RegistryPolicy;
    ["blocked by curation"] RegistryPolicy;
    ["quarantined"] RegistryPolicy;
    ["organization's policy"] RegistryPolicy or Fw403;
    ["namespace", "has been disabled"] RegistryPolicy;
    ["has been suspended"] RegistryPolicy;
    ["account is suspended"] RegistryPolicy;
    ["payment required"] RegistryPolicy;
    ["billing account", "disabled"] RegistryPolicy;
    ["billing is disabled"] RegistryPolicy;
    ["billing to be enabled"] RegistryPolicy;
    ["billing disabled"] RegistryPolicy;
    ["in arrears"] RegistryPolicy;
    ["insufficient balance"] RegistryPolicy;
    ["license", "expired"] RegistryPolicy;
    ["invalid license"] RegistryPolicy;
    ["usage limit", "exceeded"] RegistryPolicy;
    ["storage quota"] RegistryPolicy;
    ["legal reasons"] RegistryPolicy or Fw403;
    ["image access management"] RegistryPolicy;
    ["has not been used in project", "disabled"] RegistryPolicy;
    ["policy violation"] RegistryPolicy;
    ["violates policy"] RegistryPolicy;
}

table! {
    /// A server's messages about limits and credentials; they are more specific than a status.
    PLAIN:
    ["toomanyrequests"] RateLimited;
    ["too many requests"] RateLimited;
    ["pull rate limit"] RateLimited;
    ["rate limit exceeded"] RateLimited;
    ["rate limited"] RateLimited;
    ["ratelimitexceeded"] RateLimited;
    ["= rate limit"] RateLimited;
    ["= rate-limit"] RateLimited;
    ["rate exceeded"] RateLimited;
    ["quota exceeded"] RateLimited;
    ["data limit exceeded"] RateLimited;
    ["reduce your request rate"] RateLimited;
    ["throttlingexception"] RateLimited;
    ["request was throttled"] RateLimited;
    // Anonymous requests.
    ["no basic auth credentials"] AuthNoCred;
    ["you may not login yet"] AuthNoCred;
    ["unauthenticated request"] AuthNoCred;
    ["anonymous caller does not have"] AuthNoCred;
    ["anonymous access", "disabled"] AuthNoCred;
    ["anonymous access", "not allowed"] AuthNoCred;
    ["anonymous", "not authorized"] AuthNoCred;
    ["authorize header needed"] AuthNoCred;
    ["missing authorization header"] AuthNoCred;
    ["authorization header is missing"] AuthNoCred;
    ["no credentials provided"] AuthNoCred;
    // Accounts and secrets.
    ["aadsts7000222"] CredentialExpired;
    ["security token included in the request is invalid"] AuthBadCred or CredentialExpired;
    ["security token included in the request is expired"] CredentialExpired;
    ["expiredtoken"] CredentialExpired;
    ["token failed verification: expired"] CredentialExpired;
    ["token", "has expired"] CredentialExpired;
    ["token", "is expired"] CredentialExpired;
    ["token expired"] CredentialExpired;
    ["expired token"] CredentialExpired;
    ["token", "have expired"] CredentialExpired;
    ["password", "has expired"] CredentialExpired;
    ["password expired"] CredentialExpired;
    ["password is expired"] CredentialExpired;
    ["credential", "expired"] CredentialExpired;
    ["robot account", "expired"] CredentialExpired;
    ["incorrect username or password"] AuthBadCred;
    ["invalid username/password"] AuthBadCred;
    ["invalid username or password"] AuthBadCred;
    ["invalid user name or password"] AuthBadCred;
    ["wrong username"] AuthBadCred;
    ["wrong password"] AuthBadCred;
    ["bad username or password"] AuthBadCred;
    ["bad credentials"] AuthBadCred;
    ["bad props auth token"] AuthBadCred;
    ["invalid credentials"] AuthBadCred;
    ["http basic: access denied"] AuthBadCred;
    ["password or token is incorrect"] AuthBadCred;
    ["could not find robot"] AuthBadCred;
    ["invalid robot credentials"] AuthBadCred;
    ["robot account", "disabled"] AuthBadCred;
    ["cannot be authenticated with the token"] AuthBadCred;
    ["authenticate error"] AuthBadCred;
    ["token failed verification"] AuthBadCred;
    ["aadsts"] AuthBadCred;
    ["invalid client secret"] AuthBadCred;
    ["must log in with a personal access token"] AuthBadCred;
    ["user * has been disabled"] AuthBadCred;
    ["user is disabled"] AuthBadCred;
    ["account is locked"] AuthBadCred;
    ["account is disabled"] AuthBadCred;
    ["user account is locked"] AuthBadCred;
    ["login attempt", "failed"] AuthBadCred;
    ["denied", "invalid token"] AuthBadCred;
    ["error looking up service account"] ServiceAccountMissing;
    ["too many login attempts"] AuthBadCred;
    ["email", "not verified"] AuthBadCred;
    ["user: arn:", "is not authorized to perform"] AuthDenied;
    ["user: arn:", "not authorized"] AuthDenied;
    ["permission_denied"] AuthDenied;
    ["does not match expected scopes"] AuthDenied;
    ["insufficient scopes"] AuthDenied;
    ["insufficient permission"] AuthDenied or AuthNoCred;
    ["caller does not have permission"] AuthDenied or NameUnknown;
    ["you do not have the permission"] AuthDenied;
    ["do not have pull permission"] AuthDenied;
    ["project * not found"] NameUnknown;
    ["project * does not exist"] NameUnknown;
    ["project * has been deleted"] NameUnknown;
    ["error getting credentials"] AuthUnknown;
    ["credential provider plugin"] AuthUnknown;
    ["failed to get credentials"] AuthUnknown;
    ["unable to retrieve ecr credentials"] AuthUnknown;
    ["failed to get authorization token"] AuthUnknown;
    ["no valid credential sources"] AuthUnknown;
    ["nocredentialproviders"] AuthUnknown;
    ["docker-credential-", "executable file not found"] AuthUnknown;
    ["docker-credential-", "exit status"] AuthUnknown;
    ["invalid authorization challenge"] AuthBadChallenge;
    ["no realm specified"] AuthBadChallenge;
    ["missing realm in bearer auth challenge"] AuthBadChallenge;
    ["invalid token auth challenge realm"] AuthBadChallenge;
    ["authorization server did not include a token"] AuthTokenFormat;
    // From the decoder; if the connection broke, the message is that of the connection.
    ["unable to decode token response: invalid character '<'"] AuthTokenFormat or NotARegistry;
    ["unable to decode token response: invalid character"] AuthTokenFormat;
    ["unable to decode token response: json"] AuthTokenFormat;
    ["unable to decode token response: parsing time"] AuthTokenFormat;
    ["unable to decode token response: unexpected eof"] AuthTokenFormat;
    ["unable to decode token response: eof"] AuthTokenFormat;
}

table! {
    /// Less specific than the messages of the token service. They are the same for a client without a
    /// credential, and for one without the right, and most often for a name that does not exist.
    VAGUE:
    ["access forbidden"] AuthDenied or AuthNoCred, Fw403;
    ["insufficient_scope"] AuthNoCred or AuthDenied, NameUnknown;
    // A token was issued, sent, and rejected with `error=`.
    ["server message: ", ": authorization failed"] AuthDenied or AuthNoCred;
    ["pull access denied"] AuthNoCred or AuthDenied, NameUnknown;
    ["requested access to the resource is denied"] AuthNoCred or AuthDenied, NameUnknown;
    ["access to the requested resource is not authorized"] AuthNoCred or AuthDenied, NameUnknown;
    ["does not exist or no pull access"] AuthNoCred or AuthDenied, NameUnknown;
    ["denied: permission", "denied on resource"] AuthDenied or AuthNoCred, NameUnknown;
    ["permission", "denied on resource"] AuthDenied or AuthNoCred, NameUnknown;
    ["does not have permission"] AuthDenied or AuthNoCred;
    ["not authorized to access"] AuthDenied or AuthNoCred, NameUnknown;
    ["unauthorized to access repository"] AuthNoCred or AuthDenied, NameUnknown;
    ["unauthorized: authentication required"] AuthUnknown or AuthNoCred, AuthBadCred;
    ["authentication required"] AuthUnknown or AuthNoCred, AuthBadCred;
    ["authentication is required"] AuthUnknown or AuthNoCred, AuthBadCred;
    ["authentication failed"] AuthBadCred or AuthUnknown;
    ["unauthorized: "] AuthUnknown or AuthNoCred, AuthBadCred, AuthDenied;
    ["denied: "] AuthNoCred or AuthDenied, AuthBadCred;
}

table! {
    /// Content that a registry has, and content that arrived.
    CONTENT:
    ["no match for platform in manifest"] NoPlatform;
    ["no matching manifest for"] NoPlatform;
    ["no match for platform"] NoPlatform;
    ["no image found in image index for architecture"] NoPlatform;
    ["no image found in manifest list for architecture"] NoPlatform;
    ["does not match the specified platform"] NoPlatform;
    ["does not contain descriptor matching platform"] NoPlatform;
    ["does not provide the specified platform"] NoPlatform;
    ["does not provide any platform"] NoPlatform;
    ["cannot be used on this platform"] NoPlatform;
    ["operating system is not supported"] NoPlatform;
    ["does not match the operating system of the host"] NoPlatform;
    ["based image is incompatible with a"] NoPlatform;
    ["no manifest found for platform"] NoPlatform;
    // Artifacts that are no images.
    ["vnd.cncf.helm"] ArtifactNotImage or ManifestUnsupported @High;
    ["vnd.wasm"] ArtifactNotImage or ManifestUnsupported;
    ["unsupported image-specific operation on artifact"] ArtifactNotImage @High;
    ["reference is an artifact"] ArtifactNotImage @Medium;
    ["is not an image", "artifact"] ArtifactNotImage @Medium;
    // The type of the manifest, and of what it refers to.
    ["is no longer supported since containerd"] ManifestUnsupported;
    ["schema 1 image manifests are no longer supported"] ManifestUnsupported;
    ["schema 1 not supported"] ManifestUnsupported;
    ["manifest.v1+prettyjws"] ManifestUnsupported;
    ["docker image format v1"] ManifestUnsupported;
    ["image manifest version 2, schema 1"] ManifestUnsupported;
    ["expected schema1 document"] ManifestUnsupported or ManifestInvalid;
    // A current manifest with a media type of schema 1; `text/plain` counts as one.
    [": no signatures"] ManifestUnsupported or ManifestInvalid;
    ["unsupported manifest media type"] ManifestUnsupported;
    ["unsupported docker v2s2 media type"] ManifestUnsupported;
    ["missing signature key"] ManifestUnsupported;
    ["mediatype in manifest should be"] ManifestUnsupported;
    ["invalid media type in layer"] ManifestUnsupported;
    ["unsupported media type"] ManifestUnsupported or ArtifactNotImage;
    ["unsupported mediatype"] ManifestUnsupported or ArtifactNotImage;
    ["encountered remote ", "when fetching"] ManifestUnsupported or ArtifactNotImage;
    ["encountered unknown type"] ManifestUnsupported or ArtifactNotImage;
    ["unsupported manifest format"] ManifestUnsupported;
    ["unsupported schema version"] ManifestUnsupported or ManifestInvalid;
    ["unsupported protocol scheme"] RedirectBroken;
    ["failed to get stream processor for"] ManifestUnsupported;
    ["mismatched image rootfs and manifest layers"] ManifestUnsupported or ManifestInvalid;
    ["unexpected media type text/html"] NotARegistry;
    ["unexpected media type "] ManifestUnsupported or ManifestInvalid;
    ["target.mediatype must be set"] ManifestUnsupported or ManifestInvalid;
    // The manifest's content.
    ["number of layers and diffids don't match"] ManifestInvalid or ManifestUnsupported;
    ["history and layer mismatch"] ManifestInvalid;
    ["in header not a valid digest"] ManifestInvalid;
    ["which reports content size of zero"] ManifestInvalid;
    ["rejecting ", " byte manifest for "] ManifestInvalid;
    ["children: invalid desc "] ManifestInvalid;
    ["unmarshal image config"] ManifestInvalid;
    ["missing or empty content-length header"] ManifestInvalid or NotARegistry;
    ["missing or empty content-type header"] ManifestInvalid or NotARegistry;
    // What is missing.
    ["reading manifest", "blob unknown"] ManifestUnknown;
    ["mirror with image component", "could not be found"] ManifestUnknown or MirrorOrder;
    ["mirror with registry", "could not be found"] ManifestUnknown or MirrorOrder;
    ["could not resolve mirror for"] ManifestUnknown or MirrorOrder;
    ["manifest unknown"] ManifestUnknown;
    ["manifest_unknown"] ManifestUnknown;
    ["manifest tagged by", "is not found"] ManifestUnknown;
    ["named manifest is not known"] ManifestUnknown;
    ["manifest for * not found"] ManifestUnknown;
    ["manifest not found"] ManifestUnknown;
    ["no such manifest"] ManifestUnknown;
    ["requested image not found"] ManifestUnknown;
    ["image or artifact was not found"] ManifestUnknown;
    ["was deleted or has expired"] ManifestUnknown;
    ["getting tag failed"] ManifestUnknown;
    ["tag * not found in repository"] ManifestUnknown;
    ["resource not found", ", tag "] ManifestUnknown;
    ["tag * does not exist"] ManifestUnknown;
    ["tag does not exist"] ManifestUnknown;
    ["tag not found"] ManifestUnknown;
    ["artifact * not found"] ManifestUnknown or NameUnknown;
    ["name unknown"] NameUnknown;
    ["name_unknown"] NameUnknown;
    ["repository name not known"] NameUnknown;
    ["repository not found"] NameUnknown;
    ["repositorynotfound"] NameUnknown;
    ["repository with name", "does not exist"] NameUnknown;
    ["repository \"", "not found"] NameUnknown;
    ["repository * not found"] NameUnknown or ManifestUnknown;
    // Docker says both of any refusal; what follows is the registry's own.
    ["repository does not exist or may require", "denied: permission denied"] AuthDenied or AuthNoCred, NameUnknown;
    ["repository does not exist or may require"] AuthNoCred or AuthDenied, NameUnknown;
    ["repository does not exist"] NameUnknown;
    ["namespace * does not exist"] NameUnknown;
    ["namespace * not found"] NameUnknown;
    ["404 page not found"] NotARegistry;
    ["image * not found"] ManifestUnknown or NameUnknown;
    ["image not found"] ManifestUnknown or NameUnknown;
    ["unsupported docker v1 repository request"] NotARegistry;
    ["can't talk to a v1 container registry"] NotARegistry;
    ["blob unknown"] BlobUnknown;
    ["blob_unknown"] BlobUnknown;
    ["unknown blob"] BlobUnknown;
    ["nosuchkey"] BlobUnknown;
    ["specified key does not exist"] BlobUnknown;
    ["blobnotfound"] BlobUnknown;
    ["specified blob does not exist"] BlobUnknown;
    // The same decoders as for unpacking, reading from a server.
    ["unsupported content-encoding"] ContentEncoding;
    ["gzip: invalid"] ContentEncoding;
    ["flate: corrupt input"] ContentEncoding;
    ["magic number mismatch"] ContentEncoding;
    // The digest of an empty file.
    ["unexpected commit digest sha256:e3b0c44298fc1c149afbf4c8996fb924"] UnexpectedEof or DigestMismatch;
    ["unexpected commit digest"] DigestMismatch or ContentEncoding;
    ["filesystem layer verification failed"] DigestMismatch;
    ["manifest verification failed for digest"] DigestMismatch;
    ["digest did not match"] DigestMismatch;
    ["digest mismatch"] DigestMismatch;
    ["does not match", "digest"] DigestMismatch;
    ["unexpected commit size"] UnexpectedEof or DigestMismatch;
}

table! {
    /// Documents that can't be decoded. A stated status says more.
    DECODERS:
    ["happened during read: unexpected eof"] UnexpectedEof;
    ["unexpected end of json input"] ManifestInvalid or UnexpectedEof @Medium;
    ["unmarshalling content: invalid character '<'"] NotARegistry or ManifestInvalid;
    ["invalid character '<' looking for beginning of value"] NotARegistry;
    ["looking for beginning of value"] NotARegistry or ManifestInvalid;
    ["after top-level value"] NotARegistry or ManifestInvalid;
    ["failed to unmarshal"] ManifestInvalid;
    ["json: cannot unmarshal"] ManifestInvalid;
    ["error unmarshalling content"] ManifestInvalid or NotARegistry;
    ["unexpected eof"] UnexpectedEof;
    ["short read: expected"] UnexpectedEof;
}

table! {
    /// How an exchange ended; the least specific messages.
    ENDS:
    ["connection reset by peer"] TcpReset or TlsReset;
    ["forcibly closed by the remote host"] TcpReset or TlsReset;
    ["connection was aborted by the software in your host"] TcpReset;
    ["stream error: stream id"] TcpReset or UnexpectedEof, Registry5xx;
    ["goaway"] TcpReset or UnexpectedEof;
    ["server closed idle connection"] TcpReset;
    ["use of closed network connection"] TcpReset @Medium;
    ["transport connection broken"] TcpReset or UnexpectedEof;
    ["broken pipe"] TcpReset;
    ["because of no progress"] PullNoProgress;
    ["context deadline exceeded"] Deadline;
    ["deadlineexceeded"] Deadline;
    ["operation timed out"] Deadline @Medium;
    ["connection refused"] TcpRefused @Medium;
    ["connection timed out"] TcpTimeout @Medium;
    ["no such host"] DnsNxdomain @Medium;
    ["network is unreachable"] NetUnreachable @Medium;
    ["no route to host"] HostUnreachable @Medium;
    ["i/o timeout"] HttpTimeout or TcpTimeout @Low;
    ["context canceled"] PullNoProgress @Medium;
    ["context cancelled"] PullNoProgress @Medium;
}
