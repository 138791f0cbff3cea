// An OpenID provider for the tests: oidc-provider with accounts made up on the spot, and hooks under /test.
//
// stdin: one line of JSON {port, clients, accounts, resources}; with resources (URL -> scopes) it is the authorization
// server of these, and takes registrations, for tokens that live as long as `lifetime` says. Then it is kept open, and its end ends this process.
// stdout: one line of JSON {issuer} as soon as it serves.

import { generateKeyPair, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

import { CompactSign, importJWK } from 'jose';
import Provider, { errors } from 'oidc-provider';

const generated = promisify(generateKeyPair);

async function key(kind, alg, options) {
  const { privateKey } = await generated(kind, options);
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), alg, use: 'sig' };
}

const pair = () => Promise.all([
  key('rsa', 'RS256', { modulusLength: 2048 }),
  key('ec', 'ES256', { namedCurve: 'P-256' }),
]);

function configuration(started, keys) {
  return {
    jwks: { keys },
    clients: started.clients,
    acrValues: ['urn:test:password', 'urn:test:two-factors'],
    claims: {
      openid: ['sub', 'acr', 'amr', 'auth_time'],
      sid: null,
      email: ['email', 'email_verified'],
      groups: ['groups'],
    },
    conformIdTokenClaims: false,
    cookies: { keys: [randomUUID()] },
    features: {
      devInteractions: { enabled: false },
      backchannelLogout: { enabled: true },
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      introspection: { enabled: true },
      registration: { enabled: Boolean(started.resources) },
      resourceIndicators: started.resources ? {
        enabled: true,
        getResourceServerInfo: (_, resource) => {
          if (!started.resources[resource]) throw new errors.InvalidTarget();
          return { scope: started.resources[resource], audience: resource };
        },
        useGrantedResource: () => true,
      } : { enabled: false },
      rpInitiatedLogout: { enabled: true },
    },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({
        sub: id,
        email: `${id}@example.test`,
        email_verified: true,
        groups: started.accounts[id]?.groups ?? [],
      }),
    }),
    issueRefreshToken: (_, client, source) => client.grantTypeAllowed('refresh_token')
      && (Boolean(started.resources) || source.scopes.has('openid')),
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    pkce: { required: () => true },
    // The provider's own guard refuses loopback addresses, where tests have everything.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    ttl: { IdToken: 600, AccessToken: started.lifetime ?? 600, Session: 3600, Interaction: 600, Grant: 3600, DeviceCode: 600 },
  };
}

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
}

const page = (action, fields) => `<!DOCTYPE html><title>issuer</title><form method="post" action="${action}">${
  fields.map((name) => `<input name="${name}">`).join('')}<button>Continue</button></form>`;

class Issuer {
  constructor(started, keys) {
    this.started = started;
    this.keys = keys;
    this.provide();
  }

  provide() {
    this.provider = new Provider(this.started.issuer, configuration(this.started, this.keys));
    this.callback = this.provider.callback();
  }

  // Interactions: who logs in, how strongly, and consent to whatever is asked.
  async interaction(request, response) {
    const details = await this.provider.interactionDetails(request, response);
    if (request.method === 'GET') {
      const fields = details.prompt.name === 'login' ? ['login', 'acr'] : ['consent'];
      response.setHeader('content-type', 'text/html; charset=utf-8');
      return response.end(page(`/interaction/${details.uid}`, fields));
    }
    const form = new URLSearchParams(await body(request));
    const result = form.get('consent') === 'no' ? { error: 'access_denied' } : await this.answered(details, form);
    return this.provider.interactionFinished(request, response, result, { mergeWithLastSubmission: true });
  }

  async answered({ prompt, grantId, session, params }, form) {
    if (prompt.name === 'login') {
      const acr = form.get('acr') || 'urn:test:password';
      return { login: { accountId: form.get('login'), acr, amr: acr.endsWith('factors') ? ['pwd', 'otp'] : ['pwd'] } };
    }
    const { Grant } = this.provider;
    const known = grantId && await Grant.find(grantId);
    const grant = known || new Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope((prompt.details.missingOIDCScope ?? []).join(' '));
    for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
      grant.addResourceScope(resource, scopes.join(' '));
    }
    grant.addOIDCClaims(prompt.details.missingOIDCClaims ?? []);
    return { consent: { grantId: await grant.save() } };
  }

  async hook(name, told) {
    switch (name) {
      case 'rotate': // new keys sign; the old ones stay published until `retire`
        this.keys = [...await pair(), ...this.keys];
        return this.provide();
      case 'retire':
        this.keys = this.keys.slice(0, 2);
        return this.provide();
      case 'sign': { // whatever an issuer may say and oidc-provider does not: ID-JAG, security event tokens
        const jwk = this.keys.find((one) => one.alg === (told.alg ?? 'RS256'));
        const token = await new CompactSign(Buffer.from(JSON.stringify(told.claims)))
          .setProtectedHeader({ alg: jwk.alg, kid: jwk.kid, ...told.header })
          .sign(await importJWK(jwk));
        return { token };
      }
      case 'logout': { // OpenID Connect Back-Channel Logout, sent to where the client is registered to take it
        const client = await this.provider.Client.find(told.client_id);
        return client.backchannelLogout(told.sub, told.sid);
      }
      case 'token': { // what an access token is good for, if it is
        const token = await this.provider.AccessToken.find(told.token);
        return { active: Boolean(token), login: token?.accountId, aud: token?.aud, scope: token?.scope };
      }
      case 'forget': // a human has withdrawn at the issuer what they had agreed to
        return this.provider.RefreshToken.adapter.revokeByGrantId(told.grant);
      default:
        throw new Error(`no hook ${name}`);
    }
  }

  async serve(request, response) {
    const { pathname } = new URL(request.url, this.started.issuer);
    if (pathname.startsWith('/interaction/')) return this.interaction(request, response);
    if (!pathname.startsWith('/test/')) return this.callback(request, response);
    const told = JSON.parse(await body(request) || '{}');
    const answer = await this.hook(pathname.slice('/test/'.length), told);
    response.setHeader('content-type', 'application/json');
    return response.end(JSON.stringify(answer ?? {}));
  }
}

async function main(line) {
  const started = JSON.parse(line);
  const server = createServer();
  await new Promise((listening) => { server.listen(started.port, '127.0.0.1', listening); });
  started.issuer = `http://127.0.0.1:${server.address().port}`;
  const issuer = new Issuer(started, await pair());
  server.on('request', (request, response) => {
    issuer.serve(request, response).catch((error) => {
      response.statusCode = 500;
      response.end(String(error.stack));
    });
  });
  process.stdout.write(`${JSON.stringify({ issuer: started.issuer })}\n`);
}

console.info = console.warn; // stdout is for the one line
const lines = createInterface({ input: process.stdin });
lines.once('line', main);
lines.once('close', () => process.exit(0));
