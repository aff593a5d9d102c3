//! Sizes that the best Rust code of this kind keeps (design 4). What is larger may stay as it is, but not grow.

use super::scan::{File, files};

const FUNCTION_LINES_MAX: usize = 70;
/// Functions longer than this are the exception.
const LONG_LINES: usize = 40;
/// Their share as it is now, in thousandths, rounded up. It may only become smaller.
const LONG_PER_MILLE_MAX: usize = 7;
const FILE_LINES_MAX: usize = 600;

/// Functions that are longer, with the lines that they may have. This one is a table of cases.
const LONG_FUNCTIONS: [(&str, usize); 1] = [("errors_say_what_where_and_how_to_mend_it", 86)];

/// Files that are longer, with the lines that they may have.
const LONG_FILES: [(&str, usize); 0] = [];

fn long_functions(files: &[File]) -> Vec<String> {
    let in_file = |file: &File| -> Vec<String> {
        let long =
            file.functions().into_iter().filter(|f| f.lines > max_of(&LONG_FUNCTIONS, &f.name, FUNCTION_LINES_MAX));
        long.map(|f| format!("{}:{}: {} is too long: {} lines", file.path, f.line, f.name, f.lines)).collect()
    };
    files.iter().flat_map(in_file).collect()
}

fn max_of(known: &[(&str, usize)], name: &str, usual: usize) -> usize {
    known.iter().find(|(of, _)| *of == name).map_or(usual, |(_, max)| *max)
}

fn long_files(files: &[File]) -> Vec<String> {
    let complaint = |file: &File| {
        let lines = file.text.lines().count();
        let max = max_of(&LONG_FILES, &file.path, FILE_LINES_MAX);
        (lines > max).then(|| format!("{}: {lines} lines, more than {max}: split it", file.path))
    };
    files.iter().filter_map(complaint).collect()
}

/// Long functions in thousandths of all, rounded up.
fn long_per_mille(files: &[File]) -> usize {
    let functions: Vec<usize> = files.iter().flat_map(|file| file.functions()).map(|f| f.lines).collect();
    let long = functions.iter().filter(|lines| **lines > LONG_LINES).count();
    (long * 1000).div_ceil(functions.len().max(1))
}

#[test]
fn no_function_is_too_long() {
    let files = files("rs");
    super::none(long_functions(&files));
    for (name, max) in LONG_FUNCTIONS {
        let lines = files.iter().flat_map(File::functions).find(|f| f.name == name).map(|f| f.lines);
        assert_eq!(lines, Some(max), "{name} has become shorter: change LONG_FUNCTIONS");
    }
}

#[test]
fn long_functions_become_no_more_frequent() {
    let share = long_per_mille(&files("rs"));
    assert!(
        share <= LONG_PER_MILLE_MAX,
        "{share} of 1000 functions have more than {LONG_LINES} lines; {LONG_PER_MILLE_MAX} is the most there may be"
    );
}

#[test]
fn no_file_is_too_long() {
    super::none(long_files(&files("rs")));
}

#[test]
fn what_is_too_long_is_found() {
    let body = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    let file = |text: String| [File::new("x.rs", &text)];
    assert_eq!(long_functions(&file(body(FUNCTION_LINES_MAX))).len(), 0);
    assert_eq!(long_functions(&file(body(FUNCTION_LINES_MAX + 1))).len(), 1);
    assert_eq!(long_per_mille(&file(body(LONG_LINES) + &body(LONG_LINES + 1))), 500);
    assert_eq!(long_files(&file("\n".repeat(FILE_LINES_MAX))).len(), 0);
    assert_eq!(long_files(&file("\n".repeat(FILE_LINES_MAX + 1))).len(), 1);
}
