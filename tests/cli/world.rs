//! A home directory of its own for the processes of one test, and whatever they leave behind taken away.

use rustix::process::Pid;
use rustix::process::Signal;
use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// How long a condition may take before the test fails; no statement about speed.
const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Waits until `condition` gives a value; what it says instead is shown when the deadline passes.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(now) if start.elapsed() > DEADLINE => panic!("waited in vain: {what}; now: {now}"),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// Asserts that it failed with `code`, one sentence that contains `sentence`, one hint that contains `hint`, and no answer.
    #[track_caller]
    pub fn fails(self, code: i32, sentence: &str, hint: &str) {
        let lines: Vec<&str> = self.err.lines().collect();
        let [first, second] = lines[..] else { panic!("not a sentence and a hint: {self:#?}") };
        assert!(first.starts_with("syncfs: ") && first.contains(sentence), "{self:#?}");
        assert!(second.starts_with("  hint: ") && second.contains(hint), "{self:#?}");
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:#?}");
    }
}

/// A process that runs until it is told to end.
pub struct Process {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    pub fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// Waits until its standard output or standard error contains `text`, and gives the rest of that line.
    #[track_caller]
    pub fn says(&mut self, text: &str) -> String {
        wait_for(&format!("it says {text:?}"), || {
            let all = format!("{}\n{}\n", self.out(), self.err());
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(all.contains(text), "it ended: {status}\n{all}");
            }
            let rest = all.lines().find_map(|line| line.split_once(text));
            rest.map(|(_, rest)| rest.to_owned()).ok_or(all)
        })
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end and gives the exit code; `None` if a signal ended it.
    #[track_caller]
    pub fn end(&mut self) -> Option<i32> {
        wait_for("it ends", || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status.code()),
            None => Err(self.err()),
        })
    }

    /// SIGTERM, after which it must end well.
    #[track_caller]
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.end(), Some(0), "{}", self.err());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both are in vain where the test has ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}{}", self.err.display(), self.out(), self.err());
        }
    }
}

/// A user with an empty home.
pub struct World {
    pub base: PathBuf,
    _dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("syncfs-cli").tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        for name in ["home", "run"] {
            fs::create_dir(base.join(name)).unwrap();
            fs::set_permissions(base.join(name), fs::Permissions::from_mode(0o700)).unwrap();
        }
        Self { base, _dir: dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.base.join(name)
    }

    fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncfs"));
        command.args(words).current_dir(&self.base).stdin(Stdio::null());
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env_remove("XDG_STATE_HOME").env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
        command
    }

    /// Runs `syncfs` with the words of `line`, relative to the base, to its end.
    #[track_caller]
    pub fn run(&self, line: &str) -> Said {
        let output = self.command(line.split(' ')).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Starts `syncfs` with the words of `line`; `name` is for its output.
    pub fn start(&self, name: &str, line: &str) -> Process {
        let (out, err) = (self.path(&format!("{name}.out")), self.path(&format!("{name}.err")));
        let mut command = self.command(line.split(' '));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Process { child: command.spawn().unwrap(), out, err }
    }

    /// A hub in `hub` that serves; its address.
    #[track_caller]
    pub fn hub(&self) -> (Process, String) {
        self.run("hub init --data hub").code(0);
        let mut hub = self.start("hub", "hub serve --data hub --listen 127.0.0.1:0");
        let address = hub.says("listening on ");
        (hub, address)
    }

    /// The one-line answer of a command that succeeds.
    #[track_caller]
    pub fn line(&self, line: &str) -> String {
        let out = self.run(line).code(0).out;
        assert_eq!(out.lines().count(), 1, "{out}");
        out.trim_end().to_owned()
    }

    /// The options with which a client joins that hub, after it was registered as `name`; its state is `NAME.state`.
    #[track_caller]
    pub fn register(&self, name: &str, address: &str) -> String {
        let key = self.line(&format!("key show --state {name}.state"));
        self.run(&format!("admin register {key} --name {name} --data hub")).code(0);
        let hub_key = self.line("hub key --data hub");
        format!("--hub {address} --hub-key {hub_key} --state {name}.state")
    }

    /// Waits until the client asked with `line` is mounted and has nothing to do.
    #[track_caller]
    pub fn settles(&self, line: &str) -> serde_json::Value {
        wait_for(&format!("{line} is idle"), || {
            let said = self.run(&format!("status --json {line}"));
            let status: serde_json::Value = serde_json::from_str(&said.out).map_err(|_| format!("{said:?}"))?;
            if status["idle"] == true && status["connected"] == true { Ok(status) } else { Err(said.out) }
        })
    }

    /// Waits until the file has these bytes.
    #[track_caller]
    pub fn arrives(&self, file: &str, bytes: &str) {
        wait_for(&format!("{file} is {bytes:?}"), || match fs::read_to_string(self.path(file)) {
            Ok(text) if text == bytes => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    pub fn is_mounted(&self, dir: &str) -> bool {
        mounts().contains(&self.path(dir))
    }
}

/// The mount points of this system; the temporary directories have no blanks, which the table would escape.
fn mounts() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").unwrap();
    table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from).collect()
}

impl Drop for World {
    fn drop(&mut self) {
        for point in mounts().iter().filter(|point| point.starts_with(&self.base)) {
            // What fails here is left for a person, and no reason to hide why the test failed.
            let direct = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
            if direct.is_err() {
                let _ = Command::new("fusermount3").arg("-uz").arg(point).status();
            }
        }
        for pid in processes_in(&self.base) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// The processes in the background that have a path below `base` among their arguments: those of one test.
fn processes_in(base: &Path) -> Vec<Pid> {
    let base = base.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let words = String::from_utf8(fs::read(entry.path().join("cmdline")).ok()?).ok()?;
            let is_ours = words.contains("--in-background") && words.contains(base);
            Pid::from_raw(pid).filter(|_| is_ours)
        })
        .collect()
}
