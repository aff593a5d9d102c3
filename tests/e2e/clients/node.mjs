// node-postgres with its cursors, streams and COPY. Its modules are where the argument says.

import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';

const require = createRequire(`${process.argv[2]}/`);
const pg = require('pg');
const Cursor = require('pg-cursor');
const QueryStream = require('pg-query-stream');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');

const { CLIENT_SCHEMA: schema, CLIENT_MAKE: make, CLIENT_VALUES: values } = process.env;
const tls = process.env.PGSSLMODE === 'disable' ? false : { ca: readFileSync(process.env.PGSSLROOTCERT), servername: 'localhost' };

function config(more) {
    const { PGUSER: user, PGPASSWORD: password, PGDATABASE: database, PGPORT: port } = process.env;
    return { host: '127.0.0.1', port: Number(port), user, password, database, ssl: tls, options: `-c search_path=${schema},public`, ...more };
}

async function connect(more) {
    const client = new pg.Client(config(more));
    await client.connect();
    return client;
}

async function refusal(promise) {
    try {
        await promise;
    } catch (error) {
        const { code, message, detail, hint, position, table, constraint } = error;
        return code ? { code, message, detail, hint, position, table, constraint } : `FAILED ${error}`;
    }
    return 'FAILED nothing was refused';
}

const cases = {
    async introspection__the_catalogue_and_the_standard_views_are_read(client) {
        await client.query(readFileSync(make, 'utf8'));
        const columns = `select table_name, column_name, data_type, udt_name, is_nullable, column_default
            from information_schema.columns where table_schema = $1 order by table_name, ordinal_position`;
        const constraints = `select conname, contype, pg_get_constraintdef(c.oid) from pg_constraint c join pg_namespace n on n.oid = connamespace
            where nspname = $1 order by 1`;
        const indexes = 'select indexname, indexdef from pg_indexes where schemaname = $1 order by 1';
        return Promise.all([columns, constraints, indexes].map(async text => (await client.query(text, [schema])).rows));
    },
    async prepared__named_statements_run_again(client) {
        const seen = [];
        for (let id = 1; id < 20; id++) {
            const query = { name: 'pet', text: 'select name, weight, extra, seen from pet where id = $1', values: [id], rowMode: 'array' };
            seen.push((await client.query(query)).rows);
        }
        return [seen, (await client.query('select count(*)::int n from pg_prepared_statements')).rows];
    },
    async binary__values_in_both_formats() {
        const seen = [];
        for (const binary of [false, true]) {
            const client = await connect({ binary });
            const result = await client.query({ text: readFileSync(values, 'utf8'), rowMode: 'array' });
            seen.push(result.rows, result.fields.map(field => [field.name, field.dataTypeID, field.format]));
            seen.push((await client.query('select $1::bytea b, $2::int[] a, $3::jsonb j', [Buffer.from([0, 255]), [1, 2], { x: null }])).rows);
            await client.end();
        }
        return seen;
    },
    async copy__copies_go_in_and_out(client) {
        await client.query('create temp table copied (n int, t text, b bytea)');
        const seen = [];
        for (const format of ['text', 'csv', 'binary']) {
            const parts = [];
            for await (const part of client.query(copyTo(`copy pet (legs, name, photo) to stdout (format ${format})`))) parts.push(part);
            const data = Buffer.concat(parts);
            await client.query('truncate copied');
            await pipeline(Readable.from([data.subarray(0, 1000), data.subarray(1000)]), client.query(copyFrom(`copy copied from stdin (format ${format})`)));
            seen.push(data.length, (await client.query("select count(*), sum(n), md5(string_agg(b, '' order by t)) from copied")).rows);
        }
        seen.push(await refusal(pipeline(Readable.from(['x\n']), client.query(copyFrom('copy owner (id) from stdin')))));
        return [seen, (await client.query("select 'goes on'")).rows];
    },
    async cancel__a_statement_is_cancelled(client) {
        const query = new pg.Query('select pg_sleep(30)');
        const refused = refusal(new Promise((resolve, reject) => {
            query.on('error', reject);
            query.on('end', resolve);
        }));
        client.query(query);
        setTimeout(() => new pg.Client(config()).cancel(client, query), 300);
        return [await refused, (await client.query("select 'goes on'")).rows];
    },
    async notify__a_notification_arrives(client) {
        const rings = await connect();
        const heard = new Promise(resolve => client.once('notification', ({ channel, payload }) => resolve({ channel, payload })));
        await client.query(`listen ${schema}_bell`);
        await rings.query(`notify ${schema}_bell, 'ring'`);
        await rings.end();
        return heard;
    },
    async large_objects__by_sql(client) {
        const oid = (await client.query("select lo_from_bytea(0, $1) oid", [Buffer.alloc(5000, 'x')])).rows[0].oid;
        const read = (await client.query('select length(lo_get($1)) n, lo_get($1, 10, 3) part', [oid])).rows;
        return [read, (await client.query('select lo_unlink($1)', [oid])).rows];
    },
    async cursors__cursors_and_streams(client) {
        const cursor = client.query(new Cursor('select n from generate_series(1, 1000) n'));
        const seen = [(await cursor.read(3)).map(row => row.n), (await cursor.read(500)).length];
        await cursor.close();
        let sum = 0;
        for await (const row of client.query(new QueryStream('select n from generate_series(1, 3000) n', [], { batchSize: 70 }))) sum += row.n;
        return [seen, sum];
    },
    async pipeline__queries_wait_in_line(client) {
        const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => client.query('select $1::int * 2 as n', [n])));
        const two = await client.query('select 1 as a; select 2 as b');
        return [answers.map(answer => answer.rows[0].n), two.map(answer => answer.rows)];
    },
    async transactions__a_pool_and_a_rollback() {
        const pool = new pg.Pool(config({ max: 4 }));
        const sums = await Promise.all(Array.from({ length: 100 }, (_, n) => pool.query('select $1::int as n', [n])));
        const client = await pool.connect();
        await client.query('begin');
        await client.query("insert into owner (name) values ('node')");
        const failed = await refusal(client.query('select 1 / 0'));
        const aborted = await refusal(client.query('select 1'));
        await client.query('rollback');
        const left = (await client.query("select count(*)::int n from owner where name = 'node'")).rows;
        client.release();
        await pool.end();
        return [sums.reduce((sum, answer) => sum + answer.rows[0].n, 0), failed, aborted, left];
    },
    async errors__errors_and_notices(client) {
        const seen = [];
        for (const text of ['select * from nowhere', 'select 1 / 0', 'selec 1', "insert into owner (name) values ('owner 1')", "select twice('x')"])
            seen.push(await refusal(client.query(text)));
        client.once('notice', notice => seen.push(notice.severity, notice.code, notice.message));
        await client.query("do $$ begin raise warning 'two'; end $$");
        return seen;
    },
};

for (const [name, run] of Object.entries(cases)) {
    const [capability, what] = name.split('__');
    const client = await connect();
    let outcome;
    try {
        outcome = JSON.stringify(await run(client));
    } catch (error) {
        outcome = `FAILED ${error.code} ${error.message}`.replaceAll('\n', ' ');
    }
    await client.end();
    console.log(`${capability.replace('_', ' ')}\t${what}\t${outcome}`);
}
