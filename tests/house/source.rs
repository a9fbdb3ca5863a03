//! Rust source as the house rules look at it: comments and literals blanked out, test items told apart from product code.

use std::fs;
use std::path::Path;

/// One file of `src/`.
pub struct Source {
    /// Relative to the crate, as in `src/model/name.rs`.
    pub path: String,
    /// The lines with comments, strings and character literals blanked out.
    pub lines: Vec<String>,
    /// Of each line: whether it belongs to an item under `#[cfg(test)]`.
    pub is_test: Vec<bool>,
}

impl Source {
    /// Reads `text` as the file at `path`.
    pub fn parse(path: &str, text: &str) -> Self {
        let blanked = blank(text);
        let lines: Vec<String> = blanked.lines().map(str::to_owned).collect();
        let is_test = test_lines(&blanked, lines.len());
        Self { path: path.to_owned(), lines, is_test }
    }

    /// The module path below the crate, as in `["model", "name"]`; empty for `lib.rs` and `main.rs`.
    pub fn module(&self) -> Vec<&str> {
        let path = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<&str> = path.split('/').collect();
        if matches!(parts.last(), Some(&"mod")) || matches!(parts[..], ["lib"] | ["main"]) {
            parts.pop();
        }
        parts
    }

    /// Numbered lines of product code.
    pub fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        self.all().zip(&self.is_test).filter(|(_, test)| !**test).map(|(line, _)| line)
    }

    /// All numbered lines.
    pub fn all(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, line.as_str()))
    }

    /// The modules whose file is under `#[cfg(test)]`, as in `mod planted;`.
    fn test_modules(&self) -> Vec<String> {
        let tests = self.all().zip(&self.is_test).filter(|(_, test)| **test).map(|((_, line), _)| line.trim());
        let names = tests.filter_map(|line| line.strip_suffix(';')?.split_once("mod ").map(|(_, name)| name.trim()));
        let module = self.module().join("/");
        names.map(|name| format!("src/{module}/{name}").replace("//", "/")).collect()
    }
}

/// Every Rust file below `folder` of the crate at `root`, in order of their paths; files that are test modules as a whole count as test lines.
pub fn read_tree(root: &Path, folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths);
    paths.sort();
    let mut sources: Vec<Source> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            Source::parse(path.strip_prefix(&format!("{}/", root.display())).unwrap_or(path), &text)
        })
        .collect();
    let tests: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs");
        if tests.iter().any(|test| stem == test || stem.starts_with(&format!("{test}/"))) {
            source.is_test.fill(true);
        }
    }
    sources
}

fn collect(folder: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            paths.push(path.to_str().expect("source paths are UTF-8").to_owned());
        }
    }
}

/// `text` with comments and the insides of literals turned into spaces; every line end stays.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at` itself where none begins.
fn skip(chars: &[char], at: usize) -> usize {
    let from = |pattern: &str| pattern.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    if from("//") {
        return (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len());
    }
    if from("/*") {
        return skip_block_comment(chars, at);
    }
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    if !in_word && (from("r\"") || from("r#") || from("br\"") || from("br#")) {
        return skip_raw(chars, at);
    }
    match chars[at] {
        '"' => skip_quoted(chars, at, '"'),
        // A lifetime has no closing quote after one character.
        '\'' if chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'') => skip_quoted(chars, at, '\''),
        _ => at,
    }
}

fn skip_block_comment(chars: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut i = at;
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                i += 1;
                continue;
            }
        }
        i += 2;
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn skip_raw(chars: &[char], at: usize) -> usize {
    let hashes_from = at + if chars[at] == 'b' { 2 } else { 1 };
    let hashes = chars[hashes_from..].iter().take_while(|c| **c == '#').count();
    let open = hashes_from + hashes;
    if chars.get(open) != Some(&'"') {
        return at;
    }
    let closes = |i: &usize| chars[*i] == '"' && (1..=hashes).all(|k| chars.get(i + k) == Some(&'#'));
    (open + 1..chars.len()).find(closes).map_or(chars.len(), |i| i + 1 + hashes)
}

fn skip_quoted(chars: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// Of each line of blanked text: whether an item under `#[cfg(test)]` covers it.
fn test_lines(blanked: &str, count: usize) -> Vec<bool> {
    let mut is_test = vec![false; count];
    for (start, _) in blanked.match_indices("#[cfg(test)]") {
        let mut depth = 0;
        let mut end = blanked.len();
        for (offset, c) in blanked[start..].char_indices() {
            match c {
                '{' | '(' | '[' => depth += 1,
                '}' | ')' | ']' => depth -= 1,
                _ => {}
            }
            if depth == 0 && (c == ';' || c == '}') {
                end = start + offset;
                break;
            }
        }
        let line_of = |at: usize| blanked[..at].matches('\n').count();
        let (first, last) = (line_of(start), line_of(end));
        is_test.iter_mut().skip(first).take(last + 1 - first).for_each(|line| *line = true);
    }
    is_test
}
