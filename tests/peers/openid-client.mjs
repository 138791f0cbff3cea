// The flows of a broker, as openid-client has them: the library as it is published, with its documented options alone.

import * as client from 'openid-client';

import { human, run } from './talk.mjs';

async function begun(told, auth) {
  auth ??= told.key ? client.PrivateKeyJwt(await own(told.key)) : client.None();
  const config = await client.discovery(new URL(told.issuer), told.client, undefined, auth, {
    algorithm: 'oauth2',
    execute: [client.allowInsecureRequests], // the issuer of the tests is at a loopback address, without TLS
  });
  const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'));
  return { config, DPoP };
}

// The client's own key (RFC 7523 §2.2), as the library wants it.
const own = async (jwk) => ({
  key: await crypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']),
  kid: jwk.kid,
});

async function code(told) {
  const { config, DPoP } = await begun(told);
  const pkceCodeVerifier = client.randomPKCECodeVerifier();
  const expectedState = client.randomState();
  const parameters = {
    redirect_uri: told.redirect,
    state: expectedState,
    code_challenge: await client.calculatePKCECodeChallenge(pkceCodeVerifier),
    code_challenge_method: 'S256',
    ...told.asked,
  };
  const url = told.push
    ? await client.buildAuthorizationUrlWithPAR(config, parameters, { DPoP })
    : client.buildAuthorizationUrl(config, parameters);
  const { back } = await human({ visit: url.href });
  const checks = { pkceCodeVerifier, expectedState };
  const tokens = await client.authorizationCodeGrant(config, new URL(back), checks, undefined, { DPoP });
  const again = await client.refreshTokenGrant(config, tokens.refresh_token, undefined, { DPoP });
  const active = await introspected(config, DPoP, again.access_token);
  const before = await used(config, DPoP, again.access_token, told.resource);
  await client.tokenRevocation(config, again.refresh_token);
  const after = await used(config, DPoP, again.access_token, told.resource);
  return { tokens, again, active, before, after };
}

// RFC 7662 §2.1: the endpoint takes an access token of its own as authorization, and here the very token.
async function introspected(config, DPoP, token) {
  const headers = new Headers({ 'content-type': 'application/x-www-form-urlencoded' });
  const endpoint = new URL(config.serverMetadata().introspection_endpoint);
  const body = new URLSearchParams({ token });
  return (await client.fetchProtectedResource(config, token, endpoint, 'POST', body, headers, { DPoP })).json();
}

async function used(config, DPoP, token, url) {
  try {
    const none = undefined;
    return (await client.fetchProtectedResource(config, token, new URL(url), 'GET', none, none, { DPoP })).status;
  } catch (error) {
    if (error.cause?.status === undefined && error.status === undefined) throw error;
    return error.status ?? error.cause.status;
  }
}

// As `docs/how-to/connect-an-oauth-client.md` has it, on from the token.
async function lease(told) {
  const { config, DPoP } = await begun(told);
  const codes = await client.initiateDeviceAuthorization(config, told.asked);
  await human({ enter: codes.verification_uri, code: codes.user_code });
  const tokens = await client.pollDeviceAuthorizationGrant(config, codes, undefined, { DPoP });
  const answer = await client.fetchProtectedResource(
    config, tokens.access_token, new URL(`${told.issuer}/v1/tasks/${tokens.task}/leases`), 'POST',
    JSON.stringify({ grant: tokens.grant, detail: tokens.authorization_details[0] }),
    new Headers({ 'content-type': 'application/json' }), { DPoP },
  );
  return answer.json();
}

async function device(told) {
  const { config, DPoP } = await begun(told);
  const codes = await client.initiateDeviceAuthorization(config, told.asked);
  await human({ enter: codes.verification_uri, code: codes.user_code });
  return { tokens: await client.pollDeviceAuthorizationGrant(config, codes, undefined, { DPoP }) };
}

async function backchannel(told) {
  const { config, DPoP } = await begun(told, platform(told.token));
  const asked = await client.initiateBackchannelAuthentication(config, told.asked);
  await human({ open: asked.verification_uri });
  return { tokens: await client.pollBackchannelAuthenticationGrant(config, asked, undefined, { DPoP }) };
}

// As a CIBA client has it: a key of its own, names alone in `scope`, and no proof; the page is where its human is told to look.
async function ciba(told) {
  const { config } = await begun(told);
  const asked = await client.initiateBackchannelAuthentication(config, told.asked);
  await human({ open: asked.verification_uri });
  const tokens = await client.pollBackchannelAuthenticationGrant(config, asked);
  return { asked, first: tokens, again: await client.refreshTokenGrant(config, tokens.refresh_token) };
}

// A workload by the token of its platform (RFC 7523), as the library lets its callers authenticate a client.
const platform = (token) => (as, registered, body) => {
  body.set('client_assertion', token);
  body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer');
};

async function credentials(told) {
  const { config, DPoP } = await begun(told, platform(told.token));
  const tokens = await client.clientCredentialsGrant(config, told.asked, { DPoP });
  // RFC 8693: the token renews itself
  const again = await client.genericGrantRequest(config, 'urn:ietf:params:oauth:grant-type:token-exchange', {
    subject_token: tokens.access_token,
    subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
  }, { DPoP });
  return { tokens, again, active: await introspected(config, DPoP, again.access_token) };
}

run({ code, credentials, device, backchannel, ciba, lease });
