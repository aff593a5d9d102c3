// A real OpenID provider (npm oidc-provider) on a free port of 127.0.0.1. Usage: node provider.mjs NODE_MODULES
// It reads commands from standard input, one a line, and answers each with one line of JSON. The first line says its issuer.
//   secret          the client's secret
//   token           a token for client `nightly`, by the client_credentials grant over HTTP
//   sign CLAIMS     a token with exactly these claims, signed with the provider's key
//   rotate          a new key; the old one is gone
//   asked           when its keys were asked for, ms since 1970
//   down, up        stops and starts to accept connections
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { generateKeyPairSync, randomUUID, sign, webcrypto } from 'node:crypto';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

console.info = console.warn; // Its notes must not stand among the answers.
globalThis.crypto ??= webcrypto; // Node 18 has it under another name.
const { default: Provider } = await import(pathToFileURL(join(process.argv[2], 'oidc-provider/lib/index.js')));

const SECRET = randomUUID();
const asked = [];
let issuer, port, key, handle;

function provide() {
  key = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey;
  key.kid = randomUUID();
  const resource = { scope: '', audience: 'wireward', accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } };
  const provider = new Provider(issuer, {
    jwks: { keys: [{ ...key.export({ format: 'jwk' }), kid: key.kid, alg: 'ES256', use: 'sig' }] },
    clients: [{
      client_id: 'nightly', client_secret: SECRET, redirect_uris: [], response_types: [],
      grant_types: ['client_credentials'], id_token_signed_response_alg: 'ES256',
    }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: () => resource },
    },
    extraTokenClaims: () => ({
      realm_access: { roles: ['analyst'] },
      act: { sub: 'crew-sales', act: { sub: 'scheduler', iss: 'https://cron.test' } },
    }),
  });
  handle = provider.callback();
}

const server = createServer((request, response) => {
  if (request.url === '/jwks') asked.push(Date.now());
  // An issuer whose discovery document is another's.
  request.url = request.url.replace(/^\/wrong\//, '/');
  handle(request, response);
});

async function token() {
  const answer = await fetch(`${issuer}/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`nightly:${SECRET}`).toString('base64')}` },
    body: new URLSearchParams({ grant_type: 'client_credentials', resource: 'urn:wireward' }),
  });
  const body = await answer.json();
  return body.access_token ?? body;
}

function signed(claims) {
  const part = (text) => Buffer.from(text).toString('base64url');
  const text = `${part(JSON.stringify({ alg: 'ES256', kid: key.kid }))}.${part(claims)}`;
  return `${text}.${sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

const listen = () => new Promise((done) => server.listen(port, '127.0.0.1', done));
const close = () => new Promise((done) => { server.close(done); server.closeAllConnections(); });
const commands = {
  secret: () => SECRET,
  token,
  sign: signed,
  rotate: () => provide(),
  asked: () => asked,
  down: close,
  up: listen,
};

await listen();
port = server.address().port;
issuer = `http://127.0.0.1:${port}`;
provide();
const answer = (value) => process.stdout.write(`${JSON.stringify(value ?? null)}\n`);
answer(issuer);
for await (const line of createInterface({ input: process.stdin })) {
  const [, command, argument] = line.match(/^(\w+) ?(.*)$/);
  answer(await commands[command](argument));
}
process.exit(0);
