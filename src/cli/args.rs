//! Parsers of arguments that several commands share.

use std::time::Duration;

use jiff::SignedDuration;

/// A duration of 1 ms to 10 minutes.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_mins(10), "10m")
}

/// A duration of 1 ms to 24 hours, for what may take long, such as a pull.
pub(super) fn long_duration(text: &str) -> Result<Duration, String> {
    bounded(text, Duration::from_hours(24), "24h")
}

fn bounded(text: &str, max: Duration, shown: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text
        .parse()
        .map_err(|_| "not a duration; write for instance 10s or 500ms".to_owned())?;
    match Duration::try_from(duration) {
        Ok(d) if d >= Duration::from_millis(1) && d <= max => Ok(d),
        _ => Err(format!("must be between 1ms and {shown}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_bounded() {
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["", "2", "-1s", "0s", "11m", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
