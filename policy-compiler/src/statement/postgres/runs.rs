//! Long lists of constants and parameters, made short before there is a tree of them: `IN (1, 2, …)`, `VALUES ($1, 'a'), ($2, 'b'), …`.
//!
//! What is judged must be what runs, so this rests on three things. The grammar is deterministic and its lists are left
//! recursive: behind `element,` the parser stands where it stood behind the element before, so with more elements of the same
//! form the text is one of the grammar if and only if it is with fewer, and its tree differs in the length of that list alone.
//! No list whose length matters to the server is as long as [`KEPT`]: 1,664 columns and 100 arguments are its limits. And the
//! judgement of the short text counts for the long one only where the analysis has proved that it depends on no constant.

use std::borrow::Cow;

use super::tokens::{Kind, Token, Tokens};

/// Elements of a list that stay.
const KEPT: usize = 2_000;
/// Tokens of one element, a row say. More: it stays as it is.
const ELEMENT_TOKENS_MAX: usize = 2 * 1_664;
/// Forms of elements in one list; of each the first stays.
const FORMS_MAX: usize = 64;

/// The text with the middle of its long lists left out. Borrowed: nothing was.
pub fn shorten(text: &str) -> Cow<'_, str> {
    let mut reader = Reader::of(text);
    while let Some(token) = reader.tokens.next() {
        reader.list(token);
    }
    reader.finish()
}

struct Reader<'a> {
    text: &'a str,
    tokens: std::iter::Peekable<Tokens<'a>>,
    short: String,
    /// Everything before it is in `short`, or left out.
    copied: usize,
}

/// The kinds of an element's tokens; words are `NULL` and its like.
type Form = Vec<Kind>;

impl<'a> Reader<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, tokens: Tokens::of(text).peekable(), short: String::new(), copied: 0 }
    }

    /// A list may begin with this token: reads it to its end.
    fn list(&mut self, first: Token) {
        let (mut count, mut forms) = (0, Vec::<Form>::new());
        let mut first = Some(first);
        // Where the last element that stays ends, while others behind it do not.
        let mut left_out_from = None;
        let mut end = 0;
        while let Some((form, to)) = first.and_then(|token| self.element(token)) {
            count += 1;
            let is_known = forms.contains(&form);
            if count > KEPT && is_known {
                left_out_from.get_or_insert(end);
            } else if let Some(from) = left_out_from.take() {
                self.leave_out(from, end);
            }
            if !is_known && forms.len() < FORMS_MAX {
                forms.push(form);
            }
            end = to;
            first = self.tokens.next_if(|token| token.kind == Kind::Comma).and_then(|_| self.tokens.next());
        }
        if let Some(from) = left_out_from {
            self.leave_out(from, end);
        }
    }

    fn leave_out(&mut self, from: usize, to: usize) {
        self.short.push_str(&self.text[self.copied..from]);
        self.copied = to;
    }

    /// A constant, or a row of such; with the place behind it.
    fn element(&mut self, first: Token) -> Option<(Form, usize)> {
        let (mut form, mut to) = (vec![first.kind], self.constant(first));
        if to.is_none() && first.kind == Kind::Open {
            let mut ahead = Reader { tokens: self.tokens.clone(), ..Reader::of(self.text) };
            to = ahead.row(&mut form);
            if to.is_some() {
                self.tokens = ahead.tokens;
            }
        }
        // What stands behind it must not make more of it, as `::text` does.
        let ends = |token: &Token| matches!(token.kind, Kind::Comma | Kind::Close);
        to.filter(|_| self.tokens.peek().is_none_or(ends)).map(|to| (form, to))
    }

    /// Constants up to the closing bracket.
    fn row(&mut self, form: &mut Form) -> Option<usize> {
        loop {
            let token = self.tokens.next()?;
            form.push(token.kind);
            self.constant(token)?;
            let behind = self.tokens.next()?;
            form.push(behind.kind);
            match behind.kind {
                Kind::Close => return Some(behind.to),
                Kind::Comma if form.len() < ELEMENT_TOKENS_MAX => {}
                _ => return None,
            }
        }
    }

    fn constant(&mut self, token: Token) -> Option<usize> {
        match token.kind {
            Kind::Number | Kind::String | Kind::Parameter => Some(token.to),
            Kind::Sign => self.tokens.next_if(|next| next.kind == Kind::Number).map(|next| next.to),
            Kind::Word => {
                let word = &self.text[token.from..token.to];
                ["null", "true", "false", "default"].iter().any(|w| w.eq_ignore_ascii_case(word)).then_some(token.to)
            }
            _ => None,
        }
    }

    fn finish(mut self) -> Cow<'a, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.text);
        }
        self.short.push_str(&self.text[self.copied..]);
        Cow::Owned(self.short)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{analyse, tree};
    use super::*;

    fn list(count: usize, element: impl Fn(usize) -> String) -> String {
        (0..count).map(element).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn long_lists_of_constants_are_short_and_all_else_stays() {
        let many = 3 * KEPT;
        let numbers = list(many, |i| i.to_string());
        let rows = list(many, |i| format!("({i}, 'it''s {i}', -{i}.5, null)"));
        for (head, long, tail) in [
            ("select * from t where a in (", &numbers, ")"),
            ("select * from t where a = any(array[", &numbers, ",x])"),
            ("insert into t values ", &rows, ""),
            ("insert into t values ", &rows, " on conflict do nothing returning a"),
            ("/* 1,2 */ select '1,2', $$1,2$$, a from t where (a, b, c, d) in (", &rows, ") -- 1,2"),
        ] {
            let text = format!("{head}{long}{tail}");
            let short = shorten(&text);
            assert!(short.len() < text.len() && short.starts_with(head) && short.ends_with(tail), "{head} … {tail}");
            let commas = |text: &str| Tokens::of(text).filter(|t| t.kind == Kind::Comma).count();
            assert!(commas(&short) < 2 * KEPT * 4, "{head} … {tail}");
            assert_eq!(analyse(&short), analyse(&text), "{head} … {tail}");
        }
        for text in [
            format!("select {}", list(KEPT, |i| i.to_string())),
            format!("select array[{}]", list(many, |i| format!("{i}::text"))),
            format!("select array[{}]", list(many, |i| format!("f({i})"))),
            format!("select array[{}]", list(many, |i| format!("a{i}"))),
            format!("select '{numbers}', $${numbers}$$ /* {numbers} */"),
        ] {
            assert!(matches!(shorten(&text), Cow::Borrowed(_)), "{}", &text[..60]);
        }
    }

    #[test]
    fn a_form_that_was_not_there_before_stays() {
        let odd = |i: usize| if i == 2 * KEPT + 7 { "(1, 'x')".to_owned() } else { i.to_string() };
        let text = format!("select array[{}]", list(3 * KEPT, odd));
        let short = shorten(&text);
        assert!(short.len() < text.len() && short.contains(",(1, 'x')"), "{} bytes", short.len());
    }

    /// The tree of a text in which lists are longer than [`KEPT`], cut to what is kept, is the tree of the short text.
    #[test]
    fn the_tree_of_a_short_text_differs_in_the_length_of_the_list_alone() {
        let heads = [
            "select * from t where a in (",
            "select array[",
            "select f(",
            "values (",
            "select 1 limit (",
            "select a[",
            "select (a).b in (",
        ];
        let elements = ["1", "'x'", "-1", "null", "(1, 'x')", "+2.5", "true"];
        for head in heads {
            let tail = if head.ends_with('[') { "]" } else { ")" };
            for element in elements {
                let text = |count: usize| format!("{head}{}{tail} ", list(count, |_| element.to_owned()));
                let tree = |text: &str| {
                    let parsed = pg_query::parse(text, pg_query::ParserOptions::DEFAULT).ok()?.protobuf;
                    let built = tree::build(parsed.stmts[0].stmt.as_deref()?).ok()?;
                    let shown = format!("{built:?}");
                    let without = regexless(&shown);
                    Some(without)
                };
                let (long, short) = (text(KEPT + 50), text(KEPT));
                assert!(shorten(&long).trim() == short.trim(), "{head}{element}");
                let (long, short) = (tree(&long), tree(&short));
                assert_eq!(long.is_some(), short.is_some(), "{head}{element}");
                assert!(long == short, "{head}{element}: something else differs");
            }
        }
    }

    /// A tree's words, each line once: places in the text and the number of elements drop out.
    fn regexless(shown: &str) -> std::collections::BTreeSet<String> {
        let words = shown.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| word.parse::<i64>().is_err()).map(str::to_owned).collect()
    }
}
