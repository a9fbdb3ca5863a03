use std::io;
use std::process::ExitCode;
use syncfs::cli::merge_file;
use syncfs::cli::merge_file::MergeFile;

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let print = words.iter().any(|word| word == "-p");
    words.retain(|word| word != "-p");
    let asked = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["merge-file", "--batch"] => MergeFile::Batch,
        ["merge-file", ours, base, theirs] => {
            MergeFile::Once { ours: ours.into(), base: base.into(), theirs: theirs.into(), print }
        }
        _ => {
            eprintln!("usage: syncfs merge-file OURS BASE THEIRS [-p] | --batch");
            return ExitCode::from(2);
        }
    };
    ExitCode::from(merge_file::run(&asked, io::stdin().lock(), io::stdout().lock(), io::stderr().lock()))
}
