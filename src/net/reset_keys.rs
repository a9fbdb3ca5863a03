//! The keys that outlive a hub's process, so that a restarted hub can tell old clients that their connections are gone.
//!
//! QUIC answers a packet of an unknown connection with a stateless reset, which the client believes only if it is made with the key
//! the connection was made with; and it answers only connection ids that it recognizes as its own. Hence both keys are kept.

use super::NetError;
use crate::model::codec::decode_stored;
use crate::model::codec::encode_stored;
use aws_lc_rs::hmac;
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// The key of the stateless resets and the key of the connection ids.
type Keys = ([u8; 32], u64);

/// The longest keys file that is read, in bytes.
const FILE_MAX: u64 = 256;

/// The endpoint configuration with the keys from `path`, which are made where there are none. Keys that cannot be read are replaced:
/// all that is lost is that clients notice this one restart later.
///
/// # Errors
/// [`NetError::File`] when they can be neither read nor stored.
pub(super) fn endpoint_config(path: &Path) -> Result<EndpointConfig, NetError> {
    let failed = |source| NetError::File { path: path.into(), source };
    let (reset, ids) = match read(path).map_err(failed)? {
        Some(keys) => keys,
        None => {
            let keys = random()?;
            write(path, &keys).map_err(failed)?;
            keys
        }
    };
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &reset)));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    Ok(config)
}

fn random() -> Result<Keys, NetError> {
    let mut reset = [0; 32];
    let mut ids = [0; 8];
    getrandom::fill(&mut reset).and_then(|()| getrandom::fill(&mut ids)).map_err(|_| NetError::Random)?;
    Ok((reset, u64::from_le_bytes(ids)))
}

fn read(path: &Path) -> io::Result<Option<Keys>> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, FILE_MAX), &mut bytes)?;
    let keys = decode_stored(&bytes);
    if let Err(error) = &keys {
        tracing::warn!(path = %path.display(), %error, "the connection keys are damaged, making new ones");
    }
    Ok(keys.ok())
}

fn write(path: &Path, keys: &Keys) -> io::Result<()> {
    let temp = path.with_extension("new");
    // A file of this name is what a crash left of an earlier attempt.
    match std::fs::remove_file(&temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp)?;
    file.write_all(&encode_stored(keys))?;
    file.sync_all()?;
    std::fs::rename(&temp, path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// The keys are made once, private, and survive; damaged ones are replaced.
    #[test]
    fn keys_survive() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("connection-keys");
        endpoint_config(&path).expect("made");
        let made = read(&path).expect("read").expect("there");
        endpoint_config(&path).expect("found");
        assert_eq!(read(&path).expect("read"), Some(made));
        assert_eq!(path.metadata().expect("stat").mode() & 0o777, 0o600);
        std::fs::write(&path, b"\x01torn").expect("write");
        endpoint_config(&path).expect("replaced");
        assert_ne!(read(&path).expect("read").expect("there"), made);
    }
}
