//! From a save in one mount to its bytes in another one, hub and both mounts on this machine. Prints milliseconds, and multiples of one
//! durable commit on the same disk; judges nothing.

#[allow(dead_code, reason = "the harness is that of the tests")]
#[path = "../tests/common/mod.rs"]
mod common;

use common::World;
use redb::Database;
use redb::TableDefinition;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;
use std::time::Instant;

/// How many saves of each kind are measured.
const SAVES: usize = 100;
const COMMITS: usize = 200;
/// How often it is looked whether the save has arrived; a figure is too large by half of it on average.
const LOOK: Duration = Duration::from_micros(200);
/// A person pauses between two saves: nothing of one is under way at the next.
const PAUSE: Duration = Duration::from_millis(60);
/// A save that takes longer is none.
const LOST: Duration = Duration::from_secs(30);
const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("commits");

/// Writes a text to a path the way some editors do.
type Save = fn(&Path, &str);

/// Durations of one kind.
struct Figures {
    name: &'static str,
    taken: Vec<Duration>,
}

impl Figures {
    fn measure(name: &'static str, count: usize, mut one: impl FnMut(usize) -> Duration) -> Self {
        let mut taken: Vec<Duration> = (0..count).map(&mut one).collect();
        taken.sort();
        Self { name, taken }
    }

    /// The value that `percent` of a hundred do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        self.taken[(self.taken.len() * percent).div_ceil(100).max(1) - 1]
    }

    fn print(&self, commit: Option<Duration>) {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1e3;
        let times = commit.map(|commit| format!("   {:6.1}", self.percentile(50).as_secs_f64() / commit.as_secs_f64()));
        println!("{:44} {:8.2} {:8.2} {:8.2}{}", self.name, ms(50), ms(95), ms(100), times.unwrap_or_default());
    }
}

/// One write of 4 KiB and its fsync.
fn fsyncs(dir: &Path) -> Figures {
    let mut file = File::create_new(dir.join("fsync")).expect("a new file");
    Figures::measure("write of 4 KiB and fsync", COMMITS, |_| {
        let begun = Instant::now();
        file.write_all(&[7; 4096]).and_then(|()| file.sync_all()).expect("a durable write");
        begun.elapsed()
    })
}

/// One durable commit as the hub makes it.
fn commits(dir: &Path) -> Figures {
    let database = Database::create(dir.join("commits.redb")).expect("a new database");
    Figures::measure("one redb commit, two-phase, quick-repair", COMMITS, |at| {
        let begun = Instant::now();
        let mut transaction = database.begin_write().expect("a transaction");
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        let mut table = transaction.open_table(TABLE).expect("a table");
        table.insert(at as u64, [7; 200].as_slice()).expect("an insert");
        drop(table);
        transaction.commit().expect("a commit");
        begun.elapsed()
    })
}

/// How long it takes from the beginning of a save in one mount until the other one shows exactly these bytes.
fn arrival(from: &Path, to: &Path, text: &str, save: Save) -> Duration {
    sleep(PAUSE);
    let begun = Instant::now();
    save(from, text);
    loop {
        // The size first: a file that is opened again and again is not what is measured. It grows with every save.
        let is_there = fs::symlink_metadata(to).is_ok_and(|meta| meta.len() == text.len() as u64);
        if is_there && fs::read(to).is_ok_and(|bytes| bytes == text.as_bytes()) {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < LOST, "{} did not arrive within {LOST:?}", to.display());
        sleep(LOOK);
    }
}

fn in_place(path: &Path, text: &str) {
    fs::write(path, text).expect("a write through the mount");
}

fn by_rename(path: &Path, text: &str) {
    let beside = path.with_extension("tmp~");
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, path)).expect("a save through the mount");
}

fn durable_by_rename(path: &Path, text: &str) {
    let beside = path.with_extension("tmp~");
    let mut file = File::create_new(&beside).expect("a new file through the mount");
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).expect("a write through the mount");
    drop(file);
    fs::rename(&beside, path).expect("a rename through the mount");
}

/// As an editor that formats when it saves: the second save meets the first one on its way.
fn twice(path: &Path, text: &str) {
    let (first, _) = text.trim_end().rsplit_once('\n').expect("more than one line");
    in_place(path, first);
    in_place(path, text);
}

fn main() {
    let mut world = World::new();
    let [one, two] = [&world.c1, &world.c2].map(|client| client.dir.clone());
    let disk = one.parent().map(PathBuf::from).expect("a directory of the run");
    println!("{}", if cfg!(debug_assertions) { "development build" } else { "release build" });
    println!("{:44} {:>8} {:>8} {:>8}   {:>6}", "milliseconds", "median", "p95", "longest", "commits");
    let fsyncs = fsyncs(&disk);
    let commits = commits(&disk);
    fsyncs.print(None);
    commits.print(None);
    let commit = commits.percentile(50);

    let base = "A line of a note that somebody keeps, as notes are.\n".repeat(80);
    let kinds: [(&'static str, Save); 4] = [
        ("save in place", in_place),
        ("save beside it and rename over", by_rename),
        ("the same with an fsync of the editor", durable_by_rename),
        ("two saves in place, one after the other", twice),
    ];
    for (name, save) in kinds {
        let mut text = base.clone();
        in_place(&one.join("note.md"), &text);
        world.settle();
        let figures = Figures::measure(name, SAVES, |at| {
            text.push_str(&format!("line {at}\n"));
            arrival(&one.join("note.md"), &two.join("note.md"), &text, save)
        });
        figures.print(Some(commit));
        world.settle();
    }
    let figures = Figures::measure("new file", SAVES, |at| {
        let name = format!("new {at}.md");
        arrival(&one.join(&name), &two.join(&name), &base, in_place)
    });
    figures.print(Some(commit));
    world.settle();
}
