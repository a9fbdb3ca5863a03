use super::ClientError;
use super::status::ClientStatus;
use std::path::Path;
pub enum Request {
    Status,
    Conflicts,
    Resolve { path: Vec<u8>, how: Choice },
    Confirm,
    Stop { wait_idle: bool },
}
pub enum Choice {
    Ours,
    Theirs,
    Both,
    Base,
    With(Vec<u8>),
}
pub enum Reply {
    Status(ClientStatus),
    Done,
    Refused { sentence: String, hint: String },
}
pub fn request(_state: &Path, _request: &Request) -> Result<Option<Reply>, ClientError> {
    Ok(None)
}
