use std::process::ExitCode;

fn main() -> ExitCode {
    syncfs::cli::main()
}
