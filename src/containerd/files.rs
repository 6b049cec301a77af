//! How a file of the node is read: whole, and no more than such a file can be.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::net::host_root::read_whole;

/// Settings and certificates are some KiB; this is a guard against `/dev/zero`.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_whole(File::open(path)?, MAX_FILE)
}

const MAX_FILE: u64 = 4 << 20;

/// Files of one folder that are looked at.
pub(super) const MAX_FILES: usize = 1000;

/// The line, from 1, of a byte.
pub(super) fn line_at(bytes: &[u8], at: usize) -> usize {
    let before = bytes.get(..at).unwrap_or(bytes);
    before.split(|byte| *byte == b'\n').count()
}
