//! The hub's store against the state as a value, and its file against crashes and damage.

use super::*;
use crate::merge::sequencer::Acked;
use crate::model::Attrs;
use crate::model::Change;
use crate::model::Content;
use crate::model::Kind;
use crate::model::Mtime;
use crate::model::Name;
use crate::model::OpId;
use crate::model::Place;
use crate::model::Record;
use crate::model::Register;
use crate::wire::Delta;
use crate::wire::DeltaForm;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

const VOLUME_ID: VolumeId = VolumeId([7; 16]);
const EPOCH_ID: Epoch = Epoch([8; 16]);

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        4 => (0u8..5).prop_map(|n| Content::file(&[n; 3])),
        1 => Just(Content::file(b"")),
        1 => Just(Content::Dir),
        1 => Just(Content::Symlink { target: b"there".to_vec() }),
    ]
}

fn head() -> impl Strategy<Value = HubWrite> {
    (0u8..4, content(), option::of(0u8..3), 0u64..50).prop_map(|(id, value, place, seq)| {
        let place = place.map(|n| Place { parent: NodeId::ROOT, name: Name::new(&[b'a' + n]).unwrap() });
        let attrs = Attrs::of(Kind::File, 0o644, Mtime { secs: -1, nanos: 5 });
        let place = Register { seq, value: place };
        HubWrite::Head(NodeId([id; 16]), Node { place, content: Register { seq, value }, attrs: Register { seq, value: attrs } })
    })
}

fn logged(seq: u64, content: Option<Content>, replaced: Option<u8>) -> Logged {
    Logged {
        record: Record {
            seq,
            node: NodeId([1; 16]),
            change: Change { content, parents: vec![Hash([3; 32])], ..Change::default() },
            author: 2,
            op: OpId([4; 16]),
            at: 1000,
        },
        chain: Hash([seq as u8; 32]),
        replaced: replaced.map(|n| Hash::of(&[n; 3])),
    }
}

fn write() -> impl Strategy<Value = HubWrite> {
    let acked = (any::<u64>(), vec(0u64..9, 0..3), any::<u64>(), any::<bool>())
        .prop_map(|(cursor, held, last_seen, lapsed)| Acked { cursor, held, last_seen, lapsed });
    prop_oneof![
        3 => head(),
        3 => (0u64..6, option::of(content()), option::of(0u8..5)).prop_map(|(seq, content, replaced)| HubWrite::Log(logged(seq, content, replaced))),
        2 => (0u64..6).prop_map(HubWrite::Unlog),
        1 => (0u32..3, option::of(acked)).prop_map(|(device, acked)| HubWrite::Acked(device, acked)),
        1 => (0u64..9, 0u64..9).prop_map(|(seq, floor)| HubWrite::Counters(Counters { seq, chain: Hash([1; 32]), floor, floor_chain: Hash([2; 32]) })),
    ]
}

/// The reference counts that follow from the state alone.
fn counts(state: &HubState) -> BTreeMap<Hash, u64> {
    let mut counts = BTreeMap::new();
    let heads = state.heads.values().filter_map(named_by_head);
    let records = state.log.values().map(named_by_record).flat_map(|(new, replaced)| new.into_iter().chain(replaced));
    heads.chain(records).for_each(|hash| *counts.entry(hash).or_default() += 1);
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// After any transactions, and across reopening, the store holds what the writes add up to, and counts every reference exactly.
    #[test]
    fn the_store_is_the_state(batches in vec((vec(write(), 0..8), any::<bool>()), 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = HubStore::create(dir.path(), VOLUME_ID, EPOCH_ID).unwrap();
        let mut state = HubState::new(VOLUME_ID, EPOCH_ID);
        for (writes, restart) in batches {
            store.commit(&writes).unwrap();
            writes.iter().for_each(|write| state.apply(write));
            if restart {
                drop(store);
                store = HubStore::open(dir.path()).unwrap();
            }
            prop_assert_eq!(&store.load().unwrap(), &state);
            let (refs, loose) = store.counts();
            prop_assert_eq!(&refs, &counts(&state));
            prop_assert!(loose.iter().all(|hash| !refs.contains_key(hash)));
        }
    }
}

fn file(dir: &Path) -> std::path::PathBuf {
    dir.join(FILE)
}

fn fails(dir: &Path) -> StoreError {
    HubStore::open(dir).map(|_| ()).unwrap_err()
}

/// A new store holds an empty volume; making another one there, or opening it twice, is refused and harms nothing.
#[test]
fn one_store_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(fails(dir.path()), StoreError::Missing(_)));
    let store = HubStore::create(dir.path(), VOLUME_ID, EPOCH_ID).unwrap();
    assert!(matches!(fails(dir.path()), StoreError::Busy(_)));
    drop(store);
    std::fs::remove_dir(dir.path().join(PACKS_DIR)).unwrap();
    let again = HubStore::create(dir.path(), VolumeId([0; 16]), EPOCH_ID).map(|_| ()).unwrap_err();
    assert!(matches!(again, StoreError::Exists(_)), "{again}");
    let state = HubStore::open(dir.path()).unwrap().load().unwrap();
    assert_eq!(state, HubState::new(VOLUME_ID, EPOCH_ID));
}

/// Packs without a database are somebody's contents: no new store is made over them.
#[test]
fn packs_are_not_adopted() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join(PACKS_DIR)).unwrap();
    let error = HubStore::create(dir.path(), VOLUME_ID, EPOCH_ID).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Exists(_)), "{error}");
    assert!(!file(dir.path()).exists());
}

/// What a crash during creation leaves, empty or half-written, is no database and does not stand in the way.
#[test]
fn leftovers_of_creation() {
    for leftover in [&b""[..], b"redb half written"] {
        let dir = tempfile::tempdir().unwrap();
        let temp = dir.path().join("hub.redb.tmp");
        std::fs::write(&temp, leftover).unwrap();
        assert!(matches!(fails(dir.path()), StoreError::Missing(_)));
        drop(HubStore::create(dir.path(), VOLUME_ID, EPOCH_ID).unwrap());
        assert!(!temp.exists());
        std::fs::write(&temp, leftover).unwrap();
        HubStore::open(dir.path()).unwrap();
        assert!(!temp.exists());
    }
}

/// A file that is empty, no database, or cut short is reported and left as it is.
#[test]
fn damaged_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(HubStore::create(dir.path(), VOLUME_ID, EPOCH_ID).unwrap());
    let whole = std::fs::read(file(dir.path())).unwrap();
    for bytes in [&b""[..], b"short", &[0x5a; 100_000], &vec![0; whole.len()], &whole[..100]] {
        std::fs::write(file(dir.path()), bytes).unwrap();
        let error = fails(dir.path());
        assert!(matches!(error, StoreError::Damaged { .. }), "{} bytes: {error}", bytes.len());
        assert!(std::fs::read(file(dir.path())).unwrap() == bytes, "{} bytes were changed", bytes.len());
        let again = HubStore::create(dir.path(), VOLUME_ID, EPOCH_ID).map(|_| ()).unwrap_err();
        assert!(matches!(again, StoreError::Exists(_)), "{again}");
    }
}

/// A database of a newer program is refused by its number and not touched.
#[test]
fn newer_schema() {
    let dir = tempfile::tempdir().unwrap();
    let newer = Settings { schema: 9, ..SETTINGS };
    drop(Db::create(&file(dir.path()), &newer, |_| Ok(())).unwrap());
    assert!(matches!(fails(dir.path()), StoreError::NewerSchema { found: 9, known: 1, .. }));
}

/// An uploaded delta is kept with its record, served after a restart, and goes with the record.
#[test]
fn patches_live_with_their_record() {
    let dir = tempfile::tempdir().unwrap();
    let store = HubStore::create(dir.path(), VOLUME_ID, EPOCH_ID).unwrap();
    let (from, to) = (Hash::of(&[1; 3]), Hash::of(&[2; 3]));
    let delta = Delta { base: from, form: DeltaForm::Text, bytes: b"as uploaded".to_vec() };
    store.contents().offer_patch(&to, delta.clone());
    assert_eq!(store.contents().delta_for(&from, &to).unwrap(), Some(delta.clone()));
    store.commit(&[HubWrite::Log(logged(1, Some(Content::file(&[2; 3])), Some(1)))]).unwrap();
    drop(store);
    let store = HubStore::open(dir.path()).unwrap();
    assert_eq!(store.contents().delta_for(&from, &to).unwrap(), Some(delta));
    store.commit(&[HubWrite::Unlog(1)]).unwrap();
    assert_eq!(store.contents().delta_for(&from, &to).unwrap(), None);
    assert_eq!(store.counts(), (BTreeMap::new(), BTreeSet::from([from, to])));
}

/// Between two small contents without an uploaded delta one is made.
#[test]
fn deltas_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let store = HubStore::create(dir.path(), VOLUME_ID, EPOCH_ID).unwrap();
    let old = (0..20_000).map(|n| format!("line {}\n", n * 7919 % 10_007)).collect::<String>();
    let new = old.replacen("line 42\n", "line forty-two\n", 1);
    let (from, to) = (Hash::of(old.as_bytes()), Hash::of(new.as_bytes()));
    store.contents().put_whole(&from, old.as_bytes()).unwrap();
    assert_eq!(store.contents().delta_for(&from, &to).unwrap(), None);
    store.contents().put_whole(&to, new.as_bytes()).unwrap();
    let delta = store.contents().delta_for(&from, &to).unwrap().unwrap();
    assert!(delta.bytes.len() < 400);
    assert_eq!(crate::merge::delta::apply(old.as_bytes(), &delta, new.len() as u64, &to).unwrap(), new.as_bytes());
}
