//! What `pullpath run` is told of itself: what it is called, how often it checks, what it may spend,
//! what it remembers. docs/configuration.md gives the reason of each default.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::error::ConfigError;
use super::values::{CountWithin, Fraction, Size, WaitWithin, short};
use crate::model::units::Bytes;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `log`.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    pub level: LogLevel,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// `vantage`.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct VantageConfig {
    /// What this node is called; otherwise NODE_NAME of the environment, or the host's name. It
    /// decides when checks are made, so it should stay the same.
    pub node: Option<String>,
}

/// `schedule`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// How often it is checked whether a pull would succeed.
    pub reach: WaitWithin<10, DAY>,
    /// How often the way is looked at: routers, metadata, egress. When something about it is new,
    /// it is looked at soon.
    pub path: WaitWithin<MINUTE, { 7 * DAY }>,
    /// How often, on average, it is measured how fast layers come; `off`: never.
    pub transfer: Interval,
    /// The longest wait for any single answer from the network.
    pub timeout: WaitWithin<1, { 5 * MINUTE }>,
    /// The longest that a whole check may last.
    pub check_timeout: WaitWithin<5, HOUR>,
    /// How long checks under way may go on at the end.
    pub grace: WaitWithin<0, { 5 * MINUTE }>,
}

impl Default for Schedule {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            reach: WaitWithin(seconds(2 * MINUTE)),
            path: WaitWithin(seconds(HOUR)),
            transfer: Interval(Some(seconds(6 * HOUR))),
            timeout: WaitWithin(seconds(5)),
            check_timeout: WaitWithin(seconds(MINUTE)),
            grace: WaitWithin(seconds(10)),
        }
    }
}

impl Schedule {
    /// What one entry alone can't show.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.timeout.0 >= self.check_timeout.0 {
            return Err(ConfigError::whole(format!(
                "schedule.timeout ({}) is as long as schedule.check_timeout ({}): a check that waits once for so long would tell nothing; make check_timeout some times longer",
                short(self.timeout.0),
                short(self.check_timeout.0)
            )));
        }
        Ok(())
    }
}

/// A mean distance in time, or `off`.
#[derive(Clone, Copy, Debug, Eq, JsonSchema, PartialEq)]
#[schemars(transparent)]
pub struct Interval(#[schemars(with = "String")] pub Option<Duration>);

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "off" {
            return Ok(Self(None));
        }
        let from = de::value::StrDeserializer::<D::Error>::new(&text);
        // More often would be no test, but a load.
        let read = WaitWithin::<{ 5 * MINUTE }, { 30 * DAY }>::deserialize(from);
        let wait = read.map_err(|error| de::Error::custom(format!("{error}, or off")))?;
        Ok(Self(Some(wait.0)))
    }
}

/// `budgets`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Budgets {
    /// Checks that are made at the same time.
    pub checks_at_once: CountWithin<1, 256>,
    /// The most that one transfer test reads.
    pub transfer_bytes: Size,
    /// And the longest that it lasts.
    pub transfer_duration: WaitWithin<1, MINUTE>,
    /// What all transfer tests of this node read in a day (UTC).
    pub node_bytes_per_day: Size,
    pub target_bytes_per_day: Size,
    pub registry_bytes_per_day: Size,
    /// Requests that this node sends to one registry.
    pub registry_requests_per_minute: CountWithin<1, 1_000_000>,
    /// With less than this share left of a registry's rate limit, only what is known to be free
    /// goes on.
    pub rate_limit_floor: Fraction,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            checks_at_once: CountWithin(8),
            transfer_bytes: Size(Bytes(16 << 20)),
            transfer_duration: WaitWithin(Duration::from_secs(5)),
            node_bytes_per_day: Size(Bytes(256 << 20)),
            target_bytes_per_day: Size(Bytes(64 << 20)),
            registry_bytes_per_day: Size(Bytes(128 << 20)),
            registry_requests_per_minute: CountWithin(240),
            rate_limit_floor: Fraction(0.1),
        }
    }
}

/// `history`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Runs of each target that are remembered.
    pub runs: CountWithin<1, 1000>,
    /// Failed runs that are remembered besides, however many have succeeded since.
    pub failures: CountWithin<1, 1000>,
    /// What all full reports may take of memory; the newest of each target, and of its failures, is
    /// kept in any case.
    pub memory: Size,
}

impl Default for History {
    fn default() -> Self {
        Self {
            runs: CountWithin(20),
            failures: CountWithin(5),
            memory: Size(Bytes(2 << 20)),
        }
    }
}
