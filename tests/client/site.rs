//! A hub, devices with their directories, and what tests ask of them.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;
use syncfs::admin::KeyPair;
use syncfs::client::Client;
use syncfs::client::ClientSettings;
use syncfs::client::status::ClientStatus;
use syncfs::fs::mount::MountOptions;
use syncfs::hub;
use syncfs::hub::Hub;
use syncfs::hub::HubSettings;
use syncfs::model::PublicKey;
use tempfile::TempDir;

/// Long enough for a machine under load; nothing waits for it when all is well.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub fn wait_for(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !met() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A hub in a temporary directory.
pub struct Site {
    pub hub: Option<Hub>,
    pub addr: String,
    key: PublicKey,
    dir: TempDir,
}

impl Site {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let key = hub::init(&dir.path().join("hub")).unwrap();
        let mut site = Self { hub: None, addr: "127.0.0.1:0".into(), key, dir };
        site.start();
        site.addr = site.hub.as_ref().unwrap().addr().to_string();
        site
    }

    pub fn start(&mut self) {
        let listen = self.addr.parse().unwrap();
        self.hub = Some(Hub::start(&self.dir.path().join("hub"), listen, HubSettings::default()).unwrap());
    }

    pub fn stop(&mut self) {
        self.hub.take().unwrap().shutdown();
    }

    /// A registered device with an empty directory.
    pub fn device(&self, name: &str) -> Device {
        let dir = TempDir::new().unwrap();
        self.device_at(name, dir.path().into(), Some(dir))
    }

    pub fn device_at(&self, name: &str, root: PathBuf, dir: Option<TempDir>) -> Device {
        let pair = KeyPair::generate().unwrap();
        let request = hub::Request::Register { key: pair.public().to_string(), name: name.into(), read_only: false };
        hub::operate(&self.dir.path().join("hub"), &request).unwrap();
        let keys = self.dir.path().join(format!("{name}.key"));
        pair.store(&keys).unwrap();
        let root = root.canonicalize().unwrap();
        Device { client: None, root, keys, addr: self.addr.clone(), pin: self.key, _dir: dir }
    }
}

/// A device: its directory, and its client while it runs.
pub struct Device {
    // Before the directory: it must be unmounted before that is removed.
    pub client: Option<Client>,
    pub root: PathBuf,
    keys: PathBuf,
    addr: String,
    pin: PublicKey,
    _dir: Option<TempDir>,
}

impl Device {
    pub fn settings(&self, mount: bool) -> ClientSettings {
        ClientSettings {
            dir: self.root.clone(),
            state: self.root.join(".syncfs"),
            identity: KeyPair::load(&self.keys).unwrap(),
            hub: self.addr.clone(),
            pins: vec![self.pin],
            mount: mount.then(MountOptions::default),
            accept_empty: false,
        }
    }

    pub fn start(&mut self, mount: bool) {
        self.client = Some(Client::start(self.settings(mount)).unwrap());
    }

    pub fn stop(&mut self) {
        self.client.take().unwrap().stop().unwrap();
    }

    /// One run without a mount, until nothing is left to do.
    pub fn sync(&mut self) {
        self.start(false);
        self.wait_idle();
        self.stop();
    }

    pub fn status(&self) -> ClientStatus {
        self.client.as_ref().unwrap().status()
    }

    pub fn wait_idle(&self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = self.status();
            if status.idle {
                return;
            }
            assert!(Instant::now() < deadline, "never idle: {status:#?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| format!("<{error}>"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }
}

/// Waits until devices that run have nothing left to do and hold the same.
pub fn wait_equal(devices: &[&Device]) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let seen: Vec<ClientStatus> = devices.iter().map(|device| device.status()).collect();
        if seen.iter().all(|status| status.idle && status.root_hash == seen[0].root_hash) {
            return;
        }
        assert!(Instant::now() < deadline, "never equal: {seen:#?}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
