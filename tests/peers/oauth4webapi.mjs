// The flows of a broker, as oauth4webapi has them: the library as it is published, with its documented options alone.

import * as oauth from 'oauth4webapi';

import { human, run } from './talk.mjs';

const local = { [oauth.allowInsecureRequests]: true }; // the issuer of the tests is at a loopback address, without TLS

async function begun(told) {
  const issuer = new URL(told.issuer);
  const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...local });
  const as = await oauth.processDiscoveryResponse(issuer, found);
  const client = { client_id: told.client };
  const DPoP = oauth.DPoP(client, await oauth.generateKeyPair('ES256', { extractable: true }));
  return { as, client, auth: told.key ? oauth.PrivateKeyJwt(await own(told.key)) : oauth.None(), DPoP };
}

// The client's own key (RFC 7523 §2.2), as the library wants it.
const own = async (jwk) => ({
  key: await crypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']),
  kid: jwk.kid,
});

// Once more where the server wants a proof with its nonce (RFC 9449 §8).
async function twice(ask) {
  try {
    return await ask();
  } catch (error) {
    if (!oauth.isDPoPNonceError(error)) throw error;
    return ask();
  }
}

async function codeFlow(told) {
  const { as, client, auth, DPoP } = await begun(told);
  const verifier = oauth.generateRandomCodeVerifier();
  const state = oauth.generateRandomState();
  const parameters = new URLSearchParams({
    response_type: 'code',
    redirect_uri: told.redirect,
    state,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    ...told.asked,
  });
  const url = new URL(as.authorization_endpoint);
  url.searchParams.set('client_id', client.client_id);
  if (told.push) {
    const pushed = await twice(async () => oauth.processPushedAuthorizationResponse(
      as, client, await oauth.pushedAuthorizationRequest(as, client, auth, parameters, { DPoP, ...local }),
    ));
    url.searchParams.set('request_uri', pushed.request_uri);
  } else {
    for (const [name, value] of parameters) url.searchParams.set(name, value);
  }
  const { back } = await human({ visit: url.href });
  const answer = oauth.validateAuthResponse(as, client, new URL(back), state);
  const tokens = await twice(async () => oauth.processAuthorizationCodeResponse(
    as, client,
    await oauth.authorizationCodeGrantRequest(
      as, client, auth, answer, told.redirect, verifier, { DPoP, ...local },
    ),
  ));
  return { as, client, auth, DPoP, tokens };
}

async function refreshed({ as, client, auth, DPoP }, token) {
  return twice(async () => oauth.processRefreshTokenResponse(
    as, client, await oauth.refreshTokenGrantRequest(as, client, auth, token, { DPoP, ...local }),
  ));
}

// RFC 7662 §2.1: the endpoint takes an access token of its own as authorization, and here the very token.
async function introspected({ as, client, DPoP }, token) {
  const headers = new Headers({ 'content-type': 'application/x-www-form-urlencoded' });
  const answer = await twice(() => oauth.protectedResourceRequest(
    token, 'POST', new URL(as.introspection_endpoint), headers, new URLSearchParams({ token }), { DPoP, ...local },
  ));
  return oauth.processIntrospectionResponse(as, client, answer);
}

async function used({ DPoP }, token, url) {
  try {
    return (await twice(() => oauth.protectedResourceRequest(
      token, 'GET', new URL(url), undefined, undefined, { DPoP, ...local },
    ))).status;
  } catch (error) {
    if (error instanceof oauth.WWWAuthenticateChallengeError) return error.status;
    throw error;
  }
}

async function code(told) {
  const found = await codeFlow(told);
  const { as, client, auth, tokens } = found;
  const again = await refreshed(found, tokens.refresh_token);
  const active = await introspected(found, again.access_token);
  const before = await used(found, again.access_token, told.resource);
  await oauth.processRevocationResponse(
    await oauth.revocationRequest(as, client, auth, again.refresh_token, local),
  );
  const after = await used(found, again.access_token, told.resource);
  return { tokens, again, active, before, after };
}

// A refresh token is used after its answer was, as by a thief.
async function stolen(told) {
  const found = await codeFlow(told);
  let refused;
  try {
    await refreshed(found, found.tokens.refresh_token);
    const next = await refreshed(found, found.tokens.refresh_token); // as one whose answer was lost
    await refreshed(found, next.refresh_token);
    await refreshed(found, found.tokens.refresh_token);
  } catch (error) {
    refused = error.error;
  }
  return { refused, after: await used(found, found.tokens.access_token, told.resource) };
}

async function polled(interval, ask) {
  for (;;) {
    await new Promise((resolve) => { setTimeout(resolve, interval * 1000); });
    try {
      return await twice(ask);
    } catch (error) {
      if (error.error === 'slow_down') interval += 5;
      else if (error.error !== 'authorization_pending') throw error;
    }
  }
}

async function device(told) {
  const { as, client, auth, DPoP } = await begun(told);
  const codes = await oauth.processDeviceAuthorizationResponse(
    as, client, await oauth.deviceAuthorizationRequest(as, client, auth, new URLSearchParams(told.asked), local),
  );
  await human({ enter: codes.verification_uri, code: codes.user_code });
  const tokens = await polled(codes.interval, async () => oauth.processDeviceCodeResponse(
    as, client, await oauth.deviceCodeGrantRequest(as, client, auth, codes.device_code, { DPoP, ...local }),
  ));
  return { tokens };
}

async function backchannel(told) {
  const { as, client, DPoP } = await begun(told);
  const auth = platform(told.token);
  const asked = await oauth.processBackchannelAuthenticationResponse(
    as, client,
    await oauth.backchannelAuthenticationRequest(as, client, auth, new URLSearchParams(told.asked), local),
  );
  await human({ open: asked.verification_uri });
  const tokens = await polled(asked.interval, async () => oauth.processBackchannelAuthenticationGrantResponse(
    as, client,
    await oauth.backchannelAuthenticationGrantRequest(as, client, auth, asked.auth_req_id, { DPoP, ...local }),
  ));
  return { tokens };
}

// A workload by the token of its platform (RFC 7523), as the library lets its callers authenticate a client.
const platform = (token) => (as, client, body) => {
  body.set('client_assertion', token);
  body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer');
};

async function credentials(told) {
  const { as, client, DPoP } = await begun(told);
  const auth = platform(told.token);
  const tokens = await twice(async () => oauth.processClientCredentialsResponse(
    as, client,
    await oauth.clientCredentialsGrantRequest(as, client, auth, new URLSearchParams(told.asked), { DPoP, ...local }),
  ));
  // RFC 8693: the token renews itself
  const form = new URLSearchParams({
    subject_token: tokens.access_token,
    subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
  });
  const again = await twice(async () => oauth.processGenericTokenEndpointResponse(
    as, client,
    await oauth.genericTokenEndpointRequest(
      as, client, auth, 'urn:ietf:params:oauth:grant-type:token-exchange', form, { DPoP, ...local },
    ),
  ));
  return { tokens, again, active: await introspected({ as, client, DPoP }, again.access_token) };
}

run({ code, stolen, credentials, device, backchannel });
