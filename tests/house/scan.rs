//! A source file as the law sees it: its module path and every path of names that its code mentions.
//!
//! Invariant: comments, strings and the unit tests at a file's end mention nothing.
//! Not here: which mention is allowed (`law`).

/// One file below `src/`.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// As a failure names it, such as `src/proto/units.rs`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
    /// `src/proto/units.rs` is `[proto, units]`; `src/lib.rs` and `src/main.rs` are the root, `[]`.
    pub(crate) module: Vec<String>,
    /// Every path in the code outside tests, as it is written.
    pub(crate) mentions: Vec<Mention>,
}

/// A path such as `std::fs::File`; each leaf of a `use` tree is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) line: usize,
    pub(crate) names: Vec<String>,
}

/// A name or one character of punctuation, with its line.
type Token<'a> = (usize, &'a str);

impl SourceFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = without_tests(&blank_out(text)).to_owned();
        let stem = path.trim_start_matches("src/").trim_end_matches(".rs");
        let root = matches!(stem, "lib" | "main");
        let module = if root { Vec::new() } else { stem.split('/').map(str::to_owned).collect() };
        Self { path: path.into(), text: text.into(), module, mentions: mentions(&tokens(&code)) }
    }
}

fn without_tests(code: &str) -> &str {
    code.find("#[cfg(test)]").map_or(code, |at| &code[..at])
}

/// Comments, strings and characters become blanks; lines stay where they are.
fn blank_out(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped_len(rest);
        let (taken, visible) =
            if skipped > 0 { (skipped, false) } else { (first.len_utf8(), true) };
        out.extend(rest[..taken].chars().map(|c| if visible || c == '\n' { c } else { ' ' }));
        rest = &rest[taken..];
    }
    out
}

/// Bytes of the comment or literal that `rest` begins with, or 0.
fn skipped_len(rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |at| at + 2);
    }
    if let Some(hashes) = raw_string_hashes(rest) {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = hashes + 2;
        return rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len());
    }
    if rest.starts_with('"') {
        return quoted_len(rest, '"').unwrap_or(rest.len());
    }
    if rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'') && rest.starts_with('\'') {
        return quoted_len(rest, '\'').unwrap_or(rest.len());
    }
    0
}

fn raw_string_hashes(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.bytes().take_while(|&b| b == b'#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

fn quoted_len(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    None
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            let len = if word > 0 { word } else { first.len_utf8() };
            found.push((number + 1, &rest[..len]));
            rest = rest[len..].trim_start();
        }
    }
    found
}

fn mentions(tokens: &[Token<'_>]) -> Vec<Mention> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_use = tokens[at].1 == "use";
        at += usize::from(is_use);
        at = path(tokens, at, &[], is_use, &mut found).max(at + 1);
    }
    found
}

/// Reads one path, and with `tree` the branches of a `use`; returns where the next token is.
fn path(
    tokens: &[Token<'_>],
    start: usize,
    above: &[String],
    tree: bool,
    found: &mut Vec<Mention>,
) -> usize {
    let mut names = above.to_vec();
    let mut at = start;
    let mut line = tokens.get(at).map_or(0, |token| token.0);
    while let Some(&(here, word)) = tokens.get(at) {
        if tree && word == "{" {
            return branches(tokens, at + 1, &names, found);
        }
        if !word.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '*') {
            break;
        }
        line = here;
        names.push(word.to_owned());
        at += 1;
        if !(separator(tokens, at)) {
            break;
        }
        at += 2;
    }
    if names.len() > above.len() && (tree || names.len() > 1) {
        found.push(Mention { line, names });
    }
    at
}

fn branches(
    tokens: &[Token<'_>],
    start: usize,
    above: &[String],
    found: &mut Vec<Mention>,
) -> usize {
    let mut at = start;
    while let Some(&(_, word)) = tokens.get(at) {
        match word {
            "}" => return at + 1,
            "," => at += 1,
            "as" => at += 2,
            _ => at = path(tokens, at, above, true, found).max(at + 1),
        }
    }
    at
}

fn separator(tokens: &[Token<'_>], at: usize) -> bool {
    let colon = |at: usize| tokens.get(at).is_some_and(|token| token.1 == ":");
    colon(at) && colon(at + 1)
}

#[test]
fn a_use_tree_is_all_its_leaves() {
    let file =
        SourceFile::new("src/a.rs", "use std::{fmt, io::{self, Read as R}};\nfn f() { a::b(c); }");
    let names: Vec<String> =
        file.mentions.iter().map(|m| format!("{}:{}", m.line, m.names.join("::"))).collect();
    assert_eq!(names, ["1:std::fmt", "1:std::io::self", "1:std::io::Read", "2:a::b"]);
}
