//! Hostile peers against real processes: whatever they send is refused, one by one; the process stays up, its memory flat, and honest
//! work goes on.

mod common;

use common::World;
use common::tree;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use syncfs::admin::KeyPair;
use syncfs::model::Attrs;
use syncfs::model::Change;
use syncfs::model::Content;
use syncfs::model::Epoch;
use syncfs::model::Hash;
use syncfs::model::Mtime;
use syncfs::model::Name;
use syncfs::model::Node;
use syncfs::model::NodeId;
use syncfs::model::Op;
use syncfs::model::OpId;
use syncfs::model::Place;
use syncfs::model::PublicKey;
use syncfs::model::Record;
use syncfs::model::Register;
use syncfs::model::Seq;
use syncfs::model::Verdict;
use syncfs::model::VolumeId;
use syncfs::net::Admit;
use syncfs::net::Admitted;
use syncfs::net::CloseCode;
use syncfs::net::ConnectError;
use syncfs::net::ConnectOptions;
use syncfs::net::Connection;
use syncfs::net::HubConnection;
use syncfs::net::HubEndpoint;
use syncfs::net::HubOptions;
use syncfs::net::Identity;
use syncfs::net::Stream;
use syncfs::net::connect;
use syncfs::wire;
use syncfs::wire::CatchUp;
use syncfs::wire::Chunk;
use syncfs::wire::ContentReply;
use syncfs::wire::ContentRequest;
use syncfs::wire::Delta;
use syncfs::wire::DeltaForm;
use syncfs::wire::HEADER_LEN;
use syncfs::wire::Hello;
use syncfs::wire::PROTOCOL;
use syncfs::wire::PutBody;
use syncfs::wire::PutReply;
use syncfs::wire::Sent;
use syncfs::wire::ToClient;
use syncfs::wire::ToHub;
use syncfs::wire::Welcome;
use syncfs::wire::Wire;

/// How often the hub is attacked, in all ways in turn.
const ROUNDS: usize = 200;
/// How much more memory the hub may hold after all of it than after the first attacks, in KiB.
const GROWTH: u64 = 64 << 10;
/// How long a peer may take for its answer.
const ANSWER: Duration = Duration::from_secs(60);
/// Stands in messages where a bad name is put; no name of a volume.
const MARK: &[u8] = b"<the name goes here>";

/// Names that no directory may hold.
fn bad_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [&b""[..], b".", b"..", b"/", b"a/b", b"../escaped", b"/etc/escaped", b"nul\0here", b".syncfs"]
        .map(<[u8]>::to_vec)
        .into();
    names.push(vec![b'x'; 256]);
    names.push(vec![b'x'; 60_000]);
    names
}

/// The integer as the codec writes lengths.
fn varint(n: usize) -> Vec<u8> {
    match u16::try_from(n) {
        Ok(small @ 0..=250) => vec![small as u8],
        Ok(n) => [&[251][..], &n.to_le_bytes()].concat(),
        Err(_) => [&[252][..], &u32::try_from(n).expect("a short name").to_le_bytes()].concat(),
    }
}

/// The frame of a message that holds [`MARK`], with `name` in its place.
fn with_name<M: Wire>(message: &M, name: &[u8]) -> Vec<u8> {
    let frame = wire::frame(message);
    let marked = [&varint(MARK.len())[..], MARK].concat();
    let at = frame.windows(marked.len()).position(|window| window == marked).expect("the mark is in the message");
    let body = [&frame[HEADER_LEN..at], &varint(name.len()), name, &frame[at + marked.len()..]].concat();
    framed::<M>(body.len(), &body)
}

/// A frame that announces `len` bytes and has these.
fn framed<M: Wire>(len: usize, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(len).expect("a length that a header can say");
    [&len.to_le_bytes()[..], &M::KIND.to_le_bytes(), &M::VERSION.to_le_bytes(), body].concat()
}

fn noise(seed: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn name(text: &[u8]) -> Name {
    Name::new(text).expect("a name")
}

fn place(parent: NodeId, text: &[u8]) -> Place {
    Place { parent, name: name(text) }
}

fn attrs() -> Attrs {
    Attrs { mode: 0o644, mtime: Mtime::default() }
}

/// An op that makes a node.
fn make(seed: u8, place: Place, content: Content) -> Op {
    let change = Change { place: Some(Some(place)), content: Some(content), attrs: Some(attrs()), parents: Vec::new() };
    Op { id: OpId([seed; 16]), node: NodeId([seed; 16]), expect_place: 0, expect_content: 0, change }
}

fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        volume: None,
        epoch: None,
        instance: [7; 16],
        boot: 1,
        cursor: 0,
        chain: Hash([0; 32]),
        held: Vec::new(),
    }
}

fn propose(op: Op) -> ToHub {
    ToHub::Propose { batch: 1, groups: vec![vec![op]] }
}

/// What the attacker does on its control stream, and what has to come of it.
enum Attack {
    /// Instead of a hello.
    First(Vec<u8>),
    /// After a good hello; the hub closes the connection.
    Bytes(Vec<u8>),
    /// After a good hello; nothing of it is committed.
    Op(Op),
    /// After a good hello, on a stream of its own; the hub refuses it, or that stream.
    Content(Vec<u8>),
    /// After a good hello; whatever comes of it, no harm does.
    Tell(ToHub),
}

fn attacks() -> Vec<Attack> {
    let hash = Hash([9; 32]);
    let nowhere = NodeId([0xee; 16]);
    let file = Content::File { hash, len: 5 };
    let mut attacks = vec![
        Attack::First(noise(1, 64 << 10)),
        Attack::First(framed::<Hello>(u32::MAX as usize, b"")),
        Attack::First(framed::<Hello>(Hello::MAX + 1, b"x")),
        Attack::First(wire::frame(&hello())[..HEADER_LEN + 9].to_vec()),
        Attack::First(framed::<Hello>(40, &noise(2, 40))),
        Attack::First(wire::frame(&propose(make(1, place(NodeId::ROOT, b"x"), Content::Dir)))),
        Attack::First(Vec::new()),
        Attack::First(wire::frame(&Hello { cursor: u64::MAX, held: vec![1; 4000], ..hello() })),
        Attack::Bytes(noise(3, 1 << 20)),
        Attack::Bytes(framed::<ToHub>(u32::MAX as usize, b"")),
        Attack::Bytes(framed::<ToHub>(ToHub::MAX + 1, &noise(4, 1 << 20))),
        Attack::Bytes(wire::frame(&hello())),
        // Propose, batch 1, and as many groups as there are numbers; then a group of so many ops.
        Attack::Bytes(framed::<ToHub>(11, &[&[0, 1, 253][..], &[0xff; 8]].concat())),
        Attack::Bytes(framed::<ToHub>(12, &[&[0, 1, 1, 253][..], &[0xff; 8]].concat())),
        // A message with something behind it.
        Attack::Bytes(framed::<ToHub>(4, &[1, 0, 0, 0])),
        Attack::Op(Op { expect_content: 5, ..edit(nowhere, file.clone()) }),
        Attack::Op(edit(nowhere, file.clone())),
        Attack::Op(edit(NodeId::ROOT, file.clone())),
        Attack::Op(make(2, place(nowhere, b"orphan"), Content::Dir)),
        Attack::Op(make(3, place(NodeId([3; 16]), b"its own parent"), Content::Dir)),
        Attack::Op(make(4, place(NodeId::ROOT, b"no content"), file)),
        Attack::Op(Op { node: NodeId::ROOT, ..make(5, place(NodeId::ROOT, b"root"), Content::Dir) }),
        Attack::Op(Op { node: NodeId::LIMBO, ..make(6, place(NodeId::ROOT, b"limbo"), Content::Dir) }),
        Attack::Tell(ToHub::Ack { cursor: u64::MAX, held: vec![u64::MAX, 0, 5, 5] }),
        Attack::Tell(ToHub::Propose { batch: 0, groups: vec![Vec::new(); wire::MAX_GROUPS + 1] }),
        Attack::Tell(ToHub::Propose { batch: u64::MAX, groups: Vec::new() }),
        Attack::Content(noise(5, 64 << 10)),
        Attack::Content(framed::<ContentRequest>(u32::MAX as usize, b"")),
        Attack::Content(put(hash, 5, PutBody::Whole(noise(6, 200 << 10)))),
        Attack::Content(put(hash, 5, PutBody::Whole(packed(b"hello")))),
        // A thousand times as long as it looks.
        Attack::Content(put(hash, 256 << 20, PutBody::Whole(packed(&vec![0; 256 << 20])))),
        Attack::Content(put(hash, u64::MAX, PutBody::Chunks(vec![Chunk { hash, len: u32::MAX }; 1000]))),
        Attack::Content(put(hash, 1 << 20, PutBody::Chunks(Vec::new()))),
        Attack::Content(put(hash, 5, PutBody::Delta(Delta { base: hash, form: DeltaForm::Text, bytes: noise(7, 1000) }))),
        Attack::Content(wire::frame(&ContentRequest::GetChunks { hashes: vec![hash; 100_000] })),
        Attack::Content(wire::frame(&ContentRequest::Get { hash, have: vec![hash; 100_000] })),
        Attack::Content(wire::frame(&ContentRequest::Get { hash, have: Vec::new() })[..20].to_vec()),
    ];
    let marked = propose(make(8, place(NodeId::ROOT, MARK), Content::Dir));
    attacks.extend(bad_names().iter().map(|name| Attack::Bytes(with_name(&marked, name))));
    attacks
}

fn edit(node: NodeId, content: Content) -> Op {
    let change = Change { content: Some(content), ..Change::default() };
    Op { id: OpId([0xed; 16]), node, expect_place: 0, expect_content: 0, change }
}

fn put(hash: Hash, len: u64, body: PutBody) -> Vec<u8> {
    wire::frame(&ContentRequest::Put { hash, len, body })
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).expect("compression into memory")
}

/// An attacker with a key.
struct Attacker {
    hub: String,
    identity: Identity,
    pins: Vec<PublicKey>,
}

impl Attacker {
    fn new(world: &World) -> (Self, PublicKey) {
        let pair = KeyPair::generate().expect("a key");
        let identity = Identity::from_pkcs8(pair.pkcs8()).expect("an identity");
        let pins = vec![world.hub.key.parse().expect("the hub's key")];
        (Self { hub: world.hub.listen.clone(), identity, pins }, pair.public())
    }

    async fn connect(&self) -> Result<HubConnection, ConnectError> {
        connect(&self.hub, &self.identity, &self.pins, &ConnectOptions::default()).await
    }

    /// A connection that the hub has let in; while it still counts the one before, this is tried again.
    async fn admitted(&self) -> HubConnection {
        let begun = std::time::Instant::now();
        loop {
            match self.connect().await {
                Ok(hub) => return hub,
                Err(error) if begun.elapsed() < ANSWER => drop(error),
                Err(error) => panic!("a registered device is not let in: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A connection that the hub has welcomed.
    async fn welcomed(&self) -> HubConnection {
        let begun = std::time::Instant::now();
        loop {
            let mut hub = self.admitted().await;
            let asked = hub.control.send.send(&hello()).await;
            let answer = tokio::time::timeout(ANSWER, hub.control.recv.recv::<Welcome>()).await.expect("an answer in time");
            match (asked, answer) {
                (Ok(()), Ok(Some(_))) => return hub,
                // Until the hub has seen the end of the connection before, the device is connected from elsewhere.
                (_, answer) => assert!(begun.elapsed() < ANSWER, "not welcomed: {answer:?}"),
            }
            hub.finish(CloseCode::Bye).await;
        }
    }

    async fn attack(&self, attack: &Attack) {
        let hub = match attack {
            Attack::First(bytes) => {
                let mut hub = self.admitted().await;
                // The hub may close before it has all of it.
                let _ = hub.control.send.write(bytes).await;
                hub.control.send.finish();
                closes(&hub.connection).await;
                hub
            }
            Attack::Bytes(bytes) => {
                let mut hub = self.welcomed().await;
                let _ = hub.control.send.write(bytes).await;
                closes(&hub.connection).await;
                hub
            }
            Attack::Op(op) => {
                let mut hub = self.welcomed().await;
                hub.control.send.send(&propose(op.clone())).await.expect("it is taken");
                refuses(&mut hub, op).await;
                hub
            }
            Attack::Tell(message) => {
                let mut hub = self.welcomed().await;
                let _ = hub.control.send.send(message).await;
                hub
            }
            Attack::Content(bytes) => {
                let hub = self.welcomed().await;
                let mut stream = hub.connection.open_content().await.expect("a stream");
                let _ = stream.send.write(bytes).await;
                stream.send.finish();
                no_success(&mut stream).await;
                hub
            }
        };
        hub.finish(CloseCode::Bye).await;
    }
}

async fn closes(connection: &Connection) {
    tokio::time::timeout(ANSWER, connection.closed()).await.expect("the hub closes the connection");
}

/// The hub says no, or closes.
async fn refuses(hub: &mut HubConnection, op: &Op) {
    loop {
        let message = tokio::time::timeout(ANSWER, hub.control.recv.recv::<ToClient>()).await.expect("an answer in time");
        match message {
            Ok(Some(ToClient::Verdicts { verdicts, .. })) => {
                let committed = verdicts.iter().flatten().any(|verdict| matches!(verdict, Verdict::Committed(_)));
                assert!(!committed, "{op:?} was committed");
                return;
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// Whatever the hub answers, it has not stored anything.
async fn no_success(stream: &mut Stream) {
    let answer = tokio::time::timeout(ANSWER, stream.recv.recv::<PutReply>()).await.expect("an answer in time");
    assert_ne!(answer, Ok(Some(PutReply::Stored)));
}

/// The resident memory of a process in KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A registered device that runs another program, in all ways that come to mind, two hundred times.
#[test]
fn a_hub_under_attack() {
    let mut world = World::new();
    tree::add(&world.c1.dir, "ours");
    world.settle();
    let before = tree::read(&world.c1.dir);
    let pid = world.hub.pid();
    let (attacker, key) = Attacker::new(&world);
    world.hub.register(&key.to_string(), "mallory");
    let attacks = attacks();
    let runtime = runtime();
    // Once all of it, so that buffers which are kept are there.
    for attack in &attacks {
        runtime.block_on(attacker.attack(attack));
        world.hub.assert_alive();
    }
    let flat = memory(pid);
    for attack in attacks.iter().cycle().take(ROUNDS) {
        runtime.block_on(attacker.attack(attack));
    }
    world.hub.assert_alive();
    assert_eq!(world.hub.pid(), pid);
    let now = memory(pid);
    println!("{flat} KiB before, {now} KiB after {ROUNDS} attacks");
    assert!(now < flat + GROWTH, "the hub grew from {flat} KiB to {now} KiB");

    world.settle();
    assert!(tree::read(&world.c1.dir) == before && tree::read(&world.c2.dir) == before, "an attacker changed the tree");
    fs::write(world.c1.dir.join("honest"), "work").expect("a write through the mount");
    fs::remove_dir_all(world.c2.dir.join("ours")).expect("a removal through the mount");
    world.settle();
    assert_eq!([tree::tops(&world.c1.dir), tree::tops(&world.c2.dir)], [["honest"], ["honest"]]);
}

/// Somebody without a registered key, and somebody who does not even speak QUIC.
#[test]
fn strangers_at_the_door() {
    let mut world = World::new();
    fs::write(world.c1.dir.join("ours"), "ours").expect("a write through the mount");
    world.settle();
    let pid = world.hub.pid();
    let (stranger, _) = Attacker::new(&world);
    let runtime = runtime();
    let knock = || {
        runtime.block_on(async {
            match stranger.connect().await {
                Err(ConnectError::Refused { code: CloseCode::NotRegistered, .. }) => {}
                other => panic!("a stranger was not refused as one: {other:?}"),
            }
        });
    };
    knock();
    let flat = memory(pid);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for round in 0..ROUNDS {
        knock();
        for part in 0..20 {
            // Full buffers lose datagrams, which is as good.
            let _ = socket.send_to(&noise(round * 20 + part, 40 + 60 * part), &world.hub.listen);
        }
    }
    world.hub.assert_alive();
    let now = memory(pid);
    println!("{flat} KiB before, {now} KiB after {ROUNDS} strangers");
    assert!(now < flat + GROWTH, "the hub grew from {flat} KiB to {now} KiB");
    fs::write(world.c2.dir.join("honest"), "work").expect("a write through the mount");
    world.settle();
    assert_eq!(tree::tops(&world.c1.dir), ["honest", "ours"]);
}

/// Lets everybody in.
struct Everybody;

impl Admit for Everybody {
    fn admit(&self, _: PublicKey, _: &Connection) -> Result<Admitted, CloseCode> {
        Ok(Admitted { number: 1, name: "prey".into(), read_only: false })
    }
}

/// What a hostile hub sends after its welcome.
enum Lie {
    Bytes(Vec<u8>),
    Say(CatchUp, ToClient),
}

fn node(place: Option<Place>, content: Content) -> Node {
    Node {
        place: Register { seq: 1, value: place },
        content: Register { seq: 1, value: content },
        attrs: Register { seq: 1, value: attrs() },
    }
}

fn listing(nodes: Vec<(NodeId, Node)>) -> ToClient {
    ToClient::Listing { nodes, upto: 9, chain: Hash([1; 32]), last: true }
}

fn record(seq: Seq, node: NodeId, change: Change) -> Sent {
    Sent { record: Record { seq, node, change, author: 2, op: OpId([seq as u8; 16]), at: 0 }, delta: None }
}

fn lies(outside: &Path) -> Vec<Lie> {
    use std::os::unix::ffi::OsStrExt;
    let id = |n: u8| NodeId([n; 16]);
    let file = || Content::File { hash: Hash::of(b"hello"), len: 5 };
    let records = |records| Lie::Say(CatchUp::Log, ToClient::Records { records, chain: Hash([1; 32]) });
    let full = |nodes| Lie::Say(CatchUp::Listing, listing(nodes));
    let link = Content::Symlink { target: outside.as_os_str().as_bytes().to_vec() };
    let removal = Change { place: Some(None), ..Change::default() };
    let content = Change { content: Some(file()), ..Change::default() };
    let new = Change {
        place: Some(Some(place(NodeId::ROOT, b"wrong"))),
        content: Some(file()),
        attrs: Some(attrs()),
        ..Change::default()
    };
    let moved = Change { place: Some(Some(place(id(1), b"root"))), ..Change::default() };
    let mut lies = vec![
        Lie::Bytes(noise(1, 64 << 10)),
        Lie::Bytes(framed::<ToClient>(u32::MAX as usize, b"")),
        Lie::Bytes(framed::<ToClient>(12, &[&[0, 253][..], &[0xff; 8], &[0, 0]].concat())),
        // Nodes that are not there, and the root itself.
        records(vec![record(1, id(5), content.clone()), record(2, id(6), removal.clone())]),
        records(vec![record(3, NodeId::ROOT, removal), record(4, NodeId::ROOT, content), record(5, NodeId::ROOT, moved)]),
        records(vec![record(u64::MAX, id(7), new)]),
        // The bytes that belong to it are others.
        full(vec![(id(10), node(Some(place(NodeId::ROOT, b"wrong")), file()))]),
        // Nowhere, in itself, in each other.
        full(vec![
            (id(11), node(Some(place(id(99), b"orphan")), file())),
            (id(12), node(Some(place(id(12), b"loop")), Content::Dir)),
        ]),
        full(vec![
            (id(13), node(Some(place(id(14), b"a")), Content::Dir)),
            (id(14), node(Some(place(id(13), b"b")), Content::Dir)),
        ]),
        // Through a link, and below a file.
        full(vec![
            (id(15), node(Some(place(NodeId::ROOT, b"way out")), link)),
            (id(16), node(Some(place(id(15), b"escaped")), Content::Dir)),
        ]),
        full(vec![(id(17), node(Some(place(NodeId::LIMBO, b"limbo")), Content::Dir)), (NodeId::ROOT, node(None, file()))]),
    ];
    let marked = listing(vec![(id(20), node(Some(place(NodeId::ROOT, MARK)), Content::Dir))]);
    lies.extend(bad_names().iter().map(|name| Lie::Bytes(with_name(&marked, name))));
    lies
}

/// Tells one lie to each connection in turn; returns when all have been told.
async fn lie(endpoint: &mut HubEndpoint, lies: &[Lie]) {
    for lie in lies {
        let admission =
            tokio::time::timeout(ANSWER, endpoint.accept()).await.expect("the client comes again").expect("the endpoint lives");
        let connection = admission.connection;
        let mut control = connection.accept_control().await.expect("a control stream");
        let hello = control.recv.recv::<Hello>().await.expect("a hello").expect("a hello");
        let catch_up = if let Lie::Say(catch_up, _) = lie { *catch_up } else { CatchUp::Log };
        let welcome = Welcome {
            protocol: PROTOCOL,
            volume: hello.volume.unwrap_or(VolumeId([8; 16])),
            epoch: hello.epoch.unwrap_or(Epoch([8; 16])),
            device: 1,
            name: "prey".into(),
            read_only: false,
            head: 9,
            catch_up,
        };
        control.send.send(&welcome).await.expect("the welcome is taken");
        match lie {
            // The client may close before it has all of it.
            Lie::Bytes(bytes) => {
                let _ = control.send.write(bytes).await;
                closes(&connection).await;
            }
            Lie::Say(_, message) => {
                control.send.send(message).await.expect("the lie is taken");
                // What the client asks for gets other bytes; what it offers is refused.
                let serve = async {
                    while let Ok(mut stream) = connection.accept_content().await {
                        let Ok(Some(request)) = stream.recv.recv::<ContentRequest>().await else { continue };
                        let _ = match request {
                            ContentRequest::Get { .. } => stream.send.send(&ContentReply::Whole(packed(b"wrong"))).await,
                            _ => stream.send.send(&PutReply::Refused { why: "no".into() }).await,
                        };
                        stream.send.finish();
                    }
                };
                let _ = tokio::time::timeout(Duration::from_secs(1), serve).await;
                connection.close(CloseCode::Restarting);
            }
        }
    }
}

/// A hub that lies to a client: nothing gets outside of the directory, nothing that is there is touched, and the mount works on.
#[test]
fn a_client_of_a_hostile_hub() {
    let mut world = World::cold();
    let outside = world.path().join("outside");
    fs::create_dir(&outside).expect("a new directory");
    fs::write(outside.join("kept"), "kept").expect("a new file");
    fs::create_dir(world.c1.dir.join("folder")).expect("a new directory");
    fs::write(world.c1.dir.join("folder/mine"), "mine").expect("a new file");
    let before = tree::read(&world.c1.dir);

    let pair = KeyPair::generate().expect("a key");
    let identity = Identity::from_pkcs8(pair.pkcs8()).expect("an identity");
    let options = HubOptions { keys: world.path().join("transport.keys") };
    let runtime = runtime();
    let any = "127.0.0.1:0".parse().expect("an address");
    let bound = runtime.block_on(async { HubEndpoint::bind(any, &identity, &options, Arc::new(Everybody)) });
    let mut endpoint = bound.expect("an endpoint");
    let address = endpoint.local_addr().expect("its address").to_string();
    world.c1.start_with(&address, &pair.public().to_string());
    let pid = world.c1.pid();
    let lies = lies(&outside);
    let told = runtime.block_on(async {
        // The client waits longer after every refusal; a change makes it come at once.
        let poke = async {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                fs::write(world.c1.dir.join("poke"), "again").expect("a write through the mount");
            }
        };
        tokio::select! { () = lie(&mut endpoint, &lies) => true, () = poke => false }
    });
    assert!(told);
    world.c1.assert_alive();
    assert_eq!(world.c1.pid(), pid);
    let now = tree::read(&world.c1.dir);
    for (path, entry) in &before {
        assert_eq!(now.get(path), Some(entry), "{} was touched", path.display());
    }
    for (path, entry) in &now {
        let bytes = if let tree::Entry::File { bytes, .. } = entry { &bytes[..] } else { b"" };
        assert_ne!(bytes, b"wrong", "{} has bytes that are not those announced", path.display());
        assert!(!path.ends_with("escaped"), "{} is there", path.display());
    }
    assert_eq!(tree::tops(&outside), ["kept"], "something got out");
    assert!(!world.path().join("escaped").exists() && !Path::new("/etc/escaped").exists(), "something got out");
    fs::write(world.c1.dir.join("folder/more"), "more").expect("the mount works on");
    world.c1.stop(common::Stop::Clean);
    assert_eq!(fs::read(world.c1.dir.join("folder/mine")).expect("it is there"), b"mine");
}
