//! The people: they read before they write, every line they add is unlike any other, and the world remembers what they took away.

use crate::disk::ROOT;
use crate::world::World;
use crate::world::remember;
use std::collections::BTreeSet;
use syncfs::merge::replica::Event;
use syncfs::merge::replica::Resolution;
use syncfs::model::Attrs;
use syncfs::model::Content;
use syncfs::model::Hash;
use syncfs::model::Kind;
use syncfs::model::Name;

#[derive(Default)]
pub struct People {
    next: u64,
    pub written: BTreeSet<String>,
    pub removed: BTreeSet<String>,
    pub buried: BTreeSet<String>,
}

pub fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

pub fn text(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

fn name(world: &mut World) -> Name {
    let n = world.dice.below(5);
    Name::new(format!("n{n}").as_bytes()).expect("a name")
}

/// The lines of everything at and below an inode.
pub fn all_lines(world: &World, at: usize, ino: u64) -> Vec<String> {
    let disk = &world.clients[at].disk;
    let Some(node) = disk.inodes.get(&ino) else { return Vec::new() };
    let below = node.entries.values().flat_map(|child| all_lines(world, at, *child));
    let own = if node.kind == Kind::File { lines(&node.bytes) } else { Vec::new() };
    own.into_iter().chain(below).collect()
}

/// Whether a conflict blocks something at or below an inode: the mount would refuse.
fn is_blocked(world: &World, at: usize, ino: u64) -> bool {
    let client = &world.clients[at];
    let Some(running) = &client.running else { return false };
    client.blocked.iter().any(|id| {
        let place = running.replica.path(*id).and_then(|path| client.disk.at(&path));
        place.is_some_and(|place| client.disk.is_below(place, ino))
    })
}

/// Somebody at client `at` does something to a file.
pub fn act(world: &mut World, at: usize) {
    let walk = world.clients[at].disk.walk();
    let dirs: Vec<u64> = [ROOT]
        .into_iter()
        .chain(walk.iter().map(|(_, ino)| *ino).filter(|ino| world.clients[at].disk.inodes[ino].kind == Kind::Dir))
        .collect();
    let dir = *world.dice.pick(&dirs).expect("there is a root");
    let new = name(world);
    let taken = world.clients[at].disk.child(dir, &new);
    let some = world.dice.pick(&walk).cloned();
    let spot = some.as_ref().map(|(path, ino)| {
        let (name, parents) = path.split_last().expect("not the root");
        (world.clients[at].disk.at(parents).expect("it was walked"), name.clone(), *ino)
    });
    let device = world.clients[at].device;
    match world.dice.below(12) {
        0..=2 => {
            if taken.is_none() {
                let bytes = if world.dice.one_in(8) { Vec::new() } else { text(&[fresh(world)]) };
                create(world, at, dir, &new, Kind::File, bytes);
            }
        }
        3 => {
            if taken.is_none() {
                let kind = if world.dice.one_in(4) { Kind::Symlink } else { Kind::Dir };
                let target = if kind == Kind::Symlink { format!("t{}", world.dice.below(9)).into_bytes() } else { Vec::new() };
                create(world, at, dir, &new, kind, target);
            }
        }
        4..=7 => {
            if let Some((parent, name, ino)) = spot {
                edit(world, at, parent, &name, ino);
            }
        }
        8 => {
            if let Some((parent, name, ino)) = spot
                && !is_blocked(world, at, ino)
            {
                let gone = all_lines(world, at, ino);
                world.people.removed.extend(gone);
                world.clients[at].disk.remove(parent, &name);
                world.log(|| format!("c{device} removes {name:?}"));
                world.clients[at].touched(parent, &name);
            }
        }
        9 | 10 => {
            if let Some((parent, name, ino)) = spot {
                rename(world, at, (parent, &name, ino), dir, &new);
            }
        }
        _ => {
            if let Some((parent, name, ino)) = spot
                && !is_blocked(world, at, ino)
            {
                let node = &world.clients[at].disk.inodes[&ino];
                if node.kind != Kind::Symlink {
                    let mode = if node.attrs.mode & 0o100 == 0 { 0o755 } else { 0o700 };
                    let attrs = Attrs { mode, ..node.attrs };
                    world.clients[at].disk.set_attrs(ino, attrs);
                    world.clients[at].touched(parent, &name);
                }
            }
        }
    }
}

pub fn fresh(world: &mut World) -> String {
    world.people.next += 1;
    let line = format!("line {}", world.people.next);
    world.people.written.insert(line.clone());
    line
}

pub fn create(world: &mut World, at: usize, dir: u64, name: &Name, kind: Kind, bytes: Vec<u8>) {
    remember(&bytes);
    let device = world.clients[at].device;
    world.log(|| format!("c{device} creates {name:?} {kind:?} {:?}", String::from_utf8_lossy(&bytes)));
    world.clients[at].disk.make(dir, name, kind, bytes, None);
    world.clients[at].touched(dir, name);
}

fn edit(world: &mut World, at: usize, parent: u64, name: &Name, ino: u64) {
    let node = world.clients[at].disk.inodes[&ino].clone();
    if node.kind != Kind::File || is_blocked(world, at, ino) {
        return;
    }
    let mut all = lines(&node.bytes);
    if world.dice.one_in(4) && !all.is_empty() {
        let gone = all.remove(world.dice.below(all.len()));
        world.people.removed.insert(gone);
    } else {
        let line = fresh(world);
        let to = world.dice.below(all.len() + 1);
        all.insert(to, line);
    }
    let bytes = text(&all);
    remember(&bytes);
    let device = world.clients[at].device;
    world.log(|| format!("c{device} edits {name:?} to {:?}", String::from_utf8_lossy(&bytes)));
    let disk = &mut world.clients[at].disk;
    match world.dice.below(3) {
        // In place, by rename over, by rename away and create.
        0 => disk.write(ino, bytes),
        1 => {
            let temp = Name::new(b"save.tmp").expect("a name");
            disk.make(parent, &temp, Kind::File, bytes, None);
            disk.rename(parent, &temp, parent, name);
            world.clients[at].touched(parent, &temp);
        }
        _ => {
            disk.remove(parent, name);
            disk.make(parent, name, Kind::File, bytes, None);
        }
    }
    world.clients[at].touched(parent, name);
}

fn rename(world: &mut World, at: usize, from: (u64, &Name, u64), dir: u64, new: &Name) {
    let (parent, name, ino) = from;
    let client = &world.clients[at];
    let target = client.disk.child(dir, new);
    let is_dir = |ino: u64| client.disk.inodes[&ino].kind == Kind::Dir;
    if client.disk.is_below(dir, ino) || target == Some(ino) || is_blocked(world, at, ino) {
        return;
    }
    if let Some(target) = target {
        // As rename(2): a directory only over an empty directory, a file over a file; or the two are exchanged.
        if is_blocked(world, at, target) || client.disk.is_below(parent, target) {
            return;
        }
        if world.dice.one_in(2) {
            let temp = Name::new(b"exchange.tmp").expect("a name");
            let disk = &mut world.clients[at].disk;
            disk.rename(dir, new, dir, &temp);
            disk.rename(parent, name, dir, new);
            disk.rename(dir, &temp, parent, name);
            world.clients[at].touched(dir, &temp);
        } else if is_dir(ino) == is_dir(target) && client.disk.inodes[&target].entries.is_empty() {
            let gone = all_lines(world, at, target);
            world.people.removed.extend(gone);
            world.clients[at].disk.rename(parent, name, dir, new);
        } else {
            return;
        }
    } else {
        world.clients[at].disk.rename(parent, name, dir, new);
    }
    let device = world.clients[at].device;
    world.log(|| format!("c{device} renames {name:?} in {parent} to {new:?} in {dir}"));
    world.clients[at].touched(parent, name);
    world.clients[at].touched(dir, new);
}

/// Whatever is in conflict anywhere is resolved by somebody.
pub fn resolve_all(world: &mut World) {
    for _ in 0..100 {
        let in_conflict =
            |at: &usize| world.clients[*at].running.as_ref().is_some_and(|running| !running.replica.conflicts().is_empty());
        let Some(at) = (0..world.clients.len()).find(in_conflict) else { return };
        resolve(world, at);
        world.rest();
    }
}

/// Somebody resolves a conflict that is shown at client `at`.
pub fn resolve(world: &mut World, at: usize) {
    let Some(running) = &world.clients[at].running else { return };
    let Some((id, conflict)) = running.replica.conflicts().iter().next().map(|(id, conflict)| (*id, conflict.clone())) else {
        return;
    };
    let bytes = |content: &Content| content.blob().and_then(crate::world::old_bytes).unwrap_or_default();
    let (ours, theirs) = (bytes(&conflict.ours), bytes(&conflict.theirs));
    let drop = |world: &mut World, of: &[u8], kept: &[u8]| {
        let kept: BTreeSet<String> = lines(kept).into_iter().collect();
        world.people.removed.extend(lines(of).into_iter().filter(|line| !kept.contains(line)));
    };
    let is_file = matches!(conflict.ours, Content::File { .. });
    let how = match world.dice.below(if is_file { 3 } else { 2 }) {
        0 => {
            drop(world, &theirs, &ours);
            Resolution::Ours
        }
        1 => {
            drop(world, &ours, &theirs);
            Resolution::Theirs
        }
        _ => {
            let mut all = lines(&ours);
            let more: Vec<String> = lines(&theirs).into_iter().filter(|line| !all.contains(line)).collect();
            all.extend(more);
            let both = text(&all);
            remember(&both);
            world.clients[at].staged.insert(Hash::of(&both), both.clone());
            Resolution::Content(Content::file(&both))
        }
    };
    let device = world.clients[at].device;
    world.log(|| format!("c{device} resolves {id:?} with {how:?}"));
    let now = world.now;
    world.clients[at].handle(Event::Resolve { node: id, how }, now);
}
