//! Names of prepared statements and cursors: whatever is done to them, what runs under a name is what was judged. And behind a
//! function whose effects nobody knows, nothing runs before the server has said what holds.

use std::process::ExitCode;
use tests::suite::{Case, run_in};
use tests::world::World;

/// The demo's, with an agent that may call what it wants, and hear others.
const POLICY: &str = concat!(
    include_str!("../../dataplane/src/demo/policy.toml"),
    "\n[[grant]]\nto = [\"agent\"]\nresources = [\"shop\"]\neffects = [\"call\", \"listen\", \"notify\"]\n",
);

const FUNCTIONS: &str = "
    create function harmless(n int) returns int language sql as 'select n';
    create function unpin() returns text language sql as
        $$select set_config('standard_conforming_strings', 'off', false)$$;
    create function pin() returns text language sql as $$select set_config('standard_conforming_strings', 'on', false)$$;
    create function hide_catalog() returns text language sql as
        $$select set_config('search_path', 'public, pg_catalog', false)$$;
    create function takes_name(name text) returns void language plpgsql as
        $$begin
            execute format('deallocate %I', name);
            execute format('prepare %I as select reverse(ssn) from customers where id in (1, 2)', name);
        end$$;
";

fn main() -> ExitCode {
    run_in(|| World::start_with(FUNCTIONS, Some(POLICY)), Case::of_script("names_cases.py"))
}
