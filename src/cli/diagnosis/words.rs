//! A diagnosis in words: what waits first, then who could end the wait.

use std::fmt::Write as _;
use std::time::Duration;

use bytesize::ByteSize;

use super::{Dht, Diagnosis, Filling, Metadata, Peers, Piece, State, Tracker, Who};

impl Diagnosis {
    pub(super) fn words(&self) -> String {
        if let Some(metadata) = &self.metadata {
            return self.sought_words(metadata);
        }
        let mut lines = vec![self.head()];
        for piece in &self.pieces {
            lines.push(piece.words());
            lines.extend(piece.holders.iter().map(Who::words));
            let named = piece.holders.len() as u32;
            if piece.have > named {
                lines.push(format!("  and {} more", piece.have - named));
            }
        }
        if self.reads_waiting > 0 && self.pieces.is_empty() {
            lines.push("what they wait for was asked for just now".to_owned());
        }
        if self.offline {
            lines.push("nothing is fetched: the mount is offline".to_owned());
        } else if self.bytes_here < self.bytes {
            lines.push(self.peers_words());
            lines.extend(self.tracker_words());
            lines.extend(self.dht.map(Dht::words));
            lines.push(format!("fill: {}", self.fill.words()));
        }
        if let Some(trouble) = &self.store_trouble {
            lines.push(format!("store: takes no pieces: {trouble}"));
        }
        lines.join("\n") + "\n"
    }

    fn sought_words(&self, metadata: &Metadata) -> String {
        let Peers { connected, dialling, known, .. } = self.peers;
        let mut lines = vec![format!("{}: {}", self.torrent, metadata.words())];
        lines
            .push(format!("peers: {connected} connected, {dialling} being dialled, {known} known"));
        lines.extend(self.tracker_words());
        lines.extend(self.dht.map(Dht::words));
        lines.join("\n") + "\n"
    }

    fn tracker_words(&self) -> Vec<String> {
        if self.trackers.is_empty() {
            return vec!["trackers: none".to_owned()];
        }
        self.trackers.iter().map(Tracker::words).collect()
    }

    fn head(&self) -> String {
        if self.bytes_here == self.bytes {
            return format!("{}: all of it is here ({})", self.torrent, size(self.bytes));
        }
        let (here, bytes) = (size(self.bytes_here), size(self.bytes));
        let longest = time(self.longest_wait_ms);
        let wait = match (self.reads_waiting, self.open) {
            (0, 0) => "nobody reads".to_owned(),
            (0, open) => format!("open handles: {open}, waiting reads: none"),
            (reads, _) => format!("waiting reads: {reads}, the longest for {longest}"),
        };
        format!("{}: {here} of {bytes} are here; {wait}", self.torrent)
    }

    fn peers_words(&self) -> String {
        let Peers { connected, dialling, known, serving, choking, snubbed } = self.peers;
        let (down, up) = (size(self.downloaded), size(self.uploaded));
        format!(
            "peers: {connected} connected ({serving} serve us, {choking} choke us, {snubbed} left us waiting), \
             {dialling} being dialled, {known} known; {down} came, {up} went"
        )
    }
}

impl Dht {
    fn words(self) -> String {
        let nodes = self.nodes;
        match self.peers {
            Some(peers) => format!("dht: {nodes} nodes, the last lookup found {peers} peers"),
            None => format!("dht: {nodes} nodes, no lookup has ended yet"),
        }
    }
}

impl Metadata {
    fn words(&self) -> String {
        if let Some(trouble) = &self.trouble {
            return format!("it cannot be shown: {trouble}");
        }
        let mut text = "what is in it is not known yet; ".to_owned();
        match (self.bytes, self.told_by) {
            (None, _) => text.push_str("no connected peer has its metadata"),
            (Some(bytes), peers) => {
                let (here, blocks) = (self.blocks_here, self.blocks);
                let who = if peers == 1 {
                    "1 peer has it".to_owned()
                } else {
                    format!("{peers} peers have it")
                };
                let size = size(bytes.into());
                let _ = write!(
                    text,
                    "{here} of {blocks} blocks of its metadata ({size}) are here, {who}"
                );
            }
        }
        if self.times_false > 0 {
            let _ = write!(text, "; {} times it was false", self.times_false);
        }
        text
    }
}

impl Piece {
    fn words(&self) -> String {
        let kind = if self.awaited { "is waited for" } else { "is next" };
        let state = match self.state {
            State::Unproven => "an earlier run left it, and it is to be hashed".to_owned(),
            State::Whole => "all of it came and is being hashed".to_owned(),
            State::Fetching => format!(
                "{} of {} blocks here, {} asked for",
                self.blocks_here.unwrap_or(0),
                self.blocks.unwrap_or(0),
                self.blocks_asked.unwrap_or(0)
            ),
        };
        let mut text = format!("piece {} {kind}: {state}; ", self.index);
        if self.have == 0 {
            text.push_str("no connected peer has it");
            return text;
        }
        let peers = if self.have == 1 {
            "1 peer has it".to_owned()
        } else {
            format!("{} peers have it", self.have)
        };
        let _ = write!(text, "{peers}");
        for (count, words) in [
            (self.serving, "serving us"),
            (self.choking, "choking us"),
            (self.snubbed, "silent"),
            (self.refusing, "refusing it"),
        ] {
            if count > 0 {
                let _ = write!(text, ", {count} {words}");
            }
        }
        text
    }
}

impl Who {
    fn words(&self) -> String {
        let standing = match self.standing {
            "serving" => "serves us",
            "choking" => "chokes us",
            "snubbed" => "was asked and is silent",
            _ => "refuses it",
        };
        let asked = match (self.asked, self.asked_ms_ago) {
            (0, _) => "not asked".to_owned(),
            (blocks, ago) => format!("{blocks} blocks asked for, the first {} ago", time(ago)),
        };
        format!("  {} {standing}; {asked}", self.addr)
    }
}

impl Tracker {
    fn words(&self) -> String {
        let ago = || time(self.ms_ago);
        let mut text = match self.state {
            "answered" => {
                format!(
                    "tracker {}: answered {} ago with {} peers",
                    self.url,
                    ago(),
                    self.peers.unwrap_or(0)
                )
            }
            "failed" => format!("tracker {}: failed {} ago", self.url, ago()),
            _ => format!("tracker {}: has not answered yet", self.url),
        };
        if let Some(said) = &self.said {
            let _ = write!(text, ": {said}");
        }
        match self.next_in_ms {
            Some(next) => {
                let _ = write!(text, "; asked again in {}", time(Some(next)));
            }
            None => text.push_str("; being asked"),
        }
        text
    }
}

impl Filling {
    const fn words(self) -> &'static str {
        match self {
            Self::Complete => "done",
            Self::Off => "off, nothing is fetched that nobody reads",
            Self::On => "on",
            Self::NoRoom => "waits, the cache is full",
            Self::Halted => "waits, the store takes no pieces",
        }
    }
}

/// Rounded to what people read.
fn time(millis: Option<u64>) -> String {
    let millis = millis.unwrap_or(0);
    let rounded = if millis < 1000 { millis } else { millis / 1000 * 1000 };
    humantime::format_duration(Duration::from_millis(rounded)).to_string()
}

fn size(bytes: u64) -> impl std::fmt::Display {
    ByteSize(bytes).display().iec()
}
