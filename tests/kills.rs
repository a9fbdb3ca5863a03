//! Hub and clients are killed at random moments of a bulk sync, again and again, while people go on working on both sides. Afterwards both
//! trees are equal and nothing that was saved is gone.
//!
//! `KILLS=n` sets how many kills, `SEED=n` which; both are printed.

mod common;

use common::World;
use common::tree;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io;
use std::io::ErrorKind;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The directories everybody works in; the first person renames them from time to time.
const DIRS: usize = 6;
/// So many files of one person are enough: more are removed than added then.
const ENOUGH: usize = 250;
/// How long hub and clients may take in the end for what the people have left.
const REST: Duration = Duration::from_secs(180);

/// A small generator; the same seed gives the same numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn pause(&mut self, from: u64, below: u64) {
        std::thread::sleep(Duration::from_millis(from + self.below(below - from)));
    }
}

/// What a person knows of one of their files: the names are theirs alone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// Saved, and holds exactly this.
    Holds(Vec<u8>),
    /// Removed, or renamed away.
    Gone,
}

/// Somebody who works in one directory, whether it is mounted, dead or plain.
struct Person<'a> {
    who: &'static str,
    dir: PathBuf,
    dice: Dice,
    files: BTreeMap<String, Fate>,
    made: usize,
    saved: &'a AtomicUsize,
    stop: &'a AtomicBool,
}

/// The mount under it died or goes away; tried again.
fn passes(error: &io::Error) -> bool {
    let raw = error.raw_os_error();
    [libc::ENOTCONN, libc::ECONNABORTED, libc::EIO, libc::ENODEV, libc::EBADF].iter().any(|code| raw == Some(*code))
}

impl Person<'_> {
    /// Works until told to stop; what was begun is brought to its end.
    fn work(mut self) -> BTreeMap<String, Fate> {
        while !self.stop.load(Ordering::Relaxed) {
            self.act();
            self.dice.pause(2, 25);
        }
        self.files
    }

    fn act(&mut self) {
        let living: Vec<String> =
            self.files.iter().filter(|(_, fate)| **fate != Fate::Gone).map(|(name, _)| name.clone()).collect();
        let many = living.len() > ENOUGH;
        let pick = |dice: &mut Dice| living.get(dice.below(living.len().max(1) as u64) as usize).cloned();
        match (self.dice.below(100), pick(&mut self.dice)) {
            (0..40, _) if !many => self.add(),
            (_, None) => self.add(),
            (0..50, Some(name)) => self.remove(&name),
            (50..65, Some(name)) => self.rewrite(&name),
            (65..78, Some(name)) => self.save_over(&name),
            (78..96, Some(name)) => self.rename(&name),
            (_, Some(_)) if self.who == "one" => self.rename_dir(),
            (_, Some(name)) => self.rewrite(&name),
        }
        self.saved.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that are nowhere else. Some files are large.
    fn bytes(&mut self) -> Vec<u8> {
        self.made += 1;
        let token = format!("<{} {}>\n", self.who, self.made);
        let times = match self.dice.below(40) {
            0 => 40_000,
            1..6 => 2_000,
            n => n,
        };
        token.repeat(1 + times as usize).into_bytes()
    }

    /// Tries until the mount lives.
    fn persist<T>(&self, what: &str, mut attempt: impl FnMut() -> io::Result<T>) -> T {
        common::wait_for(&format!("{}: {what}", self.who), || match attempt() {
            Ok(done) => Ok(done),
            Err(error) if passes(&error) => Err(error.to_string()),
            // The directory was renamed, or the mount came or went, between looking and doing.
            Err(error) if error.kind() == ErrorKind::NotFound => Err(error.to_string()),
            Err(error) => panic!("{}: {what}: {error}", self.who),
        })
    }

    fn dirs(&self) -> io::Result<Vec<PathBuf>> {
        let mut dirs = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.file_name() != Some(OsStr::new(".syncfs")) && fs::symlink_metadata(&path)?.is_dir() {
                dirs.push(path);
            }
        }
        dirs.sort();
        Ok(dirs)
    }

    /// Where one of the person's files is. Only a look that no error and no renamed directory disturbed says that it is nowhere.
    fn find(&self, name: &str) -> io::Result<PathBuf> {
        loop {
            let dirs = self.dirs()?;
            for dir in &dirs {
                let path = dir.join(name);
                match fs::symlink_metadata(&path) {
                    Ok(_) => return Ok(path),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            if self.dirs()? == dirs {
                return Err(io::Error::new(ErrorKind::NotFound, format!("{name} is nowhere")));
            }
        }
    }

    fn some_dir(&self, n: u64) -> io::Result<PathBuf> {
        let dirs = self.dirs()?;
        let at = n as usize % dirs.len().max(1);
        dirs.into_iter().nth(at).ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no directories"))
    }

    fn add(&mut self) {
        let bytes = self.bytes();
        let name = format!("{} {}", self.who, self.made);
        let n = self.dice.below(DIRS as u64);
        self.persist(&format!("add {name}"), || {
            // Half made before the mount died, it lies where it was made.
            let path = self.find(&name).or_else(|_| Ok::<_, io::Error>(self.some_dir(n)?.join(&name)))?;
            write(&path, &bytes)
        });
        self.files.insert(name, Fate::Holds(bytes));
    }

    /// Truncates and writes, as most programs do.
    fn rewrite(&mut self, name: &str) {
        let bytes = self.bytes();
        self.persist(&format!("rewrite {name}"), || write(&self.find(name)?, &bytes));
        self.files.insert(name.into(), Fate::Holds(bytes));
    }

    /// Writes beside it and renames over it, as editors do.
    fn save_over(&mut self, name: &str) {
        let bytes = self.bytes();
        let tag = format!(".{name}.{}.tmp", self.made);
        self.persist(&format!("save over {name}"), || {
            let path = self.find(name)?;
            let temporary = path.with_file_name(&tag);
            write(&temporary, &bytes)?;
            match fs::rename(&temporary, &path) {
                // Done, and then the mount died before it could say so; or the temporary is elsewhere now.
                Err(error) if error.kind() == ErrorKind::NotFound && fs::read(&path)? == bytes => Ok(()),
                renamed => renamed,
            }
        });
        // A first attempt may have left its temporary behind in a directory that was renamed meanwhile.
        self.persist(&format!("tidy {tag}"), || match self.find(&tag) {
            Ok(path) => fs::remove_file(path),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        });
        self.files.insert(name.into(), Fate::Holds(bytes));
    }

    fn rename(&mut self, name: &str) {
        self.made += 1;
        let (new, n) = (format!("{} {} from {}", self.who, self.made, name.split(' ').nth(1).unwrap_or("")), self.dice.below(6));
        self.persist(&format!("rename {name} to {new}"), || {
            if self.find(&new).is_ok() {
                return Ok(());
            }
            fs::rename(self.find(name)?, self.some_dir(n)?.join(&new))
        });
        let fate = self.files.insert(name.into(), Fate::Gone).expect("a file of this person");
        self.files.insert(new, fate);
    }

    fn remove(&mut self, name: &str) {
        self.persist(&format!("remove {name}"), || match self.find(name) {
            Ok(path) => fs::remove_file(path),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        });
        self.files.insert(name.into(), Fate::Gone);
    }

    fn rename_dir(&mut self) {
        self.made += 1;
        let (to, n) = (format!("dir {}", self.made), self.dice.below(DIRS as u64));
        self.persist(&format!("rename a directory to {to}"), || {
            let to = self.dir.join(&to);
            if fs::symlink_metadata(&to).is_ok() {
                return Ok(());
            }
            fs::rename(self.some_dir(n)?, to)
        });
    }
}

/// Writes and closes, and says so only when all of it was taken.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    // What close says is lost by dropping.
    let closed = rustix::fs::fsync(&file);
    drop(file);
    closed.map_err(Into::into)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// Fifty kills in a row cost nobody anything.
#[test]
fn fifty_kills() {
    let kills = number("KILLS").unwrap_or(50);
    let seed = number("SEED").unwrap_or(1);
    println!("SEED={seed} KILLS={kills}");
    let mut dice = Dice(seed);
    let mut world = World::cold();
    for n in 0..DIRS {
        fs::create_dir(world.c1.dir.join(format!("dir {n}"))).expect("a new directory");
        fs::create_dir(world.c2.dir.join(format!("dir {n}"))).expect("a new directory");
    }
    // The bulk: it is on its way when the first kill comes.
    for n in 0..150 {
        let dir = format!("dir {}", n % DIRS);
        let text = format!("bulk {n}\n").repeat(1 + if n % 10 == 0 { 200_000 } else { n });
        fs::write(world.c1.dir.join(&dir).join(format!("bulk one {n}")), &text).expect("a new file");
        fs::write(world.c2.dir.join(&dir).join(format!("bulk two {n}")), &text).expect("a new file");
    }
    world.c1.start(&world.hub);
    world.c2.start(&world.hub);

    let (saved, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let person = |who, dir: &Path, seed| Person {
        who,
        dir: dir.to_owned(),
        dice: Dice(seed),
        files: BTreeMap::new(),
        made: 0,
        saved: &saved,
        stop: &stop,
    };
    let one = person("one", &world.c1.dir, seed ^ 1);
    let two = person("two", &world.c2.dir, seed ^ 2);
    let known = std::thread::scope(|scope| {
        let people = [scope.spawn(|| one.work()), scope.spawn(|| two.work())];
        // A failure here must not leave the people at work for ever.
        let _stop = Raise(&stop);
        for kill in 1..=kills {
            kill_one(&mut world, &mut dice, kill);
        }
        stop.store(true, Ordering::Relaxed);
        people.map(|person| person.join().expect("the person worked to the end"))
    });
    println!("{} saves, removals and renames during {kills} kills", saved.load(Ordering::Relaxed));

    world.settle_within(REST);
    let (tree, other) = (tree::read(&world.c1.dir), tree::read(&world.c2.dir));
    let differs: Vec<_> = tree.keys().chain(other.keys()).filter(|path| tree.get(*path) != other.get(*path)).collect();
    assert!(differs.is_empty(), "SEED={seed}: c1 and c2 differ in {differs:?}");
    judge(&tree, &known, seed);
}

/// Raises a flag however the scope is left.
struct Raise<'a>(&'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One kill at a random moment, some time without, and a start like any other.
fn kill_one(world: &mut World, dice: &mut Dice, kill: u64) {
    dice.pause(0, 600);
    let victims = match dice.below(8) {
        0..2 => vec!["hub"],
        2..4 => vec!["c1"],
        4..6 => vec!["c2"],
        6 => vec!["hub", "c1"],
        _ => vec!["c1", "c2"],
    };
    let plain = dice.below(2) == 0;
    println!("kill {kill}: {victims:?}{}", if plain { ", plain in between" } else { "" });
    for victim in &victims {
        match *victim {
            "hub" => world.hub.stop(common::Stop::Kill),
            name => {
                let client = if name == "c1" { &mut world.c1 } else { &mut world.c2 };
                client.kill();
                if plain {
                    client.unmount();
                }
            }
        }
    }
    dice.pause(0, 300);
    let World { hub, c1, c2, .. } = world;
    for victim in victims {
        match victim {
            "hub" => hub.start(),
            "c1" => c1.start(hub),
            _ => c2.start(hub),
        }
    }
}

/// Every file is what its person last saw of it, wherever its directory is now, and nothing else is there.
fn judge(tree: &tree::Tree, known: &[BTreeMap<String, Fate>; 2], seed: u64) {
    let mut found: BTreeMap<String, Vec<(&Path, &[u8])>> = BTreeMap::new();
    for (path, entry) in tree {
        if let tree::Entry::File { bytes, .. } = entry {
            let name = path.file_name().unwrap_or_default().display().to_string();
            found.entry(name).or_default().push((path, bytes));
        }
    }
    let mut wrong = Vec::new();
    for (name, fate) in known.iter().flatten() {
        let copies = found.remove(name).unwrap_or_default();
        match (fate, &copies[..]) {
            (Fate::Gone, []) => {}
            (Fate::Holds(bytes), [(_, there)]) if bytes == there => {}
            (Fate::Holds(bytes), there) => {
                let there: Vec<_> = there.iter().map(|(path, bytes)| (path, bytes.len(), head(bytes))).collect();
                wrong.push(format!("{name} should hold {} bytes {:?}, is {there:?}", bytes.len(), head(bytes)));
            }
            (Fate::Gone, there) => {
                wrong.push(format!(
                    "{name} was removed and is back: {:?}",
                    there.iter().map(|(path, _)| path).collect::<Vec<_>>()
                ));
            }
        }
    }
    for n in 0..150 {
        for who in ["one", "two"] {
            if found.remove(&format!("bulk {who} {n}")).is_none_or(|copies| copies.len() != 1) {
                wrong.push(format!("bulk {who} {n} is not there once"));
            }
        }
    }
    wrong.extend(found.keys().map(|name| format!("{name} comes from nowhere")));
    assert!(wrong.is_empty(), "SEED={seed}:\n{}", wrong.join("\n"));
}

fn head(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(24)]).into_owned()
}
