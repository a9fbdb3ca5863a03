//! The control socket of a running hub: one JSON request a line, one JSON reply a line, for the same user and root only.

use super::data::HubError;
use super::data::at;
use super::operation;
use super::operation::Reply;
use super::operation::Request;
use super::shared::Shared;
use std::fs::Permissions;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::task::JoinSet;

/// The socket's name in the data directory.
pub const CONTROL_SOCKET: &str = "control.sock";
/// The longest request in bytes.
const REQUEST_MAX: u64 = 64 << 10;
/// The longest reply in bytes.
const REPLY_MAX: u64 = 64 << 20;
/// How long the running hub may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Conversations at once.
const TALKS: usize = 16;

/// Makes the socket. The caller has the store open, so whatever is there belongs to no living hub.
pub(super) fn bind(data: &Path) -> Result<UnixListener, HubError> {
    let path = data.join(CONTROL_SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(short(data, &path)?).map_err(at(&path))?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(at(&path))?;
    Ok(listener)
}

/// A path to the socket that is short enough for a socket's address, whatever the directory's.
fn short(data: &Path, path: &Path) -> Result<std::path::PathBuf, HubError> {
    const ADDRESS_MAX: usize = 107;
    if path.as_os_str().len() <= ADDRESS_MAX {
        return Ok(path.into());
    }
    // The link stays valid while this process has the directory open; one descriptor is spent on it for good.
    let dir = std::fs::File::open(data).map_err(at(data))?;
    let fd = std::os::fd::IntoRawFd::into_raw_fd(dir);
    Ok(format!("/proc/self/fd/{fd}/{CONTROL_SOCKET}").into())
}

/// Answers on the socket until it is dropped.
pub(super) async fn serve(shared: Arc<Shared>, listener: UnixListener) {
    let mut talks = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = talks.join_next(), if !talks.is_empty() => {}
            accepted = listener.accept(), if talks.len() < TALKS => match accepted {
                Ok((stream, _)) => {
                    let shared = shared.clone();
                    talks.spawn(async move {
                        if let Err(error) = talk(&shared, stream).await {
                            tracing::debug!(%error, "control socket");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn talk(shared: &Arc<Shared>, mut stream: tokio::net::UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        tracing::warn!(uid = peer, "another user at the control socket");
        return Ok(());
    }
    let (recv, mut send) = stream.split();
    let mut recv = tokio::io::BufReader::new(recv);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut recv).take(REQUEST_MAX);
        let read = limited.read_until(b'\n', &mut line);
        if tokio::time::timeout(PATIENCE, read).await.map_err(io::Error::from)?? == 0 {
            return Ok(());
        }
        let reply = match serde_json::from_slice::<Request>(&line) {
            Ok(request) => operation::answer(shared, request).await,
            Err(error) => Reply::Refused(format!("not a request: {error}")),
        };
        let mut bytes = serde_json::to_vec(&reply)?;
        bytes.push(b'\n');
        send.write_all(&bytes).await?;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
    }
}

/// The running hub's reply; `None` where no hub runs.
pub(super) fn ask(data: &Path, request: &Request) -> Result<Option<Reply>, HubError> {
    let path = data.join(CONTROL_SOCKET);
    let stream = match short(data, &path).map(UnixStream::connect) {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Ok(Err(error)) => return Err(at(&path)(error)),
        Err(HubError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(HubError::Missing(data.into()));
        }
        Err(error) => return Err(error),
    };
    match exchange(&stream, request) {
        Ok(reply) => Ok(Some(reply)),
        // It ended in the middle of its answer.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && *request == Request::Status => Ok(None),
        Err(error) => Err(HubError::Control { data: data.into(), why: error.to_string() }),
    }
}

fn exchange(mut stream: &UnixStream, request: &Request) -> io::Result<Reply> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut bytes = serde_json::to_vec(request)?;
    bytes.push(b'\n');
    stream.write_all(&bytes)?;
    let mut line = Vec::new();
    BufReader::new(io::Read::take(stream, REPLY_MAX)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&line)?)
}
