//! Moves packets between TUN devices through the datapath, and records from it to whoever listens.
//!
//! One thread a lane. A packet that cannot be moved because the machinery is broken is never mere
//! silence, which would look like a denial: the first such failure is kept, interrupts the stream
//! of evidence, and fails every later call to the lane.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::broadcast;
use tokio::task::{AbortHandle, JoinError};
use ztc_engine::fabric::Witness;
use ztc_model::evidence::Evidence;
use ztc_model::hubble;

use super::netlink::MTU;
use super::runtime_thread::{RuntimeThread, RuntimeThreadError};
use super::tun::Tun;
use crate::datapath::{Attachment, Datapath, NodeId, Now, PortId};

/// How many records a listener may be behind before it loses some and learns that it did.
const RECORDS: usize = 1 << 15;

/// How many packets of one device are moved before the others have their turn.
const BURST: usize = 64;

/// Why packets are no longer moved, or never were.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PumpError {
    /// The thread could not be started.
    #[error("cannot start the switch")]
    Start {
        /// Why.
        source: Arc<RuntimeThreadError>,
    },
    /// A device could not be watched.
    #[error("cannot watch a TUN device")]
    Watch {
        /// The operating system's reason.
        source: Arc<std::io::Error>,
    },
    /// A device is gone though it was not unplugged.
    #[error("a TUN device has vanished")]
    Vanished,
    /// A packet could not be read.
    #[error("cannot read a packet")]
    Read {
        /// The operating system's reason.
        source: Errno,
    },
    /// A packet could not be delivered.
    #[error("cannot write a packet")]
    Write {
        /// The operating system's reason.
        source: Errno,
    },
    /// A task of the switch panicked.
    #[error("the switch panicked")]
    Panicked {
        /// The panic.
        source: Arc<JoinError>,
    },
    /// The thread is gone.
    #[error("the switch has ended")]
    Ended,
}

/// The switch of a lane, at work.
#[derive(Debug)]
pub(crate) struct Pump {
    thread: RuntimeThread,
    switch: Arc<Switch>,
}

/// What is shared between the thread that moves packets and those who look at it.
#[derive(Debug)]
pub(crate) struct Switch {
    datapath: Mutex<Datapath>,
    ports: RwLock<HashMap<PortId, Port>>,
    /// Where what passes the edges of the pods of a node is copied to.
    taps: RwLock<HashMap<NodeId, Tun>>,
    witnesses: broadcast::Sender<Witness>,
    failure: OnceLock<PumpError>,
}

/// A device that is plugged in. Dropped, it is unplugged, and nothing moves through it any more.
#[derive(Debug)]
pub(crate) struct Plug {
    switch: Arc<Switch>,
    id: PortId,
}

#[derive(Debug)]
struct Port {
    device: Arc<AsyncFd<Tun>>,
    reader: AbortHandle,
}

impl Pump {
    /// Starts to move packets; there are no ports yet.
    pub(crate) fn start(name: &str, datapath: Datapath) -> Result<Self, PumpError> {
        let thread = RuntimeThread::start(name, None)
            .map_err(|source| PumpError::Start { source: Arc::new(source) })?;
        let (witnesses, _nobody_yet) = broadcast::channel(RECORDS);
        let switch = Switch {
            datapath: Mutex::new(datapath),
            ports: RwLock::default(),
            taps: RwLock::default(),
            witnesses,
            failure: OnceLock::new(),
        };
        Ok(Self { thread, switch: Arc::new(switch) })
    }

    /// The part of it that others may hold.
    pub(crate) fn switch(&self) -> &Arc<Switch> {
        &self.switch
    }

    /// Plugs a device in. Policy is in force before its first packet moves.
    pub(crate) fn attach(&self, attachment: Attachment, device: Tun) -> Result<Plug, PumpError> {
        let runtime = self.thread.handle();
        let device = {
            let _context = runtime.enter();
            device.watch().map_err(|source| PumpError::Watch { source: Arc::new(source) })?
        };
        let device = Arc::new(device);
        let (id, reader) = {
            // A packet for the new port waits here until it is known.
            let mut ports = self.switch.ports_mut();
            let id = self.switch.datapath().attach(attachment);
            let reader = runtime.spawn(Arc::clone(&self.switch).read_all(id, Arc::clone(&device)));
            ports.insert(id, Port { device, reader: reader.abort_handle() });
            (id, reader)
        };
        let switch = Arc::clone(&self.switch);
        runtime.spawn(async move {
            match reader.await {
                Ok(failure) => switch.fail(failure),
                Err(error) if error.is_panic() => {
                    switch.fail(PumpError::Panicked { source: Arc::new(error) });
                }
                Err(_aborted) => {}
            }
        });
        Ok(Plug { switch: Arc::clone(&self.switch), id })
    }

    /// Whether packets are being moved.
    pub(crate) fn check(&self) -> Result<(), PumpError> {
        match self.switch.failure.get() {
            Some(failure) => Err(failure.clone()),
            None if self.thread.is_alive() => Ok(()),
            None => Err(PumpError::Ended),
        }
    }
}

impl Plug {
    /// The port that the device is plugged into.
    pub(crate) fn id(&self) -> PortId {
        self.id
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        let port = self.switch.ports_mut().remove(&self.id);
        self.switch.datapath().detach(self.id, Now::read());
        if let Some(port) = port {
            port.reader.abort();
        }
    }
}

impl Switch {
    /// The datapath, while nothing moves.
    pub(crate) fn datapath(&self) -> MutexGuard<'_, Datapath> {
        // Whoever panicked with it in hand has been recorded as a failure of the switch.
        self.datapath.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is said from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Witness> {
        self.witnesses.subscribe()
    }

    /// Passes a record on to whoever listens.
    pub(crate) fn publish(&self, line: hubble::Line) {
        if self.witnesses.receiver_count() == 0 {
            return;
        }
        if let Some(evidence) = Evidence::from_hubble(&Arc::new(line)) {
            self.say(evidence);
        }
    }

    /// Passes what an enforcement point said on to whoever listens.
    pub(crate) fn say(&self, evidence: Evidence) {
        self.tell(Witness::Spoke(Arc::new(evidence)));
    }

    /// Reads a device for as long as it is plugged in; returns why it cannot go on.
    async fn read_all(self: Arc<Self>, id: PortId, device: Arc<AsyncFd<Tun>>) -> PumpError {
        let mut buffer = [0; MTU as usize];
        loop {
            let mut ready = match device.readable().await {
                Ok(ready) => ready,
                Err(source) => return PumpError::Watch { source: Arc::new(source) },
            };
            for _ in 0..BURST {
                match device.get_ref().read(&mut buffer) {
                    Ok(0) => return PumpError::Vanished,
                    Ok(length) => {
                        if let Err(failure) = self.forward(id, buffer[..length].to_vec()) {
                            return failure;
                        }
                    }
                    Err(Errno::AGAIN) => {
                        ready.clear_ready();
                        break;
                    }
                    Err(Errno::INTR) => {}
                    Err(source) => return PumpError::Read { source },
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// Moves one packet, or drops it as policy says.
    fn forward(&self, from: PortId, packet: Vec<u8>) -> Result<(), PumpError> {
        let forwarded = self.datapath().forward(from, packet, Now::read());
        for line in forwarded.flows {
            self.publish(line);
        }
        // Before anybody can have an answer to it: whoever listens has it by then.
        self.copy(&forwarded.tapped)?;
        let Some((to, packet)) = forwarded.to else { return Ok(()) };
        let device = self.ports().get(&to).map(|port| Arc::clone(&port.device));
        // A port that was unplugged in the meantime takes its packets with it.
        let Some(device) = device else { return Ok(()) };
        match device.get_ref().write(&packet) {
            // A full queue loses packets, as everywhere.
            Ok(()) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Ok(()),
            // The device may have gone with its port while the packet was in hand.
            Err(_) if !self.ports().contains_key(&to) => Ok(()),
            Err(source) => Err(PumpError::Write { source }),
        }
    }

    /// Copies what passes the edges of the pods of a node to a device, from now on.
    pub(crate) fn tap(&self, node: NodeId, device: Tun) {
        self.taps.write().unwrap_or_else(PoisonError::into_inner).insert(node, device);
        self.datapath().listen(node);
    }

    fn copy(&self, tapped: &[(NodeId, Vec<u8>)]) -> Result<(), PumpError> {
        if tapped.is_empty() {
            return Ok(());
        }
        let taps = self.taps.read().unwrap_or_else(PoisonError::into_inner);
        for (node, packet) in tapped {
            let Some(device) = taps.get(node) else { continue };
            // A capture that misses a packet must not be taken for one that saw all.
            device.write(packet).map_err(|source| PumpError::Write { source })?;
        }
        Ok(())
    }

    /// Says that records may be missing.
    pub(crate) fn interrupt(&self, reason: String) {
        self.tell(Witness::Gap { reason });
    }

    fn fail(&self, failure: PumpError) {
        let reason = format!("the lab moves no packets: {failure}");
        // Only the first failure counts: others follow from it.
        drop(self.failure.set(failure));
        self.interrupt(reason);
    }

    fn tell(&self, witness: Witness) {
        // That nobody listens is no error: evidence is for those who asked.
        drop(self.witnesses.send(witness));
    }

    fn ports(&self) -> std::sync::RwLockReadGuard<'_, HashMap<PortId, Port>> {
        self.ports.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn ports_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<PortId, Port>> {
        self.ports.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use tokio::time::timeout;

    use super::*;
    use crate::datapath::{Config, NodeConfig};
    use crate::fault::Faults;

    fn pump() -> Pump {
        let node = NodeConfig {
            name: "node-a".into(),
            addresses: vec![[172, 31, 0, 2].into()],
            proxy_port: 10053,
        };
        let (nodes, services) = (vec![node], Vec::new());
        let datapath = Datapath::new(Config { nodes, services, faults: Faults::default() });
        Pump::start("switch", datapath).unwrap()
    }

    /// A device whose other end is in hand: like TUN, a read of it is one packet.
    fn device() -> (Tun, std::os::fd::OwnedFd) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Tun::from(ours), theirs)
    }

    #[tokio::test]
    async fn a_device_that_vanishes_fails_the_switch_and_interrupts_the_evidence() {
        let pump = pump();
        let mut witnesses = pump.switch().subscribe();
        let (ours, theirs) = device();
        let attachment = Attachment::Outside { addresses: vec![[203, 0, 113, 10].into()] };
        let _plug = pump.attach(attachment, ours).unwrap();
        assert!(pump.check().is_ok());

        drop(theirs);
        let witness = timeout(Duration::from_secs(5), witnesses.recv()).await.unwrap().unwrap();
        assert!(matches!(witness, Witness::Gap { .. }), "{witness:?}");
        assert!(matches!(pump.check(), Err(PumpError::Vanished)), "{:?}", pump.check());
    }

    #[tokio::test]
    async fn a_device_that_is_unplugged_fails_nothing() {
        let pump = pump();
        let mut witnesses = pump.switch().subscribe();
        let (ours, theirs) = device();
        let attachment = Attachment::Outside { addresses: vec![[203, 0, 113, 10].into()] };
        drop(pump.attach(attachment, ours).unwrap());
        drop(theirs);
        assert!(pump.check().is_ok());
        drop(pump);
        let ended = timeout(Duration::from_secs(5), witnesses.recv()).await.unwrap();
        assert!(matches!(ended, Err(broadcast::error::RecvError::Closed)), "{ended:?}");
    }
}
