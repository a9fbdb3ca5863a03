//! Small cases that a reader can check by eye: base, ours, theirs, and the merge; `None` is a conflict. Each is tried both ways.

use super::clean;

type Case = (&'static str, &'static str, &'static str, &'static str, Option<&'static str>);

fn check(cases: &[Case]) {
    let mut wrong = Vec::new();
    for (what, base, ours, theirs, want) in cases {
        for (ours, theirs) in [(ours, theirs), (theirs, ours)] {
            let got = clean(base, ours, theirs);
            if got.as_deref() != *want {
                wrong.push(format!("{what}: want {want:?}, got {got:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases\n{}", wrong.len(), 2 * cases.len(), wrong.join("\n"));
}

#[test]
/// Words of one sentence.
fn words() {
    check(&[
        ("different words", "the quick brown fox", "the slow brown fox", "the quick brown dog", Some("the slow brown dog")),
        ("same word", "the quick fox", "the slow fox", "the fast fox", None),
        ("same word, same change", "the quick fox", "the slow fox", "the slow fox", Some("the slow fox")),
        ("adjacent words", "good morning all", "bad morning all", "good evening all", Some("bad evening all")),
        ("touching: word and its comma", "one, two", "uno, two", "one; two", None),
        ("in front and at the end", "b c d", "a b c d", "b c d e", Some("a b c d e")),
        ("both in front", "dear all", "my dear all", "oh dear all", None),
        ("both at the end", "see you", "see you soon", "see you later", None),
        ("both at the end, alike", "see you", "see you soon", "see you soon", Some("see you soon")),
        ("both at the end, one says more", "see you", "see you soon", "see you soon enough", Some("see you soon enough")),
        ("delete against edit", "keep this word here", "keep word here", "keep that word here", None),
        (
            "delete against edit elsewhere",
            "keep this little word here",
            "keep little word here",
            "keep this little word there",
            Some("keep little word there"),
        ),
        ("delete two different words", "a b c d e", "a c d e", "a b c e", Some("a c e")),
        ("delete the same word", "a b c", "a c", "a c", Some("a c")),
        ("overlapping deletions", "one two three four", "one four", "one two four", None),
        ("a repeated word: which one?", "very very good", "very good", "very very bad", None),
        ("a doubled word against its edit", "so that it works", "so that that it works", "so then it works", None),
        ("move against edit", "alpha beta gamma delta", "delta alpha beta gamma", "alpha beta gamma DELTA", None),
        ("case", "Hello world again", "hello world again", "Hello world Again", Some("hello world Again")),
        ("all replaced against one word", "red green blue", "cyan magenta yellow", "red lime blue", None),
    ]);
}

#[test]
/// What raw diff-match-patch got wrong ends as a conflict or as the right merge.
fn fuzzy_patching_is_gone() {
    check(&[
        ("a number is one word", "limit 1000", "limit 1500", "limit 2000", None),
        ("decimals too", "x 3.14 y", "x 3.15 y", "x 4.14 y", None),
        (
            "the neighbouring function",
            "fn a() {\n    x();\n}\n\nfn b() {\n    x();\n}\n",
            "fn b() {\n    x();\n}\n",
            "fn a() {\n    y();\n}\n\nfn b() {\n    x();\n}\n",
            None,
        ),
        ("equal appends are not doubled", "a\n", "a\nb\n", "a\nb\n", Some("a\nb\n")),
        ("a merged text again", "hello world", "say hello to the world", "say hello world", Some("say hello to the world")),
        (
            "a merged text again, other parent",
            "hello world",
            "say hello to the world",
            "hello to the world",
            Some("say hello to the world"),
        ),
    ]);
}

#[test]
/// Lines, lists and paragraphs.
fn lines() {
    check(&[
        ("different lines", "a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n", Some("A\nb\nC\n")),
        (
            "adjacent lines",
            "first line\nsecond line\n",
            "first row\nsecond line\n",
            "first line\nsecond row\n",
            Some("first row\nsecond row\n"),
        ),
        (
            "list items",
            "- milk\n- eggs\n- bread\n",
            "- oat milk\n- eggs\n- bread\n",
            "- milk\n- eggs\n- rye bread\n",
            Some("- oat milk\n- eggs\n- rye bread\n"),
        ),
        (
            "new items at different places",
            "- a\n- b\n- c\n",
            "- a\n- new\n- b\n- c\n",
            "- a\n- b\n- c\n- last\n",
            Some("- a\n- new\n- b\n- c\n- last\n"),
        ),
        ("both append lines", "a\n", "a\nb\n", "a\nc\n", None),
        ("both prepend lines", "z\n", "x\nz\n", "y\nz\n", None),
        ("append and prepend", "m\n", "m\nz\n", "a\nm\n", Some("a\nm\nz\n")),
        ("delete a line against its edit", "a\nbig b\nc\n", "a\nc\n", "a\nsmall b\nc\n", None),
        (
            "delete a line, edit another",
            "one\ntwo\nthree\nfour\n",
            "one\nthree\nfour\n",
            "one\ntwo\nthree\n4\n",
            Some("one\nthree\n4\n"),
        ),
        (
            "move a paragraph against an edit in it",
            "one\n\ntwo words\n\nthree\n",
            "two words\n\none\n\nthree\n",
            "one\n\ntwo big words\n\nthree\n",
            None,
        ),
        (
            "new paragraph, edit in the next",
            "first para\n\nlast para\n",
            "first para\n\nmiddle one\n\nlast para\n",
            "first para\n\nlast paragraph\n",
            Some("first para\n\nmiddle one\n\nlast paragraph\n"),
        ),
        ("both delete all", "a\nb\n", "", "", Some("")),
        ("delete all against edit", "a\nb\n", "", "a\nB\n", None),
        (
            "one side says more at one spot",
            "list:\n",
            "list:\n- apples here\n",
            "list:\n- apples here\n- pears too\n",
            Some("list:\n- apples here\n- pears too\n"),
        ),
        (
            "a tick against a new word",
            "- [ ] call Bob\n- [ ] rest\n",
            "- [x] call Bob\n- [ ] rest\n",
            "- [ ] call Bob today\n- [ ] rest\n",
            Some("- [x] call Bob today\n- [ ] rest\n"),
        ),
    ]);
}

#[test]
/// Line ends, byte order marks and last lines are registers of their own.
fn frames() {
    check(&[
        ("CRLF stays", "a b\r\nc d\r\n", "a B\r\nc d\r\n", "a b\r\nc D\r\n", Some("a B\r\nc D\r\n")),
        (
            "CRLF turned to LF against an edit",
            "one two\r\nthree\r\n",
            "one two\nthree\n",
            "one 2\r\nthree\r\n",
            Some("one 2\nthree\n"),
        ),
        (
            "LF turned to CRLF against an edit",
            "one two\nthree\n",
            "one two\r\nthree\r\n",
            "one 2\nthree\n",
            Some("one 2\r\nthree\r\n"),
        ),
        ("no last newline stays", "a\nb\nc", "A\nb\nc", "a\nb\nC", Some("A\nb\nC")),
        ("last newline added against edit of the last word", "one two", "one two\n", "one 2", Some("one 2\n")),
        ("last newline removed against an edit", "one two\n", "one two", "one 2\n", Some("one 2")),
        ("last newline added, line appended without", "a\nb", "a\nb\n", "a\nb\nc", Some("a\nb\nc\n")),
        ("BOM removed against an edit", "\u{feff}one two\n", "one two\n", "\u{feff}one 2\n", Some("one 2\n")),
        ("BOM added against an edit of the first word", "one two\n", "\u{feff}one two\n", "1 two\n", Some("\u{feff}1 two\n")),
        ("mixed line ends are content", "a\r\nb\nc d\n", "a\r\nb\nc D\n", "A\r\nb\nc d\n", Some("A\r\nb\nc D\n")),
    ]);
}

#[test]
/// Scripts, emoji and combining marks stay whole.
fn scripts() {
    check(&[
        ("an emoji family is one sign", "we 👨‍👩‍👧 go", "we 👨‍👩‍👦 go", "we 👨‍👩‍👧‍👦 go", None),
        ("emoji and word", "we 👍 go home", "we 👎 go home", "we 👍 go out", Some("we 👎 go out")),
        ("skin tone is part of it", "ok 👍 yes", "ok 👍🏽 yes", "ok 👍🏿 yes", None),
        ("combining marks", "cafe\u{301} noir", "cafe noir", "cafe\u{301} blanc", Some("cafe blanc")),
        ("combining mark against another", "e\u{301} x", "e\u{300} x", "e\u{302} x", None),
        (
            "CJK: different clauses",
            "我喜欢猫，他喜欢狗。",
            "我喜欢鱼，他喜欢狗。",
            "我喜欢猫，他喜欢鸟。",
            Some("我喜欢鱼，他喜欢鸟。"),
        ),
        ("CJK: one clause is one word", "我喜欢猫", "他喜欢猫", "我喜欢狗", None),
        ("Cyrillic", "доброе утро всем", "доброе утро вам", "недоброе утро всем", Some("недоброе утро вам")),
        ("right to left", "שלום עולם גדול", "שלום עולם קטן", "היי עולם גדול", Some("היי עולם קטן")),
        (
            "Thai SARA AM",
            "น\u{e49}\u{e33} ดี มาก",
            "น\u{e49}\u{e33} ดี จริง",
            "น\u{e49}\u{e33} ใส มาก",
            Some("น\u{e49}\u{e33} ใส จริง"),
        ),
    ]);
}

#[test]
/// Markdown and code.
fn marks_and_code() {
    check(&[
        (
            "table: two cells",
            "| a | b |\n|---|---|\n| one | two |\n",
            "| a | b |\n|---|---|\n| 1 | two |\n",
            "| a | b |\n|---|---|\n| one | 2 |\n",
            Some("| a | b |\n|---|---|\n| 1 | 2 |\n"),
        ),
        ("table: same cell", "| one | two |\n", "| 1 | two |\n", "| uno | two |\n", None),
        (
            "table: new row and edit of another",
            "| a |\n|---|\n| x |\n| y |\n",
            "| a |\n|---|\n| x |\n| y |\n| z |\n",
            "| a |\n|---|\n| xx |\n| y |\n",
            Some("| a |\n|---|\n| xx |\n| y |\n| z |\n"),
        ),
        (
            "front matter: two keys",
            "---\ntitle: My page\ntags: home\n---\n\nText here.\n",
            "---\ntitle: Our page\ntags: home\n---\n\nText here.\n",
            "---\ntitle: My page\ntags: work\n---\n\nText here.\n",
            Some("---\ntitle: Our page\ntags: work\n---\n\nText here.\n"),
        ),
        ("front matter: one key", "---\ndate: 2024-01-01\n---\n", "---\ndate: 2024\n---\n", "---\ndate: 1999\n---\n", None),
        (
            "heading level and its words",
            "## The old title\n",
            "# The old title\n",
            "## The new title\n",
            Some("# The new title\n"),
        ),
        (
            "link text and address",
            "see [the docs](http://a.example/x) now",
            "see [our docs](http://a.example/x) now",
            "see [the docs](http://a.example/y) now",
            Some("see [our docs](http://a.example/y) now"),
        ),
        (
            "code: different lines",
            "let a = 1;\nlet b = 2;\nlet c = 3;\n",
            "let a = 10;\nlet b = 2;\nlet c = 3;\n",
            "let a = 1;\nlet b = 2;\nlet c = 30;\n",
            Some("let a = 10;\nlet b = 2;\nlet c = 30;\n"),
        ),
        ("code: operator and operand touch", "if (a<b) { f(); }\n", "if (a>b) { f(); }\n", "if (a<c) { f(); }\n", None),
        ("code: no word between two edits", "x = f(a, b);\n", "x = f(c, b);\n", "x = f(a, d);\n", None),
        (
            "code: arguments with a word between",
            "x = call(a, mid, b);\n",
            "x = call(c, mid, b);\n",
            "x = call(a, mid, d);\n",
            Some("x = call(c, mid, d);\n"),
        ),
        ("code: both add an import", "use a;\nuse z;\n", "use a;\nuse b;\nuse z;\n", "use a;\nuse c;\nuse z;\n", None),
    ]);
}

#[test]
/// Two files added at one path: the longer one if it is the other plus insertions.
fn added_twice() {
    check(&[
        ("same", "", "a\n", "a\n", Some("a\n")),
        ("one has more at the end", "", "# Notes\n\nfirst\n", "# Notes\n\nfirst\nsecond\n", Some("# Notes\n\nfirst\nsecond\n")),
        ("one has more in two places", "", "one three\n", "zero one two three\n", Some("zero one two three\n")),
        ("different", "", "mine\n", "yours\n", None),
        ("one is empty", "", "", "a\n", Some("a\n")),
    ]);
}
