//! The possible results of a lookup: every outcome of every resolver that the runtime may use.

use std::time::Duration;

use super::order::{Order, orders};
use super::{Ending, Lookup, Outcome, Word, go, libc};
use crate::model::fault::DnsFault;
use crate::model::resolver::NameSource;

/// containerd's limit for a dial (`net.Dialer.Timeout`), in which the lookup is included.
pub const DIAL_LIMIT: Duration = Duration::from_secs(30);

/// One way in which a lookup may go.
#[derive(Clone, Debug)]
pub struct Way<'a> {
    /// The resolver.
    pub order: Order,
    /// A source of libc's that comes before DNS, or answers in its place, and was not asked here.
    pub not_asked: Option<&'a NameSource>,
    /// What DNS gives.
    pub outcome: Outcome<'a>,
}

/// What a pull gets from a lookup.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Result<'w> {
    /// Addresses, in time.
    Found,
    /// Addresses, or an error, after the limit of the dial.
    TooLate,
    /// An error.
    Failed(&'w DnsFault),
    /// What decides was not observed.
    Unknown,
}

/// Every way, Go's own resolver first.
pub fn ways<'a>(lookup: &Lookup<'a>) -> Vec<Way<'a>> {
    orders(&lookup.host, lookup.settings)
        .into_iter()
        .flat_map(|order| {
            let not_asked = (order == Order::Libc)
                .then(|| source_not_asked(lookup))
                .flatten();
            outcomes(lookup, order, not_asked)
                .into_iter()
                .map(move |outcome| Way {
                    order,
                    not_asked,
                    outcome,
                })
        })
        .collect()
}

impl Way<'_> {
    /// What a pull gets.
    pub fn result(&self) -> Result<'_> {
        match &self.outcome.ending {
            _ if self.outcome.took >= DIAL_LIMIT => Result::TooLate,
            Ending::Unknown => Result::Unknown,
            Ending::Found { .. } => Result::Found,
            Ending::Failed(_) if self.not_asked.is_some() => Result::Unknown,
            // A server that was not waited for long enough may know what a later one does not.
            Ending::Failed(fault) if *fault != DnsFault::Timeout && self.is_cut_off() => {
                Result::Unknown
            }
            Ending::Failed(fault) => Result::Failed(fault),
        }
    }

    /// Some server said something.
    pub fn is_heard(&self) -> bool {
        let word = |word: Word<'_>| matches!(word, Word::Addresses(..) | Word::Nothing(_));
        self.outcome.exchanges.iter().any(|e| word(e.reply.word))
    }

    fn is_cut_off(&self) -> bool {
        self.outcome.exchanges.iter().any(|e| e.reply.is_cut_off)
    }
}

fn outcomes<'a>(
    lookup: &Lookup<'a>,
    order: Order,
    not_asked: Option<&NameSource>,
) -> Vec<Outcome<'a>> {
    let sources = &lookup.settings.sources;
    let has_dns = sources.list.is_empty() || sources.has("dns");
    let ends_before_dns = not_asked.is_some_and(|source| {
        let is_mdns = source.name.starts_with("mdns");
        is_mdns
            && source
                .actions
                .iter()
                .any(|action| action == "notfound=return")
    });
    match order {
        Order::Files => vec![Outcome::without_query()],
        Order::Libc if !has_dns || ends_before_dns => vec![Outcome::without_query()],
        Order::Libc => libc::outcomes(lookup),
        Order::FilesDns | Order::DnsFiles | Order::Dns => go::outcomes(lookup),
    }
}

/// The source of libc's that may know the name: a service of the node, or the local network.
fn source_not_asked<'a>(lookup: &Lookup<'a>) -> Option<&'a NameSource> {
    let settings = lookup.settings;
    let host = lookup.host.trim_end_matches('.');
    let is_local = host.to_ascii_lowercase().ends_with(".local");
    settings
        .sources
        .list
        .iter()
        .find(|source| match source.name.as_str() {
            // systemd-resolved asks the servers of resolv.conf, as a rule.
            "files" | "dns" | "resolve" => false,
            "myhostname" => !host.contains('.') || host.eq_ignore_ascii_case(&settings.host_name),
            name if name.starts_with("mdns") => is_local,
            _ => true,
        })
}

impl Outcome<'_> {
    /// No name server is asked.
    fn without_query() -> Self {
        Self {
            ending: Ending::Failed(DnsFault::NxDomain),
            took: Duration::ZERO,
            exchanges: Vec::new(),
        }
    }
}
