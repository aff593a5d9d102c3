//! Documents that name files: the files must be there.

use std::path::Path;

use super::scan::{File, files, paths, root};

/// Links of Markdown text that point into the repository: targets without their anchors.
fn links(text: &str) -> Vec<&str> {
    let ends = text.match_indices("](").map(|(at, _)| &text[at + 2..]);
    let targets = ends.filter_map(|rest| rest.split([')', ' ', '\n']).next());
    let outside = |t: &&str| t.contains("://") || t.starts_with('#') || t.starts_with("mailto:") || t.is_empty();
    targets.filter(|t| !outside(t)).map(|t| t.split('#').next().unwrap_or(t)).collect()
}

fn dead_links(document: &File, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let directory = Path::new(&document.path).parent().unwrap_or(Path::new(""));
    let dead = |target: &&str| !exists(&directory.join(target));
    links(&document.text).into_iter().filter(dead).map(|t| format!("{}: dead link {t}", document.path)).collect()
}

/// Names in backticks that can only be files of ours: Rust files, and paths below a top-level directory.
fn named_files(text: &str) -> Vec<&str> {
    let is_name = |word: &str| {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
        let top = word.split('/').next().unwrap_or_default();
        let ours = ["dataplane", "policy-compiler", "recorder", "benches", "fuzz", "tests"].contains(&top)
            && word.contains('/');
        plain && !word.starts_with(['.', '/']) && (word.ends_with(".rs") && word.len() > 3 || ours)
    };
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(|word| is_name(word)).collect()
}

/// A name may leave out the directories that its surroundings make plain: `lane.rs`, `datapath/lane.rs`.
fn missing_files(path: &str, text: &str, known: &[String]) -> Vec<String> {
    let is_known = |name: &str| {
        let name = name.trim_end_matches('/');
        let inside = |file: &String| {
            file == name || file.ends_with(&format!("/{name}")) || file.starts_with(&format!("{name}/"))
        };
        known.iter().any(inside)
    };
    let missing = named_files(text).into_iter().filter(|name| !is_known(name));
    missing.map(|name| format!("{path}: there is no file `{name}`")).collect()
}

/// The lines of a Rust file that describe it.
fn head(file: &File) -> String {
    file.text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
}

#[test]
fn no_link_of_a_document_is_dead() {
    let exists = |path: &Path| root().join(path).exists();
    super::none(files("md").iter().flat_map(|document| dead_links(document, &exists)).collect());
}

#[test]
fn files_that_documents_and_file_heads_name_are_there() {
    let known = paths();
    let documents = files("md").into_iter().map(|f| (f.path, f.text));
    let heads = files("rs").into_iter().map(|f| (f.path.clone(), head(&f)));
    super::none(documents.chain(heads).flat_map(|(path, text)| missing_files(&path, &text, &known)).collect());
}

#[test]
fn a_dead_link_and_a_missing_file_are_found() {
    let text = "[a](there.md#part) [b](gone.md) [c](https://x.y/z) [d](#here)";
    let document = File::new("docs/x.md", text);
    let exists = |path: &Path| path == Path::new("docs/there.md");
    assert_eq!(dead_links(&document, &exists), ["docs/x.md: dead link gone.md"]);
    let known = ["dataplane/src/datapath/lane.rs".to_owned()];
    let text = "`lane.rs`, `datapath/lane.rs`, `dataplane/src/`, `gone.rs`, `tests/gone/`, `wireward.toml`, `a b.rs`";
    let missing = missing_files("x.md", text, &known);
    assert_eq!(missing, ["x.md: there is no file `gone.rs`", "x.md: there is no file `tests/gone/`"]);
}
