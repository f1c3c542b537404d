//! A peer's way through a stranger: a relay on loopback that counts what passes, and spoils it on demand.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Bytes of a BitTorrent handshake.
const HANDSHAKE_LEN: usize = 68;
/// Type of the message that brings payload, and its bytes before the payload.
const PIECE: u8 = 7;
const PIECE_HEAD: usize = 9;

/// What the relay does with what comes from the peer behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Hands it on.
    Honest,
    /// Turns bytes of every block around.
    Lying,
    /// Takes it, hands nothing on, and keeps the connection.
    Silent,
    /// Holds it back until the manner changes.
    Holding,
}

/// The relay; it ends when dropped.
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    behind: SocketAddr,
    manner: Mutex<Manner>,
    changed: Condvar,
    /// Payload bytes of blocks handed on.
    payload: AtomicU64,
    /// After so many payload bytes it behaves like this.
    then: Mutex<Option<(u64, Manner)>>,
    connections: AtomicU64,
    over: AtomicBool,
}

impl Relay {
    /// A relay before the peer at this address.
    pub(crate) fn before(behind: SocketAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behind,
            manner: Mutex::new(manner),
            changed: Condvar::new(),
            payload: AtomicU64::new(0),
            then: Mutex::new(None),
            connections: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for peer in listener.incoming().map_while(Result::ok) {
                if serving.over.load(Ordering::Acquire) {
                    return;
                }
                serving.connections.fetch_add(1, Ordering::AcqRel);
                let shared = Arc::clone(&serving);
                thread::spawn(move || shared.join(&peer));
            }
        });
        Self { addr, shared }
    }

    /// Payload bytes that were handed on.
    pub(crate) fn payload(&self) -> u64 {
        self.shared.payload.load(Ordering::Acquire)
    }

    /// Connections that it was asked for.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Behaves otherwise from now on, whatever was to come.
    pub(crate) fn become_(&self, manner: Manner) {
        *self.shared.then.lock() = None;
        *self.shared.manner.lock() = manner;
        self.shared.changed.notify_all();
    }

    /// Behaves otherwise once so much payload has passed.
    pub(crate) fn after(self, payload: u64, manner: Manner) -> Self {
        *self.shared.then.lock() = Some((payload, manner));
        self
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.become_(Manner::Honest);
        // Wakes the listener, which then ends.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Shared {
    fn join(self: Arc<Self>, asker: &TcpStream) {
        let Ok(peer) = TcpStream::connect(self.behind) else { return };
        let (mut up_in, mut up_out) = (asker.try_clone().unwrap(), peer.try_clone().unwrap());
        let up = thread::spawn(move || {
            let _ = std::io::copy(&mut up_in, &mut up_out);
            let _ = up_out.shutdown(Shutdown::Both);
        });
        let _ = self.hand_on(&mut peer.try_clone().unwrap(), &mut asker.try_clone().unwrap());
        let _ = peer.shutdown(Shutdown::Both);
        let _ = asker.shutdown(Shutdown::Both);
        let _ = up.join();
    }

    /// Messages from the peer, one by one, treated as the manner asks.
    fn hand_on(&self, from: &mut TcpStream, to: &mut TcpStream) -> std::io::Result<()> {
        let mut handshake = [0; HANDSHAKE_LEN];
        from.read_exact(&mut handshake)?;
        to.write_all(&handshake)?;
        loop {
            let mut head = [0; 4];
            from.read_exact(&mut head)?;
            let mut message = vec![0; u32::from_be_bytes(head) as usize];
            from.read_exact(&mut message)?;
            let is_piece = message.first() == Some(&PIECE);
            match self.manner_now() {
                Manner::Silent => continue,
                Manner::Lying if is_piece => {
                    message[PIECE_HEAD..].iter_mut().step_by(64).for_each(|byte| *byte ^= 0x55);
                }
                Manner::Honest | Manner::Lying | Manner::Holding => {}
            }
            if is_piece {
                let bytes = (message.len() - PIECE_HEAD) as u64;
                self.payload.fetch_add(bytes, Ordering::AcqRel);
            }
            to.write_all(&head)?;
            to.write_all(&message)?;
        }
    }

    fn manner_now(&self) -> Manner {
        let mut then = self.then.lock();
        let mut manner = self.manner.lock();
        if let Some((_, next)) = then.take_if(|(at, _)| self.payload.load(Ordering::Acquire) >= *at)
        {
            *manner = next;
        }
        drop(then);
        while *manner == Manner::Holding && !self.over.load(Ordering::Acquire) {
            self.changed.wait_for(&mut manner, Duration::from_millis(100));
        }
        *manner
    }
}
