//! What happens to a session between two messages, while something waits.

use super::*;

/// The shell parks what its peer does not finish, as it does while slots are short.
fn park(stage: &mut Stage) {
    let lane = stage.session.incoming(Side::Client);
    lane.park(&mut stage.slab, &stage.gathered);
}

#[test]
fn what_stands_behind_a_statement_that_is_analysed_is_not_parked() {
    let mut stage = Stage::new(Login::Plain, Cut::Whole);
    stage.log_in();
    let statements = parse(r#"Q "select " "1"*40000 "\0" | Q "select 2\0""#);
    stage.judge.waits = true;
    stage.say(Side::Client, &statements);
    park(&mut stage);
    stage.judge.waits = false;
    stage.feed(Input::Again);
    assert!(stage.left_after(Side::Upstream) == statements, "the statement behind it goes on without another byte");
}

#[test]
fn a_statement_that_waits_for_the_recorder_is_not_parked() {
    let mut stage = Stage::new(Login::Plain, Cut::Whole);
    stage.log_in();
    stage.recorder_present = false;
    let statement = parse(r#"Q "select 1\0""#);
    stage.say(Side::Client, &statement);
    park(&mut stage);
    assert_eq!(stage.shortage, Some(Shortage::Recorder));
    stage.recorder_present = true;
    stage.feed(Input::Again);
    assert!(stage.left_after(Side::Upstream) == statement, "it goes on without another byte");
}

#[test]
fn the_beginning_of_a_statement_is_parked() {
    let mut stage = Stage::new(Login::Plain, Cut::Whole);
    stage.log_in();
    let (statement, free) = (parse(r#"Q "select 1\0""#), stage.slab.free());
    stage.say(Side::Client, &statement[..7]);
    park(&mut stage);
    assert_eq!(stage.slab.free(), free, "it keeps no slot");
    stage.say(Side::Client, &statement[7..]);
    assert!(stage.left_after(Side::Upstream) == statement);
}

#[test]
fn a_simple_query_that_the_server_ignores_ends_no_pipeline() {
    let mut stage = Stage::new(Login::Plain, Cut::Whole);
    stage.log_in();
    stage.say(Side::Client, &parse(r#"P "\0select 1\0\0\0" | H | Q "select 1\0""#));
    stage.say(Side::Upstream, &parse(r#"E "SERROR\0VERROR\0C42P01\0Mno such relation\0\0""#));
    assert!(!stage.session.is_idle(), "the server ignores all up to a Sync");
    stage.say(Side::Client, &parse("S"));
    stage.say(Side::Upstream, &parse(r#"Z "I""#));
    assert!(stage.session.is_idle());
}

#[test]
fn what_cannot_be_judged_again_is_not_run_under_another_policy() {
    let mut stage = Stage::new(Login::Plain, Cut::Whole);
    stage.log_in();
    // Its text is not kept.
    stage.say(Side::Client, &parse(r#"P "s1\0select 1\0\0\0" | B "\0s1\0\0\0\0\0\0\0" | H"#));
    stage.say(Side::Upstream, &parse("1 | 2"));
    stage.judge.view = 1;
    stage.feed(Input::Policy { masks: Rc::new(MaskView::none()), epoch: [1; 8] });
    let before = stage.left_after(Side::Upstream).len();
    stage.say(Side::Client, &parse(r#"E "\0\0\0\0\0""#));
    let mut lines = String::new();
    show(&mut lines, "to upstream", &stage.left_after(Side::Upstream)[before..], false);
    assert_eq!(lines, "to upstream E \"blocked by wireward\\0\\0\\0\\0\\0\"\n");
}

#[test]
fn what_was_not_looked_at_for_our_own_bytes_is_not_parked() {
    let mut stage = Stage::new(Login::Masked, Cut::Whole);
    stage.log_in();
    stage.deaf_upstream = true;
    // We ask for a description first; meanwhile a large notice comes.
    let sent = parse(r#"P "\0select name from people\0\0\0" | B "\0\0\0\0\0\0\0\0" | E "\0\0\0\0\0" | S"#);
    stage.say(Side::Client, &sent);
    stage.stalled = true;
    stage.say(Side::Upstream, &parse(r#"N "SNOTICE\0M" "n"*150000 "\0\0""#));
    stage.deaf_upstream = false;
    while stage.send(Side::Upstream) {}
    park(&mut stage);
    stage.stalled = false;
    assert!(stage.left_after(Side::Client).len() > 150_000);
    assert!(stage.left_after(Side::Upstream).ends_with(&parse("S")), "the Execute and the Sync go on");
}

#[test]
fn a_server_is_not_ready_before_it_has_answered() {
    let mut stage = Stage::new(Login::Masked, Cut::Whole);
    stage.log_in();
    stage.say(Side::Client, &parse(r#"Q "select 1\0" | Q "copy people to stdout\0" | Q "select 2\0""#));
    stage.say(Side::Upstream, &parse(r#"C "SELECT 1\0" | Z "I""#));
    assert!(!stage.session.is_draining());
    stage.say(Side::Upstream, &parse(r#"Z "I""#));
    assert!(stage.session.is_draining(), "what is said now would be taken for the answer to the statement behind");
}

#[test]
fn a_gathered_statement_whose_analysis_is_done_waits_for_the_recorder_too() {
    let mut stage = Stage::new(Login::Plain, Cut::Whole);
    stage.log_in();
    let statement = parse(r#"Q "select " "1"*40000 "\0""#);
    stage.judge.waits = true;
    stage.say(Side::Client, &statement);
    (stage.judge.waits, stage.recorder_present) = (false, false);
    stage.feed(Input::Again);
    while stage.send(Side::Upstream) {}
    assert_eq!(stage.left[Side::Upstream as usize].len(), 0, "a statement has started without the recorder");
    stage.recorder_present = true;
    stage.feed(Input::Again);
    while stage.send(Side::Upstream) {}
    assert!(stage.left[Side::Upstream as usize] == statement, "the statement starts when the recorder is back");
}
