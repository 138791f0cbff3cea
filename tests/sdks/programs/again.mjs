// Runs a program, and once more without the variables that are named; then waits, so that it can be looked at.
import { pathToFileURL } from "node:url";

const [program, ...variables] = process.argv.slice(2);
await import(pathToFileURL(program));
for (const name of variables) delete process.env[name];
if (variables.length) await import(`${pathToFileURL(program)}?again`);
console.log("done");
process.stdin.resume();
