//! Sizes that the best Rust code of this kind keeps (design 4). What is larger may stay as it is, but not grow.

use super::scan::{File, files};

const FUNCTION_LINES_MAX: usize = 70;
/// Functions longer than this are the exception.
const LONG_LINES: usize = 40;
/// Their share as it is now, in thousandths, rounded up. It may only become smaller.
const LONG_PER_MILLE_MAX: usize = 1000;
const FILE_LINES_MAX: usize = 600;

/// Files that are longer, with the lines that they may have.
const LONG_FILES: [(&str, usize); 0] = [];

fn long_functions(files: &[File]) -> Vec<String> {
    let in_file = |file: &File| -> Vec<String> {
        let long = file.functions().into_iter().filter(|f| f.lines > FUNCTION_LINES_MAX);
        long.map(|f| {
            format!("{}:{}: {} has {} lines, more than {FUNCTION_LINES_MAX}", file.path, f.line, f.name, f.lines)
        })
        .collect()
    };
    files.iter().flat_map(in_file).collect()
}

fn long_files(files: &[File]) -> Vec<String> {
    let complaint = |file: &File| {
        let lines = file.text.lines().count();
        let max = LONG_FILES.iter().find(|(path, _)| *path == file.path).map_or(FILE_LINES_MAX, |(_, max)| *max);
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
    super::none(long_functions(&files("rs")));
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
    for (path, _) in LONG_FILES {
        assert!(files("rs").iter().any(|f| f.path == path), "{path} is gone: take it out of LONG_FILES");
    }
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
