//! The limits of this process: files, sockets, memory, threads, CPU time. What a check does not see because of one of
//! them says nothing about the network.
//!
//! Whatever opens a socket, starts a program or waits for an answer on behalf of a check does it through here
//! (tests/structure.rs), and files are opened through `crate::files`, which notes limits here. So none can look like a
//! fault of the network. A limit is noted for the check that met it, even if the code that met it only has a text for
//! the error.

use std::collections::BTreeSet;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::process::{Child, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::model::own_limit::OwnLimit;

/// The sockets of checks may take one part in so many of the limit of open files. Listeners take up to a third
/// (`serving::bounds`); watches, files and logs need the rest.
const SHARE_OF_CHECKS: u64 = 4;

/// Files and sockets that one check may hold at the same time.
const FILES_A_CHECK: u32 = 28;

/// The same if the limit of open files is very small: with fewer, a check could not be made at all.
const LEAST_FILES: u32 = 8;

/// How often a wait looks at the clock.
const TICK: Duration = Duration::from_millis(200);

/// A timer is usually this late on a busy machine.
const USUALLY_LATE: Duration = Duration::from_millis(50);

/// Less lost time than this is usual on a throttled node, and keeps no wait from seeing an answer.
const LEAST_LOST: Duration = Duration::from_secs(1);

/// After a pause of this length, servers may have closed connections, and answers may be lost.
const LONG_PAUSE: Duration = Duration::from_secs(5);

// ---- the limits that a check met ----------------------------------------------------------------

/// What one check shares.
#[derive(Debug)]
struct Scope {
    met: Mutex<BTreeSet<OwnLimit>>,
    /// For sockets that are only open during a query or a connection attempt.
    short_lived: Arc<Semaphore>,
    /// How many of these there are.
    places: usize,
}

tokio::task_local! {
    static SCOPE: Arc<Scope>;
}

impl Scope {
    fn new(files: u32) -> Arc<Self> {
        // The rest is left for connections that stay open.
        let places = files as usize * 5 / 7;
        Arc::new(Self {
            met: Mutex::default(),
            short_lived: Arc::new(Semaphore::new(places)),
            places,
        })
    }

    /// A scope of its own for limits, with the same sockets.
    fn beside(&self) -> Arc<Self> {
        Arc::new(Self {
            met: Mutex::default(),
            short_lived: Arc::clone(&self.short_lived),
            places: self.places,
        })
    }

    fn limits(&self) -> Vec<OwnLimit> {
        self.met().iter().copied().collect()
    }

    fn met(&self) -> MutexGuard<'_, BTreeSet<OwnLimit>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files and sockets of all checks together, and those of one.
struct Files {
    free: Arc<Semaphore>,
    all: u32,
    a_check: u32,
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    let all = files_of_checks(open_files());
    Files {
        free: Arc::new(Semaphore::new(all as usize)),
        all,
        a_check: all.min(FILES_A_CHECK),
    }
});

static COUNTS: [AtomicU64; OwnLimit::ALL.len()] = [const { AtomicU64::new(0) }; _];

/// The number of checks that each limit left unknown, since the start of the process.
pub fn counts() -> impl Iterator<Item = (OwnLimit, u64)> {
    let of = |limit: OwnLimit| COUNTS[limit as usize].load(Ordering::Relaxed);
    OwnLimit::ALL
        .into_iter()
        .map(move |limit| (limit, of(limit)))
}

/// Counts a check that a limit left unknown.
pub fn count(limit: OwnLimit) {
    COUNTS[limit as usize].fetch_add(1, Ordering::Relaxed);
}

/// Notes that the check that runs now met a limit.
fn note(limit: OwnLimit) {
    let _ = SCOPE.try_with(|scope| scope.met().insert(limit));
}

/// Makes a check, and returns the limits that it met. Waits first while other checks hold too many sockets. A part of
/// a check belongs to it.
pub async fn scope<T>(check: impl Future<Output = T>) -> (T, Vec<OwnLimit>) {
    if let Ok(scope) = SCOPE.try_with(Arc::clone) {
        let made = check.await;
        return (made, scope.limits());
    }
    let files = FILES.a_check;
    let _held = Arc::clone(&FILES.free).acquire_many_owned(files).await;
    let scope = Scope::new(files);
    let made = SCOPE.scope(Arc::clone(&scope), watch_pauses(check)).await;
    (made, scope.limits())
}

/// Makes a part of a check that no pull depends on. Limits that it meets are not those of the check.
pub async fn aside<T>(part: impl Future<Output = T>) -> T {
    let Ok(beside) = SCOPE.try_with(|scope| scope.beside()) else {
        return part.await;
    };
    SCOPE.scope(beside, part).await
}

/// Makes a check; `None`: it took longer than `limit`, not counting the wait for sockets that other checks hold.
pub async fn scope_within<T>(limit: Duration, check: impl Future<Output = T>) -> Option<T> {
    scope(timeout(limit, check)).await.0.ok()
}

/// The limits that the check that runs now has met so far.
pub fn met() -> Vec<OwnLimit> {
    SCOPE.try_with(|scope| scope.limits()).unwrap_or_default()
}

/// How many checks of the schedule have sockets at the same time. One more is left for a check on demand.
pub fn checks_at_once() -> usize {
    checks_with(FILES.all, FILES.a_check)
}

fn checks_with(all: u32, a_check: u32) -> usize {
    ((all / a_check) as usize).saturating_sub(1).max(1)
}

/// How many files and sockets this process may have open. If the kernel does not return it, there is no known limit.
pub fn open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// The files and sockets of all checks together, by the limit of open files.
fn files_of_checks(limit: u64) -> u32 {
    let share = u32::try_from(limit / SHARE_OF_CHECKS).unwrap_or(u32::MAX);
    share.clamp(LEAST_FILES, 100 * FILES_A_CHECK)
}

/// The same for reading settings, which is no check.
pub fn scope_of_settings<T>(read: impl FnOnce() -> T) -> (T, Vec<OwnLimit>) {
    let scope = Scope::new(LEAST_FILES);
    let made = SCOPE.sync_scope(Arc::clone(&scope), read);
    (made, scope.limits())
}

/// Work in a task of its own that belongs to the check that runs now.
pub fn of_this_check<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let scope = SCOPE.try_with(Arc::clone).ok();
    async move {
        match scope {
            Some(scope) => SCOPE.scope(scope, work).await,
            None => work.await,
        }
    }
}

/// Work on another thread that belongs to the check that runs now.
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let scope = SCOPE.try_with(Arc::clone).ok();
    move || match scope {
        Some(scope) => SCOPE.sync_scope(scope, work),
        None => work(),
    }
}

/// The same on a thread that may block.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn_blocking(carried(work))
}

// ---- errors -------------------------------------------------------------------------------------

/// The limit of this process that an error means; it is noted for the check.
pub fn limit_of(error: &io::Error) -> Option<OwnLimit> {
    let limit = OwnLimit::of_errno(errno(error)?);
    limit.inspect(|limit| note(*limit))
}

/// The errno of an error or of its cause: libraries wrap it.
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<io::Error>()?;
        errno(inner)
    })
}

/// Notes the limit of this process that an error means.
///
/// # Errors
/// The same error.
pub fn noting<T>(result: io::Result<T>) -> io::Result<T> {
    result.inspect_err(|error| {
        limit_of(error);
    })
}

// ---- files, sockets, programs -------------------------------------------------------------------

/// Whether so many files can be opened now.
///
/// # Errors
/// That of `open`.
pub fn room_for_files(files: usize) -> io::Result<()> {
    let open = |_| File::open("/dev/null");
    (0..files)
        .map(open)
        .collect::<io::Result<Vec<File>>>()
        .map(drop)
}

/// A TCP socket for an address.
///
/// # Errors
/// That of `socket`.
pub fn tcp_socket(to: IpAddr) -> io::Result<TcpSocket> {
    noting(match to {
        IpAddr::V4(_) => TcpSocket::new_v4(),
        IpAddr::V6(_) => TcpSocket::new_v6(),
    })
}

/// A UDP socket at an address.
///
/// # Errors
/// That of `socket` or `bind`.
pub async fn udp_socket(at: SocketAddr) -> io::Result<UdpSocket> {
    noting(UdpSocket::bind(at).await)
}

/// The same without a runtime.
///
/// # Errors
/// That of `socket` or `bind`.
pub fn blocking_udp_socket(at: SocketAddr) -> io::Result<std::net::UdpSocket> {
    noting(std::net::UdpSocket::bind(at))
}

/// Another socket, as made by `open`.
///
/// # Errors
/// That of `open`.
pub fn socket<T>(open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    noting(open())
}

/// Notes the limit that kept a thread from being started.
///
/// # Errors
/// The same error.
pub fn thread<T>(started: io::Result<T>) -> io::Result<T> {
    started.inspect_err(|error| {
        of_start(error);
    })
}

/// The limit that kept a thread or program from being started. Unlike elsewhere, EAGAIN is one.
fn of_start(error: &io::Error) -> Option<OwnLimit> {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Some(OwnLimit::Processes).inspect(|limit| note(*limit)),
        _ => limit_of(error),
    }
}

/// Starts a program.
///
/// # Errors
/// That of `fork` or `exec`, with the limit if it is one.
pub fn spawn(command: &mut Command) -> Result<Child, (io::Error, Option<OwnLimit>)> {
    command.spawn().map_err(|error| {
        let limit = of_start(&error);
        (error, limit)
    })
}

/// A place for a socket that is only open for a query or a connection attempt; waits while the check has too many.
pub async fn place() -> Option<OwnedSemaphorePermit> {
    let places = SCOPE.try_with(|scope| Arc::clone(&scope.short_lived));
    places.ok()?.acquire_owned().await.ok()
}

/// How many such places the check has; `None` if it is not bounded.
pub fn places() -> Option<usize> {
    SCOPE.try_with(|scope| scope.places).ok()
}

// ---- waiting ------------------------------------------------------------------------------------

/// A wait that was too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Elapsed {
    is_starved: bool,
}

impl Elapsed {
    /// The fault for a silent network, unless this process could not have seen the answer.
    pub fn or<F: From<OwnLimit>>(self, silence: F) -> F {
        self.limit().map_or(silence, F::from)
    }

    /// The limit that kept this process from seeing an answer; it is noted for the check.
    pub fn limit(self) -> Option<OwnLimit> {
        let limit = self.is_starved.then_some(OwnLimit::Cpu);
        limit.inspect(|limit| note(*limit))
    }
}

/// Waits at most `limit` for a result. Time in which this process did not run doesn't count, up to `limit` and one long
/// pause: the answer may be there already. A wait that only sets a pace notes no limit: [`Elapsed::or`] and
/// [`Elapsed::limit`] do.
///
/// # Errors
/// If the result was not there in time.
pub fn within<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> impl Future<Output = Result<T, Elapsed>> {
    let mut work = Box::pin(work);
    async move {
        let mut spent = Spent::default();
        loop {
            let tick = TICK.min(spent.left(limit));
            let planned = Instant::now() + tick;
            match first(work.as_mut(), sleep_until(planned)).await {
                Some(result) => return Ok(result),
                None => spent.add(tick, planned.elapsed()),
            }
            if spent.left(limit).is_zero() {
                let is_starved = spent.is_starved(limit);
                return Err(Elapsed { is_starved });
            }
        }
    }
}

/// The result of `work`, or `None` if the timer is first. If both are there, the result counts.
async fn first<T>(mut work: Pin<&mut impl Future<Output = T>>, timer: Sleep) -> Option<T> {
    let mut timer = pin!(timer);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => timer.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// How the time of a wait was spent.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    /// Running, or free to run.
    waited: Duration,
    /// The delays of timers.
    lost: Duration,
    longest: Duration,
}

impl Spent {
    fn add(&mut self, planned: Duration, late: Duration) {
        let late = if late > USUALLY_LATE {
            late
        } else {
            Duration::ZERO
        };
        self.waited += planned;
        self.lost += late;
        self.longest = self.longest.max(late);
    }

    /// What is left of a limit.
    fn left(&self, limit: Duration) -> Duration {
        let beyond = self.lost.saturating_sub(self.longest);
        let beyond = beyond.saturating_sub(limit);
        limit.saturating_sub(self.waited + beyond)
    }

    /// The process did not run for at least a second and half of the time, or a pause was so long that an answer may
    /// be lost.
    fn is_starved(&self, limit: Duration) -> bool {
        self.longest >= LONG_PAUSE || self.lost > limit.max(LEAST_LOST)
    }
}

/// The same for a thread that may block: the time of one wait in short parts.
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    spent: Spent,
    tick: Option<(std::time::Instant, Duration)>,
}

impl Patience {
    /// A wait of at most `limit`.
    pub fn new(limit: Duration) -> Self {
        Self {
            limit,
            spent: Spent::default(),
            tick: None,
        }
    }

    /// How long to wait before the next look at what is awaited; `None`: it took too long.
    pub fn tick(&mut self) -> Option<Duration> {
        let now = std::time::Instant::now();
        if let Some((began, tick)) = self.tick {
            let elapsed = now - began;
            self.spent
                .add(tick.min(elapsed), elapsed.saturating_sub(tick));
        }
        let tick = TICK.min(self.spent.left(self.limit));
        self.tick = Some((now, tick));
        (!tick.is_zero()).then_some(tick)
    }
}

/// Notes a pause in which this process did not run, whatever the check was doing then.
async fn watch_pauses<T>(check: impl Future<Output = T>) -> T {
    let mut check = pin!(check);
    loop {
        let planned = Instant::now() + TICK;
        let made = first(check.as_mut(), sleep_until(planned)).await;
        if planned.elapsed() >= LONG_PAUSE {
            note(OwnLimit::Cpu);
        }
        if let Some(made) = made {
            return made;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::fault::DnsFault;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn checks_get_a_quarter_of_the_files_and_one_can_always_be_made() {
        for (limit, files) in [(1024, 256), (64, 16), (10, LEAST_FILES), (u64::MAX, 2800)] {
            assert_eq!(files_of_checks(limit), files, "{limit}");
        }
    }

    #[tokio::test]
    async fn a_limit_belongs_to_the_check_that_met_it() {
        let no_files = || io::Error::from_raw_os_error(libc::EMFILE);
        let other = scope(async { limit_of(&io::Error::from_raw_os_error(libc::ECONNREFUSED)) });
        let one = scope(async {
            // Wrapped, in another task, and on another thread.
            limit_of(&io::Error::other(no_files()));
            let task =
                of_this_check(async { limit_of(&io::Error::from_raw_os_error(libc::ENOBUFS)) });
            tokio::spawn(task).await.unwrap();
            let thread = blocking(|| limit_of(&io::Error::from_raw_os_error(libc::ENFILE)));
            thread.await.unwrap();
        });
        let (other, one) = tokio::join!(other, one);
        assert_eq!(other, (None, Vec::new()));
        let met = [OwnLimit::OpenFiles, OwnLimit::NodeFiles, OwnLimit::Memory];
        assert_eq!(one.1, met);
        let (_, met) = scope_of_settings(|| limit_of(&no_files()));
        assert_eq!(met, [OwnLimit::OpenFiles]);
    }

    #[tokio::test]
    async fn a_program_that_is_absent_is_no_limit() {
        let mut absent = Command::new("/nonexistent");
        let (error, limit) = spawn(&mut absent).unwrap_err();
        assert_eq!((error.kind(), limit), (io::ErrorKind::NotFound, None));
    }

    #[tokio::test]
    async fn a_wait_has_all_of_its_limit() {
        let began = Instant::now();
        assert!(within(SECOND, std::future::pending::<()>()).await.is_err());
        assert!(began.elapsed() >= SECOND);
        let soon = tokio::time::sleep(Duration::from_millis(450));
        assert_eq!(within(LONG_PAUSE, soon).await, Ok(()));
        assert_eq!(within(Duration::ZERO, async { 1 }).await, Ok(1));
    }

    /// The process does not run while it waits: the answer that came meanwhile counts, and silence does not.
    #[tokio::test]
    async fn a_pause_is_no_silence_of_the_network() {
        let pause = || std::thread::sleep(LONG_PAUSE + 2 * TICK);
        let (answer, met) = scope(async {
            let (sender, answer) = tokio::sync::oneshot::channel();
            let answer = within(SECOND, answer);
            let paused = async {
                pause();
                let _ = sender.send(());
            };
            tokio::join!(answer, paused).0
        })
        .await;
        assert!(answer.is_ok());
        assert_eq!(met, [OwnLimit::Cpu]);
        let silent = within(SECOND, std::future::pending::<()>());
        let (silent, ()) = tokio::join!(silent, async { pause() });
        assert_eq!(silent, Err(Elapsed { is_starved: true }));
    }

    /// A thread that does not run looks once more before it gives up.
    #[test]
    fn a_pause_is_no_lateness_of_a_thread() {
        let mut patience = Patience::new(SECOND);
        assert_eq!(patience.tick(), Some(TICK));
        std::thread::sleep(SECOND + 2 * TICK);
        assert_eq!(patience.tick(), Some(TICK));
        let (began, mut ticks) = (Instant::now(), 0);
        while let Some(tick) = patience.tick() {
            std::thread::sleep(tick);
            ticks += 1;
        }
        assert!(began.elapsed() >= 3 * TICK, "{ticks} ticks");
        assert_eq!(Patience::new(Duration::ZERO).tick(), None);
    }

    #[test]
    fn one_late_timer_is_no_lack_of_cpu() {
        let starved = |limit: u64, late: &[u64]| {
            let mut spent = Spent::default();
            for late in late {
                spent.add(TICK, Duration::from_millis(*late));
            }
            spent.is_starved(Duration::from_millis(limit))
        };
        // A pacer or the rest of a deadline, on a node whose quota stops the process for 100 ms at a time.
        for limit in [0, 5, 96, 500] {
            assert!(!starved(limit, &[100, 90]), "{limit} ms");
            assert!(starved(limit, &[600, 600]), "{limit} ms");
        }
        assert!(!starved(2000, &[600, 600]));
        assert!(starved(2000, &[1100, 1100]));
        assert!(starved(30_000, &[5000]));
    }

    /// A limit is the check's only where the wait becomes a fault.
    #[tokio::test]
    async fn a_pacer_notes_nothing() {
        let starved = Elapsed { is_starved: true };
        let of_check = Scope::new(1);
        let check = async {
            let paused = async { std::thread::sleep(LEAST_LOST + 3 * TICK) };
            let wait = within(TICK, std::future::pending::<()>());
            let (paced, ()) = tokio::join!(wait, paused);
            assert_eq!(paced, Err(starved));
        };
        SCOPE.scope(Arc::clone(&of_check), check).await;
        assert_eq!(of_check.limits(), []);
        let (fault, met) = scope(async { starved.or(DnsFault::Timeout) }).await;
        assert_eq!(fault, OwnLimit::Cpu.into());
        assert_eq!(met, [OwnLimit::Cpu]);
        let silent = Elapsed { is_starved: false };
        let (fault, met) = scope(async { silent.or(DnsFault::Timeout) }).await;
        assert_eq!((fault, met), (DnsFault::Timeout, Vec::new()));
    }

    #[tokio::test]
    async fn a_part_that_no_pull_depends_on_notes_nothing_for_the_check() {
        fn meet() -> Option<OwnLimit> {
            limit_of(&io::Error::from_raw_os_error(libc::EMFILE))
        }
        let (seen, met) = scope(async {
            let part = aside(async {
                let of_part = of_this_check(async { meet() });
                (tokio::spawn(of_part).await.unwrap(), met())
            });
            part.await
        })
        .await;
        assert_eq!(seen, (Some(OwnLimit::OpenFiles), vec![OwnLimit::OpenFiles]));
        assert_eq!(met, []);
    }

    /// All sockets are held for longer than a check may take.
    #[tokio::test]
    async fn the_wait_for_sockets_is_not_the_check_s() {
        let held = FILES.free.acquire_many(FILES.all).await.unwrap();
        let waiting = tokio::spawn(scope_within(TICK, async { 1 }));
        tokio::time::sleep(3 * TICK).await;
        assert!(!waiting.is_finished());
        drop(held);
        assert_eq!(waiting.await.unwrap(), Some(1));
        let too_long = scope_within(TICK, std::future::pending::<()>());
        assert_eq!(too_long.await, None);
    }

    #[test]
    fn the_schedule_makes_no_more_checks_than_have_sockets() {
        for (limit, checks) in [(10, 1), (64, 1), (1024, 8), (u64::MAX, 99)] {
            let all = files_of_checks(limit);
            assert_eq!(checks_with(all, all.min(FILES_A_CHECK)), checks, "{limit}");
        }
    }

    proptest! {
        /// A wait ends, however late its timers are, and it is at least as long as its limit.
        #[test]
        fn every_wait_ends(late in proptest::collection::vec(0_u64..20_000, 1..400)) {
            let (limit, mut spent, mut wall) = (SECOND, Spent::default(), Duration::ZERO);
            let mut late = late.into_iter().cycle();
            while !spent.left(limit).is_zero() {
                let tick = TICK.min(spent.left(limit));
                let delay = Duration::from_millis(late.next().unwrap());
                spent.add(tick, delay);
                wall += tick + delay;
            }
            prop_assert!(wall >= limit);
            prop_assert!(wall <= 2 * limit + 3 * Duration::from_secs(20), "{wall:?}");
        }
    }
}
