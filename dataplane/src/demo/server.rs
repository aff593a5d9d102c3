//! A PostgreSQL server of our own, in a directory of our own: found, initialised, started and stopped here.
//! It listens on 127.0.0.1 only, keeps nothing durable (`fsync = off`) and asks everyone for a SCRAM password.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The text of an error is for the person at the terminal: what, where, how to mend it.
pub type Outcome<T> = Result<T, String>;

/// The newest server whose grammar the gateway can judge.
const NEWEST_MAJOR: u32 = 18;
const OLDEST_MAJOR: u32 = 15;
const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(10);
const SUPERUSER: &str = "postgres";

/// A running server. It is stopped when this value is dropped, and by the kernel when the starting thread dies.
pub struct Server {
    pub port: u16,
    binaries: PathBuf,
    pub log: PathBuf,
    password: String,
    process: Child,
}

impl Server {
    /// Makes a cluster in `directory/pg` unless one is there, and starts it on a free port.
    /// `settings` are lines of `postgresql.conf` such as `log_statement=all`.
    /// The superuser's password is kept in `directory/superuser.password`.
    pub fn start(directory: &Path, settings: &[&str]) -> Outcome<Server> {
        Server::start_of(&find_binaries()?, directory, settings)
    }

    /// As [`Server::start`], with the `initdb` and `postgres` of another installation, which may lack the clients' programs.
    pub fn start_of(programs: &Path, directory: &Path, settings: &[&str]) -> Outcome<Server> {
        let binaries = find_binaries()?;
        let owner = Owner::choose()?;
        let data = directory.join("pg");
        let password_file = directory.join("superuser.password");
        if !data.join("PG_VERSION").exists() {
            write_secret(&password_file, &random_hex(16)?)?;
            initialise(programs, &owner, &data, &password_file)?;
        }
        let password = fs::read_to_string(&password_file).map_err(|error| {
            format!("cannot read {}: {error}; remove {} and start again", show(&password_file), show(directory))
        })?;
        let port = free_port()?;
        let log = directory.join("pg.log");
        let process = owner.launch(&programs.join("postgres"), &data, port, settings, &log)?;
        let mut server = Server { port, binaries, log, password, process };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Runs a script as the superuser, in one psql, stopping at the first error. Returns what psql printed.
    pub fn run_script(&self, database: &str, script: &str) -> Outcome<String> {
        let mut child = self
            .psql(SUPERUSER, &self.password, database)
            .args(["-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run psql: {error}"))?;
        let mut stdin = child.stdin.take().ok_or("psql has no standard input")?;
        // A failing script closes the pipe early; its own message, read below, says why.
        let _ = stdin.write_all(script.as_bytes());
        drop(stdin);
        let output = child.wait_with_output().map_err(|error| format!("psql was lost: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("psql: {}", String::from_utf8_lossy(&output.stderr).trim_end())),
        }
    }

    /// A quiet psql of this installation, aimed directly at this server.
    pub fn psql(&self, user: &str, password: &str, database: &str) -> Command {
        let mut command = Command::new(self.binaries.join("psql"));
        command.args(["-XAtq"]);
        command.env("PGHOST", "127.0.0.1").env("PGPORT", self.port.to_string()).env("PGSSLMODE", "disable");
        command.env("PGUSER", user).env("PGPASSWORD", password).env("PGDATABASE", database);
        command
    }

    /// Where the tools of this installation are: `psql`, `pgbench`, `pg_dump`.
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    fn wait_until_ready(&mut self) -> Outcome<()> {
        let deadline = Instant::now() + START_MAX;
        while self.run_script("postgres", "select 1").is_err() {
            let ended = self.process.try_wait().ok().flatten().is_some();
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!(
                    "PostgreSQL did not start; its log {} ends with:\n{}",
                    show(&self.log),
                    last_lines(&log, 12)
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Server {
    /// Fast shutdown first (SIGINT), immediate shutdown (SIGQUIT) if that takes too long.
    fn drop(&mut self) {
        stop(&mut self.process, Signal::INT, Signal::QUIT, STOP_MAX);
    }
}

/// Asks a child to end, waits, and insists after `patience`.
pub fn stop(child: &mut Child, ask: Signal, insist: Signal, patience: Duration) {
    let pid = Pid::from_child(child);
    if child.try_wait().ok().flatten().is_some() || kill_process(pid, ask).is_err() {
        return;
    }
    let deadline = Instant::now() + patience;
    while child.try_wait().ok().flatten().is_none() {
        if Instant::now() > deadline {
            let _ = kill_process(pid, insist);
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command that the kernel ends with `signal` when the thread that started it dies, so that nothing is left behind
/// after a crash. It has a process group of its own: Ctrl-C reaches it only through us, and in our order.
pub fn tied_to_us(program: &Path, signal: &str) -> Command {
    setpriv(program, signal, &[])
}

fn setpriv(program: &Path, signal: &str, identity: &[String]) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]).args(identity).arg(program);
    command.process_group(0).stdin(Stdio::null());
    command
}

/// Waits until something accepts connections on 127.0.0.1:`port`.
pub fn wait_for_port(port: u16, patience: Duration) -> Outcome<()> {
    let deadline = Instant::now() + patience;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            return Err(format!("nothing listens on 127.0.0.1:{port} after {} s", patience.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A port of 127.0.0.1 that nobody listens on: not one of those that the kernel gives to outgoing connections, of which one could
/// take it before we do.
pub fn free_port() -> Outcome<u16> {
    const LOWEST: u16 = 16_384;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let given_from: u16 = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(LOWEST);
    let room = given_from.saturating_sub(LOWEST);
    // Without room for ports of our own, any must do.
    let tries = if room > 0 { 64 } else { 0 };
    for _ in 0..tries {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(|error| format!("the system gives no random bytes: {error}"))?;
        let port = LOWEST + u16::from_ne_bytes(random) % room;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    let any = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    Ok(any.map_err(|error| format!("no free port on 127.0.0.1: {error}"))?.port())
}

/// `bytes` random bytes in hexadecimal.
pub fn random_hex(bytes: usize) -> Outcome<String> {
    let mut random = vec![0u8; bytes];
    getrandom::fill(&mut random).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a file that only its owner can read.
pub fn write_secret(path: &Path, text: &str) -> Outcome<()> {
    let _ = fs::remove_file(path);
    let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    written
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", show(path)))
}

fn find_binaries() -> Outcome<PathBuf> {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut majors: Vec<u32> = installed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    majors.sort_unstable();
    let packaged = majors.iter().rev().filter(|major| (OLDEST_MAJOR..=NEWEST_MAJOR).contains(*major));
    let packaged = packaged.map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let complete =
        |directory: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|name| directory.join(name).is_file());
    packaged.chain(std::env::split_paths(&path)).find(complete).ok_or_else(|| {
        format!(
            "no PostgreSQL server {OLDEST_MAJOR} to {NEWEST_MAJOR} found in /usr/lib/postgresql/*/bin or PATH; \
             install one with: sudo apt-get install postgresql postgresql-client"
        )
    })
}

/// Whom the server runs as: PostgreSQL refuses to run as root.
enum Owner {
    Ourselves,
    Other { name: &'static str, uid: u32, gid: u32 },
}

impl Owner {
    fn choose() -> Outcome<Owner> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Owner::Ourselves);
        }
        let accounts =
            fs::read_to_string("/etc/passwd").map_err(|error| format!("cannot read /etc/passwd: {error}"))?;
        let find = |name: &'static str| {
            let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut numbers = line.split(':').skip(2).map(str::parse);
            Some(Owner::Other { name, uid: numbers.next()?.ok()?, gid: numbers.next()?.ok()? })
        };
        let found = find("postgres").or_else(|| find("nobody"));
        found.ok_or_else(|| "PostgreSQL cannot run as root, and there is no user postgres or nobody".to_owned())
    }

    /// `setpriv` with the identity of the owner; the death signal comes after the change of identity, which clears it.
    fn command(&self, program: &Path, signal: &str) -> Command {
        match self {
            Owner::Ourselves => tied_to_us(program, signal),
            Owner::Other { uid, gid, .. } => {
                let identity = [format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()];
                let mut command = setpriv(program, signal, &identity);
                command.current_dir("/");
                command
            }
        }
    }

    fn take(&self, path: &Path) -> Outcome<()> {
        let Owner::Other { name, uid, gid } = self else { return Ok(()) };
        chown(path, Some(*uid), Some(*gid)).map_err(|error| format!("cannot give {} to {name}: {error}", show(path)))
    }

    fn launch(&self, postgres: &Path, data: &Path, port: u16, settings: &[&str], log: &Path) -> Outcome<Child> {
        let log_file = fs::File::create(log).map_err(|error| format!("cannot write {}: {error}", show(log)))?;
        let err_file = log_file.try_clone().map_err(|error| format!("cannot write {}: {error}", show(log)))?;
        let mut command = self.command(postgres, "INT");
        command.arg("-D").arg(data).args(["-p", &port.to_string()]);
        let ours = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "full_page_writes=off"];
        for setting in ours.iter().chain(settings) {
            command.args(["-c", setting]);
        }
        command.stdout(log_file).stderr(err_file);
        command.spawn().map_err(|error| format!("cannot start {}: {error}", show(postgres)))
    }
}

fn initialise(programs: &Path, owner: &Owner, data: &Path, password_file: &Path) -> Outcome<()> {
    fs::create_dir_all(data).map_err(|error| format!("cannot make {}: {error}", show(data)))?;
    owner.take(data)?;
    // initdb reads the password as the server's user; the copy goes as soon as it has.
    let handed_over = data.with_extension("initial");
    fs::copy(password_file, &handed_over).map_err(|error| format!("cannot write {}: {error}", show(&handed_over)))?;
    owner.take(&handed_over)?;
    if let (Owner::Other { name, .. }, Some(directory)) = (owner, data.parent()) {
        let reachable = fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).is_ok()
            && owner
                .command(Path::new("test"), "KILL")
                .arg("-w")
                .arg(data)
                .status()
                .is_ok_and(|status| status.success());
        if !reachable {
            return Err(format!(
                "the server runs as user {name}, which cannot reach {}; choose --dir below /tmp",
                show(data)
            ));
        }
    }
    let mut command = owner.command(&programs.join("initdb"), "KILL");
    command.arg("-D").arg(data).arg("--pwfile").arg(&handed_over);
    command.args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "-U", SUPERUSER]);
    let output =
        command.output().map_err(|error| format!("cannot run initdb through setpriv (util-linux): {error}"))?;
    let _ = fs::remove_file(&handed_over);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim_end())),
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn show(path: &Path) -> std::path::Display<'_> {
    path.display()
}
