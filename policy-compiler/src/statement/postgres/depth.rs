//! How deeply a text can nest, told from its bytes before anything recursive looks at it.
//!
//! libpg_query stops by itself at 10,000 levels of its tree, which it measures against the stack that it finds. The
//! decoder behind it does not stop, and needs about 1.3 KiB a level. So a text that may nest deeply gets a stack that
//! bears whatever libpg_query lets through.

use super::AnalyseError;

/// Texts up to this bound are analysed on the caller's stack (2 MiB).
pub const INLINE_MAX: usize = 160;

/// Stack of the thread for deeper texts, bytes. Only the pages that are touched cost memory.
const DEEP_STACK_BYTES: usize = 64 << 20;

/// An upper bound of the nested operators, brackets, joins, set operations and sub-queries in `text`: every character
/// or word that can add a level counts one. Chains of AND and OR are flat in the tree, so these words do not count.
pub fn bound(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut count, mut at) = (0, 0);
    while at < bytes.len() {
        let word = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_' || **b >= 0x80).count();
        count += usize::from(if word == 0 { nests(bytes[at]) } else { word_nests(&bytes[at..at + word]) });
        at += word.max(1);
    }
    count
}

fn nests(byte: u8) -> bool {
    matches!(byte, b'(' | b'[' | b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=' | b'~' | b'!' | b'@' | b'#' | b'%')
        || matches!(byte, b'^' | b'&' | b'|' | b'`' | b'?' | b':')
}

fn word_nests(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 25] = [
        b"at",
        b"is",
        b"in",
        b"not",
        b"like",
        b"case",
        b"when",
        b"else",
        b"join",
        b"cast",
        b"with",
        b"ilike",
        b"union",
        b"select",
        b"values",
        b"except",
        b"isnull",
        b"escape",
        b"notnull",
        b"similar",
        b"between",
        b"collate",
        b"overlaps",
        b"operator",
        b"intersect",
    ];
    word.len() < 10 && WORDS.iter().any(|w| w.eq_ignore_ascii_case(word))
}

/// Runs `job` on a thread with a stack for the deepest tree that the grammar's library gives out.
pub fn on_deep_stack<T: Send>(job: impl FnOnce() -> Result<T, AnalyseError> + Send) -> Result<T, AnalyseError> {
    let refused = |what: &str| {
        let message = format!("the statement nests deeply and {what}; simplify it or try again");
        AnalyseError::Syntax { message, position: None }
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("deep-statement".to_owned()).stack_size(DEEP_STACK_BYTES);
        let Ok(running) = thread.spawn_scoped(scope, job) else {
            return Err(refused("no thread can be started for it"));
        };
        running.join().unwrap_or_else(|_| Err(refused("its analysis failed")))
    })
}
