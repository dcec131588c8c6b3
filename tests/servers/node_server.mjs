// The server with every route: node node_server.mjs DOCROOT KEY CERT MAX_STREAMS
// Standard modules only. Prints one JSON line with its ports when all of them listen; runs until it is killed.

import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { createSecureServer, createServer as createHttp2Server } from 'node:http2';
import { join } from 'node:path';

const [docroot, keyFile, certFile, maxStreams] = process.argv.slice(2);
const HOST = '127.0.0.1';
const CHUNK = 4096;

function send(response, status, fields, body = '') {
  response.writeHead(status, { 'content-type': 'text/plain', 'content-length': Buffer.byteLength(body), ...fields });
  response.end(body);
}

function sendFile(response, name) {
  const path = join(docroot, name);
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': statSync(path).size });
  createReadStream(path, { highWaterMark: 256 * 1024 }).pipe(response);
}

// No length and many small writes: chunked over HTTP/1.1, many DATA frames over HTTP/2.
function sendChunked(response) {
  response.writeHead(200, { 'content-type': 'application/octet-stream' });
  createReadStream(join(docroot, 'medium'), { highWaterMark: CHUNK }).pipe(response);
}

function sendUnique(response) {
  const fields = {
    'x-request-id': randomUUID(),
    'x-trace': `00-${randomBytes(16).toString('hex')}-${randomBytes(8).toString('hex')}-01`,
    etag: `"${randomBytes(24).toString('base64url')}"`,
  };
  send(response, 200, fields, 'unique\n');
}

function sendUntilClose(request, response) {
  if (request.httpVersionMajor !== 1 || request.socket.encrypted) {
    send(response, 404, {}, 'only over clear HTTP/1.1\n');
    return;
  }
  request.socket.end('HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil close\n');
}

function echo(request, response) {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const body = Buffer.concat(parts);
    const sha256 = createHash('sha256').update(body).digest('hex');
    const type = request.headers['content-type'] ?? 'application/octet-stream';
    response.writeHead(200, { 'content-type': type, 'content-length': body.length, 'x-sha256': sha256 });
    response.end(body);
  });
}

function upload(request, response) {
  const digest = createHash('sha256');
  let bytes = 0;
  request.on('data', (part) => {
    bytes += part.length;
    digest.update(part);
  });
  request.on('end', () => {
    const answer = JSON.stringify({ bytes, sha256: digest.digest('hex') });
    send(response, 200, { 'content-type': 'application/json' }, answer);
  });
}

function empty(response, status) {
  response.writeHead(status);
  response.end();
}

const ROUTES = {
  'GET /small': (request, response) => send(response, 200, {}, 'hello'),
  'GET /medium': (request, response) => sendFile(response, 'medium'),
  'GET /large': (request, response) => sendFile(response, 'large'),
  'GET /chunked': (request, response) => sendChunked(response),
  'GET /unique': (request, response) => sendUnique(response),
  'GET /status/204': (request, response) => empty(response, 204),
  'GET /status/304': (request, response) => empty(response, 304),
  'GET /slow': (request, response, query) => {
    setTimeout(() => send(response, 200, {}, 'slow\n'), Number(query.get('ms')));
  },
  'GET /never': () => {},
  'GET /until-close': sendUntilClose,
  'POST /echo': echo,
  'POST /upload': upload,
};

function handle(request, response) {
  const url = new URL(request.url, 'http://localhost');
  const method = request.method === 'HEAD' ? 'GET' : request.method;
  // Clients may go away in the middle of an answer: that is theirs to test, not an error of this server.
  response.on('error', () => {});
  const route = ROUTES[`${method} ${url.pathname}`];
  if (route === undefined) {
    send(response, 404, {}, 'no such route\n');
  } else {
    route(request, response, url.searchParams);
  }
}

// No time limits of its own: what the tests see must come from the client. Large windows let uploads run.
const http1Options = { keepAliveTimeout: 0, headersTimeout: 0, requestTimeout: 0 };
const http2Options = {
  maxSessionMemory: 1000,
  settings: { maxConcurrentStreams: Number(maxStreams), initialWindowSize: 1024 * 1024 },
};
const tlsOptions = { allowHTTP1: true, key: readFileSync(keyFile), cert: readFileSync(certFile) };

const servers = {
  http1: createServer(http1Options, handle),
  https: createSecureServer({ ...http2Options, ...tlsOptions }, handle),
  h2c: createHttp2Server(http2Options, handle),
};

async function listen(server) {
  server.on('session', (session) => {
    session.on('error', () => {});
    session.setLocalWindowSize(16 * 1024 * 1024);
  });
  await new Promise((resolve) => server.listen(0, HOST, resolve));
  return server.address().port;
}

const ports = {};
for (const [name, server] of Object.entries(servers)) {
  ports[name] = await listen(server);
}
process.stdout.write(`${JSON.stringify(ports)}\n`);
