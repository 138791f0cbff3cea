// The driver `pg` with a connection string, as it is published.
//
// stdin: a connection string. stdout: the first value of the query that is named by the one argument.

import { text } from 'node:stream/consumers';

import pg from 'pg';

const client = new pg.Client({ connectionString: await text(process.stdin) });
await client.connect();
const { rows } = await client.query({ text: process.argv[2], rowMode: 'array' });
console.log(rows[0][0]);
await client.end();
