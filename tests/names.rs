//! Names that strangers chose: legal, unique, stable, and cheap to make.

use std::collections::{HashMap, HashSet};

use btfs::proto::names::{
    MAX_DEPTH, MAX_DUPLICATES, MAX_ELEMENT_LEN, NameError, Names, element, printable, top,
};
use proptest::prelude::*;

/// Names for paths written with slashes, written the same way.
fn assign(paths: &[&str]) -> Vec<String> {
    let raw: Vec<Vec<&str>> = paths.iter().map(|path| path.split('/').collect()).collect();
    let names = Names::assign(&raw).expect("paths within the limits");
    names.into_paths().iter().map(|path| path.join("/")).collect()
}

#[test]
fn elements() {
    for (name, raw, expected) in [
        ("ordinary", b"a.txt".as_slice(), "a.txt"),
        ("several scripts", "Ωδή 日本 שלום हिन्दी".as_bytes(), "Ωδή 日本 שלום हिन्दी"),
        (
            "joiners that spelling needs",
            "می\u{200C}خواهم 👩\u{200D}💻".as_bytes(),
            "می\u{200C}خواهم 👩\u{200D}💻",
        ),
        ("spaces and dots at the ends", b" a. ".as_slice(), " a. "),
        ("hidden", b".profile", ".profile"),
        ("three dots", b"...", "..."),
        ("empty", b"", "_"),
        ("this directory", b".", "_"),
        ("the one above", b"..", "_"),
        ("dots behind formatting", ".\u{200B}.".as_bytes(), "_"),
        ("slash", b"../../etc/passwd", ".._.._etc_passwd"),
        ("backslash", b"..\\x", ".._x"),
        ("zero", b"a\0b", "a_b"),
        ("escape sequence", b"\x1b[2Jx", "_[2Jx"),
        ("line ends", "a\nb\rc\u{2028}d\u{2029}e\u{85}f".as_bytes(), "a_b_c_d_e_f"),
        ("delete", b"a\x7fb", "a_b"),
        ("override", "a\u{202E}gpj.exe".as_bytes(), "agpj.exe"),
        (
            "isolates and marks",
            "\u{2066}a\u{2069}\u{200E}\u{200F}\u{61C}\u{FEFF}b".as_bytes(),
            "ab",
        ),
        ("invalid UTF-8", b"caf\xe9.txt", "caf_.txt"),
        ("overlong slash", b"a\xc0\xafb", "a__b"),
        ("surrogate", b"a\xed\xa0\x80b", "a___b"),
        ("cut character", b"a\xe6\x97", "a_"),
    ] {
        assert_eq!(element(raw), expected, "{name}");
    }
}

#[test]
fn a_torrents_own_name_may_be_nothing() {
    for raw in ["", ".", "..", "\u{202E}", "\u{200B}."] {
        assert_eq!(top(raw.as_bytes()), None, "{raw:?}");
    }
    assert_eq!(top(b"a/b").as_deref(), Some("a_b"));
}

#[test]
fn long_elements_keep_their_extension() {
    let most = MAX_ELEMENT_LEN;
    for (name, raw, expected) in [
        ("one below", "a".repeat(most - 1), "a".repeat(most - 1)),
        ("at the limit", "a".repeat(most), "a".repeat(most)),
        ("one above", "a".repeat(most + 1), "a".repeat(most)),
        ("with extension", "a".repeat(300) + ".flac", "a".repeat(most - 5) + ".flac"),
        ("ten characters", "a".repeat(300) + ".0123456789", "a".repeat(most - 11) + ".0123456789"),
        ("eleven are none", "a".repeat(300) + ".01234567890", "a".repeat(most)),
        ("between characters", "é".repeat(200) + ".x", "é".repeat(119) + ".x"),
    ] {
        assert_eq!(element(raw.as_bytes()), expected, "{name}");
    }
}

#[test]
fn clashes() {
    for (name, paths, expected) in [
        ("none", vec!["a", "d/a", "e/a", "A"], vec!["a", "d/a", "e/a", "A"]),
        (
            "the first keeps its name",
            vec!["a.txt", "a.txt", "a.txt"],
            vec!["a.txt", "a.1.txt", "a.2.txt"],
        ),
        ("no extension", vec!["a", "a"], vec!["a", "a.1"]),
        ("a dot file", vec![".a", ".a"], vec![".a", ".a.1"]),
        ("honest names stay", vec!["a", "a", "a.1"], vec!["a", "a.2", "a.1"]),
        ("a directory wins", vec!["a", "a/b", "a/b/c"], vec!["a.1", "a/b.1", "a/b/c"]),
        ("made alike", vec!["a?\u{202E}", "a?", "x\\y", "x_y"], vec!["a?", "a?.1", "x_y", "x_y.1"]),
        ("directories made alike are one", vec!["d\t/a", "d_/a"], vec!["d_/a", "d_/a.1"]),
        ("nothing but dots", vec!["../../a", "_/./a", "a"], vec!["_/_/a", "_/_/a.1", "a"]),
    ] {
        assert_eq!(assign(&paths), expected, "{name}");
    }
}

#[test]
fn a_number_fits_where_the_name_is_full() {
    let full = "a".repeat(MAX_ELEMENT_LEN - 4) + ".mkv";
    let [_, second] = assign(&[&full, &full]).try_into().expect("two names");
    assert_eq!(second, "a".repeat(MAX_ELEMENT_LEN - 6) + ".1.mkv");
}

#[test]
fn limits() {
    let deep = |n: usize| vec![vec!["a"; n]];
    assert!(Names::assign(&deep(MAX_DEPTH)).is_ok());
    assert_eq!(Names::assign(&deep(MAX_DEPTH + 1)).err(), Some(NameError::TooDeep(0)));
    assert_eq!(Names::assign(&[vec!["a"], vec![]]).err(), Some(NameError::EmptyPath(1)));
    let same = |n: usize| vec![["a"]; n + 1];
    assert!(Names::assign(&same(MAX_DUPLICATES)).is_ok());
    let refused = Names::assign(&same(MAX_DUPLICATES + 1)).err();
    assert_eq!(refused, Some(NameError::TooManyDuplicates));
}

#[test]
fn what_is_there_can_be_asked() {
    let names = Names::assign(&[vec!["d", "a"], vec!["b"]]).expect("legal paths");
    for (path, there) in [
        (vec![], true),
        (vec!["b"], true),
        (vec!["d"], true),
        (vec!["d", "a"], true),
        (vec!["a"], false),
        (vec!["b", "a"], false),
        (vec!["d", "a", "x"], false),
    ] {
        assert_eq!(names.contains(&path), there, "{path:?}");
    }
}

#[test]
fn text_for_a_terminal() {
    assert_eq!(printable("a\u{1b}]0;x\u{7}\u{202E}/b\n"), "a_]0;x_/b_");
}

/// The number of map look-ups is what could grow with the square; 100,000 files that fight for one name with
/// 500 late ones would need 50 million if each late one counted from 1.
#[test]
fn a_hundred_thousand_hostile_names() {
    let taken = (1..=100_000).map(|n| format!("a.{n}"));
    let late = (0..=MAX_DUPLICATES).map(|_| "a".to_owned());
    let raw: Vec<[String; 1]> = taken.chain(late).map(|name| [name]).collect();
    let paths = Names::assign(&raw).expect("500 duplicates are allowed").into_paths();
    assert_eq!(paths.last(), Some(&vec!["a.100500".to_owned()]));
    assert_eq!(paths.iter().collect::<HashSet<_>>().len(), raw.len());
}

/// Elements from few letters, so that they clash, and any bytes, so that they are odd.
fn raw_element() -> impl Strategy<Value = Vec<u8>> {
    let odd = prop::sample::select(vec![
        "",
        ".",
        "..",
        "a",
        "b",
        "a.1",
        "a.2",
        "A",
        "a\u{202E}",
        "\u{200B}",
        "a/",
        "_",
        "\t",
        "a.b",
        "a.1.b",
    ]);
    let long = (200..300_usize).prop_map(|n| "é".repeat(n).into_bytes());
    prop_oneof![
        6 => odd.prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..5),
        1 => long,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn names_are_legal_unique_and_stable(
        raw in prop::collection::vec(prop::collection::vec(raw_element(), 1..4), 0..60)
    ) {
        let names = Names::assign(&raw).expect("few enough");
        let again = Names::assign(&raw).expect("few enough").into_paths();
        for index in 0..raw.len() {
            prop_assert!(names.contains(names.path(index)));
        }
        let paths = names.into_paths();
        prop_assert_eq!(&paths, &again);
        prop_assert_eq!(paths.len(), raw.len());
        for (path, raw) in paths.iter().zip(&raw) {
            prop_assert_eq!(path.len(), raw.len());
            for (element, raw) in path.iter().zip(raw) {
                let legal = (1..=MAX_ELEMENT_LEN).contains(&element.len())
                    && element != "." && element != ".."
                    && !element.chars().any(|c| c == '/' || c == '\\' || c.is_control() || c == '\u{202E}');
                prop_assert!(legal, "{:?} from {:?}", element, raw);
            }
        }
        let unique: HashSet<&Vec<String>> = paths.iter().collect();
        prop_assert_eq!(unique.len(), paths.len());
        for path in &paths {
            for end in 1..path.len() {
                prop_assert!(!unique.contains(&path[..end].to_vec()), "{:?} runs through a file", path);
            }
        }
    }

    #[test]
    fn a_name_that_needs_no_change_is_kept(
        raw in prop::collection::hash_set("[a-z]{1,3}", 1..40)
    ) {
        let raw: Vec<[String; 1]> = raw.into_iter().map(|name| [name]).collect();
        let paths = Names::assign(&raw).expect("legal names").into_paths();
        let kept: HashMap<_, _> = raw.iter().zip(&paths).collect();
        prop_assert!(kept.iter().all(|(before, after)| before.as_slice() == after.as_slice()));
    }

    #[test]
    fn cleaning_twice_is_cleaning_once(raw in prop::collection::vec(any::<u8>(), 0..400)) {
        let once = element(&raw);
        prop_assert_eq!(element(once.as_bytes()), once);
    }
}
