//! Quantities with the unit in their type, and how they are written.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A number of bytes.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    /// Binary units, as containerd and `crictl images` show sizes: `8.0 MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const STEPS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        for (size, unit) in STEPS {
            if self.0 >= size {
                #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
                return write!(f, "{:.1} {unit}", self.0 as f64 / size as f64);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A duration for people, with few digits: `27 µs`, `0.4 ms`, `12 ms`, `1.3 s`, `72 s`, `60 min`, `2.5 h`, `2 d`.
#[derive(Clone, Copy, Debug)]
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_secs_f64() * 1e3;
        match ms {
            0.0 => f.write_str("0 ms"),
            ..0.0995 => write!(f, "{:.0} µs", ms * 1e3),
            ..9.95 => write!(f, "{ms:.1} ms"),
            ..999.5 => write!(f, "{ms:.0} ms"),
            ..9_950.0 => write!(f, "{:.1} s", ms / 1e3),
            ..999_500.0 => write!(f, "{:.0} s", ms / 1e3),
            ..7_200_000.0 => write!(f, "{:.0} min", ms / 60e3),
            ..35_820_000.0 => write!(f, "{:.1} h", ms / 3_600e3),
            ..172_800_000.0 => write!(f, "{:.0} h", ms / 3_600e3),
            _ => write!(f, "{:.0} d", ms / 86_400e3),
        }
    }
}

/// A rate in bytes per second, shown as clouds sell it: `9.6 Mbit/s`.
#[derive(Clone, Copy, Debug)]
pub struct Mbit(pub f64);

impl fmt::Display for Mbit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(1);
        write!(f, "{:.decimals$} Mbit/s", self.0 * 8.0 / 1e6)
    }
}

impl FromStr for Bytes {
    type Err = &'static str;

    /// Reads `16MiB`, `2MB`, or a plain number of bytes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const UNITS: &[(&str, u64)] = &[
            ("KiB", 1 << 10),
            ("MiB", 1 << 20),
            ("GiB", 1 << 30),
            ("kB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("B", 1),
            ("", 1),
        ];
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text[digits.len()..].trim();
        let factor = UNITS.iter().find(|(name, _)| *name == unit);
        let number = digits.trim().parse::<u64>().ok();
        let bytes = number
            .zip(factor)
            .and_then(|(number, (_, factor))| number.checked_mul(*factor));
        bytes.map(Self).ok_or("not a size such as 16MiB")
    }
}

// `#[serde(with = "Seconds")]` writes a duration as a number of seconds. The documentation comments of these types
// become descriptions in the JSON Schema, unless the field has its own.
/// A duration in seconds.
#[derive(Debug, JsonSchema)]
#[schemars(with = "f64")]
pub struct Seconds;

/// A duration in seconds, or null.
#[derive(Debug, JsonSchema)]
#[schemars(with = "Option<f64>")]
pub struct OptionalSeconds;

/// Durations in seconds.
#[derive(Debug, JsonSchema)]
#[schemars(with = "Vec<f64>")]
pub struct ListOfSeconds;

/// Rounds to microseconds, which is more precise than a userspace clock around a system call.
fn to_seconds(value: &Duration) -> f64 {
    (value.as_secs_f64() * 1e6).round() / 1e6
}

fn from_seconds<E: de::Error>(seconds: f64) -> Result<Duration, E> {
    Duration::try_from_secs_f64(seconds).map_err(E::custom)
}

impl Seconds {
    /// Writes seconds, rounded to microseconds.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(to_seconds(value))
    }

    /// Reads seconds.
    ///
    /// # Errors
    /// If the number is negative, not finite, or too large for a `Duration`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from_seconds(f64::deserialize(from)?)
    }
}

impl OptionalSeconds {
    /// Writes seconds, rounded to microseconds.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(to_seconds).serialize(to)
    }

    /// Reads seconds.
    ///
    /// # Errors
    /// If the number is negative, not finite, or too large for a `Duration`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        let seconds: Option<f64> = Option::deserialize(from)?;
        seconds.map(from_seconds).transpose()
    }
}

impl ListOfSeconds {
    /// Writes seconds, rounded to microseconds.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(values: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(to_seconds))
    }

    /// Reads seconds.
    ///
    /// # Errors
    /// If one of the numbers is negative, not finite, or too large for a `Duration`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
        let seconds: Vec<f64> = Vec::deserialize(from)?;
        seconds.into_iter().map(from_seconds).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_as_people_say_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (8_391_406, "8.0 MiB"),
            (3 << 30, "3.0 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        for (micros, text) in [
            (0, "0 ms"),
            (27, "27 µs"),
            (420, "0.4 ms"),
            (9_960, "10 ms"),
            (12_300, "12 ms"),
            (1_300_000, "1.3 s"),
            (72_000_000, "72 s"),
            (400_000_000, "400 s"),
            (3_600_000_000, "60 min"),
            (9_000_000_000, "2.5 h"),
            (86_400_000_000, "24 h"),
            (172_800_000_000, "2 d"),
        ] {
            assert_eq!(
                HumanDuration(Duration::from_micros(micros)).to_string(),
                text
            );
        }
        assert_eq!(Mbit(1.2e6).to_string(), "9.6 Mbit/s");
        assert_eq!(format!("{:.0}", Mbit(1.2e6)), "10 Mbit/s");
    }
}
