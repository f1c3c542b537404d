//! Torrents that we make: read back, and compared with those that other programs make of the same data.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use btfs::cli::create::Create;
use btfs::cli::info::Info;
use btfs::engine::author::{DataError, hash, survey};
use btfs::proto::author::{
    AuthorError, Authored, Content, MAX_CHOSEN_PIECE_LEN, Plan, Terms, choose_piece_len,
};
use btfs::proto::geometry::{GeometryError, MAX_PIECES};
use btfs::proto::metainfo::{FileKind, Metainfo, MetainfoError};
use btfs::proto::units::FileIndex;
use clap::Parser;
use sha1::{Digest, Sha1};
use tempfile::TempDir;

/// Bytes that differ from place to place.
fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 + n / 251) as u8 ^ seed).collect()
}

/// A directory of files whose ends fall inside pieces, on their edges, and nowhere.
fn tree() -> (TempDir, PathBuf) {
    let home = TempDir::new().expect("a temporary directory");
    let top = home.path().join("top");
    for (seed, (path, length)) in [
        ("b.bin", 100_000),
        ("a/second", 16_384),
        ("a/first", 1),
        ("a b/ünïcödé 日本.txt", 40_000),
        ("a.txt", 0),
        ("z/deep/down/here", 70_001),
    ]
    .into_iter()
    .enumerate()
    {
        let at = top.join(path);
        fs::create_dir_all(at.parent().expect("below top")).expect("a directory");
        fs::write(at, content(seed as u8, length)).expect("a file");
    }
    (home, top)
}

#[track_caller]
fn make(path: &Path, piece_len: u32, terms: &Terms) -> Authored {
    let found = survey(path).expect("readable data");
    let plan = Plan::new(found.name, found.content, Some(piece_len)).expect("a legal torrent");
    let hashes = hash(&found.root, &plan, |_| ()).expect("readable data");
    plan.encode(&hashes, terms).expect("a legal torrent")
}

fn paths(torrent: &Metainfo) -> Vec<String> {
    torrent.files.iter().map(|f| f.path.join("/")).collect()
}

/// What another program prints; the tests need that program.
#[track_caller]
fn oracle(package: &str, command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| {
        panic!("{command:?} cannot run ({e}): install the Debian package {package}")
    });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed; it needs {package}: {errors}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Runs Python with libtorrent, whose binding lacks a name for one flag.
#[track_caller]
fn libtorrent(script: &str, arguments: &[&Path]) -> String {
    let mut command = Command::new("/usr/bin/python3");
    command
        .args(["-c", &format!("import sys, libtorrent as lt\nV1_ONLY = 64\n{script}")])
        .args(arguments);
    oracle("python3-libtorrent", &mut command)
}

#[test]
fn what_we_make_is_what_we_read() {
    let (_home, top) = tree();
    let terms = Terms {
        trackers: vec![
            vec!["http://a/announce".into(), "udp://b:1".into()],
            vec!["udp://c:2".into()],
        ],
        private: true,
        comment: Some("für alle".into()),
        created_by: Some("me".into()),
        created: Some(1_700_000_000),
    };
    let made = make(&top, 16_384, &terms);
    let read = Metainfo::parse(&made.bytes).expect("our own torrent");
    assert_eq!((read.name.as_str(), read.single_file, read.private), ("top", false, true));
    assert_eq!(
        paths(&read),
        ["a/first", "a/second", "a b/ünïcödé 日本.txt", "a.txt", "b.bin", "z/deep/down/here"]
    );
    assert_eq!(read.trackers, terms.trackers);
    assert_eq!(
        (read.comment, read.created_by, read.created),
        (terms.comment, terms.created_by, terms.created)
    );

    let whole: Vec<u8> = read
        .files
        .iter()
        .flat_map(|f| fs::read(top.join(f.path.join("/"))).expect("a file"))
        .collect();
    assert_eq!(read.geometry.total(), whole.len() as u64);
    assert_eq!(read.geometry.piece_count() as usize, whole.len().div_ceil(16_384));
    for (piece, bytes) in read.geometry.pieces().zip(whole.chunks(16_384)) {
        assert_eq!(
            made.metainfo.piece_hash(piece),
            <[u8; 20]>::from(Sha1::digest(bytes)),
            "{piece:?}"
        );
    }
}

/// Directories are ordered as BEP 52 wants it, element by element; mktorrent compares whole paths, so two names
/// that sort before a slash are taken away.
#[test]
fn the_same_info_hash_as_mktorrent() {
    let (home, top) = tree();
    fs::remove_dir_all(top.join("a b")).expect("ours");
    fs::remove_file(top.join("a.txt")).expect("ours");
    for (path, private) in [(top.clone(), false), (top.join("b.bin"), true)] {
        let at = home.path().join(format!("{private}.torrent"));
        let mut command = Command::new("mktorrent");
        command.args(["-l", "15", "-o"]).arg(&at).args(private.then_some("-p")).arg(&path);
        oracle("mktorrent", &mut command);
        let theirs = Metainfo::parse(&fs::read(at).expect("their torrent")).expect("legal");
        let ours = make(&path, 32_768, &Terms { private, ..Terms::default() }).metainfo;
        assert_eq!(ours.files, theirs.files);
        assert_eq!(ours.info_hash, theirs.info_hash, "{path:?}");
    }
}

#[test]
fn libtorrent_reads_ours_and_makes_the_same() {
    let (home, top) = tree();
    for path in [top.clone(), top.join("b.bin")] {
        let made = make(&path, 16_384, &Terms::default());
        let ours = home.path().join("ours.torrent");
        fs::write(&ours, &made.bytes).expect("a file");
        let script = "print(lt.torrent_info(sys.argv[1]).info_hashes().v1)";
        assert_eq!(libtorrent(script, &[&ours]), made.metainfo.info_hash.to_string());

        let script = "
info = lt.torrent_info(sys.argv[1])
maker = lt.create_torrent(info.files(), 16384, V1_ONLY)
lt.set_piece_hashes(maker, sys.argv[2])
print(lt.torrent_info(lt.bencode(maker.generate())).info_hashes().v1)";
        let above = path.parent().expect("below the root");
        assert_eq!(libtorrent(script, &[&ours, above]), made.metainfo.info_hash.to_string());
    }
}

#[test]
fn we_read_what_libtorrent_makes() {
    let (home, top) = tree();
    for (flags, has_v2) in [("V1_ONLY", false), ("0", true)] {
        let script = format!(
            "
import os
files = lt.file_storage()
lt.add_files(files, sys.argv[1])
maker = lt.create_torrent(files, 16384, {flags})
lt.set_piece_hashes(maker, os.path.dirname(sys.argv[1]))
open(sys.argv[2], 'wb').write(lt.bencode(maker.generate()))
print(lt.torrent_info(sys.argv[2]).info_hashes().v1)"
        );
        let at = home.path().join("theirs.torrent");
        let info_hash = libtorrent(&script, &[&top, &at]);
        let read = Metainfo::parse(&fs::read(&at).expect("their torrent")).expect("legal");
        assert_eq!(read.info_hash.to_string(), info_hash);
        assert_eq!(read.has_v2, has_v2);
        let padding = read.files.iter().filter(|f| f.kind == FileKind::Padding).count();
        assert_eq!(padding > 0, has_v2, "only hybrids need padding");
        let shown = read.files.iter().filter(|f| f.kind != FileKind::Padding).count();
        assert_eq!(shown, 6);
    }
}

#[test]
fn links_and_executables_are_kept() {
    let (home, top) = tree();
    fs::set_permissions(top.join("b.bin"), fs::Permissions::from_mode(0o755)).expect("our file");
    symlink("../b.bin", top.join("a/to b")).expect("a link");
    symlink("z/deep", top.join("to deep")).expect("a link");
    symlink("to deep", top.join("to link")).expect("a link");
    symlink("to deep/down", top.join("to through")).expect("a link");
    symlink(top.join("b.bin"), top.join("to top")).expect("a link");
    let made = make(&top, 16_384, &Terms::default());
    let at = home.path().join("links.torrent");
    fs::write(&at, &made.bytes).expect("a file");
    let script = "
info = lt.torrent_info(sys.argv[1])
print(info.info_hashes().v1)
files = info.files()
for i in range(files.num_files()):
    if files.file_flags(i) & lt.file_flags_t.flag_symlink:
        print(files.file_path(i), files.file_size(i), files.symlink(i), sep='|')
    if files.file_flags(i) & lt.file_flags_t.flag_executable:
        print(files.file_path(i), 'x', sep='|')";
    let theirs = libtorrent(script, &[&at]);
    let expected = format!("{}\ntop/a/to b|0|top/b.bin\ntop/b.bin|x\n", made.metainfo.info_hash);
    assert!(theirs.starts_with(&expected), "{theirs}");

    let made = made.metainfo;
    let kinds: Vec<(String, FileKind)> = made
        .files
        .iter()
        .map(|f| (f.path.join("/"), f.kind.clone()))
        .filter(|(_, kind)| *kind != FileKind::Regular { executable: false })
        .collect();
    let to =
        |target: &[&str]| FileKind::Symlink { target: target.iter().map(|&e| e.into()).collect() };
    assert_eq!(
        kinds,
        [
            ("a/to b".to_owned(), to(&["b.bin"])),
            ("b.bin".to_owned(), FileKind::Regular { executable: true }),
            ("to deep".to_owned(), to(&["z", "deep"])),
            ("to link".to_owned(), to(&["to deep"])),
            ("to through".to_owned(), to(&["z", "deep", "down"])),
            ("to top".to_owned(), to(&["b.bin"])),
        ]
    );
    fs::set_permissions(top.join("a/first"), fs::Permissions::from_mode(0o755)).expect("our file");
    let single = make(&top.join("a/first"), 16_384, &Terms::default()).metainfo;
    assert_eq!(single.files[0].kind, FileKind::Regular { executable: true });
}

#[test]
fn nothing_is_left_out_unsaid() {
    for (name, spoil, expected) in [
        ("out", "../../x", "does not lead to anything inside"),
        ("root", "/etc/passwd", "does not lead to anything inside"),
        ("astray", "nowhere", "does not lead to anything inside"),
    ] {
        let (_home, top) = tree();
        symlink(spoil, top.join("a").join(name)).expect("a link");
        let error = survey(&top).expect_err(name).to_string();
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
    for (name, path) in [("self", "."), ("empty", "hollow")] {
        let (_home, top) = tree();
        fs::create_dir(top.join("hollow")).expect("a directory");
        symlink(path, top.join(name)).expect("a link");
        let refused = survey(&top).map(|found| Plan::new(found.name, found.content, None).err());
        assert!(matches!(refused, Ok(Some(AuthorError::Link(at))) if at == name));
    }
    let (home, top) = tree();
    fs::create_dir_all(top.join("nothing/at all")).expect("a directory");
    let found = survey(&top).expect("readable data");
    assert_eq!(found.empty_directories, [found.root.join("nothing/at all")]);
    let _socket = std::os::unix::net::UnixListener::bind(top.join("socket")).expect("a socket");
    assert!(matches!(survey(&top), Err(DataError::Special(at)) if at.ends_with("socket")));
    assert!(matches!(survey(&home.path().join("missing")), Err(DataError::Io { .. })));
}

#[test]
fn odd_names_are_refused_before_anything_is_hashed() {
    for odd in ["a\u{202E}b", "a\nb", "a\\b", "_____padding_file_0", &"a".repeat(241)] {
        let (_home, top) = tree();
        fs::write(top.join(odd), "x").expect("a file");
        let found = survey(&top).expect("readable data");
        let plan = Plan::new(found.name, found.content, None);
        assert_eq!(plan.err(), Some(AuthorError::Name(odd.to_owned())));
    }
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let (_home, top) = tree();
    fs::write(top.join(OsStr::from_bytes(b"\xff")), "x").expect("a file");
    assert!(matches!(survey(&top), Err(DataError::NotText(_))));
}

#[test]
fn data_that_changes_is_named() {
    for length in [99_999, 100_001] {
        let (_home, top) = tree();
        let found = survey(&top).expect("readable data");
        let plan = Plan::new(found.name, found.content, None).expect("a legal torrent");
        fs::write(top.join("b.bin"), vec![0; length]).expect("our file");
        let error = hash(&found.root, &plan, |_| ()).expect_err("another length");
        assert!(matches!(&error, DataError::Changed(at) if at.ends_with("b.bin")), "{error}");
        fs::remove_file(top.join("b.bin")).expect("our file");
        let error = hash(&found.root, &plan, |_| ()).expect_err("a missing file");
        assert!(matches!(&error, DataError::Io { path, .. } if path.ends_with("b.bin")), "{error}");
    }
}

#[test]
fn progress_ends_at_the_total() {
    let (_home, top) = tree();
    let found = survey(&top).expect("readable data");
    let plan = Plan::new(found.name, found.content, Some(16_384)).expect("a legal torrent");
    let mut seen = vec![0];
    hash(&found.root, &plan, |done| seen.push(done)).expect("readable data");
    assert!(seen.is_sorted());
    assert_eq!(seen.len() as u32 - 1, plan.geometry().piece_count());
    assert_eq!(seen.last(), Some(&plan.geometry().total()));
}

#[test]
fn piece_lengths() {
    for (total, expected) in [
        (0, 16_384),
        (1, 16_384),
        (16_384 * 2000, 16_384),
        (16_384 * 2001, 32_768),
        (1 << 30, 1 << 20),
        (1 << 40, MAX_CHOSEN_PIECE_LEN),
        (u64::MAX, MAX_CHOSEN_PIECE_LEN),
    ] {
        assert_eq!(choose_piece_len(total), expected, "{total}");
    }
    let plan = |length, piece| {
        Plan::new("a".into(), Content::Single { length, executable: false }, piece).map(|_| ())
    };
    assert_eq!(plan(1, Some(8192)), Err(AuthorError::PieceLength(8192)));
    assert_eq!(plan(1, Some(24_576)), Err(AuthorError::PieceLength(24_576)));
    assert_eq!(plan(1, Some(1 << 28)), Ok(()));
    let content = Content::Single { length: 16_384 * 1_000_000, executable: false };
    let heavy = Plan::new("a".into(), content, Some(16_384)).expect("a legal layout");
    let refused = heavy.rehearse(&Terms::default());
    assert!(matches!(refused, Err(AuthorError::Unreadable(MetainfoError::TooLong(_)))));
    assert_eq!(plan(1, Some(1 << 29)), Err(GeometryError::PieceLength(1 << 29).into()));
    assert_eq!(plan(0, None), Err(GeometryError::Empty.into()));
    let most = u64::from(MAX_PIECES) * 16_384;
    assert_eq!(plan(most, Some(16_384)), Ok(()));
    let many = GeometryError::TooManyPieces(u64::from(MAX_PIECES) + 1);
    assert_eq!(plan(most + 1, Some(16_384)), Err(many.into()));
}

#[test]
fn runs_of_files() {
    let (_home, top) = tree();
    let found = survey(&top).expect("readable data");
    let plan = Plan::new(found.name, found.content, Some(16_384)).expect("a legal torrent");
    let runs = |range| plan.runs(range).collect::<Vec<_>>();
    assert_eq!(runs(0..1), [(FileIndex(0), 0..1)]);
    assert_eq!(runs(0..2), [(FileIndex(0), 0..1), (FileIndex(1), 0..1)]);
    assert_eq!(runs(16_385..16_386), [(FileIndex(2), 0..1)]);
    let empty_between = runs(56_384..56_386);
    assert_eq!(empty_between, [(FileIndex(2), 39_999..40_000), (FileIndex(4), 0..1)]);
    assert_eq!(runs(5..5), []);
}

/// The commands as the program offers them.
#[derive(Parser)]
enum Cli {
    Create(Create),
    Info(Info),
}

fn run(arguments: &[&str]) -> Result<(), String> {
    let cli = Cli::try_parse_from([&["btfs"], arguments].concat()).map_err(|e| e.to_string())?;
    match cli {
        Cli::Create(create) => create.run(),
        Cli::Info(info) => info.run(),
    }
    .map_err(|e| format!("{e:#}"))
}

#[test]
fn the_commands() {
    let (home, top) = tree();
    let out = home.path().join("out.torrent");
    let (top, out) = (top.to_str().expect("text"), out.to_str().expect("text"));
    let create =
        ["create", top, "-o", out, "--piece-size", "32KiB", "--tracker", "udp://a:1", "--no-date"];
    run(&[&create[..], &["--tracker", "http://b/announce", "--private", "--name", "other"]]
        .concat())
    .expect("a torrent");
    let torrent = Metainfo::parse(&fs::read(out).expect("a torrent")).expect("legal");
    assert_eq!((torrent.name.as_str(), torrent.private, torrent.created), ("other", true, None));
    assert_eq!(torrent.trackers, [vec!["udp://a:1"], vec!["http://b/announce"]]);
    assert_eq!(torrent.geometry.nominal_piece_len(), 32_768);
    assert!(run(&create).is_err_and(|e| e.contains("--force")));
    run(&[&create[..], &["--force"]].concat()).expect("overwritten");
    run(&["info", out]).expect("shown");
    run(&["info", out, "--json"]).expect("shown");
    assert_eq!(fs::read_dir(home.path()).expect("ours").count(), 2, "no temporary file is left");
}

#[test]
fn wrong_use_gets_a_clear_line() {
    let (home, top) = tree();
    let out = home.path().join("out.torrent");
    let (text, out) = (top.to_str().expect("text"), out.to_str().expect("text"));
    let garbage = top.join("b.bin");
    let garbage = garbage.to_str().expect("text");
    for (arguments, expected) in [
        (vec!["create", text, "-o", out, "--piece-size", "16383"], "not a power of two"),
        (vec!["create", text, "-o", out, "--piece-size", "8KiB"], "not a power of two"),
        (vec!["create", text, "-o", out, "--piece-size", "8x"], "--piece-size"),
        (vec!["create", text, "-o", out, "--tracker", "wss://a"], "udp://"),
        (vec!["create", text, "-o", out, "--format", "hybrid"], "--format v1"),
        (vec!["create", text, "-o", out, "--format", "v3"], "v3"),
        (vec!["create", text, "-o", out, "--name", "a/b"], "a/b"),
        (vec!["create", "/nonexistent/x", "-o", out], "/nonexistent/x"),
        (vec!["create", text, "-o", "/nonexistent/x"], "cannot write /nonexistent/x"),
        (vec!["info", "/nonexistent/x"], "/nonexistent/x: cannot find the torrent"),
        (vec!["info", garbage], "not a torrent"),
        (vec!["info", text], "is a directory"),
        (vec!["info", "magnet:?xt=urn:btih:00"], "neither 40 hexadecimal digits nor 32"),
    ] {
        let error = run(&arguments).expect_err("wrong use");
        assert!(error.contains(expected), "{arguments:?}: {error}");
        assert!(!Path::new(out).exists(), "{arguments:?}");
    }
}
