//! One hash over a whole tree, to compare replicas.

use super::name::Name;
use super::node::Content;
use super::node::Hash;
use super::node::NodeId;
use std::collections::BTreeMap;

/// A living node as the tree hash sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    pub id: NodeId,
    pub parent: NodeId,
    pub name: Name,
    pub content: Content,
    /// Permission bits.
    pub mode: u16,
}

/// The hash over names, kinds, contents and modes below the root; identities, times and sequence numbers are not in it.
/// Directories are hashed bottom-up, their entries in byte order of the names. Nodes that are not below the root are left out.
pub fn tree_hash(entries: impl IntoIterator<Item = TreeEntry>) -> Hash {
    let mut children: BTreeMap<NodeId, BTreeMap<Name, TreeEntry>> = BTreeMap::new();
    for entry in entries {
        children.entry(entry.parent).or_default().insert(entry.name.clone(), entry);
    }
    struct Open {
        id: NodeId,
        rest: std::vec::IntoIter<TreeEntry>,
        current: Option<TreeEntry>,
        hasher: blake3::Hasher,
    }
    let mut open = |id: NodeId| Open {
        id,
        rest: children.remove(&id).unwrap_or_default().into_values().collect::<Vec<_>>().into_iter(),
        current: None,
        hasher: blake3::Hasher::new_derive_key("syncfs 1 directory"),
    };
    let mut stack = vec![open(NodeId::ROOT)];
    loop {
        let top = stack.last_mut().expect("the root ends the loop");
        if let Some(entry) = top.rest.next() {
            if entry.content == Content::Dir {
                let id = entry.id;
                top.current = Some(entry);
                stack.push(open(id));
            } else {
                feed(&mut top.hasher, &entry, None);
            }
            continue;
        }
        let done = stack.pop().expect("top exists");
        let hash = Hash(*done.hasher.finalize().as_bytes());
        match stack.last_mut() {
            None => return hash,
            Some(parent) => {
                let entry = parent.current.take().expect("a directory was opened for an entry");
                debug_assert_eq!(entry.id, done.id);
                feed(&mut parent.hasher, &entry, Some(hash));
            }
        }
    }
}

fn feed(hasher: &mut blake3::Hasher, entry: &TreeEntry, below: Option<Hash>) {
    hasher.update(&(entry.name.as_bytes().len() as u16).to_le_bytes());
    hasher.update(entry.name.as_bytes());
    match &entry.content {
        Content::Dir => hasher.update(b"d"),
        Content::File { .. } => hasher.update(b"f"),
        Content::Symlink { .. } => hasher.update(b"l"),
    };
    hasher.update(&entry.mode.to_le_bytes());
    match &entry.content {
        Content::Dir => hasher.update(&below.unwrap_or(Hash([0; 32])).0),
        Content::File { hash, len } => hasher.update(&hash.0).update(&len.to_le_bytes()),
        Content::Symlink { target } => hasher.update(&(target.len() as u32).to_le_bytes()).update(target),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: u8, parent: u8, name: &str, content: Content) -> TreeEntry {
        let node = |n: u8| if n == 0 { NodeId::ROOT } else { NodeId([n; 16]) };
        TreeEntry { id: node(id), parent: node(parent), name: Name::new(name.as_bytes()).unwrap(), content, mode: 0o644 }
    }

    /// Two replicas with other identities and another order agree; any visible difference shows.
    #[test]
    fn equal_trees_hash_alike() {
        let tree = |f: u8, d: u8| {
            vec![entry(f, d, "f", Content::file(b"x")), entry(d, 0, "d", Content::Dir), entry(9, 0, "e", Content::file(b""))]
        };
        let mut other = tree(3, 4);
        other.reverse();
        assert_eq!(tree_hash(tree(1, 2)), tree_hash(other));
        let mut changed = tree(1, 2);
        changed[0].mode = 0o600;
        assert_ne!(tree_hash(tree(1, 2)), tree_hash(changed));
        let mut moved = tree(1, 2);
        moved[0].parent = NodeId::ROOT;
        assert_ne!(tree_hash(tree(1, 2)), tree_hash(moved));
    }

    /// A chain of 50,000 directories does not exhaust the stack.
    #[test]
    fn depth_is_not_recursion() {
        let id = |n: u32| NodeId(std::array::from_fn(|i| if i < 4 { n.to_le_bytes()[i] } else { 0 }));
        let chain = (1..50_000u32).map(|n| TreeEntry {
            id: id(n),
            parent: id(n - 1),
            name: Name::new(b"d").unwrap(),
            content: Content::Dir,
            mode: 0o755,
        });
        assert_ne!(tree_hash(chain), tree_hash([]));
    }
}
