//! Magnet links, info-hashes and URLs as a user mounts them: there at once, filled when peers have told, kept.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use btfs::proto::metainfo::Metainfo;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::program::{Program, until};
use super::stage::{Mounted, Stage, attribute, nowhere};

/// A torrent, its data, and links to it.
struct Sample {
    stage: Stage,
    data: PathBuf,
    torrent: PathBuf,
    hash: String,
}

impl Sample {
    /// A directory of two files.
    fn several() -> Self {
        let stage = Stage::new();
        stage.file("own name/a.bin", 3_000_017);
        stage.file("own name/deep/b.bin", 70_001);
        let data = stage.path("own name");
        Self::of(stage, data, &[])
    }

    fn of(stage: Stage, data: PathBuf, args: &[&str]) -> Self {
        let torrent = stage.torrent(&data, args);
        let hash = Metainfo::parse(&fs::read(&torrent).unwrap()).unwrap().info_hash.to_string();
        Self { stage, data, torrent, hash }
    }

    fn link(&self, more: &str) -> String {
        format!("magnet:?xt=urn:btih:{}{more}", self.hash)
    }

    /// `btfs mount` of sources that are no files.
    fn mount(&self, sources: &[&str], args: &[&str]) -> Mounted {
        let point = self.stage.dir("mnt");
        let sources: Vec<_> = sources.iter().map(Path::new).collect();
        let mut command = self.stage.mount_command(&sources, &point, &[]);
        Mounted::start(command.arg("--foreground").args(args), &point)
    }

    /// A seed that dials the mount.
    fn seed_to(&self, addr: SocketAddr) -> Program {
        let mut command = Program::btfs();
        command.arg("seed").arg(&self.torrent).arg(&self.data).args(["--listen", "127.0.0.1:0"]);
        Program::start(command.args(["--peer", &addr.to_string()]))
    }

    #[track_caller]
    fn assert_same(&self, shown: &Path) {
        Program::done(Command::new("diff").arg("-r").arg(&self.data).arg(shown));
    }
}

/// A mount of this link that takes connections there.
fn mount_at(sample: &Sample, addr: SocketAddr, link: &str) -> Mounted {
    let point = sample.stage.dir("mnt");
    let mut command = Program::btfs();
    command.arg("mount").arg(link).arg(&point).args(["--foreground", "--listen"]);
    command.arg(addr.to_string()).arg("--cache-dir").arg(sample.stage.path("cache"));
    Mounted::start(&mut command, &point)
}

fn why(path: &Path) -> String {
    Program::done(Program::btfs().arg("why").arg(path))
}

fn told(path: &Path) -> Value {
    let all = Program::done(Program::btfs().args(["why", "--json"]).arg(path));
    serde_json::from_str::<Value>(&all).unwrap()["torrents"][0].clone()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_link_is_a_directory_at_once_fills_when_it_is_known_and_is_kept() {
    let sample = Sample::several();
    let link = sample.link("&dn=A+link%27s+name");
    let addr = nowhere();
    let mounted = mount_at(&sample, addr, &link);
    let top = mounted.path("A link's name");
    assert_eq!(names(&mounted.point), ["A link's name"]);
    // Nothing hangs, and nothing of it is remembered by the kernel.
    for _ in 0..2 {
        assert_eq!(names(&top), [""; 0]);
        assert!(!top.join("a.bin").exists());
        for tool in ["ls -laR", "find", "stat", "du -a", "getfattr -d"] {
            let mut words = tool.split(' ');
            Program::done(Command::new(words.next().unwrap()).args(words).arg(&top));
        }
    }
    assert_eq!(attribute(&top, "user.btfs.infohash"), sample.hash);
    assert_eq!(attribute(&top, "user.btfs.metadata"), "awaited");
    assert_eq!(attribute(&top, "user.btfs.progress"), "0.0");
    assert_eq!(attribute(&mounted.point, "user.btfs.progress"), "0.0");
    let said = why(&top);
    for part in ["A link's name: what is in it is not known yet", "0 connected", "trackers: none"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(told(&top)["metadata"]["told_by"], 0);
    let ino = fs::metadata(&top).unwrap().ino();

    let seed = sample.seed_to(addr);
    until("the directory fills", || names(&top) == ["a.bin", "deep"]);
    sample.assert_same(&top);
    assert_eq!(fs::metadata(&top).unwrap().ino(), ino);
    assert_eq!(fs::metadata(&top).unwrap().nlink(), 3);
    assert_eq!(attribute(&top, "user.btfs.metadata"), "here");
    until("all is here", || attribute(&top, "user.btfs.progress") == "100.0");
    assert!(told(&top)["metadata"].is_null());
    mounted.unmount();
    drop(seed);

    for (link, name) in [(link, "A link's name"), (sample.hash.clone(), sample.hash.as_str())] {
        let mounted = sample.mount(&[&link], &["--offline"]);
        assert_eq!(names(&mounted.point), [name]);
        sample.assert_same(&mounted.path(name));
        mounted.unmount();
    }
}

#[test]
fn one_file_is_in_a_directory_of_the_links_name_and_names_that_clash_get_the_hash() {
    let stage = Stage::new();
    let data = stage.file("film.bin", 300_017);
    let sample = Sample::of(stage, data, &[]);
    let seed = sample.stage.seed(&sample.torrent, &sample.data);
    let link = sample.link(&format!("&dn=same&x.pe={}", seed.addr));
    let unknown = "0123456789abcdef0123456789abcdef01234567";
    let other = format!("magnet:?xt=urn:btih:{unknown}&dn=same");
    let mounted = sample.mount(&[&other, &link, &link], &[]);
    let clash = format!("same [{}]", &sample.hash[..8]);
    assert_eq!(names(&mounted.point), ["same".to_owned(), clash.clone()]);
    let file = mounted.path(&clash).join("film.bin");
    until("the file is there", || file.exists());
    Program::done(Command::new("cmp").arg(&file).arg(&sample.data));
    // The other still waits, and nothing else does.
    assert_eq!(names(&mounted.path("same")), [""; 0]);
    assert_eq!(attribute(&mounted.path("same"), "user.btfs.metadata"), "awaited");
    assert_ne!(attribute(&mounted.point, "user.btfs.progress"), "100.0");
    mounted.unmount();
    // A signal ends a mount that still waits as well.
    let mut waiting = sample.mount(&[unknown], &[]);
    waiting.program.signal(Signal::SIGTERM);
    assert!(waiting.program.ended().success());
}

#[test]
fn a_tracker_of_the_link_and_peers_by_option_tell_get_and_info() {
    let sample = Sample::several();
    let (_tracker, url) = sample.stage.tracker();
    let seed = sample.stage.seed(&sample.torrent, &sample.data);
    let mut announced = Program::btfs();
    announced.arg("seed").arg(&sample.torrent).arg(&sample.data);
    announced.args(["--listen", "127.0.0.1:0", "-vv", "--tracker", &url]);
    let announced = Program::start(&mut announced);
    announced.await_line("tracker answered");
    let btfs = |args: &[&str]| {
        let mut command = Program::btfs();
        command.args(args).args(["--listen", "127.0.0.1:0"]);
        command.env("XDG_CACHE_HOME", sample.stage.path("xdg"));
        command
    };
    let escaped = url.replace(':', "%3A").replace('/', "%2F");
    let link = sample.link(&format!("&tr={escaped}"));
    let said = Program::done(&mut btfs(&["info", "--json", &link]));
    let json = &said[said.find('{').unwrap()..];
    let info: Value = serde_json::from_str(json).unwrap();
    assert_eq!((&info["name"], &info["trackers"][0][0]), (&"own name".into(), &url.into()));
    let peer = seed.addr.to_string();
    let to = sample.stage.path("got");
    let base32 = data_encoding::BASE32_NOPAD
        .encode(&data_encoding::HEXLOWER.decode(sample.hash.as_bytes()).unwrap());
    Program::done(&mut btfs(&["get", &base32, to.to_str().unwrap(), "--peer", &peer]));
    sample.assert_same(&to.join("own name"));
}

#[test]
fn what_will_not_come_is_said_and_can_be_interrupted() {
    let stage = Stage::new();
    let data = stage.file("x.bin", 30_000);
    let sample =
        Sample::of(stage, data, &["--private", "--tracker", "http://127.0.0.1:1/announce"]);
    let point = sample.stage.dir("mnt");
    let mut command = sample.stage.mount_command(&[Path::new(&sample.hash)], &point, &[]);
    let (status, said) = Program::outcome(command.arg("--offline"));
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("is not known here; mount it once without --offline"), "{said}");
    // Nobody gives the description of a private torrent.
    let seed = sample.stage.seed(&sample.torrent, &sample.data);
    let mounted = sample.mount(&[&sample.link(&format!("&x.pe={}", seed.addr))], &[]);
    until("the seed is met", || told(&mounted.point)["peers"]["connected"] == 1);
    assert!(why(&mounted.point).contains("no connected peer has its metadata"));
    mounted.unmount();
    for command in ["info", "get"] {
        let mut waiting = Program::btfs();
        waiting.args([command, &sample.hash]).args(["--listen", "127.0.0.1:0"]);
        waiting.env("XDG_CACHE_HOME", sample.stage.path("xdg"));
        if command == "get" {
            waiting.arg(sample.stage.path("got"));
        }
        let mut waiting = Program::start(&mut waiting);
        waiting.await_line("asking peers what is in it");
        waiting.signal(Signal::SIGINT);
        assert_eq!(waiting.ended().code(), Some(1), "{command}");
        assert!(waiting.said().contains("interrupted before it was known"), "{}", waiting.said());
    }
}

/// A web server that answers each request with what `answer` says of its path, and ends with the test.
fn web_server(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = vec![0; 4096];
            let len = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..len]).into_owned();
            // Whoever has heard enough may close.
            let _ = stream.write_all(&answer(request.split(' ').nth(1).unwrap_or("")));
        }
    });
    addr
}

fn found(body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn moved(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

#[test]
fn a_url_is_fetched_within_limits_and_leads_nowhere_it_may_not() {
    let sample = Sample::several();
    let torrent = fs::read(&sample.torrent).unwrap();
    let addr = web_server(move |path| match path {
        "/x.torrent" => found(&torrent),
        "/endless" => [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'd'; 17 << 20]].concat(),
        "/page" => found(b"<html>no torrent</html>"),
        "/loop" => moved("/announce/loop"),
        "/announce/loop" => moved("/announce/loop"),
        "/inside" => moved("/x.torrent"),
        "/cloud" => moved("http://169.254.169.254/announce"),
        "/file" => moved("file:///etc/passwd"),
        _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
    });
    let url = |path: &str| format!("http://{addr}/{path}");
    let seed = sample.stage.seed(&sample.torrent, &sample.data);
    let peer = seed.addr.to_string();
    let mounted = sample.mount(&[&url("x.torrent")], &["--peer", &peer]);
    sample.assert_same(&mounted.path("own name"));
    mounted.unmount();
    let point = sample.stage.dir("mnt");
    for (path, args, expected) in [
        ("none", &[][..], "HTTP status 404"),
        ("page", &[], "is a web page, no .torrent file"),
        ("endless", &[], "longer than 16 MiB"),
        ("loop", &[], "too many redirects"),
        ("inside", &[], "refused to follow the URL to 127.0.0.1"),
        ("cloud", &[], "refused to follow the URL to 169.254.169.254"),
        ("file", &[], "refused to follow the URL to file:"),
        ("x.torrent", &["--offline"], "nothing is fetched (--offline)"),
    ] {
        let url = url(path);
        let mut command = sample.stage.mount_command(&[Path::new(&url)], &point, &[]);
        let (status, said) = Program::outcome(command.args(args));
        assert_eq!(status.code(), Some(1), "{path}: {said}");
        let one_line = said.lines().count() == 1 && said.contains(&url);
        assert!(one_line && said.contains(expected), "{path}: {said}");
    }
}
