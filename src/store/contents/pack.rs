//! Pack files: records one after the other, each a header and a zstd frame.
//!
//! Header, little-endian: magic (4), stored length (4), raw length (4), form (4), content hash (32), check (8: the first bytes of the
//! stored bytes' BLAKE3). Only what the index counts as durable is ever read; bytes past it are cut off when a hub starts.

use super::super::db::StoreError;
use super::super::db::at;
use crate::model::Hash;
use crate::wire::CHUNK_MAX;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// The size at which a pack is closed, in bytes.
pub(in crate::store) const PACK_MAX: u64 = 256 << 20;
/// Bytes of a record before the frame.
pub(super) const HEADER: usize = 56;
const MAGIC: [u8; 4] = *b"sfp1";
/// The only form so far: one zstd frame.
const FORM_ZSTD: u32 = 1;

/// The longest frame that is stored for `raw` bytes.
pub(super) fn frame_limit(raw: usize) -> usize {
    raw + raw / 128 + 512
}

pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number}.pack"))
}

/// The number of the pack file `name`.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_suffix(".pack")?.parse().ok()
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub stored: u32,
    pub raw: u32,
    pub hash: Hash,
    check: [u8; 8],
}

fn check_of(frame: &[u8]) -> [u8; 8] {
    std::array::from_fn(|i| Hash::of(frame).0[i])
}

/// The record of a content of `raw` bytes compressed in `frame`.
pub(super) fn record(hash: &Hash, raw: u32, frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + frame.len());
    bytes.extend(MAGIC);
    bytes.extend((frame.len() as u32).to_le_bytes());
    bytes.extend(raw.to_le_bytes());
    bytes.extend(FORM_ZSTD.to_le_bytes());
    bytes.extend(hash.0);
    bytes.extend(check_of(frame));
    bytes.extend(frame);
    bytes
}

fn parse(bytes: &[u8; HEADER]) -> Option<Header> {
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]));
    let header = Header {
        stored: word(4),
        raw: word(8),
        hash: Hash(std::array::from_fn(|i| bytes[16 + i])),
        check: std::array::from_fn(|i| bytes[48 + i]),
    };
    let sane = header.raw as usize <= CHUNK_MAX && header.stored as usize <= frame_limit(CHUNK_MAX);
    (bytes[..4] == MAGIC && word(12) == FORM_ZSTD && sane).then_some(header)
}

/// The header at `offset`; `None` where there is none.
pub(super) fn read_header(file: &File, offset: u64) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER];
    match file.read_exact_at(&mut bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok(parse(&bytes)),
    }
}

/// The frame of the record at `offset`; `None` where the record is not the one of `hash` with a frame of `stored` bytes, whole.
pub(super) fn read_frame(file: &File, offset: u64, stored: u32, hash: &Hash) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; HEADER + stored as usize];
    match file.read_exact_at(&mut bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let frame = bytes.split_off(HEADER);
    let header = <&[u8; HEADER]>::try_from(bytes.as_slice()).ok().and_then(parse);
    let whole = header.is_some_and(|h| h.stored == stored && h.hash == *hash && h.check == check_of(&frame));
    Ok(whole.then_some(frame))
}

/// Makes the pack file `number`.
pub(super) fn create(dir: &Path, number: u64) -> Result<File, StoreError> {
    let path = path_of(dir, number);
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(at(&path))
}

/// Opens the pack file `number`.
pub(super) fn open(dir: &Path, number: u64) -> Result<File, StoreError> {
    let path = path_of(dir, number);
    OpenOptions::new().read(true).write(true).open(&path).map_err(at(&path))
}
