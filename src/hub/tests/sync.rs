use super::*;
use crate::model::Refusal;
use crate::net::CloseCode;
use crate::store::chunk;
use crate::wire::ChunkData;

/// Content first, then the name; the other client gets the record, fetches the content and acknowledges, and the log is empty.
#[tokio::test(flavor = "multi_thread")]
async fn two_clients_share_a_file() {
    let site = Site::new();
    let (mut a, mut b) = (site.register("a").await, site.register("b").await);
    let (mut a, mut b) = (site.join(&mut a).await, site.join(&mut b).await);
    assert_eq!((a.welcome.catch_up, a.welcome.head, a.welcome.name.as_str()), (CatchUp::Log, 0, "a"));
    assert_eq!(a.propose(vec![vec![create(1, "f", b"hello")]]).await, [[Verdict::NoContent]]);
    assert_eq!(a.put(b"hello").await, PutReply::Stored);
    assert_eq!(a.propose(vec![vec![create(1, "f", b"hello")]]).await, [[Verdict::Committed(1)]]);
    let records = b.follow(1).await;
    assert_eq!(records.iter().map(node_of).collect::<Vec<_>>(), [(id(1), 1)]);
    let ContentReply::Whole(frame) = b.get(Hash::of(b"hello"), vec![]).await else { panic!() };
    assert_eq!(zstd::bulk::decompress(&frame, 100).unwrap(), b"hello");
    a.follow(1).await;
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = site.status().await;
        if status.log == 0 {
            assert!(status.clients.iter().all(|client| client.acked == 1 && client.connected));
            break;
        }
        assert!(std::time::Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
}

/// A hub that ends without a word keeps everything it had acknowledged: verdicts, contents, cursors, devices.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_hub_keeps_what_it_said() {
    let mut site = Site::new();
    let (mut a, mut b) = (site.register("a").await, site.register("b").await);
    let mut client = site.join(&mut a).await;
    for n in 1..=20u8 {
        assert_eq!(client.put(&[n]).await, PutReply::Stored);
        let verdicts = client.propose(vec![vec![create(n, &format!("f{n}"), &[n])]]).await;
        assert_eq!(verdicts, [[Verdict::Committed(u64::from(n))]]);
    }
    client.follow(20).await;
    let before = site.status().await;
    site.restart().await;
    drop(client);
    let after = site.status().await;
    assert_eq!((after.seq, &after.root_hash, &after.epoch, after.log), (20, &before.root_hash, &before.epoch, 20));
    let mut client = site.join(&mut a).await;
    assert_eq!((client.welcome.catch_up, client.welcome.head), (CatchUp::Log, 20));
    assert_eq!(client.propose(vec![vec![create(7, "f7", &[7])]]).await, [[Verdict::Committed(7)]], "said twice, done once");
    let mut other = site.join(&mut b).await;
    assert_eq!(other.follow(20).await.len(), 20);
    assert!(matches!(other.get(Hash::of(&[13]), vec![]).await, ContentReply::Whole(_)));
}

/// A small edit travels as a delta: up in its put, down in its record.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_edit_rides_along() {
    let site = Site::new();
    let (mut a, mut b) = (site.register("a").await, site.register("b").await);
    let (mut a, mut b) = (site.join(&mut a).await, site.join(&mut b).await);
    let old: String = (0..500).map(|n| format!("line {n}\n")).collect();
    let new = old.replace("line 250\n", "line two hundred and fifty\n");
    a.put(old.as_bytes()).await;
    a.propose(vec![vec![create(1, "f", old.as_bytes())]]).await;
    let delta = crate::merge::delta::make(old.as_bytes(), new.as_bytes()).unwrap();
    let (hash, len) = (Hash::of(new.as_bytes()), new.len() as u64);
    let put = ContentRequest::Put { hash, len, body: PutBody::Delta(delta.clone()) };
    assert_eq!(a.ask::<PutReply>(&put).await, PutReply::Stored);
    let lost = crate::wire::Delta { base: Hash([1; 32]), ..delta.clone() };
    let other = Hash([2; 32]);
    let put = ContentRequest::Put { hash: other, len, body: PutBody::Delta(lost) };
    assert_eq!(a.ask::<PutReply>(&put).await, PutReply::SendWhole);
    a.propose(vec![vec![edit(2, 1, 1, new.as_bytes())]]).await;
    let records = b.follow(2).await;
    assert_eq!(records[1].delta.as_ref(), Some(&delta));
    assert!(matches!(b.get(hash, vec![Hash::of(old.as_bytes())]).await, ContentReply::Delta(got) if got == delta));
}

/// A large content travels in chunks; what is there already is not asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_content_in_chunks() {
    let site = Site::new();
    let mut a = site.register("a").await;
    let a = site.join(&mut a).await;
    let mut bytes = noise(2 << 20);
    assert_eq!(upload(&a, &bytes).await, chunk(&bytes[..]).unwrap().chunks.len());
    assert_eq!(upload(&a, &bytes).await, 0);
    bytes.insert(1 << 20, 7);
    assert!(upload(&a, &bytes).await <= 3);
    let ContentReply::Chunks(list) = a.get(Hash::of(&bytes), vec![]).await else { panic!() };
    let mut stream = a.connection.connection.open_content().await.unwrap();
    let mut hashes: Vec<Hash> = list.iter().map(|chunk| chunk.hash).collect();
    hashes.push(Hash([3; 32]));
    stream.send.send(&ContentRequest::GetChunks { hashes }).await.unwrap();
    let mut got = Vec::new();
    for chunk in &list {
        let ChunkData { bytes } = soon(stream.recv.recv::<ChunkData>()).await.unwrap().unwrap();
        got.extend(zstd::bulk::decompress(&bytes.unwrap(), chunk.len as usize).unwrap());
    }
    assert_eq!(soon(stream.recv.recv::<ChunkData>()).await.unwrap(), Some(ChunkData { bytes: None }));
    assert_eq!(got, bytes);
}

/// Uploads in chunks; how many were asked for.
async fn upload(client: &Client<'_>, bytes: &[u8]) -> usize {
    let cut = chunk(bytes).unwrap();
    let mut stream = client.connection.connection.open_content().await.unwrap();
    let put = ContentRequest::Put { hash: cut.hash, len: cut.len, body: PutBody::Chunks(cut.list()) };
    stream.send.send(&put).await.unwrap();
    let mut asked = 0;
    loop {
        match soon(stream.recv.recv::<PutReply>()).await.unwrap().unwrap() {
            PutReply::Stored => return asked,
            PutReply::SendChunks(wanted) => {
                for index in &wanted {
                    let at = cut.chunks[*index as usize];
                    let piece = &bytes[at.offset as usize..][..at.chunk.len as usize];
                    let data = ChunkData { bytes: Some(zstd::bulk::compress(piece, 1).unwrap()) };
                    soon(stream.send.send(&data)).await.unwrap();
                }
                asked += wanted.len();
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Whoever is not registered gets as far as the reason, and a reader may read only.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_registered_get_in() {
    let site = Site::new();
    let stranger = Device::unknown("x");
    let refused = site.connect(&stranger).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { code: CloseCode::NotRegistered, .. }), "{refused}");
    let mut reader = site.register_as("r", true).await;
    let mut reader = site.join(&mut reader).await;
    assert!(reader.welcome.read_only);
    assert!(matches!(reader.put(b"x").await, PutReply::Refused { .. }));
    let verdicts = reader.propose(vec![vec![create(1, "f", b"x")]]).await;
    assert_eq!(verdicts, [[Verdict::Refused(Refusal::ReadOnly)]]);
}

/// A revoked device is out at once, stays out, and does not hold the log.
#[tokio::test(flavor = "multi_thread")]
async fn the_revoked_are_out_at_once() {
    let site = Site::new();
    let (mut a, mut b) = (site.register("a").await, site.register("b").await);
    let mut client = site.join(&mut a).await;
    let other = site.join(&mut b).await;
    client.propose(vec![vec![create(1, "f", b"")]]).await;
    client.follow(1).await;
    assert!(matches!(site.hub().operate(Request::Revoke { name: "b".into() }).await, Reply::Device(_)));
    assert_eq!(other.closed().await, Closed::ByPeer(CloseCode::Revoked));
    let refused = site.connect(&b).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused { code: CloseCode::Revoked, .. }), "{refused}");
    client.propose(vec![vec![create(2, "g", b"")]]).await;
    client.follow(2).await;
    client.propose(vec![vec![]]).await;
    let status = site.status().await;
    assert_eq!((status.log, status.clients.len()), (0, 1));
}

/// One key on two machines: the second is refused and told so, the first goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_used_twice() {
    let site = Site::new();
    let mut a = site.register("a").await;
    let mut clone = Device { identity: a.identity.clone(), ..Device::unknown("clone") };
    let mut client = site.join(&mut a).await;
    clone.boot = 1;
    let mut second = site.connect(&clone).await.unwrap();
    second.control.send.send(&clone.hello()).await.unwrap();
    assert_eq!(soon(second.connection.closed()).await, Closed::ByPeer(CloseCode::Elsewhere));
    assert_eq!(client.propose(vec![vec![create(1, "f", b"")]]).await, [[Verdict::Committed(1)]]);
}

/// A hub that is shut down says so, keeps what was under way, and can be started again at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_farewell() {
    let mut site = Site::new();
    let mut a = site.register("a").await;
    let mut client = site.join(&mut a).await;
    client.propose(vec![vec![create(1, "f", b"")]]).await;
    let hub = site.hub.take().unwrap();
    soon(hub.shutdown_async()).await;
    assert_eq!(client.closed().await, Closed::ByPeer(CloseCode::Restarting));
    assert!(!site.data.join(crate::hub::CONTROL_SOCKET).exists());
    site.start();
    assert_eq!(site.status().await.seq, 1);
}

/// Many writers at once: every record has one number, both see the same history.
#[tokio::test(flavor = "multi_thread")]
async fn writers_at_once() {
    let site = Site::new();
    let (mut a, mut b) = (site.register("a").await, site.register("b").await);
    let (mut a, mut b) = (site.join(&mut a).await, site.join(&mut b).await);
    let from_a = async {
        for n in 1..=50 {
            a.propose(vec![vec![create(n, &format!("a{n}"), b"")]]).await;
        }
        a.follow(100).await
    };
    let from_b = async {
        for n in 101..=150 {
            b.propose(vec![vec![create(n, &format!("b{n}"), b"")]]).await;
        }
        b.follow(100).await
    };
    tokio::join!(from_a, from_b);
    assert_eq!(a.device.chain, b.device.chain);
    assert_eq!(site.status().await.seq, 100);
}

/// When the store fails everybody is sent away, the store is opened again, and nothing that was said is lost.
#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_opened_again() {
    let site = Site::new();
    let mut a = site.register("a").await;
    let mut client = site.join(&mut a).await;
    client.put(b"x").await;
    client.propose(vec![vec![create(1, "f", b"x")]]).await;
    site.hub().fail_store().await;
    assert_eq!(client.closed().await, Closed::ByPeer(CloseCode::Restarting));
    drop(client);
    let deadline = std::time::Instant::now() + PATIENCE;
    while let Err(error) = site.connect(&a).await {
        assert!(error.is_temporary() && std::time::Instant::now() < deadline, "{error}");
    }
    let mut client = site.join(&mut a).await;
    assert_eq!(client.follow(1).await.len(), 1);
    assert!(matches!(client.get(Hash::of(b"x"), vec![]).await, ContentReply::Whole(_)));
    client.put(b"y").await;
    assert_eq!(client.propose(vec![vec![create(2, "g", b"y")]]).await, [[Verdict::Committed(2)]]);
}
