use super::super::HubError;
use super::super::operate;
use super::*;
use crate::hub::CONTROL_SOCKET;
use crate::hub::ClientState;
use crate::net::CloseCode;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

fn register(name: &str) -> Request {
    Request::Register { key: Device::unknown(name).identity.public().to_string(), name: name.into(), read_only: false }
}

/// The same operations, whether the hub runs or not.
#[test]
fn with_and_without_a_running_hub() {
    let mut site = Site::new();
    for running in [true, false] {
        if !running {
            site.hub.take().unwrap().shutdown();
        }
        let name = format!("d{running}");
        assert!(matches!(operate(&site.data, &register(&name)), Ok(Reply::Device(device)) if device.name == name));
        assert!(matches!(operate(&site.data, &register(&name)), Err(HubError::Refused(_))));
        let Ok(Reply::Status(status)) = operate(&site.data, &Request::Status) else { panic!() };
        assert_eq!(status.seq, 0);
        assert!(matches!(operate(&site.data, &Request::Revoke { name }), Ok(Reply::Device(_))));
    }
    let Ok(Reply::Devices(devices)) = operate(&site.data, &Request::List) else { panic!() };
    assert_eq!(devices.iter().map(|device| device.state).collect::<Vec<_>>(), [ClientState::Revoked; 2]);
    let missing = operate(&site.data.join("none"), &Request::List);
    assert!(matches!(missing, Err(HubError::Missing(_))), "{missing:?}");
}

/// The socket is the owner's only, answers line by line, and takes nonsense calmly.
#[test]
fn lines_of_json() {
    let site = Site::new();
    let path = site.data.join(CONTROL_SOCKET);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(&stream).lines();
    let mut ask = |line: &str| {
        (&stream).write_all(format!("{line}\n").as_bytes()).unwrap();
        lines.next().unwrap().unwrap()
    };
    assert!(ask("nonsense").starts_with("{\"refused\":"));
    assert!(ask(r#"{"op":"revoke","name":"x"}"#).starts_with("{\"refused\":"));
    let status: serde_json::Value = serde_json::from_str(&ask(r#"{"op":"status"}"#)).unwrap();
    let status = &status["status"];
    for key in ["seq", "epoch", "log", "root_hash", "clients"] {
        assert!(!status[key].is_null(), "{key}");
    }
}

/// A device that somebody registers in the directory under a running hub gets in at once; one revoked there is thrown out.
#[tokio::test(flavor = "multi_thread")]
async fn the_registry_changed_behind_the_hub() {
    let site = Site::new();
    let mut device = Device::unknown("a");
    let (data, key) = (site.data.clone(), device.identity.public());
    let mut registry = crate::admin::Registry::open(&data, site.key).unwrap();
    registry.register(key, "a", false, std::time::SystemTime::now()).unwrap();
    let client = site.join(&mut device).await;
    registry.revoke("a", std::time::SystemTime::now()).unwrap();
    assert_eq!(client.closed().await, Closed::ByPeer(CloseCode::Revoked));
}

/// A hub is made once, and only one process serves it.
#[test]
fn one_hub_in_one_directory() {
    let site = Site::new();
    assert!(matches!(super::super::init(&site.data), Err(HubError::Exists(_))));
    let second = Hub::start(&site.data, "127.0.0.1:0".parse().unwrap(), HubSettings::default());
    assert!(matches!(second, Err(HubError::Store(_))));
    assert_eq!(super::super::key(&site.data).unwrap(), site.key);
    assert!(site.data.join(CONTROL_SOCKET).exists());
}

/// A hub works on the runtime of the process that embeds it.
#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    let mut site = Site::new();
    soon(site.hub.take().unwrap().shutdown_async()).await;
    let settings = HubSettings { runtime: Some(tokio::runtime::Handle::current()), ..HubSettings::default() };
    site.hub = Some(Hub::start(&site.data, "127.0.0.1:0".parse().unwrap(), settings).unwrap());
    let mut a = site.register("a").await;
    let mut client = site.join(&mut a).await;
    assert_eq!(client.propose(vec![vec![create(1, "f", b"")]]).await, [[Verdict::Committed(1)]]);
    soon(site.hub.take().unwrap().shutdown_async()).await;
    site.start();
    assert_eq!(site.status().await.seq, 1);
}
