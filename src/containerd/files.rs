//! Reads a file of the node as a whole, up to a maximum size.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::net::host_root::read_whole;

/// Settings and certificates have a few KiB; the bound protects against `/dev/zero`.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_whole(File::open(path)?, MAX_FILE)
}

const MAX_FILE: u64 = 4 << 20;

/// At most this many files of one folder are read.
pub(super) const MAX_FILES: usize = 1000;

/// The line of a byte offset, counted from 1.
pub(super) fn line_at(bytes: &[u8], at: usize) -> usize {
    let before = bytes.get(..at).unwrap_or(bytes);
    before.split(|byte| *byte == b'\n').count()
}
