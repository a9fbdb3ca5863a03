//! A program on a terminal, driven and looked at through tmux.

use super::world::wait_for;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// A terminal of 100 columns and 40 lines; what runs in it ends with it.
pub struct Terminal {
    server: String,
}

impl Terminal {
    /// Starts `line`, a shell command, in `dir`.
    #[track_caller]
    pub fn start(dir: &Path, line: &str) -> Self {
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let n = SERVERS.fetch_add(1, Ordering::Relaxed);
        let terminal = Self { server: format!("syncfs-test-{}-{n}", std::process::id()) };
        // The screen stays when the program has ended.
        let line = format!("{line}; echo \"[ended $?]\"; exec cat");
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "40", "-c", dir.to_str().unwrap(), &line]);
        terminal
    }

    #[track_caller]
    fn tmux(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.server]).args(words).env_remove("TMUX").env("LC_ALL", "C.UTF-8").env("SHELL", "/bin/sh");
        let output = command.output().unwrap_or_else(|error| panic!("tmux must be installed: {error}"));
        assert!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Types keys, as tmux names them: `Enter`, `C-x`, `Escape`; anything else is text.
    #[track_caller]
    pub fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types text.
    #[track_caller]
    pub fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    pub fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen shows one of `texts`.
    #[track_caller]
    pub fn shows(&self, texts: &[&str]) -> String {
        wait_for(&format!("the terminal shows one of {texts:?}"), || {
            let screen = self.screen();
            if texts.iter().any(|text| screen.contains(text)) { Ok(screen) } else { Err(format!("\n{screen}")) }
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already if the test could end it.
        let _ = Command::new("tmux").args(["-L", &self.server, "kill-server"]).output();
    }
}
