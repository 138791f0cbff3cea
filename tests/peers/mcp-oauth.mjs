// The MCP client of TypeScript as it is published, at a server behind the gateway: it is refused, finds out where tokens come
// from, sends its human there, and goes on with what it got. It knows no details and makes no proofs.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';

import { human, run } from './talk.mjs';

class Provider {
  constructor(told) {
    this.told = told;
    this.kept = {};
  }
  get redirectUrl() {
    return this.told.redirect;
  }
  get clientMetadata() {
    return { client_name: 'Tool User', redirect_uris: [this.told.redirect], token_endpoint_auth_method: 'none' };
  }
  clientInformation() {
    return { client_id: this.told.client };
  }
  tokens() {
    return this.kept.tokens;
  }
  saveTokens(tokens) {
    this.kept.tokens = tokens;
  }
  saveCodeVerifier(verifier) {
    this.kept.verifier = verifier;
  }
  codeVerifier() {
    return this.kept.verifier;
  }
  async redirectToAuthorization(url) {
    this.kept.back = (await human({ visit: url.href })).back;
  }
}

run({
  async tools(told) {
    const provider = new Provider(told);
    const connected = async () => {
      const client = new Client({ name: 'remit-test', version: '1' });
      const transport = new StreamableHTTPClientTransport(new URL(told.server), { authProvider: provider });
      try {
        await client.connect(transport);
      } catch (error) {
        if (!(error instanceof UnauthorizedError)) throw error;
        const answer = new URL(provider.kept.back).searchParams;
        if (!answer.get('code')) throw new Error(answer.get('error_description'));
        await transport.finishAuth(answer.get('code'));
        return connected();
      }
      return client;
    };
    const client = await connected();
    const { tools } = await client.listTools();
    const said = await client.callTool({ name: 'add', arguments: { a: 2, b: 3 } });
    provider.kept.tokens = { ...provider.kept.tokens, access_token: 'stale' }; // so that it refreshes at a 401
    const again = await client.callTool({ name: 'add', arguments: { a: 3, b: 4 } });
    await client.close();
    return { tools: tools.map((tool) => tool.name), said: [said.content[0].text, again.content[0].text], tokens: provider.kept.tokens };
  },
});
