//! The options of `-o`.

use std::time::Duration;

/// How a directory is mounted. [`MountOptions::parse`] reads what stands after `-o`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Other users may use the mount; the kernel then checks permissions.
    pub allow_other: bool,
    /// The kernel checks permissions by the attributes shown, before the mount is asked.
    pub default_permissions: bool,
    /// Users change nothing; what comes from the hub is still placed.
    pub read_only: bool,
    /// The source shown in the table of mounts; no comma, blank or backslash.
    pub fsname: String,
    /// Extended attributes are served.
    pub xattr: bool,
    /// Device files work (root only).
    pub dev: bool,
    /// Set-user-id bits work (root only).
    pub suid: bool,
    /// Programs may be executed.
    pub exec: bool,
    /// Access times are kept.
    pub atime: bool,
    /// Every write is synchronous.
    pub sync: bool,
    /// Changes of directories are synchronous.
    pub dirsync: bool,
    /// How long the kernel trusts names and attributes; changes made beside the mount show after this at the latest.
    pub ttl: Duration,
    /// Threads that serve the mount, at least 2.
    pub threads: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            allow_other: false,
            default_permissions: false,
            read_only: false,
            fsname: "syncfs".to_owned(),
            xattr: true,
            dev: false,
            suid: false,
            exec: true,
            atime: true,
            sync: false,
            dirsync: false,
            ttl: Duration::from_secs(1),
            threads: 4,
        }
    }
}

/// An option that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadOption {
    /// No such option.
    #[error("unknown mount option \"{0}\"")]
    Unknown(String),
    /// The option is there, its value is not usable.
    #[error("mount option \"{0}\": the name must not be empty and must not contain a comma, a blank or a backslash")]
    Name(String),
}

impl MountOptions {
    /// Reads options separated by commas, over those there already. A later one wins over an earlier one. What belongs to
    /// fstab alone (`defaults`, `noauto`, `user`, `nofail`, `_netdev`, `x-...`) is passed over.
    ///
    /// # Errors
    /// [`BadOption`] names the option.
    pub fn parse(mut self, text: &str) -> Result<Self, BadOption> {
        for option in text.split(',').filter(|option| !option.is_empty()) {
            match option {
                "allow_other" => self.allow_other = true,
                "default_permissions" => self.default_permissions = true,
                "ro" => self.read_only = true,
                "rw" => self.read_only = false,
                "xattr" => self.xattr = true,
                "noxattr" => self.xattr = false,
                "dev" => self.dev = true,
                "nodev" => self.dev = false,
                "suid" => self.suid = true,
                "nosuid" => self.suid = false,
                "exec" => self.exec = true,
                "noexec" => self.exec = false,
                "atime" => self.atime = true,
                "noatime" => self.atime = false,
                "sync" => self.sync = true,
                "async" => self.sync = false,
                "dirsync" => self.dirsync = true,
                "defaults" | "auto" | "noauto" | "user" | "nouser" | "users" | "nofail" | "_netdev" => {}
                other if other.starts_with("x-") => {}
                other => match other.strip_prefix("fsname=") {
                    Some(name) if is_plain(name) => name.clone_into(&mut self.fsname),
                    Some(_) => return Err(BadOption::Name(other.to_owned())),
                    None => return Err(BadOption::Unknown(other.to_owned())),
                },
            }
        }
        Ok(self)
    }
}

/// Whether a source name is one option to every reader of options.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == ',' || c == '\\' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known options are read, the later wins, and an unknown one is named.
    #[test]
    fn options_are_read_or_named() {
        let read = MountOptions::default().parse("ro,allow_other,noexec,fsname=notes,rw,x-systemd.automount,,noatime").unwrap();
        assert!(read.allow_other && !read.read_only && !read.exec && !read.atime);
        assert_eq!(read.fsname, "notes");
        assert_eq!(MountOptions::default().parse("ro,sparkle"), Err(BadOption::Unknown("sparkle".into())));
        assert_eq!(MountOptions::default().parse("fsname=a b"), Err(BadOption::Name("fsname=a b".into())));
        assert_eq!(MountOptions::default().parse("fsname="), Err(BadOption::Name("fsname=".into())));
        assert_eq!(MountOptions::default().parse(""), Ok(MountOptions::default()));
    }
}
