//! One component of a path, as bytes; nothing is folded or normalised.

use std::fmt;
use std::sync::Arc;

/// The directory of a synchronized root that holds its own state; never a name in a volume, at any depth.
pub const STATE_DIR: &[u8] = b".syncfs";

/// The longest name, in bytes (`NAME_MAX` of Linux).
pub const NAME_MAX: usize = 255;

/// A name of a directory entry: 1 to 255 bytes, no `/`, no NUL, not `.`, `..` or `.syncfs`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

/// Why some bytes are not a [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a file name that can be synchronized")]
pub struct BadName;

impl Name {
    /// # Errors
    /// [`BadName`] when the bytes break a rule of the type.
    pub fn new(bytes: &[u8]) -> Result<Self, BadName> {
        let reserved = matches!(bytes, b"" | b"." | b"..") || bytes == STATE_DIR;
        if reserved || bytes.len() > NAME_MAX || bytes.iter().any(|&byte| byte == b'/' || byte == 0) {
            return Err(BadName);
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// `name (label).ext`, and with `n` above 1 `name (label n).ext`: the name of the side that gave way.
    /// What does not fit into [`NAME_MAX`] is cut off the stem.
    #[must_use]
    pub fn beside(&self, label: &str, n: u32) -> Self {
        let bytes = self.as_bytes();
        let dot = bytes.iter().rposition(|&byte| byte == b'.').filter(|&at| at > 0);
        let (stem, ext) = bytes.split_at(dot.unwrap_or(bytes.len()));
        let ext = if ext.len() > 32 { &[][..] } else { ext };
        let label: String = label.chars().filter(|c| *c != '/' && *c != '\0').take(64).collect();
        let mark = if n > 1 { format!(" ({label} {n})") } else { format!(" ({label})") };
        let room = NAME_MAX.saturating_sub(mark.len() + ext.len());
        let mut cut = stem.len().min(room);
        while cut > 0 && cut < stem.len() && stem[cut] & 0xC0 == 0x80 {
            cut -= 1;
        }
        let all = [&stem[..cut], mark.as_bytes(), ext].concat();
        Self(all[..all.len().min(NAME_MAX)].into())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hostile names are refused, every other byte string is a name.
    #[test]
    fn names_are_single_components() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", b".syncfs", &[b'x'; 256]] {
            assert_eq!(Name::new(bad), Err(BadName), "{}", bad.escape_ascii());
        }
        for good in [&b"a"[..], b"...", b".git", b"\xff\xfe", b"a\nb", &[b'x'; 255]] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }

    /// The name that gives way keeps its extension, stays within the limit and cuts no character in two.
    #[test]
    fn a_name_beside_another() {
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        assert_eq!(name("a.md").beside("laptop", 1), name("a (laptop).md"));
        assert_eq!(name("a.md").beside("laptop", 2), name("a (laptop 2).md"));
        assert_eq!(name(".bashrc").beside("x", 1), name(".bashrc (x)"));
        let long = name(&"é".repeat(127)).beside("laptop", 1);
        assert!(long.as_bytes().len() <= NAME_MAX && std::str::from_utf8(long.as_bytes()).is_ok());
    }
}
