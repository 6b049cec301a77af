//! Each cause of a slow pull, made by a real one, is reported and taken for no other. How often, over
//! many runs, `tests/throughput/run causes` measures; here each is tried until it is reported.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;
#[path = "lab/metadata.rs"]
mod metadata;
#[path = "lab/slow.rs"]
mod slow;
#[path = "real/stack.rs"]
mod stack;
mod support;
#[path = "lab/world.rs"]
mod world;

use pullpath::report::Document;
use slow::{ALL, NONE};

/// A machine that does other work may starve a run, which then proves nothing.
const ATTEMPTS: usize = 4;

/// The report is right, each time or after runs without a cause; a wrong cause is never reported.
#[track_caller]
fn is_reported(name: &str, causes: &[&str]) {
    let slow = ALL.iter().find(|slow| slow.name == name).unwrap();
    assert_eq!(slow.causes, causes);
    let world = slow.world();
    let made = slow.make(&world);
    let mut silent = Vec::new();
    for _ in 0..ATTEMPTS {
        made.again(&world);
        let program = env!("CARGO_BIN_EXE_pullpath");
        let output = made
            .program(&world, program, &["--transfer", "auto"])
            .output();
        let output = output.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let document: Document = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        let verdict = &document.reports[0].verdict;
        let codes: Vec<&str> = verdict.findings.iter().map(|f| f.cause.code()).collect();
        let is_starved = codes == ["bw_self"] && causes != ["bw_self"];
        if (codes.is_empty() && causes == [NONE]) || (!codes.is_empty() && codes == causes) {
            return;
        }
        let throughput = verdict.throughput.clone();
        // Where the control host got too little for a decision, "capped, on no known side" is true,
        // too.
        let is_weaker =
            codes == ["bw_cap"] && (causes == ["bw_remote"] || causes == ["bw_eip_cap"]);
        assert!(
            codes.is_empty() || is_starved || is_weaker,
            "{name}: {codes:?}, {throughput:#?}"
        );
        silent.push(throughput);
    }
    panic!("{name} was not reported: {silent:#?}");
}

macro_rules! reported {
    ($($test:ident: $name:literal is $cause:expr;)*) => {$(
        #[test]
        fn $test() {
            is_reported($name, &[$cause]);
        }
    )*};
}

reported! {
    a_way_without_a_limit: "uncapped_20ms" is NONE;
    a_cap_on_no_known_side: "cap" is "bw_cap";
    a_policer: "policer" is "bw_cap";
    an_eip_by_its_size: "eip_of_pod" is "bw_eip_cap";
    an_eip_by_a_control_host: "eip_with_control" is "bw_eip_cap";
    what_the_cloud_gives_this_machine: "node" is "bw_node";
    a_registry_that_is_slow_by_itself: "remote" is "bw_remote";
    a_limit_of_each_request: "per_request" is "bw_per_flow";
    a_small_receive_window: "window_here" is "bw_window";
    a_small_send_buffer: "window_there" is "bw_window";
    no_window_scaling_here: "scaling_here" is "bw_window";
    no_window_scaling_there: "scaling_there" is "bw_window";
    random_losses: "loss" is "bw_loss";
    random_losses_without_sack: "loss_without_sack" is "bw_loss";
    uploads_that_fill_the_uplink: "uplink" is "bw_uplink";
    a_burst_and_then_less: "throttle" is "bw_throttle";
    slow_storage: "late" is "ttfb_slow";
    a_cold_cache: "late_when_cold" is "ttfb_slow";
    silence_in_the_middle: "stall" is "pull_no_progress";
    too_little_processor: "cpu" is "bw_self";
}
