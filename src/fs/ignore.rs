//! Names that are never synchronized.
//!
//! Only the unmistakable: a pattern for editors' random temporary names would hit users' files too, so those are left to settling.

/// Whether an entry of this name is a lock or swap file of an editor, or left over by a file system, and stays on this machine.
pub fn never_synced(name: &[u8]) -> bool {
    let around = |before: &[u8], after: &[u8]| {
        name.len() > before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
    };
    name == b"4913"
        || [&b".swp"[..], b".swx", b".swo", b".kate-swp"].into_iter().any(|after| around(b".", after))
        || [&b".#"[..], b".goutputstream-", b".fuse_hidden", b".nfs"].into_iter().any(|before| around(before, b""))
        || around(b".~lock.", b"#")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Editors' own files stay here, every name that a user could have meant travels.
    #[test]
    fn only_the_unmistakable() {
        for name in [
            &b".note.md.swp"[..],
            b".note.md.swx",
            b".note.swo",
            b".\xff.swp",
            b".#note.md",
            b"4913",
            b".goutputstream-A1B2C3",
            b".~lock.report.odt#",
            b".fuse_hidden0000000100000001",
            b".nfs000000000001",
            b".note.md.kate-swp",
        ] {
            assert!(never_synced(name), "{}", name.escape_ascii());
        }
        for name in [
            &b"note.md"[..],
            b"note.md.swp",
            b".swp",
            b"..swo.md",
            b"#note.md#",
            b".#",
            b"49130",
            b"4913.txt",
            b"goutputstream-A",
            b".~lock.a",
            b"note.md~",
            b"note.md.XXXXXX",
            b".git",
            b".nfs",
            b".nf",
        ] {
            assert!(!never_synced(name), "{}", name.escape_ascii());
        }
    }
}
