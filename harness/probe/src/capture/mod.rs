//! Captures: the packets of others in this network namespace, and what is found in them.
//!
//! A packet socket sees whatever passes the devices of its namespace, before policy there and without touching it
//! (packet(7)). The kernel hands over packets of the addresses that are watched; what is in them is looked at here and
//! kept nowhere. Needs `CAP_NET_RAW`. This room does not know what ought to be found.

mod dump;
mod filter;
mod packet;
mod records;
mod sieve;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use ztc_wire::{Captured, Watch};

use self::filter::{Instruction, instructions};
use self::sieve::Sieve;

/// Every protocol (`linux/if_ether.h`).
const ETH_P_ALL: u16 = 0x0003;

/// What is asked of the kernel for packets that wait; it gives less without a privilege.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Longer than any packet, those that the kernel has put together from several included.
const LONGEST: usize = 1 << 19;

/// How many packets are looked at before others have their turn.
const BURST: usize = 64;

/// How many packets that have waited are still looked at when a capture ends.
const REST: usize = 1 << 16;

/// Why there is no capture.
#[derive(Debug, Error)]
pub(crate) enum CaptureError {
    /// No packet socket.
    #[error("open a packet socket")]
    Open(#[source] io::Error),
    /// The kernel does not take the filter.
    #[error("filter packets")]
    Filter(#[source] io::Error),
    /// No word of packets that wait.
    #[error("wait for packets")]
    Wait(#[source] io::Error),
    /// A packet could not be read.
    #[error("read a packet")]
    Read(#[source] io::Error),
    /// The kernel does not say how many packets it could not keep.
    #[error("count lost packets")]
    Count(#[source] io::Error),
}

/// Looks at packets until it is over; `begun` is called when none is missed any more.
pub(crate) async fn run(
    watch: Watch,
    begun: impl FnOnce(),
    over: impl Future<Output = ()>,
) -> Result<Captured, CaptureError> {
    let socket = watched(open(&watch)?)?;
    let mut sieve = Sieve::new(watch);
    let mut buffer = vec![0; LONGEST];
    let mut over = pin!(over);
    begun();
    loop {
        tokio::select! {
            ready = socket.readable() => {
                let mut ready = ready.map_err(CaptureError::Wait)?;
                if !look(socket.get_ref(), &mut buffer, BURST, &mut sieve)? {
                    ready.clear_ready();
                }
            }
            () = &mut over => break,
        }
        tokio::task::yield_now().await;
    }
    // What somebody has had an answer to has passed, and waits at most.
    look(socket.get_ref(), &mut buffer, REST, &mut sieve)?;
    let lost = lost(socket.get_ref())?;
    Ok(Captured { lost, ..sieve.captured() })
}

/// Has the runtime that the caller is in tell when there is something to read.
#[expect(unsafe_code, reason = "the runtime must be sure of the descriptor")]
fn watched(socket: Socket) -> Result<AsyncFd<Socket>, CaptureError> {
    // SAFETY: `as_raw_fd` is always the one descriptor that is open as long as the socket is there.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }
        .map_err(|error| CaptureError::Wait(error.into()))
}

/// Looks at packets that wait, at most so many; whether there may be more.
fn look(
    socket: &Socket,
    buffer: &mut [u8],
    most: usize,
    sieve: &mut Sieve,
) -> Result<bool, CaptureError> {
    for _ in 0..most {
        match rustix::io::read(socket, &mut *buffer) {
            Ok(length) => sieve.take(buffer.get(..length).unwrap_or_default()),
            Err(Errno::AGAIN) => return Ok(false),
            // A device that goes down while its packets wait says so once.
            Err(Errno::INTR | Errno::NETDOWN) => {}
            Err(source) => return Err(CaptureError::Read(source.into())),
        }
    }
    Ok(true)
}

/// A socket that gets packets without the headers of their links, whatever the kinds of the devices.
fn open(watch: &Watch) -> Result<Socket, CaptureError> {
    let every = Protocol::from(i32::from(ETH_P_ALL.to_be()));
    let socket =
        Socket::new(Domain::PACKET, Type::DGRAM, Some(every)).map_err(CaptureError::Open)?;
    socket.set_nonblocking(true).map_err(CaptureError::Open)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER).map_err(CaptureError::Open)?;
    if let Some(instructions) = instructions(&watch.addresses) {
        let one = |it: &Instruction| SockFilter::new(it.code, it.then, it.otherwise, it.operand);
        let filter: Vec<SockFilter> = instructions.iter().map(one).collect();
        socket.attach_filter(&filter).map_err(CaptureError::Filter)?;
    }
    // What was lost before there was a filter is of no interest: reading the count sets it to 0.
    lost(&socket)?;
    Ok(socket)
}

/// How many packets the kernel could not keep since it was asked last.
#[expect(unsafe_code, reason = "no crate of ours has a safe form of this option")]
fn lost(socket: &Socket) -> Result<u64, CaptureError> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length =
        libc::socklen_t::try_from(size_of_val(&statistics)).expect("a structure of eight bytes");
    // SAFETY: `PACKET_STATISTICS` writes a `struct tpacket_stats` of at most `length` bytes (packet(7)), and both
    // pointers are to variables that live beyond the call.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if failed == 0 {
        Ok(statistics.tp_drops.into())
    } else {
        Err(CaptureError::Count(io::Error::last_os_error()))
    }
}
