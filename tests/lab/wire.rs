//! A cable between two network namespaces, with a delay, losses and a rate: the kernel's own
//! emulator (netem) is not in every kernel. It carries IP packets from one TUN device to another, so
//! routers at its ends decrement hop limits and send ICMP as they do with any cable.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::netns::inside;
use super::process::run_with;

/// One end: the namespace, the device that is made there, and its addresses with prefix lengths.
#[derive(Clone, Debug)]
pub struct End {
    pub netns: String,
    pub device: String,
    pub addresses: Vec<String>,
}

impl End {
    pub fn new(netns: &str, device: &str, addresses: &[&str]) -> Self {
        Self {
            netns: netns.to_owned(),
            device: device.to_owned(),
            addresses: addresses.iter().map(|&a| a.to_owned()).collect(),
        }
    }
}

/// What it does to packets, each way. May change while it is there.
#[derive(Clone, Copy, Debug)]
pub struct Knobs {
    /// One way.
    pub delay: Duration,
    /// At most this much is added to the delay; packets stay in order.
    pub jitter: Duration,
    /// Packets of a hundred that are lost.
    pub loss: f64,
    /// Mbit/s of IP packets; none is as fast as it goes.
    pub rate: Option<f64>,
    /// Bytes that wait for their turn when there is a rate; what comes more is lost.
    pub buffer: usize,
    /// Bytes that may go at once after a rest when there is a rate: the depth of a token bucket.
    pub burst: usize,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            loss: 0.0,
            rate: None,
            buffer: 64 << 10,
            burst: 0,
        }
    }
}

impl Knobs {
    pub fn delay(milliseconds: u64) -> Self {
        Self {
            delay: Duration::from_millis(milliseconds),
            ..Self::default()
        }
    }
}

/// Packets of one way.
#[derive(Debug, Default)]
struct Counts {
    carried: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
}

/// The cable; gone, with its devices, when dropped.
#[derive(Debug)]
pub struct Wire {
    knobs: Arc<Mutex<Knobs>>,
    refills: Arc<AtomicU64>,
    counts: [Arc<Counts>; 2],
    threads: Vec<JoinHandle<()>>,
    /// The threads end when this does.
    stop: Option<UnixStream>,
}

impl Wire {
    /// Lays it. The same seed loses the same packets.
    pub fn lay(from: &End, to: &End, knobs: Knobs, mtu: u16, seed: u64) -> Self {
        let open = |end: &End| {
            let device = inside(&end.netns, || open_tun(&end.device))
                .unwrap_or_else(|error| panic!("TUN device of {end:?}: {error}"));
            let name = &end.device;
            let mut lines = vec![format!("link set {name} mtu {mtu} txqueuelen 2000")];
            lines.extend(
                end.addresses
                    .iter()
                    .map(|a| format!("addr add {a} dev {name}")),
            );
            lines.push(format!("link set {name} up\n"));
            let mut ip = Command::new("ip");
            run_with(
                ip.args(["-n", &end.netns, "-batch", "-"]),
                &lines.join("\n"),
            );
            Arc::new(device)
        };
        let (from, to) = (open(from), open(to));
        let knobs = Arc::new(Mutex::new(knobs));
        let (stop, stopped) = UnixStream::pair().unwrap();
        let stopped = Arc::new(stopped);
        let counts = [Arc::default(), Arc::default()];
        let refills = Arc::new(AtomicU64::new(0));
        let threads = [(&from, &to), (&to, &from)]
            .into_iter()
            .zip(&counts)
            .enumerate()
            .map(|(way, ((from, to), counts))| {
                let mut way = Way {
                    from: Arc::clone(from),
                    to: Arc::clone(to),
                    knobs: Arc::clone(&knobs),
                    refills: Arc::clone(&refills),
                    refilled: 0,
                    counts: Arc::clone(counts),
                    stopped: Arc::clone(&stopped),
                    random: Random(seed.wrapping_mul(2).wrapping_add(way as u64)),
                    queue: VecDeque::new(),
                    free: Instant::now(),
                };
                std::thread::spawn(move || way.carry())
            })
            .collect();
        Self {
            knobs,
            refills,
            counts,
            threads,
            stop: Some(stop),
        }
    }

    /// Changes what it does to packets that come from now on.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        change(&mut self.knobs.lock().unwrap());
    }

    /// Fills both ways' token buckets, as a long rest would.
    pub fn refill(&self) {
        self.refills.fetch_add(1, Ordering::Relaxed);
    }

    /// How many packets were lost on purpose, there and back.
    pub fn lost(&self) -> [u64; 2] {
        [0, 1].map(|way: usize| self.counts[way].lost.load(Ordering::Relaxed))
    }

    /// How many found no room in the buffer, there and back.
    pub fn overflowed(&self) -> [u64; 2] {
        [0, 1].map(|way: usize| self.counts[way].overflowed.load(Ordering::Relaxed))
    }

    /// How many were carried, there and back.
    pub fn carried(&self) -> [u64; 2] {
        [0, 1].map(|way: usize| self.counts[way].carried.load(Ordering::Relaxed))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (`SplitMix64`).
struct Random(u64);

impl Random {
    /// From 0 up to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        f64::from(u32::try_from((z ^ (z >> 31)) >> 32).unwrap()) / f64::from(u32::MAX)
    }
}

struct Way {
    from: Arc<File>,
    to: Arc<File>,
    knobs: Arc<Mutex<Knobs>>,
    refills: Arc<AtomicU64>,
    /// The last of them that was seen.
    refilled: u64,
    counts: Arc<Counts>,
    stopped: Arc<UnixStream>,
    random: Random,
    /// Packets under way, and when they arrive.
    queue: VecDeque<(Instant, Vec<u8>)>,
    /// When the last packet has left; with a burst, when it would have without one, which is how
    /// much of the burst is spent.
    free: Instant,
}

impl Way {
    fn carry(&mut self) {
        // Else the kernel is up to 50 µs late with every timer (PR_SET_TIMERSLACK(2const)).
        nix::sys::prctl::set_timerslack(1).unwrap();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let wait = self.deliver();
            let mut polled = [
                PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
            ];
            let _ = ppoll(&mut polled, wait.map(TimeSpec::from), None);
            if polled[1].any() == Some(true) {
                return;
            }
            // A few at a time: those under way are to arrive in time.
            for _ in 0..32 {
                match (&*self.from).read(&mut buffer) {
                    Ok(length) => self.take(&buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // The device is gone, and its namespace with it.
                    Err(_) => return,
                }
            }
        }
    }

    /// Hands over what has arrived, and says how long the next takes.
    fn deliver(&mut self) -> Option<Duration> {
        loop {
            let (due, packet) = self.queue.front()?;
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return Some(wait);
            }
            self.counts.carried.fetch_add(1, Ordering::Relaxed);
            // A device that is down takes nothing, as an unplugged one.
            let _ = (&*self.to).write(packet);
            self.queue.pop_front();
        }
    }

    fn take(&mut self, packet: &[u8]) {
        let knobs = *self.knobs.lock().unwrap();
        // What IPv6 says to its own link comes by the clock: the seed is for the others.
        let own = packet[0] >> 4 == 6 && packet.get(24..26) == Some(&[0xff, 0x02]);
        if !own && knobs.loss > 0.0 && self.random.next() * 100.0 < knobs.loss {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let now = Instant::now();
        let mut due = now;
        if let Some(rate) = knobs.rate {
            let seconds = |bytes: usize| {
                Duration::from_secs_f64(f64::from(u32::try_from(bytes).unwrap()) * 8.0 / rate / 1e6)
            };
            let refills = self.refills.load(Ordering::Relaxed);
            if refills != std::mem::replace(&mut self.refilled, refills) {
                self.free = now;
            }
            if self.free.saturating_duration_since(now) + seconds(packet.len())
                > seconds(knobs.buffer + knobs.burst)
            {
                self.counts.overflowed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.free = self.free.max(now) + seconds(packet.len());
            let burst = seconds(knobs.burst);
            due = now + self.free.duration_since(now).saturating_sub(burst);
        }
        due += knobs.delay;
        if !knobs.jitter.is_zero() {
            due += knobs.jitter.mul_f64(self.random.next());
        }
        if let Some((last, _)) = self.queue.back() {
            due = due.max(*last);
        }
        self.queue.push_back((due, packet.to_vec()));
    }
}

/// A TUN device of this name in the network namespace of the calling thread; it lives as long as the
/// file is open.
fn open_tun(name: &str) -> io::Result<File> {
    /// `struct ifreq` of netdevice(7), with the member that TUNSETIFF wants.
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        flags: libc::c_short,
        rest: [u8; 22],
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).unwrap(),
        rest: [0; 22],
    };
    assert!(name.len() < libc::IFNAMSIZ, "{name} is too long");
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    #[expect(unsafe_code, reason = "TUN devices are made by an ioctl")]
    // SAFETY: the kernel reads and writes one `struct ifreq`, which `request` is, of its size.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
