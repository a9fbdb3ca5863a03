//! The values of options: addresses, keys and mount options, refused early and with a reason.

use std::fmt;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::str::FromStr;

/// Where a hub is: a host name or an IP address, and a UDP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = text.rsplit_once(':').ok_or("it has no port; write HOST:PORT, as in hub.example.org:4747")?;
        let port =
            port.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("`{port}` is not a port from 1 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Some(address) = bare {
            address.parse::<Ipv6Addr>().map_err(|_| format!("`{address}` is not an IPv6 address"))?;
        } else if host.contains(':') {
            return Err("an IPv6 address needs brackets, as in [::1]:4747".into());
        }
        let host = bare.unwrap_or(host);
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/') {
            return Err(format!("`{host}` is not a host name"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// An address to listen on: `IP:PORT`, or `:PORT` for every address of this machine. Port 0 takes a free one.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let full = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    full.parse().map_err(|_| "write IP:PORT, as in 0.0.0.0:4747, or :4747 for every address".into())
}

/// A public key in one line, as `syncfs key show` and `syncfs hub key` print it: the look of it only, its check letters are verified by
/// whoever uses it.
pub fn key_text(text: &str) -> Result<String, String> {
    let trimmed = text.trim();
    let letters = trimmed.strip_prefix("syncfs1").ok_or("a key begins with `syncfs1`; `syncfs key show` prints this device's")?;
    if letters.is_empty() || !letters.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("a key is `syncfs1` and letters and digits, without blanks".into());
    }
    Ok(trimmed.to_owned())
}

/// The name of a device: 1 to 64 letters, digits, `-`, `_` and `.`. It becomes part of file names where two files want one.
pub fn device_name(text: &str) -> Result<String, String> {
    let fits = !text.is_empty() && text.chars().count() <= 64 && !text.starts_with('.');
    if fits && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Ok(text.to_owned());
    }
    Err("a name is 1 to 64 letters, digits, `-`, `_` and `.`, and does not begin with `.`".into())
}

/// What `-o` changes about a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MountOptions {
    /// Other users may enter; the kernel then checks permissions.
    pub allow_other: bool,
    /// Nothing can be changed through the mount; changes of others still arrive.
    pub read_only: bool,
    /// Programs below it are not executed.
    pub no_exec: bool,
}

impl MountOptions {
    /// All of several `-o` together.
    pub fn together(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |sum, one| Self {
            allow_other: sum.allow_other || one.allow_other,
            read_only: sum.read_only || one.read_only,
            no_exec: sum.no_exec || one.no_exec,
        })
    }
}

impl fmt::Display for MountOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let options = [(self.allow_other, "allow_other"), (self.read_only, "ro"), (self.no_exec, "noexec")];
        let set: Vec<&str> = options.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        f.write_str(&set.join(","))
    }
}

/// What fstab says to mount(8), not to a file system, and what is always so here.
const WITHOUT_MEANING_HERE: &[&str] = &[
    "rw", "exec", "auto", "noauto", "nofail", "_netdev", "user", "users", "nouser", "nosuid", "nodev", "defaults", "noatime",
    "relatime",
];

impl FromStr for MountOptions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            match option {
                "allow_other" => options.allow_other = true,
                "ro" => options.read_only = true,
                "noexec" => options.no_exec = true,
                ignored if WITHOUT_MEANING_HERE.contains(&ignored) || ignored.starts_with("x-") => {}
                unknown => return Err(format!("`{unknown}` is unknown; there are allow_other, ro and noexec")),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every usual way to write an address is understood and printed back as it was.
    #[test]
    fn hosts_and_ports() {
        for good in ["hub.example.org:4747", "10.0.0.1:1", "[::1]:65535", "localhost:443"] {
            assert_eq!(good.parse::<HostPort>().unwrap().to_string(), good);
        }
        for bad in
            ["", "hub", "hub:", "hub:0", "hub:65536", "hub:x", ":4747", "::1:4747", "[::1:4747", "[hub]:1", "a b:1", "a/b:1"]
        {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    /// A port alone means every address.
    #[test]
    fn addresses_to_listen_on() {
        assert_eq!(listen_address(":4747"), Ok("[::]:4747".parse().unwrap()));
        assert_eq!(listen_address("127.0.0.1:0"), Ok("127.0.0.1:0".parse().unwrap()));
        assert!(listen_address("hub.example.org:4747").is_err());
        assert!(listen_address("4747").is_err());
    }

    /// A pasted key may carry the line end along, but not be something else.
    #[test]
    fn keys() {
        assert_eq!(key_text("syncfs1abcd234\n"), Ok("syncfs1abcd234".into()));
        for bad in ["", "syncfs1", "ssh-ed25519 AAAA", "syncfs1ab cd", "/home/me/key.pem"] {
            assert!(key_text(bad).is_err(), "{bad}");
        }
    }

    /// A device's name can stand in a file name.
    #[test]
    fn device_names() {
        for good in ["laptop", "büro-2", "a.b_c"] {
            assert_eq!(device_name(good).as_deref(), Ok(good));
        }
        for bad in ["", "a/b", "..", ".hidden", "a b", "a\nb", &"x".repeat(65)] {
            assert!(device_name(bad).is_err(), "{bad}");
        }
    }

    /// Options of fstab that mean nothing here do no harm; a misspelt one is told.
    #[test]
    fn mount_options() {
        let parsed: MountOptions = "rw,nofail,x-systemd.automount,allow_other".parse().unwrap();
        assert_eq!(parsed, MountOptions { allow_other: true, ..MountOptions::default() });
        assert!("alow_other".parse::<MountOptions>().unwrap_err().contains("alow_other"));
        let ro: MountOptions = "ro".parse().unwrap();
        assert_eq!(MountOptions::together(&[parsed, ro]).to_string().parse(), Ok(MountOptions::together(&[parsed, ro])));
        assert_eq!(MountOptions::together(&[parsed, ro]), MountOptions { allow_other: true, read_only: true, no_exec: false });
    }
}
