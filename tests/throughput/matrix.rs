//! Caps at round trip times, with small and large bursts: how near the rates are, and how many bytes
//! they took; beside a full transfer, curl and skopeo.

use std::time::Duration;

use crate::clients::{by_curl, by_skopeo};
use crate::lab::wire::Knobs;
use crate::slow::{self, Made, OF_IP, payload};
use crate::world::{PUBLIC, World};
use crate::{Options, Reported, is_near, median, say, spread};

const CAPS: [(u32, &[u64]); 7] = [
    (1, &[0, 20, 80]),
    (5, &[0, 20, 80]),
    (10, &[0, 20, 80]),
    (20, &[0, 20, 80]),
    (50, &[0, 20, 80]),
    (100, &[0, 20, 80]),
    (300, &[0, 20]),
];

const SMALL_BURST: usize = 32 << 10;

#[derive(Clone, Copy, Debug)]
struct Cell {
    mbit: u32,
    rtt: u64,
    is_large: bool,
}

impl Cell {
    fn names(self) -> [String; 3] {
        let burst = if self.is_large { "large" } else { "small" };
        [
            self.mbit.to_string(),
            format!("{}ms", self.rtt),
            burst.to_owned(),
        ]
    }

    /// Of each kind of name none was asked for, or this one.
    fn is_wanted(self, only: &[String]) -> bool {
        let kind = |name: &str| {
            if name.parse::<u32>().is_ok() {
                0
            } else if name.ends_with("ms") {
                1
            } else {
                2
            }
        };
        self.names().iter().enumerate().all(|(index, own)| {
            let mut wanted = only.iter().filter(|name| kind(name) == index).peekable();
            wanted.peek().is_none() || wanted.any(|name| name == own)
        })
    }

    fn truth(self) -> f64 {
        payload(f64::from(self.mbit), OF_IP)
    }

    /// Bytes of IP packets in a time at this rate.
    fn bytes(self, time: Duration) -> usize {
        usize::try_from(u128::from(self.mbit) * 125 * time.as_millis()).unwrap()
    }

    fn knobs(self) -> Knobs {
        let rtt = Duration::from_millis(self.rtt);
        Knobs {
            rate: Some(f64::from(self.mbit)),
            burst: if self.is_large {
                self.bytes(Duration::from_secs(1))
            } else {
                SMALL_BURST
            },
            // One flow is to fill it: cubic halves its window nearly.
            buffer: self
                .bytes(rtt.max(Duration::from_millis(50)))
                .max(SMALL_BURST),
            ..slow::way(self.rtt)
        }
    }

    /// What a measurement may take: slow start, the burst, and then what the plateau takes for each
    /// number of streams.
    fn allowed(self, plateaus: u32) -> f64 {
        let knobs = self.knobs();
        let rtt = f64::from(u32::try_from(self.rtt).unwrap()) / 1e3;
        let of = |bytes: usize| f64::from(u32::try_from(bytes).unwrap());
        let pipe = self.truth() * rtt + of(knobs.buffer);
        let plateau = (self.truth() * (20.0 * rtt).max(1.0)).max(1.3e6);
        2.0 * pipe + of(knobs.burst) + f64::from(plateaus) * plateau
    }
}

/// Of about 19 s at the rate, and 160 MiB at most; the first is the largest by far, as it often is.
fn layers(mbit: u32) -> [usize; 3] {
    let most = usize::try_from(mbit).unwrap() * 125_000 * 19;
    let all = most.min(160 << 20);
    [all / 5 * 3, all / 5, all / 5]
}

pub(crate) fn run(program: &str, options: &Options) {
    say(&format!(
        "{:<18} {:>5} {:>8} {:>5} {:>5} {:>6} {:>7} {:>8} {:>8} {:>8} {:>8} {:>5} {:>5} {:>5} {:>6}",
        "cell",
        "right",
        "at least",
        "WRONG",
        "over",
        "failed",
        "claims",
        "median B",
        "max B",
        "allowed1",
        "allowed2",
        "above",
        "full",
        "curl",
        "skopeo"
    ));
    let rates = CAPS.iter().rev().copied().collect();
    spread(rates, options.jobs, |(mbit, rtts): (u32, &[u64])| {
        let cells: Vec<Cell> = rtts
            .iter()
            .flat_map(|&rtt| {
                [false, true].map(|is_large| Cell {
                    mbit,
                    rtt,
                    is_large,
                })
            })
            .filter(|cell| cell.is_wanted(&options.only))
            .collect();
        if cells.is_empty() {
            return;
        }
        let world = World::with_layers(&layers(mbit));
        slow::forget_metrics(&world);
        world.registry(&PUBLIC);
        for cell in cells {
            say(&row(program, options, &world, cell));
        }
    });
    say(
        "right: a rate that lasts, within 5 % of the truth, and none beyond; over: a lower bound above the\n\
         truth; claims: findings other than a cap's; bytes in MB, allowed for one plateau and for two; above:\n\
         runs that took more than allowed; full, curl, skopeo: their mean rate by the truth (a burst helps it)",
    );
}

fn row(program: &str, options: &Options, world: &World, cell: Cell) -> String {
    let made = Made::without_registry(world, cell.rtt);
    world.wan.set(|knobs| *knobs = cell.knobs());
    let truth = cell.truth();
    let run = |how: &str, name: &str| {
        made.again(world);
        let mut args = vec!["--transfer", how];
        args.extend(options.probe_args.split_whitespace());
        let name = format!("{}-{name}", cell.names().join("-"));
        Reported::by(&mut made.program(world, program, &args), options, &name)
    };
    let (mut right, mut at_least, mut wrong, mut over, mut failed) = (0, 0, 0, 0, 0);
    let (mut claims, mut above, mut spent) = (0, 0, Vec::new());
    for number in 0..options.runs {
        let Some(reported) = run("auto", &number.to_string()) else {
            failed += 1;
            continue;
        };
        let lasting: Vec<f64> = reported.rates().filter(|r| r.1).map(|r| r.0).collect();
        if lasting.iter().any(|&rate| !is_near(rate, truth)) {
            wrong += 1;
        } else if lasting.is_empty() {
            at_least += 1;
        } else {
            right += 1;
        }
        if reported
            .rates()
            .any(|(rate, lasts)| !lasts && rate > 1.05 * truth)
        {
            over += 1;
        }
        if reported.codes.iter().any(|code| !is_caps(code, cell)) {
            claims += 1;
        }
        let bytes = f64::from(u32::try_from(reported.bytes).unwrap());
        let plateaus = u32::try_from(reported.rates().count().max(1)).unwrap();
        above += usize::from(bytes > cell.allowed(plateaus));
        spent.push(bytes);
    }
    let most = spent.iter().copied().fold(f64::NAN, f64::max);
    let full = run("full", "full").and_then(|reported| reported.all.or(reported.one));
    let full = full.map_or(f64::NAN, |rate| rate.0 / truth);
    made.again(world);
    let curl = by_curl(world) / truth;
    made.again(world);
    let skopeo = by_skopeo(world) / truth;
    let mb = |bytes: f64| bytes / 1e6;
    format!(
        "{:<18} {right:>5} {at_least:>8} {wrong:>5} {over:>5} {failed:>6} {claims:>7} {:>8.2} {:>8.2} {:>8.2} {:>8.2} {above:>5} {full:>5.2} {curl:>5.2} {skopeo:>6.2}",
        cell.names().join(","),
        mb(median(spent)),
        mb(most),
        mb(cell.allowed(1)),
        mb(cell.allowed(2)),
    )
}

/// Whether there is such a cause in the cell. A large burst before a cap is what a throttle is.
fn is_caps(code: &str, cell: Cell) -> bool {
    code == "bw_cap" || (cell.is_large && code == "bw_throttle")
}
