//! What each fuzz target does with its input. The same functions run under libFuzzer (a nightly
//! compiler) and in `tests/fuzz_replay.rs` (the tests of the crate).
//!
//! They panic where something does not hold: that a text reads back as it was written, that reading
//! twice gives the same, that no secret is shown, that what is shown is bounded.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use pullpath::config::Config;
use pullpath::containerd::behaviour::Behaviour;
use pullpath::containerd::hosts::{self, HostsFile};
use pullpath::model::credential::CredentialSource;
use pullpath::model::fault::{DnsFault, ManifestFault};
use pullpath::model::hosts::HostKind;
use pullpath::model::platform::Platform;
use pullpath::model::reference::{Reference, ReferenceError, check_digest};
use pullpath::model::resolve::{Family, Query};
use pullpath::model::resolver::ResolverSettings;
use pullpath::model::step::Step;
use pullpath::model::text::MAX_SHOWN;
use pullpath::net::dns;
use pullpath::pull_secret::docker_config::{self, ConfigFormat, DockerConfig};
use pullpath::pull_secret::keyring::{Keyring, LoadedSource};
use pullpath::pull_secret::secret;
use pullpath::redact::{Scrubber, Secret};
use pullpath::registry::challenge::{self, Wanted};
use pullpath::registry::error;
use pullpath::registry::manifest::{self, Descriptor, Kind, Manifest};
use pullpath::vantage::pod;
use serde::Serialize;

/// A password that no outcome may show. Its form in JSON, in URLs and in base64 each differ from it.
const CANARY: &str = "Zq\"7/w+canary=é";

/// The part of it that no encoding changes, but for base64.
pub(crate) const CANARY_WORD: &str = "canary";

/// The beginning of `user:canary` in base64.
const ENCODED_WORD: &str = "dXNlcjpjYW5h";

/// A name of an image. The text of an error repeats what was written, but never a password.
pub(crate) fn reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<Reference>() {
        Ok(reference) => {
            let shown = reference.to_string();
            let again: Reference = shown.parse().expect("what is shown can be read");
            assert_eq!(again, reference);
            assert_eq!(again.to_string(), shown);
            assert_eq!(reference.to_string(), String::from(again.clone()));
            assert!(shown.starts_with(&reference.name()));
            let version = reference.version();
            assert!(Some(version) == reference.tag() || Some(version) == reference.digest());
            if let Some(digest) = reference.digest() {
                check_digest(digest).expect("a digest that was taken");
            }
            let (host, _) = reference.host();
            assert!(!host.to_string().is_empty());
            assert!(shown.len() <= text.len() + "docker.io/library/:latest".len());
        }
        Err(error) => {
            let said = error.to_string();
            assert!(said.len() <= 4 * text.len() + 400, "{said}");
            // Advice has to help against what it is given for.
            match error {
                ReferenceError::UpperCase { fix, .. } => {
                    let again = fix.parse::<Reference>();
                    let is_same = matches!(again, Err(ReferenceError::UpperCase { .. }));
                    assert!(!is_same, "{text:?}: {fix:?}");
                }
                ReferenceError::EmptyTag(fix) => {
                    let again = fix.parse::<Reference>();
                    let is_same = matches!(again, Err(ReferenceError::EmptyTag(_)));
                    assert!(!is_same, "{text:?}: {fix:?}");
                }
                ReferenceError::Whitespace(fix) => {
                    assert!(!fix.contains(char::is_whitespace), "{text:?}: {fix:?}");
                }
                _ => {}
            }
        }
    }
    if spells_canary(data) {
        return;
    }
    for pasted in [
        format!("https://user:canary@{text}"),
        format!("user:canary@{text}"),
        format!(" user:canary@{text}"),
        format!("//user:canary@{text}"),
    ] {
        // Without a path it may be the digest of an image 'user' with a tag.
        if text.contains('/') {
            let said = pasted.parse::<Reference>();
            let said = said.map_or_else(|error| error.to_string(), |taken| taken.to_string());
            assert!(!said.contains(CANARY_WORD), "{pasted:?}: {said}");
        }
    }
}

/// The values of `WWW-Authenticate`, one a line; or the rest of one behind a realm that holds what
/// must not be shown.
pub(crate) fn challenge(data: &[u8]) {
    let (choice, data) = choose(data);
    let scrub = Scrubber::default();
    scrub.hide_login("user", &Secret::new(CANARY));
    let of = |lines: &[u8]| {
        let mut headers = HeaderMap::new();
        for line in lines.split(|b| *b == b'\n').take(16) {
            if let Ok(value) = HeaderValue::from_bytes(line) {
                headers.append(WWW_AUTHENTICATE, value);
            }
        }
        let wanted = challenge::wanted(&headers, &scrub);
        assert_eq!(wanted, challenge::wanted(&headers, &scrub));
        assert_eq!(headers.is_empty(), wanted == Wanted::Anonymous);
        if let Wanted::Bearer(bearer) = &wanted {
            assert!(matches!(bearer.realm.scheme(), "http" | "https"));
            assert!(bearer.realm.host().is_some());
        }
        wanted
    };
    let shown = |wanted: &Wanted| {
        let evidence = json(&wanted.evidence());
        let text = format!("{wanted:?} {evidence}");
        assert_printable(&text);
        // Three texts are cut; the host of a realm is as long as the header lets it be.
        assert!(text.len() <= 40 * (data.len() + MAX_SHOWN), "{text}");
        text + &texts_of(&evidence)
    };
    // What stands before the host and behind it is no one's business.
    let realms = [
        "https://user:canary@",
        "https://canary@",
        "https://auth.example.com/canary",
        "https://auth.example.com?canary",
        "/canary",
    ];
    let Some(realm) = choice.checked_sub(1).map(|n| realms[n % realms.len()]) else {
        assert!(!shown(&of(data)).contains(CANARY));
        return;
    };
    if !spells_canary(data) {
        let line = [b"Bearer realm=\"", realm.as_bytes(), data].concat();
        let wanted = of(&line);
        assert!(!shown(&wanted).contains(CANARY_WORD), "{wanted:?}");
    }
}

/// A docker config, or the YAML of Secrets, and which of it goes with an image; or the rest of one
/// behind a password.
pub(crate) fn docker_config(data: &[u8]) {
    let (choice, data) = choose(data);
    let text = String::from_utf8_lossy(data);
    if choice == 0 {
        let sources = read_configs(data, false);
        lookup(sources, data.len(), false);
        return;
    }
    if choice == 1 {
        let sources = secret::read(data, "secret.yaml");
        assert!(!sources.is_empty());
        let again = secret::read(data, "secret.yaml");
        assert_eq!(format!("{sources:?}"), format!("{again:?}"));
        lookup(sources, data.len(), false);
        return;
    }
    if spells_canary(data) {
        return;
    }
    let auth = STANDARD.encode(format!("user:canary{text}"));
    let encoded = STANDARD.encode("user:canary");
    let entry = |key: &str, fields: &str| format!("{{\"auths\":{{\"{key}\":{{{fields}}}}}}}");
    let secret = |data: &str| format!("kind: Secret\ntype: kubernetes.io/dockerconfigjson\n{data}");
    let reg = "registry.example.com";
    let config = match choice {
        2 => entry(
            reg,
            &format!("\"username\":\"u\",\"password\":\"canary{text}"),
        ),
        3 => entry(
            reg,
            &format!("\"username\":\"u\",\"password\":\"canary{text}\""),
        ),
        4 => entry(
            reg,
            &format!("\"identitytoken\":\"canary\",\"auth\":{text}"),
        ),
        5 => entry(reg, &format!("\"auth\":\"{auth}\"")),
        6 => entry(
            &format!("https://user:canary@{text}"),
            &format!("\"auth\":\"{encoded}\""),
        ),
        11 => entry(
            &format!("user:canary@{text}"),
            &format!("\"auth\":\"{encoded}\""),
        ),
        7 => entry(
            &format!("docker.io/canary@{text}"),
            &format!("\"auth\":\"{encoded}\""),
        ),
        _ => {
            let manifest = match choice {
                8 => secret(&format!("stringData:\n  .dockerconfigjson: canary{text}\n")),
                9 => secret(&format!("data:\n  .dockerconfigjson: {encoded}{text}\n")),
                _ => secret(&format!(
                    "stringData:\n  .dockerconfigjson: '{{\"auths\":{{\"r\":{{\"password\":\"canary{text}"
                )),
            };
            let sources = secret::read(manifest.as_bytes(), "s");
            lookup(sources, manifest.len(), true);
            return;
        }
    };
    let mut sources = read_configs(config.as_bytes(), true);
    for (kind, key) in [
        ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
        ("kubernetes.io/dockercfg", ".dockercfg"),
    ] {
        let manifest = serde_json::json!({
            "kind": "Secret", "type": kind, "data": {key: STANDARD.encode(&config)},
        });
        sources.extend(secret::read(manifest.to_string().as_bytes(), "s"));
    }
    lookup(sources, config.len(), true);
}

/// A config as what each flavour takes it for.
fn read_configs(bytes: &[u8], hide: bool) -> Vec<LoadedSource> {
    let read = FLAVOURS.map(|flavour| read_config(bytes, flavour, hide).ok());
    read.into_iter()
        .flatten()
        .map(|config| LoadedSource {
            source: CredentialSource::DockerConfig {
                path: "config.json".to_owned(),
            },
            entries: config.entries,
            problem: None,
            lint: config.lint,
            expiries: Vec::new(),
            is_for_others: false,
            at_usual_path: false,
        })
        .collect()
}

const FLAVOURS: [ConfigFormat; 3] = [
    ConfigFormat::Secret,
    ConfigFormat::LegacySecret,
    ConfigFormat::File,
];

fn read_config(bytes: &[u8], flavour: ConfigFormat, hide: bool) -> Result<DockerConfig, String> {
    let read = docker_config::parse(bytes, flavour);
    let mut shown = match &read {
        Ok(config) => config.lint.iter().map(ToString::to_string).collect(),
        Err(reason) => reason.clone(),
    };
    assert_printable(&shown);
    if let Ok(config) = &read {
        use std::fmt::Write as _;
        let _ = write!(shown, "{:?}", config.entries);
    }
    if hide {
        assert_hidden(&shown);
    }
    // A word on an entry and the entry itself, with a key that is cut.
    assert!(shown.len() <= 500 * bytes.len() + 4096);
    read
}

fn lookup(sources: Vec<LoadedSource>, length: usize, hide: bool) {
    let entries: usize = sources.iter().map(|s| s.entries.len()).sum();
    let ring = Keyring::new(sources);
    let scrub = Scrubber::default();
    if entries <= 8 {
        ring.hide_in(&scrub);
    }
    for image in [
        "registry.example.com/team/app:1",
        "nginx",
        "[fd00::1]:5000/app",
    ] {
        let image: Reference = image.parse().expect("a name of an image");
        let (found, evidence) = ring.lookup(&image);
        assert_eq!(found.len(), evidence.candidates.len());
        assert_eq!(found.len() + evidence.mismatches.len(), entries);
        let shown = format!("{ring:?} {found:?} {}", json(&evidence));
        let rules = evidence.mismatches.iter();
        let rules = rules.map(|m| format!("{} {}", m.credential, m.rule));
        let lint = evidence.sources.iter().flat_map(|s| &s.lint);
        let said: Vec<String> = rules.chain(lint.map(ToString::to_string)).collect();
        assert_printable(&said.concat());
        assert!(shown.len() <= 4096 * length + 65536, "{}", shown.len());
        if hide {
            assert_hidden(&shown);
            assert_hidden(&said.concat());
        }
        for credential in &found {
            let (_, secret) = credential.login();
            let text = secret.expose();
            if entries <= 8 && text.len() >= 4 && !text.contains('*') {
                let cleaned = scrub.clean(&format!("got <{text}>"));
                assert!(!cleaned.contains(text), "{cleaned}");
            }
        }
    }
}

/// A `hosts.toml`, or the rest of one behind something secret.
pub(crate) fn hosts_toml(data: &[u8]) {
    let (choice, data) = choose(data);
    let domains = [
        "registry.example.com",
        "docker.io",
        "localhost:5000",
        "[fd00::1]:80",
    ];
    if let Some(domain) = domains.get(choice) {
        read_hosts(data, domain, false);
        return;
    }
    if spells_canary(data) {
        return;
    }
    let text = String::from_utf8_lossy(data);
    let mirror = "[host.\"https://m.example.com\".header]\nauthorization =";
    let hidden = match choice {
        4 => format!("{mirror} \"canary{text}"),
        5 => format!("{mirror} [\"canary\", {text}]\n"),
        6 => format!("server = \"https://user:canary@{text}"),
        7 => {
            format!("server = \"user:canary@{text}\"\n[host.\"user:canary@{text}\"]\nca = \"x\"\n")
        }
        8 => format!("[host.\"http://user:canary@{text}\"]\nskip_verify = 1\n"),
        _ => format!("[host.\"http://user:canary@{text}"),
    };
    read_hosts(hidden.as_bytes(), domains[0], true);
}

fn read_hosts(bytes: &[u8], domain: &str, hide: bool) {
    for behaviour in Behaviour::candidates(None) {
        read_hosts_as(behaviour, bytes, domain, hide);
    }
}

fn read_hosts_as(behaviour: Behaviour, bytes: &[u8], domain: &str, hide: bool) {
    let read = || hosts::parse(bytes, domain, Path::new("/certs"), behaviour);
    let shown = |read: &Result<HostsFile, String>| match read {
        Ok(file) => {
            let hosts: Vec<_> = file.hosts.iter().map(|h| json(&h.host)).collect();
            format!("{file:?} {} {}", hosts.concat(), json(&file.problems))
        }
        Err(reason) => reason.clone(),
    };
    let file = read();
    let text = shown(&file);
    assert_eq!(text, shown(&read()), "read twice, it is the same");
    assert!(text.len() <= 2048 * bytes.len() + 8192, "{}", text.len());
    if hide {
        assert_hidden(&text);
    }
    match file {
        Ok(file) => {
            let last = file.hosts.last().expect("the last host is always there");
            assert!(last.host.resolves || last.host.kind == HostKind::Server);
            assert_ne!(last.host.kind, HostKind::Mirror);
            for host in &file.hosts {
                assert!(host.host.path.is_empty() || host.host.path.starts_with('/'));
                assert_eq!(host.host.ca_files.len(), host.ca.len());
            }
            for problem in &file.problems {
                assert_printable(&problem.reason);
            }
        }
        Err(reason) => assert_printable(&reason),
    }
}

/// An answer that is no success: one byte for what the server repeats, two of status, header fields
/// by line, an empty line, a body.
pub(crate) fn oci_error(data: &[u8]) {
    let (choice, data) = choose(data);
    let (status, rest) = data.split_at(data.len().min(2));
    let status = status.iter().fold(0, |n, b| n * 256 + u16::from(*b));
    let status = StatusCode::from_u16(100 + status % 900).expect("three digits");
    let (head, body) = match rest.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&rest[..at], &rest[at + 2..]),
        None => (&b""[..], rest),
    };
    let mut headers = HeaderMap::new();
    for line in head.split(|b| *b == b'\n').take(32) {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(&line[..colon]),
            HeaderValue::from_bytes(line[colon + 1..].trim_ascii()),
        ) {
            headers.append(name, value);
        }
    }
    let scrub = Scrubber::default();
    scrub.hide_login("user", &Secret::new(CANARY));
    let quoted = serde_json::Value::from(CANARY).to_string();
    let encoded = STANDARD.encode(format!("user:{CANARY}"));
    let (quoted, encoded_bytes) = (quoted.as_bytes(), encoded.as_bytes());
    let body = match choice {
        1 => [CANARY.as_bytes(), body].concat(),
        2 => [b"{\"errors\":[{\"code\":", quoted, b",\"message\":\"", body].concat(),
        3 => [
            b"{\"error\":",
            quoted,
            b",\"message\":\"",
            encoded_bytes,
            body,
            b"\"}",
        ]
        .concat(),
        4 => [
            b"<Error><Message>",
            CANARY.as_bytes(),
            body,
            b"</Message></Error>",
        ]
        .concat(),
        5 => [
            b"{\"errors\":[{\"code\":",
            quoted,
            b",\"message\":\"",
            body,
            b"\"}]}",
        ]
        .concat(),
        _ => body.to_vec(),
    };
    let fault = error::fault(status, &headers, &body, false, &scrub);
    assert_eq!(fault, error::fault(status, &headers, &body, false, &scrub));
    let limit = error::rate_limit(&headers, &scrub);
    let _ = error::date(&headers);
    let shown = [json(&fault), json(&limit)];
    for shown in &shown {
        assert_printable(shown);
        // A character of JSON has six bytes at most, and four texts are cut.
        assert!(shown.len() <= 4 * 6 * MAX_SHOWN + 400, "{shown}");
        assert!(!texts_of(shown).contains(CANARY), "{shown}");
        assert!(!shown.contains(&encoded), "{shown}");
        assert!(
            spells_canary(data) || !shown.contains(CANARY_WORD),
            "{shown}"
        );
    }
}

/// What evidence makes of a descriptor.
fn shown_short(descriptor: &Descriptor) {
    let layer = descriptor.layer();
    assert_short(&layer.media_type);
    assert_short(&layer.digest);
}

/// A manifest: one byte for the type it is sent as, and the body.
pub(crate) fn manifest(data: &[u8]) {
    let (kind, body) = data.split_at(data.len().min(1));
    let kind = kind.first().map_or(0, |b| usize::from(*b));
    let media_type = MEDIA_TYPES[kind % MEDIA_TYPES.len()];
    let kind = Kind::of(&manifest::media_type(media_type));
    let wanted = [
        "linux/amd64",
        "linux/amd64/v3",
        "linux/arm64/v9.2",
        "linux/arm/v7",
    ]
    .map(|text| text.parse::<Platform>().expect("a platform"));
    for wanted in &wanted {
        manifest_for(body, kind, wanted);
    }
    let own = manifest::sha256(body);
    check_digest(&own).expect("a digest");
    manifest::verify(body, &own).expect("its own digest");
    let _ = manifest::parse_config(body, &[0, 2]);
}

fn manifest_for(body: &[u8], kind: Kind, wanted: &Platform) {
    let read = manifest::parse(body, kind, wanted);
    assert_eq!(read, manifest::parse(body, kind, wanted));
    match read {
        Ok(Manifest::Index(index)) => {
            assert!(index.platforms.len() <= 64);
            for platform in &index.platforms {
                assert_printable(platform);
            }
            let entries = &index.entries;
            for entry in entries {
                shown_short(&entry.descriptor);
                if let Some(platform) = &entry.platform {
                    assert_short(&platform.os);
                    assert_short(&platform.architecture);
                }
            }
            let best = manifest::select(entries, wanted, false);
            assert!(best.len() <= 1);
            for selected in best.iter().chain(&manifest::select(entries, wanted, true)) {
                assert!(entries.iter().any(|e| std::ptr::eq(e, *selected)));
            }
            // The first of those that say exactly this one.
            let exact = entries.iter().find(|e| e.platform.as_ref() == Some(wanted));
            if let Some(exact) = exact {
                assert_eq!(best, [exact], "{wanted}");
            }
            let any = entries.iter().any(|e| e.platform.is_none());
            assert!(!any || !best.is_empty());
        }
        Ok(Manifest::Image(image)) => {
            let shown = image.layers.shown();
            assert!(shown.len() <= image.layers.count && shown.len() <= 128);
            for layer in shown.iter().copied().chain([&image.config]) {
                shown_short(layer);
            }
            let shown: Vec<Descriptor> = shown.into_iter().cloned().collect();
            if let Some(witness) = manifest::witness(&shown) {
                assert_eq!(shown.iter().map(|l| l.size).max(), Some(witness.size));
            }
        }
        Err(fault) => {
            let shown = json(&fault);
            assert_printable(&shown);
            assert!(shown.len() <= 6 * MAX_SHOWN + 200, "{shown}");
            assert!(matches!(
                fault,
                ManifestFault::Malformed { .. }
                    | ManifestFault::Unsupported { .. }
                    | ManifestFault::Undecided { .. }
            ));
        }
    }
}

const MEDIA_TYPES: [Option<&str>; 8] = [
    None,
    Some("application/vnd.oci.image.index.v1+json"),
    Some("application/vnd.oci.image.manifest.v1+json"),
    Some("application/vnd.docker.distribution.manifest.v2+json"),
    Some("application/vnd.docker.distribution.manifest.list.v2+json; charset=utf-8"),
    Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
    Some("text/plain"),
    Some("application/json"),
];

/// A configuration.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Config::parse(text) {
        Ok(config) => {
            for mapped in config.network.declared().cidrs {
                assert_eq!(mapped.cidr, mapped.cidr.trunc());
            }
            for echo in &config.network.egress.echo {
                assert!(echo.0.password().is_none() && echo.0.username().is_empty());
            }
        }
        Err(error) => assert!(
            !error.what.is_empty() && !error.what.contains('\n'),
            "{error:?}"
        ),
    }
}

/// A downward API file.
pub(crate) fn annotations(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let eip = pod::read(&text, "annotations");
    // Nothing of it is kept but what is about the EIP.
    if let Some(problem) = &eip.problem {
        assert!(eip.allocated.is_none(), "{problem}");
        assert!(!problem.contains('\n'), "{problem:?}");
    }
    if eip.allocated.is_some() {
        assert!(eip.problem.is_none());
    }
}

/// A DNS message. Its first byte says which family was asked for, whether over TCP, and whether
/// header and question stand before the records as they should, so that the input is the counts of
/// the sections and the records.
pub(crate) fn dns_answer(data: &[u8]) {
    let (mode, rest) = data.split_at(data.len().min(1));
    let mode = mode.first().copied().unwrap_or_default();
    let (family, kind) = if mode & 1 == 0 {
        (Family::V4, 1)
    } else {
        (Family::V6, 28)
    };
    let tcp = mode & 2 != 0;
    let packet = if mode & 4 == 0 {
        rest.to_vec()
    } else {
        // Flags and the three counts, a byte each but for the flags.
        let at = |i: usize| rest.get(i).copied().unwrap_or_default();
        let mut packet = ID.to_be_bytes().to_vec();
        packet.extend([at(0) | 0x80, at(1), 0, 1, 0, at(2), 0, at(3), 0, at(4)]);
        packet.extend(NAME_ON_THE_WIRE);
        packet.extend([0, kind, 0, 1]);
        packet.extend(rest.get(5..).unwrap_or_default());
        packet
    };
    let read = || dns::read_packet(&packet, ID, NAME, family, tcp);
    let outcome = read();
    assert_eq!(outcome, read());
    let is_truncated = packet.get(2).is_some_and(|flags| flags & 2 != 0);
    match &outcome {
        Ok(None) => assert!(!tcp && is_truncated),
        Ok(Some(answer)) => {
            assert!(tcp || !is_truncated);
            assert_eq!(packet[..2], ID.to_be_bytes());
            assert!(!answer.records.is_empty());
            // A record takes eleven bytes and its address.
            assert!(answer.records.len() <= packet.len() / 15);
            for record in &answer.records {
                assert_eq!(Family::of(record.address), family);
                assert!(record.ttl_seconds <= i32::MAX.unsigned_abs());
            }
            assert!(answer.cnames.len() <= 16);
            for name in &answer.cnames {
                assert!(name.chars().count() <= 255);
                assert_printable(name);
            }
        }
        Err(DnsFault::Malformed { reason }) => assert!(reason.len() < 100),
        Err(DnsFault::OtherCode { code }) => assert!(code.len() < 20),
        Err(fault) => assert!(matches!(
            fault,
            DnsFault::NxDomain | DnsFault::NoData | DnsFault::ServFail | DnsFault::Refused
        )),
    }
    // What Go would make of it, were it the only answer.
    let families = match family {
        Family::V4 => dns::Families::V4Only,
        Family::V6 => dns::Families::V6Only,
    };
    let Some(result) = outcome.transpose() else {
        return;
    };
    let query = Query {
        server: SocketAddr::from(([192, 0, 2, 53], 53)),
        name: NAME.to_owned(),
        family,
        tcp,
        truncated_after: None,
        large_answer_bytes: None,
        negative: None,
        outcome: Step::from_result(result.clone(), Duration::ZERO),
    };
    let host = NAME.trim_end_matches('.');
    let settings = ResolverSettings {
        nameservers: vec![query.server],
        ..ResolverSettings::default()
    };
    let concluded = dns::conclude(host, &settings, families, &[query]);
    match (result, concluded) {
        (Ok(answer), Ok(resolution)) => {
            assert!(
                answer
                    .records
                    .iter()
                    .all(|r| resolution.addresses.contains(&r.address))
            );
            assert_eq!(answer.cnames, resolution.cnames);
        }
        (Err(fault), Err(reported)) => assert_eq!(fault, reported),
        other => panic!("{other:?}"),
    }
}

const ID: u16 = 0x1234;
const NAME: &str = "registry.example.com.";
const NAME_ON_THE_WIRE: &[u8] = b"\x08registry\x07example\x03com\0";

pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("evidence is JSON")
}

/// What the first byte says to do with the rest: `0` and up.
pub(crate) fn choose(data: &[u8]) -> (usize, &[u8]) {
    match data.split_first() {
        Some((choice, rest)) => (usize::from(choice.wrapping_sub(b'0') % 16), rest),
        None => (0, data),
    }
}

/// The input has it by itself, perhaps with something between that is taken out, and may be shown.
pub(crate) fn spells_canary(data: &[u8]) -> bool {
    let mut text = String::from_utf8_lossy(data).to_lowercase();
    text.retain(char::is_alphanumeric);
    text.contains(CANARY_WORD) || text.contains(&ENCODED_WORD.to_lowercase())
}

/// All texts of a document, one a line, as they are without JSON's escapes.
pub(crate) fn texts_of(json: &str) -> String {
    texts(&serde_json::from_str(json).expect("JSON"))
}

fn texts(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => format!("{text}\n"),
        serde_json::Value::Array(values) => values.iter().map(texts).collect(),
        serde_json::Value::Object(map) => map.values().map(texts).collect(),
        _ => String::new(),
    }
}

pub(crate) fn assert_hidden(shown: &(impl Debug + AsRef<str>)) {
    assert!(!shown.as_ref().contains(CANARY_WORD), "{shown:?}");
    assert!(!shown.as_ref().contains(ENCODED_WORD), "{shown:?}");
}

pub(crate) fn assert_printable(text: &str) {
    let lines = text.replace('\n', " ");
    assert!(!lines.contains(char::is_control), "{text:?}");
}

fn assert_short(text: &str) {
    assert!(text.chars().count() <= MAX_SHOWN, "{text:?}");
    assert_printable(text);
}
