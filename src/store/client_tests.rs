//! The client's store against the state as a value.

use super::*;
use crate::merge::replica::Notice;
use crate::merge::replica::Position;
use crate::merge::replica::Proposed;
use crate::model::Attrs;
use crate::model::Change;
use crate::model::Epoch;
use crate::model::Fingerprint;
use crate::model::Kind;
use crate::model::Mtime;
use crate::model::Register;
use crate::model::VolumeId;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn bytes(n: u8) -> Vec<u8> {
    vec![n; 100 * (n as usize + 1)]
}

fn file(n: u8) -> Content {
    Content::file(&bytes(n))
}

fn node(seq: u64, content: Content) -> Node {
    let attrs = Attrs::of(Kind::File, 0o755, Mtime { secs: 9, nanos: 1 });
    Node {
        place: Register { seq, value: None },
        content: Register { seq, value: content },
        attrs: Register { seq, value: attrs },
    }
}

fn base(n: u8) -> Base {
    let time = Mtime { secs: 1, nanos: 2 };
    Base { node: node(3, file(n)), seen: Some(Fingerprint { dev: 1, ino: 2, size: 3, mtime: time, ctime: time }) }
}

fn intent(n: u8) -> Intent {
    let base = Register { seq: 4, value: file(n + 1) };
    Intent { before: file(n), after: file(n + 2), base, parents: vec![Hash([n; 32])] }
}

fn conflict(n: u8) -> Conflict {
    Conflict { base: (n > 0).then(|| file(n)), ours: file(n + 1), theirs: file(n + 2), since: 5 }
}

fn position(cursor: u64) -> Position {
    Position { volume: VolumeId([1; 16]), epoch: Epoch([2; 16]), device: 3, cursor, chain: Hash([4; 32]), last_sync: 5 }
}

fn write() -> impl Strategy<Value = ClientWrite> {
    let id = || (0u8..3).prop_map(|n| NodeId([n; 16]));
    let n = || option::of(0u8..4);
    prop_oneof![
        (id(), n()).prop_map(|(id, n)| ClientWrite::Base(id, n.map(base))),
        (id(), n()).prop_map(|(id, n)| ClientWrite::Head(id, n.map(|n| node(9, file(n))))),
        (id(), n()).prop_map(|(id, n)| ClientWrite::Proposed(
            OpId(id.0),
            n.map(|n| Proposed { node: NodeId([n; 16]), change: Change::default() })
        )),
        (id(), n()).prop_map(|(id, n)| ClientWrite::Intent(id, n.map(intent))),
        (id(), n()).prop_map(|(id, n)| ClientWrite::Conflict(id, n.map(conflict))),
        (0u64..9).prop_map(|cursor| ClientWrite::Position(position(cursor))),
        (0u64..9).prop_map(|at| ClientWrite::Notice(Notice { path: b"a/\xff".to_vec(), what: "happened".into(), at })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// After any transactions, and across reopening, the store holds what the writes add up to.
    #[test]
    fn the_store_is_the_state(batches in vec((vec(write(), 0..10), any::<bool>()), 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = ClientStore::open_or_create(dir.path()).unwrap();
        let mut state = ClientState::default();
        for (writes, restart) in batches {
            store.commit(&writes, &[]).unwrap();
            writes.iter().for_each(|write| state.apply(write));
            if restart {
                drop(store);
                store = ClientStore::open_or_create(dir.path()).unwrap();
            }
            prop_assert_eq!(&store.load().unwrap(), &state);
        }
    }
}

/// Only the newest notices are kept, in order, as in the state.
#[test]
fn notices_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let store = ClientStore::open_or_create(dir.path()).unwrap();
    let mut state = ClientState::default();
    let notice = |at| ClientWrite::Notice(Notice { path: b"p".to_vec(), what: "w".into(), at });
    let writes: Vec<ClientWrite> = (0..MAX_NOTICES as u64 + 30).map(notice).collect();
    store.commit(&writes, &[]).unwrap();
    writes.iter().for_each(|write| state.apply(write));
    assert_eq!(store.load().unwrap().notices, state.notices);
}

/// The instance stays, every opening is another boot.
#[test]
fn instance_and_boot() {
    let dir = tempfile::tempdir().unwrap();
    let first = ClientStore::open_or_create(dir.path()).unwrap();
    let instance = first.instance();
    assert_eq!(first.boot(), 1);
    assert!(matches!(ClientStore::open_or_create(dir.path()), Err(StoreError::Busy(_))));
    drop(first);
    let second = ClientStore::open_or_create(dir.path()).unwrap();
    assert_eq!((second.instance(), second.boot()), (instance, 2));
    let other = tempfile::tempdir().unwrap();
    assert_ne!(ClientStore::open_or_create(other.path()).unwrap().instance(), instance);
}

/// A damaged state file is reported and not replaced by a new one.
#[test]
fn a_damaged_file_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    for bytes in [&b""[..], b"not a database at all"] {
        std::fs::write(&path, bytes).unwrap();
        let error = ClientStore::open_or_create(dir.path()).map(|_| ()).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

fn put(store: &ClientStore, writes: &[ClientWrite], contents: &[u8]) {
    let contents: Vec<(Hash, Vec<u8>)> = contents.iter().map(|&n| (Hash::of(&bytes(n)), bytes(n))).collect();
    let bases: Vec<(Hash, &[u8])> = contents.iter().map(|(hash, bytes)| (*hash, bytes.as_slice())).collect();
    store.commit(writes, &bases).unwrap();
}

fn there(store: &ClientStore) -> Vec<u8> {
    (0..20).filter(|&n| store.base(&Hash::of(&bytes(n))).unwrap().is_some_and(|found| found == bytes(n))).collect()
}

/// Bases are kept while a base, head, intent or conflict names them, and while a proposal is open; what this process just put stays too.
#[test]
fn unnamed_bases_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let open = || ClientStore::open_or_create(dir.path()).unwrap();
    let id = |n: u8| NodeId([n; 16]);
    let store = open();
    let writes = [
        ClientWrite::Base(id(1), Some(base(1))),
        ClientWrite::Head(id(1), Some(node(9, file(2)))),
        ClientWrite::Intent(id(2), Some(intent(4))),
        ClientWrite::Conflict(id(3), Some(conflict(8))),
        ClientWrite::Proposed(OpId([0; 16]), Some(Proposed { node: id(4), change: Change::default() })),
    ];
    let all: Vec<u8> = (0..14).collect();
    put(&store, &writes, &all);
    let chunk = |n: u8| Chunk { hash: Hash([n; 32]), len: 7 };
    let long: Vec<Chunk> = (0..3000).map(|n| Chunk { hash: Hash([1; 32]), len: n }).collect();
    store.put_chunks(&Hash::of(&bytes(1)), &long).unwrap();
    store.put_chunks(&Hash([9; 32]), &[chunk(1)]).unwrap();
    drop(store);
    let store = open();
    assert_eq!(store.sweep(100).unwrap(), 0);
    store.commit(&[ClientWrite::Proposed(OpId([0; 16]), None)], &[]).unwrap();
    put(&store, &[], &[12]);
    assert_eq!(store.sweep(2).unwrap(), 2);
    while store.sweep(2).unwrap() > 0 {}
    assert_eq!(there(&store), [1, 2, 4, 5, 6, 8, 9, 10, 12]);
    assert_eq!(store.chunks(&Hash::of(&bytes(1))).unwrap(), Some(long));
    assert_eq!(store.chunks(&Hash([9; 32])).unwrap(), None);
    assert_eq!(store.base(&Hash([9; 32])).unwrap(), None);
}

/// Bytes under another content's hash are refused, and with them the writes of the transaction.
#[test]
fn bases_are_what_they_are_called() {
    let dir = tempfile::tempdir().unwrap();
    let store = ClientStore::open_or_create(dir.path()).unwrap();
    let write = ClientWrite::Base(NodeId([1; 16]), Some(base(1)));
    let error = store.commit(&[write], &[(Hash::of(b"right"), b"wrong")]).unwrap_err();
    assert!(matches!(error, StoreError::Rejected(_)), "{error}");
    assert_eq!(store.load().unwrap(), ClientState::default());
}

/// A content above the limit is refused, one at the limit is kept.
#[test]
fn bases_have_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let store = ClientStore::open_or_create(dir.path()).unwrap();
    let large = vec![1; BASE_MAX + 1];
    let error = store.commit(&[], &[(Hash::of(&large), &large)]).unwrap_err();
    assert!(matches!(error, StoreError::Rejected(_)) && !error.needs_reopen());
    let most = &large[..BASE_MAX];
    store.commit(&[], &[(Hash::of(most), most)]).unwrap();
    assert_eq!(store.base(&Hash::of(most)).unwrap().unwrap(), most);
}
