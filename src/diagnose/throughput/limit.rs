//! Infers what limits the rate: a pure function of the stages of a transfer and the samples taken meanwhile.
//!
//! The strongest sign is how the sum of all streams changes with their number: if it stays the same, they
//! share a limit; if it grows, each has its own. Further signs are a queue or losses (a shaper or policer
//! causes them, a sender that paces does not), windows, bursts, and a control host elsewhere. If two causes
//! fit, neither is reported.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fit::Fit;
use super::rate::{bytes, mbit};
use super::stages::{self, StageRate};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;
use crate::model::path::PathClass;
use crate::model::transfer::{StageKind, TcpOptions, TcpSettings, Transfer, TransferStream};
use crate::model::units::HumanDuration;

/// What else is known about the leg that served the bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) class: Option<PathClass>,
    /// The declared bandwidth of the EIP in use.
    pub(super) eip_mbit: Option<u64>,
    /// The bandwidth of this machine according to the metadata service.
    pub(super) node_mbit: Option<u64>,
}

/// What limits the rate, with evidence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bound {
    pub(crate) cause: Cause,
    pub(crate) confidence: Confidence,
    pub(crate) facts: Vec<String>,
    /// Whether the limit is known to be on this side, not the registry's.
    pub(crate) is_ours: bool,
    /// The TCP option that is off and contributes to the limit.
    pub(crate) missing: Option<MissingOption>,
}

/// An option of TCP that a connection does without.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum MissingOption {
    /// Window scaling (RFC 7323).
    WindowScaling(Side),
    /// Selective acknowledgements (RFC 2018).
    Sack(Side),
}

/// Which side of a connection leaves an option out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// This network namespace does not offer it.
    Here,
    /// It is offered here: the server, or something on the path, does without it.
    There,
    /// The setting of this network namespace could not be read.
    Unknown,
}

impl Side {
    fn of(is_offered: Option<bool>) -> Self {
        match is_offered {
            Some(false) => Self::Here,
            Some(true) => Self::There,
            None => Self::Unknown,
        }
    }

    /// The fact about the side; `setting` is the name of the sysctl.
    fn fact(self, setting: &str) -> String {
        match self {
            Self::Here => {
                format!("it is off on this side: {setting} of this network namespace is 0")
            }
            Self::There => format!(
                "this side offers it ({setting} is on): the server does not, or something on the path removes it"
            ),
            Self::Unknown => format!(
                "which side does not offer it is unknown: {setting} of this network namespace could not be read"
            ),
        }
    }
}

impl Bound {
    pub(super) fn new(cause: Cause, confidence: Confidence, facts: Vec<String>) -> Self {
        Self {
            cause,
            confidence,
            facts,
            is_ours: matches!(cause, Cause::BwEipCap | Cause::BwNode | Cause::BwSelf),
            missing: None,
        }
    }
}

/// The largest ratio of two sums that still count as equal.
const SAME: f64 = 1.15;
/// The share of proportional growth that counts as growth with the number of connections.
const GROWN: f64 = 0.7;
/// The same for rates that vary because of losses.
const GROWN_LOSSY: f64 = 0.5;
/// Minimum duration of such a stage, in seconds.
const GROWN_SECONDS: f64 = 0.8;

/// The bytes in flight as a share of a window that is full.
const FULL: std::ops::Range<f64> = 0.6..1.5;

/// The extra latency that counts as a queue, in seconds and as a share: more than a busy CPU causes.
const QUEUE: f64 = 0.005;
const QUEUE_SHARE: f64 = 0.25;

/// The extra latency of a queue that is beyond doubt, in seconds and as a share: a shaper's, or one that other traffic
/// fills. A policer on a busy machine stays below it.
const CLEAR_QUEUE: f64 = 0.015;
const CLEAR_QUEUE_SHARE: f64 = 0.4;

/// A shaper whose queue is never empty sends the same number of bytes in every tenth of a second: the standard deviation
/// was at most 0.016 of the rate in the lab, and from 0.04 to 0.2 where a neighbor shared it. Windows hold enough
/// bytes that single packets don't count.
const STEADY: f64 = 0.03;
const STEADY_WINDOW: f64 = 0.1;
const STEADY_BYTES: f64 = 128e3;
const STEADY_WINDOWS: usize = 5;

/// What other programs of this machine send, from which it counts: bytes per second, and a share of the download.
const UPLOAD: f64 = 12_500.0;
const UPLOAD_SHARE: f64 = 0.05;
/// Bytes of an acknowledgement in an Ethernet frame, with timestamps and, after losses, SACK.
const ACKNOWLEDGEMENT: f64 = 78.0;
/// The largest ratio of what was sent at the start and at the end that counts as the same, and the growth of the
/// download's own part of it, as a share, from which that means something; in seconds, how long that takes.
const SAME_SENT: f64 = 1.1;
const MADE_ROOM: f64 = 0.1;
const MADE_ROOM_SECONDS: f64 = 1.5;
/// How much longer the round trips are, before a byte is read, than the shortest one: in seconds, and as a share of it.
const WAITING: f64 = 0.01;
const WAITING_SHARE: f64 = 0.05;
const WAITING_SAMPLES: usize = 3;

/// Without SACK, a connection whose rate drops to this share of its best one, for this many windows, is slowed by its
/// losses.
const SLOWED: f64 = 0.6;
const SLOWED_WINDOWS: usize = 2;
const SLOWED_WINDOW: f64 = 0.2;

/// The share of segments out of order that counts as loss, and the minimum number of samples that show it.
const LOSSY: f64 = 0.001;
const LOSSY_SAMPLES: usize = 3;

/// The share of time for which a CPU limit may throttle this process.
const THROTTLED: f64 = 0.05;
/// The share of time from which one CPU counts as busy.
const BUSY: f64 = 0.9;
/// The CPU can't be the limit of a shorter test, in seconds.
const SHORT: f64 = 0.5;

/// A control host has ramped up after this time, and its rate counts after that (in seconds).
const CONTROL_SETTLES: Duration = Duration::from_millis(150);
const CONTROL_SHORT: f64 = 0.3;
/// One that is this many times as fast uses up the bytes sooner, and its rate counts sooner.
const CONTROL_CLEAR: f64 = 3.0;
const CONTROL_CLEAR_SHORT: f64 = 0.2;

/// The minimum share of the expected ticks of this process's clock.
const STARVED: f64 = 0.5;

/// Other traffic on the same device that is tolerated, as a share of the test's.
const OTHERS: f64 = 0.05;
/// Overhead of Ethernet, IP and TCP headers.
const HEADERS: f64 = 1.06;

/// A burst worth reporting: bytes, and seconds at the sustained rate.
const BURST_BYTES: f64 = 1e6;
const BURST_SECONDS: f64 = 2.0;

/// Goodput as a share of the purchased bandwidth, which is metered with the headers of IP, or of Ethernet as
/// well, within the precision of the fit.
const BOUGHT: std::ops::RangeInclusive<f64> = 0.91..=1.01;

/// Why the test's rates do not count; `None` if they do.
pub(super) fn disturbance(transfer: &Transfer) -> Option<(Option<Cause>, String)> {
    if let Some(reason) = own_limit(transfer) {
        return Some((Some(Cause::BwSelf), reason));
    }
    let others = others(transfer)?;
    let ours = stages::mean(&stages::part(&transfer.arrivals, Duration::ZERO, None))?;
    let device = transfer.device.as_ref().map_or("", |d| d.device.as_str());
    let rate = mbit(others);
    let says = format!(
        "{device} also received {rate} of other traffic: other programs on this machine used the same path"
    );
    (others > OTHERS * ours).then_some((None, says))
}

/// This process had too little CPU, or did not read the data that had arrived.
fn own_limit(transfer: &Transfer) -> Option<String> {
    let cpu = transfer.cpu?;
    let over = cpu.over.as_secs_f64();
    if over < SHORT {
        return None;
    }
    if let Some(throttled) = cpu.throttled
        && throttled.as_secs_f64() > THROTTLED * over
    {
        return Some(format!(
            "the CPU limit of this process throttled it for {} of {}",
            HumanDuration(throttled),
            HumanDuration(cpu.over)
        ));
    }
    if let Some(reason) = starved(transfer) {
        return Some(reason);
    }
    let unread = transfer.streams.iter().max_by_key(|s| s.bytes)?;
    let samples = unread.samples.iter().filter_map(|sample| {
        let window = sample.receive_window.or(sample.receive_space)?;
        Some(sample.unread?.0 * 2 > window.0)
    });
    let late: Vec<bool> = samples.collect();
    let full = late.iter().filter(|is_full| **is_full).count();
    if late.len() >= 4 && full * 2 > late.len() {
        return Some(format!(
            "in {full} of {} samples, more than half of the window waited to be read by this process",
            late.len()
        ));
    }
    (cpu.used.as_secs_f64() > BUSY * over).then(|| {
        format!(
            "this process kept a CPU busy all the time: {} of {}",
            HumanDuration(cpu.used),
            HumanDuration(cpu.over)
        )
    })
}

/// This process's clock missed most of its ticks.
fn starved(transfer: &Transfer) -> Option<String> {
    let last = transfer.arrivals.last()?.at.as_secs_f64();
    let expected = last / Transfer::TICK.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let ticks = transfer.arrivals.len() as f64;
    // Missed ticks are not made up for; waiting for a connection costs some.
    (last >= SHORT
        && transfer.arrivals.len() < Transfer::MAX_ARRIVALS
        && ticks < STARVED * expected)
        .then(|| {
            format!(
                "this process ran {ticks:.0} of {expected:.0} expected times: it got too little CPU"
            )
        })
}

/// Bytes per second that the same device received for other programs.
fn others(transfer: &Transfer) -> Option<f64> {
    let device = transfer.device.as_ref()?;
    // For a control host, only the bytes read are known, not those already in the kernel.
    let mut stages = transfer.stages.iter();
    let alone = stages.find(|stage| stage.kind == StageKind::WithControl);
    let all = stages::part(
        &device.arrivals,
        Duration::ZERO,
        alone.map(|stage| stage.from),
    );
    let last = all.last().filter(|last| last.at >= SHORT)?;
    // Data that waits behind a lost segment has arrived but is not counted as read yet: that is temporary, other
    // traffic is not.
    let besides = all
        .iter()
        .filter(|point| point.at >= SHORT.max(last.at / 2.0))
        .map(|point| {
            (point.bytes - bytes_until(&transfer.arrivals, point.at) * HEADERS) / point.at
        });
    Some(besides.fold(f64::INFINITY, f64::min).max(0.0))
}

#[expect(clippy::cast_precision_loss, reason = "bytes below 2^53")]
fn bytes_until(arrivals: &[crate::model::transfer::Arrival], at: f64) -> f64 {
    let after = arrivals.partition_point(|arrival| arrival.at.as_secs_f64() <= at);
    let bytes = |index: usize| arrivals.get(index).map(|arrival| arrival.bytes.0 as f64);
    after.checked_sub(1).and_then(bytes).unwrap_or_default()
}

/// Two stages with different numbers of connections.
struct Pair<'a> {
    few: &'a StageRate,
    many: &'a StageRate,
}

impl Pair<'_> {
    fn growth(&self) -> f64 {
        self.many.rate() / self.few.rate()
    }

    /// The growth that a limit for each connection would cause.
    #[expect(clippy::cast_precision_loss, reason = "few connections")]
    fn times(&self) -> f64 {
        let (few, many) = (&self.few.stage, &self.many.stage);
        many.connections as f64 / few.connections.max(1) as f64
    }
}

/// The limit in an undisturbed transfer; `Err` with the reason if it is unknown.
pub(super) fn decide(
    transfer: &Transfer,
    rates: &[StageRate],
    known: Known,
) -> Result<Bound, String> {
    let few = rates.first();
    let wide = rates
        .iter()
        .filter(|rate| rate.stage.kind != StageKind::WithControl && rate.mean > 0.0);
    let many = wide.skip(1).last();
    let lossy = loss(transfer);
    let Some((first, many)) = few.zip(many) else {
        return slowed_without_sack(transfer, lossy).ok_or_else(|| too_little(transfer, rates));
    };
    // With fewer connections: the first that is sustained, or else the last, which has no slow start.
    let mut fewer = rates
        .iter()
        .filter(|rate| rate.stage.connections < many.stage.connections);
    let lasting = fewer.clone().find(|rate| rate.is_sustained);
    let few = lasting.or_else(|| fewer.next_back()).unwrap_or(first);
    let pair = Pair { few, many };
    if few.rate() <= 0.0 || many.rate() <= 0.0 {
        return Err("hardly any bytes arrived".to_owned());
    }
    if let Some(found) = beside_control(transfer, rates, known) {
        return Ok(found);
    }
    if let Some(found) = full_uplink(transfer) {
        return Ok(found);
    }
    if let Some((share, fact)) = &lossy
        && grew(&pair, GROWN_LOSSY)
        && lost_before(transfer, many.stage.from)
        // Losses of a queue that overflows are not those of a bad line.
        && !has_clear_queue(transfer)
    {
        let confidence = Confidence::high_if(*share > 10.0 * LOSSY);
        let mut facts = vec![fact.clone(), grown(&pair)];
        let side = without_sack(transfer);
        facts.extend(side.map(sack_fact));
        return Ok(Bound {
            is_ours: side == Some(Side::Here),
            missing: side.map(MissingOption::Sack),
            ..Bound::new(Cause::BwLoss, confidence, facts)
        });
    }
    // A growing sum shows a limit for each connection, even while the sum is not steady yet.
    let is_seen = many.is_sustained || many.seconds >= GROWN_SECONDS;
    if few.is_sustained && is_seen && grew(&pair, GROWN) {
        return Ok(each(transfer, &pair));
    }
    if !few.is_sustained || !many.is_sustained {
        return slowed_without_sack(transfer, lossy).ok_or_else(|| too_little(transfer, rates));
    }
    if many.stage.connections < 2 {
        return Err(
            "everything arrived over one connection, so a limit of the connection can't be distinguished from one of the path"
                .to_owned(),
        );
    }
    let growth = pair.growth();
    if !(1.0 / SAME..=SAME).contains(&growth) {
        return Err(format!(
            "{}: neither constant nor proportional, as with other traffic on the same path",
            grown(&pair)
        ));
    }
    shared(transfer, &pair, lossy, known)
}

/// Traffic that this machine sends fills the path: its own requests and acknowledgements wait before a layer is read, or
/// it makes room for them.
fn full_uplink(transfer: &Transfer) -> Option<Bound> {
    let sent = Sent::of(transfer).filter(|sent| sent.is_upload(transfer))?;
    // A queue of the download itself is a limit of its own.
    if has_clear_queue(transfer) {
        return None;
    }
    let signs: Vec<String> = waits_before(transfer)
        .into_iter()
        .chain(sent.makes_room())
        .collect();
    if signs.is_empty() {
        return None;
    }
    let mut facts = vec![sent.fact()];
    facts.extend(signs);
    Some(Bound {
        is_ours: true,
        ..Bound::new(Cause::BwUplink, Confidence::Medium, facts)
    })
}

/// The fact that round trips took longer before a byte of a layer was read than they have to.
fn waits_before(transfer: &Transfer) -> Option<String> {
    let before = &transfer.round_trips_before;
    let later = transfer.streams.iter().filter_map(|stream| stream.min_rtt);
    let least = before.iter().copied().chain(later).min()?;
    let longest = *before.iter().max()?;
    let waits = longest.saturating_sub(least).as_secs_f64();
    let is_waiting = waits > WAITING.max(WAITING_SHARE * least.as_secs_f64());
    (before.len() >= WAITING_SAMPLES && is_waiting).then(|| {
        format!(
            "before a byte of a layer was read, a round trip took up to {}; the shortest one took {}",
            HumanDuration(longest),
            HumanDuration(least)
        )
    })
}

/// What the device sent, in bytes per second: in all of the test, and in its first and last third.
#[derive(Clone, Debug)]
struct Sent {
    device: String,
    over: Duration,
    all: f64,
    /// Of that, the test's own segments.
    own: f64,
    thirds: [(f64, f64); 2],
}

impl Sent {
    fn of(transfer: &Transfer) -> Option<Self> {
        let device = transfer.device.as_ref()?;
        let over = device.sent.last()?.at;
        let own_until = |at: Duration| own_sent(transfer, at);
        let rates = |from: Duration, until: Duration| {
            let points = stages::part(&device.sent, from, Some(until));
            let seconds = points.last()?.at;
            let own = own_until(until)? - own_until(from)?;
            Some((stages::mean(&points)?, own / seconds))
        };
        let (all, own) = rates(Duration::ZERO, over)?;
        Some(Self {
            device: device.device.clone(),
            over,
            all,
            own,
            thirds: [rates(Duration::ZERO, over / 3)?, rates(over * 2 / 3, over)?],
        })
    }

    /// Whether other programs send much.
    fn is_upload(&self, transfer: &Transfer) -> bool {
        let download = stages::mean(&stages::part(&transfer.arrivals, Duration::ZERO, None));
        let least = UPLOAD.max(UPLOAD_SHARE * download.unwrap_or_default());
        self.over.as_secs_f64() >= SHORT && self.all - self.own > least
    }

    fn fact(&self) -> String {
        format!(
            "{} sent {} of other traffic for {}: other programs on this machine upload",
            self.device,
            mbit(self.all - self.own),
            HumanDuration(self.over)
        )
    }

    /// The fact that the sum stayed the same, although the download's own part of it grew.
    fn makes_room(&self) -> Option<String> {
        let [(first, own_first), (last, own_last)] = self.thirds;
        let is_same = (1.0 / SAME_SENT..=SAME_SENT).contains(&(last / first));
        let grew = own_last - own_first;
        (is_same && grew > MADE_ROOM * first && self.over.as_secs_f64() >= MADE_ROOM_SECONDS).then(
            || {
                format!(
                    "it sent {} all the time, although the acknowledgements of this download grew from {} to {}: the uplink carries no more",
                    mbit(last),
                    mbit(own_first),
                    mbit(own_last)
                )
            },
        )
    }
}

/// The bytes that the test's connections had sent at a time; `None` if the kernel does not report their segments.
fn own_sent(transfer: &Transfer, at: Duration) -> Option<f64> {
    let mut connections: BTreeMap<usize, u32> = BTreeMap::new();
    for stream in &transfer.streams {
        let mut samples = stream.samples.iter();
        let first = samples
            .clone()
            .next()
            .and_then(|sample| sample.segments_out);
        let until = samples.rfind(|sample| sample.at <= at);
        let count = until.and_then(|sample| sample.segments_out).or(first);
        let known = connections.entry(stream.connection).or_default();
        *known = count.unwrap_or_default().max(*known);
    }
    let all: u32 = connections.values().sum();
    (all > 0).then(|| f64::from(all) * ACKNOWLEDGEMENT)
}

/// Whether segments were lost while only the first streams ran: those that more streams cause prove nothing about one.
fn lost_before(transfer: &Transfer, from: Duration) -> bool {
    let samples = transfer.streams.iter().flat_map(|stream| &stream.samples);
    let mut early = samples.filter(|sample| sample.at <= from);
    early.any(|sample| sample.out_of_order.is_some_and(|count| count > 0))
}

/// Without SACK, losses slow a connection at times, even if its rate was never steady.
fn slowed_without_sack(transfer: &Transfer, lossy: Option<(f64, String)>) -> Option<Bound> {
    let (_, fact) = lossy?;
    let side = without_sack(transfer)?;
    let alone = transfer.stages.get(1).map(|next| next.from);
    let mut rates = Vec::new();
    let points = stages::part(&transfer.arrivals, Duration::ZERO, alone);
    let mut start = *points.first()?;
    for point in points {
        if point.at - start.at >= SLOWED_WINDOW {
            rates.push((point.bytes - start.bytes) / (point.at - start.at));
            start = point;
        }
    }
    let best = rates.iter().copied().fold(0.0, f64::max);
    // Slow start is over when the rate is near its best for the first time.
    let ramped = rates.iter().position(|rate| *rate > SLOWED * best)?;
    let mut slow = rates.split_off(ramped);
    slow.retain(|rate| *rate < SLOWED * best);
    let least = slow.iter().copied().fold(f64::INFINITY, f64::min);
    if slow.len() < SLOWED_WINDOWS {
        return None;
    }
    let facts = vec![
        fact,
        format!(
            "the rate of one connection was {} at best, and fell to {} between",
            mbit(best),
            mbit(least)
        ),
        sack_fact(side),
    ];
    Some(Bound {
        is_ours: side == Side::Here,
        missing: Some(MissingOption::Sack(side)),
        ..Bound::new(Cause::BwLoss, Confidence::Medium, facts)
    })
}

fn grew(pair: &Pair<'_>, share: f64) -> bool {
    let times = pair.times();
    times > 1.0 && pair.growth() >= 1.0 + share * (times - 1.0)
}

fn grown(pair: &Pair<'_>) -> String {
    let name = |count: usize| format!("{count} connection{}", if count == 1 { "" } else { "s" });
    format!(
        "{} got {}, {} together {}",
        name(pair.few.stage.connections),
        mbit(pair.few.rate()),
        name(pair.many.stage.connections),
        mbit(pair.many.rate())
    )
}

/// Why the sustained rate is unknown.
fn too_little(transfer: &Transfer, rates: &[StageRate]) -> String {
    use crate::model::transfer::TransferEnd as End;
    let sustained = rates.iter().any(|rate| rate.is_sustained);
    match transfer.end {
        End::Complete if sustained => {
            "all layers were read at once; `pullpath probe --transfer auto` compares one stream with several"
                .to_owned()
        }
        End::Complete => {
            "the whole image was read before a limit could show; a larger image would show it".to_owned()
        }
        End::ByteLimit if sustained => {
            "the allowed bytes were used up before more streams could be compared; a larger --max-bytes \
                         decides"
                .to_owned()
        }
        End::ByteLimit => {
            "no limit showed within the allowed bytes; a larger --max-bytes shows whether the rate lasts"
                .to_owned()
        }
        End::Harmful => {
            "the test was stopped because it delayed other traffic".to_owned()
        }
        End::Disturbed => {
            "the test was stopped because other traffic needed the path".to_owned()
        }
        End::TimeLimit | End::Stable | End::Failed => {
            "the rate was not steady for long enough; a longer --max-duration may help".to_owned()
        }
    }
}

/// The reason why the limit is unknown, with what this machine sent meanwhile.
pub(super) fn with_upload(transfer: &Transfer, because: String) -> String {
    match Sent::of(transfer).filter(|sent| sent.is_upload(transfer)) {
        Some(sent) => format!(
            "{because}; {}, and downloads are slow where that fills the uplink",
            sent.fact()
        ),
        None => because,
    }
}

/// The sum grew with the number of connections: what limits each?
fn each(transfer: &Transfer, pair: &Pair<'_>) -> Bound {
    let mut facts = vec![grown(pair)];
    let rate = pair.few.rate();
    let stream = transfer.streams.first();
    if let Some(stream) = stream
        && let Some(trip) = stream.min_rtt.map(|trip| trip.as_secs_f64())
    {
        let in_flight = rate * trip;
        if let Some(bound) = unscaled(transfer, stream, in_flight, trip) {
            facts.extend(bound.facts.clone());
            return Bound { facts, ..bound };
        }
        if let Some(window) = steady_window(stream)
            && FULL.contains(&(in_flight / window))
        {
            facts.push(format!(
                "{} are in flight in a round trip of {}, and the window that this machine offers stays at {}",
                bytes(in_flight),
                HumanDuration(Duration::from_secs_f64(trip)),
                bytes(window)
            ));
            facts.push(
                "the limit is on this side: net.ipv4.tcp_rmem of this network namespace".to_owned(),
            );
            return Bound {
                is_ours: true,
                ..Bound::new(Cause::BwWindow, Confidence::High, facts)
            };
        }
        let in_step = |stream: &&TransferStream| {
            let period = stream.bursts.map(|bursts| bursts.period.as_secs_f64());
            trip >= 0.005 && period.is_some_and(|p| (0.85..1.2).contains(&(p / trip)))
        };
        // The first stream suffices on its own; of the others, two are needed.
        let mut steady = transfer.streams.iter().filter(in_step);
        let found = steady
            .next()
            .filter(|found| found.connection == stream.connection);
        let found = found.or_else(|| steady.next());
        if let Some(bursts) = found.and_then(|found| found.bursts) {
            facts.push(format!(
                "the server sends {} at a time, every {}, which is the round-trip time ({}): it waits for \
                                 acknowledgements",
                bursts.bytes,
                HumanDuration(bursts.period),
                HumanDuration(Duration::from_secs_f64(trip))
            ));
            facts.push("the limit is on the server's side: its send buffer".to_owned());
            return Bound::new(Cause::BwWindow, Confidence::Medium, facts);
        }
    }
    if let Some(fact) = burst(pair.few) {
        facts.push(fact);
        facts.push("each new connection had it again".to_owned());
        return Bound::new(Cause::BwThrottle, Confidence::Medium, facts);
    }
    facts.push("each connection has a limit of its own".to_owned());
    Bound::new(Cause::BwPerFlow, Confidence::Medium, facts)
}

/// The limit of a connection without window scaling, if its window of 64 KiB is full.
fn unscaled(
    transfer: &Transfer,
    stream: &TransferStream,
    in_flight: f64,
    trip: f64,
) -> Option<Bound> {
    let is_full = FULL.contains(&(in_flight / f64::from(u16::MAX)));
    if stream.options?.window_scaling || !is_full {
        return None;
    }
    let side = Side::of(transfer.tcp_settings.and_then(|s| s.window_scaling));
    let facts = vec![
        format!(
            "window scaling is off on these connections, so at most 64 KiB are in flight in a round trip of {}: {} were",
            HumanDuration(Duration::from_secs_f64(trip)),
            bytes(in_flight)
        ),
        side.fact("net.ipv4.tcp_window_scaling"),
    ];
    let confidence = Confidence::high_if(side != Side::Unknown);
    Some(Bound {
        is_ours: side == Side::Here,
        missing: Some(MissingOption::WindowScaling(side)),
        ..Bound::new(Cause::BwWindow, confidence, facts)
    })
}

/// Which side leaves selective acknowledgements out; `None` if they are in use, or if that is unknown.
fn without_sack(transfer: &Transfer) -> Option<Side> {
    let mut options = transfer.streams.iter().filter_map(|stream| stream.options);
    let is_off = options.any(|options: TcpOptions| !options.sack);
    let settings: Option<TcpSettings> = transfer.tcp_settings;
    is_off.then(|| Side::of(settings.and_then(|settings| settings.sack)))
}

fn sack_fact(side: Side) -> String {
    format!(
        "selective acknowledgements (SACK) are off, so each loss slows the download more; {}",
        side.fact("net.ipv4.tcp_sack")
    )
}

/// The window offered to the sender, if it no longer grows. The kernel reports the window itself from Linux 6.2 on, before
/// that only the largest one.
#[expect(clippy::cast_precision_loss, reason = "bytes below 2^53")]
fn steady_window(stream: &TransferStream) -> Option<f64> {
    let samples = stream.samples.iter();
    let windows: Vec<u64> = samples
        .filter_map(|sample| Some(sample.offered_window.or(sample.receive_window)?.0))
        .collect();
    // A window that is offered shrinks for a moment when bytes wait to be read.
    let (before, after) = windows.split_at(windows.len() / 2);
    let (before, after) = (before.iter().max()?, after.iter().max()?);
    (windows.len() >= 4 && *after * 100 <= *before * 105).then_some(*after as f64)
}

/// The fact about a burst before the sustained rate, if it was large.
fn burst(rate: &StageRate) -> Option<String> {
    let line = rate.line.filter(|_| rate.is_sustained)?;
    let is_much = line.ahead >= BURST_BYTES && line.ahead >= BURST_SECONDS * line.rate;
    is_much.then(|| ahead(&line))
}

fn ahead(line: &Fit) -> String {
    format!(
        "the first {} arrived faster than the sustained rate of {}",
        bytes(line.ahead),
        mbit(line.rate)
    )
}

/// The sum stayed the same: which limit do they share?
fn shared(
    transfer: &Transfer,
    pair: &Pair<'_>,
    lossy: Option<(f64, String)>,
    known: Known,
) -> Result<Bound, String> {
    let rate = pair.many.rate();
    let queue = queue(transfer);
    if queue.is_none() && lossy.is_none() {
        return Err(format!(
            "{}, and there is neither a queue nor loss: the registry or its storage sends no faster",
            grown(pair)
        ));
    }
    let mut facts = vec![grown(pair)];
    facts.extend(queue);
    if let Some((_, fact)) = lossy {
        facts.push(fact);
        facts.extend(without_sack(transfer).map(sack_fact));
    }
    if let Some(fact) = eip(rate, known) {
        facts.push(fact);
        return Ok(Bound::new(Cause::BwEipCap, Confidence::High, facts));
    }
    #[expect(clippy::cast_precision_loss, reason = "megabits")]
    if let Some(limit) = known.node_mbit
        && BOUGHT.contains(&(rate * 8.0 / 1e6 / limit as f64))
    {
        facts.push(format!(
            "that is the bandwidth of this machine in the cloud: {limit} Mbit/s (instance_max_bandwidth)"
        ));
        return Ok(Bound::new(Cause::BwNode, Confidence::High, facts));
    }
    if has_clear_queue(transfer)
        && let Some(deviation) = deviation(transfer, pair.few).filter(|share| *share > STEADY)
    {
        return Err(format!(
            "{}, but behind the queue the rate of one connection varies by {:.0} % from one moment to the next: other traffic uses the same limit, and the rates are this node's share",
            grown(pair),
            deviation * 100.0
        ));
    }
    let first = burst(pair.few).or_else(|| burst(pair.many));
    if let Some(fact) = first {
        facts.push(fact);
        return Ok(Bound::new(Cause::BwThrottle, Confidence::Medium, facts));
    }
    let bucket = pair.few.line.filter(|line| line.ahead >= BURST_BYTES);
    facts.extend(bucket.map(|line| ahead(&line)));
    facts.push(
        "other traffic behind the same limit can't be observed from here: the limit may be higher than this share of it"
            .to_owned(),
    );
    facts.push(undecided_side(transfer, known));
    Ok(Bound::new(Cause::BwCap, Confidence::Medium, facts))
}

/// The fact that the plateau equals the bandwidth of the declared EIP: on Huawei Cloud, an EIP of up to
/// 10 Mbit/s receives at 10.
#[expect(clippy::cast_precision_loss, reason = "megabits")]
fn eip(rate: f64, known: Known) -> Option<String> {
    let size = known.eip_mbit.filter(|size| *size > 0)?;
    if !is_public(known) {
        return None;
    }
    let is = |mbit: u64| BOUGHT.contains(&(rate * 8.0 / 1e6 / mbit as f64));
    let mut sizes = [size, 10, size.max(10)].into_iter();
    let bought = sizes.find(|mbit| is(*mbit))?;
    let are = if bought == size {
        format!("the declared {size} Mbit/s of the EIP")
    } else {
        format!("the {bought} Mbit/s at which an EIP of {size} Mbit/s receives")
    };
    Some(format!("{} of payload correspond to {are}", mbit(rate)))
}

fn is_public(known: Known) -> bool {
    matches!(
        known.class,
        Some(PathClass::PublicEip | PathClass::PublicSnat)
    )
}

fn undecided_side(transfer: &Transfer, known: Known) -> String {
    let mut would = Vec::new();
    if is_public(known) && known.eip_mbit.is_none() {
        would.push("the bandwidth of the EIP (network.eip_bandwidth_mbit in --config)");
    }
    match &transfer.control {
        None => would.push("a large file on another network (--control-url)"),
        Some(control) if control.fault.is_some() => {
            would.push("a control host that can be read (this one could not)");
        }
        Some(_) => {}
    }
    if would.is_empty() {
        return "on which side the limit is can't be determined from here".to_owned();
    }
    format!(
        "on which side the limit is would be shown by {}",
        would.join(", or by ")
    )
}

/// Compares with a control host that was read at the same time: if both share the sum, the limit is on this
/// side; if the control host is faster, it is not.
fn beside_control(transfer: &Transfer, rates: &[StageRate], known: Known) -> Option<Bound> {
    let control = transfer.control.as_ref()?;
    let stage = rates
        .iter()
        .position(|rate| rate.stage.kind == StageKind::WithControl)?;
    let before = rates[..stage].last()?;
    let with = &rates[stage];
    let half = Duration::try_from_secs_f64(with.seconds / 2.0).unwrap_or_default();
    let from = with.stage.from + CONTROL_SETTLES.max(half);
    let theirs = stages::mean(&stages::part(&control.arrivals, from, None))?;
    let ours = stages::mean(&stages::part(&transfer.arrivals, from, None))?;
    let alone = before.rate();
    let least = if theirs > CONTROL_CLEAR * alone {
        CONTROL_CLEAR_SHORT
    } else {
        CONTROL_SHORT
    };
    if with.seconds < least || alone <= 0.0 || !before.is_sustained {
        return None;
    }
    let both = format!(
        "{} delivered {} at the same time, and the registry {} (alone {})",
        control.endpoint,
        mbit(theirs),
        mbit(ours),
        mbit(alone)
    );
    let sum = ours + theirs;
    if (1.0 / SAME..=SAME).contains(&(sum / alone)) && theirs > 0.15 * alone {
        let mut facts = vec![both, "they share the limit: it is on this side".to_owned()];
        facts.extend(eip(alone, known));
        let cause = if is_public(known) {
            Cause::BwEipCap
        } else {
            Cause::BwCap
        };
        return Some(Bound {
            is_ours: true,
            ..Bound::new(cause, Confidence::High, facts)
        });
    }
    (theirs > 1.5 * alone && ours > 0.7 * alone).then(|| Bound::new(Cause::BwRemote, Confidence::High, vec![
            both,
                        "the limit is not on this side: it is that of the registry, its storage, or the path to it"
                .to_owned(),
        ]))
}

/// The fact that small requests wait longer while layers download.
fn queue(transfer: &Transfer) -> Option<String> {
    let (idle, loaded) = latency(transfer)?;
    let (was, is) = (idle.as_secs_f64(), loaded.as_secs_f64());
    (is - was > QUEUE.max(QUEUE_SHARE * was)).then(|| {
        format!(
            "a queue builds up: small requests take {} during the download, otherwise {}",
            HumanDuration(loaded),
            HumanDuration(idle)
        )
    })
}

/// Whether requests wait so much longer while layers download that nothing but a queue explains it.
fn has_clear_queue(transfer: &Transfer) -> bool {
    latency(transfer).is_some_and(|(idle, loaded)| {
        let (was, is) = (idle.as_secs_f64(), loaded.as_secs_f64());
        is - was > CLEAR_QUEUE.max(CLEAR_QUEUE_SHARE * was)
    })
}

/// The standard deviation of a stage's rate in short windows, as a share of the rate; `None` if there are too few of
/// them. Only its sustained part counts, before the next stage starts.
#[expect(clippy::cast_precision_loss, reason = "few windows")]
fn deviation(transfer: &Transfer, rate: &StageRate) -> Option<f64> {
    let line = rate.line.filter(|_| rate.is_sustained)?;
    let from = rate.stage.from + Duration::try_from_secs_f64(line.from).ok()?;
    let next = transfer.stages.iter().map(|stage| stage.from);
    let until = next.filter(|next| *next > rate.stage.from).min();
    let points = stages::part(&transfer.arrivals, from, until);
    let length = STEADY_WINDOW.max(STEADY_BYTES / line.rate);
    let mut rates = Vec::new();
    let mut start = *points.first()?;
    for point in points {
        if point.at - start.at >= length {
            rates.push((point.bytes - start.bytes) / (point.at - start.at));
            start = point;
        }
    }
    if rates.len() < STEADY_WINDOWS {
        return None;
    }
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let variance = rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count;
    (mean > 0.0).then(|| variance.sqrt() / mean)
}

/// The latency of small requests: the best without a load, the median with it. Requests in the first 300 ms
/// are ignored: there is no queue yet.
pub(super) fn latency(transfer: &Transfer) -> Option<(Duration, Duration)> {
    let pings = transfer.pings.as_ref()?;
    let idle = *pings.idle.iter().min()?;
    let settled = pings
        .loaded
        .iter()
        .filter(|ping| ping.at >= Duration::from_millis(300))
        // An unanswered request counts only if it already took longer than without a load.
        .filter(|ping| !ping.is_unanswered || ping.took > idle);
    let mut loaded: Vec<Duration> = settled.map(|ping| ping.took).collect();
    loaded.sort_unstable();
    Some((idle, *loaded.get(loaded.len() / 2)?))
}

/// The share of segments that arrived out of order, if that is no accident.
fn loss(transfer: &Transfer) -> Option<(f64, String)> {
    let (mut late, mut all, mut samples) = (0u32, 0u32, 0usize);
    // Layers that used a connection one after the other: the counts are those of the connection.
    let mut connections: BTreeMap<usize, Vec<(u32, u32)>> = BTreeMap::new();
    for stream in &transfer.streams {
        let counts = stream.samples.iter();
        let counts = counts.filter_map(|s| Some((s.out_of_order?, s.data_segments_in?)));
        connections
            .entry(stream.connection)
            .or_default()
            .extend(counts);
    }
    for counts in connections.values() {
        if let Some(last) = counts.last() {
            late += last.0;
            all += last.1;
        }
        samples += counts.windows(2).filter(|two| two[1].0 > two[0].0).count();
    }
    let share = f64::from(late) / f64::from(all.max(1));
    let percent = share * 100.0;
    let says = format!("{percent:.1} % of the segments arrived out of order, after lost ones");
    (share > LOSSY && samples >= LOSSY_SAMPLES).then_some((share, says))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::fixture;
    use crate::model::transfer::{
        Arrival, Bursts, ControlTransfer, CpuUse, DeviceTraffic, Pings, Stage, StreamEnd,
        StreamSample, TransferEnd, TransferPing,
    };
    use crate::model::units::Bytes;

    /// A stage: kind, streams, connections, bytes per second and seconds.
    type Made = (StageKind, usize, usize, f64, f64);

    const ONE: StageKind = StageKind::OneStream;
    const ALL: StageKind = StageKind::AsContainerd;
    const APART: StageKind = StageKind::OwnConnections;
    const CONTROL: StageKind = StageKind::WithControl;

    const TRIP: Duration = Duration::from_millis(20);
    const MB: f64 = 1e6;

    /// The bytes that arrive each 25 ms at these rates.
    fn arrivals(parts: &[(f64, f64)]) -> Vec<Arrival> {
        let (mut at, mut all) = (Duration::ZERO, 0.0);
        let mut list = vec![Arrival {
            at,
            bytes: Bytes(1),
        }];
        for (rate, seconds) in parts {
            let end = at + Duration::from_secs_f64(*seconds);
            while at < end {
                at += Duration::from_millis(25);
                all += rate * 0.025;
                list.push(Arrival {
                    at,
                    bytes: bytes(all),
                });
            }
        }
        list
    }

    fn made(stages: &[Made]) -> Transfer {
        let rates: Vec<(f64, f64)> = stages.iter().map(|s| (s.3, s.4)).collect();
        let arrivals = arrivals(&rates);
        let mut from = Duration::ZERO;
        let listed = stages
            .iter()
            .map(|(kind, streams, connections, _, seconds)| {
                let stage = Stage {
                    kind: *kind,
                    from,
                    streams: *streams,
                    connections: *connections,
                };
                from += Duration::from_secs_f64(*seconds);
                stage
            });
        let listed: Vec<Stage> = listed.collect();
        let stream = |connection| TransferStream {
            endpoint: fixture::endpoint("blobs.example.com"),
            to: "203.0.113.9:443".parse().unwrap(),
            digest: "sha256:ab".to_owned(),
            connection,
            first_byte: None,
            first_touch: None,
            offset: Bytes(0),
            bytes: Bytes(1),
            min_rtt: Some(TRIP),
            options: None,
            bursts: None,
            longest_stall: Duration::ZERO,
            silent: None,
            end: StreamEnd::Stopped,
            samples: Vec::new(),
        };
        let connections = stages.iter().map(|s| s.2).max().unwrap();
        Transfer {
            connections_tried: 0,
            not_connected: Vec::new(),
            started: fixture::now(),
            max_bytes: Bytes(16 << 20),
            max_duration: Duration::from_secs(5),
            expected_within: None,
            took: arrivals.last().unwrap().at,
            stages: listed,
            streams: (0..connections).map(stream).collect(),
            connections,
            arrivals,
            pings: None,
            control: None,
            device: None,
            tcp_settings: None,
            round_trips_before: Vec::new(),
            cpu: None,
            end: TransferEnd::Stable,
        }
    }

    /// The sum stays the same, whatever their number.
    fn capped(rate: f64) -> Transfer {
        made(&[(ONE, 1, 1, rate, 1.5), (ALL, 3, 3, rate, 1.0)])
    }

    /// Each gets as much.
    fn each_gets(rate: f64) -> Transfer {
        made(&[(ONE, 1, 1, rate, 1.5), (ALL, 3, 3, 3.0 * rate, 1.5)])
    }

    fn with_queue(mut transfer: Transfer) -> Transfer {
        let ping = |at: u64| TransferPing {
            at: Duration::from_millis(at),
            took: Duration::from_millis(90),
            is_unanswered: false,
        };
        transfer.pings = Some(Pings {
            idle: vec![TRIP],
            loaded: (1..8).map(|i| ping(i * 250)).collect(),
        });
        transfer
    }

    fn sampled(mut transfer: Transfer, of: impl Fn(u32) -> StreamSample) -> Transfer {
        for stream in &mut transfer.streams {
            stream.samples = (0..12).map(&of).collect();
        }
        transfer
    }

    fn sample(number: u32) -> StreamSample {
        StreamSample {
            at: Duration::from_millis(100) * number,
            received: None,
            unread: Some(Bytes(0)),
            receive_rtt: Some(TRIP),
            receive_space: None,
            receive_window: Some(Bytes(3 << 20)),
            offered_window: None,
            data_segments_in: Some(1000 * number),
            out_of_order: Some(0),
            segments_out: None,
        }
    }

    fn without(mut transfer: Transfer, options: TcpOptions, offered: Option<bool>) -> Transfer {
        for stream in &mut transfer.streams {
            stream.options = Some(options);
        }
        transfer.tcp_settings = Some(TcpSettings {
            window_scaling: offered,
            sack: offered,
            timestamps: None,
        });
        transfer
    }

    const ALL_OPTIONS: TcpOptions = TcpOptions {
        timestamps: true,
        sack: true,
        window_scaling: true,
    };

    fn with_losses(transfer: Transfer) -> Transfer {
        sampled(transfer, |number| StreamSample {
            out_of_order: Some(20 * number),
            ..sample(number)
        })
    }

    const PUBLIC: Known = Known {
        class: Some(PathClass::PublicEip),
        eip_mbit: None,
        node_mbit: None,
    };

    fn decided(transfer: &Transfer, known: Known) -> Result<Bound, String> {
        let rates = stages::rates(&transfer.arrivals, &transfer.stages, TRIP);
        decide(transfer, &rates, known)
    }

    /// The cause, with a word that its facts must hold; `None`: unknown, for such a reason.
    #[track_caller]
    fn says(transfer: &Transfer, known: Known, cause: Option<Cause>, word: &str) {
        match (decided(transfer, known), cause) {
            (Ok(bound), Some(cause)) => {
                assert_eq!(bound.cause, cause, "{bound:?}");
                assert!(
                    bound.facts.iter().any(|fact| fact.contains(word)),
                    "{bound:?}"
                );
            }
            (Err(because), None) => assert!(because.contains(word), "{because}"),
            (other, _) => panic!("{other:?} instead of {cause:?}"),
        }
    }

    #[test]
    fn a_sum_that_stays_the_same_behind_a_queue_is_a_cap_of_an_unknown_side() {
        let transfer = with_queue(capped(1.2 * MB));
        says(
            &transfer,
            PUBLIC,
            Some(Cause::BwCap),
            "network.eip_bandwidth_mbit",
        );
        says(&transfer, PUBLIC, Some(Cause::BwCap), "--control-url");
        // A policer drops instead.
        let policed = with_losses(capped(1.2 * MB));
        says(&policed, PUBLIC, Some(Cause::BwCap), "out of order");
        // A server that paces makes neither.
        says(&capped(1.2 * MB), PUBLIC, None, "neither a queue nor loss");
    }

    #[test]
    fn an_eip_is_named_by_what_it_receives_at() {
        let eip = |size| Known {
            eip_mbit: Some(size),
            ..PUBLIC
        };
        // 10 Mbit/s with headers.
        let ten = with_queue(capped(1.2 * MB));
        says(
            &ten,
            eip(5),
            Some(Cause::BwEipCap),
            "an EIP of 5 Mbit/s receives",
        );
        says(&ten, eip(10), Some(Cause::BwEipCap), "10 Mbit/s");
        says(&ten, eip(20), Some(Cause::BwEipCap), "20 Mbit/s receives");
        let five = with_queue(capped(0.6 * MB));
        says(&five, eip(5), Some(Cause::BwEipCap), "declared");
        says(&five, eip(20), Some(Cause::BwCap), "a queue");
        // A private path uses no EIP.
        let private = Known {
            class: Some(PathClass::Intranet),
            ..eip(10)
        };
        says(&ten, private, Some(Cause::BwCap), "a queue");
        let node = Known {
            node_mbit: Some(10),
            ..private
        };
        says(&ten, node, Some(Cause::BwNode), "10 Mbit/s");
    }

    #[test]
    fn a_sum_that_grows_is_a_limit_of_each() {
        let each = sampled(each_gets(MB), sample);
        says(&each, PUBLIC, Some(Cause::BwPerFlow), "connection");
        // 20 kB in a round trip.
        let ours = sampled(each_gets(MB), |number| StreamSample {
            receive_window: Some(Bytes(21_000)),
            ..sample(number)
        });
        says(&ours, PUBLIC, Some(Cause::BwWindow), "tcp_rmem");
        let growing = sampled(each_gets(MB), |number| StreamSample {
            receive_window: Some(Bytes(u64::from(number) * 2500)),
            ..sample(number)
        });
        says(&growing, PUBLIC, Some(Cause::BwPerFlow), "connection");
        let mut theirs = each.clone();
        let bursts = |period: u64| Bursts {
            count: 30,
            bytes: Bytes(20_000),
            period: Duration::from_millis(period),
        };
        theirs.streams[0].bursts = Some(bursts(21));
        says(&theirs, PUBLIC, Some(Cause::BwWindow), "acknowledgements");
        theirs.streams[0].bursts = Some(bursts(50));
        says(&theirs, PUBLIC, Some(Cause::BwPerFlow), "connection");
        says(&with_losses(each), PUBLIC, Some(Cause::BwLoss), "2.0 %");
        // Bytes over a single connection, as in reports of older versions, prove nothing.
        let shared = made(&[(ONE, 1, 1, MB, 1.5), (ALL, 3, 1, 3.0 * MB, 1.5)]);
        says(&shared, PUBLIC, None, "one connection");
    }

    #[test]
    fn without_window_scaling_the_window_is_the_limit_and_the_setting_shows_the_side() {
        let off = TcpOptions {
            window_scaling: false,
            ..ALL_OPTIONS
        };
        // 64 KiB in 20 ms.
        let full = || sampled(each_gets(3.2 * MB), sample);
        for (offered, side, word) in [
            (Some(false), Side::Here, "is 0"),
            (Some(true), Side::There, "the server does not"),
            (None, Side::Unknown, "could not be read"),
        ] {
            let transfer = without(full(), off, offered);
            says(&transfer, PUBLIC, Some(Cause::BwWindow), word);
            let bound = decided(&transfer, PUBLIC).unwrap();
            assert_eq!(bound.missing, Some(MissingOption::WindowScaling(side)));
            assert_eq!(bound.is_ours, side == Side::Here);
            let is_sure = side != Side::Unknown;
            assert_eq!(bound.confidence, Confidence::high_if(is_sure));
        }
        // With scaling, or far from 64 KiB in flight, something else limits each connection.
        let scaled = without(full(), ALL_OPTIONS, Some(false));
        says(&scaled, PUBLIC, Some(Cause::BwPerFlow), "connection");
        let slow = without(sampled(each_gets(MB), sample), off, Some(false));
        says(&slow, PUBLIC, Some(Cause::BwPerFlow), "connection");
    }

    #[test]
    fn the_window_is_read_as_it_is_offered() {
        // 20 kB in a round trip; the largest that was ever allowed is larger.
        let offered = sampled(each_gets(MB), |number| StreamSample {
            offered_window: Some(Bytes(if number == 9 { 9000 } else { 21_000 })),
            ..sample(number)
        });
        says(&offered, PUBLIC, Some(Cause::BwWindow), "20.5 KiB");
        let growing = sampled(each_gets(MB), |number| StreamSample {
            offered_window: Some(Bytes(u64::from(number) * 2500)),
            ..sample(number)
        });
        says(&growing, PUBLIC, Some(Cause::BwPerFlow), "connection");
    }

    #[test]
    fn sack_that_is_off_stands_beside_losses() {
        let off = TcpOptions {
            sack: false,
            ..ALL_OPTIONS
        };
        let lossy = || with_losses(each_gets(MB));
        let here = without(lossy(), off, Some(false));
        says(
            &here,
            PUBLIC,
            Some(Cause::BwLoss),
            "net.ipv4.tcp_sack of this network namespace is 0",
        );
        let there = without(lossy(), off, Some(true));
        says(
            &there,
            PUBLIC,
            Some(Cause::BwLoss),
            "something on the path removes it",
        );
        let policed = without(with_losses(capped(1.2 * MB)), off, Some(false));
        says(&policed, PUBLIC, Some(Cause::BwCap), "SACK");
        let on = decided(&without(lossy(), ALL_OPTIONS, Some(true)), PUBLIC).unwrap();
        assert!(on.missing.is_none() && !on.facts.iter().any(|fact| fact.contains("SACK")));
        // No steady rate, but the path carries more than the losses leave.
        let falls = |options| {
            let parts = [(0.1, 0.4), (10.0, 0.4), (3.0, 0.6), (10.0, 0.2)];
            let mut transfer = with_losses(made(&[(ONE, 1, 1, MB, 1.6), (ALL, 3, 3, MB, 0.3)]));
            transfer.arrivals = arrivals(&parts.map(|(rate, seconds)| (rate * MB, seconds)));
            transfer.end = TransferEnd::ByteLimit;
            without(transfer, options, Some(false))
        };
        says(
            &falls(off),
            PUBLIC,
            Some(Cause::BwLoss),
            "fell to 24 Mbit/s",
        );
        says(&falls(ALL_OPTIONS), PUBLIC, None, "--max-bytes");
        // Slow start alone is no loss of rate.
        let mut ramps = falls(off);
        ramps.arrivals = arrivals(&[
            (0.1 * MB, 0.4),
            (MB, 0.4),
            (3.0 * MB, 0.4),
            (10.0 * MB, 0.5),
        ]);
        says(&ramps, PUBLIC, None, "--max-bytes");
    }

    #[test]
    fn losses_that_more_streams_cause_are_not_those_of_one() {
        let late = sampled(each_gets(MB), |number| StreamSample {
            at: Duration::from_millis(1600 + 100 * u64::from(number)),
            out_of_order: Some(20 * number),
            ..sample(number)
        });
        says(&late, PUBLIC, Some(Cause::BwPerFlow), "connection");
        // Nor are those of a queue that overflows.
        let queue = with_queue(with_losses(made(&[
            (ONE, 1, 1, MB, 1.5),
            (ALL, 3, 3, 2.1 * MB, 1.5),
        ])));
        says(&queue, PUBLIC, None, "neither constant nor proportional");
    }

    #[test]
    fn a_share_of_a_limit_is_no_cap() {
        let mut transfer = with_queue(capped(1.2 * MB));
        let varied = |swing: f64| {
            let parts = (0..25).map(|i| {
                (
                    1.2 * MB * (1.0 + if i % 2 == 0 { swing } else { -swing }),
                    0.125,
                )
            });
            arrivals(&parts.collect::<Vec<_>>())
        };
        transfer.arrivals = varied(0.08);
        says(&transfer, PUBLIC, None, "other traffic uses the same limit");
        transfer.arrivals = varied(0.01);
        says(&transfer, PUBLIC, Some(Cause::BwCap), "a queue");
        // The declared size can't be met by accident.
        transfer.arrivals = varied(0.08);
        let declared = Known {
            eip_mbit: Some(10),
            ..PUBLIC
        };
        says(&transfer, declared, Some(Cause::BwEipCap), "10 Mbit/s");
        // A policer has no queue, and its rate varies.
        let mut policed = with_losses(capped(1.2 * MB));
        policed.arrivals = varied(0.08);
        says(&policed, PUBLIC, Some(Cause::BwCap), "out of order");
    }

    /// Round trips before the first byte in milliseconds, what the device sent in each of three seconds, and the
    /// segments that the test sent in each.
    fn uploading(trips: &[u64], sent: [u64; 3], own: [u32; 3]) -> Transfer {
        let at = |second: u64| Duration::from_secs(second);
        let mut transfer = with_losses(each_gets(MB));
        transfer.round_trips_before = trips.iter().map(|ms| Duration::from_millis(*ms)).collect();
        let mut all = vec![(Duration::ZERO, 5)];
        let mut segments = vec![(Duration::ZERO, 1)];
        for second in 0..3 {
            let next = at(u64::try_from(second).unwrap() + 1);
            all.push((next, all[second].1 + sent[second]));
            segments.push((next, segments[second].1 + own[second]));
        }
        let series = |all: &[(Duration, u64)]| {
            let arrival = |(at, bytes): &(Duration, u64)| Arrival {
                at: *at,
                bytes: Bytes(*bytes),
            };
            all.iter().map(arrival).collect::<Vec<_>>()
        };
        transfer.device = Some(DeviceTraffic {
            device: "eth0".to_owned(),
            arrivals: series(&[(Duration::ZERO, 5), (at(3), 6_200_005)]),
            sent: series(&all),
        });
        let sent = segments.iter().map(|(at, count)| StreamSample {
            at: *at,
            segments_out: Some(*count),
            ..sample(0)
        });
        // Beside the samples that show the losses.
        transfer.streams.push(TransferStream {
            connection: 9,
            samples: sent.collect(),
            ..transfer.streams[0].clone()
        });
        transfer
    }

    #[test]
    fn a_full_uplink_is_reported_with_what_fills_it() {
        const MUCH: [u64; 3] = [250_000; 3];
        const FEW: [u32; 3] = [100; 3];
        let waits = uploading(&[55, 40, 48], MUCH, FEW);
        let word = "a round trip took up to 55 ms; the shortest one took 20 ms";
        says(&waits, PUBLIC, Some(Cause::BwUplink), word);
        let bound = decided(&waits, PUBLIC).unwrap();
        assert_eq!(
            (bound.confidence, bound.is_ours),
            (Confidence::Medium, true)
        );
        assert!(
            bound.facts[0].starts_with("eth0 sent 1.9 Mbit/s of other traffic"),
            "{bound:?}"
        );
        let room = uploading(&[21, 20, 21], MUCH, [100, 400, 800]);
        says(
            &room,
            PUBLIC,
            Some(Cause::BwUplink),
            "grew from 0.1 Mbit/s to 0.5 Mbit/s",
        );
        for other in [
            // Nothing waits, and nothing makes room.
            uploading(&[21, 20, 21], MUCH, FEW),
            // The sum grows with the acknowledgements: the uplink carries both.
            uploading(&[21, 20, 21], [250_000, 270_000, 310_000], [100, 400, 800]),
            // Nothing is sent but acknowledgements.
            uploading(&[55, 40, 48], [70_000; 3], [880; 3]),
            // Two connections are too few.
            uploading(&[55, 40], MUCH, FEW),
        ] {
            says(&other, PUBLIC, Some(Cause::BwLoss), "out of order");
        }
        // The download fills a queue of its own.
        let own = with_queue(uploading(&[55, 40, 48], MUCH, FEW));
        let cause = decided(&own, PUBLIC).ok().map(|bound| bound.cause);
        assert_ne!(cause, Some(Cause::BwUplink));
        let because = with_upload(&own, "unknown".to_owned());
        assert!(
            because.starts_with("unknown; eth0 sent 1.9 Mbit/s"),
            "{because}"
        );
        let quiet = uploading(&[20], [70_000; 3], [880; 3]);
        assert_eq!(with_upload(&quiet, "unknown".to_owned()), "unknown");
    }

    #[test]
    fn what_two_causes_would_look_like_is_reported_as_neither() {
        let half = made(&[(ONE, 1, 1, MB, 1.5), (ALL, 3, 3, 1.5 * MB, 1.5)]);
        says(
            &with_queue(half),
            PUBLIC,
            None,
            "neither constant nor proportional",
        );
        let shared = made(&[(ONE, 1, 1, MB, 1.5), (ALL, 3, 1, MB, 1.0)]);
        says(&with_queue(shared), PUBLIC, None, "one connection");
        let apart = made(&[
            (ONE, 1, 1, MB, 1.5),
            (ALL, 3, 1, MB, 1.0),
            (APART, 3, 3, MB, 1.0),
        ]);
        says(
            &with_queue(apart),
            PUBLIC,
            Some(Cause::BwCap),
            "3 connections",
        );
        let mut short = made(&[(ONE, 1, 1, 60.0 * MB, 0.2), (ALL, 3, 3, 60.0 * MB, 0.1)]);
        short.end = TransferEnd::ByteLimit;
        says(&short, PUBLIC, None, "--max-bytes");
        short.end = TransferEnd::Complete;
        says(&short, PUBLIC, None, "larger image");
    }

    #[test]
    fn the_first_megabytes_may_be_faster() {
        let mut transfer = with_queue(capped(MB));
        let mut first = arrivals(&[(40.0 * MB, 0.1), (MB, 2.5)]);
        std::mem::swap(&mut transfer.arrivals, &mut first);
        says(&transfer, PUBLIC, Some(Cause::BwThrottle), "the first 3.");
    }

    #[test]
    fn a_host_elsewhere_tells_the_side() {
        let beside = |ours: f64, theirs: f64| {
            let mut transfer = with_queue(made(&[
                (ONE, 1, 1, MB, 1.5),
                (ALL, 3, 3, MB, 1.0),
                (CONTROL, 3, 3, ours, 1.5),
            ]));
            let mut control = arrivals(&[(theirs, 1.5)]);
            for arrival in &mut control {
                arrival.at += Duration::from_millis(2500);
            }
            transfer.control = Some(ControlTransfer {
                endpoint: fixture::endpoint("elsewhere.example.com"),
                fault: None,
                arrivals: control,
            });
            transfer
        };
        let shared = beside(0.6 * MB, 0.4 * MB);
        says(&shared, PUBLIC, Some(Cause::BwEipCap), "on this side");
        says(
            &shared,
            Known::default(),
            Some(Cause::BwCap),
            "on this side",
        );
        let remote = beside(MB, 5.0 * MB);
        says(&remote, PUBLIC, Some(Cause::BwRemote), "not on this side");
        // As slow as the registry, and not together: nothing is known of the side.
        says(&beside(MB, MB), PUBLIC, Some(Cause::BwCap), "side");
    }

    #[test]
    fn a_starved_or_disturbed_sample_is_not_believed() {
        let cause = |transfer: &Transfer| disturbance(transfer).map(|(cause, _)| cause);
        let mut transfer = sampled(capped(MB), sample);
        assert_eq!(cause(&transfer), None);
        let cpu = |used: u64, throttled: Option<u64>| CpuUse {
            used: Duration::from_millis(used),
            throttled: throttled.map(Duration::from_millis),
            over: Duration::from_millis(2500),
        };
        transfer.cpu = Some(cpu(300, Some(1)));
        assert_eq!(cause(&transfer), None);
        transfer.cpu = Some(cpu(300, Some(400)));
        assert_eq!(cause(&transfer), Some(Some(Cause::BwSelf)));
        transfer.cpu = Some(cpu(2400, None));
        assert_eq!(cause(&transfer), Some(Some(Cause::BwSelf)));
        transfer.cpu = Some(cpu(300, None));
        let unread = sampled(transfer.clone(), |number| StreamSample {
            unread: Some(Bytes(2 << 20)),
            ..sample(number)
        });
        assert_eq!(cause(&unread), Some(Some(Cause::BwSelf)));
        // 2.5 MB are ours, with their headers.
        let device = |bytes: u64| DeviceTraffic {
            device: "eth0".to_owned(),
            arrivals: [(0, 7), (2500, 7 + bytes)]
                .map(|(at, bytes)| Arrival {
                    at: Duration::from_millis(at),
                    bytes: Bytes(bytes),
                })
                .to_vec(),
            sent: Vec::new(),
        };
        transfer.device = Some(device(2_600_000));
        assert_eq!(cause(&transfer), None);
        transfer.device = Some(device(4_000_000));
        assert_eq!(cause(&transfer), Some(None));
    }
}
