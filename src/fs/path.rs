//! Paths below a root, as lists of checked names.

use crate::model::Name;
use std::fmt;
use std::fmt::Write;

/// A path relative to a root; no names: the root itself. It cannot say `..`, and no component is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Vec<Name>);

/// Why some bytes are not a [`RelPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a path below a synchronized directory")]
pub struct BadPath;

impl RelPath {
    /// The root itself.
    pub const ROOT: Self = Self(Vec::new());

    /// The path in `a/b/c`; no bytes are the root.
    ///
    /// # Errors
    /// [`BadPath`] when a component is not a [`Name`]: so for a leading, doubled or trailing `/`, `.` and `..`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadPath> {
        if bytes.is_empty() {
            return Ok(Self::ROOT);
        }
        let names = bytes.split(|&byte| byte == b'/').map(|name| Name::new(name).map_err(|_| BadPath));
        names.collect::<Result<_, _>>().map(Self)
    }

    /// The path as `a/b/c`, the root as no bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/')
    }

    /// The components, outermost first.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The entry `name` of the directory at this path.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        Self(self.0.iter().chain([name]).cloned().collect())
    }

    /// The directory that holds it; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.split_last().map(|(_, above)| Self(above.to_vec()))
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&Name> {
        self.0.last()
    }

    /// Whether it is `above` or lies below it.
    pub fn starts_with(&self, above: &Self) -> bool {
        self.0.starts_with(&above.0)
    }
}

impl From<Vec<Name>> for RelPath {
    fn from(names: Vec<Name>) -> Self {
        Self(names)
    }
}

/// Characters that would change how a terminal shows the text around them.
fn deceives(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// For terminals: control and direction characters, backslashes and bytes that are not UTF-8 are escaped; the root is `.`.
impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_char('.');
        }
        for (at, name) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_char('/')?;
            }
            for chunk in name.as_bytes().utf8_chunks() {
                for c in chunk.valid().chars() {
                    match c {
                        '\\' => f.write_str("\\\\")?,
                        c if deceives(c) => write!(f, "{}", c.escape_default())?,
                        c => f.write_char(c)?,
                    }
                }
                chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.to_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path goes to bytes and back; bytes that would leave the root are no path.
    #[test]
    fn bytes_and_back() {
        for good in [&b""[..], b"a", b"a/b/c", b"\xff/\n"] {
            assert_eq!(RelPath::from_bytes(good).unwrap().to_bytes(), good);
        }
        for bad in [&b"/"[..], b"/a", b"a/", b"a//b", b"..", b"a/../b", b"./a", b".syncfs/stage", b"a\0"] {
            assert_eq!(RelPath::from_bytes(bad), Err(BadPath), "{}", bad.escape_ascii());
        }
    }

    /// Parent, name and join take a path apart and put it together.
    #[test]
    fn parts() {
        let path = RelPath::from_bytes(b"a/b/c").unwrap();
        assert_eq!(path.parent().unwrap().join(path.name().unwrap()), path);
        assert!(path.starts_with(&RelPath::from_bytes(b"a/b").unwrap()) && path.starts_with(&RelPath::ROOT));
        assert!(!RelPath::from_bytes(b"ab").unwrap().starts_with(&RelPath::from_bytes(b"a").unwrap()));
        assert_eq!((RelPath::ROOT.parent(), RelPath::ROOT.name()), (None, None));
    }

    /// A hostile name cannot write to a terminal.
    #[test]
    fn shown_without_deceit() {
        let shown = |bytes: &[u8]| RelPath::from_bytes(bytes).unwrap().to_string();
        assert_eq!(shown("dé/ü.md".as_bytes()), "dé/ü.md");
        assert_eq!(shown(b"a\x1b[2J/\xff\n"), "a\\u{1b}[2J/\\xff\\n");
        assert_eq!(shown("x\u{202e}y\\".as_bytes()), "x\\u{202e}y\\\\");
        assert_eq!(shown(b""), ".");
    }
}
