//! Reads files that other programs and people write: configuration, credentials, settings of the node, state.
//!
//! A file is opened without blocking, must be a regular file, and is read within a bound of bytes and of time. So a
//! named pipe, a device or a file system that no longer answers stops no check and no signal.
//!
//! A read that hangs in the kernel can't be interrupted. It is made by another thread, and the caller goes on without
//! it. While it hangs, no other read in its folder is started, and the number of these threads is bounded.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::own::{self, Patience};

/// How long one file may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Threads that read files, those that hang included.
const MAX_THREADS: usize = 16;

/// Threads that are kept for the next file.
const MAX_IDLE: usize = 2;

/// Stack of such a thread, in bytes.
const STACK: usize = 256 << 10;

/// Bytes that are read at once. Time is checked between two of these reads.
const CHUNK: u64 = 64 << 10;

/// Bytes for a file whose length is unknown: those below `/proc` have length 0.
const USUAL_ROOM: u64 = 4 << 10;

/// At most this many entries of a folder are listed; `/etc/ssl/certs` of Debian has about 300.
pub const MAX_ENTRIES: usize = 5000;

/// Reads a regular file of at most `limit` bytes. Links are followed.
///
/// # Errors
/// `FileTooLarge` if there are more bytes, `TimedOut` if it takes longer than [`PATIENCE`], `IsADirectory` for a folder,
/// `InvalidInput` for a pipe, a socket or a device; otherwise the error of the file system.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    within(path, move || read_here(&owned, limit))
}

/// Reads a file, or the one called `name` in a folder; returns its path, too.
pub fn read_in(path: &Path, name: &str, limit: u64) -> (PathBuf, io::Result<Vec<u8>>) {
    let (owned, inner) = (path.to_owned(), path.join(name));
    let read = within(path, move || {
        Ok(if owned.is_dir() {
            let read = read_here(&inner, limit);
            (inner, read)
        } else {
            let read = read_here(&owned, limit);
            (owned, read)
        })
    });
    match read {
        Ok((path, read)) => (path, own::noting(read)),
        Err(error) => (path.to_owned(), Err(error)),
    }
}

/// Like [`read`], for text; bytes that are not UTF-8 are replaced.
///
/// # Errors
/// Those of [`read`].
pub fn text(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read(path, limit)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

/// Text of a few KiB that the kernel writes: below `/proc` and `/sys`. These files don't hang.
///
/// # Errors
/// Those of [`read`], except `TimedOut`.
pub fn kernel(path: &Path) -> io::Result<String> {
    let bytes = own::noting(read_here(path, MAX_KERNEL))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Bytes; `/proc/net/dev` of a node with a thousand pods has 200 KiB.
const MAX_KERNEL: u64 = 4 << 20;

/// A file that the user of a command line named: it may also be a pipe, such as `<(…)`, which is read to its end.
///
/// # Errors
/// `FileTooLarge` if there are more than `limit` bytes; otherwise the error of the file system.
pub fn argument(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    match path.metadata()?.file_type() {
        kind if kind.is_file() => read(path, limit),
        kind if kind.is_fifo() || kind.is_char_device() => {
            to_end(own::noting(File::open(path))?, 0, limit, None)
        }
        kind => Err(unfit(kind)),
    }
}

/// Standard input, of at most `limit` bytes.
///
/// # Errors
/// `FileTooLarge` if there are more; otherwise the error of the read.
pub fn standard_input(limit: u64) -> io::Result<Vec<u8>> {
    to_end(io::stdin().lock(), 0, limit, None)
}

/// Opens a regular file for something that reads parts of it. Only for use inside [`within`].
///
/// # Errors
/// Those of [`read`].
pub fn open(path: &Path) -> io::Result<File> {
    Ok(opened(path, &path.metadata()?)?.0)
}

/// Opens what `before` was found at, and returns how long it is. The kind is looked at first: opening a device may have an
/// effect.
fn opened(path: &Path, before: &Metadata) -> io::Result<(File, u64)> {
    let is_file = |kind: FileType| {
        if kind.is_file() {
            Ok(())
        } else {
            Err(unfit(kind))
        }
    };
    is_file(before.file_type())?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let now = file.metadata()?;
    is_file(now.file_type())?;
    Ok((file, now.len()))
}

fn read_here(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let metadata = path.metadata()?;
    if is_null(&metadata) {
        return Ok(Vec::new());
    }
    let (file, length) = opened(path, &metadata)?;
    if length > limit {
        return Err(ErrorKind::FileTooLarge.into());
    }
    to_end(file, length, limit, Some(Patience::new(PATIENCE)))
}

/// Whether it is `/dev/null`, the usual name for an empty file.
fn is_null(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == libc::makedev(1, 3)
}

/// The file may grow while it is read; `length` is 0 if it is unknown.
fn to_end(
    mut file: impl Read,
    length: u64,
    limit: u64,
    mut patience: Option<Patience>,
) -> io::Result<Vec<u8>> {
    let room = match length {
        0 => USUAL_ROOM,
        // The end is found without another allocation.
        known => known.min(CHUNK) + 32,
    };
    let mut bytes = Vec::with_capacity(usize::try_from(room).unwrap_or_default());
    loop {
        let read = (&mut file).take(CHUNK).read_to_end(&mut bytes)? as u64;
        if bytes.len() as u64 > limit {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if read < CHUNK {
            return Ok(bytes);
        }
        if let Some(patience) = &mut patience {
            patience.tick().ok_or_else(late)?;
        }
    }
}

fn unfit(kind: FileType) -> io::Error {
    let what = if kind.is_dir() {
        return ErrorKind::IsADirectory.into();
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    io::Error::new(
        ErrorKind::InvalidInput,
        format!("it is {what}, not a regular file"),
    )
}

fn late() -> io::Error {
    let seconds = PATIENCE.as_secs();
    io::Error::new(
        ErrorKind::TimedOut,
        format!("it could not be read in {seconds} s"),
    )
}

/// What a failed read means, in words for a message: without the number of the system's error.
pub fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => error.kind().to_string(),
        None => error.to_string(),
    }
}

/// The end of the name of a file that is being written.
pub const NEW: &str = ".new";

/// Writes a file as a whole, for this user alone. If that fails, what was there stays, and nothing is left beside it.
///
/// # Errors
/// `TimedOut` if it takes longer than [`PATIENCE`]; otherwise the error of the file system.
pub fn replace(path: &Path, bytes: impl AsRef<[u8]> + Send + 'static) -> io::Result<()> {
    let owned = path.to_owned();
    within(path, move || {
        let mut next = owned.clone().into_os_string();
        next.push(NEW);
        let next = PathBuf::from(next);
        // Left by a crash. A link or a pipe of this name is not written to.
        let _ = std::fs::remove_file(&next);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&next)?;
        file.write_all(bytes.as_ref())
            .and_then(|()| file.sync_data())
            .and_then(|()| std::fs::rename(&next, &owned))
            .inspect_err(|_| {
                let _ = std::fs::remove_file(&next);
            })
    })
}

/// Deletes a file; one that does not exist is no error.
///
/// # Errors
/// `TimedOut` if it takes longer than [`PATIENCE`]; otherwise the error of the file system.
pub fn remove(path: &Path) -> io::Result<()> {
    let owned = path.to_owned();
    within(path, move || match std::fs::remove_file(&owned) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    })
}

/// One entry of a folder.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// A folder, not a link to one.
    pub is_dir: bool,
}

/// The entries of a folder sorted by name, [`MAX_ENTRIES`] at most.
///
/// # Errors
/// `TimedOut` if it takes longer than [`PATIENCE`]; otherwise the error of the file system.
pub fn list(folder: &Path) -> io::Result<Vec<Entry>> {
    let owned = folder.to_owned();
    within(&folder.join("*"), move || {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(&owned)?.take(MAX_ENTRIES) {
            let entry = entry?;
            entries.push(Entry {
                path: entry.path(),
                is_dir: entry.file_type().is_ok_and(|kind| kind.is_dir()),
            });
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    })
}

/// The regular files that the entries of a folder lead to, sorted by name; of several that lead to the same file, the
/// first.
///
/// # Errors
/// Those of [`list`].
pub fn list_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let owned = folder.to_owned();
    within(&folder.join("*"), move || {
        let mut seen = HashSet::new();
        let mut is_new = |path: &PathBuf| {
            let file = path.metadata().ok().filter(Metadata::is_file);
            file.is_some_and(|file| seen.insert((file.dev(), file.ino())))
        };
        let entries = list(&owned)?.into_iter().map(|entry| entry.path);
        Ok(entries.filter(|path| is_new(path)).collect())
    })
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A pipe, a socket or a device.
    Other,
}

/// What a path leads to; links are followed.
///
/// # Errors
/// `TimedOut` if it takes longer than [`PATIENCE`]; otherwise the error of the file system.
pub fn kind(path: &Path) -> io::Result<Kind> {
    let owned = path.to_owned();
    let kind = within(path, move || Ok(owned.metadata()?.file_type()))?;
    Ok(if kind.is_file() {
        Kind::File
    } else if kind.is_dir() {
        Kind::Folder
    } else {
        Kind::Other
    })
}

/// The first of these paths in one folder that exists. One that exists but can't be read counts as well.
pub fn first(paths: Vec<PathBuf>) -> Option<PathBuf> {
    let named = paths.first()?.clone();
    let found = within(&named, move || {
        Ok(paths.into_iter().find_map(|path| match path.metadata() {
            Ok(_) => Some((path, None)),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                None
            }
            Err(error) => Some((path, Some(error))),
        }))
    });
    match found {
        Ok(found) => found.map(|(path, error)| {
            error.as_ref().map(own::limit_of);
            path
        }),
        Err(_) => Some(named),
    }
}

/// Whether the path exists, if only as a link to nothing.
pub fn exists(path: &Path) -> bool {
    let owned = path.to_owned();
    within(path, move || owned.symlink_metadata()).is_ok()
}

/// When it was last modified; `None`: that can't be read.
pub fn modified(path: &Path) -> Option<SystemTime> {
    let owned = path.to_owned();
    within(path, move || owned.metadata()?.modified()).ok()
}

/// Runs `act`, which uses the file system at `path`, on another thread, and waits for [`PATIENCE`] at most. What `act`
/// itself reads is a part of that, on the same thread.
///
/// # Errors
/// `TimedOut` if it takes longer, or if another use of the same folder still hangs; otherwise the error of `act`.
pub fn within<T: Send + 'static>(
    path: &Path,
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if IS_FOR_FILES.get() {
        return own::noting(act());
    }
    let mut patience = Patience::new(PATIENCE);
    let (use_id, thread) = THREADS.begin(path, &mut patience)?;
    let (done, result) = mpsc::sync_channel(1);
    let act = own::carried(act);
    let job = Box::new(move || {
        let _ended = Ended(use_id);
        let _ = done.send(act());
    });
    thread
        .send(job)
        .map_err(|_| io::Error::other("the thread that reads files has ended"))?;
    // Noted here: the check of this thread made the request.
    own::noting(loop {
        let tick = patience.tick().unwrap_or_default();
        match result.recv_timeout(tick) {
            Ok(result) => break result,
            Err(RecvTimeoutError::Timeout) if !tick.is_zero() => {}
            Err(_) => {
                THREADS.hangs(use_id);
                break Err(late());
            }
        }
    })
}

thread_local! {
    /// This thread is one that uses the file system for others.
    static IS_FOR_FILES: Cell<bool> = const { Cell::new(false) };
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads that use the file system.
struct Threads {
    state: Mutex<State>,
    ended: Condvar,
}

struct State {
    next: u64,
    count: usize,
    idle: Vec<mpsc::Sender<Job>>,
    uses: Vec<Use>,
}

/// One use of the file system that has not ended.
struct Use {
    id: u64,
    path: PathBuf,
    /// Its caller no longer waits for it.
    hangs: bool,
}

static THREADS: Threads = Threads {
    state: Mutex::new(State {
        next: 0,
        count: 0,
        idle: Vec::new(),
        uses: Vec::new(),
    }),
    ended: Condvar::new(),
};

impl Threads {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a thread for a use of `path`; waits if all are in use.
    fn begin(&self, path: &Path, patience: &mut Patience) -> io::Result<(u64, mpsc::Sender<Job>)> {
        let mut state = self.state();
        loop {
            if state
                .uses
                .iter()
                .any(|one| one.hangs && is_near(&one.path, path))
            {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "it was not read: an earlier read in this folder still hangs",
                ));
            }
            let thread = match state.idle.pop() {
                Some(thread) => Some(thread),
                None if state.count < MAX_THREADS => {
                    let thread = own::thread(spawn())?;
                    state.count += 1;
                    Some(thread)
                }
                None => None,
            };
            if let Some(thread) = thread {
                state.next += 1;
                let id = state.next;
                let path = path.to_owned();
                state.uses.push(Use {
                    id,
                    path,
                    hangs: false,
                });
                return Ok((id, thread));
            }
            let tick = patience.tick().ok_or_else(late)?;
            let waited = self.ended.wait_timeout(state, tick);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn hangs(&self, id: u64) {
        let mut state = self.state();
        let one = state.uses.iter_mut().find(|one| one.id == id);
        if let Some(one) = one {
            one.hangs = true;
        }
    }
}

/// Ends a use, also if it panics.
struct Ended(u64);

impl Drop for Ended {
    fn drop(&mut self) {
        THREADS.state().uses.retain(|one| one.id != self.0);
    }
}

/// Whether a path is in the folder of one that hangs, or below it: probably the same file system.
fn is_near(hanging: &Path, path: &Path) -> bool {
    let folder = hanging.parent().filter(|folder| folder.parent().is_some());
    hanging == path || folder.is_some_and(|folder| path.starts_with(folder))
}

fn spawn() -> io::Result<mpsc::Sender<Job>> {
    let (jobs, received) = mpsc::channel::<Job>();
    let own = jobs.clone();
    std::thread::Builder::new()
        .name("files".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let _left = Left;
            IS_FOR_FILES.set(true);
            for job in received {
                job();
                let mut state = THREADS.state();
                if state.idle.len() >= MAX_IDLE {
                    return;
                }
                state.idle.push(own.clone());
                THREADS.ended.notify_one();
            }
        })?;
    Ok(jobs)
}

/// Counts a thread that ends.
struct Left;

impl Drop for Left {
    fn drop(&mut self) {
        THREADS.state().count -= 1;
        THREADS.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn fifo(path: &Path) {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }

    #[test]
    fn only_a_regular_file_is_read_and_never_more_than_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("ten"), "0123456789").unwrap();
        assert_eq!(read(&at("ten"), 10).unwrap(), b"0123456789");
        fifo(&at("fifo"));
        let _listener = UnixListener::bind(at("socket")).unwrap();
        let sparse = File::create(at("sparse")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        symlink("/dev/zero", at("link")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let zero = Path::new("/dev/zero").to_owned();
        for (path, kind, words) in [
            (at("none"), ErrorKind::NotFound, "not found"),
            (at("ten"), ErrorKind::FileTooLarge, "too large"),
            (at("sparse"), ErrorKind::FileTooLarge, "too large"),
            (at("fifo"), ErrorKind::InvalidInput, "a named pipe"),
            (at("socket"), ErrorKind::InvalidInput, "a socket"),
            (at("link"), ErrorKind::InvalidInput, "a device"),
            (zero, ErrorKind::InvalidInput, "a device"),
            (
                folder.path().to_owned(),
                ErrorKind::IsADirectory,
                "directory",
            ),
            (
                at("loop"),
                io::Error::from_raw_os_error(libc::ELOOP).kind(),
                "loop",
            ),
        ] {
            let error = read(&path, 9).unwrap_err();
            assert_eq!(error.kind(), kind, "{}", path.display());
            assert!(reason(&error).contains(words), "{}", reason(&error));
        }
        assert_eq!(read(Path::new("/dev/null"), 9).unwrap(), b"");
        // The kernel gives no size for these.
        assert!(
            kernel(Path::new("/proc/self/status"))
                .unwrap()
                .contains("Pid:")
        );
        assert!(read(Path::new("/proc/self/status"), 1 << 20).is_ok());
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_too_large() {
        struct Growing;
        impl Read for Growing {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                to.fill(b'x');
                Ok(to.len())
            }
        }
        let error = to_end(Growing, 0, 1 << 20, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        let error = to_end(Growing, 0, u64::MAX, Some(Patience::new(Duration::ZERO)));
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn of_several_paths_the_first_that_exists_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let first_of = |names: &[&str]| first(names.iter().map(|name| at(name)).collect());
        fs::write(at("file"), "a").unwrap();
        fs::create_dir(at("folder")).unwrap();
        fs::write(at("folder/config.json"), "b").unwrap();
        symlink("gone", at("link")).unwrap();
        assert_eq!(first_of(&["none", "file/none", "link"]), None);
        assert_eq!(first_of(&["none", "folder", "file"]), Some(at("folder")));
        symlink("loop", at("loop")).unwrap();
        let unreadable = first_of(&["none", "loop", "file"]);
        assert_eq!(unreadable, Some(at("loop")), "it is there, if not readable");

        let read = |name: &str| {
            let (path, read) = read_in(&at(name), "config.json", 10);
            (path, read.map_err(|error| error.kind()))
        };
        assert_eq!(read("file"), (at("file"), Ok(b"a".to_vec())));
        let inner = at("folder/config.json");
        assert_eq!(read("folder"), (inner, Ok(b"b".to_vec())));
        assert_eq!(read("none"), (at("none"), Err(ErrorKind::NotFound)));

        symlink("file", at("again")).unwrap();
        fifo(&at("fifo"));
        assert_eq!(list_files(folder.path()).unwrap(), [at("again")]);
    }

    #[test]
    fn a_use_may_have_parts_and_all_of_them_belong_to_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "a").unwrap();
        let ((thread, inner), met) = own::scope_of_settings(|| {
            within(&path.clone(), move || {
                let (outer, inner) = (std::thread::current().id(), path.clone());
                let inner = within(&path, move || {
                    let read = read(&inner, 10)?;
                    Ok((std::thread::current().id(), read))
                });
                let full = || Err::<(), _>(io::Error::from_raw_os_error(libc::EMFILE));
                assert!(within(&path, full).is_err());
                Ok((outer, inner?))
            })
            .unwrap()
        });
        assert_eq!(inner, (thread, b"a".to_vec()));
        assert_eq!(met, [crate::model::own_limit::OwnLimit::OpenFiles]);
    }

    #[test]
    fn links_of_a_configmap_are_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("..1")).unwrap();
        fs::write(at("..1/config.yaml"), "one").unwrap();
        symlink("..1", at("..data")).unwrap();
        symlink("..data/config.yaml", at("config.yaml")).unwrap();
        assert_eq!(text(&at("config.yaml"), 100).unwrap(), "one");
        assert_eq!(kind(&at("config.yaml")).unwrap(), Kind::File);
        assert_eq!(kind(&at("..data")).unwrap(), Kind::Folder);
        let names: Vec<_> = list(folder.path()).unwrap();
        let names: Vec<_> = names
            .iter()
            .map(|entry| (entry.path.clone(), entry.is_dir))
            .collect();
        let expected = [("..1", true), ("..data", false), ("config.yaml", false)];
        assert_eq!(names, expected.map(|(name, is_dir)| (at(name), is_dir)));
    }

    #[test]
    fn a_read_that_hangs_is_left_alone_and_no_second_one_starts() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("mount")).unwrap();
        for name in ["mount/one", "mount/two", "other"] {
            fs::write(at(name), "x").unwrap();
        }
        let (release, released) = mpsc::channel::<()>();
        let error = within(&at("mount/one"), move || {
            let _ = released.recv();
            Ok(())
        });
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(error.to_string().contains("in 5 s"), "{error}");
        for path in ["mount/one", "mount/two", "mount/folder/three"] {
            let error = within::<()>(&at(path), || panic!("it was used")).unwrap_err();
            assert!(error.to_string().contains("still hangs"), "{error}");
        }
        assert!(list(&at("mount")).is_err());
        assert!(read(&at("other"), 9).is_ok());
        assert!(THREADS.state().count <= MAX_THREADS);
        // It answers again.
        release.send(()).unwrap();
        while read(&at("mount/two"), 9).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_was_there_stays_if_a_file_can_not_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        replace(&at("state"), "one").unwrap();
        // Left by a crash; a pipe would hang a write.
        fifo(&at("state.new"));
        replace(&at("state"), "two").unwrap();
        assert_eq!(text(&at("state"), 9).unwrap(), "two");
        fs::create_dir_all(at("folder/inside")).unwrap();
        replace(&at("folder"), "three").unwrap_err();
        assert!(at("folder/inside").is_dir());
        assert!(!at("folder.new").exists());
        remove(&at("state")).unwrap();
        remove(&at("state")).unwrap();
    }

    #[test]
    fn a_pipe_that_a_user_names_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        fifo(&path);
        let writer = path.clone();
        let thread = std::thread::spawn(move || fs::write(writer, "hello").unwrap());
        assert_eq!(argument(&path, 10).unwrap(), b"hello");
        thread.join().unwrap();
        let error = argument(Path::new("/dev/zero"), 1000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FileTooLarge);
        let error = argument(folder.path(), 1000).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::IsADirectory);
    }
}
