//! One action of the replica at a time, and what the hub says.

use super::engine::Engine;
use super::engine::Fault;
use super::engine::now;
use super::fetch;
use super::fetch::Wanted;
use super::inputs::FetchFailure;
use super::inputs::Input;
use super::inputs::UploadFailure;
use super::link::Session;
use super::link::Trouble;
use super::upload;
use super::upload::Offer;
use crate::fs::root::Marker;
use crate::merge::delta;
use crate::merge::replica::Action;
use crate::merge::replica::Event;
use crate::model::Content;
use crate::model::Hash;
use crate::model::Name;
use crate::model::NodeId;
use crate::wire::Hello;
use crate::wire::PROTOCOL;
use crate::wire::Sent;
use crate::wire::ToClient;
use crate::wire::ToHub;
use crate::wire::Welcome;
use std::collections::BTreeSet;
use tokio::sync::oneshot;

/// So many writes are committed without waiting for more.
const WRITES: usize = 2_000;

impl Engine {
    /// Does one action.
    pub fn act(&mut self, action: Action) -> Result<(), Fault> {
        match action {
            Action::Persist { ticket, writes } => {
                self.writes.extend(writes);
                self.ticket = Some(ticket);
                if self.writes.len() > WRITES {
                    self.flush()?;
                }
            }
            Action::Propose { batch, groups } => {
                tracing::debug!(batch, ?groups, "proposes");
                self.say(ToHub::Propose { batch, groups })
            }
            Action::Ack { cursor, held } => self.say(ToHub::Ack { cursor, held }),
            Action::Fetch { node, hash, len, have } => self.fetch(Some(node), hash, len, have),
            Action::Upload { node, hash, len, base } => self.upload(node, hash, len, base),
            Action::Place { node, step, after_persist } => {
                if after_persist {
                    self.flush()?;
                    if self.stalled.is_some() {
                        self.actions.push_front(Action::Place { node, step, after_persist });
                        return Ok(());
                    }
                }
                let outcome = self.place(node, &step);
                self.tell(Event::Placed { node, outcome });
            }
            Action::Merge { node, base, ours, theirs } => self.merge(node, base, ours, theirs),
            Action::Look { node, places } => {
                self.look_at(places);
                self.tell(Event::Looked { node });
            }
            Action::Blocked { node, blocked } => self.block(node, blocked),
        }
        Ok(())
    }

    /// What the hub hears once everything before it is durable.
    fn say(&mut self, message: ToHub) {
        self.outbox.push(message);
    }

    /// Looks at places, and at every name of a directory where none is given.
    fn look_at(&mut self, places: Vec<(NodeId, Option<Name>)>) {
        let mut spots = BTreeSet::new();
        for (parent, name) in places {
            if let Some(name) = name {
                spots.insert((parent, name));
                continue;
            }
            spots.extend(self.replica.children(parent).into_iter().map(|(name, _)| (parent, name)));
            let listed = self.path(parent).map(|path| self.hands.root.list(&path));
            if let Some(Ok(Some(listing))) = listed {
                spots.extend(listing.entries.into_iter().map(|(name, _)| (parent, name)));
            }
        }
        if !spots.is_empty() {
            self.observe(spots);
        }
    }

    fn fetch(&mut self, node: Option<NodeId>, hash: Hash, len: u64, have: Vec<Hash>) {
        let Some(session) = self.session.clone() else { return };
        let local = node.and_then(|node| self.replica.local(node).map(|local| (node, local)));
        let old = local.and_then(|(node, local)| {
            let held = local.content.as_ref().and_then(Content::blob)?;
            Some((self.path(node)?, local.fingerprint, held))
        });
        let (hands, inputs) = (self.hands.clone(), self.inputs.clone());
        self.transfers += 1;
        self.runtime.spawn(async move {
            let number = session.number;
            let result = fetch::fetch(hands, session, Wanted { hash, len, have, old }).await;
            inputs.send(Input::Fetched { session: number, hash, result });
        });
    }

    /// Fetches a content that is no node's newest, for a merge.
    pub fn fetch_for_merge(&mut self, node: NodeId, hash: Hash, len: u64) {
        self.fetch(Some(node), hash, len, Vec::new());
    }

    /// Makes what has arrived durable, all of it together, and tells the replica.
    pub fn take_fetched(&mut self) -> Result<(), Fault> {
        if self.fetched.is_empty() {
            return Ok(());
        }
        let mut arrived = Vec::new();
        for (session, hash, result) in std::mem::take(&mut self.fetched) {
            let result = match result {
                // Placed or swept away in between: who else waits for it asks again.
                Ok(()) if !matches!(self.hands.stage.has(&hash), Ok(true)) => {
                    Err(FetchFailure::Other("it was used up before everybody had it: tried again".into()))
                }
                result => result,
            };
            match result {
                Ok(()) => arrived.push(hash),
                Err(failure) => {
                    let is_current = self.is_current(session);
                    self.waiting.failed(&hash, is_current && matches!(failure, FetchFailure::Absent));
                    if is_current {
                        let what = failure.to_string();
                        tracing::debug!(what, %hash, "fetch");
                        self.tell(Event::FetchFailed { hash, what });
                    }
                }
            }
        }
        if !arrived.is_empty() {
            self.hands.stage.sync(&arrived).map_err(|error| Fault::Store(format!("staged contents are not durable: {error}")))?;
            self.waiting.arrived(&arrived);
            self.tell(Event::Fetched { hashes: arrived });
            self.retry_merges();
        }
        Ok(())
    }

    fn upload(&mut self, node: NodeId, hash: Hash, len: u64, base: Option<Hash>) {
        let Some(session) = self.session.clone() else { return };
        let held = self.replica.local(node).filter(|local| local.content.as_ref().and_then(Content::blob) == Some(hash));
        let offer = held.and_then(|local| {
            let (path, seen) = (self.path(node)?, local.fingerprint);
            Some(Offer { hash, len, base, path, seen })
        });
        let Some(offer) = offer else {
            self.tell(Event::UploadFailed { hash, what: "the file changed before it was sent: tried again".into() });
            return;
        };
        let (hands, inputs) = (self.hands.clone(), self.inputs.clone());
        self.transfers += 1;
        self.runtime.spawn(async move {
            let number = session.number;
            let result = upload::upload(hands, session, offer).await;
            inputs.send(Input::Uploaded { session: number, node, hash, result });
        });
    }

    pub fn uploaded(&mut self, session: u64, node: NodeId, hash: Hash, result: Result<(), UploadFailure>) {
        match result {
            Ok(()) if self.is_current(session) => self.tell(Event::Uploaded { hash }),
            Ok(()) => {}
            Err(failure) => {
                let what = match failure {
                    UploadFailure::Changed => {
                        self.note_node(node);
                        "the file changed while it was sent: tried again".to_owned()
                    }
                    UploadFailure::Other(what) => what,
                };
                if self.is_current(session) {
                    self.tell(Event::UploadFailed { hash, what });
                }
            }
        }
    }

    /// The greeting of a new connection: where this client durably stands.
    pub fn greet(&mut self, asked: oneshot::Sender<Hello>) -> Result<(), Fault> {
        self.flush()?;
        if self.ticket.is_some() {
            // The disk is full: where this client stands is not durable yet.
            self.waiting.hello = Some(asked);
            return Ok(());
        }
        let ids = self.hands.with_store(|store| Ok((store.instance(), store.boot())))?;
        let position = self.replica.position();
        let hello = Hello {
            protocol: PROTOCOL,
            volume: position.map(|position| position.volume),
            epoch: position.map(|position| position.epoch),
            instance: ids.0,
            boot: ids.1,
            cursor: position.map_or(0, |position| position.cursor),
            chain: position.map_or(Hash([0; 32]), |position| position.chain),
            held: self.replica.held(),
        };
        // The connection may have been given up meanwhile.
        let _ = asked.send(hello);
        Ok(())
    }

    pub fn welcomed(&mut self, session: Session, welcome: &Welcome) {
        if self.down || !self.scanned {
            session.connection.close(crate::net::CloseCode::Bye);
            return;
        }
        tracing::info!(device = welcome.name, head = welcome.head, catch_up = ?welcome.catch_up, "connected");
        self.session = Some(session);
        self.since = Some(now());
        self.trouble = None;
        self.outside.welcomed();
        self.device = Some(welcome.name.clone());
        let marker = self.hands.root.marker();
        if let Ok(Some(marker)) = marker
            && marker.volume != welcome.volume
            && let Err(error) = self.hands.root.write_marker(&Marker { volume: welcome.volume, ..marker })
        {
            tracing::warn!(%error, "the identity marker could not be completed");
        }
        self.tell(Event::Connected { welcome: Box::new(welcome.clone()) });
        self.retry_merges();
    }

    pub fn lost(&mut self, trouble: Option<Trouble>) {
        tracing::info!(why = trouble.as_ref().map(|trouble| trouble.sentence.as_str()), "the connection ended");
        self.session = None;
        self.since = Some(now());
        if let Some(trouble) = trouble {
            self.outside.refused(&trouble);
            self.trouble = Some(trouble);
        }
        self.outbox.clear();
        self.tell(Event::Disconnected);
    }

    pub fn heard(&mut self, message: ToClient) {
        match message {
            ToClient::Records { records, chain } => {
                self.stage_deltas(&records);
                let records = records.into_iter().map(|sent| sent.record).collect();
                self.tell(Event::Records { records, chain });
            }
            ToClient::Listing { nodes, upto, chain, last } => self.tell(Event::Listing { nodes, upto, chain, last }),
            ToClient::Verdicts { batch, verdicts } => self.tell(Event::Verdicts { batch, verdicts }),
        }
    }

    /// What came with the records need not be asked for; what cannot be used is.
    fn stage_deltas(&mut self, records: &[Sent]) {
        let mut staged = Vec::new();
        for sent in records {
            let (Some(delta), Some(content)) = (&sent.delta, &sent.record.change.content) else { continue };
            let Content::File { hash, len } = content else { continue };
            let local = self.replica.local(sent.record.node);
            let held = local.and_then(|local| local.content.as_ref()).and_then(Content::blob);
            if held == Some(*hash) {
                continue;
            }
            let here = if held == Some(delta.base) { self.local_bytes(sent.record.node, delta::DELTA_MAX as u64) } else { None };
            let Some(base) = here.or_else(|| self.hands.base(&delta.base)) else { continue };
            match delta::apply(&base, delta, *len, hash) {
                Ok(bytes) => match self.hands.stage_bytes(&bytes) {
                    Ok(hash) => staged.push(hash),
                    Err(error) => tracing::info!(%error, "a small change could not be staged"),
                },
                Err(error) => tracing::info!(%error, "a small change that does not fit"),
            }
        }
        if staged.is_empty() {
            return;
        }
        match self.hands.stage.sync(&staged) {
            Ok(()) => self.tell(Event::Fetched { hashes: staged }),
            Err(error) => tracing::warn!(%error, "staged contents are not durable"),
        }
    }
}
