// OAuth clients as most programs have them: they send `scope`, and make no proofs. Each goes through the code flow and refreshes.

import { createHash, randomBytes } from 'node:crypto';

import { OAuth2Client } from '@badgateway/oauth2-client';
import ClientOAuth2 from 'client-oauth2';
import { OidcClient, WebStorageStateStore, InMemoryWebStorage } from 'oidc-client-ts';
import OAuth2Strategy from 'passport-oauth2';
import { AuthorizationCode } from 'simple-oauth2';

import { human, run } from './talk.mjs';

const verifier = randomBytes(32).toString('base64url');
const challenge = createHash('sha256').update(verifier).digest('base64url');
const pkce = { code_challenge: challenge, code_challenge_method: 'S256' };
const asked = (told) => ({ redirect_uri: told.redirect, scope: told.scope, state: 'a-state-of-the-client' });

// Have the human decide; return what the browser brings back.
async function decided(url) {
  const { back } = await human({ visit: url });
  const answer = new URL(back).searchParams;
  if (!answer.get('code')) throw new Error(answer.get('error_description'));
  return { back, code: answer.get('code') };
}

run({
  async 'simple-oauth2'(told) {
    const client = new AuthorizationCode({
      client: { id: told.client, secret: 'none' },
      auth: { tokenHost: told.issuer, tokenPath: '/oauth/token', authorizePath: '/oauth/authorize' },
      options: { authorizationMethod: 'body' },
    });
    const { code } = await decided(client.authorizeURL({ ...asked(told), ...pkce }));
    try {
      const made = await client.getToken({ code, redirect_uri: told.redirect, code_verifier: verifier });
      const first = { ...made.token };
      return { first, again: (await made.refresh()).token };
    } catch (error) {
      throw new Error(error.data?.payload?.error_description ?? error.message);
    }
  },
  async 'passport-oauth2'(told) {
    const strategy = new OAuth2Strategy(
      {
        authorizationURL: `${told.issuer}/oauth/authorize`, tokenURL: `${told.issuer}/oauth/token`, clientID: told.client,
        clientSecret: 'none', callbackURL: told.redirect, scope: told.scope, state: true, pkce: true,
      },
      (access, refresh, params, profile, done) => done(null, { access, refresh, params }),
    );
    strategy.userProfile = (token, done) => done(null, {});
    const req = { session: {}, query: {}, originalUrl: told.redirect, headers: {} };
    const left = await new Promise((resolve, reject) => {
      Object.assign(strategy, { redirect: resolve, error: reject, fail: reject, success: reject });
      strategy.authenticate(req, {});
    });
    const { back } = await decided(left);
    req.query = Object.fromEntries(new URL(back).searchParams);
    const user = await new Promise((resolve, reject) => {
      Object.assign(strategy, { success: resolve, error: reject, fail: (why) => reject(new Error(JSON.stringify(why))) });
      strategy.authenticate(req, {});
    }).catch((error) => {
      throw new Error(error.oauthError?.data ?? error.message);
    });
    const form = { grant_type: 'refresh_token' };
    const again = await new Promise((resolve, reject) => {
      strategy._oauth2.getOAuthAccessToken(user.refresh, form, (error, access, refresh, params) =>
        error ? reject(new Error(error.data)) : resolve(params));
    });
    return { first: user.params, again };
  },
  async 'client-oauth2'(told) {
    const client = new ClientOAuth2({
      clientId: told.client, authorizationUri: `${told.issuer}/oauth/authorize`, accessTokenUri: `${told.issuer}/oauth/token`,
      redirectUri: told.redirect, scopes: [told.scope], state: 'a-state-of-the-client',
    });
    const { back } = await decided(client.code.getUri({ query: pkce }));
    try {
      const made = await client.code.getToken(back, { body: { code_verifier: verifier } });
      const named = { headers: { Authorization: [] }, body: { client_id: told.client } }; // else Basic, without a secret
      return { first: made.data, again: (await made.refresh(named)).data };
    } catch (error) {
      throw new Error(error.body?.error_description ?? error.message);
    }
  },
  async '@badgateway/oauth2-client'(told) {
    const client = new OAuth2Client({ server: `${told.issuer}/`, clientId: told.client, discoveryEndpoint: '/.well-known/oauth-authorization-server' });
    const redirectUri = told.redirect;
    const state = 'a-state-of-the-client';
    const url = await client.authorizationCode.getAuthorizeUri({ redirectUri, state, codeVerifier: verifier, scope: [told.scope] });
    const { back } = await decided(url);
    const first = await client.authorizationCode.getTokenFromCodeRedirect(back, { redirectUri, state, codeVerifier: verifier });
    const again = await client.refreshToken(first);
    const told_ = (token) => ({ access_token: token.accessToken, token_type: 'Bearer', scope: (token.scope ?? [told.scope]).join(' ') });
    return { first: told_(first), again: told_(again) };
  },
  async 'oidc-client-ts'(told) {
    const client = new OidcClient({
      authority: told.issuer, client_id: told.client, redirect_uri: told.redirect, scope: told.scope,
      metadataUrl: `${told.issuer}/.well-known/oauth-authorization-server`,
      stateStore: new WebStorageStateStore({ store: new InMemoryWebStorage() }),
    });
    const { url } = await client.createSigninRequest({ state: {} });
    const { back } = await decided(url);
    const first = await client.processSigninResponse(back);
    const again = await client.useRefreshToken({
      state: { refresh_token: first.refresh_token, scope: first.scope, session_state: null, profile: {}, data: {} },
    });
    return { first: { ...first }, again: { ...again } };
  },
});
