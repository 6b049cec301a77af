//! Sections about the daemon itself: its name, its schedule, its budgets, what it keeps.
//! docs/configuration.md has the reason of each default.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::error::{self, ConfigError};
use super::values::{CountWithin, Fraction, Size, WaitWithin, short};
use crate::model::units::Bytes;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Section `log`: what is written to stderr, and how.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Text for people, or JSON for log collectors.
    pub format: LogFormat,
    /// The least severe messages that are logged.
    pub level: LogLevel,
}

/// `log.format`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line per message, for people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// `log.level`: each level includes those before it.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Errors only
    Error,
    /// Also warnings
    Warn,
    /// Also changes of state, such as a reload
    #[default]
    Info,
    /// Also details of each check
    Debug,
    /// Also details of libraries
    Trace,
}

/// Section `vantage`: where the daemon runs.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct VantageConfig {
    /// The name of this node; default: NODE_NAME of the environment, or the host's name. The times of
    /// checks follow from it, so it should stay the same.
    pub node: Option<String>,
}

/// Section `schedule`: how often each tier of check runs, and its time limits.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// How often to check whether a pull would succeed.
    pub reach: WaitWithin<10, DAY>,
    /// How often to check the path: routers, metadata, egress. A change of addresses or path class
    /// brings the next such check forward.
    pub path: WaitWithin<MINUTE, { 7 * DAY }>,
    /// How often, on average, to measure the download rate; `off`: never.
    pub transfer: Interval,
    /// Within which time a target without a result is checked, after the start or once it is known. Spread
    /// by node and target.
    pub first_check: WaitWithin<1, HOUR>,
    /// The longest wait for a single answer from the network.
    pub timeout: WaitWithin<1, { 5 * MINUTE }>,
    /// The longest duration of a whole check.
    pub check_timeout: WaitWithin<5, HOUR>,
    /// How long running checks may continue at shutdown.
    pub grace: WaitWithin<0, { 5 * MINUTE }>,
}

impl Default for Schedule {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            reach: WaitWithin(seconds(2 * MINUTE)),
            path: WaitWithin(seconds(HOUR)),
            transfer: Interval(Some(seconds(6 * HOUR))),
            first_check: WaitWithin(seconds(15)),
            timeout: WaitWithin(seconds(5)),
            check_timeout: WaitWithin(seconds(MINUTE)),
            grace: WaitWithin(seconds(10)),
        }
    }
}

impl Schedule {
    /// Checks keys that depend on each other.
    ///
    /// # Errors
    /// If `timeout` is not shorter than `check_timeout`.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.timeout.0 >= self.check_timeout.0 {
            return Err(error::whole(format!(
                "schedule.timeout ({}) is not shorter than schedule.check_timeout ({}), so one missing answer would use up the whole check; make check_timeout several times longer",
                short(self.timeout.0),
                short(self.check_timeout.0)
            )));
        }
        Ok(())
    }
}

/// A mean interval between 5 minutes and 30 days; `None`: `off`.
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
        // More often would be a load rather than a test.
        let read = WaitWithin::<{ 5 * MINUTE }, { 30 * DAY }>::deserialize(from);
        let wait = read.map_err(|error| de::Error::custom(format!("{error}, or off")))?;
        Ok(Self(Some(wait.0)))
    }
}

/// Section `budgets`: upper bounds for checks, bytes and requests.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Budgets {
    /// Checks that run at the same time.
    pub checks_at_once: CountWithin<1, 256>,
    /// The limit of bytes for one transfer test.
    pub transfer_bytes: Size,
    /// The longest duration of one transfer test.
    pub transfer_duration: WaitWithin<1, MINUTE>,
    /// What all transfer tests of this node may download per day (UTC).
    pub node_bytes_per_day: Size,
    /// The same for one target.
    pub target_bytes_per_day: Size,
    /// The same for one registry.
    pub registry_bytes_per_day: Size,
    /// Requests from this node to one registry.
    pub registry_requests_per_minute: CountWithin<1, 1_000_000>,
    /// With less than this share of a registry's rate limit left, only requests that don't count
    /// against it are sent.
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

/// Section `history`: how many checks and reports are kept in memory.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// Checks to keep per target.
    pub runs: CountWithin<1, 1000>,
    /// Failed checks to keep besides, however many have succeeded since.
    pub failures: CountWithin<1, 1000>,
    /// Memory for all full reports. The newest report of each target, and of its failures, is dropped
    /// last.
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
