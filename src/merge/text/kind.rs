//! Prose or code, told from the text alone: a merge knows no file name.

/// How much of a text is looked at, in bytes.
const SAMPLE: usize = 64 << 10;

/// How lines of prose begin that is written with marks: headings, lists, quotes, tables, links, fences.
const MARKS: [&[u8]; 10] = [b"# ", b"## ", b"### ", b"- ", b"* ", b"> ", b"|", b"![", b"[", b"```"];

/// What stands in statements and hardly in sentences.
const STATEMENTS: [&[u8]; 7] = [b" = ", b" := ", b"==", b"!=", b"&&", b"()", b"</"];

/// Whether `text` reads like prose: running words or the marks of marked-up prose, and few lines that are statements or data.
pub(super) fn is_prose(text: &str) -> bool {
    let sample = &text.as_bytes()[..text.len().min(SAMPLE)];
    let (mut lines, mut statements, mut running, mut marked) = (0usize, 0usize, 0usize, 0usize);
    for line in sample.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii();
        let Some(last) = line.last() else { continue };
        lines += 1;
        statements += usize::from(b";{}[](=>,".contains(last) || line == b")" || STATEMENTS.iter().any(|sign| holds(line, sign)));
        running += running_words(line);
        marked += usize::from(MARKS.iter().any(|mark| line.starts_with(mark)));
    }
    let few = statements * 2 < lines;
    (statements * 4 < lines && running >= lines) || (few && running > lines * 3) || (few && marked * 4 > lines)
}

fn holds(line: &[u8], sign: &[u8]) -> bool {
    line.windows(sign.len()).any(|part| part == sign)
}

/// Spaces between two letters; scripts without spaces count by their length, and a lone word counts too.
fn running_words(line: &[u8]) -> usize {
    let spaces = line.windows(3).filter(|near| near[1] == b' ' && is_letter(near[0]) && is_letter(near[2])).count();
    let other = line.iter().filter(|byte| !byte.is_ascii()).count() / 6;
    let bare = line.strip_suffix(b":").or(line.strip_suffix(b".")).unwrap_or(line);
    let lone = bare.iter().all(|byte| byte.is_ascii_alphabetic() || !byte.is_ascii());
    spaces + other + usize::from(lone)
}

/// Letters beyond ASCII count by their bytes.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}
