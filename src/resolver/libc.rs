//! A lookup by glibc's resolver (2.36 and 2.41: `getaddrinfo` with `gethostbyname4_r`, `res_nsearch`, `res_nsend`).
//!
//! It differs from Go's own: A and AAAA of a name are one exchange with one server, which ends with the first usable
//! answer of either; the time for a server depends on its place; no server that answers SERVFAIL, REFUSED or NOTIMP is
//! believed; a name that gets no answer ends the search list, and the name as written is asked last.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Ending, Exchange, Lookup, Outcome, Reply, Word};
use crate::model::fault::DnsFault;
use crate::model::resolve::Family;

/// Every outcome that a lookup may have; one without `rotate`.
pub fn outcomes<'a>(lookup: &Lookup<'a>) -> Vec<Outcome<'a>> {
    let servers = lookup.settings.nameservers.len();
    let starts = if lookup.settings.rotate { servers } else { 1 };
    (0..starts.max(1))
        .map(|start| search(lookup, start))
        .collect()
}

/// What one name gives.
enum Found<'a> {
    Addresses(Ending<'a>),
    /// The search goes on.
    Nothing(DnsFault),
    /// The search ends; the name as written is still asked.
    Trouble(DnsFault),
    /// No server listens: the whole lookup ends.
    Refused(DnsFault),
    Unknown,
}

fn search<'a>(lookup: &Lookup<'a>, start: usize) -> Outcome<'a> {
    let settings = lookup.settings;
    let mut sends = Sends {
        lookup,
        number: start,
        took: Duration::ZERO,
        exchanges: Vec::new(),
        is_single: settings.single_request,
    };
    let is_rooted = lookup.host.ends_with('.');
    let as_written = if is_rooted {
        lookup.host.clone()
    } else {
        format!("{}.", lookup.host)
    };
    let dots = lookup.host.bytes().filter(|b| *b == b'.').count();
    let is_first = is_rooted || dots >= settings.ndots;
    let mut reported = None;
    let ending = 'ended: {
        if is_first {
            match sends.query(&as_written) {
                Found::Addresses(ending) => break 'ended ending,
                Found::Unknown => break 'ended Ending::Unknown,
                Found::Nothing(fault) | Found::Trouble(fault) | Found::Refused(fault) => {
                    reported = Some(fault);
                }
            }
        }
        for suffix in settings.search.iter().filter(|_| !is_rooted) {
            match sends.query(&format!("{as_written}{suffix}")) {
                Found::Addresses(ending) => break 'ended ending,
                Found::Unknown => break 'ended Ending::Unknown,
                Found::Refused(fault) => break 'ended Ending::Failed(fault),
                Found::Nothing(fault) => {
                    reported.get_or_insert(fault);
                }
                Found::Trouble(fault) => {
                    reported.get_or_insert(fault);
                    break;
                }
            }
        }
        if !is_first {
            match sends.query(&as_written) {
                Found::Addresses(ending) => break 'ended ending,
                Found::Unknown => break 'ended Ending::Unknown,
                Found::Nothing(fault) | Found::Trouble(fault) | Found::Refused(fault) => {
                    reported = Some(fault);
                }
            }
        }
        Ending::Failed(reported.unwrap_or(DnsFault::NxDomain))
    };
    Outcome {
        ending,
        took: sends.took,
        exchanges: sends.exchanges,
    }
}

/// The exchanges of one lookup.
struct Sends<'a, 'l> {
    lookup: &'l Lookup<'a>,
    /// Of names so far: with `rotate`, each begins with another server.
    number: usize,
    took: Duration,
    exchanges: Vec<Exchange<'a>>,
    /// A and AAAA one after the other: by an option, or because one of them got no answer.
    is_single: bool,
}

impl<'a> Sends<'a, '_> {
    /// One name at all servers, as often as the attempts allow (`res_nsend`).
    fn query(&mut self, name: &str) -> Found<'a> {
        let settings = self.lookup.settings;
        let servers = &settings.nameservers;
        let offset = if settings.rotate { self.number } else { 0 };
        self.number += 1;
        let attempts = match settings.attempts {
            more if settings.use_tcp => more.min(1),
            more => more.min(MOST_ATTEMPTS),
        };
        let mut fault: Option<DnsFault> = None;
        let (mut is_silent, mut is_servfail) = (false, false);
        for attempt in 0..attempts {
            for index in 0..servers.len() {
                let index = (offset + index) % servers.len();
                let replies = self.ask(name, index, attempt);
                let mut answers = Vec::new();
                let mut nothing = None;
                for reply in &replies {
                    match reply.word {
                        Word::Addresses(query, answer) => answers.push((query, answer)),
                        Word::NotAsked => return Found::Unknown,
                        Word::Nothing(DnsFault::NxDomain) => nothing = Some(DnsFault::NxDomain),
                        Word::Nothing(other) => {
                            nothing.get_or_insert(other.clone());
                        }
                        Word::Silence => {
                            is_silent = true;
                            fault = Some(DnsFault::Timeout);
                        }
                        Word::Trouble(trouble) => {
                            is_silent |= !is_refusal(trouble);
                            is_servfail |= *trouble == DnsFault::ServFail;
                            if let DnsFault::OtherCode { code } = trouble
                                && code != "NOTIMP"
                            {
                                return Found::Trouble(trouble.clone());
                            }
                            fault = Some(trouble.clone());
                        }
                    }
                }
                if !answers.is_empty() {
                    let name = name.to_owned();
                    return Found::Addresses(Ending::Found { name, answers });
                }
                // Without an answer for A, the word about AAAA is not one about the name.
                let is_heard = replies
                    .iter()
                    .all(|reply| !matches!(reply.word, Word::Silence));
                if let Some(nothing) = nothing.filter(|_| is_heard) {
                    return Found::Nothing(nothing);
                }
            }
        }
        match fault {
            // `attempts:0`: no server is asked.
            None => Found::Refused(DnsFault::NoServers),
            Some(fault) if !is_silent => Found::Refused(fault),
            Some(_) if is_servfail => Found::Nothing(DnsFault::ServFail),
            Some(fault) => Found::Trouble(fault),
        }
    }

    /// Queries that are sent at the same time.
    fn add_parallel(
        &mut self,
        name: &str,
        server: SocketAddr,
        families: &[Family],
        replies: &[Reply<'a>],
    ) {
        let begins = self.took;
        for (family, reply) in families.iter().zip(replies) {
            self.push(name, server, *family, begins, *reply);
            self.took = self.took.max(begins + reply.took);
        }
    }

    /// Both families at one server.
    fn ask(&mut self, name: &str, index: usize, attempt: usize) -> Vec<Reply<'a>> {
        let settings = self.lookup.settings;
        let server = settings.nameservers[index];
        let limit = self.limit(index);
        let families = self.lookup.families.iter().copied();
        let families: Vec<Family> = families
            .filter(|family| !(settings.no_aaaa && *family == Family::V6))
            .collect();
        let replies: Vec<Reply<'a>> = families
            .iter()
            .map(|family| self.within(limit, self.lookup.reply(name, *family, server, attempt)))
            .collect();
        let is_silent = |reply: &Reply<'_>| matches!(reply.word, Word::Silence);
        if replies.len() < 2 || replies.iter().all(is_silent) || settings.use_tcp {
            self.add_parallel(name, server, &families, &replies);
            return replies;
        }
        // Both at once, first; if one gets no answer, again one after the other, then from another port.
        let mut is_reopened = false;
        loop {
            let begins = self.took;
            if !self.is_single {
                self.add_parallel(name, server, &families, &replies);
                if !replies.iter().any(is_silent) {
                    return replies;
                }
                self.is_single = true;
                continue;
            }
            self.push(name, server, families[0], begins, replies[0]);
            if is_silent(&replies[0]) {
                self.took += limit;
                return vec![replies[0]];
            }
            self.push(
                name,
                server,
                families[1],
                begins + replies[0].took,
                replies[1],
            );
            if !is_silent(&replies[1]) {
                self.took += replies[0].took + replies[1].took;
                return replies;
            }
            self.took += limit;
            if is_reopened {
                // The missing answer counts as an empty one.
                return vec![replies[0]];
            }
            is_reopened = true;
        }
    }

    fn push(
        &mut self,
        name: &str,
        server: SocketAddr,
        family: Family,
        begins: Duration,
        reply: Reply<'a>,
    ) {
        self.exchanges.push(Exchange {
            name: name.to_owned(),
            server,
            family,
            begins,
            reply,
        });
    }

    /// The time for one server: it doubles with each place in the list, and is divided by their number but for the
    /// first.
    fn limit(&self, index: usize) -> Duration {
        let settings = self.lookup.settings;
        let seconds = settings.timeout.min(LONGEST_TIMEOUT) * (1 << index.min(4));
        if index == 0 {
            return seconds;
        }
        let share = seconds / u32::try_from(settings.nameservers.len()).unwrap_or(1);
        Duration::from_secs(share.as_secs().max(1))
    }

    /// A reply that comes too late is none.
    fn within(&self, limit: Duration, reply: Reply<'a>) -> Reply<'a> {
        if self.lookup.settings.use_tcp {
            // No time limit but the kernel's own for a connection.
            let is_silent = matches!(reply.word, Word::Silence);
            return Reply {
                took: if is_silent { TCP_GIVES_UP } else { reply.took },
                ..reply
            };
        }
        match reply.word {
            Word::NotAsked => reply,
            Word::Silence => Reply {
                took: limit,
                ..reply
            },
            _ if reply.took > limit => Reply {
                word: Word::Silence,
                took: limit,
                is_cut_off: false,
            },
            _ => reply,
        }
    }
}

/// The socket's error: nothing was received, and nothing was waited for.
fn is_refusal(fault: &DnsFault) -> bool {
    matches!(fault, DnsFault::PortClosed | DnsFault::Unreachable { .. })
}

/// resolv.conf(5): `RES_MAXRETRY`.
const MOST_ATTEMPTS: usize = 5;
/// resolv.conf(5): `RES_MAXRETRANS`.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);
/// tcp(7), `tcp_syn_retries`.
const TCP_GIVES_UP: Duration = Duration::from_secs(127);
