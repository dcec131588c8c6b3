"""Real servers on loopback for tests and recordings: nginx, nghttpd, Apache httpd, Node.js, h2o, HAProxy and hypercorn.

Each of the seven functions is a context manager that starts the server in its own process group on free ports,
with its configuration and log in the directory that it is given, and stops it at the end::

    with node(directory, docroot, ca) as backend, nginx(other_directory, docroot, ca, backend) as server:
        server.urls["http1"], server.urls["https"], server.urls["h2c"], server.ca_file, server.unix_socket

What answers where (H = over HTTP/1.1 and HTTP/2, clear and TLS; 1, 2 = over that version alone; p = the server passes the
request on to node over HTTP/1.1, without buffering a request body first, h2o apart; HAProxy passes everything on):

========================  =====  =======  ======  ====  ===  =======  =========
route                     nginx  nghttpd  apache  node  h2o  haproxy  hypercorn
========================  =====  =======  ======  ====  ===  =======  =========
GET, HEAD /small          H      2        H       H     H    p        H
GET /medium, /large       H      2        H       H     H    p        H
GET /chunked              p               p       H     p    p        H
GET /unique               H               p       H     H    p        H
GET /status/204, /304     H               p       H     H    p        H
GET /slow?ms=N            p               p       H     p    p        H
GET /drip?ms=N            p               p       H     p    p        H
POST /echo                p      2        p       H     p    p        H
POST /upload              p               p       H     p    p        H
POST /limited: 413        H               1       H          H        H
GET /never                                        H          p        H
GET /until-close                                  1
GET /trailers             (p)             (p)     H     (p)  p        2
POST /trailers                                    H          p
GET /early-hints: 103     p1              p       H     (p)  p        2
GET /push: pushes                         2       2     2             2
GET /goaway                                       2
/chat: a WebSocket        p1              p       H     p1   p        H
upgrade: echo                                     1          p
CONNECT echo:1, bye:1                             H          p
========================  =====  =======  ======  ====  ===  =======  =========

(p): it answers, but without what the route is for, which it drops (Apache only over HTTP/1.1).

nghttpd has no programmable routes. It runs with ``--echo-upload``, so a POST to any path gets its own body back
(no ``x-sha256``, no ``content-length``), it says no ``content-type`` for files without an extension, and what it
does not have is a 404. Its TLS port offers h2 alone by ALPN. h2o has one limit for the content of all routes: see its
``body_limit``.
"""

from tests.servers.process import MissingServer, Server, StartError, find_binary
from tests.servers.real import BODY_LIMIT, apache, h2o, haproxy, hypercorn, nghttpd, nginx, node
from tests.servers.site import LARGE_SIZE, MEDIUM_SIZE, SMALL, PrivateCa, large_sha256, medium_sha256, write_docroot

__all__ = [
    "BODY_LIMIT",
    "LARGE_SIZE",
    "MEDIUM_SIZE",
    "SMALL",
    "MissingServer",
    "PrivateCa",
    "Server",
    "StartError",
    "apache",
    "find_binary",
    "h2o",
    "haproxy",
    "hypercorn",
    "large_sha256",
    "medium_sha256",
    "nghttpd",
    "nginx",
    "node",
    "write_docroot",
]
