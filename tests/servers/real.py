"""One function per server: its configuration, its command line, and how it says that it is ready."""

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers.process import HOST, Server, find_binary, start
from tests.servers.site import PrivateCa

NODE_SCRIPT = Path(__file__).with_name("node_server.mjs")
ASGI_APP = Path(__file__).with_name("asgi_app.py")
APACHE_MODULES = Path("/usr/lib/apache2/modules")
MAX_STREAMS = 128
BODY_LIMIT = 1024  # of /limited: content longer than that is refused with 413
# Routes that these servers cannot answer by themselves.
NGINX_PROXIED = "echo|upload|slow|drip|chunked|trailers|early-hints"
APACHE_PROXIED = "echo|upload|slow|drip|chunked|unique|status/204|status/304|trailers|early-hints"
H2O_PROXIED = ("echo", "upload", "slow", "drip", "chunked", "trailers", "early-hints", "chat")

NGINX_CONF = """
daemon off;
master_process on;
worker_processes 1;
@user@
pid @directory@/nginx.pid;
error_log stderr notice;
events { worker_connections 1024; }
http {
    access_log @access_log@;
    default_type application/octet-stream;
    sendfile on;
    client_body_temp_path @directory@/body;
    proxy_temp_path @directory@/proxy;
    fastcgi_temp_path @directory@/fastcgi;
    uwsgi_temp_path @directory@/uwsgi;
    scgi_temp_path @directory@/scgi;
    client_max_body_size 0;
    client_body_timeout 1h;
    keepalive_timeout 1h;
    keepalive_requests @keepalive_requests@;
    http2_max_concurrent_streams @max_streams@;
    upstream node { server @backend@; keepalive 16; }
    server {
        listen @host@:@http1@;
        listen @host@:@https@ ssl http2;
        listen @host@:@h2c@ http2;
        listen unix:@directory@/nginx.sock;
        server_name localhost;
        ssl_certificate @cert@;
        ssl_certificate_key @key@;
        root @docroot@;
        location = /small { default_type text/plain; }
        location = /status/204 { return 204; }
        location = /status/304 { return 304; }
        location = /unique {
            default_type text/plain;
            add_header X-Request-Id $request_id;
            add_header X-Trace $connection-$connection_requests;
            add_header ETag '"$msec-$connection-$connection_requests"';
            return 200 "unique\\n";
        }
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_request_buffering off;
        proxy_buffering off;
        proxy_read_timeout 1h;
        location ~ ^/(@proxied@)$ { proxy_pass http://node; }
        location = /limited {
            client_max_body_size @body_limit@;
            proxy_pass http://node/upload;
        }
        location = /chat {
            proxy_set_header Connection upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_pass http://node;
        }
    }
}
"""

APACHE_CONF = """
ServerRoot "@directory@"
ServerName localhost
DefaultRuntimeDir "@directory@"
PidFile "@directory@/apache.pid"
ErrorLog "@log@"
LogLevel warn
@modules@
@user@
StartServers 1
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
MinSpareThreads 1
MaxSpareThreads 64
Timeout 3600
KeepAlive On
KeepAliveTimeout 3600
MaxKeepAliveRequests 0
H2MaxSessionStreams @max_streams@
Listen @host@:@http1@
Listen @host@:@https@
Listen @host@:@h2c@
DocumentRoot "@docroot@"
<Directory "@docroot@">
    Require all granted
</Directory>
<Location "/small">
    ForceType text/plain
</Location>
# Its limit is not for what it passes on; a POST to a file is read, and answered with the file.
Alias "/limited" "@docroot@/small"
<Location "/limited">
    LimitRequestBody @body_limit@
</Location>
# In a 103 where H2EarlyHints says so, and pushed to who allows it.
H2EarlyHints on
Alias "/push" "@docroot@/small"
<Location "/push">
    H2PushResource "/small"
</Location>
H2WebSockets on
ProxyPass "/chat" "http://@backend@/chat" upgrade=websocket
ProxyPassMatch "^/(@proxied@)$" "http://@backend@/$1"
<VirtualHost @host@:@http1@>
    Protocols http/1.1
</VirtualHost>
<VirtualHost @host@:@https@>
    Protocols h2 http/1.1
    SSLEngine on
    SSLCertificateFile "@cert@"
    SSLCertificateKeyFile "@key@"
</VirtualHost>
<VirtualHost @host@:@h2c@>
    Protocols h2c http/1.1
</VirtualHost>
"""

H2O_CONF = """
@user@
num-threads: 1
pid-file: @directory@/h2o.pid
http1-request-timeout: 3600
http2-idle-timeout: 3600
http2-max-concurrent-requests-per-connection: @max_streams@
limit-request-body: @body_limit@
proxy.timeout.io: 3600000
proxy.websocket: ON
proxy.websocket.timeout: 3600000
listen: { host: @host@, port: @http1@ }
listen: { host: @host@, port: @h2c@ }
listen:
  host: @host@
  port: @https@
  ssl: { certificate-file: @cert@, key-file: @key@, neverbleed: OFF, ocsp-update-interval: 0 }
hosts:
  localhost:
    paths:
      /small:
        file.file: @docroot@/small
        file.mime.setdefaulttype: text/plain
      /: { file.dir: @docroot@ }
      /status/204: { mruby.handler: "Proc.new { [204, {}, []] }" }
      /status/304: { mruby.handler: "Proc.new { [304, {}, []] }" }
      /unique:
        mruby.handler: |
          Proc.new do
            mark = "#{Time.now.to_f}-#{rand(2 ** 30)}"
            fields = { "content-type" => "text/plain", "x-request-id" => mark, "x-trace" => mark, "etag" => mark.inspect }
            [200, fields, ["unique\\n"]]
          end
      /push:
        mruby.handler: |
          Proc.new { [200, { "link" => "</small>; rel=preload" }, ["push\\n"]] }
@proxied@
"""

HAPROXY_CONF = """
global
    tune.h2.max-concurrent-streams @max_streams@
defaults
    mode http
    timeout connect 10s
    timeout client 1h
    timeout server 1h
    timeout http-request 1h
    timeout http-keep-alive 1h
    timeout tunnel 1h
frontend all
    bind @host@:@http1@
    bind @host@:@h2c@ proto h2
    bind @host@:@https@ ssl crt @pem@ alpn h2,http/1.1
    http-request deny deny_status 413 if { path /limited } { req.hdr_val(content-length) gt @body_limit@ }
    default_backend node
backend node
    server node @backend@
"""

HYPERCORN_CONF = """
bind = "@host@:@https@"
insecure_bind = ["@host@:@http1@", "@host@:@h2c@"]
certfile = "@cert@"
keyfile = "@key@"
workers = 0
graceful_timeout = 1
keep_alive_timeout = 3600
keep_alive_max_requests = 1000000000
h2_max_concurrent_streams = @max_streams@
h2_max_inbound_frame_size = 65536
"""


def write_config(path: Path, template: str, values: dict[str, object]) -> None:
    path.write_text(re.sub(r"@(\w+)@", lambda match: str(values[match[1]]), template))


def _common(directory: Path, docroot: Path, ca: PrivateCa, backend: Server, ports: list[int]) -> dict[str, object]:
    return {
        "directory": directory,
        "docroot": docroot,
        "cert": ca.cert_file,
        "key": ca.key_file,
        "backend": backend.urls["http1"].removeprefix("http://"),
        "host": HOST,
        "max_streams": MAX_STREAMS,
        "body_limit": BODY_LIMIT,
        **dict(zip(("http1", "https", "h2c"), ports, strict=True)),
    }


def _urls(http1: int, https: int, h2c: int) -> dict[str, str]:
    return {"http1": f"http://{HOST}:{http1}", "https": f"https://{HOST}:{https}", "h2c": f"http://{HOST}:{h2c}"}


@contextmanager
def nginx(
    directory: Path,
    docroot: Path,
    ca: PrivateCa,
    backend: Server,
    keepalive_requests: int = 10**9,
    access_log: Path | None = None,
) -> Iterator[Server]:
    """nginx with static files; a Unix-domain socket speaks clear HTTP/1.1; ``backend`` answers what it cannot."""
    binary = find_binary("nginx", "nginx")
    config, pid_file, log_file = directory / "nginx.conf", directory / "nginx.pid", directory / "nginx.log"

    def command(ports: list[int]) -> list[str]:
        pid_file.unlink(missing_ok=True)
        values = _common(directory, docroot, ca, backend, ports)
        # As root the workers would change to a user who may not enter a temporary directory.
        values |= {"user": "user root;" if os.geteuid() == 0 else "", "proxied": NGINX_PROXIED}
        values["keepalive_requests"] = keepalive_requests
        values["access_log"] = access_log or "off"
        write_config(config, NGINX_CONF, values)
        return [binary, "-p", str(directory), "-c", str(config), "-e", "stderr"]

    with ExitStack() as stack:
        process, ports = start(stack, 3, command, log_file, pid_file.exists)
        unix_socket = directory / "nginx.sock"
        yield Server("nginx", _urls(*ports), ca.ca_file, log_file, (process.pid,), unix_socket=unix_socket)


@contextmanager
def apache(directory: Path, docroot: Path, ca: PrivateCa, backend: Server) -> Iterator[Server]:
    """Apache httpd (event MPM, mod_http2) with static files; ``backend`` answers what it cannot."""
    binary = find_binary("apache2", "apache2")
    config, pid_file, log_file = directory / "apache.conf", directory / "apache.pid", directory / "apache.log"
    modules = ("mpm_event", "authz_core", "alias", "ssl", "http2", "proxy", "proxy_http")

    def command(ports: list[int]) -> list[str]:
        pid_file.unlink(missing_ok=True)
        values = _common(directory, docroot, ca, backend, ports)
        values["modules"] = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in modules)
        # httpd refuses to serve as root.
        values["user"] = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
        values |= {"log": log_file, "proxied": APACHE_PROXIED}
        write_config(config, APACHE_CONF, values)
        return [binary, "-D", "FOREGROUND", "-f", str(config)]

    with ExitStack() as stack:
        process, ports = start(stack, 3, command, log_file, pid_file.exists)
        yield Server("apache", _urls(*ports), ca.ca_file, log_file, (process.pid,))


@contextmanager
def nghttpd(directory: Path, docroot: Path, ca: PrivateCa, *more: str) -> Iterator[Server]:
    """nghttpd, once in the clear and once with TLS: HTTP/2 only; a POST to any path is echoed."""
    binary = find_binary("nghttpd", "nghttp2-server")
    options = [f"--address={HOST}", f"--htdocs={docroot}", f"--max-concurrent-streams={MAX_STREAMS}", "--echo-upload"]
    options += more

    def run(stack: ExitStack, name: str, before: list[str], after: list[str]) -> tuple[int, int, Path]:
        log_file = directory / name

        def command(ports: list[int]) -> list[str]:
            return [binary, *options, *before, str(ports[0]), *after]

        # nghttpd says nothing when it is ready; without its port it exits at once.
        process, ports = start(stack, 1, command, log_file, lambda: True)
        return process.pid, ports[0], log_file

    with ExitStack() as stack:
        clear_pid, clear, log_file = run(stack, "nghttpd.log", ["--no-tls"], [])
        tls_pid, tls, _ = run(stack, "nghttpd-tls.log", [], [str(ca.key_file), str(ca.cert_file)])
        urls = {"https": f"https://{HOST}:{tls}", "h2c": f"http://{HOST}:{clear}"}
        yield Server("nghttpd", urls, ca.ca_file, log_file, (clear_pid, tls_pid), alpn=("h2",))


@contextmanager
def node(directory: Path, docroot: Path, ca: PrivateCa) -> Iterator[Server]:
    """Node.js with every route; its HTTP/2 is nghttp2. It finds free ports itself and prints them when ready."""
    binary = find_binary("node", "nodejs")
    log_file = directory / "node.log"
    arguments = [str(NODE_SCRIPT), str(docroot), str(ca.key_file), str(ca.cert_file), str(MAX_STREAMS)]

    def ready_line() -> bytes:
        lines = log_file.read_bytes().splitlines(keepends=True)
        return next((line for line in lines if line.startswith(b'{"http1"') and line.endswith(b"\n")), b"")

    with ExitStack() as stack:
        process, _ = start(stack, 0, lambda _: [binary, *arguments], log_file, lambda: bool(ready_line()))
        ports = json.loads(ready_line())
        yield Server("node", _urls(**ports), ca.ca_file, log_file, (process.pid,))


@contextmanager
def h2o(directory: Path, docroot: Path, ca: PrivateCa, backend: Server, body_limit: int = 2**30) -> Iterator[Server]:
    """h2o with static files and a few mruby handlers; ``backend`` answers what it cannot. Every port speaks HTTP/2."""
    binary = find_binary("h2o", "h2o")
    config, pid_file, log_file = directory / "h2o.yaml", directory / "h2o.pid", directory / "h2o.log"

    def command(ports: list[int]) -> list[str]:
        pid_file.unlink(missing_ok=True)
        values = _common(directory, docroot, ca, backend, ports)
        # As root it would change to a user who may not enter a temporary directory. Its limit is one for all routes.
        values |= {"user": "user: root" if os.geteuid() == 0 else "", "body_limit": body_limit}
        url = backend.urls["http1"]
        values["proxied"] = "\n".join(f"      /{name}: {{ proxy.reverse.url: {url}/{name} }}" for name in H2O_PROXIED)
        write_config(config, H2O_CONF, values)
        return [binary, "-m", "worker", "-c", str(config)]

    with ExitStack() as stack:
        process, ports = start(stack, 3, command, log_file, pid_file.exists)
        yield Server("h2o", _urls(*ports), ca.ca_file, log_file, (process.pid,))


@contextmanager
def haproxy(directory: Path, ca: PrivateCa, backend: Server) -> Iterator[Server]:
    """HAProxy: a reverse proxy that passes every route on to ``backend``, over HTTP/1.1."""
    binary = find_binary("haproxy", "haproxy")
    config, pid_file, log_file = directory / "haproxy.cfg", directory / "haproxy.pid", directory / "haproxy.log"
    pem = directory / "haproxy.pem"
    pem.write_bytes(ca.cert_file.read_bytes() + ca.key_file.read_bytes())

    def command(ports: list[int]) -> list[str]:
        pid_file.unlink(missing_ok=True)
        values = _common(directory, directory, ca, backend, ports) | {"pem": pem}
        write_config(config, HAPROXY_CONF, values)
        return [binary, "-W", "-p", str(pid_file), "-f", str(config)]

    with ExitStack() as stack:
        process, ports = start(stack, 3, command, log_file, pid_file.exists)
        yield Server("haproxy", _urls(*ports), ca.ca_file, log_file, (process.pid,))


@contextmanager
def hypercorn(directory: Path, docroot: Path, ca: PrivateCa) -> Iterator[Server]:
    """hypercorn with an ASGI application that has every route; its HTTP/2 is h2. It runs on the tests' own Python."""
    config, log_file = directory / "hypercorn.toml", directory / "hypercorn.log"

    def command(ports: list[int]) -> list[str]:
        names = ("https", "http1", "h2c")
        values: dict[str, object] = {"host": HOST, "max_streams": MAX_STREAMS, "cert": ca.cert_file, "key": ca.key_file}
        values |= dict(zip(names, ports, strict=True))
        write_config(config, HYPERCORN_CONF, values)
        return ["env", f"DOCROOT={docroot}", sys.executable, "-m", "hypercorn", "-c", str(config), f"{ASGI_APP}:app"]

    with ExitStack() as stack:
        process, ports = start(stack, 3, command, log_file, lambda: log_file.read_text().count("Running on") == 3)
        https, http1, h2c = ports
        yield Server("hypercorn", _urls(http1, https, h2c), ca.ca_file, log_file, (process.pid,))
