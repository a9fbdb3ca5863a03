//! Real processes under test: a hub and clients with FUSE mounts, in a temporary directory, torn down whatever happens.

// Every test file is a program of its own and uses its part of this.
#![allow(dead_code)]

use rustix::process::Pid;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

pub mod tree;

/// How long a condition may take before the test fails. No statement about speed: a loaded machine gets it as well.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How a process is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM; the process must end by itself, successfully.
    Clean,
    /// SIGKILL, and what a person does afterwards.
    Kill,
}

/// Waits until `condition` gives a value. What it says instead is shown when the deadline passes.
#[track_caller]
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    wait_within(DEADLINE, what, condition)
}

/// [`wait_for`] with a deadline of its own, for what is much work.
#[track_caller]
pub fn wait_within<T>(deadline: Duration, what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(now) if start.elapsed() > deadline => panic!("waited {deadline:?} in vain: {what}; now: {now}"),
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

fn syncfs() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncfs"));
    command.env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// The standard output of a command that must succeed, without the last line end.
#[track_caller]
fn answer(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8 on standard output").trim_end().to_owned()
}

/// A running `syncfs` whose output goes to a file. It dies with the thread that started it.
struct Process {
    child: Child,
    name: String,
}

impl Process {
    fn start(name: &str, command: &mut Command, stdout: &Path, stderr: &Path) -> Self {
        let append = |path: &Path| File::options().create(true).append(true).open(path).expect("a log file");
        command.stdout(append(stdout)).stderr(append(stderr));
        // SAFETY: prctl is async-signal-safe, and nothing else happens between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, name: name.to_owned() }
    }

    fn assert_alive(&mut self) {
        let ended = self.child.try_wait().expect("waitpid");
        assert!(ended.is_none(), "{} ended by itself: {}", self.name, ended.unwrap_or_default());
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("the child has not been waited for");
    }

    /// Ends it and waits until it has.
    fn stop(mut self, how: Stop) {
        self.assert_alive();
        self.signal(match how {
            Stop::Clean => Signal::TERM,
            Stop::Kill => Signal::KILL,
        });
        let name = self.name.clone();
        let status = wait_for(&format!("{name} ends"), || self.child.try_wait().expect("waitpid").ok_or("it runs".into()));
        match how {
            Stop::Clean => assert!(status.success(), "{name} did not end well after SIGTERM: {status}"),
            Stop::Kill => assert_eq!(status.signal(), Some(9), "{name}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already waited for where the test went well: then neither has an effect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A hub of its own.
pub struct Hub {
    data: PathBuf,
    logs: PathBuf,
    /// Its public key, as `--hub-key` takes it.
    pub key: String,
    /// Free at the first start, the same ever after.
    pub listen: String,
    process: Option<Process>,
}

impl Hub {
    fn new(base: &Path) -> Self {
        let data = base.join("hub");
        answer(syncfs().args(["hub", "init", "--data"]).arg(&data));
        let key = answer(syncfs().args(["hub", "key", "--data"]).arg(&data));
        assert_eq!(key.lines().count(), 1, "hub key prints one line: {key:?}");
        let mut hub = Self { data, logs: base.join("logs"), key, listen: "127.0.0.1:0".into(), process: None };
        hub.start();
        hub
    }

    /// Serves, at the address it had before.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "the hub runs");
        let stdout = self.logs.join("hub.stdout");
        // Only the line of this start counts.
        drop(File::create(&stdout).expect("a log file"));
        let mut command = syncfs();
        command.args(["hub", "serve", "--listen", &self.listen, "--data"]).arg(&self.data);
        let mut process = Process::start("hub", &mut command, &stdout, &self.logs.join("hub.stderr"));
        self.listen = wait_for("the hub prints `listening on ADDR`", || {
            process.assert_alive();
            let text = fs::read_to_string(&stdout).map_err(|error| error.to_string())?;
            let line = text.lines().find_map(|line| line.strip_prefix("listening on ")).filter(|_| text.ends_with('\n'));
            line.map(str::to_owned).ok_or(text)
        });
        self.process = Some(process);
    }

    #[track_caller]
    pub fn stop(&mut self, how: Stop) {
        self.process.take().expect("the hub runs").stop(how);
    }

    /// The id of the running process.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the hub runs").child.id()
    }

    #[track_caller]
    pub fn assert_alive(&mut self) {
        self.process.as_mut().expect("the hub runs").assert_alive();
    }

    /// `status --hub --json`.
    pub fn status(&self) -> Result<Value, String> {
        status_json(syncfs().args(["status", "--hub", "--json", "--data"]).arg(&self.data))
    }

    /// The newest committed record.
    #[track_caller]
    pub fn seq(&self) -> u64 {
        wait_for("the hub's status", || self.status()?["seq"].as_u64().ok_or("no seq".into()))
    }

    /// Lets a key in.
    #[track_caller]
    pub fn register(&self, key: &str, name: &str) {
        answer(syncfs().args(["admin", "register", key, "--name", name, "--data"]).arg(&self.data));
    }
}

/// A status is an answer whether it is good (0) or not (1).
fn status_json(command: &mut Command) -> Result<Value, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if !matches!(output.status.code(), Some(0 | 1)) {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("not JSON: {error}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// A client: a directory and the state beside it.
pub struct Client {
    pub name: String,
    /// The device's public key, as `admin register` takes it.
    pub key: String,
    /// The directory: mounted while the client runs, plain while it does not.
    pub dir: PathBuf,
    state: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Client {
    fn new(base: &Path, name: &str, hub: &Hub) -> Self {
        let client = Self::stranger(base, name);
        hub.register(&client.key, name);
        client
    }

    /// One that no hub knows.
    fn stranger(base: &Path, name: &str) -> Self {
        let dir = base.join(name);
        fs::create_dir(&dir).expect("a new directory");
        let state = base.join(format!("{name}.state"));
        let key = answer(syncfs().args(["key", "show", "--state"]).arg(&state));
        Self { name: name.into(), key, dir, state, log: base.join(format!("logs/{name}.log")), process: None }
    }

    /// Mounts; returns when the mount answers.
    #[track_caller]
    pub fn start(&mut self, hub: &Hub) {
        self.start_with(&hub.listen, &hub.key);
    }

    /// Mounts for the hub at `listen` with the key `key`; returns when the mount answers.
    #[track_caller]
    pub fn start_with(&mut self, listen: &str, key: &str) {
        assert!(self.process.is_none(), "{} runs", self.name);
        let mut command = syncfs();
        command.arg("mount").arg(&self.dir).args(["-f", "-v", "--hub", listen, "--hub-key", key, "--state"]).arg(&self.state);
        let mut process = Process::start(&self.name, &mut command, &self.log, &self.log);
        wait_for(&format!("{} is ready", self.name), || {
            process.assert_alive();
            let status = self.status()?;
            if status["ready"] == true && is_mounted(&self.dir) { Ok(()) } else { Err(status.to_string()) }
        });
        self.process = Some(process);
    }

    /// Stops and leaves a plain directory.
    #[track_caller]
    pub fn stop(&mut self, how: Stop) {
        self.process.take().unwrap_or_else(|| panic!("{} runs", self.name)).stop(how);
        match how {
            Stop::Clean => assert!(!is_mounted(&self.dir), "{} left its mount behind after SIGTERM", self.name),
            Stop::Kill => unmount(&self.dir).expect("the mount of a killed client can be taken away"),
        }
    }

    /// SIGKILL, and nothing else: the dead mount stays.
    #[track_caller]
    pub fn kill(&mut self) {
        self.process.take().unwrap_or_else(|| panic!("{} runs", self.name)).stop(Stop::Kill);
    }

    /// Takes the dead mount of a killed client away, as `fusermount3 -uz` does.
    #[track_caller]
    pub fn unmount(&self) {
        unmount(&self.dir).expect("the mount of a killed client can be taken away");
    }

    /// The id of the running process.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap_or_else(|| panic!("{} runs", self.name)).child.id()
    }

    #[track_caller]
    pub fn assert_alive(&mut self) {
        self.process.as_mut().unwrap_or_else(|| panic!("{} runs", self.name)).assert_alive();
    }

    /// Everything it has said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// `status` as a person sees it, and its exit code.
    pub fn status_text(&self) -> (Option<i32>, String) {
        let output = syncfs().arg("status").arg(&self.dir).arg("--state").arg(&self.state).output().expect("status runs");
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// `status --json`.
    pub fn status(&self) -> Result<Value, String> {
        status_json(syncfs().arg("status").arg(&self.dir).arg("--json").arg("--state").arg(&self.state))
    }
}

/// Whether a file system is mounted at `dir` itself.
fn is_mounted(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mounts").expect("/proc is there");
    // The temporary directories of the tests have no blanks, which the table would escape.
    table.lines().filter_map(|line| line.split(' ').nth(1)).any(|point| Path::new(point) == dir)
}

/// Takes every mount at `dir` away, with whoever is in it: as root directly, as a user by fusermount3.
fn unmount(dir: &Path) -> io::Result<()> {
    while is_mounted(dir) {
        let direct = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH);
        if direct.is_err() {
            let status = Command::new("fusermount3").arg("-uz").arg(dir).status()?;
            if !status.success() {
                return Err(io::Error::other(format!("fusermount3 -uz {}: {status}", dir.display())));
            }
        }
    }
    Ok(())
}

/// A hub and two clients, all running. Each ends and takes its mount away when it goes out of scope, and shows its log if that is in a panic.
pub struct World {
    pub hub: Hub,
    pub c1: Client,
    pub c2: Client,
    /// Goes last, when nobody is in it any more.
    base: tempfile::TempDir,
}

impl World {
    /// Everything new, started and quiet.
    #[track_caller]
    pub fn new() -> Self {
        let mut world = Self::cold();
        world.c1.start(&world.hub);
        world.c2.start(&world.hub);
        world.settle();
        world
    }

    /// A running hub and two clients that it knows and that have not started yet.
    #[track_caller]
    pub fn cold() -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "/dev/fuse is not there: these tests mount for real; load the module `fuse` or run the container with --device /dev/fuse"
        );
        let base = tempfile::Builder::new().prefix("syncfs-test").tempdir().expect("a temporary directory");
        let path = base.path().canonicalize().expect("a real path");
        fs::create_dir(path.join("logs")).expect("a new directory");
        let hub = Hub::new(&path);
        let c1 = Client::new(&path, "c1", &hub);
        let c2 = Client::new(&path, "c2", &hub);
        Self { hub, c1, c2, base }
    }

    /// A client that the hub does not know.
    pub fn stranger(&self, name: &str) -> Client {
        Client::stranger(&self.path(), name)
    }

    /// The temporary directory of this world.
    pub fn path(&self) -> PathBuf {
        self.base.path().canonicalize().expect("a real path")
    }

    /// Waits until nothing is under way anywhere: both clients idle with everything the hub has, all three trees with one hash, and no conflict.
    #[track_caller]
    pub fn settle(&mut self) {
        self.settle_within(DEADLINE);
    }

    /// [`World::settle`] with a deadline of its own.
    #[track_caller]
    pub fn settle_within(&mut self, deadline: Duration) {
        let World { hub, c1, c2, .. } = self;
        for process in [&mut hub.process, &mut c1.process, &mut c2.process].into_iter().flatten() {
            process.assert_alive();
        }
        wait_within(deadline, "hub and clients agree and rest", || {
            let hub = hub.status()?;
            for client in [&*c1, &*c2] {
                let status = client.status()?;
                let rests = status["idle"] == true && status["connected"] == true && status["cursor"] == hub["seq"];
                let agrees = status["root_hash"] == hub["root_hash"] && status["root_hash"].is_string();
                if !rests || !agrees {
                    return Err(format!("{}: {status}\nhub: {hub}", client.name));
                }
                if status["conflicts"].as_array().is_none_or(|conflicts| !conflicts.is_empty()) {
                    return Err(format!("{} has conflicts: {status}", client.name));
                }
            }
            Ok(())
        });
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        drop(self.process.take());
        show_on_panic(&self.logs.join("hub.stderr"));
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.process.take());
        if let Err(error) = unmount(&self.dir) {
            eprintln!("left mounted: {}: {error}", self.dir.display());
        }
        show_on_panic(&self.log);
    }
}

fn show_on_panic(log: &Path) {
    if std::thread::panicking() {
        let text = fs::read(log).unwrap_or_default();
        eprintln!("--- {}\n{}", log.display(), String::from_utf8_lossy(&text));
    }
}
