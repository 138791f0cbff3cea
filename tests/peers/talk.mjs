// How a client script talks to the test that runs it: one JSON document a line, questions on stdout, answers on stdin.

import { createInterface } from 'node:readline';

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

export async function hear() {
  const { value, done } = await lines.next();
  if (done) throw new Error('the test went away');
  return JSON.parse(value);
}

export function say(told) {
  process.stdout.write(`${JSON.stringify(told)}\n`);
}

// Ask the test's human to do something in a browser; return what comes back.
export async function human(told) {
  say(told);
  return hear();
}

// Run a script's one flow, and say how it ended.
export async function run(flows) {
  const told = await hear();
  try {
    say({ done: await flows[told.flow](told) });
  } catch (error) {
    say({ failed: `${error.code ?? error.name}: ${error.message}`, error: error.error ?? error.cause?.error ?? null });
  }
  process.exit(0);
}
