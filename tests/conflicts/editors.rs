//! Real editors, on a terminal, with a file open that becomes blocked: the person is told, and what is in the editor can be saved elsewhere.

use super::site::Device;
use super::site::Site;
use super::terminal::Terminal;
use std::process::Command;

/// A site where `c2` has `f.txt` in an editor, started by `line`, which shows the text before anything happens to it.
fn opened(line: &str) -> (Site, Terminal) {
    let site = Site::new(2);
    site.devices[0].write("f.txt", b"cost: 1000\n");
    site.agrees();
    let home = site.world.path("home");
    let terminal = Terminal::start(&site.devices[1].dir, &format!("HOME={} {line} f.txt", home.display()));
    terminal.shows(&["cost: 1000"]);
    (site, terminal)
}

/// The file that is open in the editor gets blocked: another program on the same device saved it, and the other device had been first.
fn becomes_blocked(site: &Site) {
    let [winner, loser] = [&site.devices[0], &site.devices[1]];
    let held = std::fs::File::options().append(true).open(loser.dir.join("f.txt")).unwrap();
    winner.write("f.txt", b"cost: 1500\n");
    loser.waits("the version is known", |status| status["pending_down"] == 1);
    loser.write("f.txt", b"cost: 2000\n");
    drop(held);
    loser.is_blocked("f.txt");
    site.rests();
}

#[track_caller]
fn nothing_was_lost(site: &Site) {
    let loser: &Device = &site.devices[1];
    assert_eq!((loser.text("f.txt"), site.devices[0].text("f.txt")), ("cost: 2000\n".into(), "cost: 1500\n".into()));
    assert_eq!(loser.conflicts().len(), 1);
    let saved = loser.text("rescued.txt");
    assert!(saved.contains("MYWORDS") && saved.contains("cost: "), "{saved}");
    site.rests();
    assert_eq!(site.devices[0].text("rescued.txt"), saved);
}

/// vim refuses to write, says that it cannot, and writes the buffer under another name.
#[test]
fn vim() {
    let (site, terminal) = opened("vim -u NONE -N");
    terminal.keys(&["O"]);
    terminal.types("MYWORDS");
    terminal.keys(&["Escape"]);
    becomes_blocked(&site);
    terminal.types(":w!");
    terminal.keys(&["Enter"]);
    let told = ["read-only", "Read-only", "E212", "E505", "W12", "WARNING", "has changed since"];
    let screen = terminal.shows(&told);
    if screen.contains("really want to write") {
        terminal.keys(&["y"]);
        terminal.shows(&["E212", "Can't open file for writing", "E505", "E166", "E509", "E510"]);
    }
    terminal.keys(&["Enter"]);
    terminal.types(":w rescued.txt");
    terminal.keys(&["Enter"]);
    terminal.shows(&["\"rescued.txt\" [New]", "rescued.txt\" [New] 2L"]);
    nothing_was_lost(&site);
}

/// nano says that the file system is read-only, keeps the text, and writes it under another name.
#[test]
fn nano() {
    let (site, terminal) = opened("nano --ignorercfiles");
    terminal.types("MYWORDS ");
    terminal.shows(&["MYWORDS cost"]);
    becomes_blocked(&site);
    terminal.keys(&["C-o"]);
    terminal.shows(&["File Name to Write"]);
    terminal.keys(&["Enter"]);
    let screen = terminal.shows(&["Read-only file system", "changed on disk", "was modified", "modified since", "save anyway"]);
    if !screen.contains("Read-only file system") {
        terminal.keys(&["y"]);
        terminal.shows(&["Read-only file system"]);
    }
    terminal.keys(&["C-o"]);
    terminal.shows(&["File Name to Write"]);
    for _ in 0.."f.txt".len() {
        terminal.keys(&["BSpace"]);
    }
    terminal.types("rescued.txt");
    terminal.keys(&["Enter"]);
    let screen = terminal.shows(&["Wrote 1 line", "DIFFERENT NAME", "different name"]);
    if !screen.contains("Wrote 1 line") {
        terminal.keys(&["y"]);
        terminal.shows(&["Wrote 1 line"]);
    }
    nothing_was_lost(&site);
}

/// emacs says that the file is write-protected, keeps the buffer, and writes it under another name. Where it is installed.
#[test]
fn emacs() {
    if Command::new("emacs").arg("--version").output().is_err() {
        eprintln!("\n!!! NOT TESTED: emacs is not installed !!!\n");
        return;
    }
    let (site, terminal) = opened("emacs -nw -Q");
    terminal.types("MYWORDS ");
    terminal.shows(&["MYWORDS cost"]);
    becomes_blocked(&site);
    terminal.keys(&["C-x", "C-s"]);
    let screen = terminal.shows(&["changed on disk", "has changed since", "write-protected", "Save anyway"]);
    if screen.contains("anyway") && !screen.contains("write-protected") {
        terminal.types("yes");
        terminal.keys(&["Enter"]);
        terminal.shows(&["write-protected"]);
    }
    terminal.types("yes");
    terminal.keys(&["Enter"]);
    terminal.shows(&["Read-only file system", "ead-only"]);
    terminal.keys(&["C-g"]);
    terminal.shows(&["Quit"]);
    terminal.keys(&["C-x", "C-w"]);
    terminal.shows(&["Write file:"]);
    terminal.types("rescued.txt");
    terminal.keys(&["Enter"]);
    terminal.shows(&["Wrote "]);
    nothing_was_lost(&site);
}

/// Whoever opens a file that is blocked already reads at once that it cannot be written, before he types anything.
#[test]
fn opened_when_blocked() {
    let site = Site::new(2);
    site.conflict("f.txt", [b"cost: 1000\n", b"cost: 1500\n", b"cost: 2000\n"], [0, 1]);
    let home = site.world.path("home");
    // nano has one sentence for root and one for users.
    let lines: [(&str, &[&str]); 2] =
        [("vim -u NONE -N", &["[readonly]"]), ("nano --ignorercfiles", &["meant to be read-only", "unwritable"])];
    for (line, told) in lines {
        let terminal = Terminal::start(&site.devices[1].dir, &format!("HOME={} {line} f.txt", home.display()));
        terminal.shows(told);
        terminal.shows(&["cost: 2000"]);
    }
}
