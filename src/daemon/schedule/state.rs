//! The file of what must outlive a restart. A torn or foreign one is set aside, and never fatal.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

use super::ledger::Ledger;
use crate::net::host_root::read_whole;

/// What is in it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PersistedState {
    version: u32,
    /// Whose it is: another node's budgets are not ours.
    pub node: String,
    /// Makes tags of credentials.
    pub key: [u8; 32],
    pub ledger: Ledger,
}

/// Another one is set aside.
const VERSION: u32 = 1;

/// Some KiB; what is larger is not ours.
const MOST: u64 = 16 << 20;

impl PersistedState {
    /// An empty one.
    pub fn new(node: &str) -> Self {
        let mut key = [0; 32];
        // Without randomness, tags would be no worse than 16 bits of a plain hash.
        let _ = rand::fill(&mut key);
        Self {
            version: VERSION,
            node: node.to_owned(),
            key,
            ledger: Ledger::default(),
        }
    }
}

/// Where it is.
#[derive(Clone, Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// In a folder, which is made if need be.
    ///
    /// # Errors
    /// When the folder can't be made.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            path: folder.join("state.json"),
        })
    }

    /// What was written last; or an empty one, with the reason why what is there can't be used.
    pub fn load(&self, node: &str) -> (PersistedState, Option<String>) {
        let reason = match self.read(node) {
            Ok(Some(state)) => return (state, None),
            Ok(None) => return (PersistedState::new(node), None),
            Err(reason) => reason,
        };
        let aside = self.path.with_extension("json.bad");
        let told = match fs::rename(&self.path, &aside) {
            Ok(()) => format!("{reason}; it is now {}", aside.display()),
            Err(error) => format!("{reason}; it can't be set aside: {error}"),
        };
        (PersistedState::new(node), Some(told))
    }

    fn read(&self, node: &str) -> Result<Option<PersistedState>, String> {
        let shown = self.path.display();
        let text = match File::open(&self.path).and_then(|file| read_whole(file, MOST)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{shown} can't be read: {error}")),
        };
        let state: PersistedState = serde_json::from_slice(&text)
            .map_err(|error| format!("{shown} is torn or foreign: {error}"))?;
        if state.version != VERSION {
            return Err(format!(
                "{shown} is of version {}, not {VERSION}",
                state.version
            ));
        }
        if state.node != node {
            return Err(format!(
                "{shown} is of the node '{}', not of '{node}'",
                state.node
            ));
        }
        Ok(Some(state))
    }

    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, state: &PersistedState) -> io::Result<()> {
        let next = self.path.with_extension("json.new");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_data()?;
        fs::rename(&next, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_torn_or_foreign_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::in_folder(&folder.path().join("new")).unwrap();
        let (state, told) = file.load("n1");
        assert_eq!(told, None);
        file.save(&state).unwrap();
        let (read, told) = file.load("n1");
        assert_eq!((read.key, told), (state.key, None));
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &fs::metadata(&file.path).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);

        let (other, told) = file.load("n2");
        assert_ne!(other.key, state.key);
        assert!(told.unwrap().contains("of the node 'n1'"));
        let whole = serde_json::to_string(&state).unwrap();
        for torn in [
            "",
            "{}",
            &whole[..whole.len() / 2],
            "[1,2]",
            &whole.replace("\"version\":1", "\"version\":2"),
        ] {
            fs::write(&file.path, torn).unwrap();
            let (_, told) = file.load("n1");
            let told = told.unwrap();
            assert!(told.contains("state.json.bad"), "{told}");
            assert!(!file.path.exists());
        }
    }
}
