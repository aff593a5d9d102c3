//! One server of the matrix, both gateways before it, and how a client is run there.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::gateway::{Gateway, Place, Upstream};
use tests::issuer::Issuer;
use tests::policy;
use tests::server::{Outcome, Server, free_port, random_hex};
use tests::world::{server_programs, tests_path, wireward};

use crate::Seen;
use crate::clients::{Client, file};

/// No client runs longer than this.
const CLIENT_MAX_S: &str = "120";
const USER: &str = "wireward";

/// The driver and the transport.
#[derive(Clone, Copy)]
pub struct Way {
    io: usize,
    tls: bool,
}

const DRIVERS: [&str; 2] = ["uring", "epoll"];
pub const WAYS: [Way; 4] =
    [Way { io: 0, tls: false }, Way { io: 1, tls: true }, Way { io: 0, tls: true }, Way { io: 1, tls: false }];

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {} {}", DRIVERS[self.io], if self.tls { "with TLS" } else { "in clear" })
    }
}

pub struct Side {
    pub major: u32,
    server: Server,
    password: String,
    token: String,
    gateways: [(Place, Gateway); 2],
    directory: PathBuf,
}

impl Side {
    pub fn start(directory: &Path, major: u32) -> Outcome<Side> {
        fs::create_dir_all(directory).map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        let server =
            Server::start_of(&server_programs(directory, major)?, directory, &["max_prepared_transactions=5"])?;
        let found = server.run_script("postgres", "show server_version_num")?;
        if !found.starts_with(&major.to_string()) {
            return Err(format!("a server {major} was wanted, this is {found}"));
        }
        let password = random_hex(16)?;
        let make = format!(
            "create role {USER} login password '{password}';\ncreate database shop owner {USER};\n\
        grant set on parameter lc_messages to {USER};"
        );
        server.run_script("postgres", &make)?;
        let address = format!("127.0.0.1:{}", server.port);
        let upstream = Upstream { address, database: "shop".into(), user: USER.into(), password };
        let issuer = Issuer::new()?;
        let [uring, epoll] = DRIVERS.map(|io| gateway(&directory.join(io), io, &issuer, &upstream));
        // Under the name that it has directly: clients show it.
        let mut claims = Issuer::claims("clients", &["everything"]);
        claims["preferred_username"] = USER.into();
        let gateways = [uring?, epoll?];
        let token = issuer.sign(&claims)?;
        Ok(Side { major, server, password: upstream.password, token, gateways, directory: directory.to_owned() })
    }

    /// What the client sees directly, or through a gateway.
    pub fn run(&self, client: &Client, way: Option<Way>) -> Outcome<Seen> {
        let schema = format!("of_{}", client.name.replace('-', "_"));
        let work = self.directory.join(&schema);
        let cannot = |error: std::io::Error| format!("cannot prepare {}: {error}", work.display());
        fs::create_dir_all(&work).map_err(cannot)?;
        // Whatever an earlier run has left would be told in notices.
        self.server
            .run_script("shop", &format!("set client_min_messages = error; drop schema if exists {schema} cascade"))?;
        let make = fs::read_to_string(file("make.sql")).map_err(cannot)?;
        fs::write(work.join("make.sql"), make.replace("CLIENT", &schema)).map_err(cannot)?;
        let program = (client.command)(self.server.binaries());
        let mut command = Command::new("timeout");
        command.args(["-k", "5", CLIENT_MAX_S]).arg(program.get_program()).args(program.get_args()).current_dir(&work);
        command.env("CLIENT_SCHEMA", &schema).env("CLIENT_MAKE", work.join("make.sql"));
        command.env("CLIENT_VALUES", file("values.sql")).env("PYTHONDONTWRITEBYTECODE", "1").env("LC_ALL", "C.UTF-8");
        command.env("PGHOST", "127.0.0.1").env("PGDATABASE", "shop").env("PGUSER", USER).env("PGSSLMODE", "disable");
        match way {
            None => command.env("PGPORT", self.server.port.to_string()).env("PGPASSWORD", &self.password),
            Some(way) => self.login(&mut command, way),
        };
        seen(command)
    }

    fn login<'c>(&self, command: &'c mut Command, way: Way) -> &'c mut Command {
        let (place, gateway) = &self.gateways[way.io];
        if way.tls {
            command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", place.root_certificate());
        }
        command.env("PGPORT", gateway.port.to_string()).env("PGPASSWORD", &self.token)
    }
}

/// The lines of a client that came to its end.
fn seen(mut command: Command) -> Outcome<Seen> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}; .ci/run installs what is missing"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("it ended with {}: {err}\n{out:.3000}", output.status));
    }
    let line = |line: &str| {
        let mut parts = line.splitn(3, '\t').map(str::to_owned);
        Some(((parts.next()?, parts.next()?), parts.next()?))
    };
    out.lines().map(|text| line(text).ok_or_else(|| format!("no outcome: {text}\n{err}"))).collect()
}

fn gateway(directory: &Path, io: &str, issuer: &Issuer, upstream: &Upstream) -> Outcome<(Place, Gateway)> {
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let (place, port) = (Place::new(directory), free_port()?);
    let policies = tests_path("regress");
    place.furnish(issuer, &policy::compile(Some(&policies))?, upstream, port)?;
    let written = fs::read_to_string(place.configuration()).map_err(|error| error.to_string())?;
    let chosen = format!("[runtime]\nio = \"{io}\"\n\n{written}");
    fs::write(place.configuration(), chosen).map_err(|error| error.to_string())?;
    let gateway = place.start(&wireward(), port)?;
    Ok((place, gateway))
}
