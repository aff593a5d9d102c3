//! System calls of the real dataplane process, counted by strace from outside.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tests::process;
use tests::world::{Shown, World};

/// Two runs of different length: what does not grow with the transactions falls out of the difference.
const FEW: usize = 100;
const MANY: usize = 1100;
const COUNTED: f64 = (MANY - FEW) as f64;
/// One a message, and some for the loop's own timers and the catalogue's reading. Before Linux 6.12 a completed send is not
/// told together with the next event, and costs one more.
const ENTERS_MAX: f64 = 2.5;
const ENTERS_MAX_BEFORE_6_12: f64 = 4.5;
/// Any other call that grows slower than this is not the transactions' doing.
const OTHERS_MAX: f64 = 0.05;

type Calls = BTreeMap<String, usize>;

#[test]
fn a_known_prepared_statement_costs_two_ring_enters_and_no_other_system_call() {
    let world = World::start().expect("the servers start");
    for role in ["dba", "analyst"] {
        let few = calls(&world, role, FEW);
        let many = calls(&world, role, MANY);
        let each = |name: &String| {
            let of = |calls: &Calls| calls.get(name).copied().unwrap_or_default() as f64;
            (of(&many) - of(&few)) / COUNTED
        };
        println!("{role}: {:.3} io_uring_enter a transaction; {FEW}: {few:?}; {MANY}: {many:?}", each(&ENTER.into()));
        for name in many.keys() {
            let max = if name == ENTER { enters_max() } else { OTHERS_MAX };
            assert!(each(name) <= max, "{role}: {name} {:.3} times a transaction; {few:?}, {many:?}", each(name));
        }
        // One at least: a transaction cannot pass unseen.
        assert!(each(&ENTER.into()) >= 1.0, "{role}: strace has not seen the transactions: {many:?}");
    }
}

fn enters_max() -> f64 {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("the kernel has a version");
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= (6, 12) { ENTERS_MAX } else { ENTERS_MAX_BEFORE_6_12 }
}

/// A wait, a receive and a send for the request, the same for its answer.
const EPOLL_CALLS: f64 = 6.0;

#[test]
fn over_epoll_a_known_prepared_statement_costs_two_waits_two_receives_and_two_sends() {
    let mut world = World::start().expect("the servers start");
    let (place, gateway) = world.another("epoll", |c| format!("{c}\n[runtime]\nio = \"epoll\"\n"));
    (world.place, world.gateway) = (place, gateway);
    let few = calls(&world, "analyst", FEW);
    let many = calls(&world, "analyst", MANY);
    let sum = |calls: &Calls| calls.values().sum::<usize>() as f64;
    let each = (sum(&many) - sum(&few)) / COUNTED;
    println!("{each:.3} system calls a transaction; {FEW}: {few:?}; {MANY}: {many:?}");
    // A wait that ends for nothing, here and there: the loop has timers of its own.
    assert!((EPOLL_CALLS - 0.5..=EPOLL_CALLS + 0.5).contains(&each), "{each:.3}: {few:?}, {many:?}");
    assert!(!many.contains_key(ENTER), "{many:?}");
}

const ENTER: &str = "io_uring_enter";

/// The dataplane's system calls while one client runs `transactions` prepared transactions, its login included.
fn calls(world: &World, role: &str, transactions: usize) -> Calls {
    let report = world.directory.0.join("strace.txt");
    let strace = Strace::attach(&shard_threads(dataplane_pid(world)), report);
    let script = world.directory.0.join("known.sql");
    fs::write(&script, "select id from orders where id = 42;\n").expect("the directory is writable");
    let (script, transactions) = (script.display().to_string(), transactions.to_string());
    let options = ["-n", "-M", "prepared", "-c", "1", "-j", "1", "-f", &script, "-t", &transactions];
    let shown = Shown::of(world.tool(&world.through(role), "pgbench", &options));
    let calls = strace.detach();
    assert!(shown.success, "{shown:?}");
    shown.must_print(&format!("number of transactions actually processed: {transactions}/{transactions}"));
    calls
}

fn dataplane_pid(world: &World) -> u32 {
    let mut pids = world.gateway_pids().into_iter();
    let found = pids.find(|pid| process::command_line(*pid).contains(" dataplane --config"));
    found.expect("the gateway runs a dataplane process")
}

/// The thread that runs the shard. The control thread works by the clock, so its calls grow with a slow run, not with N.
fn shard_threads(pid: u32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process has threads").flatten();
    let is_shard =
        |task: &fs::DirEntry| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("shard "));
    let found = tasks.filter(is_shard).map(|t| t.file_name().to_string_lossy().into_owned()).collect::<Vec<_>>();
    assert!(!found.is_empty(), "the dataplane has threads named `shard N`");
    found
}

/// strace, attached to threads, counting.
struct Strace {
    process: Child,
    report: PathBuf,
}

impl Strace {
    /// # Panics
    /// With what strace says, if it is missing or may not attach: a budget that is not counted is not kept.
    fn attach(threads: &[String], report: PathBuf) -> Strace {
        let mut command = Command::new("strace");
        command.args(["-c", "-U", "calls,name", "-o"]).arg(&report);
        threads.iter().for_each(|thread| _ = command.args(["-p", thread]));
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap_or_else(|error| {
            panic!("cannot run strace: {error}; install it with: apt-get install strace");
        });
        let mut said = String::new();
        let mut lines = BufReader::new(process.stderr.take().expect("piped"));
        // Its first line says that it has attached, or why it may not.
        lines.read_line(&mut said).expect("strace speaks UTF-8");
        assert!(
            said.contains("attached"),
            "strace may not attach to the dataplane: {said}the process hides itself, so this takes root or CAP_SYS_PTRACE"
        );
        // Its other words are of no interest, but the pipe must not fill.
        std::thread::spawn(move || lines.lines().for_each(drop));
        Strace { process, report }
    }

    fn detach(mut self) -> Calls {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, Signal::INT).expect("strace runs until it is told to stop");
        self.process.wait().expect("strace is a child of ours");
        read_report(&fs::read_to_string(&self.report).expect("strace writes its report when it ends"))
    }
}

/// Lines of `calls name`, between a head and a total.
fn read_report(text: &str) -> Calls {
    let line = |line: &str| {
        let (calls, name) = line.trim().split_once(char::is_whitespace)?;
        Some((name.trim().to_owned(), calls.parse().ok()?))
    };
    text.lines().filter_map(line).filter(|(name, _)| name != "total").collect()
}

#[test]
fn a_report_of_strace_is_read() {
    let text = "    calls syscall\n--------- ----------------\n     4400 io_uring_enter\n       12 clock_nanosleep\n\
                --------- ----------------\n     4412 total\n";
    let expected = Calls::from([("io_uring_enter".into(), 4400), ("clock_nanosleep".into(), 12)]);
    assert_eq!(read_report(text), expected);
}
