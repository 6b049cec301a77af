//! A lookup by Go's own resolver (Go 1.19 to 1.27, `net/dnsclient_unix.go`: `goLookupIPCNAMEOrder`, `tryOneName`).
//!
//! A and AAAA are asked at the same time, and both are waited for. Each goes through the servers once for each attempt;
//! a word that there is nothing ends it, anything else leads to the next server. With `rotate`, each name and family
//! begins with the server after that of the one before; which of A and AAAA comes first is left to Go's scheduler.

use std::time::Duration;

use super::names::name_list;
use super::{Ending, Exchange, Lookup, Outcome, Word};
use crate::model::fault::DnsFault;
use crate::model::resolve::Family;

/// Every outcome that a lookup may have; one without `rotate`.
pub fn outcomes<'a>(lookup: &Lookup<'a>) -> Vec<Outcome<'a>> {
    let settings = lookup.settings;
    let servers = settings.nameservers.len();
    if !settings.rotate || servers < 2 {
        return vec![outcome(lookup, &|_, _| 0)];
    }
    let names = name_list(&lookup.host, &settings.search, settings.ndots).len();
    let families = lookup.families.len();
    // Which family comes first, for each name: a bit.
    let orders = if settings.single_request || families < 2 {
        1
    } else {
        1 << names.min(MOST_NAMES)
    };
    (0..servers)
        .flat_map(|start| (0..orders).map(move |order| (start, order)))
        .map(|(start, order): (usize, usize)| {
            outcome(lookup, &|name, family| {
                let swapped = order >> (name % MOST_NAMES) & 1;
                (start + name * families + (family ^ swapped)) % servers
            })
        })
        .collect()
}

/// Names whose order of families is varied one by one.
const MOST_NAMES: usize = 4;

/// `offset`: the first server, for the index of a name and of a family.
fn outcome<'a>(lookup: &Lookup<'a>, offset: &dyn Fn(usize, usize) -> usize) -> Outcome<'a> {
    let settings = lookup.settings;
    let as_written = format!("{}.", lookup.host);
    let (mut took, mut exchanges) = (Duration::ZERO, Vec::new());
    let mut reported: Option<DnsFault> = None;
    let names = name_list(&lookup.host, &settings.search, settings.ndots);
    for (index, name) in names.into_iter().enumerate() {
        let mut passes = Vec::new();
        let begins = took;
        for (number, family) in lookup.families.iter().enumerate() {
            let start = if settings.single_request {
                took
            } else {
                begins
            };
            let pass = pass(lookup, &name, *family, offset(index, number), start);
            took = took.max(pass.ends);
            passes.push(pass);
        }
        let is_known = passes.iter().all(|pass| pass.word != Word::NotAsked);
        let mut answers = Vec::new();
        for pass in &mut passes {
            exchanges.append(&mut pass.exchanges);
            if let Word::Addresses(query, answer) = pass.word {
                answers.push((query, answer));
            }
        }
        let ending = if !answers.is_empty() {
            Ending::Found { name, answers }
        } else if !is_known {
            Ending::Unknown
        } else {
            // Go takes the families in the order of their answers. It keeps the first error of all, but the last one
            // for the name as written.
            passes.sort_by_key(|pass| pass.ends);
            for pass in passes {
                if reported.is_none() || name == as_written {
                    reported = Some(match pass.word {
                        Word::Nothing(fault) | Word::Trouble(fault) => fault.clone(),
                        _ => DnsFault::Timeout,
                    });
                }
            }
            continue;
        };
        return Outcome {
            ending,
            took,
            exchanges,
        };
    }
    Outcome {
        // There is no name to query: it is .onion, or too long. Go reports "no such host".
        ending: Ending::Failed(reported.unwrap_or(DnsFault::NxDomain)),
        took,
        exchanges,
    }
}

/// The pass over the servers for one name and family.
struct Pass<'a> {
    word: Word<'a>,
    ends: Duration,
    exchanges: Vec<Exchange<'a>>,
}

fn pass<'a>(
    lookup: &Lookup<'a>,
    name: &str,
    family: Family,
    offset: usize,
    begins: Duration,
) -> Pass<'a> {
    let settings = lookup.settings;
    let servers = &settings.nameservers;
    let mut pass = Pass {
        word: Word::Silence,
        ends: begins,
        exchanges: Vec::new(),
    };
    for attempt in 0..settings.attempts.clamp(1, MOST_ATTEMPTS) {
        for index in 0..servers.len() {
            let server = servers[(offset + index) % servers.len()];
            let reply = lookup.reply(name, family, server, attempt);
            pass.exchanges.push(Exchange {
                name: name.to_owned(),
                server,
                family,
                begins: pass.ends,
                reply,
            });
            pass.word = reply.word;
            pass.ends += reply.took;
            if !matches!(reply.word, Word::Trouble(_) | Word::Silence) {
                return pass;
            }
        }
    }
    pass
}

/// Further attempts are past every limit of a dial.
const MOST_ATTEMPTS: usize = 64;
