//! The tour, walked by itself: every promise of the demonstration is a row here, tried with the real psql.

use super::issuer::{Issuer, NAME, now_s};
use super::server::Outcome;
use super::{Demo, Tokens};
use serde_json::json;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

struct Step {
    says: &'static str,
    needs: Stage,
    try_it: fn(&Demo) -> Outcome<()>,
}

/// What a step needs of the product, in the order in which it grew.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Relay,
    Judge,
    Record,
    Mask,
}

/// Steps that need more than this are not walked.
const REACHED: Stage = Stage::Mask;

const TOUR: &[Step] = &[
    Step {
        says: "a token opens a session where a password was asked for",
        needs: Stage::Relay,
        try_it: token_opens_a_session,
    },
    Step {
        says: "an analyst reads customers with personal data masked",
        needs: Stage::Mask,
        try_it: analyst_reads_masked,
    },
    Step {
        says: "an alias, a concatenation or a view does not unmask it",
        needs: Stage::Mask,
        try_it: detours_stay_masked,
    },
    Step { says: "a copy does not unmask it", needs: Stage::Mask, try_it: copies_stay_masked },
    Step {
        says: "an agent cannot drop a table, and its session goes on",
        needs: Stage::Judge,
        try_it: agent_cannot_drop,
    },
    Step {
        says: "an agent cannot delete, not even inside a common table expression",
        needs: Stage::Judge,
        try_it: agent_cannot_delete,
    },
    Step { says: "an agent can insert an order", needs: Stage::Judge, try_it: agent_inserts },
    Step { says: "a dba sees everything in clear", needs: Stage::Relay, try_it: dba_sees_clear },
    Step { says: "a token without a role opens nothing", needs: Stage::Relay, try_it: no_role_no_entry },
    Step {
        says: "expired, misdirected and unsigned tokens open nothing",
        needs: Stage::Relay,
        try_it: forged_tokens_open_nothing,
    },
    Step { says: "sessions are listed", needs: Stage::Record, try_it: sessions_are_listed },
    Step { says: "a session can be replayed", needs: Stage::Record, try_it: sessions_are_replayed },
    Step { says: "the recordings verify", needs: Stage::Record, try_it: recordings_verify },
    Step {
        says: "no masked value and no credential is in the recordings",
        needs: Stage::Record,
        try_it: recordings_hold_no_secret,
    },
];

/// Tries every step, one line each.
///
/// # Errors
/// How many steps failed.
pub fn walk(demo: &Demo) -> Outcome<()> {
    let mut failed = 0;
    for step in TOUR.iter().filter(|step| step.needs <= REACHED) {
        match (step.try_it)(demo) {
            Ok(()) => println!("ok      {}", step.says),
            Err(why) => {
                failed += 1;
                println!("FAILED  {}\n        {}", step.says, why.trim_end().replace('\n', "\n        "));
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => {
            Err(format!("{failed} of {} steps failed; the gateway's log is {}", TOUR.len(), demo.place.log().display()))
        }
    }
}

fn token_opens_a_session(demo: &Demo) -> Outcome<()> {
    let Tokens { analyst, agent, dba } = &demo.tokens;
    [analyst, agent, dba].into_iter().try_for_each(|token| demo.psql(token, &["select 40 + 2"])?.prints("42"))
}

fn analyst_reads_masked(demo: &Demo) -> Outcome<()> {
    let shown = demo.psql(&demo.tokens.analyst, &["select id, email, ssn, card, phone from customers where id = 7"])?;
    shown.prints("7|")?;
    shown.hides(&demo.raw_values()?)
}

fn detours_stay_masked(demo: &Demo) -> Outcome<()> {
    let statements = [
        "select ssn as x from customers where id = 7",
        "select 'a' || ssn || 'b' from customers where id = 7",
        "select row_to_json(c) from customers c where id = 7",
        "with q as (select ssn s, card k from customers where id = 7) select * from q",
        "select * from customer_contacts where id = 7",
    ];
    let raw = demo.raw_values()?;
    statements.iter().try_for_each(|statement| demo.psql(&demo.tokens.analyst, &[statement])?.hides(&raw))
}

fn copies_stay_masked(demo: &Demo) -> Outcome<()> {
    let shown = demo.psql(&demo.tokens.analyst, &["copy (select * from customers where id = 7) to stdout"])?;
    shown.hides(&demo.raw_values()?)
}

fn agent_cannot_drop(demo: &Demo) -> Outcome<()> {
    let shown = demo.psql(&demo.tokens.agent, &["drop table customers", "select 'still' || ' here'"])?;
    shown.complains("42501")?;
    shown.prints("still here")
}

fn agent_cannot_delete(demo: &Demo) -> Outcome<()> {
    let deletes = ["delete from orders", "with d as (delete from orders returning *) select count(*) from d"];
    deletes.iter().try_for_each(|delete| demo.psql(&demo.tokens.agent, &[delete])?.complains("42501"))?;
    demo.psql(&demo.tokens.dba, &["select count(*) >= 30000 from orders"])?.prints("t")
}

fn agent_inserts(demo: &Demo) -> Outcome<()> {
    let insert = "insert into orders (customer_id, item, amount, placed_at, status) \
                  values (1, 'lamp', 12.50, now(), 'new')";
    demo.psql(&demo.tokens.agent, &[insert, "select 'inserted'"])?.prints("inserted")
}

fn dba_sees_clear(demo: &Demo) -> Outcome<()> {
    let raw = demo.psql(&demo.tokens.dba, &["select email, ssn, card, phone from customers where id = 7"])?;
    demo.raw_values()?.iter().try_for_each(|value| raw.prints(value))
}

fn no_role_no_entry(demo: &Demo) -> Outcome<()> {
    demo.is_refused("no role", &demo.issuer.token("nobody", &[])?)?;
    demo.is_refused("an unknown role", &demo.issuer.token("nobody", &["gardener"])?)
}

fn forged_tokens_open_nothing(demo: &Demo) -> Outcome<()> {
    let mut expired = Issuer::claims("ann", &["analyst"]);
    expired["exp"] = json!(now_s() - 3600);
    demo.is_refused("an expired token", &demo.issuer.sign(&expired)?)?;
    let mut misdirected = Issuer::claims("ann", &["analyst"]);
    misdirected["aud"] = json!("payroll");
    demo.is_refused("another service's token", &demo.issuer.sign(&misdirected)?)?;
    let honest = &demo.tokens.analyst;
    let claims = honest.split('.').nth(1).unwrap_or_default();
    // The header says {"alg":"none","typ":"JWT"}.
    demo.is_refused("an unsigned token", &format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}."))?;
    demo.is_refused("no token", "secret")
}

fn sessions_are_listed(demo: &Demo) -> Outcome<()> {
    soon(|| {
        let listed = demo.wireward("sessions", &[])?;
        ["ann", "crew-sales", "dora"].iter().try_for_each(|subject| listed.prints(subject))
    })
}

fn sessions_are_replayed(demo: &Demo) -> Outcome<()> {
    let listed = demo.wireward("sessions", &[])?;
    let line = listed.out.lines().find(|line| line.contains("crew-sales"));
    let session = line.and_then(|line| line.split_whitespace().next()).ok_or("no session of crew-sales is listed")?;
    soon(|| demo.wireward("replay", &[session])?.prints("select"))
}

fn recordings_verify(demo: &Demo) -> Outcome<()> {
    let verified = demo.wireward("verify", &[])?;
    match verified.success {
        true => Ok(()),
        false => Err(format!("{}{}", verified.out, verified.err)),
    }
}

fn recordings_hold_no_secret(demo: &Demo) -> Outcome<()> {
    let secrets = [&demo.upstream.password, &demo.tokens.analyst, &demo.tokens.agent, &demo.tokens.dba];
    for path in demo.recording_files()? {
        let bytes = std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if secrets.iter().any(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_bytes())) {
            return Err(format!("{} holds a credential", path.display()));
        }
    }
    Ok(())
}

/// Tries again for a while: what a session did is on disk a moment after it did it.
fn soon(attempt: impl Fn() -> Outcome<()>) -> Outcome<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(200)),
            outcome => return outcome,
        }
    }
}

/// What a program printed.
struct Printed {
    out: String,
    err: String,
    success: bool,
}

impl Printed {
    fn prints(&self, wanted: &str) -> Outcome<()> {
        match self.out.contains(wanted) {
            true => Ok(()),
            false => Err(format!("expected {wanted:?}, got {:?} {:?}", self.out.trim_end(), self.err.trim_end())),
        }
    }

    fn complains(&self, wanted: &str) -> Outcome<()> {
        match self.err.contains(wanted) {
            true => Ok(()),
            false => {
                Err(format!("expected the error {wanted}, got {:?} {:?}", self.out.trim_end(), self.err.trim_end()))
            }
        }
    }

    fn hides(&self, raw: &[String]) -> Outcome<()> {
        match raw.iter().find(|value| self.out.contains(*value) || self.err.contains(*value)) {
            None => Ok(()),
            Some(value) => Err(format!("{value:?} is readable in {:?} {:?}", self.out.trim_end(), self.err.trim_end())),
        }
    }
}

impl Demo {
    /// One psql session through the gateway; every statement is a `-c` of its own.
    fn psql(&self, token: &str, statements: &[&str]) -> Outcome<Printed> {
        let mut command = self.psql_of(statements);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.gateway.port.to_string()).env("PGSSLMODE", "disable");
        command.env("PGUSER", NAME).env("PGPASSWORD", token).env("PGDATABASE", "shop");
        output_of(command)
    }

    /// psql, which has not been told where to connect.
    fn psql_of(&self, statements: &[&str]) -> Command {
        let program = self.server.as_ref().map_or(PathBuf::from("psql"), |server| server.binaries().join("psql"));
        let mut command = Command::new(program);
        command.args(["-XAtq", "-v", "VERBOSITY=verbose"]);
        for statement in statements {
            command.args(["-c", statement]);
        }
        command
    }

    /// A sub-command that reads the recordings.
    fn wireward(&self, name: &str, arguments: &[&str]) -> Outcome<Printed> {
        let mut command = Command::new(&self.program);
        command.arg(name).args(arguments).arg("--config").arg(self.place.configuration());
        output_of(command)
    }

    /// The true values of customer 7, asked for directly, without the gateway.
    fn raw_values(&self) -> Outcome<Vec<String>> {
        let row = "select unnest(array[email, ssn, card, phone]) from customers where id = 7";
        let (host, port) = self.upstream.address.rsplit_once(':').ok_or("the upstream has no port")?;
        let mut command = self.psql_of(&[row]);
        command.env("PGHOST", host.trim_matches(['[', ']'])).env("PGPORT", port).env("PGUSER", &self.upstream.user);
        command.env("PGPASSWORD", &self.upstream.password).env("PGDATABASE", &self.upstream.database);
        let shown = output_of(command)?;
        let values: Vec<String> = shown.out.lines().map(str::to_owned).collect();
        match values.len() {
            4 => Ok(values),
            _ => Err(format!("the server behind has no customer 7 of the sample shop: {}", shown.err.trim_end())),
        }
    }

    /// Fails unless the gateway answers this password with 28000 or 28P01.
    fn is_refused(&self, what: &str, password: &str) -> Outcome<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| format!("cannot make a runtime: {error}"))?;
        let mut login = tokio_postgres::Config::new();
        login.host("127.0.0.1").port(self.gateway.port).user(NAME).password(password).dbname("shop");
        let answer = runtime.block_on(login.connect(tokio_postgres::NoTls)).err();
        let answer = answer.ok_or_else(|| format!("{what} got in"))?;
        match answer.code().map(tokio_postgres::error::SqlState::code) {
            Some("28000" | "28P01") => Ok(()),
            other => Err(format!("{what}: expected 28000 or 28P01, got {other:?} ({answer})")),
        }
    }

    fn recording_files(&self) -> Outcome<Vec<PathBuf>> {
        let directory = self.place.recordings();
        let entries =
            std::fs::read_dir(&directory).map_err(|error| format!("cannot read {}: {error}", directory.display()))?;
        let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        if files.is_empty() { Err(format!("nothing is recorded in {}", directory.display())) } else { Ok(files) }
    }
}

fn output_of(mut command: Command) -> Outcome<Printed> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {name}: {error}"))?;
    Ok(Printed {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        success: output.status.success(),
    })
}
