//! One line on a terminal that shows the current phase of a check or the progress of a transfer test.

use std::io::{self, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use crate::model::endpoint::Role;
use crate::model::fault::Phase;
use crate::model::units::{Bytes, HumanDuration, Mbit};
use crate::probe::network::Progress;

/// The line, shared by the checks of a run; it shows the newest event of any of them.
#[derive(Debug)]
pub(super) struct ProgressLine {
    is_shown: bool,
    written: Mutex<bool>,
}

impl ProgressLine {
    pub(super) fn new(is_shown: bool) -> Self {
        Self {
            is_shown,
            written: Mutex::new(false),
        }
    }

    /// Receives the progress of one check.
    pub(super) fn watch(&self, image: String) -> Watch<'_> {
        Watch { line: self, image }
    }

    /// Removes the line before the result is printed.
    pub(super) fn clear(&self) {
        if let Ok(mut written) = self.written.lock()
            && std::mem::take(&mut *written)
        {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }

    fn show(&self, text: &str) {
        if !self.is_shown {
            return;
        }
        if let Ok(mut written) = self.written.lock() {
            // One carriage return can't remove a line that is longer than the terminal is wide.
            let text: String = text.chars().take(78).collect();
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
            *written = true;
        }
    }
}

/// `[######......]  48 %  12.0 MiB of 25.0 MiB, 9.6 Mbit/s, 11 s left`.
#[expect(clippy::cast_precision_loss, reason = "for people")]
fn bar(bytes: Bytes, of: Bytes, elapsed: Duration) -> String {
    const WIDTH: u8 = 20;
    let part = |of_what: u64| bytes.0.min(of.0) * of_what / of.0.max(1);
    let full = usize::try_from(part(WIDTH.into())).unwrap_or_default();
    let rest = usize::from(WIDTH) - full;
    let rate = bytes.0 as f64 / elapsed.as_secs_f64().max(1e-3);
    let left = of.0.saturating_sub(bytes.0) as f64 / rate.max(1.0);
    let left = Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX);
    format!(
        "[{}{}] {:>3} %  {bytes} of {of}, {}, {} left",
        "#".repeat(full),
        ".".repeat(rest),
        part(100),
        Mbit(rate),
        HumanDuration(left)
    )
}

pub(super) struct Watch<'a> {
    line: &'a ProgressLine,
    image: String,
}

impl Progress for Watch<'_> {
    fn phase(&self, role: Role, phase: Phase) {
        self.line.show(&format!("{role} {phase}  {}", self.image));
    }

    fn transferred(&self, bytes: Bytes, of: Bytes, elapsed: Duration) {
        self.line.show(&bar(bytes, of, elapsed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_tells_how_far_how_fast_and_how_long() {
        let bar_of = |bytes| bar(Bytes(bytes), Bytes(25 << 20), Duration::from_secs(10));
        assert_eq!(
            bar_of(12 << 20),
            "[#########...........]  48 %  12.0 MiB of 25.0 MiB, 10.1 Mbit/s, 11 s left"
        );
        // A server may send the same bytes twice, and at first nothing has arrived.
        assert!(bar_of(30 << 20).starts_with("[####################] 100 %"));
        assert!(bar_of(0).starts_with("[....................]   0 %"));
        assert!(bar(Bytes(0), Bytes(0), Duration::ZERO).contains("0 %"));
    }
}
