//! TUN devices: the wire between a network namespace and the switch. One read or write is one IP
//! packet, with nothing before it.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Updater, ioctl, opcode};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The device that TUN devices are made of.
pub(crate) const DEVICE: &str = "/dev/net/tun";

/// The name of the device in its namespace.
pub(crate) const NAME: &str = "tun0";

/// `linux/if_tun.h`: `_IOW('T', 202, int)`, though it takes a `struct ifreq`.
const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<c_int>(b'T', 202);
/// `linux/if_tun.h`: `_IOW('T', 203, int)`, though it takes the number itself.
const TUNSETPERSIST: rustix::ioctl::Opcode = opcode::write::<c_int>(b'T', 203);
/// `linux/if_tun.h`: IP packets, no Ethernet.
const IFF_TUN: u16 = 0x0001;
/// `linux/if_tun.h`: no header before a packet.
const IFF_NO_PI: u16 = 0x1000;

/// `struct ifreq` of `linux/if.h`, with the one member of its union that `TUNSETIFF` reads.
#[repr(C)]
struct IfReq {
    name: [u8; 16],
    flags: u16,
    unused: [u8; 22],
}

/// A TUN device; it vanishes with its network namespace.
#[derive(Debug)]
pub(crate) struct Tun(OwnedFd);

/// Whether TUN devices can be made at all.
pub(crate) fn probe() -> Result<(), Errno> {
    open_device().map(drop)
}

fn open_device() -> Result<OwnedFd, Errno> {
    open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())
}

impl Tun {
    /// Makes the device [`NAME`] in the network namespace of the calling thread. It is down.
    #[expect(unsafe_code, reason = "ioctls have no safe form")]
    pub(crate) fn create() -> Result<Self, Errno> {
        let device = open_device()?;
        let mut request = IfReq { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, unused: [0; 22] };
        request.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
        // SAFETY: `IfReq` has the layout and the size of `struct ifreq`, which is what `TUNSETIFF`
        // reads and, with the device's name, writes back (drivers/net/tun.c, __tun_chr_ioctl).
        unsafe { ioctl(&device, Updater::<TUNSETIFF, IfReq>::new(&mut request)) }?;
        // Otherwise every close would wait for the kernel to unregister one device, some 30 ms. A
        // namespace that ends takes all of its devices along at once, in the background.
        // SAFETY: `TUNSETPERSIST` takes a number and touches no memory of ours.
        unsafe { ioctl(&device, IntegerSetter::<TUNSETPERSIST>::new_usize(1)) }?;
        Ok(Self(device))
    }

    /// Has the runtime that the caller is in tell when there is something to read.
    #[expect(unsafe_code, reason = "the runtime must be sure of the descriptor")]
    pub(crate) fn watch(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: `as_raw_fd` is always the one descriptor that is open as long as `self` is there.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// The next packet that the namespace sends: its length in `buffer`, or [`Errno::AGAIN`].
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.0, buffer)
    }

    /// Hands a packet to the namespace.
    pub(crate) fn write(&self, packet: &[u8]) -> Result<(), Errno> {
        rustix::io::write(&self.0, packet).map(drop)
    }
}

impl AsRawFd for Tun {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
impl From<OwnedFd> for Tun {
    /// Something else that packets can be read from one at a time.
    fn from(device: OwnedFd) -> Self {
        Self(device)
    }
}
