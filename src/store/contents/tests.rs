//! Contents on a real disk: what a crash, a bit flip or a garbage collector may and may not do to them.

use super::super::hub::HubStore;
use super::*;
use crate::merge::sequencer::HubWrite;
use crate::model::Attrs;
use crate::model::Content;
use crate::model::Epoch;
use crate::model::Kind;
use crate::model::Mtime;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::Register;
use crate::model::VolumeId;
use std::os::unix::fs::FileExt;
use tempfile::TempDir;

const SMALL_PACK: u64 = 100_000;

fn new_store() -> (TempDir, HubStore) {
    let dir = tempfile::tempdir().unwrap();
    drop(HubStore::create(dir.path(), VolumeId([1; 16]), Epoch([2; 16])).unwrap());
    let store = HubStore::open_with(dir.path(), SMALL_PACK).unwrap();
    (dir, store)
}

fn reopen(dir: &TempDir, store: HubStore) -> HubStore {
    drop(store);
    HubStore::open_with(dir.path(), SMALL_PACK).unwrap()
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn packs(dir: &TempDir) -> BTreeMap<String, u64> {
    let entries = dir.path().join("packs").read_dir().unwrap();
    entries.map(|entry| entry.unwrap()).map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().len())).collect()
}

fn head(node: u8, hash: Hash, len: u64) -> HubWrite {
    let value = Content::File { hash, len };
    let attrs = Attrs::of(Kind::File, 0o644, Mtime::default());
    HubWrite::Head(
        NodeId([node; 16]),
        Node {
            place: Register { seq: 1, value: None },
            content: Register { seq: 1, value },
            attrs: Register { seq: 1, value: attrs },
        },
    )
}

fn put(store: &HubStore, bytes: &[u8]) -> Hash {
    let hash = Hash::of(bytes);
    store.contents().put_whole(&hash, bytes).unwrap();
    hash
}

fn read(store: &HubStore, hash: &Hash) -> Option<Vec<u8>> {
    store.contents().read(hash, usize::MAX).unwrap()
}

fn collect_all(store: &HubStore) -> usize {
    std::iter::from_fn(|| Some(store.collect(50).unwrap()).filter(|&done| done > 0)).sum()
}

/// A content is readable when put, `has` it when durable, and both hold after a restart.
#[test]
fn durable_then_there() {
    let (dir, store) = new_store();
    let hash = put(&store, b"hello");
    assert_eq!(read(&store, &hash).unwrap(), b"hello");
    assert!(!store.contents().has(&hash).unwrap());
    store.contents().make_durable().unwrap();
    assert!(store.contents().has(&hash).unwrap());
    let frame = store.contents().get_whole(&hash).unwrap().unwrap();
    assert_eq!(zstd::bulk::decompress(&frame, 100).unwrap(), b"hello");
    let store = reopen(&dir, store);
    assert!(store.contents().has(&hash).unwrap());
    assert_eq!(read(&store, &hash).unwrap(), b"hello");
}

/// A hub killed between the append to a pack and the index commit starts again without the content and takes it again.
#[test]
fn killed_between_pack_and_index() {
    let (dir, store) = new_store();
    let first = put(&store, b"first");
    store.contents().make_durable().unwrap();
    let durable = packs(&dir);
    let lost = put(&store, &noise(1, 5000));
    assert_ne!(packs(&dir), durable);
    let store = reopen(&dir, store);
    assert_eq!(packs(&dir), durable);
    assert!(!store.contents().has(&lost).unwrap());
    assert_eq!(read(&store, &lost), None);
    put(&store, &noise(1, 5000));
    store.contents().make_durable().unwrap();
    let store = reopen(&dir, store);
    assert_eq!(read(&store, &lost).unwrap(), noise(1, 5000));
    assert_eq!(read(&store, &first).unwrap(), b"first");
}

/// A pack file that was made and never indexed is removed at the start, its number can be used again.
#[test]
fn killed_before_the_first_index_entry() {
    let (dir, store) = new_store();
    put(&store, b"never durable");
    let store = reopen(&dir, store);
    assert_eq!(packs(&dir), BTreeMap::new());
    let hash = put(&store, b"again");
    store.contents().make_durable().unwrap();
    let store = reopen(&dir, store);
    assert_eq!(read(&store, &hash).unwrap(), b"again");
}

/// A torn record at the end of a pack is cut off.
#[test]
fn torn_tail() {
    let (dir, store) = new_store();
    let hash = put(&store, &noise(1, 3000));
    store.contents().make_durable().unwrap();
    let durable = packs(&dir);
    drop(store);
    let file = File::options().write(true).open(dir.path().join("packs/1.pack")).unwrap();
    file.write_all_at(&pack::record(&Hash::of(b"x"), 1, b"torn")[..30], durable["1.pack"]).unwrap();
    let store = HubStore::open_with(dir.path(), SMALL_PACK).unwrap();
    assert_eq!(packs(&dir), durable);
    assert_eq!(read(&store, &hash).unwrap(), noise(1, 3000));
}

/// A pack that lost indexed bytes, or is gone, stops the hub with a message; nothing is overwritten.
#[test]
fn lost_pack_bytes_are_an_error() {
    let (dir, store) = new_store();
    put(&store, &noise(1, 3000));
    store.contents().make_durable().unwrap();
    drop(store);
    let path = dir.path().join("packs/1.pack");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..2000]).unwrap();
    let error = HubStore::open(dir.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), &bytes[..2000]);
    std::fs::remove_file(&path).unwrap();
    let error = HubStore::open(dir.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    std::fs::write(&path, &bytes).unwrap();
    HubStore::open(dir.path()).unwrap();
}

/// A flipped bit in a pack is an error when read, never other bytes.
#[test]
fn bit_rot_is_an_error() {
    let (dir, store) = new_store();
    let hash = put(&store, &noise(1, 300));
    store.contents().make_durable().unwrap();
    let path = dir.path().join("packs/1.pack");
    let bytes = std::fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    for at in [0, 5, 20, 50, 60, 200] {
        file.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
        let error = store.contents().get_whole(&hash).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    assert_eq!(read(&store, &hash).unwrap(), noise(1, 300));
}

/// Bytes that are not the announced content are not stored, whole or as a frame.
#[test]
fn only_the_announced_content() {
    let (_dir, store) = new_store();
    let contents = store.contents();
    let hash = Hash::of(b"right");
    let frame = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    let refused = |result: Result<(), StoreError>| assert!(matches!(result, Err(StoreError::Rejected(_))), "{result:?}");
    refused(contents.put_whole(&hash, b"wrong"));
    refused(contents.put_frame(&hash, &frame(b"wrong")));
    refused(contents.put_frame(&hash, b"no frame"));
    let large = vec![0; CHUNK_MAX + 1];
    refused(contents.put_frame(&Hash::of(&large), &frame(&large)));
    contents.put_frame(&hash, &frame(b"right")).unwrap();
    assert_eq!(read(&store, &hash).unwrap(), b"right");
}

/// A large content arrives as chunks: the hub asks for those it lacks, takes the list when it fits, and serves both after a restart.
#[test]
fn large_contents_are_lists() {
    let (dir, store) = new_store();
    let bytes = noise(7, 2 << 20);
    let cut = chunker::chunk(&bytes[..]).unwrap();
    let list = cut.list();
    let contents = store.contents();
    let early = contents.put_chunk_list(&cut.hash, cut.len, list.clone());
    assert!(matches!(early, Err(StoreError::Rejected("a chunk is missing"))), "{early:?}");
    let missing = contents.missing_chunks(&list).unwrap();
    assert_eq!(missing.len(), list.len());
    for located in &cut.chunks {
        let part = &bytes[located.offset as usize..][..located.chunk.len as usize];
        contents.put_chunk(&located.chunk.hash, &zstd::bulk::compress(part, 3).unwrap()).unwrap();
    }
    assert!(contents.missing_chunks(&list).unwrap().is_empty());
    let mut swapped = list.clone();
    swapped.swap(0, 1);
    assert!(contents.put_chunk_list(&cut.hash, cut.len, swapped).is_err());
    assert!(contents.put_chunk_list(&cut.hash, cut.len + 1, list.clone()).is_err());
    contents.put_chunk_list(&cut.hash, cut.len, list.clone()).unwrap();
    assert_eq!(read(&store, &cut.hash).unwrap(), bytes);
    contents.make_durable().unwrap();
    let store = reopen(&dir, store);
    assert!(store.contents().has(&cut.hash).unwrap());
    assert_eq!(store.contents().chunks_of(&cut.hash).unwrap(), Some(list));
    assert_eq!(store.contents().get_whole(&cut.hash).unwrap(), None);
    assert_eq!(read(&store, &cut.hash).unwrap(), bytes);
}

/// What was just put or asked for is kept although nothing names it; what nothing named in an earlier run goes, chunks included, and
/// named contents stay.
#[test]
fn unnamed_contents_are_collected() {
    let (dir, store) = new_store();
    let kept = put(&store, &noise(1, 1 << 20));
    let dropped = put(&store, &noise(2, 1 << 20));
    let asked = put(&store, b"asked for");
    store.contents().make_durable().unwrap();
    store.commit(&[head(1, kept, 1 << 20)]).unwrap();
    assert_eq!(collect_all(&store), 0);
    let store = reopen(&dir, store);
    assert!(store.contents().has(&asked).unwrap());
    assert!(collect_all(&store) > 0);
    assert!(!store.contents().has(&dropped).unwrap());
    assert!(store.contents().has(&asked).unwrap());
    assert_eq!(read(&store, &kept).unwrap(), noise(1, 1 << 20));
    let (refs, loose) = store.counts();
    assert_eq!(refs.len(), 1 + store.contents().chunks_of(&kept).unwrap().unwrap().len());
    assert_eq!(loose, BTreeSet::from([asked]));
    assert_eq!(collect_all(&store), 0);
}

/// A head that moves on to another content lets the old one go; what remains is copied out of packs that are mostly garbage, and
/// disk space comes back.
#[test]
fn garbage_packs_are_rewritten() {
    let (dir, store) = new_store();
    let hashes: Vec<Hash> = (0..60).map(|seed| put(&store, &noise(seed, 10_000))).collect();
    store.contents().make_durable().unwrap();
    let named: Vec<HubWrite> = hashes.iter().enumerate().map(|(n, hash)| head(n as u8 + 1, *hash, 10_000)).collect();
    store.commit(&named).unwrap();
    let full: u64 = packs(&dir).values().sum();
    let one = put(&store, b"one for all");
    store.contents().make_durable().unwrap();
    let emptied: Vec<HubWrite> = (0..60).filter(|n| n % 6 != 0).map(|n| head(n + 1, one, 11)).collect();
    store.commit(&emptied).unwrap();
    assert_eq!(collect_all(&store), 0);
    let store = reopen(&dir, store);
    assert!(collect_all(&store) > 50);
    let left: u64 = packs(&dir).values().sum();
    assert!(left < full / 2, "{left} of {full} bytes");
    let check = |store: &HubStore| {
        for (seed, hash) in hashes.iter().enumerate() {
            let expected = (seed % 6 == 0).then(|| noise(seed as u64, 10_000));
            assert_eq!(read(store, hash), expected);
        }
        assert_eq!(read(store, &one).unwrap(), b"one for all");
    };
    check(&store);
    let store = reopen(&dir, store);
    check(&store);
    assert_eq!(collect_all(&store), 0);
}

/// A damaged pack is not rewritten, costs no space again and again, and what is whole in it stays readable.
#[test]
fn damaged_packs_are_spared() {
    let (dir, store) = new_store();
    let hashes: Vec<Hash> = (0..20).map(|seed| put(&store, &noise(seed, 10_000))).collect();
    store.contents().make_durable().unwrap();
    store.commit(&[head(1, hashes[0], 10_000), head(2, hashes[2], 10_000)]).unwrap();
    let file = File::options().write(true).open(dir.path().join("packs/1.pack")).unwrap();
    let second = pack::HEADER + compress(&noise(0, 10_000)).unwrap().len();
    file.write_all_at(b"rot", second as u64).unwrap();
    let store = reopen(&dir, store);
    let results: Vec<_> = std::iter::repeat_with(|| store.collect(50)).take_while(|done| !matches!(done, Ok(0))).collect();
    assert_eq!(results.iter().filter(|done| matches!(done, Err(StoreError::Damaged { .. }))).count(), 1);
    assert!(packs(&dir).contains_key("1.pack"));
    assert_eq!(read(&store, &hashes[0]).unwrap(), noise(0, 10_000));
    assert_eq!(read(&store, &hashes[2]).unwrap(), noise(2, 10_000));
}

/// Threads put, read and make durable while heads are committed and garbage is collected: whatever is named stays readable.
#[test]
fn many_threads() {
    let (dir, store) = new_store();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if store.collect(20).unwrap() == 0 {
                    std::thread::yield_now();
                }
            }
        });
        let workers: Vec<_> = (0..4u64)
            .map(|worker| {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..15 {
                        let bytes = noise(worker * 1000 + round, 20_000);
                        let hash = put(store, &bytes);
                        store.contents().make_durable().unwrap();
                        assert!(store.contents().has(&hash).unwrap());
                        store.commit(&[head(worker as u8 + 1, hash, 20_000)]).unwrap();
                        assert_eq!(read(store, &hash).unwrap(), bytes);
                    }
                })
            })
            .collect();
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        collector.join().unwrap();
        results.into_iter().for_each(|result| result.unwrap());
    });
    let store = reopen(&dir, store);
    collect_all(&store);
    for worker in 0..4 {
        assert_eq!(read(&store, &Hash::of(&noise(worker * 1000 + 14, 20_000))).unwrap(), noise(worker * 1000 + 14, 20_000));
        assert_eq!(read(&store, &Hash::of(&noise(worker * 1000, 20_000))), None);
    }
}
