//! Prose or code, told from the text alone: a merge knows no file name.

/// Characters that prose hardly uses and that programs and data are full of.
const SIGNS: &[u8] = b"{}=;<>&|\\$_\"/+@^~%";

/// How much of a text is looked at, in bytes.
const SAMPLE: usize = 64 << 10;

/// Whether `text` reads like prose: few lines end or begin as statements do, few signs between the letters.
pub(super) fn is_prose(text: &str) -> bool {
    let sample = &text.as_bytes()[..text.len().min(SAMPLE)];
    let (mut lines, mut code_lines, mut letters, mut signs) = (0usize, 0usize, 0usize, 0usize);
    for line in sample.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        lines += 1;
        let last = line[line.len() - 1];
        code_lines += usize::from(matches!(last, b';' | b'{' | b'}' | b'[' | b']' | b'(' | b'=' | b'>') || line == b")");
        letters += line.iter().filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii()).count();
        signs += line.iter().filter(|byte| SIGNS.contains(byte)).count();
    }
    code_lines * 4 < lines.max(1) && signs * 12 < letters.max(1)
}
