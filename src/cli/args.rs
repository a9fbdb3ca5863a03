//! The command line as values. Names, options and meanings are a contract with scripts: add to them, never change or remove one.

use super::parse::HostPort;
use super::parse::MountOptions;
use super::parse::device_name;
use super::parse::key_text;
use super::parse::listen_address;
use clap::ArgAction;
use clap::Args;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A directory that stays the same on all your machines.
///
/// Mount it, work in it with any program; every save reaches the other machines, edits of different words merge, nothing is ever lost.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "syncfs", version, max_term_width = 100, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    /// Say more on standard error; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
First start:    syncfs mount ~/notes
Next machine:   syncfs key show                                   (there)
                syncfs admin register KEY --name laptop --data DIR (where the hub is)
                syncfs mount ~/notes --hub HOST:PORT --hub-key KEY  (there)

Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 refused, 4 cannot reach, 5 anything else.";

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Mount a directory and keep it in sync until it is unmounted
    ///
    /// With nothing configured it makes a key, a volume and a hub in the same process, and prints what to run on the next machine.
    /// A directory that has been mounted before needs no option again.
    Mount(Mount),
    /// Unmount a directory; all files stay in it
    Unmount(Unmount),
    /// Synchronize a directory once, without a mount
    Sync(Sync),
    /// Say whether a directory is in sync, and what stands in the way
    Status(Status),
    /// List the files whose edits did not merge
    Conflicts(Conflicts),
    /// Decide a conflict; the file can be written again
    Resolve(Resolve),
    /// Let the deletions happen that the start-up scan holds back
    Confirm(Confirm),
    /// This device's key
    #[command(subcommand)]
    Key(Key),
    /// Run a hub of its own
    #[command(subcommand)]
    Hub(Hub),
    /// Say which devices get in
    #[command(subcommand)]
    Admin(Admin),
    /// Merge three versions of a text file, as `git merge-file` does, by words
    MergeFile(MergeFile),
}

/// Which hub, and where the client keeps its state; `mount` and `sync` have them in common.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Joining {
    /// The hub to join; remembered
    #[arg(long, value_name = "HOST:PORT")]
    pub hub: Option<HostPort>,
    /// The hub's public key, as `syncfs hub key` prints it; pinned and remembered
    #[arg(long, value_name = "KEY", value_parser = key_text, requires = "hub")]
    pub hub_key: Option<String>,
    /// Where key and database are kept [default: the user's state directory and DIR/.syncfs]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Where the hub in this process listens, if it has one: IP:PORT, or :PORT for every address
    #[arg(long, value_name = "ADDR", value_parser = listen_address, conflicts_with = "hub")]
    pub listen: Option<SocketAddr>,
    /// Go on although the directory is empty or is not the one it was: everything missing is deleted everywhere
    #[arg(long)]
    pub accept_empty: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Mount {
    /// The directory; made if there is none
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    #[command(flatten)]
    pub joining: Joining,
    /// Stay in the foreground and log to standard error; SIGTERM unmounts
    #[arg(short, long)]
    pub foreground: bool,
    /// Mount options, separated by commas: allow_other, ro, noexec
    #[arg(short, value_name = "OPTIONS")]
    pub options: Vec<MountOptions>,
    /// This is the process that a mount without -f leaves behind
    #[arg(long, hide = true, conflicts_with = "foreground")]
    pub in_background: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Sync {
    /// The directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    #[command(flatten)]
    pub joining: Joining,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Unmount {
    /// The mounted directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Wait until every change is on the hub
    #[arg(long)]
    pub wait: bool,
    /// Where the client keeps its state, if not in the usual place
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Status {
    /// The directory [default: the one we are in]
    #[arg(value_name = "DIR", conflicts_with_all = ["hub", "data"])]
    pub dir: Option<PathBuf>,
    /// Where the client keeps its state, if not in the usual place
    #[arg(long, value_name = "DIR", conflicts_with_all = ["hub", "data"])]
    pub state: Option<PathBuf>,
    /// The hub's own view
    #[arg(long, requires = "data")]
    pub hub: bool,
    /// The hub's directory
    #[arg(long, value_name = "DIR", requires = "hub")]
    pub data: Option<PathBuf>,
    /// As JSON on standard output
    #[arg(long)]
    pub json: bool,
    /// Show it again whenever it changes
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Conflicts {
    /// The directory [default: the one we are in]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where the client keeps its state, if not in the usual place
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// As JSON on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Resolve {
    /// The blocked file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    #[command(flatten)]
    pub with: ResolveWith,
    /// Where the client keeps its state, if not in the usual place
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

/// The version that shall stand, or how it is made; at most one of them. Without one a person is asked.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(multiple = false)]
pub struct ResolveWith {
    /// The version of this device
    #[arg(long, alias = "mine")]
    pub ours: bool,
    /// The version the others have
    #[arg(long)]
    pub theirs: bool,
    /// Theirs under the name, ours beside it as `name (device).ext`
    #[arg(long)]
    pub both: bool,
    /// The version before both edits
    #[arg(long)]
    pub base: bool,
    /// The bytes of this file
    #[arg(long, value_name = "FILE")]
    pub with: Option<PathBuf>,
    /// What you make of the merged text in $VISUAL, $EDITOR or vi
    #[arg(long)]
    pub edit: bool,
    /// What you make of it in a merge program
    #[arg(long, value_name = "NAME")]
    pub tool: Option<MergeTool>,
}

/// The merge programs that `resolve --tool` knows, by the names git has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MergeTool {
    Vimdiff,
    Nvimdiff,
    Meld,
    Kdiff3,
    Vscode,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Confirm {
    /// The directory [default: the one we are in]
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Where the client keeps its state, if not in the usual place
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Key {
    /// Print this device's public key in one line; makes the key if there is none
    Show {
        /// Where the client keeps its state, if not in the usual place
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Hub {
    /// Make the hub's directory and keys
    Init(HubData),
    /// Print the hub's public key in one line, as --hub-key takes it
    Key(HubData),
    /// Serve; prints `listening on ADDR` on standard output when it does
    Serve {
        #[command(flatten)]
        data: HubData,
        /// IP:PORT, or :PORT for every address; port 0 takes a free one
        #[arg(long, value_name = "ADDR", value_parser = listen_address)]
        listen: SocketAddr,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct HubData {
    /// The hub's directory
    #[arg(long = "data", value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Admin {
    /// Let a device in
    Register {
        /// The device's public key, as `syncfs key show` prints it there
        #[arg(value_name = "KEY", value_parser = key_text)]
        key: String,
        /// What to call the device
        #[arg(long, value_name = "NAME", value_parser = device_name)]
        name: String,
        /// It receives changes and cannot make any
        #[arg(long)]
        read_only: bool,
        #[command(flatten)]
        target: HubData,
    },
    /// Shut a device out at once
    Revoke {
        /// What the device is called
        #[arg(value_name = "NAME", value_parser = device_name)]
        name: String,
        #[command(flatten)]
        target: HubData,
    },
    /// List the devices
    List(AdminView),
    /// Say how far each device is, and who holds the log back
    Status(AdminView),
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct AdminView {
    #[command(flatten)]
    pub target: HubData,
    /// As JSON on standard output
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MergeFile {
    /// Our version; the result is written here
    #[arg(value_name = "OURS", required_unless_present = "batch", conflicts_with = "batch", requires = "base")]
    pub ours: Option<PathBuf>,
    /// The version before both edits
    #[arg(value_name = "BASE", requires = "theirs")]
    pub base: Option<PathBuf>,
    /// Their version
    #[arg(value_name = "THEIRS")]
    pub theirs: Option<PathBuf>,
    /// Print the result instead
    #[arg(short = 'p', conflicts_with = "batch")]
    pub print: bool,
    /// JSON lines {"id","base","ours","theirs","out"} in, {"id","status","ms"} out, in the same order
    #[arg(long)]
    pub batch: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("syncfs").chain(line.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.command)
    }

    /// clap's own check of the definitions.
    #[test]
    fn the_definitions_are_sound() {
        Cli::command().debug_assert();
    }

    /// Every line of the contract is understood.
    #[test]
    fn the_contract_parses() {
        let lines = [
            "mount d",
            "mount d --hub h:1 --hub-key syncfs1a --state s -f -o ro,allow_other -o noexec",
            "mount d --listen 0.0.0.0:4747 --foreground -v -v",
            "unmount d --wait",
            "unmount d --state s",
            "sync d --hub h:1 --hub-key syncfs1a --state s",
            "status",
            "status d --state s --json --watch",
            "status --hub --data d --json",
            "conflicts d --json",
            "resolve f --ours",
            "resolve f --mine",
            "resolve f --theirs --state s",
            "resolve f --both",
            "resolve f --base",
            "resolve f --with g",
            "resolve f --edit",
            "resolve f --tool vimdiff",
            "resolve f --tool vscode --state s",
            "resolve f",
            "confirm d",
            "key show --state s",
            "hub init --data d",
            "hub key --data d",
            "hub serve --data d --listen 127.0.0.1:0",
            "admin register syncfs1a --name laptop --read-only --data d",
            "admin revoke laptop --data d",
            "admin list --json --data d",
            "admin status --data d",
            "merge-file a b c -p",
            "merge-file -p a b c",
            "merge-file --batch",
        ];
        for line in lines {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    /// What contradicts itself or lacks something is wrong usage, exit code 2.
    #[test]
    fn nonsense_is_refused() {
        let lines = [
            "mount",
            "mount d --hub h",
            "mount d --hub-key syncfs1a",
            "mount d --hub h:1 --listen :1",
            "mount d -o unknown",
            "status --hub",
            "status --data d",
            "status d --hub --data e",
            "resolve f --ours --theirs",
            "resolve f --edit --tool meld",
            "resolve f --tool ed",
            "resolve --ours",
            "hub serve --data d",
            "admin register nokey --name a --data d",
            "admin register syncfs1a --data d",
            "admin register syncfs1a --name a/b --data d",
            "merge-file a b",
            "merge-file a b c --batch",
            "merge-file",
            "explode",
        ];
        for line in lines {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    /// `-p` and the order of the versions are git's.
    #[test]
    fn merge_file_is_in_git_s_order() {
        let Ok(Command::MergeFile(merge)) = parse("merge-file -p mine old yours") else { panic!("merge-file") };
        assert_eq!(merge.ours, Some("mine".into()));
        assert_eq!(merge.base, Some("old".into()));
        assert_eq!(merge.theirs, Some("yours".into()));
        assert!(merge.print);
    }

    /// Asking for help is no error, and the help begins with what the program is for and ends with how to start.
    #[test]
    fn help_leads_to_the_first_start() {
        let error = parse("--help").unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0));
        let text = error.to_string();
        assert!(text.starts_with("A directory that stays the same"), "{text}");
        assert!(text.contains("syncfs mount ~/notes"), "{text}");
    }

    /// Every command and option explains itself.
    #[test]
    fn nothing_is_without_an_explanation() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }
}
