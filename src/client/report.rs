//! What people and scripts are told.

use super::conflicts::SIDES;
use super::conflicts::version_of;
use super::engine::Engine;
use super::engine::now;
use super::status::ClientStatus;
use super::status::Note;
use super::status::OpenConflict;
use super::status::Stamp;
use crate::fs::path::RelPath;
use crate::model::Hash;
use std::time::Instant;

/// The hash of a busy client is made anew after so many times what it costs.
const HASH_SHARE: u32 = 20;

impl Engine {
    /// Whether nothing is left to do but what waits for a person.
    pub fn is_idle(&self) -> bool {
        let is_quiet = self.settle.is_empty() && self.unread.is_empty() && self.fetched.is_empty();
        let is_flushed = self.actions.is_empty() && self.ticket.is_none() && self.outbox.is_empty();
        let is_written = self.mounted.as_ref().is_some_and(|mounted| mounted.is_any_written());
        self.scanned
            && !self.down
            && is_quiet
            && is_flushed
            && !is_written
            && self.session.is_some()
            && self.replica.report().idle
    }

    /// The hash of the tree: exact where the client is idle, else possibly a little older, so that who asks again and again does not
    /// keep the work from being done.
    fn hash_for_people(&mut self, idle: bool) -> Hash {
        if let Some((hash, version, at, cost)) = self.root_hash
            && (version == self.version || (!idle && at.elapsed() < cost * HASH_SHARE))
        {
            return hash;
        }
        let begun = Instant::now();
        let hash = self.replica.root_hash();
        self.root_hash = Some((hash, self.version, Instant::now(), begun.elapsed()));
        hash
    }

    /// How everything stands now.
    pub fn status(&mut self) -> ClientStatus {
        let report = self.replica.report();
        let idle = self.is_idle();
        let hash = self.hash_for_people(idle);
        let conflicts = self.replica.conflicts().iter().map(|(node, conflict)| {
            let path = self.replica.path_for_people(*node);
            let at = self.shown.get(node).map_or(&path, |shown| &shown.path);
            let sides = SIDES.map(|side| [b".syncfs/conflicts/", &at[..], b"/", side.as_bytes()].concat());
            OpenConflict {
                hunks: self.shown.get(node).and_then(|shown| shown.hunks),
                version: Some(version_of(conflict)),
                ..OpenConflict::new(&path, conflict.since, [&sides[0], &sides[1], &sides[2]])
            }
        });
        let conflicts = conflicts.collect();
        let notices = report.notices.iter().map(|notice| Note::new(&notice.path, notice.what.clone(), notice.at)).collect();
        let mut errors: Vec<Note> =
            report.problems.iter().map(|problem| Note::new(&problem.path, problem.what.clone(), problem.at)).collect();
        for ((parent, name), (why, at)) in &self.unread {
            let dir = self.path(*parent).unwrap_or(RelPath::ROOT);
            errors.push(Note::new(&dir.join(name).to_bytes(), format!("cannot be read: {why}"), *at));
        }
        if let Some((why, at)) = &self.disk_error {
            errors.push(Note::new(b"", why.clone(), *at));
        }
        if let (None, Some(trouble)) = (&self.session, &self.trouble) {
            errors.push(Note::new(
                b"",
                format!("{} {}", sentence(&trouble.sentence), trouble.hint),
                self.since.unwrap_or_else(now),
            ));
        }
        if report.held_removals > 0 {
            let what = format!(
                "{} entries are missing since the last time, which is more than is believed: run `syncfs confirm` to remove them everywhere",
                report.held_removals
            );
            errors.push(Note::new(b"", what, now()));
        }
        errors.sort_by_key(|note| note.at);
        let traffic = self.session.as_ref().map(|session| session.connection.traffic());
        ClientStatus {
            ready: self.mounted.as_ref().is_none_or(|mounted| !mounted.has_ended()),
            idle,
            connected: self.session.is_some(),
            pending_up: report.pending_up as u64,
            pending_down: report.pending_down as u64,
            last_sync: (report.last_sync > 0).then(|| Stamp::from_millis(report.last_sync)),
            cursor: report.cursor,
            root_hash: hash.to_string(),
            conflicts,
            notices,
            errors,
            device: self.device.clone(),
            hub: Some(self.hub.clone()),
            since: self.since.map(Stamp::from_millis),
            wire_sent: traffic.map(|traffic| traffic.sent),
            wire_received: traffic.map(|traffic| traffic.received),
        }
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
