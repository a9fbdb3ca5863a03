//! Prose or code, told from the text alone: a merge knows no file name.

/// How much of a text is looked at, in bytes.
const SAMPLE: usize = 64 << 10;

/// How lines of prose begin that is written with marks: headings, lists, quotes, tables, links, fences.
const MARKS: [&[u8]; 10] = [b"# ", b"## ", b"### ", b"- ", b"* ", b"> ", b"|", b"![", b"[", b"```"];

/// Whether `text` reads like prose: few of its lines end as statements and data do, or they are mostly running words, or many
/// begin as marked-up prose does.
pub(super) fn is_prose(text: &str) -> bool {
    let sample = &text.as_bytes()[..text.len().min(SAMPLE)];
    let (mut lines, mut statements, mut running, mut marked) = (0usize, 0usize, 0usize, 0usize);
    for line in sample.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii();
        let Some(last) = line.last() else { continue };
        lines += 1;
        statements += usize::from(b";{}[](=>,".contains(last) || line == b")");
        running += line.windows(3).filter(|near| near[1] == b' ' && is_letter(near[0]) && is_letter(near[2])).count();
        marked += usize::from(MARKS.iter().any(|mark| line.starts_with(mark)));
    }
    statements * 4 < lines || running > lines * 3 || marked * 3 > lines
}

/// Letters beyond ASCII count by their bytes.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}
