//! Power cuts under the hub's database: a disk in memory that loses or tears what was not synced, and fails at the k-th operation.

use super::*;
use crate::merge::sequencer::Acked;
use proptest::prelude::*;
use redb::StorageBackend;
use std::io;
use std::sync::Mutex;

/// What a disk controller writes whole.
const SECTOR: usize = 512;

#[derive(Debug, Default)]
struct State {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Un-synced writes; `None`: the length was set.
    pending: Vec<(usize, Option<Vec<u8>>)>,
    /// Operations until everything fails.
    left: Option<u32>,
}

#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { live: bytes.clone(), durable: bytes, ..State::default() })))
    }

    fn step(&self) -> io::Result<std::sync::MutexGuard<'_, State>> {
        let mut state = self.0.lock().unwrap();
        match &mut state.left {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(state)
            }
            None => Ok(state),
        }
    }

    fn fail_after(&self, operations: u32) {
        self.0.lock().unwrap().left = Some(operations);
    }

    /// What the platter holds after a power cut: each un-synced sector and length as `kept` says.
    fn cut(&self, mut kept: impl FnMut() -> bool) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let mut disk = state.durable.clone();
        for (at, bytes) in &state.pending {
            match bytes {
                None if kept() => disk.resize(*at, 0),
                None => {}
                Some(bytes) => {
                    for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                        let at = at + n * SECTOR;
                        if kept() {
                            disk.resize(disk.len().max(at + sector.len()), 0);
                            disk[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        disk
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.step()?.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.step()?;
        let end = offset as usize + out.len();
        let from = state.live.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.step()?;
        state.live.resize(len as usize, 0);
        state.pending.push((len as usize, None));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.step()?;
        state.durable = state.live.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        let at = offset as usize;
        let end = at + data.len();
        let len = state.live.len().max(end);
        state.live.resize(len, 0);
        state.live[at..end].copy_from_slice(data);
        state.pending.push((at, Some(data.to_vec())));
        Ok(())
    }
}

fn writes(round: u64) -> Vec<HubWrite> {
    let acked = |device: u64| Acked { cursor: round, held: vec![device; 40], last_seen: round, lapsed: false };
    let counters = Counters { seq: round, chain: Hash([round as u8; 32]), floor: 0, floor_chain: Hash([0; 32]) };
    (0..20).map(|device| HubWrite::Acked(device as u32, Some(acked(device)))).chain([HubWrite::Counters(counters)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// The power fails at any operation and any part of the un-synced bytes is lost, again and again: the store opens, holds every
    /// acknowledged transaction whole and nothing of a failed one but all of it.
    #[test]
    fn acknowledged_survives_power_cuts(cuts in prop::collection::vec((0u32..120, any::<u64>(), 0u64..=100), 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        drop(HubStore::create(dir.path(), VolumeId([7; 16]), Epoch([8; 16])).unwrap());
        let mut image = std::fs::read(dir.path().join(FILE)).unwrap();
        let packs = dir.path().join(PACKS_DIR);
        let mut round = 0;
        let mut state = HubState::new(VolumeId([7; 16]), Epoch([8; 16]));
        for (operations, seed, percent) in cuts {
            let disk = Disk::of(image);
            disk.fail_after(operations);
            let mut tried = state.clone();
            if let Ok(store) = HubStore::open_on(disk.clone(), &packs) {
                for _ in 0..=operations {
                    let next = writes(round + 1);
                    next.iter().for_each(|write| tried.apply(write));
                    match store.commit(&next) {
                        Ok(()) => state = tried.clone(),
                        Err(error) => {
                            prop_assert!(error.needs_reopen(), "{}", error);
                            break;
                        }
                    }
                    round += 1;
                }
            }
            let mut random = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
            image = disk.cut(|| {
                let mut byte = [0; 8];
                random.fill(&mut byte);
                u64::from_le_bytes(byte) % 100 < percent
            });
            let disk = Disk::of(image);
            let found = HubStore::open_on(disk.clone(), &packs).unwrap().load().unwrap();
            prop_assert!(found == state || found == tried);
            round = found.counters.seq;
            state = found;
            image = disk.cut(|| true);
        }
    }
}
