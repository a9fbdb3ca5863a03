//! A real hub on the loopback interface, and clients that speak the wire's messages by hand.

mod control;
mod hostile;
mod sync;

use super::Hub;
use super::HubSettings;
use super::Reply;
use super::Request;
use crate::admin::KeyPair;
use crate::admin::PublicKey;
use crate::model::Attrs;
use crate::model::Change;
use crate::model::Content;
use crate::model::Epoch;
use crate::model::Hash;
use crate::model::Mtime;
use crate::model::Name;
use crate::model::NodeId;
use crate::model::Op;
use crate::model::OpId;
use crate::model::Place;
use crate::model::Record;
use crate::model::Seq;
use crate::model::Verdict;
use crate::net::Closed;
use crate::net::ConnectError;
use crate::net::ConnectOptions;
use crate::net::HubConnection;
use crate::net::Identity;
use crate::net::connect;
use crate::wire::CatchUp;
use crate::wire::ContentReply;
use crate::wire::ContentRequest;
use crate::wire::Hello;
use crate::wire::PROTOCOL;
use crate::wire::PutBody;
use crate::wire::PutReply;
use crate::wire::Sent;
use crate::wire::ToClient;
use crate::wire::ToHub;
use crate::wire::Welcome;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

struct Site {
    /// Kept for its directory.
    _dir: TempDir,
    data: PathBuf,
    hub: Option<Hub>,
    key: PublicKey,
}

impl Site {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("hub");
        let key = super::init(&data).unwrap();
        let mut place = Self { _dir: dir, data, hub: None, key };
        place.start();
        place
    }

    fn hub(&self) -> &Hub {
        self.hub.as_ref().expect("it runs")
    }

    fn start(&mut self) {
        self.hub = Some(Hub::start(&self.data, "127.0.0.1:0".parse().unwrap(), HubSettings::default()).unwrap());
    }

    /// Ends the hub without a word and starts it again.
    async fn restart(&mut self) {
        let hub = self.hub.take();
        tokio::task::spawn_blocking(move || drop(hub)).await.unwrap();
        self.start();
    }

    async fn register(&self, name: &str) -> Device {
        self.register_as(name, false).await
    }

    async fn register_as(&self, name: &str, read_only: bool) -> Device {
        let device = Device::unknown(name);
        let request = Request::Register { key: device.identity.public().to_string(), name: name.into(), read_only };
        let reply = self.hub().operate(request).await;
        assert!(matches!(reply, Reply::Device(_)), "{reply:?}");
        device
    }

    async fn connect(&self, device: &Device) -> Result<HubConnection, ConnectError> {
        let addr = self.hub().addr().to_string();
        soon(connect(&addr, &device.identity, &[self.key], &ConnectOptions::default())).await
    }

    /// Connects and joins as the device stands.
    async fn join<'a>(&self, device: &'a mut Device) -> Client<'a> {
        let mut connection = self.connect(device).await.unwrap();
        device.boot += 1;
        soon(connection.control.send.send(&device.hello())).await.unwrap();
        let welcome = soon(connection.control.recv.recv::<Welcome>()).await.unwrap().expect("a welcome");
        device.epoch = Some(welcome.epoch);
        Client { connection, welcome, device }
    }

    async fn status(&self) -> super::HubStatus {
        match self.hub().operate(Request::Status).await {
            Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }
}

/// What a client keeps between connections.
struct Device {
    identity: Identity,
    instance: [u8; 16],
    boot: u64,
    epoch: Option<Epoch>,
    cursor: Seq,
    chain: Hash,
}

impl Device {
    fn unknown(name: &str) -> Self {
        let identity = Identity::from_pkcs8(KeyPair::generate().unwrap().pkcs8()).unwrap();
        let instance = std::array::from_fn(|i| Hash::of(name.as_bytes()).0[i]);
        Self { identity, instance, boot: 0, epoch: None, cursor: 0, chain: Hash([0; 32]) }
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            volume: None,
            epoch: self.epoch,
            instance: self.instance,
            boot: self.boot,
            cursor: self.cursor,
            chain: self.chain,
            held: Vec::new(),
        }
    }
}

struct Client<'a> {
    connection: HubConnection,
    welcome: Welcome,
    device: &'a mut Device,
}

impl Client<'_> {
    async fn next(&mut self) -> ToClient {
        soon(self.connection.control.recv.recv::<ToClient>()).await.unwrap().expect("a message")
    }

    async fn say(&mut self, message: &ToHub) {
        soon(self.connection.control.send.send(message)).await.unwrap();
    }

    /// Proposes and gives the verdicts; records on the way are taken in.
    async fn propose(&mut self, groups: Vec<Vec<Op>>) -> Vec<Vec<Verdict>> {
        self.say(&ToHub::Propose { batch: 5, groups }).await;
        loop {
            match self.next().await {
                ToClient::Verdicts { batch: 5, verdicts } => return verdicts,
                message => drop(self.take(message)),
            }
        }
    }

    fn take(&mut self, message: ToClient) -> Vec<Sent> {
        let ToClient::Records { records, chain } = message else { panic!("{message:?}") };
        for sent in &records {
            assert_eq!(sent.record.seq, self.device.cursor + 1);
            self.device.cursor += 1;
        }
        self.device.chain = chain;
        records
    }

    /// Takes records in up to number `upto` and acknowledges them.
    async fn follow(&mut self, upto: Seq) -> Vec<Sent> {
        let mut all = Vec::new();
        while self.device.cursor < upto {
            let message = self.next().await;
            all.extend(self.take(message));
        }
        self.say(&ToHub::Ack { cursor: upto, held: Vec::new() }).await;
        all
    }

    async fn put(&self, bytes: &[u8]) -> PutReply {
        let body = PutBody::Whole(zstd::bulk::compress(bytes, 1).unwrap());
        self.ask(&ContentRequest::Put { hash: Hash::of(bytes), len: bytes.len() as u64, body }).await
    }

    async fn ask<M: crate::wire::Wire>(&self, request: &ContentRequest) -> M {
        let mut stream = soon(self.connection.connection.open_content()).await.unwrap();
        soon(stream.send.send(request)).await.unwrap();
        soon(stream.recv.recv::<M>()).await.unwrap().expect("a reply")
    }

    async fn get(&self, hash: Hash, have: Vec<Hash>) -> ContentReply {
        self.ask(&ContentRequest::Get { hash, have }).await
    }

    async fn closed(&self) -> Closed {
        soon(self.connection.connection.closed()).await
    }
}

fn id(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn create(node: u8, name: &str, bytes: &[u8]) -> Op {
    let change = Change {
        place: Some(Some(Place { parent: NodeId::ROOT, name: Name::new(name.as_bytes()).unwrap() })),
        content: Some(Content::file(bytes)),
        attrs: Some(Attrs { mode: 0o644, mtime: Mtime::default() }),
        parents: Vec::new(),
    };
    Op { id: OpId([node; 16]), node: id(node), expect_place: 0, expect_content: 0, change }
}

fn edit(op: u8, node: u8, expect: Seq, bytes: &[u8]) -> Op {
    let change = Change { content: Some(Content::file(bytes)), ..Change::default() };
    Op { id: OpId([op; 16]), node: id(node), expect_place: 0, expect_content: expect, change }
}

fn node_of(sent: &Sent) -> (NodeId, Seq) {
    let Record { node, seq, .. } = sent.record;
    (node, seq)
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
    bytes
}
