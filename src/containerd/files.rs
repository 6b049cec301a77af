//! How a file of the node is read: whole, and no more than such a file can be.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::net::mounted::read_whole;

/// Settings and certificates are some KiB; this is a guard against `/dev/zero`.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_whole(File::open(path)?, MAX_FILE)
}

const MAX_FILE: u64 = 4 << 20;

/// Files of one folder that are looked at.
pub(super) const MAX_FILES: usize = 1000;
