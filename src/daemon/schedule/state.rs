//! The state file in `state_dir`, which outlives a restart. A damaged or foreign file is renamed, and never
//! stops the daemon.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use crate::files;

/// The content of the state file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PersistedState {
    version: u32,
    /// The node that wrote it: the budgets of another node don't apply.
    pub node: String,
    /// The key of the HMAC that makes tags of credentials.
    pub key: [u8; 32],
    /// Budgets, back-offs and cooldowns.
    pub ledger: Ledger,
}

/// A file with another version is renamed.
const VERSION: u32 = 1;

/// Maximum size of the file; it usually has some KiB.
const MAX_FILE: u64 = 4 << 20;

/// Bytes of the folder for the state file, its successor while that is written, and a damaged one that was renamed.
pub const MAX_BYTES: u64 = 3 * MAX_FILE;

impl PersistedState {
    /// An empty state with a new key.
    pub fn new(node: &str) -> Self {
        let mut key = [0; 32];
        // Without randomness, tags are 16 bits of a hash with a known key.
        let _ = rand::fill(&mut key);
        Self {
            version: VERSION,
            node: node.to_owned(),
            key,
            ledger: Ledger::default(),
        }
    }
}

/// The path of the state file.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file `state.json` in a folder, which is created if it is missing.
    ///
    /// # Errors
    /// If the folder can't be created.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        let owned = folder.to_owned();
        files::within(folder, move || std::fs::create_dir_all(owned))?;
        Ok(Self {
            path: folder.join("state.json"),
        })
    }

    /// Reads the state. If it can't be used, returns an empty one with the reason, and renames the file.
    pub fn load(&self, node: &str) -> (PersistedState, Option<String>) {
        let reason = match self.read(node) {
            Ok(Some(state)) => return (state, None),
            Ok(None) => return (PersistedState::new(node), None),
            Err(reason) => reason,
        };
        let aside = self.path.with_extension("json.bad");
        let (from, to) = (self.path.clone(), aside.clone());
        let renamed = files::within(&self.path, move || std::fs::rename(from, to));
        let message = match renamed {
            Ok(()) => format!("{reason}; it was renamed to {}", aside.display()),
            Err(error) => format!("{reason}; it can't be renamed: {error}"),
        };
        (PersistedState::new(node), Some(message))
    }

    fn read(&self, node: &str) -> Result<Option<PersistedState>, String> {
        let shown = self.path.display();
        let text = match files::read(&self.path, MAX_FILE) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{shown} can't be read: {error}")),
        };
        let state: PersistedState = serde_json::from_slice(&text)
            .map_err(|error| format!("{shown} is damaged or of another program: {error}"))?;
        if state.version != VERSION {
            return Err(format!(
                "{shown} has version {}, not {VERSION}",
                state.version
            ));
        }
        if state.node != node {
            return Err(format!(
                "{shown} belongs to the node '{}', not to '{node}'",
                state.node
            ));
        }
        Ok(Some(state))
    }

    /// Replaces the file as a whole.
    ///
    /// # Errors
    /// If it can't be written or renamed.
    pub fn save(&self, state: &PersistedState) -> io::Result<()> {
        let text = serde_json::to_vec(state)?;
        if text.len() as u64 > MAX_FILE {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        files::replace(&self.path, text)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_torn_or_foreign_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_folder(&folder.path().join("new")).unwrap();
        let (state, message) = file.load("n1");
        assert_eq!(message, None);
        file.save(&state).unwrap();
        let (read, message) = file.load("n1");
        assert_eq!((read.key, message), (state.key, None));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(&file.path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);

        let (other, message) = file.load("n2");
        assert_ne!(other.key, state.key);
        assert!(message.unwrap().contains("belongs to the node 'n1'"));
        let whole = serde_json::to_string(&state).unwrap();
        for torn in [
            "",
            "{}",
            &whole[..whole.len() / 2],
            "[1,2]",
            &whole.replace("\"version\":1", "\"version\":2"),
        ] {
            fs::write(&file.path, torn).unwrap();
            let (_, message) = file.load("n1");
            let message = message.unwrap();
            assert!(message.contains("state.json.bad"), "{message}");
            assert!(!file.path.exists());
        }
    }
}
