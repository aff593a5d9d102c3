//! pg_dump and restore through the gateway, as a dba.

use std::fs;
use std::process::ExitCode;
use tests::suite::{Case, run};
use tests::world::{Login, Shown, World};

fn main() -> ExitCode {
    run(vec![
        Case::new("a_dump_is_the_same_as_one_taken_directly", same_dump),
        Case::new("a_dump_as_inserts_is_the_same", same_inserts),
        Case::new("a_custom_format_dump_lists_the_same", same_custom),
        Case::new("a_schema_restored_through_the_gateway_is_the_same", restore),
    ])
}

/// What pg_dump writes, without the random keys that newer versions put around it.
fn dump(world: &World, login: &Login, options: &[&str]) -> String {
    let shown = Shown::of(world.tool(login, "pg_dump", options));
    assert!(shown.success, "{}", shown.err);
    let is_content = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    shown.out.lines().filter(is_content).collect::<Vec<_>>().join("\n")
}

fn compare(world: &World, options: &[&str]) {
    let directly = dump(world, &world.direct(), options);
    let through = dump(world, &world.through("dba"), options);
    assert!(directly.len() > 1_000_000, "the dump holds the shop, not only {} bytes", directly.len());
    assert!(through == directly, "dumps of {} and {} bytes differ", through.len(), directly.len());
}

fn same_dump(world: &World) {
    compare(world, &[]);
}

fn same_inserts(world: &World) {
    compare(world, &["--inserts", "--rows-per-insert=50", "--no-owner"]);
}

fn same_custom(world: &World) {
    for (name, login) in [("direct.dump", world.direct()), ("through.dump", world.through("dba"))] {
        let shown = Shown::of(world.tool(&login, "pg_dump", &["-Fc", "-Z0", "-f", name]));
        assert!(shown.success, "{shown:?}");
    }
    let text = |name: &str| dump_text(world, name);
    assert!(text("direct.dump") == text("through.dump"));
}

fn dump_text(world: &World, name: &str) -> String {
    let shown = Shown::of(world.tool(&world.direct(), "pg_restore", &["-f", "-", name]));
    assert!(shown.success, "{}", shown.err);
    let is_content = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    shown.out.lines().filter(is_content).collect::<Vec<_>>().join("\n")
}

const ATTIC: &str = "
    create schema attic;
    create table attic.boxes (id serial primary key, label text not null, weight numeric, packed timestamptz, raw bytea, tags text[], extra jsonb);
    insert into attic.boxes (label, weight, packed, raw, tags, extra)
    select 'box ' || n, n / 7.0, timestamptz '2026-01-01 00:00:00+00' + n * interval '1 hour', decode(md5(n::text), 'hex'),
           array['a', n::text, null], jsonb_build_object('n', n, 'q', E'quote '' and \\\\ and\\nline')
    from generate_series(1, 5000) n;
    create view attic.heavy as select * from attic.boxes where weight > 100;
    create function attic.twice(n int) returns int language sql immutable as 'select n * 2';
    create index on attic.boxes (label);";

fn restore(world: &World) {
    world.psql(&world.direct(), &[ATTIC]).must_succeed();
    let options = ["--schema=attic"];
    let before = dump(world, &world.direct(), &options);
    fs::write(world.directory.0.join("attic.sql"), &before).expect("the directory is writable");
    world.psql(&world.through("dba"), &["set client_min_messages = error; drop schema attic cascade"]).must_succeed();
    let restored = world.tool(&world.through("dba"), "psql", &["-XAtq", "-v", "ON_ERROR_STOP=1", "-f", "attic.sql"]);
    let shown = Shown::of(restored);
    assert!(shown.success, "{}", shown.err);
    assert!(dump(world, &world.direct(), &options) == before, "the restored schema differs");
}
