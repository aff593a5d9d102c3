-- One value of each type that a driver may read in binary.
select 1::int2 as a, -2::int4 as b, 9007199254740993::int8 as c, 1.5::float4 as d, -2.25::float8 as e, 123456.789::numeric as f,
       'NaN'::numeric as g, true as h, 'text ü'::text as i, 'v'::varchar as j, 'c'::char(3) as k, '\x00ff'::bytea as l,
       date '2026-02-03' as m, time '04:05:06.7' as n, timestamp '2026-02-03 04:05:06.789' as o,
       timestamptz '2026-02-03 04:05:06.789+02' as p, interval '1 day 02:03:04' as q, 'd9428888-122b-11e1-b85c-61cd3cbb3210'::uuid as r,
       '{"a": [1, 2]}'::json as s, '{"a": [1, 2]}'::jsonb as t, array[1, null, 3] as u, array['a', 'b "c"'] as v,
       '10.0.0.0/8'::cidr as w, '10.0.0.1'::inet as x, int4range(1, 5) as y, null::int as z
