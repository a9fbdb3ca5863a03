//! Client and hub over real QUIC on the loopback.

use super::*;
use crate::model::DeviceNo;
use crate::model::Epoch;
use crate::model::Hash;
use crate::model::VolumeId;
use crate::wire;
use crate::wire::CatchUp;
use crate::wire::ContentReply;
use crate::wire::FrameError;
use crate::wire::Hello;
use crate::wire::Welcome;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How long a test waits for what must happen.
const SOON: Duration = Duration::from_secs(20);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it happens within the deadline")
}

/// A registry and the table of live connections under one lock, as a hub has them.
#[derive(Default)]
struct Door {
    inside: Mutex<(BTreeMap<PublicKey, DeviceNo>, Live)>,
}

impl Door {
    fn register(&self, key: PublicKey) -> DeviceNo {
        let mut inside = self.inside.lock().expect("not poisoned");
        let number = inside.0.len() as DeviceNo + 1;
        inside.0.insert(key, number);
        number
    }

    fn revoke(&self, number: DeviceNo) -> usize {
        let mut inside = self.inside.lock().expect("not poisoned");
        inside.0.retain(|_, known| *known != number);
        inside.1.close(number, CloseCode::Revoked)
    }
}

impl Admit for Door {
    fn admit(&self, key: PublicKey, connection: &Connection) -> Result<Admitted, CloseCode> {
        let mut inside = self.inside.lock().expect("not poisoned");
        let number = *inside.0.get(&key).ok_or(CloseCode::NotRegistered)?;
        inside.1.insert(number, connection.clone());
        Ok(Admitted { number, name: format!("device {number}"), read_only: false })
    }
}

struct Hub {
    endpoint: HubEndpoint,
    identity: Identity,
    door: Arc<Door>,
    addr: String,
    _dir: tempfile::TempDir,
}

impl Hub {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let identity = Identity::ephemeral().expect("identity");
        let door = Arc::new(Door::default());
        let endpoint = bind(0, dir.path(), &identity, &door);
        let addr = endpoint.local_addr().expect("addr").to_string();
        Self { endpoint, identity, door, addr, _dir: dir }
    }

    /// A registered client that has said hello, and the hub's end of its connection and control stream.
    async fn client(&mut self) -> (HubConnection, Admission, Stream) {
        let identity = Identity::ephemeral().expect("identity");
        self.door.register(identity.public());
        let mut client = self.connect(&identity).await.expect("let in");
        client.control.send.send(&hello(5)).await.expect("sent");
        let admission = soon(self.endpoint.accept()).await.expect("a connection");
        let mut control = soon(admission.connection.accept_control()).await.expect("control");
        assert_eq!(soon(control.recv.recv::<Hello>()).await, Ok(Some(hello(5))));
        (client, admission, control)
    }

    async fn connect(&self, identity: &Identity) -> Result<HubConnection, ConnectError> {
        soon(connect(&self.addr, identity, &[self.identity.public()], &ConnectOptions::default())).await
    }
}

fn bind(port: u16, dir: &Path, identity: &Identity, door: &Arc<Door>) -> HubEndpoint {
    let options = HubOptions { keys: dir.join("connection-keys") };
    HubEndpoint::bind((Ipv4Addr::LOCALHOST, port).into(), identity, &options, Arc::clone(door) as Arc<dyn Admit>).expect("bound")
}

fn hello(boot: u64) -> Hello {
    let chain = Hash([7; 32]);
    Hello { protocol: 1, volume: None, epoch: None, instance: [1; 16], boot, cursor: 3, chain, held: vec![1, 2] }
}

fn welcome() -> Welcome {
    let (volume, epoch, name) = (VolumeId([2; 16]), Epoch([3; 16]), "laptop".into());
    Welcome { protocol: 1, volume, epoch, device: 1, name, read_only: false, head: 9, catch_up: CatchUp::Log }
}

/// A registered client gets in, both sides exchange messages on the control stream, and the bytes on the wire are counted.
#[tokio::test]
async fn registered_client_gets_in() {
    let mut hub = Hub::start();
    let (mut client, admission, mut control) = hub.client().await;
    assert_eq!(admission.device.number, 1);
    control.send.send(&welcome()).await.expect("sent");
    assert_eq!(soon(client.control.recv.recv::<Welcome>()).await, Ok(Some(welcome())));
    let traffic = client.connection.traffic();
    assert!(traffic.sent > 1000 && traffic.received > 1000, "{traffic:?}");
    client.control.send.finish();
    assert_eq!(soon(control.recv.recv::<Hello>()).await, Ok(None));
    client.finish(CloseCode::Bye).await;
    assert_eq!(soon(admission.connection.closed()).await, Closed::ByPeer(CloseCode::Bye));
}

/// A client that is not registered is told so in a sentence with the command that registers it, and the hub never hands it on.
#[tokio::test]
async fn unregistered_client_is_told_what_to_run() {
    let mut hub = Hub::start();
    let stranger = Identity::ephemeral().expect("identity");
    let error = hub.connect(&stranger).await.expect_err("refused");
    assert!(matches!(error, ConnectError::Refused { code: CloseCode::NotRegistered, .. }), "{error}");
    let sentence = error.to_string();
    assert!(sentence.contains(&hub.addr) && sentence.contains(&stranger.public().fingerprint()), "{sentence}");
    assert!(error.hint().contains(&format!("syncfs admin register {} --name ", stranger.public())), "{}", error.hint());
    assert!(error.hint().ends_with(" --data DIR"), "{}", error.hint());
    let (_client, admission, _control) = hub.client().await;
    assert_eq!(admission.device.number, 1, "the first connection handed on is the registered client's");
}

/// A peer that was not let in cannot open a stream, however early it tries.
#[tokio::test]
async fn unregistered_client_opens_no_stream() {
    let hub = Hub::start();
    let stranger = Identity::ephemeral().expect("identity");
    let pin = tls::PinHub::new(None);
    let addr = hub.addr.parse().expect("addr");
    let options = ConnectOptions::default();
    let Ok((connection, _endpoint)) = soon(client::handshake("hub", addr, &stranger, &pin, &options, tls::ALPN)).await else {
        panic!("the handshake itself succeeds");
    };
    assert_eq!(soon(connection.open_bi()).await.map(drop).map_err(Closed::from), Err(Closed::ByPeer(CloseCode::NotRegistered)));
    assert_eq!(soon(connection.open_uni()).await.map(drop).map_err(Closed::from), Err(Closed::ByPeer(CloseCode::NotRegistered)));
}

/// Revoking a device closes its live connection at once, and the next one is refused.
#[tokio::test]
async fn revoked_client_is_out_at_once() {
    let mut hub = Hub::start();
    let identity = Identity::ephemeral().expect("identity");
    let number = hub.door.register(identity.public());
    let client = hub.connect(&identity).await.expect("let in");
    let _admission = soon(hub.endpoint.accept()).await.expect("a connection");
    assert_eq!(hub.door.revoke(number), 1);
    assert_eq!(soon(client.connection.closed()).await, Closed::ByPeer(CloseCode::Revoked));
    let error = hub.connect(&identity).await.expect_err("refused");
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
}

/// A hub with another key than the pinned one is refused by the client, which names the key it was shown; its own stays hidden.
#[tokio::test]
async fn impostor_hub_is_refused() {
    let impostor = Hub::start();
    let mine = Identity::ephemeral().expect("identity");
    impostor.door.register(mine.public());
    let wanted = Identity::ephemeral().expect("identity").public();
    let error = soon(connect(&impostor.addr, &mine, &[wanted], &ConnectOptions::default())).await.expect_err("refused");
    let ConnectError::WrongHub { shown, pins, .. } = &error else { panic!("{error}") };
    assert_eq!((*shown, &pins[..]), (impostor.identity.public(), &[wanted][..]));
    assert!(error.hint().contains(&wanted.fingerprint()), "{}", error.hint());
    assert_eq!(impostor.door.inside.lock().expect("not poisoned").1.devices().count(), 0);
}

/// While a hub key is being replaced either pin is good enough.
#[tokio::test]
async fn second_pin_is_accepted() {
    let hub = Hub::start();
    let mine = Identity::ephemeral().expect("identity");
    hub.door.register(mine.public());
    let pins = [Identity::ephemeral().expect("identity").public(), hub.identity.public()];
    soon(connect(&hub.addr, &mine, &pins, &ConnectOptions::default())).await.expect("let in");
}

/// At first contact the hub's key can be asked for before anything is trusted or registered.
#[tokio::test]
async fn hub_key_is_shown_to_anybody() {
    let hub = Hub::start();
    assert_eq!(soon(fetch_hub_key(&hub.addr)).await.expect("a key"), hub.identity.public());
}

/// Something that speaks another protocol is not taken for a client.
#[tokio::test]
async fn other_protocol_is_refused() {
    let hub = Hub::start();
    let identity = Identity::ephemeral().expect("identity");
    hub.door.register(identity.public());
    let (pin, options) = (tls::PinHub::new(None), ConnectOptions::default());
    let attempt = client::handshake("hub", hub.addr.parse().expect("addr"), &identity, &pin, &options, b"h3");
    let Err(client::Attempt::Final(error)) = soon(attempt).await else { panic!("refused for good") };
    assert!(matches!(error, ConnectError::NotAHub { .. }), "{error}");
}

/// Every way in which a hub refuses has a sentence and a hint of its own, and says whether waiting helps.
#[test]
fn refusals_are_explained() {
    let own = Identity::ephemeral().expect("identity").public();
    for code in (0x100..=0x10c).map(CloseCode::from_code) {
        let error = ConnectError::lost("hub.example:4433", own, Closed::ByPeer(code));
        assert!(error.to_string().contains("hub.example:4433"), "{error}");
        assert!(!error.hint().is_empty());
    }
    let error = ConnectError::lost("hub.example:4433", own, Closed::Restarted);
    assert!(error.is_temporary(), "{error}");
}

/// A hub that is not there is told apart from one that refuses.
#[tokio::test]
async fn nobody_answers() {
    let silent = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bound");
    let addr = silent.local_addr().expect("addr").to_string();
    let mine = Identity::ephemeral().expect("identity");
    let pins = [mine.public()];
    let error = soon(connect(&addr, &mine, &pins, &ConnectOptions::default())).await.expect_err("nobody");
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.is_temporary());
    let error = soon(connect("no-port-here", &mine, &pins, &ConnectOptions::default())).await.expect_err("no address");
    assert!(matches!(error, ConnectError::Address { .. }), "{error}");
}

/// A bad frame ends its own stream with an error that says what is wrong, and nothing else.
#[tokio::test]
async fn bad_frames_end_their_stream_only() {
    let mut hub = Hub::start();
    let (client, admission, _control) = hub.client().await;
    let good = wire::frame(&hello(1));
    let mut oversized = good.clone();
    oversized[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut kind = good.clone();
    kind[4] = 0xee;
    let mut garbage = good.clone();
    garbage[wire::HEADER_LEN..].fill(0xff);
    let truncated = &good[..good.len() - 1];
    let header_only = &good[..wire::HEADER_LEN - 1];
    for bytes in [&oversized[..], &kind, &garbage, truncated, header_only] {
        let mut stream = soon(client.connection.open_content()).await.expect("a stream");
        stream.send.write(bytes).await.expect("sent");
        stream.send.finish();
        let mut at_hub = soon(admission.connection.accept_content()).await.expect("a stream");
        let error = soon(at_hub.recv.recv::<Hello>()).await.expect_err("refused");
        let expected = match bytes {
            b if b == oversized => matches!(error, RecvError::Frame(FrameError::TooLong { .. })),
            b if b == kind => matches!(error, RecvError::Frame(FrameError::Kind { kind: 0xee, .. })),
            b if b == garbage => matches!(error, RecvError::Frame(FrameError::Codec(_))),
            _ => error == RecvError::Truncated,
        };
        assert!(expected, "{error}");
    }
    let mut stream = soon(client.connection.open_content()).await.expect("a stream");
    stream.send.send(&hello(2)).await.expect("sent");
    let mut at_hub = soon(admission.connection.accept_content()).await.expect("a stream");
    assert_eq!(soon(at_hub.recv.recv::<Hello>()).await, Ok(Some(hello(2))));
}

/// A call to `recv` that is given up in the middle of a frame loses nothing of it.
#[tokio::test]
async fn receiving_is_cancel_safe() {
    let mut hub = Hub::start();
    let (client, admission, _control) = hub.client().await;
    let frame = wire::frame(&hello(4));
    let mut stream = soon(client.connection.open_content()).await.expect("a stream");
    stream.send.write(&frame[..20]).await.expect("sent");
    let mut at_hub = soon(admission.connection.accept_content()).await.expect("a stream");
    tokio::time::timeout(Duration::from_millis(50), at_hub.recv.recv::<Hello>()).await.expect_err("not whole yet");
    stream.send.write(&frame[20..]).await.expect("sent");
    assert_eq!(soon(at_hub.recv.recv::<Hello>()).await, Ok(Some(hello(4))));
}

/// A frame that was begun and does not go on is given up.
#[tokio::test]
async fn unfinished_frame_is_given_up() {
    let mut hub = Hub::start();
    let (client, admission, _control) = hub.client().await;
    let mut stream = soon(client.connection.open_content()).await.expect("a stream");
    stream.send.write(&wire::frame(&hello(4))[..20]).await.expect("sent");
    let mut at_hub = soon(admission.connection.accept_content()).await.expect("a stream");
    while at_hub.recv.begun.is_none() {
        tokio::select! {
            biased;
            received = at_hub.recv.recv::<Hello>() => panic!("{received:?}"),
            () = tokio::time::sleep(Duration::from_millis(10)) => {}
        }
    }
    at_hub.recv.begun = at_hub.recv.begun.and_then(|begun| begun.checked_sub(FRAME_DEADLINE));
    assert_eq!(soon(at_hub.recv.recv::<Hello>()).await, Err(RecvError::TooSlow));
}

/// A message larger than every window arrives whole.
#[tokio::test]
async fn large_message_arrives() {
    let mut hub = Hub::start();
    let (client, admission, _control) = hub.client().await;
    let large = ContentReply::Whole((0..7u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect());
    let mut stream = soon(client.connection.open_content()).await.expect("a stream");
    stream.send.send(&hello(1)).await.expect("sent");
    let mut at_hub = soon(admission.connection.accept_content()).await.expect("a stream");
    let (sent, received) = soon(async { tokio::join!(at_hub.send.send(&large), stream.recv.recv::<ContentReply>()) }).await;
    assert_eq!(sent, Ok(()));
    assert!(received == Ok(Some(large)));
    assert!(client.connection.traffic().received > 7 << 20);
}

/// A client may have its control stream and 32 contents under way; the next waits until earlier ones have ended.
#[tokio::test]
async fn content_streams_are_limited() {
    let mut hub = Hub::start();
    let (client, admission, _control) = hub.client().await;
    let mut streams = Vec::new();
    for boot in 0..32 {
        let mut stream = soon(client.connection.open_content()).await.expect("a stream");
        stream.send.send(&hello(boot)).await.expect("sent");
        streams.push(stream);
    }
    let mut next = Box::pin(client.connection.open_content());
    assert!(is_pending(&mut next).await);
    drop(streams);
    for _ in 0..32 {
        let mut stream = soon(admission.connection.accept_content()).await.expect("a stream");
        assert!(matches!(soon(stream.recv.recv::<Hello>()).await, Ok(Some(_))));
    }
    soon(next).await.expect("a stream");
}

/// Whether a future is not ready when it is asked once.
async fn is_pending<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())).await
}

/// A hub that stops in good order tells its clients so.
#[tokio::test]
async fn stopping_hub_says_so() {
    let mut hub = Hub::start();
    let (client, _admission, _control) = hub.client().await;
    soon(hub.endpoint.shutdown(CloseCode::Restarting)).await;
    assert_eq!(soon(client.connection.closed()).await, Closed::ByPeer(CloseCode::Restarting));
}

/// The oldest of too many connections of one device gives way.
#[tokio::test]
async fn device_with_too_many_connections() {
    let hub = Hub::start();
    let identity = Identity::ephemeral().expect("identity");
    let number = hub.door.register(identity.public());
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(hub.connect(&identity).await.expect("let in"));
    }
    assert_eq!(soon(clients[0].connection.closed()).await, Closed::ByPeer(CloseCode::Elsewhere));
    assert_eq!(hub.door.inside.lock().expect("not poisoned").1.of(number).len(), 4);
}

/// What the hub in a process of its own finds its files and port by.
const HUB_DIR: &str = "SYNCFS_TEST_HUB_DIR";
const HUB_PORT: &str = "SYNCFS_TEST_HUB_PORT";

/// The hub of `killed_and_restarted_hub_is_noticed`, in the process that is killed.
#[test]
#[ignore = "started by another test, in a process of its own"]
fn hub_process() {
    let (Ok(dir), Ok(port)) = (std::env::var(HUB_DIR), std::env::var(HUB_PORT)) else { return };
    let dir = Path::new(&dir);
    let identity = Identity::from_pkcs8(&std::fs::read(dir.join("hub")).expect("key")).expect("identity");
    let door = Arc::new(Door::default());
    door.register(std::fs::read_to_string(dir.join("client")).expect("key").parse().expect("key"));
    Runtime::new().expect("runtime").block_on(async {
        let mut hub = bind(port.parse().expect("port"), dir, &identity, &door);
        let mut kept = Vec::new();
        while let Some(admission) = hub.accept().await {
            kept.push(admission);
        }
    });
}

/// A process that is killed when the test ends, however it ends.
struct HubProcess(std::process::Child);

impl HubProcess {
    fn start(port: u16, dir: &Path) -> Self {
        let mut command = std::process::Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "net::tests::hub_process", "--ignored", "--quiet"]);
        command.env(HUB_DIR, dir).env(HUB_PORT, port.to_string()).stdout(std::process::Stdio::null());
        Self(command.spawn().expect("started"))
    }
}

impl Drop for HubProcess {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("killed");
    }
}

/// A client notices that its hub was killed and started again at the next packet it sends, not only when the idle time is over.
#[test]
fn killed_and_restarted_hub_is_noticed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let pkcs8 = aws_lc_rs::signature::Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()).expect("key");
    std::fs::write(dir.path().join("hub"), pkcs8.as_ref()).expect("written");
    let pins = [Identity::from_pkcs8(pkcs8.as_ref()).expect("identity").public()];
    let mine = Identity::ephemeral().expect("identity");
    std::fs::write(dir.path().join("client"), mine.public().to_string()).expect("written");
    let free = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr()).expect("a port");
    let options = ConnectOptions { keep_alive: Duration::from_millis(300) };
    let runtime = Runtime::new().expect("runtime");

    let first = HubProcess::start(free.port(), dir.path());
    let client = runtime.block_on(soon(async {
        loop {
            match connect(&free.to_string(), &mine, &pins, &options).await {
                Ok(client) => break client,
                Err(error) => assert!(error.is_temporary(), "{error}"),
            }
        }
    }));
    drop(first);
    let _second = HubProcess::start(free.port(), dir.path());
    assert_eq!(runtime.block_on(soon(client.connection.closed())), Closed::Restarted);
}
