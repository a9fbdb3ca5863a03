//! What a small change of a text costs on the wire, measured where the bytes leave and arrive.

mod common;

use common::Client;
use common::World;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

/// What a change of one line may cost a client, both ways together.
const LIMIT: u64 = 4 << 10;
const TEXT: usize = 200_000;
/// A change that took longer than this to settle has so many keep-alives in it that nothing can be said of its cost.
const BOUND: Duration = Duration::from_secs(20);
/// A complete file that keeps another name for longer than a moment is a new file, which is sent: that is not what is measured here.
const BESIDE: Duration = Duration::from_millis(30);
/// How often a save is made again that did not go quickly enough.
const TRIES: usize = 10;

/// Lines of words, the same at every run, hardly any twice.
fn prose() -> String {
    let mut state = 0x0123_4567_89ab_cdef_u64;
    let mut text = String::with_capacity(TEXT + 80);
    while text.len() < TEXT {
        for _ in 0..9 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push_str(&format!("w{:x} ", state % 50_000));
        }
        text.push('\n');
    }
    text
}

/// Bytes of UDP payload over the present connection: sent and received.
#[track_caller]
fn traffic(client: &Client) -> [u64; 2] {
    let status = client.status().expect("a status");
    ["wire_sent", "wire_received"].map(|key| status[key].as_u64().unwrap_or_else(|| panic!("no {key}: {status}")))
}

/// Waits until everything rests and the hub has heard so.
#[track_caller]
fn rest(world: &mut World) {
    world.settle();
    common::wait_for("the hub has every acknowledgement", || {
        let status = world.hub.status()?;
        let clients = status["clients"].as_array().ok_or("no clients")?;
        let all = clients.len() == 2 && clients.iter().all(|client| client["acked"] == status["seq"]);
        if all { Ok(()) } else { Err(status.to_string()) }
    });
}

/// As nano, `>` and many others save: truncated and written.
fn in_place(path: &Path, text: &str) -> Duration {
    fs::write(path, text).expect("a write through the mount");
    Duration::ZERO
}

/// As GTK programs, rsync and `sed -i` save: written beside it, flushed, renamed over. How long it lay there complete under another name.
fn by_rename(path: &Path, text: &str) -> Duration {
    let beside = path.with_extension("tmp~");
    let mut file = File::create_new(&beside).expect("a new file through the mount");
    file.write_all(text.as_bytes()).expect("a write through the mount");
    file.sync_all().expect("an fsync through the mount");
    let whole = Instant::now();
    drop(file);
    fs::rename(&beside, path).expect("a rename through the mount");
    whole.elapsed()
}

type Save = fn(&Path, &str) -> Duration;
type Change = fn(&mut Vec<&str>);

/// One line of a text of 200 kB changed, added or taken away costs the client that saved it and the one that receives it less than
/// 4 KiB each, everything included: records, acknowledgements, encryption, keep-alives.
#[test]
fn one_line_of_a_long_text_is_cheap() {
    let mut world = World::new();
    let mut text = prose();
    fs::write(world.c1.dir.join("long.txt"), &text).expect("a write through the mount");
    rest(&mut world);
    let steps: [(&str, bool, Save, Change); 6] = [
        ("changed in place", true, in_place, |lines| lines[1_700] = "another line than before\n"),
        ("moved, by renaming over", true, by_rename, |lines| lines.swap(900, 901)),
        ("added, by renaming over", true, by_rename, |lines| lines.insert(500, "and one more, by way of a rename\n")),
        ("removed, by renaming over", true, by_rename, |lines| drop(lines.drain(2_000..2_001))),
        ("added on the other side", false, in_place, |lines| lines.insert(10, "a line that was not there\n")),
        ("removed on the other side, by renaming over", false, by_rename, |lines| drop(lines.drain(30..31))),
    ];
    for (what, by_first, save, change) in steps {
        let mut tries = 0;
        while !step(&mut world, &mut text, what, by_first, save, change) {
            tries += 1;
            assert!(tries < TRIES, "{what}: this machine is too busy to save quickly");
        }
    }
}

/// One save and what it cost; whether that could be told.
#[track_caller]
fn step(world: &mut World, text: &mut String, what: &str, by_first: bool, save: Save, change: Change) -> bool {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    change(&mut lines);
    *text = lines.concat();
    let sides = |world: &World, read: fn(&Client) -> [u64; 2]| {
        let [first, second] = [&world.c1, &world.c2].map(read);
        if by_first { [first, second] } else { [second, first] }
    };
    let dirs = [&world.c1, &world.c2].map(|client| client.dir.join("long.txt"));
    let (from, to) = if by_first { (&dirs[0], &dirs[1]) } else { (&dirs[1], &dirs[0]) };
    let before = sides(world, traffic);
    let begun = Instant::now();
    let beside = save(from, text);
    rest(world);
    let took = begun.elapsed();
    let after = sides(world, traffic);
    assert!(fs::read_to_string(to).expect("it is there") == *text, "{what}: not as saved");
    assert!(took < BOUND, "{what}: it took {took:?} to rest, which is too long to tell the cost");
    if beside > BESIDE {
        println!("{what}: not judged: the new file lay beside the old one for {beside:?}");
        return false;
    }
    for (who, (before, after)) in ["who saves", "who receives"].iter().zip(before.into_iter().zip(after)) {
        let [sent, received] = [0, 1].map(|way| after[way].checked_sub(before[way]).expect("the connection was held"));
        println!("{what}: {who}: {sent} bytes sent, {received} received, in {took:?}");
        assert!(sent > 0 && received > 0, "{what}: {who}: nothing was measured");
        assert!(sent + received < LIMIT, "{what}: {who}: {sent} bytes sent, {received} received");
    }
    true
}
