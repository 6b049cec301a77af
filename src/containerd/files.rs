//! How a file of the node is read: whole, and no more than such a file can be.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// Settings and certificates are some KiB; this is a guard against `/dev/zero`.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    if read as u64 > MAX_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

const MAX_FILE: u64 = 4 << 20;

/// Files of one folder that are looked at.
pub(super) const MAX_FILES: usize = 1000;
