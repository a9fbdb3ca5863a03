//! Two devices work on the same files without the hub.

use super::site::Site;

const FILES: usize = 50;

/// Fifty texts are edited on both devices while the hub is away: each is merged or blocked, and no word of anybody is missing.
#[test]
fn fifty_files_edited_on_both_sides() {
    let mut site = Site::new(2);
    let name = |n: usize| format!("note {n}.md");
    let text = |n: usize, [top, end]: [&str; 2]| {
        let middle: String = (0..20).map(|line| format!("Line {line} of note {n} stays as it was.\n\n")).collect();
        format!("# Note {n} {top}\n\n{middle}The end {end} of it.\n")
    };
    for n in 0..FILES {
        site.devices[0].write(&name(n), text(n, ["here", "there"]).as_bytes());
    }
    site.agrees();
    site.go_offline();
    let tokens = |n: usize| [format!("alpha{n}"), format!("omega{n}")];
    for n in 0..FILES {
        let [alpha, omega] = tokens(n);
        // Every fifth at the same word.
        let second = if n.is_multiple_of(5) { [&omega[..], "there"] } else { ["here", &omega] };
        site.devices[0].write(&name(n), text(n, [&alpha, "there"]).as_bytes());
        site.devices[1].write(&name(n), text(n, second).as_bytes());
    }
    site.go_online();
    site.rests();
    let blocked = |at: usize| -> Vec<String> {
        let conflicts = site.devices[at].conflicts();
        conflicts.iter().map(|conflict| conflict["path"].as_str().unwrap().to_owned()).collect()
    };
    let blocked = [blocked(0), blocked(1)];
    for n in 0..FILES {
        let name = name(n);
        let texts = [0, 1].map(|at| site.devices[at].text(&name));
        let has = |text: &String| tokens(n).map(|token| text.contains(&token));
        if n.is_multiple_of(5) {
            let holders = [0, 1].map(|at| blocked[at].contains(&name));
            assert!(holders[0] != holders[1], "{name}: blocked on {holders:?}");
            assert_eq!([has(&texts[0]), has(&texts[1])], [[true, false], [false, true]], "{name}");
            site.devices[usize::from(holders[1])].is_blocked(&name);
        } else {
            assert!(texts[0] == texts[1] && has(&texts[0]) == [true, true], "{name}: {texts:?}");
        }
    }
    assert_eq!(blocked[0].len() + blocked[1].len(), FILES / 5);
    for (at, names) in blocked.iter().enumerate() {
        for name in names {
            site.devices[at].resolves(name, &["--ours"]);
        }
    }
    site.agrees();
}
