//! Our verdict on certificates beside Go's: chains made by `tests/trust/judge`, and what each build of
//! Go said of them (`tests/trust/run` says it again).

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pullpath::trust::refusal::Fault;
use pullpath::trust::{GoBuild, Pool, Verdict, verify};
use serde::Deserialize;

#[derive(Deserialize)]
struct Book {
    now: i64,
    certificates: Vec<String>,
    chains: Vec<Chain>,
}

#[derive(Deserialize)]
struct Chain {
    name: String,
    host: String,
    sent: Vec<usize>,
    roots: Vec<usize>,
}

/// One build, with its words by the names of the chains.
#[derive(Deserialize)]
struct Judge {
    release: (u8, u8),
    language: u8,
    said: BTreeMap<String, String>,
}

fn read<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let path = format!("{}/tests/trust/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Beyond what our library can check: RSA keys that are shorter than 1024 bits or, with SHA-384 and PSS,
/// than 2048; the curve P-224.
const UNKNOWN: [&str; 5] = [
    "p224",
    "rsa-1023",
    "rsa-1024-pss",
    "rsa-1024-sha384",
    "rsa-512",
];

/// The kind of a fault, as the judge names Go's errors.
fn kind(fault: &Fault) -> &'static str {
    match fault {
        Fault::Unreadable(_) => "unreadable",
        Fault::CriticalExtension => "critical",
        Fault::Expired | Fault::NotYetValid => "expired",
        Fault::Name => "name",
        Fault::UnknownAuthority { .. } | Fault::OtherKey | Fault::Signature(_) => {
            "unknown_authority"
        }
        Fault::MayNotSign(_) => "may_not_sign",
        Fault::PathTooLong => "path_length",
        Fault::NotPermitted(_) => "name_constraints",
        Fault::Purpose => "purpose",
        Fault::TooManyChecks => "other: x509: signature check attempts limit",
        Fault::Policies => "other: x509: no valid chains built",
        Fault::Key => "key",
    }
}

#[test]
fn the_verdict_is_that_of_each_build_of_go() {
    let book: Book = read("chains.json");
    let judges: Vec<Judge> = read("verdicts.json");
    assert!(book.chains.len() >= 60 && judges.len() >= 5);
    let certificates: Vec<Vec<u8>> = book
        .certificates
        .iter()
        .map(|text| STANDARD.decode(text).unwrap())
        .collect();
    let mut unknown = BTreeSet::new();
    for judge in &judges {
        let build = GoBuild {
            of: "the judge",
            release: judge.release,
            language: judge.language,
        };
        assert_eq!(judge.said.len(), book.chains.len());
        for chain in &book.chains {
            let mut pool = Pool::default();
            for root in &chain.roots {
                // Go leaves out what it can't read, too.
                let _ = pool.add(&certificates[*root], &"roots".into());
            }
            let sent: Vec<&[u8]> = chain
                .sent
                .iter()
                .map(|place| certificates[*place].as_slice())
                .collect();
            let said = &judge.said[&chain.name];
            match verify(
                &pool,
                &sent,
                &chain.host,
                book.now,
                std::slice::from_ref(&build),
            ) {
                Verdict::Unknown { .. } => {
                    unknown.insert(chain.name.as_str());
                }
                Verdict::Trusted { .. } => assert_eq!(said, "ok", "{} by {build}", chain.name),
                Verdict::Refused(refusal) => assert!(
                    said.starts_with(kind(&refusal.fault)),
                    "{} by {build}: {said}, not {:?}",
                    chain.name,
                    refusal
                ),
            }
        }
    }
    assert_eq!(unknown, BTreeSet::from(UNKNOWN));
}

#[test]
fn where_builds_differ_nothing_is_decided_and_each_is_reported() {
    let book: Book = read("chains.json");
    let build = |of, release, language| GoBuild {
        of,
        release,
        language,
    };
    let builds = [
        build("the one", (19, 8), 20),
        build("the other", (27, 1), 27),
    ];
    let chain = book
        .chains
        .iter()
        .find(|chain| chain.name == "negative-serial")
        .unwrap();
    let der = |place: &usize| STANDARD.decode(&book.certificates[*place]).unwrap();
    let mut pool = Pool::default();
    for root in &chain.roots {
        pool.add(&der(root), &"roots".into()).unwrap();
    }
    let leaf = der(&chain.sent[0]);
    let Verdict::Unknown { reason } = verify(&pool, &[&leaf], &chain.host, book.now, &builds)
    else {
        panic!("decided");
    };
    assert!(reason.contains("trusted by the one (Go 1.19)"), "{reason}");
    assert!(
        reason.contains("rejected (negative serial number) by the other (Go 1.27)"),
        "{reason}"
    );
}

/// Whatever bytes come, there is a verdict, and none of trust.
#[test]
fn no_certificate_that_was_tampered_with_is_trusted() {
    let book: Book = read("chains.json");
    let chain = book
        .chains
        .iter()
        .find(|chain| chain.name == "direct")
        .unwrap();
    let der = |place: usize| STANDARD.decode(&book.certificates[place]).unwrap();
    let mut pool = Pool::default();
    pool.add(&der(chain.roots[0]), &"roots".into()).unwrap();
    let leaf = der(chain.sent[0]);
    let build = GoBuild {
        of: "the judge",
        release: (24, 4),
        language: 20,
    };
    let builds = [build];
    let judge = |leaf: &[u8]| verify(&pool, &[leaf], &chain.host, book.now, &builds);
    assert_eq!(judge(&leaf), Verdict::Trusted { by_itself: false });
    for at in 0..leaf.len() {
        for bit in 0..8 {
            let mut other = leaf.clone();
            other[at] ^= 1 << bit;
            let verdict = judge(&other);
            assert!(
                !matches!(verdict, Verdict::Trusted { .. }),
                "byte {at}, bit {bit}"
            );
        }
        let cut = judge(&leaf[..at]);
        assert!(matches!(cut, Verdict::Refused(_)), "cut at {at}");
    }
}
