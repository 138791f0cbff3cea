// The MCP clients of TypeScript as they are published, at a server behind the gateway: one is refused, finds out where tokens
// come from, sends its human there, and goes on with what it got. It knows no details; of the two, v2 can make proofs.

import { human, run } from './talk.mjs';

const SDKS = {
  async v1() {
    const parts = ['client/index.js', 'client/streamableHttp.js', 'client/auth.js'];
    return Object.assign({}, ...(await Promise.all(parts.map((part) => import(`@modelcontextprotocol/sdk/${part}`)))));
  },
  v2: () => import('@modelcontextprotocol/client'),
};

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
    return this.told.registers ? this.kept.client : { client_id: this.told.client };
  }
  saveClientInformation(client) {
    this.kept.client = client;
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
    const sdk = await SDKS[told.sdk ?? 'v1']();
    const provider = new Provider(told);
    if (told.proofs) {
      const session = sdk.DpopSession.create();
      provider.dpop = () => session;
    }
    const connected = async () => {
      const client = new sdk.Client({ name: 'remit-test', version: '1' });
      const transport = new sdk.StreamableHTTPClientTransport(new URL(told.server), { authProvider: provider });
      try {
        await client.connect(transport);
      } catch (error) {
        if (!(error instanceof sdk.UnauthorizedError)) throw error;
        const answer = new URL(provider.kept.back).searchParams;
        if (!answer.get('code')) throw new Error(answer.get('error_description'));
        await transport.finishAuth(told.sdk === 'v2' ? answer : answer.get('code'));
        return connected();
      }
      return client;
    };
    const client = await connected();
    const { tools } = await client.listTools();
    const said = await client.callTool({ name: 'add', arguments: { a: 2, b: 3 } });
    provider.kept.tokens = { ...provider.kept.tokens, access_token: 'stale' }; // so that it refreshes at a 401
    const again = await client.callTool({ name: 'add', arguments: { a: 3, b: 4 } });
    const refused = await client.callTool({ name: 'wipe', arguments: { what: 'all' } }).catch((error) => String(error));
    await client.close();
    const answers = [said, again].map((one) => one.content[0].text);
    return { tools: tools.map((tool) => tool.name), said: answers, refused, tokens: provider.kept.tokens };
  },
});
