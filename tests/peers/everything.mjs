// An upstream in TypeScript's SDK that has what the conformance suite calls: `everything.json`. It prints its port.
import { createHmac, randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import {
  createMcpHandler,
  hostHeaderValidationResponse,
  isLegacyRequest,
  localhostAllowedHostnames,
  localhostAllowedOrigins,
  originValidationResponse,
  ProtocolError,
  Server,
  WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server';

const has = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const key = randomBytes(32);
const sealed = (number) => `${number}.${createHmac('sha256', key).update(String(number)).digest('hex')}`;
const needed = { 'sampling/createMessage': 'sampling', 'elicitation/create': 'elicitation', 'roots/list': 'roots' };

function filled(value, words) {
  let said = JSON.stringify(value);
  for (const [name, word] of Object.entries(words)) said = said.replaceAll(`{${name}}`, JSON.stringify(word).slice(1, -1));
  return JSON.parse(said);
}

function wrong(message, code = -32602, data = undefined) {
  return new ProtocolError(code, message, data);
}

// What is asked before there is a result (2026-07-28), if anything is left to ask.
function roundOf(ctx, spec, able) {
  const { inputResponses, requestState } = ctx.mcpReq;
  const rounds = spec.rounds ?? [];
  let at = 0;
  const state = typeof requestState === 'function' ? requestState() : requestState;
  if (spec.sealed && state !== undefined) {
    at = Number(state.split('.')[0]);
    if (state !== sealed(at)) throw wrong('this is not the state that was given');
  }
  if (at < rounds.length && Object.keys(rounds[at]).every((one) => inputResponses && one in inputResponses)) at += 1;
  if (at >= rounds.length) return undefined;
  const open = Object.entries(rounds[at]).filter(([, one]) => needed[one.method] in able);
  return {
    resultType: 'input_required',
    inputRequests: open.length ? Object.fromEntries(open) : rounds[at],
    ...(spec.sealed && { requestState: sealed(at) }),
  };
}

async function walk(ctx, step, token) {
  const { say, progress, ask, cut } = step;
  if (say) await ctx.mcpReq.log(say.params.level, say.params.data, say.params.logger);
  if (progress !== undefined && token !== undefined) {
    const params = { progressToken: token, progress, total: 100 };
    await ctx.mcpReq.notify({ method: 'notifications/progress', params });
  }
  if (ask) return JSON.stringify(await ctx.mcpReq.send(ask));
  if (cut) ctx.http?.closeSSE?.();
  return '';
}

function made() {
  const changes = { listChanged: true };
  const capabilities = { tools: changes, prompts: changes, resources: { subscribe: true }, completions: {}, logging: {} };
  const server = new Server({ name: 'everything', version: '1.0.0' }, { capabilities });
  const hints = { ttlMs: 60_000, cacheScope: 'private' };
  const on = (method, handler) => server.setRequestHandler(method, handler);
  on('tools/list', () => ({
    tools: Object.entries(has.tools).map(([name, { inputSchema }]) => ({ name, description: name, inputSchema })),
    ...hints,
  }));
  on('tools/call', async ({ params }, ctx) => {
    const spec = has.tools[params.name];
    if (!spec) throw wrong('there is no such tool');
    const able = ctx.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'] ?? server.getClientCapabilities() ?? {};
    if (spec.needs && !(spec.needs in able))
      throw wrong(`${spec.needs} is needed`, -32021, { requiredCapabilities: { [spec.needs]: {} } });
    const asked = roundOf(ctx, spec, able);
    if (asked) return asked;
    let heard = '';
    for (const step of spec.steps ?? []) heard += await walk(ctx, step, ctx.mcpReq._meta?.progressToken);
    if (spec.changed === 'tools') modern.notify.toolsChanged();
    if (spec.changed === 'prompts') modern.notify.promptsChanged();
    const content = spec.content.map((one) => (one.text === undefined ? one : { ...one, text: one.text + heard }));
    return { content, isError: spec.isError ?? false };
  });
  on('resources/list', () => ({
    resources: Object.entries(has.resources).map(([uri, { mimeType }]) => ({ uri, name: uri, description: uri, mimeType })),
    ...hints,
  }));
  const { uriTemplate, mimeType, text } = has.template;
  on('resources/templates/list', () => ({ resourceTemplates: [{ uriTemplate, name: 'data', mimeType }], ...hints }));
  on('resources/read', ({ params: { uri } }) => {
    const [start, end] = uriTemplate.split('{id}');
    const id = uri.startsWith(start) && uri.endsWith(end) ? uri.slice(start.length, -end.length) : undefined;
    const spec = has.resources[uri] ?? (id === undefined ? undefined : filled({ mimeType, text }, { id }));
    if (!spec) throw wrong('there is no such resource', -32602, { uri });
    return { contents: [{ uri, ...spec }], ...hints };
  });
  on('resources/subscribe', () => ({}));
  on('resources/unsubscribe', () => ({}));
  on('prompts/list', () => ({
    prompts: Object.entries(has.prompts).map(([name, spec]) => ({
      name,
      description: name,
      arguments: (spec.arguments ?? []).map((one) => ({ name: one, description: one, required: true })),
    })),
    ...hints,
  }));
  on('prompts/get', ({ params }, ctx) => {
    const spec = has.prompts[params.name];
    if (!spec) throw wrong('there is no such prompt');
    const able = ctx.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'] ?? {};
    return roundOf(ctx, spec, able) ?? { messages: filled(spec.messages, params.arguments ?? {}) };
  });
  on('completion/complete', () => ({ completion: { values: ['Paris', 'Parma'], total: 2 } }));
  return server;
}

// What was said on streams that may be taken up again.
const events = [];
const eventStore = {
  storeEvent: async (stream, message) => String(events.push({ stream, message })),
  replayEventsAfter: async (last, { send }) => {
    const after = Number(last);
    const { stream } = events[after - 1];
    for (let at = after; at < events.length; at += 1) {
      if (events[at].stream === stream && events[at].message.jsonrpc) await send(String(at + 1), events[at].message);
    }
    return stream;
  },
};

const modern = createMcpHandler(made, { legacy: 'reject' });
const sessions = new Map();

async function legacy(request) {
  const id = request.headers.get('mcp-session-id');
  if (id !== null) {
    const gone = { jsonrpc: '2.0', error: { code: -32001, message: 'Session not found' }, id: null };
    return (await sessions.get(id)?.handleRequest(request)) ?? Response.json(gone, { status: 404 });
  }
  const transport = new WebStandardStreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    eventStore,
    retryInterval: 50,
    onsessioninitialized: (made) => { sessions.set(made, transport); },
    onsessionclosed: (made) => { sessions.delete(made); },
  });
  await made().connect(transport);
  return transport.handleRequest(request);
}

const http = createServer(async (req, res) => {
  const more = ['GET', 'HEAD'].includes(req.method) ? {} : { body: Readable.toWeb(req), duplex: 'half' };
  const left = new AbortController();
  res.on('close', () => left.abort());
  const headers = Object.entries(req.headers).map(([name, value]) => [name, String(value)]);
  const request = new Request(`http://${req.headers.host}${req.url}`, { method: req.method, headers, signal: left.signal, ...more });
  const answer =
    hostHeaderValidationResponse(request, localhostAllowedHostnames()) ??
    originValidationResponse(request, localhostAllowedOrigins()) ??
    ((await isLegacyRequest(request)) ? await legacy(request) : await modern.fetch(request));
  res.writeHead(answer.status, Object.fromEntries(answer.headers));
  res.flushHeaders();
  if (answer.body === null) return res.end();
  Readable.fromWeb(answer.body).on('error', () => res.destroy()).pipe(res);
});
http.listen(0, '127.0.0.1', () => console.log(http.address().port));
