//! The house rules of ARCHITECTURE.md, enforced by reading `src/`. Each rule first proves that it bites on a bad sample.

mod house;

use house::source::Source;
use house::source::read_tree;
use std::path::PathBuf;

/// A breach of a rule, as `file:line: what is wrong`.
type Offence = String;
type Rule = fn(&[Source]) -> Vec<Offence>;

/// Holds the rule against samples that break it and samples that keep it, then against the crate's own source.
fn enforce(rule: Rule, bad: &[(&str, &str)], good: &[(&str, &str)]) {
    for (path, text) in bad {
        assert!(!rule(&[Source::parse(path, text)]).is_empty(), "the rule does not bite on {path}:\n{text}");
    }
    for (path, text) in good {
        let found = rule(&[Source::parse(path, text)]);
        assert!(found.is_empty(), "the rule bites where it must not, on {path}:\n{text}\n{}", found.join("\n"));
    }
    let found = rule(&read_tree(&crate_root(), "src"));
    assert!(found.is_empty(), "the house rule is broken:\n{}", found.join("\n"));
}

fn crate_root() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `pattern` stands in `line` as whole words.
fn word_at(line: &str, pattern: &str) -> Option<usize> {
    line.match_indices(pattern).map(|(at, _)| at).find(|at| {
        let before = line[..*at].chars().next_back();
        let after = line[at + pattern.len()..].chars().next();
        let open = pattern.starts_with(is_word) && before.is_some_and(is_word);
        let close = pattern.ends_with(is_word) && after.is_some_and(is_word);
        !open && !close
    })
}

/// The floor of a module path; `None` for the crate's top, which only declares the rooms.
fn floor(module: &[&str]) -> Option<u8> {
    Some(match module {
        ["model", ..] => 0,
        ["wire", ..] => 1,
        ["merge", "replica" | "sequencer", ..] => 2,
        ["merge", room, ..] if room.starts_with(char::is_lowercase) => 1,
        ["merge", ..] => 2,
        ["fs" | "net" | "store" | "admin", ..] => 3,
        ["client" | "hub", ..] => 4,
        ["cli", ..] => 5,
        _ => return None,
    })
}

/// Every path of this crate that a line names, as module paths from the top: `crate::a::b`, `syncfs::a::b`, `super::super::b`.
fn paths_in(source: &Source, line: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for token in line.split(|c: char| !is_word(c) && c != ':') {
        let mut parts = token.split("::").filter(|part| !part.is_empty()).peekable();
        let mut base: Vec<String> = match parts.peek() {
            Some(&"crate") => Vec::new(),
            Some(&"syncfs") if source.path == "src/main.rs" => Vec::new(),
            Some(&"super") => source.module().iter().map(|part| (*part).to_owned()).collect(),
            _ => continue,
        };
        for part in parts {
            match part {
                "crate" | "syncfs" | "self" => {}
                "super" => drop(base.pop()),
                name => base.push(name.to_owned()),
            }
        }
        found.push(base);
    }
    found
}

fn floors(sources: &[Source]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for source in sources {
        let module = source.module();
        let is_main = source.path == "src/main.rs";
        let floor_here = if is_main { Some(5) } else { floor(&module) };
        let Some(here) = floor_here else {
            if !module.is_empty() {
                offences.push(format!("{}:1: the room {} has no floor", source.path, module[0]));
            }
            continue;
        };
        for (number, line) in source.product() {
            for path in paths_in(source, line) {
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                let Some(there) = floor(&path) else { continue };
                let sideways = here == 3 && there == 3 && path[0] != module[0];
                if there > here || sideways {
                    let path = path.join("::");
                    offences.push(format!("{}:{number}: floor {here} must not know {path} of floor {there}", source.path));
                }
            }
        }
    }
    offences
}

/// A lower floor knows nothing of a higher one, and the hands of floor 3 know nothing of each other.
#[test]
fn floors_depend_downwards_only() {
    let bad = [
        ("src/model/a.rs", "use crate::wire::Hello;"),
        ("src/wire/a.rs", "use crate::merge::replica::Base;"),
        ("src/merge/text/mod.rs", "use super::sequencer::Sequencer;"),
        ("src/merge/text/a.rs", "fn f() { crate::store::open() }"),
        ("src/fs/a.rs", "use crate::net::Endpoint;"),
        ("src/store/deep/a.rs", "fn f(k: crate::admin::Key) {}"),
        ("src/net/a.rs", "use crate::client::Client;"),
        ("src/hub/a.rs", "use crate::cli::Failure;"),
        ("src/hub/a.rs", "pub(in crate::cli) fn f() {}"),
        ("src/basement/a.rs", ""),
    ];
    let good = [
        ("src/model/a.rs", "// crate::wire is above\nuse super::Name;"),
        ("src/merge/replica/a.rs", "use super::state::Base;\nuse super::super::text::merge;\nuse crate::wire::Hello;"),
        ("src/fs/a.rs", "use crate::merge::replica::Base;\n#[cfg(test)]\nmod tests { use crate::net::X; }"),
        ("src/client/a.rs", "use crate::net::Endpoint;\nuse crate::hub::Hub;"),
        ("src/main.rs", "fn main() { syncfs::cli::main() }"),
        ("src/lib.rs", "pub mod cli;"),
    ];
    enforce(floors, &bad, &good);
}

/// What has an effect, or a result that differs from run to run.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::os::unix::fs",
    "std::os::unix::net",
    "std::os::fd",
    "std::time::*",
    "SystemTime",
    "Instant",
    "HashMap",
    "HashSet",
    "RandomState",
    "stdin",
    "stdout",
    "stderr",
    "print!",
    "println!",
    "eprint!",
    "eprintln!",
    "rand::",
    "getrandom",
    "tokio",
    "quinn",
    "quinn_proto",
    "redb",
    "fuser",
    "inotify",
    "socket2",
    "rustix",
    "libc",
];

fn purity(sources: &[Source]) -> Vec<Offence> {
    let pure = sources.iter().filter(|source| floor(&source.module()).is_some_and(|floor| floor <= 2));
    let lines = pure.flat_map(|source| source.product().map(move |line| (source, line)));
    lines
        .flat_map(|(source, (number, line))| {
            let named = IMPURE.iter().filter(move |word| word_at(line, word).is_some());
            named.map(move |word| format!("{}:{number}: {word} on a pure floor", source.path))
        })
        .collect()
}

/// Floors 0 to 2 decide; they hold no file, socket, clock, randomness, thread or hash-map order.
#[test]
fn pure_floors_are_pure() {
    let bad = [
        ("src/model/a.rs", "use std::fs;"),
        ("src/wire/a.rs", "fn f() { std::net::UdpSocket::bind(x); }"),
        ("src/merge/order.rs", "use std::time::Instant;"),
        ("src/merge/text/a.rs", "use std::collections::HashMap;"),
        ("src/merge/replica/a.rs", "fn f() { tokio::spawn(x); }"),
        ("src/merge/sequencer/a.rs", "let x: u64 = rand::random();"),
        ("src/merge/mod.rs", "fn f() { println!(); }"),
    ];
    let good = [
        (
            "src/model/a.rs",
            "use std::time::Duration;\nuse std::collections::BTreeMap;\n/// Not a HashMap.\nconst X: &str = \"tokio\";",
        ),
        ("src/model/b.rs", "fn operand() {}\n#[cfg(test)]\nmod tests { use std::fs; }"),
        ("src/store/a.rs", "use std::fs;"),
    ];
    enforce(purity, &bad, &good);
}

/// The one room that may name a crate.
const BEHIND_ONE_FILE: &[(&str, &str)] = &[("bincode", "src/model/codec.rs"), ("rustls", "src/net/tls.rs")];

fn one_door(sources: &[Source]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for (word, home) in BEHIND_ONE_FILE {
        for source in sources.iter().filter(|source| source.path != *home) {
            let lines = source.all().filter(|(_, line)| word_at(line, word).is_some());
            offences.extend(lines.map(|(number, _)| format!("{}:{number}: only {home} names {word}", source.path)));
        }
    }
    offences
}

/// An unmaintained codec and a TLS library about to change its names are each known to one file.
#[test]
fn bincode_and_rustls_are_known_to_one_file_each() {
    let bad = [
        ("src/store/a.rs", "#[derive(bincode::Encode)] struct X;"),
        ("src/net/endpoint.rs", "use rustls::ServerConfig;"),
        ("src/net/a.rs", "use quinn::rustls::Error;"),
    ];
    let good = [("src/net/tls.rs", "use rustls::ServerConfig;"), ("src/net/a.rs", "// rustls is in tls.rs\nuse rustls_free::X;")];
    enforce(one_door, &bad, &good);
}

fn flat_uses(sources: &[Source]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for source in sources {
        for (number, line) in source.all() {
            let start = line.trim_start();
            let visible =
                start.strip_prefix("pub").map(|rest| match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
                    Some((_, rest)) => rest,
                    None => rest,
                });
            let is_use = visible.unwrap_or(start).trim_start().starts_with("use ");
            if is_use && (line.contains('{') || !line.contains(';')) {
                offences.push(format!("{}:{number}: one use per line, without braces", source.path));
            }
        }
    }
    offences
}

/// One name is imported by one line, so that a search for it and a merge of two branches find one line.
#[test]
fn one_use_per_line() {
    let bad = [
        ("src/a.rs", "use std::{fs, io};"),
        ("src/a.rs", "    pub use crate::a::{B, C};"),
        ("src/a.rs", "pub(crate) use a::{\n  b,\n};"),
    ];
    let good = [("src/a.rs", "use std::fs;\npub use a::B;\npub(in crate::x) use a::C;\nfn user() { reuse {} }")];
    enforce(flat_uses, &bad, &good);
    let root = crate_root();
    let found: Vec<Offence> = ["tests", "benches", "examples"]
        .iter()
        .filter(|folder| root.join(folder).is_dir())
        .flat_map(|folder| flat_uses(&read_tree(&root, folder)))
        .collect();
    assert!(found.is_empty(), "the house rule is broken:\n{}", found.join("\n"));
}

/// The most lines of product code in one file.
const ROOM_MAX: usize = 500;

fn rooms(sources: &[Source]) -> Vec<Offence> {
    let sizes = sources.iter().map(|source| (source, source.product().count()));
    let large = sizes.filter(|(_, size)| *size > ROOM_MAX);
    large.map(|(source, size)| format!("{}:{ROOM_MAX}: {size} lines of product code", source.path)).collect()
}

/// A file that outgrows 500 lines holds two things that want to part.
#[test]
fn rooms_stay_small() {
    let large = "fn f() {}\n".repeat(ROOM_MAX + 1);
    let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{large}}}\n");
    enforce(rooms, &[("src/a.rs", &large)], &[("src/a.rs", &tested)]);
}

fn leftovers(sources: &[Source]) -> Vec<Offence> {
    let words = ["todo!", "unimplemented!", "dbg!"];
    let lines = sources.iter().flat_map(|source| source.all().map(move |line| (source, line)));
    lines
        .filter_map(|(source, (number, line))| {
            let word = words.iter().find(|word| word_at(line, word).is_some())?;
            Some(format!("{}:{number}: {word}", source.path))
        })
        .collect()
}

/// Nothing that is to be finished later is in the tree.
#[test]
fn nothing_is_left_unfinished() {
    let bad = [("src/a.rs", "fn f() { todo!() }"), ("src/a.rs", "unimplemented!();"), ("src/a.rs", "let x = dbg!(1);")];
    enforce(leftovers, &bad, &[("src/a.rs", "// todo!\nfn todo() {}")]);
}

/// The words of a name: `FileManager` and `file_manager` are both `file`, `manager`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_uppercase() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c != '_') {
            word.extend(c.to_lowercase());
        }
    }
    words
}

fn names(sources: &[Source]) -> Vec<Offence> {
    let forbidden = ["manager", "managers", "helper", "helpers", "util", "utils", "utility", "utilities"];
    let says_nothing = |name: &str| words(name).iter().any(|word| forbidden.contains(&word.as_str()));
    let mut offences = Vec::new();
    for source in sources {
        if source.module().iter().any(|part| says_nothing(part)) {
            offences.push(format!("{}:1: a room is named after what it does", source.path));
        }
        for (number, line) in source.all() {
            let mut tokens = line.split(|c: char| !is_word(c)).filter(|token| !token.is_empty());
            while let Some(token) = tokens.next() {
                if !matches!(token, "mod" | "struct" | "enum" | "trait" | "type" | "union") {
                    continue;
                }
                if let Some(name) = tokens.next().filter(|name| says_nothing(name)) {
                    offences.push(format!("{}:{number}: the name {name} says nothing", source.path));
                }
            }
        }
    }
    offences
}

/// Names are the field's standard terms; a manager, a helper or a util is a name for not knowing what it is.
#[test]
fn names_say_what_they_are() {
    let bad = [
        ("src/fs/utils.rs", ""),
        ("src/fs/a.rs", "pub struct FileManager;"),
        ("src/fs/a.rs", "mod test_helpers;"),
        ("src/fs/a.rs", "enum Util { A }"),
    ];
    enforce(names, &bad, &[("src/fs/a.rs", "struct Futile;\n// a manager\nfn f(manager: u8) {}")]);
}
