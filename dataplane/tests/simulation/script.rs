//! Scripts: what a client sends, drawn from the seed, as the bytes of whole messages.

use dataplane::io::sim::Random;
use dataplane::protocol::postgres::wire::{message, put_cstr};

use super::words::CALLS;

/// One step of a script: bytes, and whether all answers are awaited before they are sent.
pub struct Step {
    pub bytes: Vec<u8>,
    pub waits: bool,
    /// Rounds of the simulator that pass before it, so that it meets what comes late.
    pub pause_ticks: usize,
    /// What becomes of it depends on the policy in force: the client awaits its whole answer to know.
    pub vault: bool,
    /// The end of its pipeline, and how many rounds pass before it follows: what was bound may run under another policy.
    pub rest: Vec<u8>,
    pub rest_ticks: usize,
}

/// What a script may hold.
#[derive(Clone, Copy, Debug)]
pub struct Taste {
    /// Texts that are judged by the analyser thread.
    pub long: bool,
    /// Rows, parameters and COPY data larger than a slot.
    pub large: bool,
    /// Statements that some policies allow, some mask and some refuse.
    pub vault: bool,
    /// Statements that take the server a while.
    pub slow: bool,
    /// Statements that call what nobody knows: after each the gateway has questions of its own.
    pub calls: bool,
}

/// Draws a script.
pub fn script(random: &mut Random, taste: Taste) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut sequence = 0;
    for _ in 0..3 + random.below(12) {
        let mut writer = Writer { random, taste, sequence: &mut sequence, steps: &mut steps };
        match writer.random.below(10) {
            _ if taste.vault && writer.random.per_mille(700) => writer.vault(),
            0..=3 => writer.simple(),
            4..=7 => writer.pipeline(),
            8 => writer.copy_in(),
            _ => writer.after_a_failure(),
        }
    }
    steps
}

struct Writer<'a> {
    random: &'a mut Random,
    taste: Taste,
    sequence: &'a mut usize,
    steps: &'a mut Vec<Step>,
}

impl Writer<'_> {
    fn push(&mut self, bytes: Vec<u8>) {
        let waits = self.random.per_mille(700);
        let pause_ticks = if self.random.per_mille(200) { 1 + self.random.below(60) } else { 0 };
        self.steps.push(Step { bytes, waits, pause_ticks, vault: false, rest: Vec::new(), rest_ticks: 0 });
    }

    /// One message or pipeline that reads the vault: at once, prepared, or prepared before; some are described, and some come in
    /// two parts. In between the gateway may forget what it knows of names (DEALLOCATE).
    fn vault(&mut self) {
        *self.sequence += 1;
        let text = format!("SELECT id, note FROM vault WHERE k = {}", self.sequence);
        let (mut bytes, mut rest) = (Vec::new(), Vec::new());
        match self.random.below(10) {
            0 => query(&text, &mut bytes),
            1..=2 => {
                name(&mut bytes, b'C', b'S', "v1");
                parse("v1", &text, &mut bytes);
            }
            3 => {
                parse("", &text, &mut bytes);
                rest = self.run_vault("", &mut bytes);
            }
            4..=5 => query("DEALLOCATE nothing", &mut bytes),
            _ => rest = self.run_vault("v1", &mut bytes),
        }
        if bytes[0] != b'Q' {
            message(if rest.is_empty() { &mut bytes } else { &mut rest }, b'S', |_| ());
        }
        let pause_ticks = if self.random.per_mille(500) { 1 + self.random.below(100) } else { 0 };
        let rest_ticks = 1 + self.random.below(200);
        self.steps.push(Step { bytes, waits: true, pause_ticks, vault: true, rest, rest_ticks });
    }

    /// Binds and executes; perhaps what it returns is the Execute, which then comes later.
    fn run_vault(&mut self, statement: &str, bytes: &mut Vec<u8>) -> Vec<u8> {
        let mut run = Vec::new();
        bind("", statement, 20, bytes);
        if self.random.per_mille(500) {
            name(bytes, b'D', b'P', "");
        }
        execute("", 0, &mut run);
        if self.random.per_mille(500) {
            message(bytes, b'H', |_| ());
            return run;
        }
        bytes.append(&mut run);
        run
    }

    /// A statement; each is another text.
    fn text(&mut self, copies: bool) -> String {
        *self.sequence += 1;
        let k = *self.sequence;
        let aside = ["", "", "", " AND note <> 'notice'", " AND note <> 'status'", " AND note <> 'notify'"];
        let aside = aside[self.random.below(aside.len())];
        let call = if self.taste.calls && self.random.per_mille(300) { format!(" AND {CALLS}") } else { String::new() };
        let big = if self.taste.large && self.random.per_mille(300) { " AND note <> 'big'" } else { "" };
        let kinds = if copies { 16 } else { 14 };
        let kind = if self.taste.slow && self.random.per_mille(150) { 6 } else { self.random.below(kinds) };
        let text = match kind {
            0..=2 => format!("SELECT id, note FROM items WHERE k = {k}{call}{aside}{big}"),
            3..=4 => format!("SELECT name, ssn, note FROM people WHERE k = {k}{aside}{big}"),
            5 => format!("SELECT ssn || '' FROM people WHERE k = {k}"),
            6 => format!("INSERT INTO items SELECT id, note FROM items WHERE k = {k}{call}{aside}{}", self.slow()),
            7 => "BEGIN".to_owned(),
            8 => "COMMIT".to_owned(),
            9 => "ROLLBACK".to_owned(),
            10 => "SELECT 1 / 0".to_owned(),
            11..=12 => format!("DROP TABLE forbidden_{k}"),
            13 => String::new(),
            14 => format!("COPY items TO STDOUT{}", copied(big, k)),
            _ => format!("COPY people (name, ssn, note) TO STDOUT{}", copied(big, k)),
        };
        self.lengthen(text)
    }

    fn slow(&mut self) -> &'static str {
        if self.taste.slow && self.random.per_mille(700) { " AND note <> 'slow'" } else { "" }
    }

    /// Some texts are for the analyser thread, and some are larger than a slot.
    fn lengthen(&mut self, text: String) -> String {
        if !self.taste.long || text.is_empty() || !self.random.per_mille(300) {
            return text;
        }
        let padding = [4_100, 9_000, 33_000, 40_000][self.random.below(4)];
        format!("{text} /* {} */", "x".repeat(padding))
    }

    fn simple(&mut self) {
        let mut text = self.text(true);
        if self.random.per_mille(150) && !text.contains("COPY") {
            text = format!("{text}; {}", self.text(false));
        }
        if self.taste.large && text.starts_with("SELECT id") && self.random.per_mille(700) {
            text = text.replacen("WHERE", "WHERE note <> 'huge' AND", 1);
        }
        let mut bytes = Vec::new();
        query(&text, &mut bytes);
        self.push(bytes);
    }

    fn pipeline(&mut self) {
        let mut bytes = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            self.member(&mut bytes);
            if self.random.per_mille(150) {
                message(&mut bytes, b'H', |_| ());
            }
            if self.random.per_mille(100) {
                self.push(std::mem::take(&mut bytes));
            }
        }
        message(&mut bytes, b'S', |_| ());
        self.push(bytes);
    }

    fn member(&mut self, out: &mut Vec<u8>) {
        // After a reload a name that the gateway is not sure of is refused, which this client does not expect.
        let names = if self.taste.vault { 2 } else { 4 };
        let statement = ["", "", "s1", "s2"][self.random.below(names)];
        // What was called may have opened another cursor of the name, so the gateway refuses it to who does not see everything.
        let portal = ["", "", "p1"][self.random.below(if self.taste.calls { 2 } else { 3 })];
        // The unnamed statement may be a COPY FROM STDIN of before.
        let parses = statement.is_empty() || self.random.per_mille(600);
        if parses {
            if !statement.is_empty() && self.random.per_mille(700) {
                name(out, b'C', b'S', statement);
            }
            let text = self.text(true);
            parse(statement, &text, out);
        }
        if self.random.per_mille(200) {
            name(out, b'D', b'S', statement);
        }
        let parameter = if self.taste.large && self.random.per_mille(100) { 50_000 } else { 20 };
        bind(portal, statement, parameter, out);
        if self.random.per_mille(500) {
            name(out, b'D', b'P', portal);
        }
        let rows_max = if self.random.per_mille(300) { 2 } else { 0 };
        execute(portal, rows_max, out);
        if rows_max > 0 && self.random.per_mille(700) {
            execute(portal, 0, out);
        }
        if self.random.per_mille(200) {
            name(out, b'C', b'P', portal);
        }
    }

    fn copy_in(&mut self) {
        let extended = self.random.per_mille(400);
        let mut bytes = Vec::new();
        if extended {
            parse("", "COPY items FROM STDIN", &mut bytes);
            bind("", "", 20, &mut bytes);
            execute("", 0, &mut bytes);
            // Many drivers send it here; the server ignores it.
            if self.random.per_mille(500) {
                message(&mut bytes, b'S', |_| ());
            }
        } else {
            query("COPY items FROM STDIN", &mut bytes);
        }
        self.push(bytes);
        for _ in 0..self.random.below(4) {
            let length = if self.taste.large && self.random.per_mille(300) { 45_000 } else { 30 };
            let mut bytes = Vec::new();
            message(&mut bytes, b'd', |out| out.extend(std::iter::repeat_n(b'r', length)));
            self.push(bytes);
        }
        let mut bytes = Vec::new();
        match self.random.per_mille(700) {
            true => message(&mut bytes, b'c', |_| ()),
            false => message(&mut bytes, b'f', |out| put_cstr(out, b"no more")),
        }
        if extended {
            message(&mut bytes, b'S', |_| ());
        }
        self.push(bytes);
    }

    /// Simple queries in a pipeline that has failed: the server ignores them up to the Sync.
    fn after_a_failure(&mut self) {
        let mut bytes = Vec::new();
        bind("", "missing", 20, &mut bytes);
        message(&mut bytes, b'H', |_| ());
        self.push(bytes);
        let mut bytes = Vec::new();
        (0..2).for_each(|_| query("INSERT INTO items SELECT id, note FROM items WHERE k = 3", &mut bytes));
        message(&mut bytes, b'S', |_| ());
        self.push(bytes);
        *self.sequence += 1;
        let mut bytes = Vec::new();
        query(&format!("SELECT ssn || '' FROM people WHERE k = {}", self.sequence), &mut bytes);
        self.push(bytes);
    }
}

/// A COPY has no condition; a comment tells the model server what its rows are.
fn copied(big: &str, k: usize) -> String {
    if big.is_empty() { String::new() } else { format!(" /* big k = {k} */") }
}

pub fn query(text: &str, out: &mut Vec<u8>) {
    message(out, b'Q', |out| put_cstr(out, text.as_bytes()));
}

fn parse(statement: &str, text: &str, out: &mut Vec<u8>) {
    message(out, b'P', |out| {
        put_cstr(out, statement.as_bytes());
        put_cstr(out, text.as_bytes());
        out.extend_from_slice(&[0, 0]);
    });
}

fn bind(portal: &str, statement: &str, parameter_bytes: usize, out: &mut Vec<u8>) {
    message(out, b'B', |out| {
        put_cstr(out, portal.as_bytes());
        put_cstr(out, statement.as_bytes());
        out.extend_from_slice(&[0, 0, 0, 1]);
        out.extend_from_slice(&(parameter_bytes as u32).to_be_bytes());
        out.extend(std::iter::repeat_n(b'p', parameter_bytes));
        out.extend_from_slice(&[0, 0]);
    });
}

fn execute(portal: &str, rows_max: u32, out: &mut Vec<u8>) {
    message(out, b'E', |out| {
        put_cstr(out, portal.as_bytes());
        out.extend_from_slice(&rows_max.to_be_bytes());
    });
}

fn name(out: &mut Vec<u8>, tag: u8, kind: u8, name: &str) {
    message(out, tag, |out| {
        out.push(kind);
        put_cstr(out, name.as_bytes());
    });
}
