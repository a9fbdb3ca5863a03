//! Getting a content from the hub into the stage.

use super::hands::Hands;
use super::inputs::FetchFailure;
use super::link::Session;
use crate::fs::path::RelPath;
use crate::fs::stage::StagedWriter;
use crate::merge::delta;
use crate::model::Fingerprint;
use crate::model::Hash;
use crate::net::Stream;
use crate::store::chunk;
use crate::wire::CHUNK_MAX;
use crate::wire::Chunk;
use crate::wire::ChunkData;
use crate::wire::ContentReply;
use crate::wire::ContentRequest;
use crate::wire::Delta;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// How long the hub may be silent in the middle of an answer.
const SILENCE: Duration = Duration::from_secs(60);
/// How many chunks are asked for at once.
const CHUNKS: usize = 256;

/// A content to get.
pub(super) struct Wanted {
    pub hash: Hash,
    pub len: u64,
    /// Contents that are like it and may be here.
    pub have: Vec<Hash>,
    /// The file here that it will replace, and what it holds.
    pub old: Option<(RelPath, Fingerprint, Hash)>,
}

fn shown(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Gets it and stages it; durable after a sync of the stage.
///
/// # Errors
/// [`FetchFailure`].
pub(super) async fn fetch(hands: Arc<Hands>, session: Session, wanted: Wanted) -> Result<(), FetchFailure> {
    let _permit = session.transfers.clone().acquire_owned().await.map_err(shown)?;
    let there = hands.stage.has(&wanted.hash).map_err(shown)?;
    if there {
        return Ok(());
    }
    let wanted = Arc::new(wanted);
    let bases = {
        let (hands, wanted) = (hands.clone(), wanted.clone());
        tokio::task::spawn_blocking(move || bases(&hands, &wanted)).await.map_err(shown)?
    };
    let mut have: Vec<Hash> = bases.keys().copied().collect();
    loop {
        let mut stream = session.connection.open_content().await.map_err(shown)?;
        let request = ContentRequest::Get { hash: wanted.hash, have: std::mem::take(&mut have) };
        stream.send.send(&request).await.map_err(shown)?;
        match answer::<ContentReply>(&mut stream).await? {
            ContentReply::Whole(frame) => {
                let bytes = zstd::bulk::decompress(&frame, CHUNK_MAX).map_err(|_| "the hub sent damaged bytes".to_owned())?;
                return Ok(whole(&hands, &wanted, &bytes)?);
            }
            ContentReply::Delta(delta) => match apply(&bases, &delta, &wanted) {
                Ok(bytes) => return Ok(whole(&hands, &wanted, &bytes)?),
                // Without anything to apply a delta to it comes otherwise.
                Err(why) => tracing::info!(why, hash = %wanted.hash, "a delta that does not fit"),
            },
            ContentReply::Chunks(list) => return Ok(chunks(&hands, &session, &wanted, &list).await?),
            ContentReply::Absent => return Err(FetchFailure::Absent),
        }
        if bases.is_empty() {
            return Err(FetchFailure::Other("the hub sent a delta that nobody asked for".into()));
        }
    }
}

fn apply(bases: &BTreeMap<Hash, Vec<u8>>, delta: &Delta, wanted: &Wanted) -> Result<Vec<u8>, String> {
    let base = bases.get(&delta.base).ok_or("its base is not here")?;
    delta::apply(base, delta, wanted.len, &wanted.hash).map_err(shown)
}

async fn answer<M: crate::wire::Wire>(stream: &mut Stream) -> Result<M, String> {
    let received = tokio::time::timeout(SILENCE, stream.recv.recv::<M>()).await;
    received.map_err(|_| "the hub does not answer".to_owned())?.map_err(shown)?.ok_or_else(|| "the hub answered nothing".into())
}

/// The contents here that a delta may apply to.
fn bases(hands: &Hands, wanted: &Wanted) -> BTreeMap<Hash, Vec<u8>> {
    let mut found = BTreeMap::new();
    let limit = delta::DELTA_MAX as u64;
    if wanted.len > limit {
        return found;
    }
    for hash in &wanted.have {
        let old = wanted.old.as_ref().filter(|(.., held)| held == hash);
        let local = old.and_then(|(path, seen, _)| match hands.root.read_all(path, seen, limit) {
            Ok(crate::fs::observe::Reading::Read(bytes)) => Some(bytes),
            _ => None,
        });
        let bytes = local.or_else(|| hands.base(hash)).filter(|bytes| bytes.len() <= delta::DELTA_MAX && !bytes.is_empty());
        found.extend(bytes.map(|bytes| (*hash, bytes)));
    }
    found
}

fn whole(hands: &Hands, wanted: &Wanted, bytes: &[u8]) -> Result<(), String> {
    let mut writer = hands.stage.writer(wanted.hash, wanted.len).map_err(shown)?;
    writer.write(bytes).and_then(|()| writer.finish()).map_err(shown)
}

/// The chunks of a file that is here.
struct Old {
    file: File,
    at: BTreeMap<Hash, (u64, u32)>,
}

impl Old {
    fn read(&self, chunk: &Chunk) -> Option<Vec<u8>> {
        let (offset, len) = self.at.get(&chunk.hash)?;
        let mut bytes = vec![0; *len as usize];
        self.file.read_exact_at(&mut bytes, *offset).ok()?;
        (Hash::of(&bytes) == chunk.hash).then_some(bytes)
    }
}

fn old(hands: &Hands, wanted: &Wanted) -> Option<Old> {
    let (path, ..) = wanted.old.as_ref()?;
    let (file, look) = hands.root.open_read(path).ok()??;
    if look.fingerprint.size <= CHUNK_MAX as u64 {
        return None;
    }
    let chunked = chunk(&file).ok()?;
    let at = chunked.chunks.iter().map(|located| (located.chunk.hash, (located.offset, located.chunk.len))).collect();
    Some(Old { file, at })
}

async fn chunks(hands: &Arc<Hands>, session: &Session, wanted: &Arc<Wanted>, list: &[Chunk]) -> Result<(), String> {
    let sum: u64 = list.iter().map(|chunk| u64::from(chunk.len)).sum();
    if sum != wanted.len || list.iter().any(|chunk| chunk.len as usize > CHUNK_MAX) {
        return Err("the hub's list of chunks does not make up the content".into());
    }
    let old = {
        let (hands, wanted) = (hands.clone(), wanted.clone());
        tokio::task::spawn_blocking(move || old(&hands, &wanted)).await.map_err(shown)?
    };
    let mut writer = hands.stage.writer(wanted.hash, wanted.len).map_err(shown)?;
    for batch in list.chunks(CHUNKS) {
        part(session, old.as_ref(), batch, &mut writer).await?;
    }
    writer.finish().map_err(shown)
}

async fn part(session: &Session, old: Option<&Old>, batch: &[Chunk], writer: &mut StagedWriter) -> Result<(), String> {
    let is_here = |chunk: &Chunk| old.is_some_and(|old| old.at.get(&chunk.hash).is_some_and(|(_, len)| *len == chunk.len));
    let missing: Vec<Hash> = batch.iter().filter(|chunk| !is_here(chunk)).map(|chunk| chunk.hash).collect();
    let mut stream = None;
    if !missing.is_empty() {
        let mut opened = session.connection.open_content().await.map_err(shown)?;
        opened.send.send(&ContentRequest::GetChunks { hashes: missing }).await.map_err(shown)?;
        stream = Some(opened);
    }
    for chunk in batch {
        let bytes = match (is_here(chunk), &mut stream) {
            (true, _) => old.and_then(|old| old.read(chunk)).ok_or("the file here changed meanwhile")?,
            (false, Some(stream)) => {
                let frame = answer::<ChunkData>(stream).await?.bytes.ok_or("the hub does not hold a part of this content")?;
                let bytes = zstd::bulk::decompress(&frame, chunk.len as usize).map_err(|_| "the hub sent damaged bytes")?;
                if Hash::of(&bytes) != chunk.hash {
                    return Err("the hub sent other bytes than asked for".into());
                }
                bytes
            }
            (false, None) => return Err("a part of this content was not asked for".into()),
        };
        writer.write(&bytes).map_err(shown)?;
    }
    Ok(())
}
