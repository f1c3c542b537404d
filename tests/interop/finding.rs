//! Data found without a tracker: by peers that tell of others, by calls on the local network, on a web server.

use std::path::Path;

use crate::lan::{Lan, host, peer_at, tool};
use crate::peers::{Client, Finder, Habit, nginx};
use crate::stage::{
    BTFS, Sample, assert_ends_well, mount, mount_calling, seed, seed_calling, told, write_data,
};

/// Our mount, which wants nothing itself, knows a leech and a seed that do not know each other. Only the leech exchanges
/// peers: two of libtorrent would dial each other at once, and give both connections up.
#[track_caller]
fn assert_learns_from_us(client: Client) {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let dir = lan.empty("leech");
    let _leech = client.start_finding(&[Finder::Pex], &lan, host(2), &sample.torrent, &dir);
    let seed = seed(&lan, host(3), &sample, &["--no-pex"]);
    let peers = [2, 3].map(|n| peer_at(host(n)).to_string());
    let more = ["--no-fill", "--peer", &peers[0], "--peer", &peers[1]];
    let (mount, _) = mount(&lan, host(1), &sample, &more);
    lan.until_same(&format!("{client:?} has all"), &dir.join(sample.name), &sample.hashes);
    assert_ends_well(mount);
    assert_ends_well(seed);
}

#[test]
fn libtorrent_learns_of_peers_from_us() {
    assert_learns_from_us(Client::Libtorrent);
}

#[test]
fn transmission_learns_of_peers_from_us() {
    assert_learns_from_us(Client::Transmission);
}

/// Our mount knows a leech, and hears from it of a seed that exchanges no peers itself and has too narrow a line to end
/// it soon. Transmission would tell only after 90 s.
#[test]
fn we_learn_of_peers_from_libtorrent() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let dir = lan.empty("leech");
    let client = Client::Libtorrent;
    let _leech = client.start_finding(&[Finder::Pex], &lan, host(2), &sample.torrent, &dir);
    let peer = peer_at(host(2)).to_string();
    let narrow = ["--no-pex", "--max-up", "16KiB/s", "--peer", &peer];
    let seed = seed(&lan, host(3), &sample, &narrow);
    let (mount, top) = mount(&lan, host(1), &sample, &["--no-fill", "--peer", &peer]);
    lan.until("both are met", || told(&lan, &top)["peers"]["connected"] == 2);
    assert_ends_well(mount);
    assert_ends_well(seed);
}

/// Behind routers: whoever calls hosts 1 and 2 gets in only if they have called there themselves.
fn put_behind_routers(lan: &Lan) {
    let rules = "add table inet routers; \
                 add chain inet routers in { type filter hook input priority 0; }; \
                 add rule inet routers in ct state established accept; \
                 add rule inet routers in ip daddr { 10.9.0.1, 10.9.0.2 } drop";
    lan.run(&tool("nft", "nftables"), &[rules]);
}

/// Our seed and our mount, each behind a router, know a third on host 3, who has told the seed of somebody else just
/// now, and so does not tell it of the mount for a minute. The mount's dial fails; over uTP the next one does not.
#[track_caller]
fn assert_brought_together(lan: &Lan, sample: &Sample) {
    put_behind_routers(lan);
    let third = peer_at(host(3)).to_string();
    let somebody = ["--no-fill", "--no-pex", "--peer", &third];
    let (somebody, top) = mount(lan, host(4), sample, &somebody);
    lan.until("somebody is there", || told(lan, &top)["peers"]["connected"] == 1);
    let seed = seed(lan, host(1), sample, &["--peer", &third]);
    lan.until("the seed is told of somebody", || told(lan, &top)["peers"]["connected"] == 2);
    let (mount, top) = mount(lan, host(2), sample, &["--no-fill", "--peer", &third]);
    lan.until("all are met", || told(lan, &top)["peers"]["connected"] == 3);
    lan.until_same("the mount is read", &top, &sample.hashes);
    let in_vain = format!("dial failed addr={}", peer_at(host(1)));
    assert_eq!(mount.said().matches(&in_vain).count(), 1, "{}", mount.said());
    for running in [mount, somebody, seed] {
        assert_ends_well(running);
    }
}

#[test]
fn we_bring_two_behind_routers_together() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let (third, _) = mount(&lan, host(3), &sample, &["--no-fill"]);
    assert_brought_together(&lan, &sample);
    assert_ends_well(third);
}

/// libtorrent looks for a peer where his stream comes from, which is where he listens over uTP alone; and it leaves our
/// seed when it has all itself.
#[test]
fn libtorrent_brings_two_behind_routers_together() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let habits = [Habit::Finds(Finder::Pex), Habit::Utp, Habit::Slow];
    let dir = lan.empty("third");
    let _third = Client::Libtorrent.start_with(&habits, &lan, host(3), &sample.torrent, &dir);
    assert_brought_together(&lan, &sample);
}

/// A leech on the local network finds our seed, or is found by it, with nothing to go by but calls.
#[track_caller]
fn assert_called_by(client: Client) {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    let dir = lan.empty("leech");
    let seed = seed_calling(&lan, host(1), &sample, &["--no-dht"]);
    let _leech = client.start_finding(&[Finder::Lsd], &lan, host(2), &sample.torrent, &dir);
    lan.until_same(&format!("{client:?} has all"), &dir.join(sample.name), &sample.hashes);
    assert_ends_well(seed);
}

#[test]
fn libtorrent_and_we_meet_on_the_local_network() {
    assert_called_by(Client::Libtorrent);
}

#[test]
fn transmission_and_we_meet_on_the_local_network() {
    assert_called_by(Client::Transmission);
}

#[test]
fn seed_and_mount_meet_on_the_local_network() {
    let lan = Lan::new();
    let sample = Sample::new(&lan, &[]);
    // Nothing that is sent to a group over IPv6 comes back by the loopback interface.
    let script = "ip link add near type veth peer name far && ip link set near up && ip link set far up && \
                  ip addr add fd0a::3/64 dev near nodad && ip addr add fd0a::4/64 dev near nodad";
    lan.run(Path::new("sh"), &["-c", script]);
    let v6 = ["fd0a::3", "fd0a::4"].map(|ip| ip.parse().unwrap());
    for (seed_at, mount_at) in [(host(1), host(2)), (v6[0], v6[1])] {
        let seed = seed_calling(&lan, seed_at, &sample, &["--no-dht"]);
        let (mount, top) = mount_calling(&lan, mount_at, &sample, &["--no-dht"]);
        lan.until_same("the mount is read", &top, &sample.hashes);
        assert_ends_well(mount);
        assert_ends_well(seed);
    }
}

/// A torrent that names nginx as its web seed is read and downloaded with nobody else there, and beside a peer.
#[test]
fn a_web_seed_by_nginx_is_read() {
    let lan = Lan::new();
    let data = write_data(&lan);
    let (web, url) = nginx(&lan, host(9), &lan.path("data"));
    let torrent = lan.path("web.torrent");
    let args = ["-w", &url, "-l", "16", "-o", torrent.to_str().unwrap(), data.to_str().unwrap()];
    lan.run(&tool("mktorrent", "mktorrent"), &args);
    let hashes = lan.hashes(&data);
    let sample = Sample { name: "sample", dir: lan.path("data"), torrent, hashes };

    let (alone, top) = mount(&lan, host(1), &sample, &[]);
    lan.until_same("read from the web seed", &top, &sample.hashes);
    assert_ends_well(alone);
    let dir = lan.empty("got");
    let listen = peer_at(host(2)).to_string();
    let get = ["get", sample.torrent.to_str().unwrap(), dir.to_str().unwrap(), "--listen", &listen];
    lan.run(Path::new(BTFS), &get);
    lan.until_same("got from the web seed", &dir.join(sample.name), &sample.hashes);

    let _seed = Client::Libtorrent.start(&lan, host(3), &sample.torrent, &sample.dir);
    let peer = peer_at(host(3)).to_string();
    let (beside, top) = mount(&lan, host(4), &sample, &["--peer", &peer]);
    lan.until_same("read from both", &top, &sample.hashes);
    assert_ends_well(beside);
    let asked = web.said();
    assert!(asked.lines().all(|line| !line.contains("\" 404 ")), "{asked}");
}
