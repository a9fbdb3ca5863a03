//! What may be built into the program: version floors, pins, licences, and crates that must not come in. `deny.toml` says the same to
//! cargo-deny, which knows the advisory database as well; this needs neither the network nor another tool.

use std::collections::BTreeSet;
use std::process::Command;

/// One package that is built on this platform.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: Vec<u64>,
    licence: String,
    features: String,
}

fn version(text: &str) -> Vec<u64> {
    text.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

/// Every package in the build, tests included, as `cargo tree` resolves it.
fn built() -> BTreeSet<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(["tree", "--locked", "--offline", "--prefix", "none", "--no-dedupe", "--edges", "normal,build,dev"]);
    command.args(["--format", "{p}|{l}|{f}"]);
    let output = command.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().filter(|line| !line.is_empty()).map(package).collect()
}

fn package(line: &str) -> Package {
    let mut fields = line.split('|');
    let mut field = || fields.next().unwrap_or_default().to_owned();
    let (id, licence, features) = (field(), field(), field());
    let (name, rest) = id.split_once(" v").unwrap_or((&id, ""));
    let numbers = rest.split(' ').next().unwrap_or_default();
    Package { name: name.to_owned(), version: version(numbers), licence, features }
}

/// The oldest versions without a known hole that matters here, with the advisory where it has a number.
const FLOORS: &[(&str, &str, &str)] = &[
    ("rustls", "0.23.45", "RUSTSEC-2026-0285"),
    ("quinn-proto", "0.11.15", "RUSTSEC-2026-0037, RUSTSEC-2026-0185"),
    ("rustls-webpki", "0.103.13", "RUSTSEC-2026-0049 and later"),
    ("aws-lc-sys", "0.39", "RUSTSEC-2026-0044, RUSTSEC-2026-0048"),
];

/// Versions whose behaviour, format or bytes on disk other code relies on.
const PINS: &[(&str, &str)] =
    &[("bincode", "2.0.1"), ("fuser", "0.18.0"), ("fastcdc", "5.0.0"), ("diff-match-patch-rs", "0.5.1"), ("redb", "4.5")];

/// No second TLS provider, no other TLS, and no certificate machinery.
const ABSENT: &[&str] =
    &["ring", "openssl", "openssl-sys", "native-tls", "rustls-platform-verifier", "rustls-native-certs", "rcgen"];

/// Licences that let anybody use the program under MIT or Apache-2.0.
const LICENCES: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "CC0-1.0",
    "Unicode-3.0",
    "Unlicense",
];

/// Whether an SPDX expression can be satisfied by [`LICENCES`]: one side of an OR, both of an AND. AND binds tighter.
fn acceptable(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ");
    fn split<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
        let mut depth = 0;
        let mut from = 0;
        let mut parts = Vec::new();
        for (at, c) in text.char_indices() {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ if depth == 0 && at >= from && text[at..].starts_with(word) => {
                    parts.push(&text[from..at]);
                    from = at + word.len();
                }
                _ => {}
            }
        }
        parts.push(&text[from..]);
        parts
    }
    fn either(text: &str) -> bool {
        split(text, " OR ").into_iter().any(|side| split(side, " AND ").into_iter().all(one))
    }
    fn one(text: &str) -> bool {
        let text = text.trim();
        match text.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
            Some(inner) => either(inner),
            None => LICENCES.contains(&text),
        }
    }
    either(&expression)
}

/// Nobody builds in a version with a known hole.
#[test]
fn versions_are_above_the_floors() {
    let built = built();
    for (name, floor, why) in FLOORS {
        let found: Vec<_> = built.iter().filter(|package| package.name == *name).collect();
        assert!(!found.is_empty(), "{name} is no longer built in: take it out of the floors");
        assert!(found.iter().all(|package| package.version >= version(floor)), "{name} >= {floor} ({why}), but {found:?}");
    }
}

/// What is pinned is built in exactly that version, once.
#[test]
fn pins_hold() {
    let built = built();
    for (name, pin) in PINS {
        let found: Vec<_> = built.iter().filter(|package| package.name == *name).map(|package| &package.version).collect();
        assert!(matches!(found[..], [one] if one.starts_with(&version(pin))), "{name} = {pin}, but {found:?}");
    }
}

/// One crypto provider, TLS 1.3 only.
#[test]
fn no_second_crypto_comes_in() {
    let built = built();
    let found: Vec<_> = built.iter().filter(|package| ABSENT.contains(&package.name.as_str())).collect();
    assert!(found.is_empty(), "{found:?}");
    let rustls = built.iter().find(|package| package.name == "rustls").expect("rustls");
    let features: Vec<_> = rustls.features.split(',').collect();
    assert!(!features.contains(&"tls12") && !features.contains(&"ring"), "{features:?}");
    assert!(features.contains(&"aws_lc_rs"), "{features:?}");
}

/// Everything built in may be given on under the licences of this program.
#[test]
fn licences_are_permissive() {
    for good in ["MIT", "GPL-3.0 OR MIT", "MIT/Apache-2.0", "(MIT OR GPL-3.0) AND Unicode-3.0", "ISC AND (X OR ISC)"] {
        assert!(acceptable(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND X", "X OR MIT AND Y"] {
        assert!(!acceptable(bad), "{bad}");
    }
    let built = built();
    let refused: Vec<_> = built.iter().filter(|package| !acceptable(&package.licence)).collect();
    assert!(refused.is_empty(), "{refused:?}");
}
