//! What surrounds the lines of a text: a byte order mark, the style of its line ends, whether its last line has one.
//!
//! Each is a register of its own with the rule of the model (one side unchanged, the other wins), so that a change of one never
//! meets an edit of the words next to it.

use std::borrow::Cow;

const BOM: char = '\u{feff}';

/// One side of three registers with two values: who changed it wins. Both can only have changed it alike.
fn decide<T: PartialEq>(base: T, ours: T, theirs: T) -> T {
    if ours == base { theirs } else { ours }
}

/// The three texts without what surrounds their lines, and what the merged text must get back.
pub(super) struct Framed<'a> {
    /// Base, ours, theirs; each ends with a line end unless it is empty.
    pub bodies: [Cow<'a, str>; 3],
    /// Bytes that each body lost at its start.
    pub cut: [usize; 3],
    bom: bool,
    last_line_end: bool,
}

impl<'a> Framed<'a> {
    /// Takes the byte order marks off and completes the last lines of base, ours and theirs.
    pub fn new(texts: [&'a str; 3]) -> Self {
        let boms = texts.map(|text| text.starts_with(BOM));
        let cut = boms.map(|bom| if bom { BOM.len_utf8() } else { 0 });
        let bare = [0, 1, 2].map(|at| &texts[at][cut[at]..]);
        // A carriage return at the very end would become part of the line end that completes it, so such texts stay as they are.
        let bound = bare.iter().any(|text| text.ends_with('\r'));
        // An empty text has no last line, so it says nothing about it.
        let open = bare.map(|text| if text.is_empty() { None } else { Some(!bound && !text.ends_with('\n')) });
        let base_open = open[0].or(open[1]).or(open[2]).unwrap_or(false);
        let base_open = if open[0].is_none() && open[1] != open[2] { false } else { base_open };
        let last_open = decide(base_open, open[1].unwrap_or(base_open), open[2].unwrap_or(base_open));
        let end = if bare.iter().any(|text| text.contains("\r\n")) { "\r\n" } else { "\n" };
        let bodies = [0, 1, 2].map(|at| match open[at] {
            Some(true) => Cow::Owned([bare[at], end].concat()),
            _ => Cow::Borrowed(bare[at]),
        });
        Self { bodies, cut, bom: decide(boms[0], boms[1], boms[2]), last_line_end: !last_open }
    }

    /// The file for a merged body; `None` if what is taken off it stands there twice, so that the file would say something else.
    pub fn close(&self, body: &str) -> Option<String> {
        let inner = if self.last_line_end { body } else { open_end(body) };
        if (!self.last_line_end && inner.ends_with('\n')) || (!self.bom && inner.starts_with(BOM)) {
            return None;
        }
        let mut out = String::with_capacity(inner.len() + BOM.len_utf8());
        if self.bom {
            out.push(BOM);
        }
        out.push_str(inner);
        Some(out)
    }

    /// Whether the merged file starts with a byte order mark.
    pub fn bom(&self) -> bool {
        self.bom
    }

    /// Whether the merged file ends with a line end.
    pub fn last_line_end(&self) -> bool {
        self.last_line_end
    }
}

/// `text` without its last line end.
pub(super) fn open_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// How the lines of a text end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// `\n` throughout.
    Lf,
    /// `\r\n` throughout.
    CrLf,
    /// Both occur; their places are content.
    Mixed,
}

fn ends(text: &str) -> Ends {
    let all = text.bytes().filter(|&byte| byte == b'\n').count();
    match text.matches("\r\n").count() {
        0 => Ends::Lf,
        pairs if pairs == all => Ends::CrLf,
        _ => Ends::Mixed,
    }
}

/// When one side has turned every line end of the text from one style to the other: the three texts with `\n`, and whether the
/// merged text gets `\r\n`. `None` when the styles are equal or a text mixes them.
pub(super) fn one_style(texts: [&str; 3]) -> Option<([String; 3], bool)> {
    let styles = texts.map(ends);
    if styles.contains(&Ends::Mixed) || styles.iter().all(|style| *style == styles[0]) {
        return None;
    }
    let crlf = decide(styles[0], styles[1], styles[2]) == Ends::CrLf;
    Some((texts.map(|text| text.replace("\r\n", "\n")), crlf))
}
