//! A hub and mounted devices as processes, and how they come into conflict.

use super::world::Process;
use super::world::World;
use super::world::wait_for;
use serde_json::Value;
use std::fs;
use std::fs::File;
use std::io;
use std::io::Seek;
use std::io::SeekFrom;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

/// A hub and its devices. The devices go first, then whatever they left.
pub struct Site {
    pub devices: Vec<Device>,
    hub: Option<Process>,
    address: String,
    pub world: World,
}

/// A mounted directory.
pub struct Device {
    pub dir: PathBuf,
    name: String,
    options: String,
    state: PathBuf,
    home: PathBuf,
    process: Option<Process>,
}

impl Site {
    /// A hub, and mounted empty devices `c1` and so on.
    #[track_caller]
    pub fn new(devices: usize) -> Self {
        assert!(Path::new("/dev/fuse").exists(), "/dev/fuse is not there: these tests mount for real");
        let world = World::new();
        let (hub, address) = world.hub();
        let mut site = Self { devices: Vec::new(), hub: Some(hub), address, world };
        for n in 1..=devices {
            let name = format!("c{n}");
            let options = site.world.register(&name, &site.address);
            let (dir, state) = (site.world.path(&name), site.world.path(&format!("{name}.state")));
            fs::create_dir(&dir).unwrap();
            let home = site.world.path("home");
            let mut device = Device { dir, name, options, state, home, process: None };
            device.start(&site.world);
            site.devices.push(device);
        }
        site
    }

    /// The hub goes: whatever is written now is written without it.
    #[track_caller]
    pub fn go_offline(&mut self) {
        self.hub.take().unwrap().stop();
        for device in &self.devices {
            device.waits("it notices that the hub has gone", |status| status["connected"] == false);
        }
    }

    /// The hub comes back.
    #[track_caller]
    pub fn go_online(&mut self) {
        let mut hub = self.world.start("hub", &format!("hub serve --data hub --listen {}", self.address));
        hub.says("listening on ");
        self.hub = Some(hub);
    }

    /// Waits until nobody has anything to do; conflicts may be open.
    #[track_caller]
    pub fn rests(&self) {
        wait_for("all rest", || {
            let seq = self.hub_status()?["seq"].clone();
            for device in &self.devices {
                let status = device.status()?;
                if status["idle"] != true || status["connected"] != true || status["cursor"] != seq {
                    return Err(format!("{}: {status}", device.name));
                }
            }
            Ok(())
        });
    }

    /// Waits until all hold the same and nobody has a conflict.
    #[track_caller]
    pub fn agrees(&self) {
        wait_for("all agree", || {
            let hub = self.hub_status()?;
            for device in &self.devices {
                let status = device.status()?;
                let rests = status["idle"] == true && status["connected"] == true && status["cursor"] == hub["seq"];
                let no_conflict = status["conflicts"].as_array().is_some_and(Vec::is_empty);
                if !rests || !no_conflict || status["root_hash"] != hub["root_hash"] {
                    return Err(format!("{}: {status}\nhub: {hub}", device.name));
                }
            }
            Ok(())
        });
    }

    fn hub_status(&self) -> Result<Value, String> {
        let said = self.world.run("status --hub --json --data hub");
        serde_json::from_str(&said.out).map_err(|_| format!("{said:?}"))
    }

    /// Writes a version that all have, then `first` on one device, while `second` has the file open; then what `second` writes.
    #[track_caller]
    pub fn clash(&self, name: &str, [base, first, second]: [&[u8]; 3], [winner, loser]: [usize; 2]) {
        let (winner, loser) = (&self.devices[winner], &self.devices[loser]);
        winner.write(name, base);
        self.agrees();
        let mut open = File::options().write(true).open(loser.dir.join(name)).unwrap();
        winner.write(name, first);
        loser.waits("the other version is known", |status| status["pending_down"] == 1);
        overwrite(&mut open, second).unwrap();
        drop(open);
        self.rests();
    }

    /// As [`Site::clash`]; the loser must be in conflict and nobody else, and the block in place.
    #[track_caller]
    pub fn conflict(&self, name: &str, texts: [&[u8]; 3], order: [usize; 2]) -> Value {
        self.clash(name, texts, order);
        for (at, device) in self.devices.iter().enumerate() {
            let expected = usize::from(at == order[1]);
            assert_eq!(device.conflicts().len(), expected, "{}: {:?}", device.name, device.status());
        }
        let loser = &self.devices[order[1]];
        loser.is_blocked(name);
        loser.conflicts().remove(0)
    }
}

impl Device {
    #[track_caller]
    pub fn start(&mut self, world: &World) {
        let process = world.start(&self.name, &format!("mount {} -f -v {}", self.name, self.options));
        wait_for("it is mounted", || {
            if !world.is_mounted(&self.name) {
                return Err(process.err());
            }
            self.status().map(drop)
        });
        self.process = Some(process);
    }

    #[track_caller]
    pub fn stop(&mut self) {
        self.process.take().unwrap().stop();
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncfs"));
        command.args(words).current_dir(&self.dir).stdin(Stdio::null()).env("HOME", &self.home);
        command.env("XDG_RUNTIME_DIR", self.home.with_file_name("run"));
        command.env_remove("VISUAL").env_remove("EDITOR").env_remove("RUST_LOG");
        command.arg("--state").arg(&self.state);
        command
    }

    pub fn status(&self) -> Result<Value, String> {
        let said = self.command(&["status", "--json"]).output().map_err(|error| error.to_string())?;
        serde_json::from_slice(&said.stdout).map_err(|_| format!("{said:?}"))
    }

    #[track_caller]
    pub fn waits(&self, what: &str, met: impl Fn(&Value) -> bool) {
        wait_for(&format!("{}: {what}", self.name), || {
            let status = self.status()?;
            if met(&status) { Ok(()) } else { Err(status.to_string()) }
        });
    }

    #[track_caller]
    pub fn conflicts(&self) -> Vec<Value> {
        let status = self.status().unwrap();
        status["conflicts"].as_array().unwrap().clone()
    }

    /// Waits until the file cannot be opened for writing.
    #[track_caller]
    pub fn is_blocked(&self, name: &str) {
        wait_for(&format!("{name} is blocked"), || {
            match File::options().write(true).open(self.dir.join(name)).map_err(|error| error.raw_os_error()) {
                Err(Some(libc::EROFS)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    pub fn resolve(&self, name: &str, options: &[&str]) -> Output {
        self.command(&[&["resolve", name], options].concat()).output().unwrap()
    }

    /// Resolves, which must succeed.
    #[track_caller]
    pub fn resolves(&self, name: &str, options: &[&str]) {
        let output = self.resolve(name, options);
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stdout).contains("can be written again"), "{output:?}");
    }

    #[track_caller]
    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.join(name), bytes).unwrap_or_else(|error| panic!("{}/{name}: {error}", self.name));
    }

    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.join(name)).unwrap_or_else(|error| panic!("{}/{name}: {error}", self.name))
    }

    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }

    /// Base, ours and theirs of a conflict.
    #[track_caller]
    pub fn sides(&self, conflict: &Value) -> [Vec<u8>; 3] {
        [0, 1, 2].map(|side| self.read(conflict["sides"][side].as_str().unwrap()))
    }

    /// What is merged so far.
    #[track_caller]
    pub fn merged(&self, conflict: &Value) -> String {
        let theirs = Path::new(conflict["sides"][2].as_str().unwrap());
        self.text(theirs.with_file_name("merged").to_str().unwrap())
    }
}

/// Writes another text through an open file.
pub fn overwrite(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(bytes)
}
