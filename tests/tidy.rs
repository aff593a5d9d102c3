//! House rules that a program can check. Each rule is a function from files to complaints: the tree must give none, and a
//! file that breaks the rule must give one.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/licences.rs"]
mod licences;
#[path = "tidy/scan.rs"]
mod scan;
#[path = "tidy/sizes.rs"]
mod sizes;

use scan::{File, files, root};

/// Where unsafe code may stand; each file opens with the invariant that it owns (design 4).
const UNSAFE_FILES: [&str; 3] =
    ["dataplane/src/buffer/slab.rs", "dataplane/src/io/uring.rs", "recorder/ring/src/shm.rs"];

/// Words that code below a directory may not use, and why.
struct Ban {
    below: &'static [&'static str],
    words: &'static [&'static str],
    why: &'static str,
}

const BANS: [Ban; 4] = [
    Ban {
        below: &["dataplane/src/datapath/"],
        words: &[
            "std::time",
            "Instant",
            "SystemTime",
            "Duration",
            "Mutex",
            "RwLock",
            "RefCell",
            "print!",
            "println!",
            "eprint!",
            "eprintln!",
            "tracing",
            "log",
            ".unwrap()",
            "panic!",
            "assert!",
            "assert_eq!",
            "unreachable!",
            "async",
            "std::net",
            "std::thread",
            "std::fs",
            "std::process",
            "std::io",
            "format!",
            "to_string()",
            "to_owned()",
            "to_vec()",
        ],
        why: "the hot path has no clock, lock, log, panic, socket or thread, and makes no strings",
    },
    Ban {
        below: &["dataplane/src/session/", "dataplane/src/protocol/"],
        words: &[
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
            "std::os",
            "rustix",
            "io_uring",
            "tokio",
            "std::time",
            "Instant",
            "SystemTime",
            "std::thread",
            "Mutex",
            "RwLock",
            "async",
            "std::fs",
            "std::process",
            "getrandom",
            "crate::io",
            "crate::shard",
            "println!",
            "eprintln!",
        ],
        why: "sessions and protocols are state machines: no socket, clock, thread or file",
    },
    Ban {
        below: &["recorder/ring/src/"],
        words: &["println!", "eprintln!", "panic!", ".unwrap()", "SystemTime", "Instant"],
        why: "the ring runs inside the hot path of both processes",
    },
    Ban { below: &[""], words: &["todo!", "unimplemented!", "dbg!"], why: "no unfinished code" },
];

/// `expect()` in the hot path: places where a missing value is a bug of the lines around it. May only become fewer.
const DATAPATH_EXPECTS: usize = 5;

fn banned(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let code = file.product_code();
        for ban in BANS.iter().filter(|ban| ban.below.iter().any(|below| file.path.starts_with(below))) {
            for word in ban.words {
                for line in File::lines_with(&code, word) {
                    complaints.push(format!("{}:{line}: {word}: {}", file.path, ban.why));
                }
            }
        }
    }
    complaints
}

fn unsafe_code(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for line in File::lines_with(&file.code, "unsafe") {
            // Foreign functions are only declared here; each call of one is explained.
            let declares = file.code.lines().nth(line - 1).is_some_and(|l| l.contains("unsafe extern"));
            if !UNSAFE_FILES.contains(&file.path.as_str()) {
                complaints.push(format!("{}:{line}: unsafe code stands only in {UNSAFE_FILES:?}", file.path));
            } else if !declares && !is_explained(&file.text, line) {
                complaints
                    .push(format!("{}:{line}: say in a `// SAFETY:` comment right above why this is sound", file.path));
            }
        }
    }
    complaints
}

/// Whether a comment with SAFETY ends right above the statement that `line` (from 1) belongs to, two lines at most.
fn is_explained(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_comment = |n: &usize| lines[*n].starts_with("//");
    let Some(last) = (line.saturating_sub(3)..line - 1).rev().find(is_comment) else { return false };
    let first = (0..=last).rev().take_while(is_comment).last().unwrap_or(last);
    lines[first..=last].iter().any(|l| l.starts_with("// SAFETY:"))
}

fn marks(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        for mark in ["TODO", "FIXME", "XXX", "HACK"] {
            for line in File::lines_with(&file.comments, mark) {
                complaints.push(format!("{}:{line}: {mark}: do it, or leave it out", file.path));
            }
        }
    }
    complaints
}

/// The dataplane library names the ring, never the recorder; the binary (main, run, demo) names both.
fn recorder_in_the_library(files: &[File]) -> Vec<String> {
    let binary = ["dataplane/src/main.rs", "dataplane/src/run/", "dataplane/src/demo/"];
    let library =
        |file: &&File| file.path.starts_with("dataplane/src/") && !binary.iter().any(|b| file.path.starts_with(b));
    let lines = |file: &File| {
        let named = |word| File::lines_with(&file.code, word);
        let all = [named("recorder::"), named("use recorder"), named("extern crate recorder")].concat();
        all.into_iter().map(|line| format!("{}:{line}: only the binary may name the recorder", file.path)).collect()
    };
    files.iter().filter(library).flat_map(|file| -> Vec<String> { lines(file) }).collect()
}

/// A file's first line says what it is for. A `tests.rs` is told by the module that it belongs to.
fn heads(files: &[File]) -> Vec<String> {
    let needs_head = |file: &&File| !file.path.ends_with("/tests.rs") && !file.text.starts_with("//! ");
    files.iter().filter(needs_head).map(|file| format!("{}: no `//! ` line opens it", file.path)).collect()
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn no_file_uses_what_its_place_forbids() {
    none(banned(&files("rs")));
}

#[test]
fn unsafe_code_stands_in_three_files_and_is_explained() {
    none(unsafe_code(&files("rs")));
}

#[test]
fn nothing_is_left_to_be_done() {
    none(marks(&files("rs")));
}

#[test]
fn the_dataplane_library_does_not_name_the_recorder() {
    none(recorder_in_the_library(&files("rs")));
}

#[test]
fn every_file_says_first_what_it_is() {
    none(heads(&files("rs")));
}

#[test]
fn the_hot_path_expects_no_more_than_it_did() {
    let below = |file: &File| file.path.starts_with("dataplane/src/datapath/");
    let count = |file: &File| file.product_code().matches(".expect(").count();
    let found: usize = files("rs").iter().filter(|f| below(f)).map(count).sum();
    assert!(found <= DATAPATH_EXPECTS, "{found} calls of expect() in datapath/, {DATAPATH_EXPECTS} are allowed");
    assert_eq!(found, DATAPATH_EXPECTS, "there are fewer now: lower DATAPATH_EXPECTS to {found}");
}

#[test]
fn each_rule_complains_of_a_file_that_breaks_it() {
    type Rule = fn(&[File]) -> Vec<String>;
    let rules: [(Rule, &str, &str, usize); 17] = [
        (banned, "dataplane/src/datapath/x.rs", "use std::time::Instant;", 2),
        (banned, "dataplane/src/datapath/x.rs", "fn f() { x.unwrap(); panic!() }", 2),
        (banned, "dataplane/src/datapath/x.rs", "#[cfg(test)]\nmod tests { fn f() { panic!() } }", 0),
        (banned, "dataplane/src/datapath/x/tests.rs", "fn f() { panic!() }", 0),
        (banned, "dataplane/src/session/x.rs", "use std::net::{TcpStream};", 1),
        (banned, "dataplane/src/protocol/x/y.rs", "async fn f() {}", 1),
        (banned, "recorder/ring/src/x.rs", "fn f() { println!() }", 1),
        (banned, "benches/x.rs", "fn f() { dbg!(1) } // dbg!", 1),
        (unsafe_code, "dataplane/src/x.rs", "// SAFETY: no.\nunsafe { f() }", 1),
        (unsafe_code, "recorder/ring/src/shm.rs", "// Fast.\nunsafe { f() }", 1),
        (unsafe_code, "recorder/ring/src/shm.rs", "// SAFETY: it is\n// fine.\nlet x =\n  unsafe { f() };", 0),
        (unsafe_code, "recorder/ring/src/shm.rs", "// SAFETY: far.\n\nlet a = 1;\nlet b = 2;\nunsafe { f() }", 1),
        (marks, "x.rs", "// TODO: more\nlet a = \"TODO\";", 1),
        (recorder_in_the_library, "dataplane/src/shard/x.rs", "use recorder::verify;", 1),
        (recorder_in_the_library, "dataplane/src/run/x.rs", "use recorder::verify;", 0),
        (heads, "x.rs", "use a;\n//! Late.", 1),
        (heads, "x.rs", "//! What it is.", 0),
    ];
    for (rule, path, text, complaints) in rules {
        let found = rule(&[File::new(path, text)]);
        assert_eq!(!found.is_empty(), complaints > 0, "{path}: {text}: {found:?}");
        assert!(found.len() >= complaints, "{path}: {text}: {found:?}");
    }
}

#[test]
fn the_ring_depends_on_nothing() {
    let metadata = licences::metadata();
    let packages = metadata["packages"].as_array().expect("an array");
    let ring = packages.iter().find(|p| p["name"] == "ring" && p["source"].is_null()).expect("our ring package");
    for dependency in ring["dependencies"].as_array().expect("an array") {
        let is_loom = dependency["name"] == "loom" && dependency["optional"] == true;
        let is_for_tests = dependency["kind"] == "dev";
        assert!(is_loom || is_for_tests, "the ring package must not depend on {}", dependency["name"]);
    }
}

#[test]
fn all_licences_of_dependencies_are_allowed() {
    none(licences::complaints(&licences::metadata()));
}

#[test]
fn our_own_licence_is_told_everywhere() {
    let licence = std::fs::read_to_string(root().join("LICENSE")).unwrap_or_default();
    assert!(licence.starts_with("MIT License"), "LICENSE is missing or not the MIT licence");
    let metadata = licences::metadata();
    for member in metadata["workspace_members"].as_array().expect("an array") {
        let packages = metadata["packages"].as_array().expect("an array");
        let package = packages.iter().find(|p| p["id"] == *member).expect("every member is a package");
        let path = package["manifest_path"].as_str().expect("a path");
        let manifest = std::fs::read_to_string(path).expect("readable");
        assert!(manifest.lines().any(|l| l == "license.workspace = true"), "{path}: no `license.workspace = true`");
    }
}
