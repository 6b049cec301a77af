//! The fuzz targets of `tests/fuzz` without a fuzzer: every file of their corpora, and for a short
//! while inputs made of them by chance, always the same ones.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "fuzz/cluster.rs"]
mod cluster;
#[path = "fuzz/listener.rs"]
mod listener;
#[path = "fuzz/logic.rs"]
mod logic;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// Replays a corpus, then mixes and changes its entries.
fn replay(name: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    for (file, entry) in files.iter().zip(&corpus) {
        check(run, entry, &file.display().to_string());
    }
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let began = Instant::now();
    for round in 0..ROUNDS {
        if began.elapsed() > LONGEST {
            break;
        }
        check(run, &mutant(&corpus, &mut dice), &format!("round {round}"));
    }
}

/// Says which input it was.
fn check(run: fn(&[u8]), input: &[u8], name: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(input))) {
        let text = String::from_utf8_lossy(input);
        let bytes: String = input.escape_ascii().to_string();
        eprint_input(name, &text, &bytes);
        resume_unwind(panic);
    }
}

#[allow(clippy::print_stderr, reason = "a failing test has to name its input")]
fn eprint_input(name: &str, text: &str, bytes: &str) {
    eprintln!("{name}:\n{text}\nb\"{bytes}\"");
}

/// An entry with a few bytes changed, taken out, repeated, or put in from another entry.
fn mutant(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(4) {
        let at = dice.below(input.len() + 1);
        let end = at + dice.below((input.len() - at).min(32) + 1);
        match dice.below(6) {
            0 => drop(input.drain(at..end)),
            1 => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece);
            }
            2 => {
                let other = &corpus[dice.below(corpus.len())];
                let from = dice.below(other.len() + 1);
                let to = from + dice.below((other.len() - from).min(64) + 1);
                input.splice(at..end, other[from..to].iter().copied());
            }
            3 => {
                let byte = SPECIAL[dice.below(SPECIAL.len())];
                input.splice(at..end.min(at + 1), [byte]);
            }
            4 => input.truncate(at),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
        }
    }
    input.truncate(4096);
    input
}

/// What means something in one of the formats.
const SPECIAL: &[u8] = b"\0\x01\x0c\x80\xc0\xff\"'\\/:@.,;=?#%*&-_[]{}<>|! \t\r\n019azAZ";

/// Numbers by chance, the same ones each time (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// So many inputs, or for so long on a machine that is slow.
const ROUNDS: usize = 20_000;
const LONGEST: Duration = Duration::from_secs(2);

#[test]
fn reference() {
    replay("reference", logic::reference);
}

#[test]
fn challenge() {
    replay("challenge", logic::challenge);
}

#[test]
fn docker_config() {
    replay("docker_config", logic::docker_config);
}

#[test]
fn hosts_toml() {
    replay("hosts_toml", logic::hosts_toml);
}

#[test]
fn oci_error() {
    replay("oci_error", logic::oci_error);
}

#[test]
fn manifest() {
    replay("manifest", logic::manifest);
}

#[test]
fn dns_answer() {
    replay("dns_answer", logic::dns_answer);
}

#[test]
fn config() {
    replay("config", logic::config);
}

#[test]
fn annotations() {
    replay("annotations", logic::annotations);
}

#[test]
fn event_text() {
    replay("event_text", cluster::event_text);
}

#[test]
fn kubeconfig() {
    replay("kubeconfig", cluster::kubeconfig);
}

#[test]
fn config_toml() {
    replay("config_toml", cluster::config_toml);
}

#[test]
fn workloads() {
    replay("workloads", cluster::workloads);
}

#[test]
fn http_request() {
    replay("http_request", listener::http_request);
}
