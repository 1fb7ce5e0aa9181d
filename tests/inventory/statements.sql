-- For test_statements.py.

-- name: make
-- two(n): low and what follows it; the regular expression holds a dollar sign.
create or replace table {table} (n integer);
insert into {table} select n from (values ($low), ($low + 1), (null)) x (n) where regexp_matches(n::varchar, '^[0-9]+$')

-- name: read
select {column} from {table} order by n
