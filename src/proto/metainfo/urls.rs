//! Where a torrent says that peers and data are to be found.
//!
//! Invariant: bounded lists of URLs with a known scheme and a host, free of spaces and control characters; one bad
//! entry spoils no other.
//!
//! Not here: whether an address may be contacted (the engine's trackers decide when they resolve it).

use std::collections::HashSet;

use serde::Deserialize;
use serde_bytes::ByteBuf;

use super::super::bencode::Dict;

/// Most trackers that we keep of one torrent.
pub const MAX_TRACKERS: usize = 64;

/// Most web seeds that we keep of one torrent.
pub const MAX_WEB_SEEDS: usize = 64;

/// Most DHT nodes that we keep of one torrent.
pub const MAX_NODES: usize = 64;

/// Longest URL that we keep, in bytes.
const MAX_URL_LEN: usize = 2048;

/// Longest host name (RFC 1035).
const MAX_HOST_LEN: usize = 253;

/// BEP 12: the tiers where there are any, else the one tracker of BEP 3.
pub(super) fn trackers(dict: &Dict<'_>) -> Vec<Vec<String>> {
    let tiers: Vec<Vec<ByteBuf>> = dict.read("announce-list").ok().flatten().unwrap_or_default();
    let tiers = legal_tiers(&tiers);
    if !tiers.is_empty() {
        return tiers;
    }
    let announce = dict.string("announce").map(|raw| vec![ByteBuf::from(raw)]);
    legal_tiers(&Vec::from_iter(announce))
}

/// The URL as we keep it, if it can be a tracker's.
pub fn tracker_url(raw: &[u8]) -> Option<String> {
    legal_url(raw, &["http://", "https://", "udp://"])
}

/// The URL as we keep it, if it can be a web seed's.
pub fn web_seed_url(raw: &[u8]) -> Option<String> {
    legal_url(raw, &["http://", "https://"])
}

fn legal_tiers(tiers: &[Vec<ByteBuf>]) -> Vec<Vec<String>> {
    let mut seen = HashSet::new();
    let mut kept: Vec<Vec<String>> = Vec::new();
    for tier in tiers {
        let urls = tier.iter().filter_map(|raw| tracker_url(raw));
        let fresh: Vec<String> =
            urls.filter(|url| seen.len() < MAX_TRACKERS && seen.insert(url.clone())).collect();
        if !fresh.is_empty() {
            kept.push(fresh);
        }
    }
    kept
}

/// BEP 19: a list of URLs, or a single one.
pub(super) fn web_seeds(dict: &Dict<'_>) -> Vec<String> {
    let single = dict.string("url-list").map(|raw| vec![ByteBuf::from(raw)]);
    let list = single.or_else(|| dict.read("url-list").ok().flatten()).unwrap_or_default();
    list.iter().filter_map(|raw| web_seed_url(raw)).take(MAX_WEB_SEEDS).collect()
}

/// BEP 5: pairs of host and port.
pub(super) fn nodes(dict: &Dict<'_>) -> Vec<(String, u16)> {
    #[derive(Deserialize)]
    struct Node(ByteBuf, i64);

    let listed: Vec<Node> = dict.read("nodes").ok().flatten().unwrap_or_default();
    let legal = |Node(host, port): &Node| {
        let host = legal_text(host, MAX_HOST_LEN)?;
        let port = u16::try_from(*port).ok().filter(|&port| port > 0)?;
        Some((host, port))
    };
    listed.iter().filter_map(legal).take(MAX_NODES).collect()
}

fn legal_url(raw: &[u8], schemes: &[&str]) -> Option<String> {
    let url = legal_text(raw, MAX_URL_LEN)?;
    let host = schemes.iter().find_map(|scheme| {
        let start = url.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &url[scheme.len()..])
    })?;
    let has_host = !host.starts_with(['/', ':', '?', '#']) && !host.is_empty();
    has_host.then_some(url)
}

/// Trimmed text without anything that could end a line or a word.
fn legal_text(raw: &[u8], most: usize) -> Option<String> {
    let text = std::str::from_utf8(raw).ok()?.trim();
    let legal = (1..=most).contains(&text.len())
        && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    legal.then(|| text.to_owned())
}
