//! What the kernel reports about a connection only through socket options: TCP_INFO and the error queue; and calls
//! without another safe wrapper. The only module with unsafe code.

#![expect(
    unsafe_code,
    reason = "getsockopt(TCP_INFO) fills a C struct, ioctl(FIONREAD) an int, madvise(2) takes addresses, malloc_trim(3) and mallopt(3) are the C library's; no crate in use has safe wrappers for them"
)]

use std::io;
use std::io::IoSliceMut;
use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

use crate::model::fault::IcmpError;
use crate::model::resolve::Family;
use crate::model::transfer::TcpOptions;

/// The part of TCP_INFO (linux/tcp.h) that is used here. `None`: this kernel does not report the value, or has not
/// measured it yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TcpInfo {
    /// `tcpi_rtt`: smoothed; right after connect it is the handshake's round trip.
    pub rtt: Option<Duration>,
    /// `tcpi_min_rtt`: the smallest round trip so far.
    pub min_rtt: Option<Duration>,
    /// `tcpi_snd_mss`: payload bytes of the largest segment that may be sent.
    pub send_mss: Option<u32>,
    /// `tcpi_rcv_mss`: the kernel's estimate of the peer's segment size in bytes; a guess until data has arrived.
    pub receive_mss: Option<u32>,
    /// `tcpi_pmtu`, in bytes.
    pub path_mtu: Option<u32>,
    /// `tcpi_total_retrans`: segments retransmitted since the connection opened.
    pub retransmits: Option<u32>,
    /// `tcpi_bytes_received`: payload bytes.
    pub bytes_received: Option<u64>,
    /// `tcpi_data_segs_in`: received segments with data.
    pub data_segments_in: Option<u32>,
    /// `tcpi_segs_out`: sent segments, acknowledgements included (Linux 4.2).
    pub segments_out: Option<u32>,
    /// `tcpi_rcv_ooopack`: segments that arrived out of order (Linux 5.4).
    pub out_of_order: Option<u32>,
    /// `tcpi_rcv_rtt`: the round trip as a receiver estimates it from how its window is used.
    pub receive_rtt: Option<Duration>,
    /// `tcpi_rcv_space`: bytes of the receive window that the kernel tunes for this connection.
    pub receive_space: Option<u32>,
    /// `tcpi_rcv_ssthresh`: the largest window offered to the peer, in bytes.
    pub receive_window: Option<u32>,
    /// `tcpi_rcv_wnd`: the window that is offered to the peer now, in bytes (Linux 6.2). Zero is a measurement: the
    /// peer has to wait.
    pub offered_window: Option<u32>,
    /// `tcpi_options`: what both sides agreed on in the handshake.
    pub options: Option<TcpOptions>,
}

/// Reads TCP_INFO of a TCP socket.
///
/// # Errors
/// If getsockopt(2) fails, for example because the socket is not TCP.
pub fn tcp_info(socket: &impl AsFd) -> io::Result<TcpInfo> {
    // SAFETY: `tcp_info` is a plain C struct of integers, for which all zeroes is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = SIZE;
    // SAFETY: the descriptor is borrowed and so open; pointer and length describe `info`, which
    // outlives the call; the kernel writes at most `length` bytes and stores how many it wrote.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(from_raw(&info, length as usize))
}

/// The kernel wrote `length` bytes of `info`; an older kernel writes fewer.
fn from_raw(info: &libc::tcp_info, length: usize) -> TcpInfo {
    // In these fields, zero means "not measured" or not written: no segment has size 0, no round trip takes 0 µs.
    let field = |value: u32| (value != 0).then_some(value);
    // In these fields, zero is a count.
    let count = |offset: usize, value: u32| (offset + size_of::<u32>() <= length).then_some(value);
    let received_at = offset_of!(libc::tcp_info, tcpi_bytes_received);
    let has_received = received_at + size_of::<u64>() <= length;
    let micros = |value: u32| Duration::from_micros(value.into());
    TcpInfo {
        rtt: field(info.tcpi_rtt).map(micros),
        // ~0 until the first sample (tcp_min_rtt in net/tcp.h).
        min_rtt: field(info.tcpi_min_rtt)
            .filter(|v| *v != u32::MAX)
            .map(micros),
        send_mss: field(info.tcpi_snd_mss),
        receive_mss: field(info.tcpi_rcv_mss),
        path_mtu: field(info.tcpi_pmtu),
        bytes_received: has_received.then_some(info.tcpi_bytes_received),
        data_segments_in: count(
            offset_of!(libc::tcp_info, tcpi_data_segs_in),
            info.tcpi_data_segs_in,
        ),
        segments_out: count(
            offset_of!(libc::tcp_info, tcpi_segs_out),
            info.tcpi_segs_out,
        ),
        out_of_order: count(
            offset_of!(libc::tcp_info, tcpi_rcv_ooopack),
            info.tcpi_rcv_ooopack,
        ),
        receive_rtt: field(info.tcpi_rcv_rtt).map(micros),
        receive_space: field(info.tcpi_rcv_space),
        receive_window: field(info.tcpi_rcv_ssthresh),
        offered_window: count(offset_of!(libc::tcp_info, tcpi_rcv_wnd), info.tcpi_rcv_wnd),
        options: (offset_of!(libc::tcp_info, tcpi_options) < length)
            .then(|| options(info.tcpi_options)),
        retransmits: count(
            offset_of!(libc::tcp_info, tcpi_total_retrans),
            info.tcpi_total_retrans,
        ),
    }
}

/// `TCPI_OPT_TIMESTAMPS`, `TCPI_OPT_SACK` and `TCPI_OPT_WSCALE` of linux/tcp.h.
fn options(bits: u8) -> TcpOptions {
    TcpOptions {
        timestamps: bits & 1 != 0,
        sack: bits & 2 != 0,
        window_scaling: bits & 4 != 0,
    }
}

/// Received bytes that have not been read yet (tcp(7), FIONREAD). A large number means that the reader is slow, not the
/// path.
///
/// # Errors
/// If ioctl(2) fails.
pub fn unread(socket: &impl AsFd) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed and so open; FIONREAD stores one int, which outlives the call.
    let outcome =
        unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u32::try_from(bytes).unwrap_or_default())
}

/// Makes the kernel keep the ICMP errors for this socket (ip(7), ipv6(7)).
///
/// # Errors
/// If setsockopt(2) fails.
pub fn keep_icmp_errors(socket: &impl AsFd, family: Family) -> io::Result<()> {
    match family {
        Family::V4 => setsockopt(socket, sockopt::Ipv4RecvErr, &true)?,
        Family::V6 => setsockopt(socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(())
}

/// The last ICMP error that was kept for this socket; never waits. `None` if there is none.
pub fn icmp_error(socket: &impl AsFd) -> Option<IcmpError> {
    let mut found = None;
    for _ in 0..MAX_QUEUED {
        match next_error(socket) {
            Queued::Icmp(error) => found = Some(error),
            Queued::Other => {}
            Queued::Empty => break,
        }
    }
    found
}

enum Queued {
    Icmp(IcmpError),
    /// An error of this machine, which connect's errno reports as well.
    Other,
    Empty,
}

fn next_error(socket: &impl AsFd) -> Queued {
    // The packet that caused the error; its content is not used.
    let mut packet = [0u8; 64];
    let mut iov = [IoSliceMut::new(&mut packet)];
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let Ok(message) = recvmsg::<SockaddrStorage>(
        socket.as_fd().as_raw_fd(),
        &mut iov,
        Some(&mut control),
        MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
    ) else {
        return Queued::Empty;
    };
    let Ok(control) = message.cmsgs() else {
        return Queued::Other;
    };
    for one in control {
        match one {
            ControlMessageOwned::Ipv4RecvErr(error, from)
                if error.ee_origin == libc::SO_EE_ORIGIN_ICMP =>
            {
                let from = from
                    .filter(|a| i32::from(a.sin_family) == libc::AF_INET)
                    .map(|a| IpAddr::V4(Ipv4Addr::from(u32::from_be(a.sin_addr.s_addr))));
                return Queued::Icmp(icmp(4, &error, from));
            }
            ControlMessageOwned::Ipv6RecvErr(error, from)
                if error.ee_origin == libc::SO_EE_ORIGIN_ICMP6 =>
            {
                let from = from
                    .filter(|a| i32::from(a.sin6_family) == libc::AF_INET6)
                    .map(|a| IpAddr::V6(Ipv6Addr::from(a.sin6_addr.s6_addr)));
                return Queued::Icmp(icmp(6, &error, from));
            }
            _ => {}
        }
    }
    Queued::Other
}

fn icmp(version: u8, error: &libc::sock_extended_err, from: Option<IpAddr>) -> IcmpError {
    IcmpError {
        from,
        version,
        kind: error.ee_type,
        code: error.ee_code,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the struct is some hundred bytes long"
)]
const SIZE: libc::socklen_t = size_of::<libc::tcp_info>() as libc::socklen_t;

/// A connection attempt sends about seven SYNs, each of which may be answered once or twice.
const MAX_QUEUED: usize = 16;

/// Removes what is mapped from a file from this process's memory (madvise(2), `MADV_DONTNEED`); what is used again is
/// read from the file. The range must consist of pages that are never written.
pub(super) fn give_back(constant: Range<usize>) {
    // SAFETY: a private mapping that was never written holds what the file does, before and after; the
    // kernel checks that the range is mapped.
    unsafe {
        libc::madvise(
            std::ptr::with_exposed_provenance_mut(constant.start),
            constant.len(),
            libc::MADV_DONTNEED,
        );
    }
}

/// Gives memory that is free again back to the system (malloc_trim(3)). The allocator of the C library keeps pages in
/// which a few bytes are in use, and all below them.
pub fn give_memory_back() {
    // SAFETY: it takes no pointer, and changes only what is not in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes large blocks return to the system as soon as they are free (mallopt(3)). Otherwise the C library raises the size
/// that it takes for large whenever such a block is freed, and keeps the next one.
pub fn return_large_blocks() {
    // SAFETY: it takes no pointer, and is documented for all values of this parameter.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Bytes. Answers of a thousand targets are larger; what checks need again and again is smaller.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn a_live_connection_has_a_round_trip_and_a_segment_size() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let info = tcp_info(&stream).unwrap();
        assert!(info.rtt.unwrap() < Duration::from_secs(1));
        assert!(info.send_mss.unwrap() > 500);
        assert_eq!(info.retransmits, Some(0));
        assert!(info.options.is_some());
        // Linux 6.2 and later report it.
        assert!(info.offered_window.is_none_or(|window| window > 1000));
    }

    #[test]
    fn what_came_is_counted_read_or_not() {
        use std::io::{Read as _, Write as _};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        assert_eq!(unread(&stream).unwrap(), 0);
        peer.write_all(&[7; 5000]).unwrap();
        // On loopback it is there when the write returns, or soon after.
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(unread(&stream).unwrap(), 4999);
        let info = tcp_info(&stream).unwrap();
        assert_eq!(info.bytes_received, Some(5000));
        assert!(info.data_segments_in.unwrap() >= 1);
        assert_eq!(info.out_of_order, Some(0));
        assert!(info.segments_out.unwrap() >= 1);
        assert!(info.receive_space.unwrap() > 1000);
    }

    #[test]
    fn what_an_older_kernel_did_not_write_is_absent() {
        // SAFETY: as in `tcp_info`.
        let mut raw: libc::tcp_info = unsafe { std::mem::zeroed() };
        raw.tcpi_rtt = 1500;
        raw.tcpi_snd_mss = 1448;
        raw.tcpi_min_rtt = 1200;
        raw.tcpi_total_retrans = 3;
        let all = from_raw(&raw, size_of::<libc::tcp_info>());
        assert_eq!(all.rtt, Some(Duration::from_micros(1500)));
        assert_eq!(all.min_rtt, Some(Duration::from_micros(1200)));
        assert_eq!(all.receive_mss, None, "zero is no measurement");
        // Linux 2.6 stops before tcpi_pacing_rate.
        let old = from_raw(&raw, offset_of!(libc::tcp_info, tcpi_pacing_rate));
        assert_eq!((old.rtt, old.retransmits), (all.rtt, Some(3)));
        assert_eq!((old.bytes_received, old.data_segments_in), (None, None));
        assert_eq!(from_raw(&raw, 8).retransmits, None);
        // Linux 5.4 to 6.1 stop before tcpi_rcv_wnd; where it is written, zero is a window.
        let end = offset_of!(libc::tcp_info, tcpi_rcv_wnd);
        assert_eq!(from_raw(&raw, end).offered_window, None);
        assert_eq!(from_raw(&raw, end + 4).offered_window, Some(0));
        raw.tcpi_rcv_wnd = 65_535;
        assert_eq!(from_raw(&raw, end + 4).offered_window, Some(65_535));
        assert_eq!(from_raw(&raw, 4).options, None);
        raw.tcpi_options = 4 + 1;
        let agreed = TcpOptions {
            timestamps: true,
            sack: false,
            window_scaling: true,
        };
        assert_eq!(from_raw(&raw, 8).options, Some(agreed));
        raw.tcpi_min_rtt = u32::MAX;
        assert_eq!(
            from_raw(&raw, size_of::<libc::tcp_info>()).min_rtt,
            None,
            "no sample yet"
        );
    }

    #[test]
    fn what_is_no_tcp_socket_has_no_tcp_info() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(tcp_info(&socket).is_err());
    }

    #[test]
    fn an_icmp_error_is_read_with_its_sender() {
        let closed = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        keep_icmp_errors(&socket, Family::V4).unwrap();
        assert_eq!(icmp_error(&socket), None);
        socket.connect(closed).unwrap();
        socket.send(b"x").unwrap();
        // On loopback the answer is queued before send returns.
        assert_eq!(
            icmp_error(&socket),
            Some(IcmpError {
                from: Some("127.0.0.1".parse().unwrap()),
                version: 4,
                kind: 3,
                code: 3
            })
        );
        assert_eq!(icmp_error(&socket), None);
    }
}
