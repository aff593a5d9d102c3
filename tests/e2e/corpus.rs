//! The hostile corpus, `tests/corpus/hostile/`: every row in every form, on servers 15 and 18. Words behind `--` choose rows.

use std::process::ExitCode;

use tests::arena::on_each_version;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("hostile_rows_show_and_change_nothing_and_honest_rows_work: test");
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    on_each_version("corpus/run.py", &words)
}
