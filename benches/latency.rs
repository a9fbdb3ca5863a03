//! From a save in one mount to its bytes in another one, hub and both mounts on this machine. Prints milliseconds, and beside them the
//! medians of an fsync and of a durable commit on the same disk at the same time, and how many commits a save takes; judges nothing.

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
/// How often it is looked whether the save has arrived; a figure is too large by half of it on average.
const LOOK: Duration = Duration::from_micros(200);
/// Between two saves: nothing of one is under way at the next.
const PAUSE: Duration = Duration::from_millis(60);
/// A save that takes longer is none.
const LOST: Duration = Duration::from_secs(30);
const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("commits");

/// Writes a text to a path the way some editors do.
type Save = fn(&Path, &str);

/// Durations of one kind.
struct Figures(Vec<Duration>);

impl Figures {
    /// The value that `percent` of a hundred do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
    }

    fn ms(&self, percent: usize) -> f64 {
        self.percentile(percent).as_secs_f64() * 1e3
    }
}

/// What is durable on the disk of the run, to compare with.
struct Disk {
    file: File,
    database: Database,
    commits: u64,
}

impl Disk {
    fn new(dir: &Path) -> Self {
        let file = File::create_new(dir.join("fsync")).expect("a new file");
        Self { file, database: Database::create(dir.join("commits.redb")).expect("a new database"), commits: 0 }
    }

    /// One write of 4 KiB and its fsync.
    fn fsync(&mut self) -> Duration {
        let begun = Instant::now();
        self.file.write_all(&[7; 4096]).and_then(|()| self.file.sync_all()).expect("a durable write");
        begun.elapsed()
    }

    /// One durable commit as the hub makes it.
    fn commit(&mut self) -> Duration {
        self.commits += 1;
        let begun = Instant::now();
        let mut transaction = self.database.begin_write().expect("a transaction");
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        let mut table = transaction.open_table(TABLE).expect("a table");
        table.insert(self.commits, [7; 200].as_slice()).expect("an insert");
        drop(table);
        transaction.commit().expect("a commit");
        begun.elapsed()
    }
}

/// Measures `one` again and again, each time after an fsync and a commit: the disk may be another one a minute later.
fn measure(name: &str, disk: &mut Disk, mut one: impl FnMut(usize) -> Duration) {
    let [mut fsyncs, mut commits, mut saves] = [const { Figures(Vec::new()) }; 3];
    for at in 0..SAVES {
        fsyncs.0.push(disk.fsync());
        commits.0.push(disk.commit());
        sleep(PAUSE);
        saves.0.push(one(at));
    }
    let [median, p95, longest] = [50, 95, 100].map(|percent| saves.ms(percent));
    let (fsync, commit) = (fsyncs.ms(50), commits.ms(50));
    println!("{name:44} {median:8.2} {p95:8.2} {longest:8.2} {fsync:8.2} {commit:8.2} {:8.1}", median / commit);
}

/// How long it takes from the beginning of a save in one mount until the other one shows exactly these bytes.
fn arrival(from: &Path, to: &Path, text: &str, save: Save) -> Duration {
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
    println!(
        "{:44} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "milliseconds", "median", "p95", "longest", "fsync", "commit", "commits"
    );
    let mut disk = Disk::new(&disk);
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
        measure(name, &mut disk, |at| {
            text.push_str(&format!("line {at}\n"));
            arrival(&one.join("note.md"), &two.join("note.md"), &text, save)
        });
        world.settle();
    }
    measure("new file", &mut disk, |at| {
        let name = format!("new {at}.md");
        arrival(&one.join(&name), &two.join(&name), &base, in_place)
    });
    world.settle();
}
