//! What one lookup of a host name gives and costs, simulated on the record of the servers' answers: by Go's own
//! resolver, and by libc's where Go hands over to it.
//!
//! Pure. The record ([`Query`]) has every server's answer and when it came. A server that was silent costs its whole
//! timeout, however long the check itself waited.

pub mod go;
pub mod libc;
pub mod names;
pub mod order;
pub mod outlook;

use std::net::SocketAddr;
use std::time::Duration;

use crate::model::fault::DnsFault;
use crate::model::resolve::{Answer, Family, Query};
use crate::model::resolver::ResolverSettings;
use crate::model::step::Step;

/// One lookup: what is asked, and the record of the answers.
#[derive(Clone, Debug)]
pub struct Lookup<'a> {
    /// The name as written.
    pub host: String,
    /// The settings.
    pub settings: &'a ResolverSettings,
    /// The families that are asked for.
    pub families: &'a [Family],
    /// The record.
    pub queries: &'a [Query],
}

/// How a lookup ends.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    /// The result.
    pub ending: Ending<'a>,
    /// How long it takes.
    pub took: Duration,
    /// The exchanges, in their order for each name and family.
    pub exchanges: Vec<Exchange<'a>>,
}

/// The result of a lookup.
#[derive(Clone, Debug)]
pub enum Ending<'a> {
    /// A name has addresses.
    Found {
        /// The full name.
        name: String,
        /// The answers, A before AAAA.
        answers: Vec<(&'a Query, &'a Answer)>,
    },
    /// The fault that is reported.
    Failed(DnsFault),
    /// A query that decides was not made.
    Unknown,
}

/// One query of a simulated lookup.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Exchange<'a> {
    /// The full name.
    pub name: String,
    /// The server.
    pub server: SocketAddr,
    /// The family.
    pub family: Family,
    /// When it begins, from the start of the lookup.
    pub begins: Duration,
    /// What comes back, and when.
    pub reply: Reply<'a>,
}

/// What a query gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reply<'a> {
    /// What the server answers.
    pub word: Word<'a>,
    /// After how long; for a silent server, its timeout.
    pub took: Duration,
    /// The check waited for less than the timeout: the server may still answer.
    pub is_cut_off: bool,
}

/// A server's answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Word<'a> {
    /// Addresses.
    Addresses(&'a Query, &'a Answer),
    /// The name does not exist, or has no such address.
    Nothing(&'a DnsFault),
    /// An error.
    Trouble(&'a DnsFault),
    /// No answer.
    Silence,
    /// It was not asked.
    NotAsked,
}

impl<'a> Lookup<'a> {
    /// What a server answers when it is asked for the n-th time; if it was asked less often, what it answered last.
    fn reply(&self, name: &str, family: Family, server: SocketAddr, attempt: usize) -> Reply<'a> {
        let mut asked = self
            .queries
            .iter()
            .filter(|query| query.server == server && query.family == family && query.name == name);
        let timeout = self.settings.timeout;
        let first = asked.next();
        let last = asked.take(attempt).last().or(first);
        let Some(query) = last else {
            return Reply {
                word: Word::NotAsked,
                took: Duration::ZERO,
                is_cut_off: false,
            };
        };
        let (word, took) = match &query.outcome {
            Step::Done { value, took } if value.records.is_empty() => {
                (Word::Nothing(&DnsFault::NoData), *took)
            }
            Step::Done { value, took } => (Word::Addresses(query, value), *took),
            Step::Failed { fault, took } => match fault {
                DnsFault::NxDomain | DnsFault::NoData => (Word::Nothing(fault), *took),
                DnsFault::Timeout => (Word::Silence, timeout.max(*took)),
                _ => (Word::Trouble(fault), *took),
            },
            Step::Skipped { .. } => (Word::NotAsked, Duration::ZERO),
        };
        let waited = query.outcome.took().unwrap_or_default();
        Reply {
            word,
            took,
            // Timers are not exact.
            is_cut_off: word == Word::Silence && waited < timeout * 9 / 10,
        }
    }
}
