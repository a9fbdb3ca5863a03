use super::*;
use crate::admin::KeyPair;

fn key() -> PublicKey {
    KeyPair::generate().expect("key").public()
}

/// An instant that survives the file, which counts milliseconds.
fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

struct Place {
    dir: tempfile::TempDir,
    hub: PublicKey,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("tempdir"), hub: key() }
    }

    fn open(&self) -> Registry {
        Registry::open(self.dir.path(), self.hub).expect("opened")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }
}

/// What was registered and revoked is known again after a restart, and numbers go on from where they were.
#[test]
fn registry_survives_a_restart() {
    let place = Place::new();
    let (a, b, c) = (key(), key(), key());
    let mut registry = place.open();
    let laptop = registry.register(a, "laptop", false, at(1)).expect("registered");
    registry.register(b, "Büro PC", true, at(2)).expect("registered");
    registry.revoke("laptop", at(3)).expect("revoked");
    assert_eq!(laptop.number, 1);
    let mut again = place.open();
    assert_eq!(again.devices(), registry.devices());
    assert_eq!(again.by_key(&a).map(|device| device.state), Some(State::Revoked { at: at(3) }));
    assert_eq!(again.active(&a), None);
    assert_eq!(again.active(&b).map(|device| (device.number, device.read_only)), Some((2, true)));
    assert_eq!(again.register(c, "laptop", false, at(4)).expect("the name is free again").number, 3);
    assert_eq!(again.by_name("laptop").map(|device| device.number), Some(3));
    assert_eq!(place.file().metadata().expect("stat").mode() & 0o777, 0o600);
}

/// Each reason not to register a key is told apart, and nothing is registered.
#[test]
fn registration_is_refused_with_a_reason() {
    let place = Place::new();
    let mut registry = place.open();
    let (a, b) = (key(), key());
    registry.register(a, "laptop", false, at(1)).expect("registered");
    registry.register(b, "phone", false, at(1)).expect("registered");
    registry.revoke("phone", at(2)).expect("revoked");
    let mut refuse = |key, name: &str| registry.register(key, name, false, at(3)).expect_err("refused");
    assert!(matches!(refuse(a, "other"), RegisterError::KeyKnown { name } if name == "laptop"));
    assert!(matches!(refuse(b, "other"), RegisterError::KeyRevoked { name } if name == "phone"));
    assert!(matches!(refuse(key(), "laptop"), RegisterError::NameTaken { .. }));
    assert!(matches!(refuse(place.hub, "hub"), RegisterError::HubKey));
    for name in ["", "a/b", "a\nb", " a", "a ", "\u{202e}gnp", "a\0", &"x".repeat(65)] {
        assert!(matches!(refuse(key(), name), RegisterError::BadName { .. }), "{name:?}");
    }
    assert!(matches!(registry.revoke("phone", at(3)), Err(RevokeError::Already { .. })));
    assert!(matches!(registry.revoke("tablet", at(3)), Err(RevokeError::Unknown { .. })));
    assert_eq!(place.open().devices().len(), 2);
}

/// An append that a crash cut short at any byte is removed at the next open; everything before it stays.
#[test]
fn torn_tail_is_cut_off() {
    let place = Place::new();
    place.open().register(key(), "laptop", false, at(1)).expect("registered");
    let before = std::fs::read(place.file()).expect("read");
    place.open().register(key(), "phone", false, at(1)).expect("registered");
    let whole = std::fs::read(place.file()).expect("read");
    for len in before.len() + 1..whole.len() {
        std::fs::write(place.file(), &whole[..len]).expect("write");
        assert_eq!(place.open().devices().len(), 1, "cut at {len}");
        assert_eq!(std::fs::read(place.file()).expect("read"), before, "cut at {len}");
    }
    let mut zeros = before.clone();
    zeros.resize(whole.len(), 0);
    std::fs::write(place.file(), &zeros).expect("write");
    let number = place.open().register(key(), "tablet", false, at(2)).expect("registered").number;
    assert_eq!((number, place.open().devices().len()), (2, 2));
}

/// Damage before the last record is an error, whichever byte it hits, and the file is left for a person to look at.
#[test]
fn damage_is_not_taken_for_a_torn_tail() {
    let place = Place::new();
    let mut registry = place.open();
    registry.register(key(), "laptop", false, at(1)).expect("registered");
    let first = std::fs::read(place.file()).expect("read").len();
    registry.revoke("laptop", at(1)).expect("revoked");
    let whole = std::fs::read(place.file()).expect("read");
    for byte in 0..first {
        let mut damaged = whole.clone();
        damaged[byte] ^= 0x10;
        std::fs::write(place.file(), &damaged).expect("write");
        let opened = Registry::open(place.dir.path(), place.hub);
        assert!(matches!(opened, Err(RegistryError::Damaged { .. })), "byte {byte}: {opened:?}");
        assert_eq!(std::fs::read(place.file()).expect("read"), damaged);
    }
}

/// Two that have the registry open see each other's records, and neither gives a number or a name twice.
#[test]
fn two_writers() {
    let place = Place::new();
    let (mut hub, mut admin) = (place.open(), place.open());
    let a = key();
    admin.register(a, "laptop", false, at(1)).expect("registered");
    assert_eq!(hub.active(&a), None);
    assert!(hub.refresh().expect("read"));
    assert!(!hub.refresh().expect("read"));
    assert!(hub.active(&a).is_some());
    assert_eq!(admin.register(key(), "phone", false, at(1)).expect("registered").number, 2);
    assert!(matches!(hub.register(key(), "phone", false, at(1)), Err(RegisterError::NameTaken { .. })));
    hub.revoke("laptop", at(2)).expect("revoked");
    assert!(matches!(admin.revoke("laptop", at(2)), Err(RevokeError::Already { .. })));
    assert_eq!(admin.devices(), hub.devices());
}

/// Many writers at once: every record arrives, every number is given once.
#[test]
fn many_writers() {
    let place = Place::new();
    let (writers, each) = (4, 10);
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let place = &place;
            scope.spawn(move || {
                let mut registry = place.open();
                for n in 0..each {
                    registry.register(key(), &format!("device {writer}-{n}"), false, at(1)).expect("registered");
                }
            });
        }
    });
    let numbers: Vec<DeviceNo> = place.open().devices().iter().map(|device| device.number).collect();
    assert_eq!(numbers, (1..=writers * each).collect::<Vec<_>>());
}

/// A registry that was replaced under a running hub is noticed, because a revocation in the new file would pass the hub by.
#[test]
fn replaced_file_is_noticed() {
    let place = Place::new();
    let mut registry = place.open();
    registry.register(key(), "laptop", false, at(1)).expect("registered");
    std::fs::copy(place.file(), place.dir.path().join("backup")).expect("copied");
    std::fs::rename(place.dir.path().join("backup"), place.file()).expect("replaced");
    assert!(matches!(registry.refresh(), Err(RegistryError::Replaced { .. })));
    assert!(matches!(registry.revoke("laptop", at(2)), Err(RevokeError::Registry(RegistryError::Replaced { .. }))));
}

/// A registry written by a newer program is not read as if it were empty.
#[test]
fn newer_record_is_an_error() {
    let place = Place::new();
    std::fs::write(place.file(), registry_file::record(&[2, 0, 0])).expect("write");
    assert!(matches!(Registry::open(place.dir.path(), place.hub), Err(RegistryError::Damaged { .. })));
}

/// What the file holds today is what it will hold tomorrow.
#[test]
fn stored_bytes_are_stable() {
    let register = Entry::Register { number: 1, key: [5; 32], name: "pc".into(), read_only: true, at: 1000 };
    let expected = [&[1, 0, 1][..], &[5; 32], &[2, b'p', b'c', 1, 251, 0xe8, 3]].concat();
    assert_eq!(encode_stored(&register), expected);
    assert_eq!(encode_stored(&Entry::Revoke { number: 1, at: 9 }), [1, 1, 1, 9]);
}
