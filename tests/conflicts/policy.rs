//! Rows of the table of concurrent changes, as far as they show from outside. Each in both orders.

use super::site::Site;
use super::site::overwrite;
use rustix::fs::RenameFlags;
use rustix::fs::XattrFlags;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

const ORDERS: [[usize; 2]; 2] = [[0, 1], [1, 0]];

/// Row 1: different words merge, whoever was first, and whether the hub was away or not.
#[test]
fn different_words_merge() {
    let mut site = Site::new(2);
    let merged = b"say hello to the world";
    for order in ORDERS {
        let name = format!("open{}.txt", order[0]);
        site.clash(&name, [b"hello world", b"say hello world", b"hello to the world"], order);
        site.agrees();
        assert_eq!(site.devices[0].read(&name), merged);
    }
    site.devices[0].write("away.txt", b"hello world");
    site.agrees();
    site.go_offline();
    site.devices[0].write("away.txt", b"say hello world");
    site.devices[1].write("away.txt", b"hello to the world");
    site.go_online();
    site.agrees();
    for device in &site.devices {
        assert_eq!(device.read("away.txt"), merged);
    }
}

/// Every way to change or replace the first path; the second is another file.
type Way = fn(&Path, &Path) -> io::Result<()>;
const WAYS: [(&str, Way); 9] = [
    ("open to write", |file, _| File::options().write(true).open(file).map(drop)),
    ("append", |file, _| File::options().append(true).open(file).map(drop)),
    ("truncate", |file, _| File::create(file).map(drop)),
    ("rename away", |file, other| fs::rename(file, other.with_extension("away"))),
    ("rename over", |file, other| fs::rename(other, file)),
    ("exchange", |file, other| {
        Ok(rustix::fs::renameat_with(rustix::fs::CWD, other, rustix::fs::CWD, file, RenameFlags::EXCHANGE)?)
    }),
    ("unlink", |file, _| fs::remove_file(file)),
    ("link", |file, other| fs::hard_link(file, other.with_extension("link"))),
    ("set an attribute", |file, _| Ok(rustix::fs::setxattr(file, "user.a", b"b", XattrFlags::empty())?)),
];

/// Row 2: the same words are a conflict. The first version is everybody's; on the other device the file is read and not written,
/// also after a restart, and everything else goes on.
#[test]
fn the_same_words_block_one_file_on_one_device() {
    let mut site = Site::new(2);
    for order in ORDERS {
        let name = format!("f{}.txt", order[0]);
        site.conflict(&name, [b"cost: 1000\n", b"cost: 1500\n", b"cost: 2000\n"], order);
        let blocked = |site: &Site| {
            let [winner, loser] = order.map(|at| &site.devices[at]);
            assert_eq!((winner.text(&name), loser.text(&name)), ("cost: 1500\n".into(), "cost: 2000\n".into()));
            loser.write("other.txt", b"other");
            for (way, change) in WAYS {
                let refused = change(&loser.dir.join(&name), &loser.dir.join("other.txt"));
                assert_eq!(refused.map_err(|error| error.raw_os_error()), Err(Some(libc::EROFS)), "{way}");
            }
            assert_eq!((loser.text(&name), loser.text("other.txt")), ("cost: 2000\n".into(), "other".into()));
            site.rests();
            winner.write("other.txt", b"seen");
            site.rests();
            assert_eq!(loser.text("other.txt"), "seen");
        };
        blocked(&site);
        let Site { devices, world, .. } = &mut site;
        devices[order[1]].stop();
        assert_eq!(devices[order[1]].text(&name), "cost: 2000\n");
        devices[order[1]].start(world);
        site.rests();
        site.devices[order[1]].is_blocked(&name);
        blocked(&site);
        let [winner, loser] = order.map(|at| &site.devices[at]);
        let sides = loser.sides(&loser.conflicts()[0]);
        assert_eq!(sides, [&b"cost: 1000\n"[..], b"cost: 2000\n", b"cost: 1500\n"]);
        assert!(loser.merged(&loser.conflicts()[0]).contains("\n|||||||"));
        winner.write(&name, b"cost: 1700\n");
        site.rests();
        loser.resolves(&name, &["--theirs"]);
        site.agrees();
        assert_eq!(loser.text(&name), "cost: 1700\n");
    }
}

/// A newer version of the others can end a conflict by itself.
#[test]
fn a_conflict_can_clear_by_itself() {
    let site = Site::new(2);
    site.conflict("f.txt", [b"cost: 1000\n", b"cost: 1500\n", b"cost: 2000\n"], [0, 1]);
    site.devices[0].write("f.txt", b"cost: 2000\n");
    site.agrees();
    site.devices[1].write("f.txt", b"cost: 3000\n");
    site.agrees();
}

/// Row 3: bytes that are no text are a conflict without a merged text.
#[test]
fn binary_files() {
    let site = Site::new(2);
    for (order, option) in [(ORDERS[0], "--ours"), (ORDERS[1], "--theirs"), (ORDERS[0], "--both")] {
        let name = format!("f{option}.bin");
        let conflict = site.conflict(&name, [b"\0base", b"\0first", b"\0second"], order);
        let loser = &site.devices[order[1]];
        assert_eq!(loser.sides(&conflict), [&b"\0base"[..], b"\0second", b"\0first"]);
        assert!(conflict["hunks"].is_null(), "{conflict}");
        let output = loser.resolve(&name, &["--edit"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        loser.resolves(&name, &[option]);
        site.agrees();
        let expected: &[u8] = if option == "--ours" { b"\0second" } else { b"\0first" };
        assert_eq!(site.devices[order[0]].read(&name), expected);
    }
    assert_eq!(site.devices[0].read("f--both (c2).bin"), b"\0second");
}

/// Row 8: two files added under one name: one that holds the other is taken, else it is a conflict with an empty base.
#[test]
fn added_on_both_sides() {
    let mut site = Site::new(2);
    site.go_offline();
    let [one, two] = [&site.devices[0], &site.devices[1]];
    for (name, texts) in [
        ("same.txt", ["alike\n", "alike\n"]),
        ("more.txt", ["one\n", "one\ntwo\n"]),
        ("less.txt", ["one\ntwo\n", "one\n"]),
        ("other.txt", ["apples\n", "pears\n"]),
    ] {
        one.write(name, texts[0].as_bytes());
        two.write(name, texts[1].as_bytes());
    }
    site.go_online();
    site.rests();
    let [one, two] = [&site.devices[0], &site.devices[1]];
    for (name, text) in [("same.txt", "alike\n"), ("more.txt", "one\ntwo\n"), ("less.txt", "one\ntwo\n")] {
        assert_eq!((one.text(name), two.text(name)), (text.into(), text.into()), "{name}");
    }
    let (loser, winner) = if one.conflicts().is_empty() { (two, one) } else { (one, two) };
    let conflicts = loser.conflicts();
    assert_eq!((conflicts.len(), winner.conflicts().len()), (1, 0), "{conflicts:?}");
    let [base, ours, theirs] = loser.sides(&conflicts[0]);
    assert_eq!((base, &ours, &theirs), (Vec::new(), &loser.read("other.txt"), &winner.read("other.txt")));
    loser.is_blocked("other.txt");
    loser.resolves("other.txt", &["--both"]);
    site.agrees();
    let beside = format!("other ({}).txt", loser.dir.file_name().unwrap().display());
    assert_eq!((winner.read("other.txt"), winner.read(&beside)), (theirs, ours));
}

/// Row 14: a link that points elsewhere on both sides is a conflict; its sides are the targets.
#[test]
fn a_link_retargeted_twice() {
    let mut site = Site::new(2);
    for (name, option) in [("ours", "--ours"), ("theirs", "--theirs"), ("both", "--both"), ("base", "--base")] {
        let point = |site: &Site, at: usize, target: &str| {
            let link = site.devices[at].dir.join(name);
            let _ = fs::remove_file(&link);
            symlink(target, link).unwrap();
        };
        point(&site, 0, "old");
        site.agrees();
        site.go_offline();
        point(&site, 0, "from c1");
        point(&site, 1, "from c2");
        site.go_online();
        site.rests();
        let at = site.devices.iter().position(|device| !device.conflicts().is_empty()).expect("a conflict");
        let loser = &site.devices[at];
        let (ours, theirs) = if at == 0 { ("from c1", "from c2") } else { ("from c2", "from c1") };
        assert_eq!(loser.sides(&loser.conflicts()[0]).map(|side| String::from_utf8(side).unwrap()), ["old", ours, theirs]);
        loser.resolves(name, &[option]);
        site.agrees();
        let expected = match option {
            "--ours" => ours,
            "--base" => "old",
            _ => theirs,
        };
        for device in &site.devices {
            assert_eq!(fs::read_link(device.dir.join(name)).unwrap(), Path::new(expected), "{option}");
        }
        if option == "--both" {
            let beside = site.devices[0].dir.join(format!("both (c{})", at + 1));
            assert_eq!(fs::read_link(beside).unwrap(), Path::new(ours));
        }
    }
}

/// Rows 22 and 23: who has a file open for writing keeps his version until he closes it, who reads keeps his bytes.
#[test]
fn open_files() {
    let site = Site::new(2);
    for [first, second] in ORDERS.map(|order| order.map(|at| &site.devices[at])) {
        first.write("f.txt", b"one\n\ntwo\n\nthree\n");
        site.agrees();
        let mut read = String::new();
        let mut reader = File::open(second.dir.join("f.txt")).unwrap();
        let mut writer = File::options().append(true).open(second.dir.join("f.txt")).unwrap();
        first.write("f.txt", b"ONE\n\ntwo\n\nthree\n");
        second.waits("the version is known", |status| status["pending_down"] == 1);
        assert_eq!(second.text("f.txt"), "one\n\ntwo\n\nthree\n");
        writer.write_all(b"\nfour\n").unwrap();
        drop(writer);
        site.agrees();
        let merged = "ONE\n\ntwo\n\nthree\n\nfour\n";
        assert_eq!((first.text("f.txt"), second.text("f.txt")), (merged.into(), merged.into()));
        reader.read_to_string(&mut read).unwrap();
        assert!(read.starts_with("one"), "{read}");
    }
}

/// Row 25: what is written while the file turns into a conflict joins ours, without any error.
#[test]
fn a_save_under_way_joins_ours() {
    let site = Site::new(2);
    for order in ORDERS {
        let name = format!("f{}.txt", order[0]);
        let [winner, loser] = order.map(|at| &site.devices[at]);
        winner.write(&name, b"cost: 1000\n");
        site.agrees();
        let open = || File::options().read(true).write(true).open(loser.dir.join(&name)).unwrap();
        let (mut first, mut late) = (open(), open());
        winner.write(&name, b"cost: 1500\n");
        loser.waits("the version is known", |status| status["pending_down"] == 1);
        overwrite(&mut first, b"cost: 2000\n").unwrap();
        first.sync_all().unwrap();
        drop(first);
        // Whether the conflict is known by now or not: the other one is still writing.
        late.seek(io::SeekFrom::End(0)).unwrap();
        late.write_all(b"and a late word\n").unwrap();
        late.sync_all().unwrap();
        drop(late);
        loser.is_blocked(&name);
        site.rests();
        let ours = "cost: 2000\nand a late word\n";
        assert_eq!(loser.text(&name), ours);
        let conflicts = loser.conflicts();
        assert_eq!(loser.sides(&conflicts[0]), [&b"cost: 1000\n"[..], ours.as_bytes(), b"cost: 1500\n"]);
        loser.resolves(&name, &["--ours"]);
        site.agrees();
        assert_eq!(winner.text(&name), ours);
    }
}

/// Row 29: three devices, three edits: one after the other against what is there.
#[test]
fn three_edits() {
    let mut site = Site::new(3);
    let text = |words: [&str; 3]| format!("{}\n\nstays\n\n{}\n\nstays\n\n{}\n", words[0], words[1], words[2]);
    site.devices[0].write("f.txt", text(["one", "two", "three"]).as_bytes());
    site.agrees();
    site.go_offline();
    site.devices[0].write("f.txt", text(["ONE", "two", "three"]).as_bytes());
    site.devices[1].write("f.txt", text(["one", "TWO", "three"]).as_bytes());
    site.devices[2].write("f.txt", text(["one", "two", "THREE"]).as_bytes());
    site.go_online();
    site.agrees();
    for device in &site.devices {
        assert_eq!(device.text("f.txt"), text(["ONE", "TWO", "THREE"]));
    }
}
