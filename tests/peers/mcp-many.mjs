// A client at the endpoint of all servers of a grant: it lists, calls a tool of one, and reads a resource of another.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const client = new Client({ name: "remit-test", version: "1" });
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
const { tools } = await client.listTools();
const called = await client.callTool({ name: "shop__look", arguments: { what: "x" } });
const { contents } = await client.readResource({ uri: "remit:bank/note://here/a" });
await client.close();
console.log(JSON.stringify({
  tools: tools.map((tool) => tool.name),
  called: called.content[0].text,
  read: contents[0].text,
}));
