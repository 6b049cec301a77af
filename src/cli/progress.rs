//! One line on a terminal that says what is being waited for.

use std::io::{self, Write as _};
use std::sync::Mutex;

use crate::model::endpoint::Role;
use crate::model::fault::Phase;
use crate::probe::Progress;

/// The line, shared by the walks of a run; the newest word wins.
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

    /// The line's view of one walk.
    pub(super) fn watch(&self, image: String) -> Watch<'_> {
        Watch { line: self, image }
    }

    /// Takes the line away before the result is printed.
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
            // A line longer than the terminal would not be taken away by one carriage return.
            let text: String = text.chars().take(78).collect();
            let _ = write!(io::stderr(), "\r\x1b[K{text}");
            *written = true;
        }
    }
}

pub(super) struct Watch<'a> {
    line: &'a ProgressLine,
    image: String,
}

impl Progress for Watch<'_> {
    fn phase(&self, role: Role, phase: Phase) {
        self.line.show(&format!("{role} {phase}  {}", self.image));
    }
}
