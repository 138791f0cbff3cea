// An agent in a run whose MCP client is that of TypeScript: it starts `remit mcp serve`, looks, delegates and revokes.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const client = new Client({ name: "remit-test", version: "1" });
await client.connect(new StdioClientTransport({ command: process.argv[2], args: ["mcp", "serve"] }));
const { tools } = await client.listTools();
const call = async (name, args) => (await client.callTool({ name, arguments: args })).structuredContent;
const made = await call("delegate", { label: "reader", grants: [{ resource: "search" }] });
const own = await call("my_authority", {});
const refused = await call("revoke_child", { grant: own.grant });
const ended = await call("revoke_child", { grant: made.grant });
await client.close();
console.log(JSON.stringify({
  tools: tools.map((tool) => tool.name),
  child: made.grant,
  children: own.children.map((child) => child.grant),
  refused: refused.error.code,
  revoked: ended.revoked,
}));
