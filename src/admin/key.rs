//! Key pairs of devices and hubs, and the files they live in.

use crate::model::BadKey;
use crate::model::PublicKey;
use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::signature::KeyPair as _;
use data_encoding::BASE64;
use data_encoding::HEXLOWER;
use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::RenameFlags;
use std::fmt;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// The longest key file that is read, in bytes.
const FILE_MAX: u64 = 16 << 10;

/// Why a key pair could not be made, stored or loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("other users can read the private key {p}: run `chmod 600 {p}`; if somebody may have copied it, make a new one", p = path.display())]
    Readable { path: PathBuf },
    #[error("other users can replace the private key: run `chmod go-w {}`", dir.display())]
    Directory { dir: PathBuf },
    #[error("the private key {p} belongs to user {owner}, not to you: run `chown {me} {p} && chmod 600 {p}`", p = path.display())]
    Owner { path: PathBuf, owner: u32, me: u32 },
    #[error("{} is not a private key as `syncfs` or `openssl genpkey -algorithm ED25519` writes it: {why}", path.display())]
    Format { path: PathBuf, why: &'static str },
    #[error("the system's cryptography could not make a key")]
    Crypto,
}

/// An Ed25519 key pair; its private half never leaves the machine it was made on.
pub struct KeyPair {
    pkcs8: Vec<u8>,
    public: PublicKey,
}

impl KeyPair {
    /// A new random key pair.
    ///
    /// # Errors
    /// [`KeyError::Crypto`] when the system has no randomness to give.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Crypto)?;
        // OpenSSL 3.0 reads version 1 of PKCS#8 only.
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| KeyError::Crypto)?.as_ref().to_vec();
        Ok(Self { public: public_of(&pair).map_err(|_| KeyError::Crypto)?, pkcs8 })
    }

    /// The key pair in the file at `path`, a PKCS#8 PEM of mode 0600 that belongs to the caller.
    ///
    /// # Errors
    /// [`KeyError`] when there is none, when it is no Ed25519 key, and when others can read it or it belongs to somebody else.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| failed(path, error))?;
        check_private(&file, path)?;
        let mut text = String::new();
        file.take(FILE_MAX).read_to_string(&mut text).map_err(|error| failed(path, error))?;
        let format = |why| KeyError::Format { path: path.into(), why };
        let body = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
        let (body, _) = body.ok_or_else(|| format("no PRIVATE KEY block"))?;
        let packed: String = body.split_whitespace().collect();
        let pkcs8 = BASE64.decode(packed.as_bytes()).map_err(|_| format("damaged base64"))?;
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| format("not an Ed25519 key"))?;
        let public = public_of(&pair).map_err(|_| format("a weak key"))?;
        Ok(Self { pkcs8, public })
    }

    /// Writes the key pair to a new file at `path`, durably and whole or not at all. A directory that is missing is made with mode 0700.
    ///
    /// # Errors
    /// [`KeyError::Io`], of kind `AlreadyExists` where there is a file; it is left as it is. [`KeyError::Directory`] where others
    /// could replace the file.
    pub fn store(&self, path: &Path) -> Result<(), KeyError> {
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed(dir, error))?;
        let dir_file = File::open(dir).map_err(|error| failed(dir, error))?;
        let mode = dir_file.metadata().map_err(|error| failed(dir, error))?.mode();
        if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            return Err(KeyError::Directory { dir: dir.into() });
        }
        let mut tag = [0; 8];
        getrandom::fill(&mut tag).map_err(|_| KeyError::Crypto)?;
        let temp = dir.join(format!(".key-{}", HEXLOWER.encode(&tag)));
        let written = self.write_new(&temp).and_then(|()| place_new(&temp, path)).and_then(|()| dir_file.sync_all());
        if written.is_err() {
            // Best effort: the name is random, the failure itself is what the caller must hear.
            let _ = std::fs::remove_file(&temp);
        }
        written.map_err(|error| failed(path, error))
    }

    fn write_new(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
        writeln!(file, "{BEGIN}\n{}\n{END}", BASE64.encode(&self.pkcs8))?;
        file.sync_all()
    }

    /// The key pair in the file at `path`; where there is none it is made and stored. Two processes that do so at once get the same.
    ///
    /// # Errors
    /// As [`KeyPair::load`] and [`KeyPair::store`].
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let fresh = Self::generate()?;
        match fresh.store(path) {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            other => other.map(|()| fresh),
        }
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The whole pair as PKCS#8 DER, for the transport. Secret.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({:?})", self.public)
    }
}

fn public_of(pair: &Ed25519KeyPair) -> Result<PublicKey, BadKey> {
    PublicKey::new(pair.public_key().as_ref().try_into().map_err(|_| BadKey::NotEd25519)?)
}

fn failed(path: &Path, source: io::Error) -> KeyError {
    KeyError::Io { path: path.into(), source }
}

fn check_private(file: &File, path: &Path) -> Result<(), KeyError> {
    let stat = file.metadata().map_err(|error| failed(path, error))?;
    let me = rustix::process::geteuid().as_raw();
    if !stat.is_file() {
        return Err(KeyError::Format { path: path.into(), why: "not a regular file" });
    }
    if stat.uid() != me {
        return Err(KeyError::Owner { path: path.into(), owner: stat.uid(), me });
    }
    if stat.mode() & 0o077 != 0 {
        return Err(KeyError::Readable { path: path.into() });
    }
    Ok(())
}

/// Gives `temp` the name `path` unless that name exists.
fn place_new(temp: &Path, path: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, temp, CWD, path, RenameFlags::NOREPLACE) {
        // Some network file systems cannot rename without replacing, but all can link.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            rustix::fs::linkat(CWD, temp, CWD, path, AtFlags::empty())?;
            std::fs::remove_file(temp)
        }
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    /// A key is made once, in a file that only its owner can read, and found again.
    #[test]
    fn made_once_and_private() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("state/keys/identity.pem");
        let made = KeyPair::load_or_create(&path).expect("made");
        let again = KeyPair::load_or_create(&path).expect("loaded");
        assert_eq!(made.public(), again.public());
        assert_eq!(path.metadata().expect("stat").mode() & 0o7777, 0o600);
        assert_eq!(path.parent().expect("dir").metadata().expect("stat").mode() & 0o7777, 0o700);
        let names: Vec<_> = path.parent().expect("dir").read_dir().expect("list").collect();
        assert_eq!(names.len(), 1, "no temporary file stays: {names:?}");
    }

    /// The file is version 1 of PKCS#8, 48 bytes, which is what OpenSSL 3.0 reads.
    #[test]
    fn file_is_pkcs8_version_1() {
        let pair = KeyPair::generate().expect("key");
        assert_eq!(pair.pkcs8().len(), 48);
        assert_eq!(pair.pkcs8()[..5], [0x30, 0x2e, 0x02, 0x01, 0x00]);
    }

    /// The example key of RFC 8410, as `openssl genpkey` would write it, is read, and its public half is the one printed there.
    #[test]
    fn file_from_openssl_is_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("identity.pem");
        let secret = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";
        std::fs::write(&path, format!("{BEGIN}\n{secret}\n{END}\n")).expect("write");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
        let public =
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----";
        assert_eq!(Ok(KeyPair::load(&path).expect("loaded").public()), public.parse());
    }

    /// A key that others can read is refused, and the sentence holds the command that mends it.
    #[test]
    fn readable_by_others_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("identity.pem");
        KeyPair::load_or_create(&path).expect("made");
        for mode in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
            let error = KeyPair::load_or_create(&path).expect_err("refused").to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
    }

    /// A key in a directory where others can replace it is not made.
    #[test]
    fn writable_directory_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("chmod");
        let error = KeyPair::load_or_create(&dir.path().join("identity.pem")).expect_err("refused");
        assert!(matches!(error, KeyError::Directory { .. }), "{error}");
    }

    /// An existing file is never overwritten, a symlink never followed.
    #[test]
    fn nothing_is_overwritten_or_followed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("identity.pem");
        std::fs::write(&path, "precious").expect("write");
        let error = KeyPair::generate().expect("key").store(&path).expect_err("refused");
        assert!(matches!(error, KeyError::Io { ref source, .. } if source.kind() == io::ErrorKind::AlreadyExists), "{error}");
        assert_eq!(std::fs::read(&path).expect("read"), b"precious");
        let link = dir.path().join("link.pem");
        std::os::unix::fs::symlink(&path, &link).expect("symlink");
        assert!(matches!(KeyPair::load(&link), Err(KeyError::Io { .. })));
    }

    /// A file that is no key says so.
    #[test]
    fn garbage_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("identity.pem");
        for text in ["", "hello", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n"]
        {
            std::fs::write(&path, text).expect("write");
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("chmod");
            assert!(matches!(KeyPair::load(&path), Err(KeyError::Format { .. })), "{text:?}");
        }
    }
}
