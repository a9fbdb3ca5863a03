//! Every way to decide a conflict, as a person and a script have it.

use super::site::Site;
use super::terminal::Terminal;
use super::world::wait_for;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const BASE: &[u8] = b"a red cat\n\nstays\n\na red dog\n";
const THEIRS: &[u8] = b"a wet cat\n\nstays\n\na wet dog\n";
const OURS: &[u8] = b"a big cat\n\nstays\n\na big dog\n";
const TEXTS: [&[u8]; 3] = [BASE, THEIRS, OURS];
const ORDER: [usize; 2] = [0, 1];

/// Both devices have this text, and the file can be written on both.
#[track_caller]
fn stands(site: &Site, name: &str, bytes: &[u8]) {
    site.agrees();
    for device in &site.devices {
        assert_eq!(String::from_utf8_lossy(&device.read(name)), String::from_utf8_lossy(bytes));
        drop(File::options().write(true).open(device.dir.join(name)).unwrap());
    }
}

fn script(path: &Path, text: &str) -> String {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// `resolve f.txt` by a person on the second device.
fn on_a_terminal(site: &Site, options: &str) -> Terminal {
    let path = |name: &str| site.world.path(name).display().to_string();
    let program = env!("CARGO_BIN_EXE_syncfs");
    let line = format!("{program} resolve f.txt {options} --state {}", path("c2.state"));
    let line = format!("HOME={} XDG_RUNTIME_DIR={} VISUAL= EDITOR='vim -u NONE -N' {line}", path("home"), path("run"));
    Terminal::start(&site.devices[1].dir, &line)
}

/// The options that choose a version: it stands everywhere, the block is over, and the sides are gone.
#[test]
fn a_version_is_chosen() {
    let site = Site::new(2);
    let [winner, loser] = [&site.devices[0], &site.devices[1]];
    for (option, expected) in [("--ours", OURS), ("--theirs", THEIRS), ("--base", BASE)] {
        let name = format!("f{option}.txt");
        let conflict = site.conflict(&name, TEXTS, ORDER);
        loser.resolves(&name, &[option]);
        stands(&site, &name, expected);
        assert!(!loser.dir.join(conflict["sides"][0].as_str().unwrap()).exists());
    }
    let name = "plan.txt";
    site.conflict(name, TEXTS, ORDER);
    loser.resolves(name, &["--both"]);
    stands(&site, name, THEIRS);
    assert_eq!(winner.read("plan (c2).txt"), OURS);

    let name = "with.txt";
    site.conflict(name, TEXTS, ORDER);
    let given = site.world.path("given");
    fs::write(&given, "something else").unwrap();
    loser.resolves(name, &["--with", given.to_str().unwrap()]);
    stands(&site, name, b"something else");
    let output = loser.resolve(name, &["--ours"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// A conflict of texts is shown with its places, its sides and what is merged so far, in the mount, by `status` and as an attribute.
#[test]
fn a_text_conflict_is_shown() {
    let site = Site::new(2);
    let [winner, loser] = [&site.devices[0], &site.devices[1]];
    fs::create_dir(winner.dir.join("d")).unwrap();
    let conflict = site.conflict("d/f.txt", TEXTS, ORDER);
    assert_eq!((&conflict["path"], &conflict["hunks"]), (&"d/f.txt".into(), &2.into()));
    assert_eq!(loser.sides(&conflict), [BASE, OURS, THEIRS].map(<[u8]>::to_vec));
    let merged = loser.merged(&conflict);
    let first =
        "<<<<<<< ours (this device)\na big cat\n||||||| base\na red cat\n=======\na wet cat\n>>>>>>> theirs (hub)\n\nstays\n";
    assert!(merged.starts_with(first) && merged.matches("<<<<<<< ").count() == 2, "{merged}");

    let said = loser.command(&["conflicts"]).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.code() == Some(1) && text.contains("d/f.txt (") && text.contains("2 places"), "{text}");
    assert!(text.contains(".syncfs/conflicts/d/f.txt/merged"), "{text}");
    let state = |device: &super::site::Device| {
        let mut bytes = [0; 32];
        let len = rustix::fs::getxattr(device.dir.join("d/f.txt"), "user.syncfs.state", &mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    };
    assert_eq!((state(loser), state(winner)), ("conflict".into(), "ok".into()));
    assert_eq!(loser.dir.join("d/f.txt").metadata().unwrap().permissions().mode() & 0o222, 0);
    assert_eq!(winner.command(&["conflicts"]).output().unwrap().status.code(), Some(0));
}

/// `--edit` opens what is merged so far; it stands when no marker is left, and not before.
#[test]
fn an_editor_decides() {
    let site = Site::new(2);
    let loser = &site.devices[1];
    site.conflict("f.txt", TEXTS, ORDER);
    let run = |line: &str| {
        let editor = script(&site.world.path("editor"), line);
        loser.command(&["resolve", "f.txt", "--edit"]).env("EDITOR", editor).output().unwrap()
    };
    let output = run("true");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(3) && said.contains("line 1 still has a conflict marker"), "{said}");
    let kept = said.split("kept in ").nth(1).unwrap().trim().trim_end_matches('.');
    assert!(fs::read_to_string(kept).unwrap().contains("a big cat"), "{said}");
    fs::remove_dir_all(Path::new(kept).parent().unwrap()).unwrap();
    let output = run("exit 1");
    assert!(output.status.code() == Some(5), "{output:?}");
    loser.is_blocked("f.txt");

    let output = run("grep -q '^|||||||' \"$1\" && echo 'a dry cat' > \"$1\"");
    assert!(output.status.success(), "{output:?}");
    stands(&site, "f.txt", b"a dry cat\n");
}

/// `--tool` gives a merge program its files as git does, and takes what it made.
#[test]
fn a_merge_program_decides() {
    let site = Site::new(2);
    let loser = &site.devices[1];
    site.conflict("f.txt", TEXTS, ORDER);
    let bin = site.world.path("bin");
    fs::create_dir(&bin).unwrap();
    script(&bin.join("meld"), "test $# = 4 && cat \"$3\" \"$2\" \"$4\" > \"${1#--output=}\"");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = loser.command(&["resolve", "f.txt", "--tool", "meld"]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    stands(&site, "f.txt", &[BASE, OURS, THEIRS].concat());

    site.conflict("g.txt", TEXTS, ORDER);
    let output = loser.command(&["resolve", "g.txt", "--tool", "kdiff3"]).env("PATH", &bin).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(5) && said.contains("kdiff3 is not installed"), "{said}");
    loser.is_blocked("g.txt");
}

/// Without an option a person on a terminal is asked place by place, and can take an answer back; without a terminal it is wrong usage.
#[test]
fn a_person_is_asked() {
    let site = Site::new(2);
    let loser = &site.devices[1];
    site.conflict("f.txt", TEXTS, ORDER);
    let output = loser.resolve("f.txt", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("no terminal"), "{said}");

    let terminal = on_a_terminal(&site, "");
    terminal.shows(&["place 1 of 2"]);
    terminal.keys(&["q", "Enter"]);
    terminal.shows(&["[ended 1]"]);
    loser.is_blocked("f.txt");
    drop(terminal);

    let terminal = on_a_terminal(&site, "");
    let screen = terminal.shows(&["place 1 of 2"]);
    assert!(screen.contains("a big cat") && screen.contains("a wet cat"), "{screen}");
    terminal.keys(&["t", "Enter"]);
    terminal.shows(&["place 2 of 2, line 5"]);
    terminal.keys(&["u", "Enter"]);
    terminal.keys(&["o", "Enter"]);
    terminal.keys(&["t", "Enter"]);
    terminal.shows(&["all is decided"]);
    terminal.keys(&["y", "Enter"]);
    terminal.shows(&["can be written again"]);
    stands(&site, "f.txt", b"a big cat\n\nstays\n\na wet dog\n");
}

/// With a real vim: as an editor of the merged text, of one place, and as merge program with all four versions side by side.
#[test]
fn vim_decides() {
    let site = Site::new(2);
    let told = ["can be written again"];
    site.conflict("f.txt", TEXTS, ORDER);
    let terminal = on_a_terminal(&site, "--edit");
    terminal.shows(&["<<<<<<< ours (this device)"]);
    terminal.types(":g/^[<|>=]/d");
    terminal.keys(&["Enter"]);
    terminal.types(":g/red/d");
    terminal.keys(&["Enter"]);
    terminal.types(":wq");
    terminal.keys(&["Enter"]);
    terminal.shows(&told);
    stands(&site, "f.txt", b"a big cat\na wet cat\n\nstays\n\na big dog\na wet dog\n");
    drop(terminal);

    site.conflict("f.txt", TEXTS, ORDER);
    let terminal = on_a_terminal(&site, "");
    terminal.shows(&["place 1 of 2"]);
    terminal.keys(&["e", "Enter"]);
    terminal.shows(&["<<<<<<< ours"]);
    terminal.types(":%d");
    terminal.keys(&["Enter"]);
    terminal.types("idry");
    terminal.keys(&["Escape"]);
    terminal.types(":wq");
    terminal.keys(&["Enter"]);
    terminal.shows(&["place 2 of 2"]);
    terminal.keys(&["b", "Enter"]);
    terminal.shows(&["all is decided"]);
    terminal.keys(&["y", "Enter"]);
    terminal.shows(&told);
    stands(&site, "f.txt", b"a dry cat\n\nstays\n\na red dog\n");
    drop(terminal);

    site.conflict("f.txt", TEXTS, ORDER);
    let terminal = on_a_terminal(&site, "--tool vimdiff");
    terminal.shows(&["f_REMOTE.txt"]);
    terminal.types(":%d");
    terminal.keys(&["Enter"]);
    terminal.types("iin the diff");
    terminal.keys(&["Escape"]);
    terminal.types(":wqa");
    terminal.keys(&["Enter"]);
    terminal.shows(&told);
    stands(&site, "f.txt", b"in the diff\n");
}

/// While a person thinks the others go on: what he decided about an older version is refused and kept, not put over the newer one.
#[test]
fn a_decision_about_an_old_version_is_refused() {
    let site = Site::new(2);
    let [winner, loser] = [&site.devices[0], &site.devices[1]];
    let conflict = site.conflict("f.txt", TEXTS, ORDER);
    let (ready, go) = (site.world.path("ready"), site.world.path("go"));
    let wait = format!("touch {}; until [ -e {} ]; do sleep 0.02; done", ready.display(), go.display());
    let editor = script(&site.world.path("editor"), &format!("{wait}; echo mine > \"$1\""));
    let mut resolve = loser.command(&["resolve", "f.txt", "--edit"]);
    resolve.env("EDITOR", editor).stderr(File::create(site.world.path("said")).unwrap());
    let mut resolve = resolve.spawn().unwrap();
    wait_for("the editor is open", || if ready.exists() { Ok(()) } else { Err("it is not".into()) });
    winner.write("f.txt", b"a new cat\n\nstays\n\na new dog\n");
    loser.waits("the newer version is shown", |status| status["conflicts"][0]["version"] != conflict["version"]);
    drop(File::create(go).unwrap());
    assert_eq!(resolve.wait().unwrap().code(), Some(3));
    let said = fs::read_to_string(site.world.path("said")).unwrap();
    let kept = said.split("kept in ").nth(1).unwrap().trim().trim_end_matches('.');
    assert_eq!(fs::read_to_string(kept).unwrap(), "mine\n", "{said}");
    fs::remove_dir_all(Path::new(kept).parent().unwrap()).unwrap();
    site.rests();
    assert_eq!(winner.text("f.txt"), "a new cat\n\nstays\n\na new dog\n");
    assert_eq!(loser.sides(&loser.conflicts()[0])[2], winner.read("f.txt"));
}

/// Row 28: one conflict resolved on two devices at once: the second decision is an edit like any other, and nothing is lost.
#[test]
fn two_devices_resolve_at_once() {
    let mut site = Site::new(3);
    site.devices[0].write("f.txt", BASE);
    site.agrees();
    site.devices[1].stop();
    site.devices[2].stop();
    site.devices[1].write("f.txt", OURS);
    site.devices[2].write("f.txt", b"a fat cat\n\nstays\n\na fat dog\n");
    site.devices[0].write("f.txt", THEIRS);
    site.devices[0].waits("the hub has it", |status| status["idle"] == true);
    let Site { devices, world, .. } = &mut site;
    devices[1].start(world);
    devices[2].start(world);
    site.rests();
    for device in &site.devices[1..] {
        assert_eq!(device.conflicts().len(), 1);
        device.is_blocked("f.txt");
    }
    let decided: [&[u8]; 2] = [b"chosen by the second\n", b"selected at the third\n"];
    std::thread::scope(|scope| {
        for (device, text) in site.devices[1..].iter().zip(decided) {
            let given = site.world.path(&device.dir.file_name().unwrap().display().to_string()).with_extension("given");
            File::create(&given).unwrap().write_all(text).unwrap();
            scope.spawn(move || {
                let output = device.resolve("f.txt", &["--with", given.to_str().unwrap()]);
                assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
            });
        }
    });
    site.rests();
    let mut reachable: Vec<Vec<u8>> = site.devices.iter().map(|device| device.read("f.txt")).collect();
    for device in &site.devices {
        reachable.extend(device.conflicts().iter().flat_map(|conflict| device.sides(conflict)));
    }
    let has = |text: &[u8]| reachable.iter().any(|bytes| bytes == text);
    // A decision that came too late to be one leaves the device's own version in conflict.
    let (second, third) = (has(decided[0]) || has(OURS), has(decided[1]) || has(b"a fat cat\n\nstays\n\na fat dog\n"));
    assert!(second && third && (has(decided[0]) || has(decided[1])), "{reachable:?}");
}
