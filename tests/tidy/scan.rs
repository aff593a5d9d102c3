//! Rust source as the rules see it: what is code, what is comment, where functions are. A scanner, no parser: it knows
//! strings, characters, comments and braces, which is all that the rules need.

use std::fs;
use std::path::{Path, PathBuf};

use tests::world::tests_path;

/// A source file in two views of equal length: each has blanks where the other has text; strings are blank in both.
pub struct File {
    /// From the repository's root, with `/`.
    pub path: String,
    pub text: String,
    pub code: String,
    pub comments: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// Line of `fn`, from 1.
    pub line: usize,
    /// From `fn` to the closing brace.
    pub lines: usize,
}

impl File {
    pub fn new(path: &str, text: &str) -> File {
        let (code, comments) = views(text);
        File { path: path.to_owned(), text: text.to_owned(), code, comments }
    }

    /// The code without what only tests compile: a `tests.rs` is all of that.
    pub fn product_code(&self) -> String {
        if self.path.ends_with("/tests.rs") {
            return blank(&self.code);
        }
        let mut code = self.code.clone();
        while let Some(from) = code.find("#[cfg(test)]") {
            let to = end_of_item(&code, from);
            code.replace_range(from..to, &blank(&code[from..to]));
        }
        code
    }

    /// Lines, from 1, in which `word` stands by itself.
    pub fn lines_with(view: &str, word: &str) -> Vec<usize> {
        view.lines().enumerate().filter(|(_, line)| has_word(line, word)).map(|(n, _)| n + 1).collect()
    }

    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let is_word = !self.code[..at].ends_with(is_word_char);
            let rest = &self.code[at + 3..];
            let name: String = rest.chars().take_while(|c| is_word_char(*c)).collect();
            let end = end_of_item(&self.code, at);
            if !is_word || name.is_empty() || !self.code[at..end].ends_with('}') {
                continue;
            }
            let line = self.code[..at].matches('\n').count() + 1;
            found.push(Function { name, line, lines: self.code[at..end].lines().count() });
        }
        found
    }
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` occurs with no word character before or behind it, as far as it begins and ends with one.
pub fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = word.starts_with(is_word_char) && line[..at].ends_with(is_word_char);
        let behind = word.ends_with(is_word_char) && line[at + word.len()..].starts_with(is_word_char);
        !before && !behind
    })
}

/// Where the item that begins at `from` ends: behind its closing brace, or at its semicolon.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0i32;
    for (n, c) in code[from..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' => depth -= 1,
            '}' if depth == 1 => return from + n + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return from + n,
            _ => {}
        }
    }
    code.len()
}

fn blank(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) }).collect()
}

/// The views of a text: code and comments.
fn views(text: &str) -> (String, String) {
    let (mut code, mut comments) = (String::new(), String::new());
    let mut rest = text;
    while !rest.is_empty() {
        let (kind, bytes) = token(rest, code.chars().next_back().is_some_and(is_word_char));
        let (piece, behind) = rest.split_at(bytes);
        match kind {
            Token::Code => (code.push_str(piece), comments.push_str(&blank(piece))),
            Token::Comment => (code.push_str(&blank(piece)), comments.push_str(piece)),
            Token::Literal => (code.push_str(&blank(piece)), comments.push_str(&blank(piece))),
        };
        rest = behind;
    }
    (code, comments)
}

#[derive(Clone, Copy)]
enum Token {
    Code,
    Comment,
    Literal,
}

/// The kind and the length of what stands at the head of `rest`. `in_word`: a word character stands before it.
fn token(rest: &str, in_word: bool) -> (Token, usize) {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    if rest.starts_with("//") {
        return (Token::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Token::Comment, block_comment(rest));
    }
    let prefix =
        if in_word { 0 } else { ["br", "cr", "b", "c", "r"].iter().find(|p| quoted(rest, p)).map_or(0, |p| p.len()) };
    let body = &rest[prefix..];
    if body.starts_with('"') || (prefix > 0 && body.starts_with('#')) {
        return (Token::Literal, prefix + string(body, rest[..prefix].ends_with('r')));
    }
    match body.starts_with('\'').then(|| character(body)).flatten() {
        Some(bytes) => (Token::Literal, prefix + bytes),
        None => (Token::Code, first),
    }
}

/// Whether a literal with this prefix stands here: `r#"`, `b'`, `c"`, but not `r#type`.
fn quoted(rest: &str, prefix: &str) -> bool {
    let Some(body) = rest.strip_prefix(prefix) else { return false };
    match prefix.ends_with('r') {
        true => body.trim_start_matches('#').starts_with('"'),
        false => body.starts_with('"') || (prefix == "b" && body.starts_with('\'')),
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string(body: &str, raw: bool) -> usize {
    let hashes = body.len() - body.trim_start_matches('#').len();
    let end = format!("\"{}", "#".repeat(hashes));
    if raw {
        return body[hashes + 1..].find(&end).map_or(body.len(), |n| hashes + 1 + n + end.len());
    }
    let mut escaped = false;
    for (n, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return n + 1,
            _ => {}
        }
    }
    body.len()
}

/// A character literal's length; `None` for a lifetime.
fn character(body: &str) -> Option<usize> {
    let mut chars = body.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next();
        return chars.find(|(_, c)| *c == '\'').map(|(n, _)| n + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(n, _)| n + 1)
}

/// The repository's root.
pub fn root() -> PathBuf {
    tests_path("").parent().expect("tests/ lies in the repository").to_owned()
}

/// Every file with this extension, in order, without hidden directories and build output.
pub fn files(extension: &str) -> Vec<File> {
    let end = format!(".{extension}");
    let read = |path: String| {
        let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        if extension == "rs" { File::new(&path, &text) } else { plain(&path, text) }
    };
    paths().into_iter().filter(|path| path.ends_with(&end)).map(read).collect()
}

/// The paths of all files, in order, from the root.
pub fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    walk(&root(), &mut paths);
    let relative = |path: &PathBuf| path.strip_prefix(root()).expect("walked from the root").display().to_string();
    let mut paths: Vec<String> = paths.iter().map(relative).collect();
    paths.sort();
    paths
}

fn plain(path: &str, text: String) -> File {
    File { path: path.to_owned(), text, code: String::new(), comments: String::new() }
}

fn walk(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match entry.path() {
            path if path.is_dir() && !name.starts_with('.') && name != "target" => walk(&path, paths),
            path if path.is_file() => paths.push(path),
            _ => {}
        }
    }
}

#[test]
fn strings_and_comments_are_no_code() {
    let text =
        "let a = \"x // y\"; // fn no\nlet r = r#\"fn \" {\"#; /* { /* } */ */ let c = '{'; let l: &'a u8 = b'\\'';";
    let file = File::new("x.rs", text);
    assert_eq!(file.code.len(), text.len());
    for (gone, kept) in [("x // y", "let r"), ("fn", "let c"), ("{", "&'a u8"), ("}", "let l")] {
        assert!(!file.code.contains(gone) && file.code.contains(kept), "{gone} {kept}: {}", file.code);
    }
    assert!(file.comments.contains("// fn no") && file.comments.contains("/* } */ */"));
}

#[test]
fn functions_are_measured_to_their_closing_brace() {
    let text = "trait T { fn none(&self); }\nfn one() -> [u8; 2] { [0; 2] }\nfn three<F: Fn(u8)>(f: F)\n{ if true { f(1) }\n}\n";
    let functions = File::new("x.rs", text).functions();
    let expected = [("one", 2, 1), ("three", 3, 3)];
    let found: Vec<_> = functions.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_only_tests_compile_is_no_product_code() {
    let file = File::new("x.rs", "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { x.unwrap() } }\nfn c() {}");
    let code = file.product_code();
    assert!(code.contains("fn a") && code.contains("fn c") && !code.contains("unwrap"));
}

#[test]
fn words_stand_alone() {
    assert!(has_word("a todo!()", "todo!") && has_word("x.unwrap()", ".unwrap()") && has_word("async move", "async"));
    assert!(!has_word("debug_assert!(x)", "assert!") && !has_word("unsafe_code", "unsafe"));
}
