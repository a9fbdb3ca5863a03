//! One machine: a replica, its disk and database, and hands that do one action at a time.

use crate::dice::Dice;
use crate::disk::Disk;
use crate::disk::LIMBO;
use crate::disk::ROOT;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use syncfs::merge::replica::Action;
use syncfs::merge::replica::ClientState;
use syncfs::merge::replica::Config;
use syncfs::merge::replica::Event;
use syncfs::merge::replica::MergeOutcome;
use syncfs::merge::replica::PlaceFailure;
use syncfs::merge::replica::Replica;
use syncfs::merge::replica::SeenIn;
use syncfs::merge::replica::Sighting;
use syncfs::merge::replica::Step;
use syncfs::merge::replica::limbo_name;
use syncfs::model::Content;
use syncfs::model::Hash;
use syncfs::model::Kind;
use syncfs::model::Name;
use syncfs::model::NodeId;
use syncfs::wire::Hello;
use syncfs::wire::PROTOCOL;
use syncfs::wire::ToHub;

pub struct Client {
    pub device: u32,
    pub disk: Disk,
    pub state: ClientState,
    pub staged: BTreeMap<Hash, Vec<u8>>,
    pub blocked: BTreeSet<NodeId>,
    pub running: Option<Running>,
    pub boots: u64,
}

pub struct Running {
    pub replica: Replica,
    pub actions: VecDeque<Action>,
    pub dirty: BTreeSet<(u64, Name)>,
    pub fetches: Vec<Hash>,
    pub uploads: Vec<(NodeId, Hash)>,
    pub to_hub: VecDeque<ToHub>,
    pub session: Option<u64>,
}

impl Client {
    pub fn new(device: u32) -> Self {
        Self {
            device,
            disk: Disk::new(),
            state: ClientState::default(),
            staged: BTreeMap::new(),
            blocked: BTreeSet::new(),
            running: None,
            boots: 0,
        }
    }

    /// Starts with what the disk and the database hold.
    pub fn start(&mut self, dice: &mut Dice, now: u64) {
        self.boots += 1;
        let mut replica = Replica::new(Config::new(dice.bytes()), self.state.clone());
        self.blocked = replica.conflicts().keys().copied().collect();
        let hashes = self.staged.keys().copied().collect();
        let mut actions: VecDeque<Action> = replica.handle(Event::Fetched { hashes }, now).into();
        let (sightings, complete) = self.scan();
        actions.extend(replica.handle(Event::Observed { sightings, complete, full: true }, now));
        self.running = Some(Running {
            replica,
            actions,
            dirty: BTreeSet::new(),
            fetches: Vec::new(),
            uploads: Vec::new(),
            to_hub: VecDeque::new(),
            session: None,
        });
    }

    pub fn crash(&mut self) {
        self.running = None;
    }

    pub fn hello(&self) -> Hello {
        let position = self.running.as_ref().and_then(|running| running.replica.position());
        Hello {
            protocol: PROTOCOL,
            volume: position.map(|position| position.volume),
            epoch: position.map(|position| position.epoch),
            instance: [self.device as u8; 16],
            boot: self.boots,
            cursor: position.map_or(0, |position| position.cursor),
            chain: position.map_or(Hash([0; 32]), |position| position.chain),
            held: self.running.as_ref().map_or(Vec::new(), |running| running.replica.held()),
        }
    }

    pub fn handle(&mut self, event: Event, now: u64) {
        if let Some(running) = &mut self.running {
            let actions = running.replica.handle(event, now);
            running.actions.extend(actions);
        }
    }

    /// A user's change at a place: the hands will look there.
    pub fn touched(&mut self, dir: u64, name: &Name) {
        if let Some(running) = &mut self.running {
            running.dirty.insert((dir, name.clone()));
        }
    }

    fn scan(&self) -> (Vec<Sighting>, Vec<SeenIn>) {
        let mut sightings = Vec::new();
        let mut complete = vec![SeenIn::Node(NodeId::ROOT), SeenIn::Node(NodeId::LIMBO)];
        self.sight(ROOT, SeenIn::Node(NodeId::ROOT), &mut sightings, &mut complete);
        self.sight(LIMBO, SeenIn::Node(NodeId::LIMBO), &mut sightings, &mut complete);
        (sightings, complete)
    }

    fn sight(&self, dir: u64, seen: SeenIn, sightings: &mut Vec<Sighting>, complete: &mut Vec<SeenIn>) {
        for (name, ino) in self.disk.inodes[&dir].entries.clone() {
            self.sight_one(&name, Some(ino), seen, sightings, complete);
        }
    }

    fn sight_one(&self, name: &Name, ino: Option<u64>, dir: SeenIn, sightings: &mut Vec<Sighting>, complete: &mut Vec<SeenIn>) {
        let look = ino.and_then(|ino| self.disk.look(ino));
        let kind = look.as_ref().map(|look| look.kind);
        sightings.push(Sighting { dir, name: name.clone(), look });
        if let (Some(Kind::Dir), Some(ino)) = (kind, ino) {
            let this = SeenIn::Sighting(sightings.len() - 1);
            complete.push(this);
            self.sight(ino, this, sightings, complete);
        }
    }

    fn dir_node(&self, ino: u64) -> Option<NodeId> {
        if ino == ROOT {
            return Some(NodeId::ROOT);
        }
        let replica = &self.running.as_ref()?.replica;
        replica.by_inode(1, ino).into_iter().find(|id| replica.local(*id).is_some_and(|node| node.kind == Kind::Dir))
    }

    fn dir_inode(&self, id: NodeId) -> Option<u64> {
        match id {
            NodeId::ROOT => Some(ROOT),
            NodeId::LIMBO => Some(LIMBO),
            _ => {
                let replica = &self.running.as_ref()?.replica;
                let ino = self.disk.at(&replica.path(id)?)?;
                (replica.local(id)?.fingerprint.ino == ino).then_some(ino)
            }
        }
    }

    /// Looks at everything that was touched.
    pub fn observe(&mut self, now: u64) {
        let Some(running) = &mut self.running else { return };
        let mut spots = std::mem::take(&mut running.dirty);
        // A node that turns up by its inode is looked for where it was, too.
        for (dir, name) in spots.clone() {
            if let Some(ino) = self.disk.child(dir, &name) {
                let replica = &self.running.as_ref().expect("running").replica;
                for id in replica.by_inode(1, ino) {
                    if let Some(node) = replica.local(id)
                        && let Some(dir) = self.dir_inode(node.place.parent)
                    {
                        spots.insert((dir, node.place.name.clone()));
                    }
                }
            }
        }
        let (mut sightings, mut complete) = (Vec::new(), Vec::new());
        for (dir, name) in spots {
            if !self.disk.inodes.contains_key(&dir) {
                continue;
            }
            let Some(node) = self.dir_node(dir) else { continue };
            if self.dir_inode(node) != Some(dir) {
                // The directory is elsewhere by now, or between two places: looked at again when it is known where.
                self.touched(dir, &name);
            } else {
                self.sight_one(&name, self.disk.child(dir, &name), SeenIn::Node(node), &mut sightings, &mut complete);
            }
        }
        if std::env::var_os("TRACE").is_some() && !sightings.is_empty() {
            eprintln!("{now:>6} c{} sees {sightings:?}", self.device);
        }
        self.handle(Event::Observed { sightings, complete, full: false }, now);
    }

    /// Does the next action of the replica.
    pub fn act(&mut self, dice: &mut Dice, now: u64) {
        let Some(action) = self.running.as_mut().and_then(|running| running.actions.pop_front()) else { return };
        if std::env::var_os("TRACE").is_some() && !matches!(action, Action::Persist { .. } | Action::Ack { .. }) {
            eprintln!("{now:>6} c{} does {action:?}", self.device);
        }
        match action {
            Action::Persist { ticket, writes } => {
                // A crash between two steps is a crash of the world; here the transaction is one step.
                writes.iter().for_each(|write| self.state.apply(write));
                self.handle(Event::Persisted { ticket }, now);
            }
            Action::Propose { batch, groups } => {
                let running = self.running.as_mut().expect("running");
                if running.session.is_some() {
                    running.to_hub.push_back(ToHub::Propose { batch, groups: groups.clone() });
                    if dice.one_in(10) {
                        running.to_hub.push_back(ToHub::Propose { batch, groups });
                    }
                }
            }
            Action::Ack { cursor, held } => {
                let running = self.running.as_mut().expect("running");
                if running.session.is_some() {
                    running.to_hub.push_back(ToHub::Ack { cursor, held });
                }
            }
            Action::Fetch { hash, .. } => self.running.as_mut().expect("running").fetches.push(hash),
            Action::Upload { node, hash, .. } => self.running.as_mut().expect("running").uploads.push((node, hash)),
            Action::Place { node, step, .. } => {
                let outcome = if dice.one_in(15) { Err(PlaceFailure::Busy) } else { self.place(node, &step) };
                let look = outcome.map(|ino| ino.and_then(|ino| self.disk.look(ino)));
                self.handle(Event::Placed { node, outcome: look }, now);
            }
            Action::Merge { node, base, ours, theirs } => {
                let outcome = self.merge(node, &base, &ours, &theirs);
                self.handle(Event::Merged { node, base, ours, theirs, outcome }, now);
            }
            Action::Look { node, places } => {
                for (dir, name) in places {
                    let Some(ino) = self.dir_inode(dir) else { continue };
                    let names: Vec<Name> = match name {
                        Some(name) => vec![name],
                        None => self.disk.inodes[&ino].entries.keys().cloned().collect(),
                    };
                    names.iter().for_each(|name| self.touched(ino, name));
                }
                self.observe(now);
                self.handle(Event::Looked { node }, now);
            }
            Action::Blocked { node, blocked } => {
                if blocked {
                    self.blocked.insert(node);
                } else {
                    self.blocked.remove(&node);
                }
            }
        }
    }

    /// The bytes of a file here, if it still holds that content.
    pub fn bytes_of(&self, node: NodeId, hash: Hash) -> Option<Vec<u8>> {
        let path = self.running.as_ref()?.replica.path(node)?;
        let inode = self.disk.inodes.get(&self.disk.at(&path)?)?;
        (Hash::of(&inode.bytes) == hash).then(|| inode.bytes.clone())
    }

    fn merge(&mut self, node: NodeId, base: &Option<Content>, ours: &Content, theirs: &Content) -> MergeOutcome {
        let ours = ours.blob().and_then(|hash| self.bytes_of(node, hash));
        let theirs = theirs.blob().and_then(|hash| self.staged.get(&hash).cloned());
        let base = base.as_ref().and_then(Content::blob).and_then(crate::world::old_bytes);
        let (Some(base), Some(ours), Some(theirs)) = (base, ours, theirs) else { return MergeOutcome::Conflict };
        match crate::merge_lines(&base, &ours, &theirs) {
            Some(bytes) => {
                crate::world::remember(&bytes);
                self.staged.insert(Hash::of(&bytes), bytes.clone());
                MergeOutcome::Clean(Content::file(&bytes))
            }
            None => MergeOutcome::Conflict,
        }
    }

    fn place(&mut self, node: NodeId, step: &Step) -> Result<Option<u64>, PlaceFailure> {
        let replica = &self.running.as_ref().expect("running").replica;
        if !replica.is_current(node) {
            return Err(PlaceFailure::Changed);
        }
        let here = replica.local(node).cloned();
        let spot = here.as_ref().map(|local| {
            let dir = self.dir_inode(local.place.parent).ok_or(PlaceFailure::Changed)?;
            let ino = self.disk.child(dir, &local.place.name).ok_or(PlaceFailure::Changed)?;
            let same = match local.kind {
                Kind::Dir => ino == local.fingerprint.ino,
                _ => self.disk.fingerprint(ino) == Some(local.fingerprint),
            };
            if same { Ok((dir, local.place.name.clone(), ino)) } else { Err(PlaceFailure::Changed) }
        });
        let spot = spot.transpose()?;
        let bytes = |staged: &BTreeMap<Hash, Vec<u8>>, content: &Content| match content {
            Content::Dir => Ok(Vec::new()),
            Content::Symlink { target } => Ok(target.clone()),
            Content::File { hash, len } if *len > 0 => staged.get(hash).cloned().ok_or(PlaceFailure::NotStaged),
            Content::File { .. } => Ok(Vec::new()),
        };
        match (step, spot) {
            (Step::Create { place, content, attrs }, None) => {
                let dir = self.dir_inode(place.parent).ok_or(PlaceFailure::Changed)?;
                if self.disk.child(dir, &place.name).is_some() {
                    return Err(PlaceFailure::Changed);
                }
                let bytes = bytes(&self.staged, content)?;
                Ok(Some(self.disk.make(dir, &place.name, content.kind(), bytes, Some(*attrs))))
            }
            (Step::Remove, Some((dir, name, ino))) => {
                if !self.disk.inodes[&ino].entries.is_empty() {
                    return Err(PlaceFailure::Changed);
                }
                self.disk.remove(dir, &name);
                Ok(None)
            }
            (Step::Move { place }, Some((dir, name, ino))) => {
                let to = self.dir_inode(place.parent).ok_or(PlaceFailure::Changed)?;
                if self.disk.child(to, &place.name).is_some() || self.disk.is_below(to, ino) {
                    return Err(PlaceFailure::Changed);
                }
                self.disk.rename(dir, &name, to, &place.name);
                Ok(Some(ino))
            }
            (Step::Limbo, Some((dir, name, ino))) => {
                self.disk.rename(dir, &name, LIMBO, &limbo_name(node));
                Ok(Some(ino))
            }
            (Step::Content { content, attrs }, Some((dir, name, _))) => {
                let bytes = bytes(&self.staged, content)?;
                self.disk.remove(dir, &name);
                Ok(Some(self.disk.make(dir, &name, content.kind(), bytes, Some(*attrs))))
            }
            (Step::Attrs { attrs }, Some((_, _, ino))) => {
                self.disk.set_attrs(ino, *attrs);
                Ok(Some(ino))
            }
            _ => Err(PlaceFailure::Changed),
        }
    }
}
