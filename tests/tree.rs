//! The mount's tree: names, numbers, order, and what is hidden.

mod support;

use btfs::proto::metainfo::Metainfo;
use btfs::proto::tree::{AddError, EntryKind, Ino, Node, NodeKind, Tree};
use btfs::proto::units::{FileIndex, TorrentId};
use proptest::prelude::*;
use support::content::{Item, file, link, padding, single, torrent};
use support::mount::tree;

/// The tree as lines: two spaces for each level, `/` after directories, `*` executable, `->` links.
fn picture(tree: &Tree) -> String {
    fn draw(tree: &Tree, ino: Ino, depth: usize, lines: &mut Vec<String>) {
        for entry in tree.entries(ino).expect("a directory").iter() {
            let node = tree.node(entry.ino).expect("an entry names a node");
            let what = match &node.kind {
                NodeKind::Directory { .. } => "/".to_owned(),
                NodeKind::File { length, executable: true, .. } => format!("* {length}"),
                NodeKind::File { length, .. } => format!(" {length}"),
                NodeKind::Symlink { target } => format!(" -> {target}"),
            };
            lines.push(format!("{}{}{what}", "  ".repeat(depth), entry.name));
            if entry.kind == EntryKind::Directory {
                draw(tree, entry.ino, depth + 1, lines);
            }
        }
    }
    let mut lines = Vec::new();
    draw(tree, Ino::ROOT, 0, &mut lines);
    lines.join("\n")
}

/// The node at a path.
fn find<'a>(tree: &'a Tree, path: &str) -> Option<&'a Node> {
    let root = tree.node(Ino::ROOT);
    path.split('/').fold(root, |node, name| tree.lookup(node?.ino, name))
}

#[test]
fn a_torrent_becomes_directories_files_and_links() {
    let mut run = file("bin/run", 5);
    run.attr = "x";
    let items = [
        file("z", 1),
        file("a/b/deep", 10),
        padding(100),
        file("a/empty", 0),
        run,
        link("a/b/to", "z"),
        file("a/b/Deep", 3),
    ];
    let expected = "\
top/
  a/
    b/
      Deep 3
      deep 10
      to -> ../../z
    empty 0
  bin/
    run* 5
  z 1";
    assert_eq!(picture(&tree(&[torrent("top", &items)])), expected);
}

#[test]
fn a_single_file_stands_in_the_root() {
    let tree = tree(&[single("film.mkv", 70_000), torrent("b", &[file("x", 1)])]);
    assert_eq!(picture(&tree), "b/\n  x 1\nfilm.mkv 70000");
    let at = find(&tree, "film.mkv").and_then(Node::file).expect("a file");
    assert_eq!((at.torrent, at.file), (TorrentId(0), FileIndex(0)));
}

#[test]
fn the_second_of_a_name_gets_a_part_of_its_hash() {
    let torrents = [
        single("a.mkv", 1),
        single("a.mkv", 2),
        torrent("dir", &[file("x", 1)]),
        torrent("dir", &[file("x", 2)]),
    ];
    let part = |meta: &Metainfo| meta.info_hash.to_string()[..8].to_owned();
    let expected = format!(
        "a [{}].mkv 2\na.mkv 1\ndir/\n  x 1\ndir [{}]/\n  x 2",
        part(&torrents[1]),
        part(&torrents[3])
    );
    assert_eq!(picture(&tree(&torrents)), expected);
}

#[test]
fn a_torrent_is_added_once_and_taken_out_whole() {
    let torrents = [torrent("a", &[file("d/x", 1)]), torrent("b", &[file("d/x", 2)])];
    let mut tree = tree(&torrents[..1]);
    let before = (picture(&tree), tree.len());
    assert_eq!(
        tree.add(TorrentId(9), &torrents[0]),
        Err(AddError::Present(torrents[0].info_hash)),
        "the same torrent again"
    );
    let top = tree.add(TorrentId(1), &torrents[1]).expect("another torrent");
    assert_eq!(tree.node(top).map(|node| node.parent), Some(Ino::ROOT));
    assert_eq!(tree.len(), before.1 + 3);
    assert_eq!(tree.remove(TorrentId(1)).as_deref(), Some("b"));
    assert_eq!((picture(&tree), tree.len()), before);
    assert_eq!(tree.remove(TorrentId(1)), None);
    assert!(tree.node(top).is_none());
}

#[test]
fn a_clash_leaves_the_tree_as_it_was() {
    let mut bad = torrent("bad", &[file("a", 1), file("b", 2)]);
    bad.files[1].path = vec!["a".to_owned(), "inside".to_owned()];
    let mut tree = Tree::new();
    assert_eq!(tree.add(TorrentId(0), &bad), Err(AddError::Clash("a/inside".to_owned())));
    assert_eq!((tree.len(), tree.is_empty()), (1, true));
}

#[test]
fn numbers_are_the_same_in_every_mount() {
    let (a, b) = (torrent("a", &[file("d/x", 1), file("d/y", 2)]), single("b", 3));
    let (one, two) = (tree(&[a.clone(), b.clone()]), tree(&[b, a.clone()]));
    for path in ["a", "a/d", "a/d/x", "a/d/y", "b"] {
        let number = |tree| find(tree, path).map(|node| node.ino);
        assert_eq!(number(&one), number(&two), "{path}");
    }
    let expected = u64::from_be_bytes(*a.info_hash.0.first_chunk().expect("eight bytes")) >> 1;
    assert_eq!(find(&one, "a").map(|node| node.ino), Some(Ino(expected)));
}

#[test]
fn a_hundred_thousand_files_are_all_found() {
    let items: Vec<Item> =
        (0..100_000).map(|n| file(format!("{}/{}/{n}", n % 7, n % 311), 1)).collect();
    let tree = tree(&[torrent("many", &items)]);
    assert_eq!(tree.len(), 100_000 + 7 * 311 + 7 + 2);
    for n in (0..100_000).step_by(997) {
        let path = format!("many/{}/{}/{n}", n % 7, n % 311);
        let found = find(&tree, &path).and_then(Node::file).map(|at| at.file);
        assert_eq!(found, Some(FileIndex(n)), "{path}");
    }
}

/// Paths over a small alphabet, so that directories are shared.
fn paths() -> impl Strategy<Value = Vec<String>> {
    let path = prop::collection::vec("[abé]{1,2}", 1..4).prop_map(|path| path.join("/"));
    prop::collection::btree_set(path, 1..40).prop_map(|all| {
        let inner = |path: &String| all.iter().any(|other| other.starts_with(&format!("{path}/")));
        all.iter().filter(|path| !inner(path)).cloned().collect()
    })
}

proptest! {
    /// Against the list of paths itself: each is found, numbers and names are unique, links are counted.
    #[test]
    fn the_tree_is_its_list_of_paths(paths in paths()) {
        let items: Vec<Item> = paths.iter().map(|path| file(path.clone(), 1)).collect();
        let meta = torrent("top", &items);
        let tree = tree(std::slice::from_ref(&meta));
        let mut numbers = std::collections::BTreeSet::new();
        let mut waiting = vec![Ino::ROOT];
        while let Some(ino) = waiting.pop() {
            prop_assert!(numbers.insert(ino), "{ino:?} twice");
            let NodeKind::Directory { entries, subdirectories } = &tree.node(ino).expect("there").kind
            else { continue };
            prop_assert!(entries.windows(2).all(|pair| pair[0].name < pair[1].name));
            prop_assert!(ino == Ino::ROOT || !entries.is_empty());
            let inner = entries.iter().filter(|e| e.kind == EntryKind::Directory).count();
            prop_assert_eq!(*subdirectories as usize, inner);
            for entry in entries.iter() {
                prop_assert_eq!(tree.node(entry.ino).map(|node| node.parent), Some(ino));
                waiting.push(entry.ino);
            }
        }
        prop_assert_eq!(numbers.len(), tree.len());
        for (index, stored) in meta.files.iter().enumerate() {
            let path = format!("top/{}", stored.path.join("/"));
            let found = find(&tree, &path).and_then(Node::file).map(|at| at.file.slot());
            prop_assert_eq!(found, Some(index), "{}", path);
        }
    }
}

#[test]
fn an_expected_torrent_is_a_directory_under_its_name_and_number_for_good() {
    let one = single("film.mkv", 7);
    let items = [file("a", 1), file("d/b", 2)];
    let many = torrent("top", &items);
    for (name, meta, expected) in
        [("one file", one, "link/\n  film.mkv 7"), ("several", many, "link/\n  a 1\n  d/\n    b 2")]
    {
        let mut tree = Tree::new();
        let id = TorrentId(4);
        let top = tree.expect(id, meta.info_hash, "link").expect("no twin");
        assert_eq!(picture(&tree), "link/", "{name}");
        assert!(tree.is_awaited(find(&tree, "link").expect("a directory")), "{name}");
        assert_eq!(tree.add(TorrentId(5), &meta), Err(AddError::Present(meta.info_hash)), "{name}");
        tree.fill(id, &meta).expect("no clash");
        assert_eq!(picture(&tree), expected, "{name}");
        let node = find(&tree, "link").expect("a directory");
        assert_eq!((node.ino, tree.is_awaited(node)), (top, false), "{name}");
        assert_eq!(tree.remove(id).as_deref(), Some("link"), "{name}");
        assert_eq!(tree.len(), 1, "{name}");
    }
}
