//! Detects changes of the configuration file, also by the symlink swap of a mounted ConfigMap. A watch on
//! the file itself would end with the old file, so its folder is watched.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::config::MAX_CONFIG;
use crate::files;

/// The wait after an event, because editors write a file in several steps.
const SETTLES: Duration = Duration::from_millis(250);

/// The file is read this often in any case: network file systems, or a lack of watches, lose events.
const READ_EVERY: Duration = Duration::from_mins(1);

/// Reads and checks the configuration. The error is a message for the operator.
pub type Loader<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// The result of the newest attempt to load the configuration.
#[derive(Clone, Debug)]
pub struct Reload {
    /// When the file was read.
    pub at: Timestamp,
    /// When the configuration in force was loaded.
    pub success_at: Timestamp,
    /// Why the newest file was rejected; `None` if it is in force.
    pub error: Option<String>,
}

impl Reload {
    /// The first configuration, which is in force.
    pub fn begin(at: Timestamp) -> Self {
        Self {
            at,
            success_at: at,
            error: None,
        }
    }

    /// Records another attempt, and logs it.
    pub fn again(&mut self, result: Result<(), String>, at: Timestamp) {
        self.at = at;
        self.error = result.err();
        if let Some(error) = &self.error {
            tracing::error!(
                error,
                "the configuration was rejected; the one before it stays in force"
            );
        } else {
            self.success_at = at;
            tracing::info!("the configuration is in force");
        }
    }
}

/// Detects changes of a file's content.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    known: Option<Vec<u8>>,
    events: mpsc::Receiver<()>,
    /// The watch ends when this is dropped.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches the folder of `path`. If that fails, the file is read once a minute.
    pub fn new(path: &Path) -> Self {
        let (sender, events) = mpsc::channel(1);
        let on_event = move |event: notify::Result<notify::Event>| {
            // A read changes nothing, and one pending signal is enough.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        };
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or_else(|| Path::new("."));
        let parent = folder.to_owned();
        let watcher = files::within(path, move || {
            let watch = |mut watcher: RecommendedWatcher| {
                watcher.watch(&parent, RecursiveMode::NonRecursive)?;
                Ok(watcher)
            };
            let made = notify::recommended_watcher(on_event).and_then(watch);
            made.map_err(io::Error::other)
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, folder = %folder.display(), "the folder can't be watched; changes of the configuration are detected within a minute");
        }
        Self {
            known: content(path),
            path: path.to_owned(),
            events,
            _watcher: watcher.ok(),
        }
    }

    /// Waits until the content changes. A file that is missing for a moment is no change; one that can't be read is.
    pub async fn changed(&mut self) {
        loop {
            match timeout(READ_EVERY, self.events.recv()).await {
                Ok(Some(())) => {
                    sleep(SETTLES).await;
                    while self.events.try_recv().is_ok() {}
                }
                // The watcher could not be created.
                Ok(None) => sleep(READ_EVERY).await,
                Err(_) => {}
            }
            let now = content(&self.path);
            if now.is_some() && now != self.known {
                self.known = now;
                return;
            }
        }
    }
}

/// The hash of the content, or why it can't be read; `None`: there is no file.
fn content(path: &Path) -> Option<Vec<u8>> {
    match files::read(path, MAX_CONFIG) {
        Ok(bytes) => Some(digest::digest(&digest::SHA256, &bytes).as_ref().to_vec()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(files::reason(&error).into_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const SOON: Duration = Duration::from_secs(10);

    /// As the kubelet does it: `..data` is a symlink to a folder, and the file one through it.
    #[tokio::test]
    async fn the_swap_of_a_configmap_is_a_change_and_a_touch_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("..1")).unwrap();
        fs::write(path("..1/config.yaml"), "one").unwrap();
        symlink("..1", path("..data")).unwrap();
        symlink("..data/config.yaml", path("config.yaml")).unwrap();
        let mut watch = Watch::new(&path("config.yaml"));

        fs::write(path("other"), "").unwrap();
        assert!(
            timeout(Duration::from_millis(700), watch.changed())
                .await
                .is_err()
        );

        fs::create_dir(path("..2")).unwrap();
        fs::write(path("..2/config.yaml"), "two").unwrap();
        symlink("..2", path("..tmp")).unwrap();
        fs::rename(path("..tmp"), path("..data")).unwrap();
        timeout(SOON, watch.changed()).await.unwrap();

        // And once more: the watch has outlived the first swap.
        fs::create_dir(path("..3")).unwrap();
        fs::write(path("..3/config.yaml"), "three").unwrap();
        symlink("..3", path("..tmp")).unwrap();
        fs::rename(path("..tmp"), path("..data")).unwrap();
        timeout(SOON, watch.changed()).await.unwrap();
    }
}
