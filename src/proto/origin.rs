//! Where addresses of peers come from, and which of those sources a private torrent forbids (BEP 27).
//!
//! Invariant: whoever brings addresses, or would tell others of a torrent, asks [`Origin::may_serve`] first; nowhere
//! else is it decided.
//!
//! Not here: peers that dial us, whose source cannot be known; that of several trackers a private torrent uses one
//! at a time ([`crate::proto::announce::tiers`], [`crate::proto::swarm`]).

/// Who named a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The user, by its address.
    User,
    /// The torrent itself: one of its web seeds (BEP 19).
    Torrent,
    /// A tracker that the torrent names.
    Tracker,
    /// A tracker that the user names and the torrent does not.
    ForeignTracker,
    /// The DHT (BEP 5).
    Dht,
    /// Another peer (BEP 11).
    Pex,
    /// The local network (BEP 14).
    Lsd,
}

/// How much the word of an [`Origin`] counts, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Anybody at all can bring such addresses, as many as he likes.
    Hearsay,
    /// Whoever runs the tracker answers for them.
    Tracker,
    /// It stays as long as the torrent does.
    Torrent,
    /// Whoever runs us wants it.
    User,
}

impl Origin {
    /// What a tracker with this URL is to a torrent with these. To one that names none, it is its own: whoever made
    /// it has told the user of the tracker by other means.
    pub fn of_tracker(url: &str, own: &[Vec<String>]) -> Self {
        let mut names = own.iter().flatten().peekable();
        let is_own = names.peek().is_none() || names.any(|name| name == url);
        if is_own { Self::Tracker } else { Self::ForeignTracker }
    }

    /// How much its word counts.
    pub const fn weight(self) -> Weight {
        match self {
            Self::User => Weight::User,
            Self::Torrent => Weight::Torrent,
            Self::Tracker | Self::ForeignTracker => Weight::Tracker,
            Self::Dht | Self::Pex | Self::Lsd => Weight::Hearsay,
        }
    }

    /// Whether the torrent may have peers from there, and be known there.
    pub const fn may_serve(self, private: bool) -> bool {
        match self {
            Self::User | Self::Torrent | Self::Tracker => true,
            Self::ForeignTracker | Self::Dht | Self::Pex | Self::Lsd => !private,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_torrent_has_peers_from_its_trackers_and_its_user_alone() {
        for (origin, private) in [
            (Origin::User, true),
            (Origin::Torrent, true),
            (Origin::Tracker, true),
            (Origin::ForeignTracker, false),
            (Origin::Dht, false),
            (Origin::Pex, false),
            (Origin::Lsd, false),
        ] {
            assert_eq!(origin.may_serve(true), private, "{origin:?}");
            assert!(origin.may_serve(false), "{origin:?}");
        }
    }

    #[test]
    fn a_tracker_is_the_torrents_own_when_it_names_it_or_none() {
        let own = [vec!["http://a/announce".to_owned()], vec!["udp://b:1".to_owned()]];
        for (url, own, expected) in [
            ("http://a/announce", &own[..], Origin::Tracker),
            ("udp://b:1", &own[..], Origin::Tracker),
            ("http://c/announce", &own[..], Origin::ForeignTracker),
            ("http://c/announce", &[], Origin::Tracker),
        ] {
            assert_eq!(Origin::of_tracker(url, own), expected, "{url}");
        }
    }
}
