//! Each cause that is made, and what is reported for it.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clients::{curl, layers};
use crate::lab::process::run as run_to_end;
use crate::slow::{ALL, Made, NONE, OF_FRAME, Slow};
use crate::world::World;
use crate::{Options, Reported, is_near, median, say, spread};

fn wanted(options: &Options) -> Vec<&'static Slow> {
    let only = &options.only;
    let unknown: Vec<_> = only
        .iter()
        .filter(|name| ALL.iter().all(|slow| slow.name != **name))
        .collect();
    assert!(unknown.is_empty(), "no such causes: {unknown:?}");
    ALL.iter()
        .filter(|slow| only.is_empty() || only.iter().any(|name| name == slow.name))
        .collect()
}

/// What was reported for one cause, with the number of runs.
struct Row {
    slow: &'static Slow,
    reported: BTreeMap<String, usize>,
    right: usize,
}

pub(crate) fn run(program: &str, options: &Options) {
    let rows = Mutex::new(Vec::new());
    spread(wanted(options), options.jobs, |slow| {
        let row = reported_for(program, options, slow);
        rows.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(row);
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|row| ALL.iter().position(|slow| slow.name == row.slow.name));
    let codes: Vec<String> = {
        let mut codes: Vec<_> = rows.iter().flat_map(|row| row.reported.keys()).collect();
        codes.sort();
        codes.dedup();
        codes.into_iter().cloned().collect()
    };
    let head: String = codes.iter().map(|code| format!(" {code:>16}")).collect();
    say(&format!(
        "\n{:<18}{head} {:>8}",
        "made \\ reported", "right"
    ));
    for row in &rows {
        let cells: String = codes
            .iter()
            .map(|code| match row.reported.get(code) {
                Some(count) => format!(" {count:>16}"),
                None => format!(" {:>16}", "."),
            })
            .collect();
        let (name, right) = (row.slow.name, row.right);
        say(&format!("{name:<18}{cells} {right:>5}/{}", options.runs));
    }
    let right: usize = rows.iter().map(|row| row.right).sum();
    let all = rows.len() * options.runs;
    say(&format!(
        "\nright: {right} of {all}. A run that reports several causes is in several columns, and right only if each is."
    ));
}

fn reported_for(program: &str, options: &Options, slow: &'static Slow) -> Row {
    let world = slow.world();
    let made = slow.make(&world);
    let mut args = vec!["--transfer", "auto"];
    args.extend(options.probe_args.split_whitespace());
    let mut row = Row {
        slow,
        reported: BTreeMap::new(),
        right: 0,
    };
    let (mut one, mut all, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    let mut lasting = 0;
    for number in 0..options.runs {
        made.again(&world);
        let name = format!("{}-{number}", slow.name);
        let mut command = made.program(&world, program, &args);
        let Some(mut reported) = Reported::by(&mut command, options, &name) else {
            *row.reported.entry("failed".to_owned()).or_default() += 1;
            continue;
        };
        if reported.codes.is_empty() {
            reported.codes.push(NONE.to_owned());
        }
        row.right += usize::from(
            reported
                .codes
                .iter()
                .all(|code| is_right(slow, &made, code, &reported)),
        );
        one.extend(reported.one.map(|rate| rate.0 / 1e6));
        all.extend(reported.all.map(|rate| rate.0 / 1e6));
        bytes.push(f64::from(u32::try_from(reported.bytes).unwrap()) / 1e6);
        lasting += usize::from(reported.rates().any(|rate| rate.1));
        for code in reported.codes {
            *row.reported.entry(code).or_default() += 1;
        }
    }
    let mb = |rate: Option<f64>| rate.map_or("?".to_owned(), |rate| format!("{:.3}", rate / 1e6));
    say(&format!(
        "{:<18} right {}/{}: {:?}; MB/s one {:.3} (true {}), all {:.3} (true {}), lasting in {lasting}; MB {:.2}",
        slow.name,
        row.right,
        options.runs,
        row.reported,
        median(one),
        mb(made.one),
        median(all),
        mb(made.all),
        median(bytes),
    ));
    row
}

fn is_right(slow: &Slow, made: &Made, code: &str, reported: &Reported) -> bool {
    let is_true = || {
        let (rate, truth) = (reported.all.or(reported.one), made.all);
        rate.zip(truth)
            .is_some_and(|(rate, truth)| is_near(rate.0, truth))
    };
    slow.causes.contains(&code) || (slow.if_true.contains(&code) && is_true())
}

/// How long curl is observed.
const LOOK: Duration = Duration::from_secs(6);
const TICK: Duration = Duration::from_millis(250);

/// What curl has of one layer and of three, by the bytes that reach the device: over the whole time,
/// and in the second half. And what the server's kernel says.
pub(crate) fn check(options: &Options) {
    spread(wanted(options), options.jobs, |slow| {
        let world = slow.world();
        let made = slow.make(&world);
        for (count, truth) in [(1, made.one), (3, made.all)] {
            made.again(&world);
            let (rate, late, server) = watch(&world, &made, count);
            let truth = truth.map_or(String::new(), |truth| {
                format!(" (true {:.3}, ratio {:.3})", truth / 1e6, late / truth)
            });
            say(&format!(
                "{:<18} {count} layers: {:.3} MB/s, then {:.3}{truth}\n  {server}",
                slow.name,
                rate / 1e6,
                late / 1e6
            ));
        }
    });
}

fn watch(world: &World, made: &Made, count: usize) -> (f64, f64, String) {
    let mut child = curl(world, made.from, &layers(world)[..count], count > 1)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let mut seen = Vec::new();
    let mut server = String::new();
    while start.elapsed() < LOOK && child.try_wait().unwrap().is_none() {
        seen.push((start.elapsed(), received(world, made)));
        let mut ss = world.public.command("ss");
        let text = run_to_end(ss.args(["-tinHO", "state", "established", "sport", "=", ":443"]));
        // curl's, not that of a neighbour.
        if let Some(line) = text.lines().find(|line| line.contains("52.20.0.20:443")) {
            line.clone_into(&mut server);
        }
        std::thread::sleep(TICK);
    }
    let _ = child.kill();
    let _ = child.wait();
    let rate = |part: &[(Duration, f64)]| match (part.first(), part.last()) {
        (Some(first), Some(last)) if last.0 > first.0 => {
            (last.1 - first.1) * OF_FRAME / last.0.saturating_sub(first.0).as_secs_f64()
        }
        _ => f64::NAN,
    };
    let reported: Vec<&str> = server
        .split_whitespace()
        .filter(|word| {
            ["cubic", "bbr"].contains(word)
                || [
                    "rtt:",
                    "minrtt:",
                    "cwnd:",
                    "retrans:",
                    "rwnd_limited:",
                    "sndbuf_limited:",
                ]
                .iter()
                .any(|start| word.starts_with(start))
        })
        .collect();
    (
        rate(&seen),
        rate(&seen[seen.len() / 2..]),
        reported.join(" "),
    )
}

/// Bytes of frames that the client's device has received so far.
fn received(world: &World, made: &Made) -> f64 {
    let table = world.at(made.from).inside(|| {
        // The process's own would be that of the main thread.
        fs::read_to_string("/proc/thread-self/net/dev").unwrap()
    });
    let line = table.lines().find_map(|line| {
        let (device, counts) = line.split_once(':')?;
        (device.trim() == "eth0").then_some(counts)
    });
    line.unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}
