//! Content streams: one request each.

use super::shared::Failure;
use super::shared::Shared;
use crate::merge::delta;
use crate::model::Hash;
use crate::net::CloseCode;
use crate::net::Connection;
use crate::net::Stream;
use crate::store::HubStore;
use crate::store::StoreError;
use crate::wire::CHUNK_MAX;
use crate::wire::Chunk;
use crate::wire::ChunkData;
use crate::wire::ContentReply;
use crate::wire::ContentRequest;
use crate::wire::Delta;
use crate::wire::PutBody;
use crate::wire::PutReply;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Content requests of one connection that are served at once.
const BULK_STREAMS: usize = 16;
/// How long a client may be silent in the middle of a request.
const SILENCE: Duration = Duration::from_secs(60);
/// The most contents of [`ContentRequest::Get`]'s `have` that are looked at.
const HAVE_MAX: usize = 8;
/// The most chunks asked for in one [`PutReply::SendChunks`].
const ASK_MAX: usize = 4096;

/// Serves the connection's content streams until it ends.
pub(super) async fn serve(shared: &Arc<Shared>, connection: &Connection, read_only: bool) {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = streams.join_next(), if !streams.is_empty() => {}
            stream = connection.accept_content(), if streams.len() < BULK_STREAMS => match stream {
                Ok(stream) => {
                    let (shared, connection) = (shared.clone(), connection.clone());
                    streams.spawn(async move { request(&shared, &connection, read_only, stream).await });
                }
                Err(_) => return,
            },
        }
    }
}

/// Serves one stream. Whatever goes wrong with it ends this stream only.
async fn request(shared: &Shared, connection: &Connection, read_only: bool, mut stream: Stream) {
    let done = match tokio::time::timeout(SILENCE, stream.recv.recv::<ContentRequest>()).await {
        Ok(Ok(Some(ContentRequest::Get { hash, have }))) => get(shared, &mut stream, hash, have).await,
        Ok(Ok(Some(ContentRequest::GetChunks { hashes }))) => get_chunks(shared, &mut stream, hashes).await,
        Ok(Ok(Some(ContentRequest::Put { hash, len, body }))) => put(shared, &mut stream, read_only, hash, len, body).await,
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => Err(Ended::Peer(error.to_string())),
        Err(_) => Err(Ended::Peer("silent".into())),
    };
    match done {
        Ok(()) => stream.send.finish(),
        Err(Ended::Peer(why)) => {
            tracing::debug!(peer = %connection.peer(), why, "content stream");
            stream.send.reset();
        }
        // Nothing may be said about contents that cannot be looked up: "absent" would be a lie.
        Err(Ended::Store) => connection.close(CloseCode::Restarting),
    }
}

/// Why a stream ended early.
enum Ended {
    Peer(String),
    Store,
}

impl From<crate::net::SendError> for Ended {
    fn from(error: crate::net::SendError) -> Self {
        Self::Peer(error.to_string())
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable => Self::Store,
            Failure::Store(error) if error.needs_reopen() => Self::Store,
            Failure::Store(error) => {
                tracing::warn!(%error, "content");
                Self::Peer(error.to_string())
            }
        }
    }
}

async fn get(shared: &Shared, stream: &mut Stream, hash: Hash, have: Vec<Hash>) -> Result<(), Ended> {
    let reply = shared.work(move |store| find(store, &hash, &have)).await?;
    Ok(stream.send.send(&reply).await?)
}

fn find(store: &HubStore, hash: &Hash, have: &[Hash]) -> Result<ContentReply, StoreError> {
    let contents = store.contents();
    let Some(size) = contents.size(hash)? else { return Ok(ContentReply::Absent) };
    for base in have.iter().take(HAVE_MAX).filter(|base| *base != hash) {
        if let Some(delta) = contents.delta_for(base, hash)? {
            return Ok(ContentReply::Delta(delta));
        }
    }
    let found = if size <= CHUNK_MAX as u64 {
        contents.get_whole(hash)?.map(ContentReply::Whole)
    } else {
        contents.chunks_of(hash)?.map(ContentReply::Chunks)
    };
    Ok(found.unwrap_or(ContentReply::Absent))
}

async fn get_chunks(shared: &Shared, stream: &mut Stream, hashes: Vec<Hash>) -> Result<(), Ended> {
    for hash in hashes {
        let bytes = shared.work(move |store| store.contents().get_chunk(&hash)).await?;
        stream.send.send(&ChunkData { bytes }).await?;
    }
    Ok(())
}

async fn put(shared: &Shared, stream: &mut Stream, read_only: bool, hash: Hash, len: u64, body: PutBody) -> Result<(), Ended> {
    let reply = if read_only {
        PutReply::Refused { why: "this device may only read".into() }
    } else {
        let stored = match body {
            PutBody::Whole(frame) => stored(shared.work(move |store| put_whole(store, &hash, len, &frame)).await)?,
            PutBody::Delta(delta) => stored(shared.work(move |store| put_delta(store, &hash, len, delta)).await)?,
            PutBody::Chunks(list) => put_chunks(shared, stream, hash, len, list).await?,
        };
        match stored {
            // Whoever comes while another one syncs shares the next sync.
            PutReply::Stored => {
                self::stored(shared.work(|store| store.contents().make_durable().map(|()| PutReply::Stored)).await)?
            }
            other => other,
        }
    };
    Ok(stream.send.send(&reply).await?)
}

/// What the client is told about a content that was not stored: why, as long as the store itself is well.
fn stored(done: Result<PutReply, Failure>) -> Result<PutReply, Ended> {
    match done {
        Err(Failure::Store(error)) if !error.needs_reopen() => Ok(PutReply::Refused { why: error.to_string() }),
        done => Ok(done?),
    }
}

fn put_whole(store: &HubStore, hash: &Hash, len: u64, frame: &[u8]) -> Result<PutReply, StoreError> {
    store.contents().put_frame(hash, frame)?;
    measured(store, hash, len)
}

/// The answer for a content that is here: it must be as long as was said.
fn measured(store: &HubStore, hash: &Hash, len: u64) -> Result<PutReply, StoreError> {
    match store.contents().size(hash)? {
        Some(size) if size == len => Ok(PutReply::Stored),
        _ => Err(StoreError::Rejected("the content has another length than announced")),
    }
}

fn put_delta(store: &HubStore, hash: &Hash, len: u64, delta: Delta) -> Result<PutReply, StoreError> {
    let contents = store.contents();
    if contents.size(hash)?.is_some() {
        return measured(store, hash, len);
    }
    let Some(base) = contents.read(&delta.base, delta::DELTA_MAX)? else { return Ok(PutReply::SendWhole) };
    match delta::apply(&base, &delta, len, hash) {
        Ok(bytes) => {
            contents.put_whole(hash, &bytes)?;
            contents.offer_patch(hash, delta);
            Ok(PutReply::Stored)
        }
        Err(error) => {
            tracing::debug!(%error, "a delta that does not fit");
            Ok(PutReply::SendWhole)
        }
    }
}

async fn put_chunks(shared: &Shared, stream: &mut Stream, hash: Hash, len: u64, list: Vec<Chunk>) -> Result<PutReply, Ended> {
    if len <= CHUNK_MAX as u64 {
        return Ok(PutReply::Refused { why: "a content of this length travels whole".into() });
    }
    let list = Arc::new(list);
    let mut rounds = list.len() / ASK_MAX + 2;
    loop {
        let asked = list.clone();
        let missing = shared.work(move |store| store.contents().missing_chunks(&asked)).await?;
        if missing.is_empty() {
            let list = Vec::clone(&list);
            return stored(
                shared.work(move |store| store.contents().put_chunk_list(&hash, len, list).map(|()| PutReply::Stored)).await,
            );
        }
        // Chunks that were stored may be asked for again only if they were collected in between.
        rounds = rounds.checked_sub(1).ok_or_else(|| Ended::Peer("the chunks sent are not those asked for".into()))?;
        let wanted: Vec<u32> = missing.into_iter().take(ASK_MAX).collect();
        stream.send.send(&PutReply::SendChunks(wanted.clone())).await?;
        for index in wanted {
            let chunk = list[index as usize];
            let frame = match tokio::time::timeout(SILENCE, stream.recv.recv::<ChunkData>()).await {
                Ok(Ok(Some(ChunkData { bytes: Some(frame) }))) => frame,
                Ok(Ok(Some(ChunkData { bytes: None }))) => {
                    return Ok(PutReply::Refused { why: "a chunk is gone on the sending side".into() });
                }
                Ok(Ok(None)) => return Err(Ended::Peer("the chunks ended early".into())),
                Ok(Err(error)) => return Err(Ended::Peer(error.to_string())),
                Err(_) => return Err(Ended::Peer("silent".into())),
            };
            let put = shared.work(move |store| store.contents().put_chunk(&chunk.hash, &frame).map(|()| PutReply::Stored)).await;
            match stored(put)? {
                PutReply::Stored => {}
                refused => return Ok(refused),
            }
        }
    }
}
