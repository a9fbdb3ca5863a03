//! Bringing a content of a file here to the hub.

use super::hands::Hands;
use super::inputs::UploadFailure;
use super::link::Session;
use crate::fs::observe::Reading;
use crate::fs::path::RelPath;
use crate::merge::delta;
use crate::model::Fingerprint;
use crate::model::Hash;
use crate::net::Stream;
use crate::store::Chunked;
use crate::store::chunk;
use crate::wire::CHUNK_MAX;
use crate::wire::ChunkData;
use crate::wire::ContentRequest;
use crate::wire::PutBody;
use crate::wire::PutReply;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// How long the hub may take to answer.
const SILENCE: Duration = Duration::from_secs(120);
const LEVEL: i32 = 3;

/// A content to bring.
pub(super) struct Offer {
    pub hash: Hash,
    pub len: u64,
    /// A content the hub has that is like it.
    pub base: Option<Hash>,
    /// The file that holds it.
    pub path: RelPath,
    pub seen: Fingerprint,
}

fn other(error: impl fmt::Display) -> UploadFailure {
    UploadFailure::Other(error.to_string())
}

/// Brings it; when this returns it is durable on the hub.
///
/// # Errors
/// [`UploadFailure`].
pub(super) async fn upload(hands: Arc<Hands>, session: Session, offer: Offer) -> Result<(), UploadFailure> {
    let _permit = session.transfers.clone().acquire_owned().await.map_err(other)?;
    let offer = Arc::new(offer);
    if offer.len <= delta::DELTA_MAX as u64 {
        let (hands, offered) = (hands.clone(), offer.clone());
        let bodies = tokio::task::spawn_blocking(move || small(&hands, &offered)).await.map_err(other)??;
        for body in bodies {
            let mut stream = put(&session, &offer, body).await?;
            match answer(&mut stream).await? {
                PutReply::Stored => return Ok(()),
                PutReply::SendWhole => {}
                PutReply::Refused { why } => return Err(UploadFailure::Other(why)),
                PutReply::SendChunks(_) => return Err(other("the hub asked for chunks of a content that was sent whole")),
            }
        }
    }
    if offer.len <= CHUNK_MAX as u64 {
        return Err(other("the hub did not accept the content"));
    }
    large(hands, session, offer).await
}

async fn put(session: &Session, offer: &Offer, body: PutBody) -> Result<Stream, UploadFailure> {
    let mut stream = session.connection.open_content().await.map_err(other)?;
    stream.send.send(&ContentRequest::Put { hash: offer.hash, len: offer.len, body }).await.map_err(other)?;
    Ok(stream)
}

async fn answer(stream: &mut Stream) -> Result<PutReply, UploadFailure> {
    let received = tokio::time::timeout(SILENCE, stream.recv.recv::<PutReply>()).await;
    received.map_err(|_| other("the hub does not answer"))?.map_err(other)?.ok_or_else(|| other("the hub answered nothing"))
}

/// The ways to send a small content, the cheapest first.
fn small(hands: &Hands, offer: &Offer) -> Result<Vec<PutBody>, UploadFailure> {
    let bytes = match hands.root.read_all(&offer.path, &offer.seen, offer.len).map_err(other)? {
        Reading::Read(bytes) if Hash::of(&bytes) == offer.hash => bytes,
        _ => return Err(UploadFailure::Changed),
    };
    let base = offer.base.filter(|base| *base != offer.hash).and_then(|base| hands.base(&base));
    let mut bodies = Vec::new();
    bodies.extend(base.and_then(|base| delta::make(&base, &bytes)).map(PutBody::Delta));
    if bytes.len() <= CHUNK_MAX {
        bodies.push(PutBody::Whole(zstd::bulk::compress(&bytes, LEVEL).map_err(other)?));
    }
    Ok(bodies)
}

/// The file of an offer, while it still is that.
fn opened(hands: &Hands, offer: &Offer) -> Result<File, UploadFailure> {
    match hands.root.open_read(&offer.path).map_err(other)? {
        Some((file, look)) if look.fingerprint == offer.seen => Ok(file),
        _ => Err(UploadFailure::Changed),
    }
}

async fn large(hands: Arc<Hands>, session: Session, offer: Arc<Offer>) -> Result<(), UploadFailure> {
    let (cut, file) = {
        let offer = offer.clone();
        let cut = move || {
            let file = opened(&hands, &offer)?;
            let chunked = chunk(&file).map_err(other)?;
            if chunked.hash == offer.hash { Ok((chunked, file)) } else { Err(UploadFailure::Changed) }
        };
        tokio::task::spawn_blocking(cut).await.map_err(other)??
    };
    let (cut, file) = (Arc::new(cut), Arc::new(file));
    let mut stream = put(&session, &offer, PutBody::Chunks(cut.list())).await?;
    loop {
        match answer(&mut stream).await? {
            PutReply::Stored => return Ok(()),
            PutReply::Refused { why } => return Err(UploadFailure::Other(why)),
            PutReply::SendWhole => return Err(other("the hub asked for a large content in one piece")),
            PutReply::SendChunks(wanted) => {
                for index in wanted {
                    let (cut, file) = (cut.clone(), file.clone());
                    let read = tokio::task::spawn_blocking(move || piece(&cut, &file, index));
                    let bytes = read.await.map_err(other)??;
                    stream.send.send(&ChunkData { bytes: Some(bytes) }).await.map_err(other)?;
                }
            }
        }
    }
}

fn piece(cut: &Chunked, file: &File, index: u32) -> Result<Vec<u8>, UploadFailure> {
    let located = cut.chunks.get(index as usize).ok_or_else(|| other("the hub asked for a chunk that is not there"))?;
    let mut bytes = vec![0; located.chunk.len as usize];
    file.read_exact_at(&mut bytes, located.offset).map_err(|_| UploadFailure::Changed)?;
    if Hash::of(&bytes) != located.chunk.hash {
        return Err(UploadFailure::Changed);
    }
    zstd::bulk::compress(&bytes, LEVEL).map_err(other)
}
