//! A hub, its clients, the wire between them and the people at the keyboards; one seed is one history.

use crate::client::Client;
use crate::dice::Dice;
use crate::monitor;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use syncfs::merge::replica::Event as ClientEvent;
use syncfs::merge::sequencer::Action;
use syncfs::merge::sequencer::Event;
use syncfs::merge::sequencer::HubState;
use syncfs::merge::sequencer::HubWrite;
use syncfs::merge::sequencer::Sequencer;
use syncfs::model::Epoch;
use syncfs::model::Hash;
use syncfs::model::VolumeId;
use syncfs::wire::ToClient;
use syncfs::wire::ToHub;
use syncfs::wire::Welcome;

thread_local! {
    static WRITTEN: RefCell<BTreeMap<Hash, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Every content that was ever written in this world, as a stand-in for the base store.
pub fn old_bytes(hash: Hash) -> Option<Vec<u8>> {
    WRITTEN.with(|written| written.borrow().get(&hash).cloned())
}

pub fn remember(bytes: &[u8]) {
    WRITTEN.with(|written| written.borrow_mut().insert(Hash::of(bytes), bytes.to_vec()));
}

pub enum Down {
    Welcome(Box<Welcome>),
    Message(ToClient),
    Closed,
}

pub struct World {
    pub dice: Dice,
    pub now: u64,
    pub hub: HubState,
    pub contents: BTreeMap<Hash, Vec<u8>>,
    pub sequencer: Option<Sequencer>,
    pub hub_actions: VecDeque<Action>,
    pub clients: Vec<Client>,
    pub registered: BTreeSet<u32>,
    pub down: BTreeMap<u64, VecDeque<Down>>,
    pub next_session: u64,
    pub people: crate::people::People,
}

impl World {
    pub fn new(seed: u64) -> Self {
        WRITTEN.with(|written| written.borrow_mut().clear());
        let mut dice = Dice::new(seed);
        let n = 2 + dice.below(3);
        let mut world = Self {
            now: 1_000_000,
            hub: HubState::new(VolumeId([1; 16]), Epoch(dice.bytes())),
            contents: BTreeMap::new(),
            sequencer: None,
            hub_actions: VecDeque::new(),
            clients: (1..=n as u32).map(Client::new).collect(),
            registered: BTreeSet::new(),
            down: BTreeMap::new(),
            next_session: 1,
            people: crate::people::People::default(),
            dice,
        };
        // Some devices are registered late.
        world.registered = (1..=n as u32).filter(|n| *n <= 2 || world.dice.one_in(2)).collect();
        world.start_hub();
        world
    }

    pub fn log(&self, what: impl FnOnce() -> String) {
        if std::env::var_os("TRACE").is_some() {
            eprintln!("{:>6} {}", self.now, what());
        }
    }

    pub fn start_hub(&mut self) {
        self.sequencer = Some(Sequencer::new(self.hub.clone(), 90 * 24 * 3_600_000));
        self.tell_hub(Event::Devices { active: self.registered.clone() });
    }

    pub fn crash_hub(&mut self) {
        self.log(|| "hub crashes".into());
        self.sequencer = None;
        self.hub_actions.clear();
        let sessions: Vec<u64> = self.down.keys().copied().collect();
        sessions.into_iter().for_each(|session| self.cut(session));
    }

    /// The connection breaks: what is on the way in either direction is lost.
    pub fn cut(&mut self, session: u64) {
        self.down.remove(&session);
        self.tell_hub(Event::Left { session });
        let now = self.now;
        for client in &mut self.clients {
            if client.running.as_ref().is_some_and(|running| running.session == Some(session)) {
                if let Some(running) = &mut client.running {
                    running.session = None;
                    running.to_hub.clear();
                    running.fetches.clear();
                    running.uploads.clear();
                }
                client.handle(ClientEvent::Disconnected, now);
            }
        }
    }

    pub fn tell_hub(&mut self, event: Event) {
        if let Some(sequencer) = &mut self.sequencer {
            let actions = sequencer.handle(event, self.now);
            self.hub_actions.extend(actions);
        }
    }

    pub fn hub_acts(&mut self) {
        let Some(action) = self.hub_actions.pop_front() else { return };
        match action {
            Action::Persist { ticket, writes } => {
                for write in &writes {
                    if let HubWrite::Unlog(seq) = write {
                        monitor::ack_rule(self, *seq);
                    }
                    if let HubWrite::Log(logged) = write {
                        monitor::content_before_name(self, &logged.record);
                    }
                    self.hub.apply(write);
                }
                self.tell_hub(Event::Persisted { ticket });
            }
            Action::Welcome { session, welcome } => self.tell_client(session, Down::Welcome(welcome)),
            Action::Send { session, message } => self.tell_client(session, Down::Message(message)),
            Action::Close { session, .. } => self.tell_client(session, Down::Closed),
        }
    }

    fn tell_client(&mut self, session: u64, message: Down) {
        if let Some(queue) = self.down.get_mut(&session) {
            queue.push_back(message);
        }
    }

    pub fn connect(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let device = client.device;
        let hello = client.hello();
        let Some(running) = &mut client.running else { return };
        // A client is registered and connects once; it joins with what is durable.
        let durable = running.actions.iter().all(|action| !matches!(action, syncfs::merge::replica::Action::Persist { .. }));
        if running.session.is_some() || self.sequencer.is_none() || !durable || !self.registered.contains(&device) {
            return;
        }
        let session = self.next_session;
        self.next_session += 1;
        running.session = Some(session);
        self.down.insert(session, VecDeque::new());
        self.log(|| format!("c{device} connects with cursor {}", hello.cursor));
        self.tell_hub(Event::Joined { session, device, name: format!("c{device}"), read_only: false, hello });
    }

    pub fn hub_receives(&mut self, at: usize) {
        let Some(running) = &mut self.clients[at].running else { return };
        let (Some(session), Some(message)) = (running.session, running.to_hub.pop_front()) else { return };
        match message {
            ToHub::Ack { cursor, held } => self.tell_hub(Event::Ack { session, cursor, held }),
            ToHub::Propose { batch, groups } => {
                let named = groups.iter().flatten().filter_map(|op| op.change.content.as_ref()?.blob());
                let absent = named.filter(|hash| !self.contents.contains_key(hash)).collect();
                self.log(|| format!("s{session} proposes {groups:?}"));
                self.tell_hub(Event::Propose { session, batch, groups, absent });
            }
        }
    }

    pub fn client_receives(&mut self, at: usize) {
        let Some(session) = self.clients[at].running.as_ref().and_then(|running| running.session) else { return };
        let Some(message) = self.down.get_mut(&session).and_then(VecDeque::pop_front) else { return };
        let event = match message {
            Down::Closed => return self.cut(session),
            Down::Welcome(welcome) => ClientEvent::Connected { welcome },
            Down::Message(ToClient::Records { records, chain }) => {
                let records = records.into_iter().map(|sent| sent.record).collect();
                let event = ClientEvent::Records { records, chain };
                if self.dice.one_in(10) {
                    self.clients[at].handle(event.clone(), self.now);
                }
                event
            }
            Down::Message(ToClient::Listing { nodes, upto, chain, last }) => ClientEvent::Listing { nodes, upto, chain, last },
            Down::Message(ToClient::Verdicts { batch, verdicts }) => ClientEvent::Verdicts { batch, verdicts },
        };
        let device = self.clients[at].device;
        self.log(|| format!("c{device} receives {event:?}"));
        self.clients[at].handle(event, self.now);
    }

    /// One content on its way, in either direction.
    pub fn transfer(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let Some(running) = &mut client.running else { return };
        let connected = running.session.is_some_and(|session| self.down.contains_key(&session)) && self.sequencer.is_some();
        if !running.fetches.is_empty() {
            let hash = running.fetches.remove(self.dice.below(running.fetches.len()));
            let event = match self.contents.get(&hash).filter(|_| connected) {
                Some(bytes) => {
                    client.staged.insert(hash, bytes.clone());
                    ClientEvent::Fetched { hashes: vec![hash] }
                }
                None => ClientEvent::FetchFailed { hash, what: "the hub does not hold it".into() },
            };
            client.handle(event, self.now);
        } else if !running.uploads.is_empty() {
            let (node, hash) = running.uploads.remove(self.dice.below(running.uploads.len()));
            let event = match client.bytes_of(node, hash).filter(|_| connected) {
                Some(bytes) => {
                    self.contents.insert(hash, bytes);
                    ClientEvent::Uploaded { hash }
                }
                None => ClientEvent::UploadFailed { hash, what: "changed meanwhile".into() },
            };
            client.handle(event, self.now);
        }
    }

    pub fn client_crashes(&mut self, at: usize) {
        let device = self.clients[at].device;
        self.log(|| format!("c{device} crashes"));
        if let Some(session) = self.clients[at].running.as_ref().and_then(|running| running.session) {
            self.clients[at].crash();
            self.cut(session);
        }
        self.clients[at].crash();
    }

    pub fn start_client(&mut self, at: usize) {
        if self.clients[at].running.is_none() {
            self.clients[at].start(&mut self.dice, self.now);
        }
    }

    /// One thing that happens by itself; returns whether anything could.
    pub fn progress(&mut self) {
        self.now += 20;
        let at = self.dice.below(self.clients.len());
        match self.dice.below(8) {
            0 => self.hub_acts(),
            1 => self.hub_receives(at),
            2 => self.client_receives(at),
            3 => self.transfer(at),
            4 => self.clients[at].observe(self.now),
            5 => self.clients[at].handle(ClientEvent::Tick, self.now),
            _ => {
                let now = self.now;
                self.clients[at].act(&mut self.dice, now);
            }
        }
    }

    /// A stretch of ordinary and unlucky life.
    pub fn live(&mut self, steps: usize) {
        for _ in 0..steps {
            let at = self.dice.below(self.clients.len());
            match self.dice.below(60) {
                0 => self.client_crashes(at),
                1 if self.dice.one_in(2) => self.crash_hub(),
                2 | 3 => {
                    if self.sequencer.is_none() {
                        self.start_hub();
                    }
                }
                4..=6 => self.start_client(at),
                7..=9 => self.connect(at),
                10 => {
                    if let Some(session) = self.clients[at].running.as_ref().and_then(|running| running.session) {
                        self.cut(session);
                    }
                }
                11 if self.dice.one_in(4) => {
                    self.registered.insert(self.clients[at].device);
                    let active = self.registered.clone();
                    self.tell_hub(Event::Devices { active });
                }
                12..=17 => crate::people::act(self, at),
                _ => self.progress(),
            }
        }
    }

    /// Everybody is up and nobody edits: the world must come to rest.
    pub fn rest(&mut self) {
        self.registered = self.clients.iter().map(|client| client.device).collect();
        if self.sequencer.is_none() {
            self.start_hub();
        }
        let active = self.registered.clone();
        self.tell_hub(Event::Devices { active });
        for at in 0..self.clients.len() {
            self.start_client(at);
        }
        for round in 0..60_000 {
            for at in 0..self.clients.len() {
                self.connect(at);
            }
            self.progress();
            if round % 50 == 0 && self.is_at_rest() {
                return;
            }
        }
        for client in &self.clients {
            let Some(running) = &client.running else { continue };
            let queued = (running.actions.len(), running.to_hub.len(), running.fetches.len(), running.uploads.len());
            self.log(|| format!("c{} {queued:?} {:?}", client.device, running.replica.report()));
            running.replica.unsettled().iter().for_each(|line| self.log(|| line.clone()));
        }
        panic!("the world does not come to rest");
    }

    fn is_at_rest(&self) -> bool {
        self.hub_actions.is_empty()
            && self.down.values().all(VecDeque::is_empty)
            && self.clients.iter().all(|client| {
                client.running.as_ref().is_some_and(|running| {
                    running.actions.is_empty()
                        && running.to_hub.is_empty()
                        && running.dirty.is_empty()
                        && running.replica.is_settled()
                })
            })
    }
}
