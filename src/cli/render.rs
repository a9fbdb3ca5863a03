//! Status for people. Pure text from values; `now` only turns times into "two minutes ago".

use super::failure::one_line;
use crate::client::status::ClientStatus;
use crate::client::status::Note;
use crate::client::status::OpenConflict;
use crate::client::status::Stamp;
use crate::hub::ClientState;
use crate::hub::HubStatus;
use std::fmt::Write;
use std::time::Duration;
use std::time::SystemTime;

/// How many notices are shown; the JSON has all.
const NOTICES_SHOWN: usize = 5;

/// A client's status: one line that says it all, then what a person may want to do something about.
pub fn client_status(dir: &str, status: &ClientStatus, now: SystemTime) -> String {
    let mut out = format!("{}: {}\n", one_line(dir), headline(status, now));
    let mut fact = |name: &str, value: String| {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "  {name:<10} {value}");
    };
    if let Some(hub) = &status.hub {
        let device = status.device.as_deref().map(|device| format!(", here as {}", one_line(device)));
        fact("hub", format!("{}{}", one_line(hub), device.unwrap_or_default()));
    }
    fact("last sync", status.last_sync.map_or_else(|| "never".into(), |stamp| ago(stamp, now)));
    if status.pending_up + status.pending_down > 0 {
        fact("waiting", format!("{} to send, {} to receive", status.pending_up, status.pending_down));
    }
    for conflict in &status.conflicts {
        fact("conflict", format!("{} ({})", one_line(&conflict.path.path), ago(conflict.since, now)));
    }
    if !status.conflicts.is_empty() {
        fact("", "run `syncfs resolve FILE`; --ours, --theirs, --both, --base, --with and --edit do not ask".into());
    }
    for error in &status.errors {
        fact("problem", note(error, now));
    }
    let older = status.notices.len().saturating_sub(NOTICES_SHOWN);
    for notice in &status.notices[older..] {
        fact("notice", note(notice, now));
    }
    if older > 0 {
        fact("", format!("and {} older, in --json", count(older, "notice")));
    }
    out
}

/// The files in conflict, each with where its three versions can be read.
pub fn conflicts(conflicts: &[OpenConflict], now: SystemTime) -> String {
    let mut out = String::new();
    for conflict in conflicts {
        // Writing into a String cannot fail.
        let places = conflict.hunks.filter(|hunks| *hunks > 0).map(|hunks| format!(", {}", count(hunks as usize, "place")));
        let _ = writeln!(out, "{} ({}{})", one_line(&conflict.path.path), ago(conflict.since, now), places.unwrap_or_default());
        for (name, side) in ["base", "ours", "theirs"].iter().zip(&conflict.sides) {
            let _ = writeln!(out, "  {name:<7} {}", one_line(side));
        }
        if let (Some(_), Some(theirs)) = (conflict.hunks, conflict.sides.last()) {
            let dir = theirs.strip_suffix("theirs").unwrap_or(theirs);
            let _ = writeln!(out, "  merged  {}", one_line(&format!("{dir}merged")));
        }
    }
    out
}

fn headline(status: &ClientStatus, now: SystemTime) -> String {
    if !status.conflicts.is_empty() {
        return format!("{} to resolve, everything else flows", count(status.conflicts.len(), "conflict"));
    }
    if !status.connected {
        // Why it is so is among the problems.
        let since = status.since.map(|since| format!(" for {}", span(since.age(now))));
        return format!("not connected to the hub{}; work goes on, changes are sent later", since.unwrap_or_default());
    }
    if !status.errors.is_empty() {
        return format!("{}, retrying", count(status.errors.len(), "problem"));
    }
    if status.idle { "in sync".into() } else { "syncing".into() }
}

fn note(note: &Note, now: SystemTime) -> String {
    let about = if note.path.path.is_empty() { String::new() } else { format!("{}: ", one_line(&note.path.path)) };
    format!("{about}{} ({})", one_line(&note.what), ago(note.at, now))
}

/// A hub's status: one line, then the devices in columns.
pub fn hub_status(status: &HubStatus, now: SystemTime) -> String {
    let kept = count(usize::try_from(status.log).unwrap_or(usize::MAX), "record");
    let mut out = format!("record {}, {kept} kept for devices that are behind\n", status.seq);
    let width = status.clients.iter().map(|client| client.name.chars().count()).max().unwrap_or(0);
    for client in &status.clients {
        let presence = match (client.state, client.connected) {
            (ClientState::Revoked, _) => "revoked".to_owned(),
            (_, true) => "connected".to_owned(),
            (ClientState::Lapsed, false) => format!("lapsed, last seen {}", ago(client.last_seen, now)),
            (ClientState::Active, false) => format!("away, last seen {}", ago(client.last_seen, now)),
        };
        let behind = match status.seq.saturating_sub(client.acked) {
            _ if client.state == ClientState::Revoked => String::new(),
            0 => ", has everything".to_owned(),
            behind => format!(", {behind} behind"),
        };
        let read_only = if client.read_only { ", read-only" } else { "" };
        let name = one_line(&client.name);
        let _ = writeln!(out, "  {:>3}  {name:<width$}  {presence}{behind}{read_only}", client.number);
    }
    out
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// How long ago `stamp` was, in the largest unit.
fn ago(stamp: Stamp, now: SystemTime) -> String {
    let age = stamp.age(now);
    if age < Duration::from_secs(5) { "just now".into() } else { format!("{} ago", span(age)) }
}

fn span(time: Duration) -> String {
    let (n, unit) = match time.as_secs() {
        secs @ 0..60 => (secs, "second"),
        secs @ 60..3600 => (secs / 60, "minute"),
        secs @ 3600..86_400 => (secs / 3600, "hour"),
        secs => (secs / 86_400, "day"),
    };
    count(usize::try_from(n).unwrap_or(usize::MAX), unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::RegisteredClient;

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    fn calm() -> ClientStatus {
        ClientStatus {
            ready: true,
            idle: true,
            connected: true,
            pending_up: 0,
            pending_down: 0,
            last_sync: Some(Stamp::from_millis(0)),
            cursor: 1,
            root_hash: String::new(),
            conflicts: Vec::new(),
            notices: Vec::new(),
            errors: Vec::new(),
            device: Some("laptop".into()),
            hub: Some("h:1".into()),
            since: None,
            wire_sent: None,
            wire_received: None,
        }
    }

    /// All is well: a person reads three short lines.
    #[test]
    fn in_sync() {
        let text = client_status("/notes", &calm(), at(7));
        assert_eq!(text, "/notes: in sync\n  hub        h:1, here as laptop\n  last sync  7 seconds ago\n");
    }

    /// Without the hub a person reads for how long, and that nothing is lost.
    #[test]
    fn unreachable() {
        let errors = vec![Note::new(b"", "The hub h:1 cannot be reached.", 0)];
        let since = Some(Stamp::from_millis(0));
        let status = ClientStatus { connected: false, idle: false, pending_up: 3, since, errors, ..calm() };
        let text = client_status("/notes", &status, at(7200));
        assert!(text.starts_with("/notes: not connected to the hub for 2 hours; work goes on"), "{text}");
        assert!(text.contains("The hub h:1 cannot be reached."), "{text}");
        assert!(text.contains("3 to send, 0 to receive"), "{text}");
    }

    /// A conflict names the file and the command, and a hostile name cannot draw on the terminal.
    #[test]
    fn conflicts() {
        let conflicts = vec![OpenConflict::new(b"a\x1b[2J.txt", 0, [b"b", b"o", b"t"])];
        let text = client_status("/notes", &ClientStatus { conflicts, ..calm() }, at(60));
        assert!(text.starts_with("/notes: 1 conflict to resolve"), "{text}");
        assert!(text.contains("a\\u{1b}[2J.txt (1 minute ago)"), "{text}");
        assert!(text.contains("syncfs resolve"), "{text}");
    }

    /// Who holds the log back can be seen at a glance.
    #[test]
    fn the_hub_shows_who_is_behind() {
        let client = |name: &str, number, state, acked, connected| RegisteredClient {
            name: name.into(),
            number,
            key: String::new(),
            state,
            acked,
            connected,
            last_seen: Stamp::from_millis(0),
            read_only: false,
            held: 0,
            holds_back: false,
        };
        let clients = vec![
            client("desk", 1, ClientState::Active, 9, true),
            client("laptop", 2, ClientState::Active, 4, false),
            client("old", 3, ClientState::Revoked, 0, false),
        ];
        let status = HubStatus { seq: 9, volume: String::new(), epoch: String::new(), log: 5, root_hash: String::new(), clients };
        let expected = "record 9, 5 records kept for devices that are behind
    1  desk    connected, has everything
    2  laptop  away, last seen 1 day ago, 5 behind
    3  old     revoked
";
        assert_eq!(hub_status(&status, at(90_000)), expected);
    }
}
