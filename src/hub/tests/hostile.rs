use super::*;
use crate::model::Refusal;
use crate::model::codec::Decode;
use crate::model::codec::Encode;
use crate::net::CloseCode;
use crate::wire::Chunk;
use crate::wire::ChunkData;
use crate::wire::Delta;
use crate::wire::DeltaForm;
use crate::wire::MAX_GROUPS;
use crate::wire::MAX_HELD;
use crate::wire::Wire;

/// Whether the hub still serves a well-behaved client.
async fn still_well(site: &Site, device: &mut Device) {
    let mut client = site.join(device).await;
    assert_eq!(client.propose(vec![vec![]]).await, [[]]);
    client.connection.connection.close(CloseCode::Bye);
}

/// What breaks the protocol on the control stream ends that connection with a code, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn breaches_end_the_connection() {
    let site = Site::new();
    let mut a = site.register("a").await;
    let mut b = site.register("b").await;
    let held_beyond: Vec<Seq> = vec![1];
    let breaches = [
        ToHub::Ack { cursor: 7, held: Vec::new() },
        ToHub::Ack { cursor: 0, held: held_beyond },
        ToHub::Ack { cursor: 0, held: vec![0; MAX_HELD + 1] },
        ToHub::Propose { batch: 1, groups: vec![Vec::new(); MAX_GROUPS + 1] },
    ];
    for breach in breaches {
        let mut client = site.join(&mut a).await;
        client.say(&breach).await;
        assert_eq!(client.closed().await, Closed::ByPeer(CloseCode::Protocol));
        still_well(&site, &mut b).await;
    }
}

/// A hello that is none, or another message, or of another version, is answered by a close code.
#[tokio::test(flavor = "multi_thread")]
async fn bad_hellos() {
    let site = Site::new();
    let mut a = site.register("a").await;
    let mut first = site.connect(&a).await.unwrap();
    first.control.send.send(&ToHub::Ack { cursor: 0, held: Vec::new() }).await.unwrap();
    assert_eq!(soon(first.connection.closed()).await, Closed::ByPeer(CloseCode::Protocol));
    let table = [
        (Hello { protocol: 99, ..a.hello() }, CloseCode::NoCommonVersion),
        (Hello { volume: Some(crate::model::VolumeId([1; 16])), ..a.hello() }, CloseCode::UnknownVolume),
        (Hello { held: vec![1, 1], ..a.hello() }, CloseCode::Protocol),
    ];
    for (hello, code) in table {
        let mut connection = site.connect(&a).await.unwrap();
        connection.control.send.send(&hello).await.unwrap();
        assert_eq!(soon(connection.connection.closed()).await, Closed::ByPeer(code));
    }
    still_well(&site, &mut a).await;
}

/// Ops that no honest client sends are refused one by one while the connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn bad_ops_are_refused_one_by_one() {
    let site = Site::new();
    let mut a = site.register("a").await;
    let mut client = site.join(&mut a).await;
    let with = |op: Op, change: fn(&mut Op)| {
        let mut op = op;
        change(&mut op);
        op
    };
    let groups = vec![
        vec![with(create(1, "f", b""), |op| op.node = NodeId::ROOT)],
        vec![with(create(2, "f", b""), |op| op.change.attrs = Some(Attrs { mode: 0o6755, mtime: Mtime::default() }))],
        vec![with(create(3, "f", b""), |op| op.change.content = Some(Content::Symlink { target: vec![0] }))],
        vec![edit(4, 99, 1, b"")],
        vec![create(5, "f", b"never sent")],
        vec![create(6, "f", b"")],
    ];
    let malformed = || vec![Verdict::Refused(Refusal::Malformed)];
    let verdicts = client.propose(groups).await;
    assert_eq!(verdicts[..3], [malformed(), malformed(), malformed()]);
    assert_eq!(verdicts[3..], [[Verdict::Stale(None)], [Verdict::NoContent], [Verdict::Committed(1)]]);
}

/// A file said to be longer than its content is not committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_length_is_no_content() {
    let site = Site::new();
    let mut a = site.register("a").await;
    let mut client = site.join(&mut a).await;
    client.put(b"four").await;
    let mut op = create(1, "f", b"four");
    op.change.content = Some(Content::File { hash: Hash::of(b"four"), len: 5 });
    assert_eq!(client.propose(vec![vec![op]]).await, [[Verdict::NoContent]]);
}

/// Contents that are not what was announced are refused, each on its own stream.
#[tokio::test(flavor = "multi_thread")]
async fn bad_contents_are_refused() {
    let site = Site::new();
    let mut a = site.register("a").await;
    let client = site.join(&mut a).await;
    let put = |hash: &[u8], len, body| ContentRequest::Put { hash: Hash::of(hash), len, body };
    let frame = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
    let bomb = frame(&vec![0; 64 << 20]);
    let piece = Chunk { hash: Hash::of(b"x"), len: 1 };
    let refused = [
        put(b"a", 1, PutBody::Whole(b"no frame".to_vec())),
        put(b"a", 1, PutBody::Whole(frame(b"b"))),
        put(b"a", 2, PutBody::Whole(frame(b"a"))),
        put(b"a", 64 << 20, PutBody::Whole(bomb)),
        put(b"a", 1, PutBody::Chunks(vec![piece])),
    ];
    for request in refused {
        let reply = client.ask::<PutReply>(&request).await;
        assert!(matches!(reply, PutReply::Refused { .. }), "{reply:?}");
    }
    let delta = Delta { base: Hash::of(b"a"), form: DeltaForm::Text, bytes: vec![0xff; 100] };
    client.put(b"a").await;
    assert_eq!(client.ask::<PutReply>(&put(b"b", 1, PutBody::Delta(delta))).await, PutReply::SendWhole);
    assert_eq!(client.get(Hash::of(b"b"), vec![Hash::of(b"a"); 1000]).await, ContentReply::Absent);

    let list = vec![Chunk { hash: Hash::of(b"x"), len: 1 << 18 }, Chunk { hash: Hash::of(b"y"), len: 1 << 18 }];
    let mut stream = client.connection.connection.open_content().await.unwrap();
    stream.send.send(&put(b"xy", 1 << 19, PutBody::Chunks(list))).await.unwrap();
    assert_eq!(soon(stream.recv.recv::<PutReply>()).await.unwrap(), Some(PutReply::SendChunks(vec![0, 1])));
    stream.send.send(&ChunkData { bytes: Some(frame(b"not x")) }).await.unwrap();
    assert!(matches!(soon(stream.recv.recv::<PutReply>()).await, Ok(Some(PutReply::Refused { .. }))));
    assert_eq!(client.put(b"still").await, PutReply::Stored);
}

/// Another message on a content stream, or half of one, ends that stream; the connection and its other streams go on.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_content_streams() {
    let site = Site::new();
    let mut a = site.register("a").await;
    let mut client = site.join(&mut a).await;
    for _ in 0..40 {
        let mut stream = soon(client.connection.connection.open_content()).await.unwrap();
        stream.send.send(&ToHub::Ack { cursor: 0, held: Vec::new() }).await.unwrap();
        assert!(soon(stream.recv.recv::<ContentReply>()).await.is_err());
        let mut abandoned = soon(client.connection.connection.open_content()).await.unwrap();
        abandoned.send.finish();
        assert_eq!(soon(abandoned.recv.recv::<ContentReply>()).await, Ok(None));
    }
    assert_eq!(client.propose(vec![vec![create(1, "f", b"")]]).await, [[Verdict::Committed(1)]]);
}

/// Bytes that pretend to be a [`ToHub`].
#[derive(Encode, Decode)]
struct Garbage([u8; 64]);

/// A [`ToHub`] that is longer than any may be.
#[derive(Encode, Decode)]
struct Oversized(Vec<u8>);

/// The layout of a [`ToHub`] with one group of one op, in whose place the name is any bytes.
#[derive(Encode, Decode)]
enum AnyName {
    Propose { batch: u64, groups: Vec<Vec<AnyNameOp>> },
}

#[derive(Encode, Decode)]
struct AnyNameOp {
    id: OpId,
    node: NodeId,
    expect_place: Seq,
    expect_content: Seq,
    place: Option<Option<(NodeId, Vec<u8>)>>,
    content: Option<Content>,
    attrs: Option<Attrs>,
    parents: Vec<Hash>,
}

impl Wire for Garbage {
    const KIND: u16 = ToHub::KIND;
    const MAX: usize = 64;
}

impl Wire for Oversized {
    const KIND: u16 = ToHub::KIND;
    const MAX: usize = usize::MAX;
}

impl Wire for AnyName {
    const KIND: u16 = ToHub::KIND;
    const MAX: usize = ToHub::MAX;
}

fn named(name: &[u8]) -> AnyName {
    let op = AnyNameOp {
        id: OpId([1; 16]),
        node: id(1),
        expect_place: 0,
        expect_content: 0,
        place: Some(Some((NodeId::ROOT, name.to_vec()))),
        content: Some(Content::file(b"")),
        attrs: Some(Attrs { mode: 0o644, mtime: Mtime::default() }),
        parents: Vec::new(),
    };
    AnyName::Propose { batch: 5, groups: vec![vec![op]] }
}

/// Bytes that are no message, one that is too long, and names that would leave the tree: the connection ends, nothing is committed.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message() {
    let site = Site::new();
    let mut a = site.register("a").await;
    let mut b = site.register("b").await;
    for fill in [0x00, 0x01, 0x7f, 0xfb, 0xff] {
        let mut client = site.join(&mut a).await;
        client.connection.control.send.send(&Garbage([fill; 64])).await.unwrap();
        assert_eq!(client.closed().await, Closed::ByPeer(CloseCode::Protocol), "{fill:x}");
    }
    let mut client = site.join(&mut a).await;
    // The hub may close before all of it is sent.
    let _ = client.connection.control.send.send(&Oversized(vec![0; 5 << 20])).await;
    assert_eq!(client.closed().await, Closed::ByPeer(CloseCode::Protocol));
    for bad in [&b""[..], b".", b"..", b"../../etc/passwd", b"/", b"a\0b", b".syncfs", &[b'x'; 256]] {
        let mut client = site.join(&mut a).await;
        client.connection.control.send.send(&named(bad)).await.unwrap();
        assert_eq!(client.closed().await, Closed::ByPeer(CloseCode::Protocol), "{}", bad.escape_ascii());
    }
    still_well(&site, &mut b).await;
    assert_eq!(site.status().await.seq, 0);
    let mut client = site.join(&mut a).await;
    client.connection.control.send.send(&named(b"good")).await.unwrap();
    let ToClient::Verdicts { verdicts, .. } = client.next().await else { panic!() };
    assert_eq!(verdicts, [[Verdict::Committed(1)]], "the layout is the message's own");
}
