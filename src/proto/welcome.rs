//! Whether a fresh connection is kept: none to ourselves, one to each peer, and no more than there is room for. And
//! what every peer is told of us first.
//!
//! Invariant: where two peers dial each other at once, both keep the same connection.
//!
//! Not here: banned addresses ([`super::candidates`]).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::candidates::is_local;
use super::config::Config;
use super::parting::Parting;
use super::units::{PeerId, PeerKey};
use super::wire::extension::{Extension, ExtensionHandshake, ExtensionIds};

/// Age to which a connection may have crossed another on its way.
const CROSSING: Duration = Duration::from_secs(10);

/// A connection, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// The socket's far end.
    pub addr: SocketAddr,
    /// Whether it dialled us.
    pub incoming: bool,
    /// Its name.
    pub id: PeerId,
    /// When it came.
    pub since: Instant,
}

/// What becomes of a fresh connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Welcome {
    /// It is kept.
    Kept,
    /// It is kept, and this one to the same peer is not.
    InPlaceOf(PeerKey),
    /// It is closed.
    Refused(Parting),
}

impl Guest {
    /// What becomes of it, who has just come to `ours`, while these are `here`; they are `most` at most.
    pub fn welcome(
        self,
        ours: PeerId,
        here: impl ExactSizeIterator<Item = (PeerKey, Self)>,
        most: usize,
        many_per_ip: bool,
    ) -> Welcome {
        if self.id == ours {
            return Welcome::Refused(Parting::Ourselves);
        }
        let alone = !many_per_ip && !is_local(self.addr.ip());
        let is_full = here.len() >= most;
        let mut welcome = Welcome::Kept;
        for (key, other) in here {
            if self.replaces(&other, ours) {
                welcome = Welcome::InPlaceOf(key);
            } else if other.id == self.id || (alone && other.addr.ip() == self.addr.ip()) {
                return Welcome::Refused(Parting::Duplicate);
            }
        }
        match welcome {
            Welcome::Kept if is_full => Welcome::Refused(Parting::Crowded),
            welcome => welcome,
        }
    }

    /// Whether the other is a connection to the same peer that crossed this one on its way, and the one to give up: the
    /// one that the lower name dialled.
    fn replaces(&self, other: &Self, ours: PeerId) -> bool {
        let is_young = self.since.saturating_duration_since(other.since) < CROSSING;
        let crossed = other.id == self.id && other.incoming != self.incoming && is_young;
        crossed && self.incoming == (self.id.0 > ours.0)
    }
}

/// The extension handshake to a peer at this address (BEP 10), but for what is known of the torrent.
pub fn hello(
    spoken: &[Extension],
    listen_port: u16,
    config: &Config,
    to: IpAddr,
) -> ExtensionHandshake {
    ExtensionHandshake {
        ids: ExtensionIds::local(spoken),
        port: (listen_port != 0).then_some(listen_port),
        client: Some(concat!("btfs ", env!("CARGO_PKG_VERSION")).into()),
        requests: u16::try_from(config.max_incoming_requests).ok(),
        your_ip: Some(to),
        metadata_len: None,
        upload_only: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: PeerId = PeerId([5; 20]);

    fn guest(id: u8, ip: &str, incoming: bool, since: Instant) -> Guest {
        let addr = SocketAddr::new(ip.parse().expect("an address"), 6881);
        Guest { addr, incoming, id: PeerId([id; 20]), since }
    }

    #[test]
    fn who_comes_is_kept_unless_there_is_a_reason() {
        let start = Instant::now();
        let later = start + CROSSING;
        let (out, inside) = ("8.8.8.8", "10.0.0.1");
        let refused = Welcome::Refused;
        for (name, id, ip, incoming, at, many_per_ip, expected) in [
            ("another", 7, "9.9.9.9", true, start, false, Welcome::Kept),
            ("ourselves", 5, "9.9.9.9", true, start, false, refused(Parting::Ourselves)),
            ("the same address", 7, out, true, start, false, refused(Parting::Duplicate)),
            ("that may be shared", 7, out, true, start, true, Welcome::Kept),
            ("and is shared by routers", 7, inside, true, start, false, Welcome::Kept),
            ("the same peer", 6, "9.9.9.9", false, start, true, refused(Parting::Duplicate)),
            ("that dialled too", 6, out, true, start, false, Welcome::InPlaceOf(PeerKey(1))),
            ("but long after", 6, out, true, later, true, refused(Parting::Duplicate)),
            ("and gives way", 4, inside, true, start, true, refused(Parting::Duplicate)),
        ] {
            let here = [guest(6, out, false, start), guest(4, inside, false, start)];
            let here = (1..).map(PeerKey).zip(here).collect::<Vec<_>>().into_iter();
            let told = guest(id, ip, incoming, at).welcome(OURS, here, 3, many_per_ip);
            assert_eq!(told, expected, "{name}");
        }
    }

    #[test]
    fn the_room_is_limited_but_a_change_takes_none() {
        let now = Instant::now();
        let here = || [(PeerKey(1), guest(6, "8.8.8.8", false, now))].into_iter();
        for (id, expected) in
            [(7, Welcome::Refused(Parting::Crowded)), (6, Welcome::InPlaceOf(PeerKey(1)))]
        {
            assert_eq!(guest(id, "9.9.9.9", true, now).welcome(OURS, here(), 1, true), expected);
        }
    }

    #[test]
    fn both_keep_the_same_of_two_connections_whichever_each_sees_first() {
        let now = Instant::now();
        // The key is that of the dialling peer, in each one's eyes.
        let kept = |ours: u8, theirs: u8, first: u8| {
            let seen = |dialler: u8| guest(theirs, "8.8.8.8", dialler != ours, now);
            let second = if first == ours { theirs } else { ours };
            let here = [(PeerKey(first.into()), seen(first))].into_iter();
            match seen(second).welcome(PeerId([ours; 20]), here, 9, false) {
                Welcome::Kept => panic!("two to one peer"),
                Welcome::InPlaceOf(key) => {
                    assert_eq!(key, PeerKey(first.into()));
                    second
                }
                Welcome::Refused(_) => first,
            }
        };
        for (first_here, first_there) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            assert_eq!(kept(1, 2, first_here), 2, "whom the higher name dialled");
            assert_eq!(kept(2, 1, first_there), 2);
        }
    }
}
