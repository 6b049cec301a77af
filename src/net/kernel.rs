//! What the kernel knows of a TCP connection: TCP_INFO and the error queue. The only unsafe code.
#![expect(
    unsafe_code,
    reason = "getsockopt(TCP_INFO) has no safe wrapper in libc, nix or rustix"
)]

use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd as _};
use std::time::Duration;

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

use crate::model::fault::IcmpError;

/// The fields in use of `struct tcp_info` (linux/tcp.h).
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpInfo {
    pub rtt: Option<Duration>,
    pub send_mss: Option<u32>,
}

/// Reads TCP_INFO. The kernel tells how much of the structure it knows; the rest stays zero, and
/// zero in these fields means "not measured".
pub(crate) fn tcp_info(socket: &impl AsFd) -> io::Result<TcpInfo> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length =
        libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for the borrow, and the kernel writes at most `length` bytes
    // into a buffer of that size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all fields are integers, for which zero bytes are a value.
    let info = unsafe { info.assume_init() };
    Ok(TcpInfo {
        rtt: (info.tcpi_rtt > 0).then(|| Duration::from_micros(u64::from(info.tcpi_rtt))),
        send_mss: (info.tcpi_snd_mss > 0).then_some(info.tcpi_snd_mss),
    })
}

/// Asks the kernel to keep the ICMP errors of this socket (ip(7), IP_RECVERR).
pub(crate) fn keep_icmp_errors(socket: &impl AsFd, is_v6: bool) -> io::Result<()> {
    let result = if is_v6 {
        setsockopt(&socket, sockopt::Ipv6RecvErr, &true)
    } else {
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)
    };
    result.map_err(io::Error::from)
}

/// Takes the ICMP error that ended a connection attempt, if one did.
pub(crate) fn take_icmp_error(socket: &impl AsFd) -> Option<IcmpError> {
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(
        socket.as_fd().as_raw_fd(),
        &mut [],
        Some(&mut control),
        flags,
    )
    .ok()?;
    message.cmsgs().ok()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4RecvErr(error, from)
            if error.ee_origin == libc::SO_EE_ORIGIN_ICMP =>
        {
            let from = from.map(|a| IpAddr::from(u32::from_be(a.sin_addr.s_addr).to_be_bytes()));
            Some(IcmpError {
                from,
                version: 4,
                kind: error.ee_type,
                code: error.ee_code,
            })
        }
        ControlMessageOwned::Ipv6RecvErr(error, from)
            if error.ee_origin == libc::SO_EE_ORIGIN_ICMP6 =>
        {
            let from = from.map(|a| IpAddr::from(a.sin6_addr.s6_addr));
            Some(IcmpError {
                from,
                version: 6,
                kind: error.ee_type,
                code: error.ee_code,
            })
        }
        _ => None,
    })
}
