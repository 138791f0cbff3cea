// A client that registers itself, and services that are shown its tokens: openid-client and jose, as they are published.

import { createRemoteJWKSet, jwtVerify } from 'jose';
import * as client from 'openid-client';

import { human, run } from './talk.mjs';

const OAUTH = { algorithm: 'oauth2' };

// RFC 7591, code with PKCE and DPoP, then a token for each of the services, by the refresh token.
async function asked(told) {
  const about = { client_name: told.name, redirect_uris: [told.redirect], token_endpoint_auth_method: 'none' };
  const config = await client.dynamicClientRegistration(new URL(told.issuer), about, client.None(), OAUTH);
  const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'));
  const pkceCodeVerifier = client.randomPKCECodeVerifier();
  const expectedState = client.randomState();
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: told.redirect,
    state: expectedState,
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
    ...told.asked,
  });
  const { back } = await human({ visit: url.href });
  const checks = { pkceCodeVerifier, expectedState };
  let tokens = await client.authorizationCodeGrant(config, new URL(back), checks, undefined, { DPoP });
  const found = {};
  for (const resource of told.resources) {
    tokens = await client.refreshTokenGrant(config, tokens.refresh_token, { resource }, { DPoP });
    found[resource] = tokens.access_token;
  }
  const { client_id: id } = config.clientMetadata();
  return { id, tokens: found, refresh: tokens.refresh_token };
}

async function revoked(told) {
  const config = await client.discovery(new URL(told.issuer), told.client, undefined, client.None(), OAUTH);
  await client.tokenRevocation(config, told.token);
  return {};
}

// A service that introspects by its own key (RFC 7523 §2.2).
async function introspected(told) {
  const alg = { name: 'ECDSA', namedCurve: 'P-256' };
  const key = await crypto.subtle.importKey('jwk', told.key, alg, false, ['sign']);
  const auth = client.PrivateKeyJwt({ key, kid: told.key.kid });
  const config = await client.discovery(new URL(told.issuer), told.client, undefined, auth, OAUTH);
  return Promise.all(told.tokens.map((token) => client.tokenIntrospection(config, token)));
}

// A service that verifies: what each of its expectations says of each token.
async function verified(told) {
  const config = await client.discovery(new URL(told.issuer), 'nobody', undefined, client.None(), OAUTH);
  const keys = createRemoteJWKSet(new URL(config.serverMetadata().jwks_uri));
  const verdict = async ({ token, audience, alg }) => {
    try {
      const wanted = { issuer: told.issuer, audience, typ: 'at+jwt', algorithms: [alg] };
      return (await jwtVerify(token, keys, wanted)).payload;
    } catch (error) {
      return error.code;
    }
  };
  return Promise.all(told.expected.map(verdict));
}

run({ asked, introspected, revoked, verified });
