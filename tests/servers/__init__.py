"""Real servers on loopback for tests and recordings: nginx, nghttpd, Apache httpd and Node.js.

Each of the four functions is a context manager that starts the server in its own process group on free ports,
with its configuration and log in the directory that it is given, and stops it at the end::

    with node(directory, docroot, ca) as backend, nginx(other_directory, docroot, ca, backend) as server:
        server.urls["http1"], server.urls["https"], server.urls["h2c"], server.ca_file, server.unix_socket

What answers where (H = over HTTP/1.1 and HTTP/2, clear and TLS; 2 = nghttpd, which speaks nothing but HTTP/2):

=====================  =====  =======  ======  =====
route                  nginx  nghttpd  apache  node
=====================  =====  =======  ======  =====
GET, HEAD /small       H      2        H       H
GET /medium, /large    H      2        H       H
GET /chunked           proxy           proxy   H
GET /unique            H               proxy   H
GET /status/204, /304  H               proxy   H
GET /slow?ms=N         proxy           proxy   H
POST /echo             proxy  2        proxy   H
POST /upload           proxy           proxy   H
GET /never                                     H
GET /until-close                               HTTP/1
=====================  =====  =======  ======  =====

"proxy" means that the server passes the request on to node over HTTP/1.1, without buffering a request body first.

nghttpd has no programmable routes. It runs with ``--echo-upload``, so a POST to any path gets its own body back
(no ``x-sha256``, no ``content-length``), it says no ``content-type`` for files without an extension, and what it
does not have is a 404. Its TLS port offers h2 alone by ALPN.
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
