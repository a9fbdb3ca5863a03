//! The control socket of a running client: one JSON request a line, one JSON reply a line, for the same user and root only.

use super::ClientError;
use super::Kind;
use super::inputs::Input;
use super::inputs::Inputs;
use super::running::state_name;
use super::status::ClientStatus;
use data_encoding::BASE64;
use rustix::net::sockopt::socket_peercred;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de;
use std::fs::DirBuilder;
use std::fs::Permissions;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

/// The largest content of [`Choice::With`], in bytes.
const WITH_MAX: usize = 64 << 20;
/// The longest line, in bytes.
const LINE_MAX: u64 = 2 * WITH_MAX as u64;
/// How long a request may take to arrive, and an answer to a question.
const PATIENCE: Duration = Duration::from_secs(30);

/// What may be asked of a running client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Status,
    Conflicts,
    Resolve {
        /// Relative to the root.
        #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
        path: Vec<u8>,
        how: Choice,
        /// The [`OpenConflict::version`](super::status::OpenConflict::version) that the choice is about: refused where it is another
        /// by now. `None`: whatever it is now.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        seen: Option<String>,
    },
    /// The removals that were held are meant.
    Confirm,
    /// End; with `wait_idle` when nothing is left to do. Answered when it is done.
    Stop {
        wait_idle: bool,
    },
}

/// A person's choice for one conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    Ours,
    Theirs,
    /// Theirs, and ours as a new file beside.
    Both,
    Base,
    /// These bytes, up to 64 MiB.
    #[serde(serialize_with = "to_text", deserialize_with = "from_text")]
    With(Vec<u8>),
}

/// A client's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Status(ClientStatus),
    Done,
    /// Understood and not possible; nothing was changed.
    Refused {
        sentence: String,
        hint: String,
    },
}

fn to_text<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(bytes))
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64.decode(text.as_bytes()).map_err(de::Error::custom)
}

/// The directory of the sockets: of this user, or of the system for root.
fn socket_dir() -> PathBuf {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "/run/syncfs".into();
    }
    let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir());
    let usual = PathBuf::from(format!("/run/user/{}", uid.as_raw()));
    match own.or_else(|| usual.is_dir().then_some(usual)) {
        Some(dir) if dir.as_os_str().len() < 32 => dir.join("syncfs"),
        _ => format!("/tmp/syncfs-{}", uid.as_raw()).into(),
    }
}

/// Where the client with this state directory answers.
pub fn control_socket(state: &Path) -> PathBuf {
    socket_dir().join(format!("{}.sock", state_name(state)))
}

/// A socket that is bound, and removed in the end.
pub(super) struct Bound {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Whoever finds no socket knows that nobody runs.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes the socket. The caller has the store open, so whatever is there belongs to no living client.
pub(super) fn bind(state: &Path) -> Result<Bound, ClientError> {
    let path = control_socket(state);
    let broken = |error: io::Error| {
        let hint = "See that the directory is yours alone; `syncfs status` needs it.";
        ClientError::failed(format!("the control socket {} cannot be made: {error}", path.display()), hint)
    };
    let dir = socket_dir();
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(broken)?;
    let meta = std::fs::symlink_metadata(&dir).map_err(broken)?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o022 != 0 {
        return Err(broken(io::Error::other("others can write its directory")));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(broken(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(broken)?;
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(broken)?;
    Ok(Bound { listener, path })
}

/// The socket being served; dropping it ends that.
pub(super) struct Serving {
    path: PathBuf,
    ending: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.ending.store(true, std::sync::atomic::Ordering::Relaxed);
        // The thread waits for somebody to come.
        if UnixStream::connect(&self.path).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Answers on the socket until the client ends.
pub(super) fn serve(bound: Bound, inputs: Inputs) -> Result<Serving, ClientError> {
    let path = bound.path.clone();
    let ending = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = ending.clone();
    let answer = move || {
        for stream in bound.listener.incoming() {
            if told.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
            let inputs = inputs.clone();
            let talk = move || match stream {
                Ok(stream) => {
                    if let Err(error) = talk(&stream, &inputs) {
                        tracing::debug!(%error, "control socket");
                    }
                }
                Err(error) => tracing::warn!(%error, "control socket"),
            };
            if let Err(error) = std::thread::Builder::new().name("syncfs-control".into()).spawn(talk) {
                tracing::warn!(%error, "control socket");
            }
        }
    };
    let thread = std::thread::Builder::new().name("syncfs-control".into()).spawn(answer);
    let thread = thread
        .map_err(|error| ClientError::failed(format!("no thread for the control socket: {error}"), "Look at the limits."))?;
    Ok(Serving { path, ending, thread: Some(thread) })
}

fn talk(stream: &UnixStream, inputs: &Inputs) -> io::Result<()> {
    let peer = socket_peercred(stream)?.uid;
    if !peer.is_root() && peer != rustix::process::geteuid() {
        tracing::warn!(uid = peer.as_raw(), "another user at the control socket");
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    if BufReader::new(Read::take(stream, LINE_MAX)).read_until(b'\n', &mut line)? == 0 {
        return Ok(());
    }
    let reply = match serde_json::from_slice::<Request>(&line) {
        Ok(request) => ask(request, inputs),
        Err(error) => {
            Reply::Refused { sentence: format!("not a request: {error}"), hint: "Use the same version of syncfs.".into() }
        }
    };
    send(stream, &reply)
}

fn ask(request: Request, inputs: &Inputs) -> Reply {
    let is_question = matches!(request, Request::Status | Request::Conflicts);
    let (reply, answer) = channel();
    if !inputs.send(Input::Request(request, reply)) {
        return Reply::Done;
    }
    if is_question {
        let busy = |_| Reply::Status(busy(None, ""));
        return answer.recv_timeout(Duration::from_secs(5)).unwrap_or_else(busy);
    }
    // It ended instead, which is what a stop asks for.
    answer.recv().unwrap_or(Reply::Done)
}

/// What can be said while the engine is busy: what was known last, and that it is not idle.
pub(super) fn busy(last: Option<ClientStatus>, hub: &str) -> ClientStatus {
    let nothing = ClientStatus {
        ready: true,
        idle: false,
        connected: false,
        pending_up: 0,
        pending_down: 0,
        last_sync: None,
        cursor: 0,
        root_hash: String::new(),
        conflicts: Vec::new(),
        notices: Vec::new(),
        errors: Vec::new(),
        device: None,
        hub: (!hub.is_empty()).then(|| hub.to_owned()),
        since: None,
        wire_sent: None,
        wire_received: None,
    };
    ClientStatus { idle: false, ..last.unwrap_or(nothing) }
}

fn send(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(b'\n');
    stream.write_all(&bytes)
}

/// The answer of the client with this state directory; `None` where none runs.
///
/// # Errors
/// [`ClientError`] when it does not answer, or not what was expected.
pub fn request(state: &Path, request: &Request) -> Result<Option<Reply>, ClientError> {
    if let Request::Resolve { how: Choice::With(bytes), .. } = request
        && bytes.len() > WITH_MAX
    {
        return Err(ClientError::new(
            Kind::Usage,
            "the content is larger than 64 MiB",
            "Resolve with --theirs, then write it there.",
        ));
    }
    let path = control_socket(state);
    let stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
        Err(error) => return Err(silent(&path, &error)),
    };
    exchange(&stream, request).map_err(|error| silent(&path, &error))
}

fn silent(path: &Path, error: &io::Error) -> ClientError {
    let sentence = format!("the client at {} does not answer: {error}", path.display());
    ClientError::new(Kind::Unreachable, sentence, "Look at its log; if it hangs, end it and start it again.")
}

fn exchange(stream: &UnixStream, request: &Request) -> io::Result<Option<Reply>> {
    // A stop may wait for a hub that is far away.
    let patience = if matches!(request, Request::Stop { .. }) { None } else { Some(PATIENCE) };
    stream.set_read_timeout(patience)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(stream, request)?;
    let mut line = Vec::new();
    BufReader::new(Read::take(stream, LINE_MAX)).read_until(b'\n', &mut line)?;
    match serde_json::from_slice(&line) {
        Ok(reply) => Ok(Some(reply)),
        // It ended meanwhile.
        Err(_) if line.is_empty() => Ok(if matches!(request, Request::Stop { .. }) { Some(Reply::Done) } else { None }),
        Err(error) => Err(error.into()),
    }
}
