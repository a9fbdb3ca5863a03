//! Cuts large contents into chunks where their bytes say so (FastCDC v2020), so that an insertion moves few of them.

use crate::model::Hash;
use crate::wire::CHUNK_MAX;
use crate::wire::Chunk;
use fastcdc::v2020::StreamCDC;
use std::io;
use std::io::Read;

/// The smallest chunk but the last one, in bytes. The three sizes are constants of the protocol: other cuts share nothing.
pub const CHUNK_LEAST: usize = 16 << 10;
/// The usual chunk, in bytes.
pub const CHUNK_USUAL: usize = 64 << 10;

/// A chunk and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Located {
    pub offset: u64,
    pub chunk: Chunk,
}

/// A content in chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunked {
    /// The hash of the whole.
    pub hash: Hash,
    /// The length of the whole in bytes.
    pub len: u64,
    /// The chunks in order, without gaps.
    pub chunks: Vec<Located>,
}

impl Chunked {
    /// The chunk list as it travels.
    pub fn list(&self) -> Vec<Chunk> {
        self.chunks.iter().map(|located| located.chunk).collect()
    }
}

/// Reads `source` to its end, once, and cuts it; holds two chunks' bytes and the list in memory.
///
/// # Errors
/// Those of `source`.
pub fn chunk(source: impl Read) -> io::Result<Chunked> {
    chunk_with(source, |_, _| Ok(()))
}

/// As [`chunk`], and hands every chunk and its bytes to `each`, in order.
///
/// # Errors
/// Those of `source` and of `each`.
pub fn chunk_with<E: From<io::Error>>(
    source: impl Read,
    mut each: impl FnMut(&Chunk, &[u8]) -> Result<(), E>,
) -> Result<Chunked, E> {
    let mut whole = blake3::Hasher::new();
    let mut chunks = Vec::new();
    let mut len = 0;
    for cut in StreamCDC::new(source, CHUNK_LEAST, CHUNK_USUAL, CHUNK_MAX) {
        let cut = cut.map_err(io::Error::from)?;
        whole.update(&cut.data);
        let chunk = Chunk { hash: Hash::of(&cut.data), len: cut.data.len() as u32 };
        each(&chunk, &cut.data)?;
        chunks.push(Located { offset: cut.offset, chunk });
        len += cut.data.len() as u64;
    }
    Ok(Chunked { hash: Hash(*whole.finalize().as_bytes()), len, chunks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"chunks").finalize_xof().fill(&mut bytes);
        bytes
    }

    /// A source that gives a few bytes at a time.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let upto = buffer.len().min(977);
            self.0.read(&mut buffer[..upto])
        }
    }

    /// The chunks cover the content without gaps, however the source delivers it, and an insertion changes few of them.
    #[test]
    fn cuts_follow_the_bytes() {
        let bytes = noise(3 << 20);
        let cut = chunk(&bytes[..]).unwrap();
        assert_eq!((cut.hash, cut.len), (Hash::of(&bytes), bytes.len() as u64));
        let mut at = 0;
        for located in &cut.chunks {
            let end = at + located.chunk.len as usize;
            assert_eq!((located.offset, located.chunk.hash), (at as u64, Hash::of(&bytes[at..end])));
            at = end;
        }
        assert_eq!(at, bytes.len());
        assert_eq!(chunk(Trickle(&bytes)).unwrap(), cut);
        let mut more = bytes.clone();
        more.insert(1 << 20, 1);
        let old = cut.list();
        let new = chunk(&more[..]).unwrap().list().into_iter().filter(|chunk| !old.contains(chunk)).count();
        assert!(new <= 3, "{new} new chunks");
    }

    /// The cuts of a known content never change: they are a constant of the protocol.
    #[test]
    fn cuts_are_golden() {
        let cut = chunk(&noise(1 << 20)[..]).unwrap();
        let lens: Vec<u32> = cut.chunks.iter().map(|located| located.chunk.len).collect();
        assert_eq!(lens, GOLDEN);
    }

    const GOLDEN: [u32; 14] =
        [100867, 110167, 98955, 66035, 125702, 96668, 48106, 67942, 31603, 69196, 21525, 87892, 85176, 38742];
}
