// The server with every route: node node_server.mjs DOCROOT KEY CERT MAX_STREAMS
// Standard modules only. Prints one JSON line with its ports when all of them listen; runs until it is killed.

import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { createReadStream, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { createSecureServer, createServer as createHttp2Server, Http2ServerResponse } from 'node:http2';
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

function sendTrailers(response) {
  response.writeHead(200, { 'content-type': 'text/plain', trailer: 'x-checksum' });
  response.addTrailers({ 'x-checksum': '1234' });
  response.end('trailers\n');
}

function echoTrailers(request, response) {
  request.resume();
  request.on('end', () => send(response, 200, {}, JSON.stringify(request.trailers)));
}

function sendEarlyHints(response) {
  response.writeEarlyHints({ link: '</small>; rel=preload' });
  send(response, 200, {}, 'hinted\n');
}

// HTTP/2 only: two promises, then the response; the second is refused by who allows one at once.
function push(request, response, query) {
  const paths = query.getAll('path');
  const pushed = (path) => (error, stream, headers) => {
    if (error) return;
    stream.on('error', () => {});
    handle({ method: 'GET', url: path, stream }, new Http2ServerResponse(stream));
  };
  for (const path of paths) {
    if (response.stream.pushAllowed) response.stream.pushStream({ ':path': path }, pushed(path));
  }
  send(response, 200, {}, 'push\n');
}

// The beginning of a response, and after a while the rest.
function drip(request, response, query) {
  response.writeHead(200, { 'content-type': 'text/plain', 'content-length': 10 });
  response.write('drip ');
  setTimeout(() => response.end('drop\n'), Number(query.get('ms')));
}

// HTTP/2 only: GOAWAY, with this stream as the last if there is a code, then the response after a while.
function goAway(request, response, query) {
  if (query.has('code')) {
    request.stream.session.goaway(Number(query.get('code')), request.stream.id);
  } else {
    request.stream.session.close();
  }
  setTimeout(() => send(response, 200, {}, 'bye\n'), Number(query.get('ms')));
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
  'GET /trailers': (request, response) => sendTrailers(response),
  'POST /trailers': echoTrailers,
  'GET /early-hints': (request, response) => sendEarlyHints(response),
  'POST /limited': (request, response) => send(response, 413, {}, 'too much\n'), // its content is not read
  'GET /push': push,
  'GET /drip': drip,
  'GET /goaway': goAway,
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

// `expect: 100-continue`: a 100 unless the route refuses content anyway.
function handleExpect(request, response) {
  if (!request.url.startsWith('/limited')) response.writeContinue();
  handle(request, response);
}

// CONNECT: to the authority "echo:1" a tunnel that echoes, to "bye:1" one that ends at once; to any other a refusal. Also `:protocol` websocket (RFC 8441).
function handleConnect(request, response, head) {
  if (request.httpVersionMajor === 1) {
    const socket = response;
    socket.on('error', () => {});
    if (request.url === 'echo:1') {
      socket.write('HTTP/1.1 200 OK\r\n\r\n');
      socket.write(head);
      socket.pipe(socket);
    } else if (request.url === 'bye:1') {
      socket.end('HTTP/1.1 200 OK\r\n\r\nbye');
    } else {
      socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno');
    }
  } else if (request.headers[':protocol'] === 'websocket') {
    response.writeHead(200);
    chat(response.stream);
  } else if (request.authority === 'echo:1') {
    response.writeHead(200);
    request.pipe(response);
  } else if (request.authority === 'bye:1') {
    response.end('bye');
  } else {
    send(response, 403, {}, 'no');
  }
  response.on('error', () => {});
}

// HTTP/1.1: `upgrade: echo` for a protocol that echoes bytes, `upgrade: websocket` for one that echoes messages.
function handleUpgrade(request, socket, head) {
  socket.on('error', () => {});
  const wanted = request.headers.upgrade;
  const key = request.headers['sec-websocket-key'];
  const accept = createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
  const more = wanted === 'websocket' ? `sec-websocket-accept: ${accept}\r\n` : '';
  socket.write(`HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: ${wanted}\r\n${more}\r\n`);
  socket.unshift(head);
  if (wanted === 'websocket') {
    chat(socket);
  } else {
    socket.pipe(socket);
  }
}

// A WebSocket (RFC 6455 §5.2) that sends each short masked frame back, a closing one as the last.
function chat(stream) {
  let pending = Buffer.alloc(0);
  stream.on('error', () => {});
  stream.on('data', (data) => {
    pending = Buffer.concat([pending, data]);
    while (pending.length >= 6 && pending.length >= 6 + (pending[1] & 0x7f)) {
      const size = pending[1] & 0x7f;
      const content = Buffer.from(pending.subarray(6, 6 + size).map((byte, index) => byte ^ pending[2 + (index % 4)]));
      const frame = Buffer.concat([Buffer.from([pending[0], size]), content]);
      pending = pending.subarray(6 + size);
      if ((frame[0] & 0x0f) === 8) {
        stream.end(frame);
      } else {
        stream.write(frame);
      }
    }
  });
}

// No time limits of its own: what the tests see must come from the client. Large windows let uploads run.
const http1Options = { keepAliveTimeout: 0, headersTimeout: 0, requestTimeout: 0 };
const http2Options = {
  maxSessionMemory: 1000,
  settings: { maxConcurrentStreams: Number(maxStreams), initialWindowSize: 1024 * 1024, enableConnectProtocol: true },
};
const tlsOptions = { allowHTTP1: true, key: readFileSync(keyFile), cert: readFileSync(certFile) };

const servers = {
  http1: createServer(http1Options, handle),
  https: createSecureServer({ ...http2Options, ...tlsOptions }, handle),
  h2c: createHttp2Server(http2Options, handle),
};

async function listen(server) {
  server.on('checkContinue', handleExpect);
  server.on('connect', handleConnect);
  server.on('upgrade', handleUpgrade);
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
