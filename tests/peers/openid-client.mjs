// The flows of a broker, as openid-client has them: the library as it is published, with its documented options alone.

import * as client from 'openid-client';

import { human, run } from './talk.mjs';

async function begun(told) {
  const config = await client.discovery(new URL(told.issuer), told.client, undefined, client.None(), {
    algorithm: 'oauth2',
    execute: [client.allowInsecureRequests], // the issuer of the tests is at a loopback address, without TLS
  });
  const DPoP = client.getDPoPHandle(config, await client.randomDPoPKeyPair('ES256'));
  return { config, DPoP };
}

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
  const headers = new Headers({ 'content-type': 'application/x-www-form-urlencoded' });
  const endpoint = new URL(config.serverMetadata().introspection_endpoint);
  const active = await (await client.fetchProtectedResource(
    config, again.access_token, endpoint, 'POST', new URLSearchParams({ token: again.access_token }), headers, { DPoP },
  )).json();
  const before = await used(config, DPoP, again.access_token, told.resource);
  await client.tokenRevocation(config, again.refresh_token);
  const after = await used(config, DPoP, again.access_token, told.resource);
  return { tokens, again, active, before, after };
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

async function device(told) {
  const { config, DPoP } = await begun(told);
  const codes = await client.initiateDeviceAuthorization(config, told.asked);
  await human({ enter: codes.verification_uri, code: codes.user_code });
  return { tokens: await client.pollDeviceAuthorizationGrant(config, codes, undefined, { DPoP }) };
}

async function backchannel(told) {
  const { config, DPoP } = await begun(told);
  const asked = await client.initiateBackchannelAuthentication(config, told.asked);
  await human({ open: asked.verification_uri });
  return { tokens: await client.pollBackchannelAuthenticationGrant(config, asked, undefined, { DPoP }) };
}

run({ code, device, backchannel });
