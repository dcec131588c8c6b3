"""One function per server: its configuration, its command line, and how it says that it is ready."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers.process import HOST, Server, find_binary, start
from tests.servers.site import PrivateCa

NODE_SCRIPT = Path(__file__).with_name("node_server.mjs")
APACHE_MODULES = Path("/usr/lib/apache2/modules")
MAX_STREAMS = 128
# Routes that nginx and Apache cannot answer by themselves.
NGINX_PROXIED = "echo|upload|slow|chunked"
APACHE_PROXIED = "echo|upload|slow|chunked|unique|status/204|status/304"

NGINX_CONF = """
daemon off;
master_process on;
worker_processes 1;
@user@
pid @directory@/nginx.pid;
error_log stderr notice;
events { worker_connections 1024; }
http {
    access_log off;
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
    keepalive_requests 1000000000;
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
        location ~ ^/(@proxied@)$ {
            proxy_pass http://node;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_read_timeout 1h;
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


def _write_config(path: Path, template: str, values: dict[str, object]) -> None:
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
        **dict(zip(("http1", "https", "h2c"), ports, strict=True)),
    }


def _urls(http1: int, https: int, h2c: int) -> dict[str, str]:
    return {"http1": f"http://{HOST}:{http1}", "https": f"https://{HOST}:{https}", "h2c": f"http://{HOST}:{h2c}"}


@contextmanager
def nginx(directory: Path, docroot: Path, ca: PrivateCa, backend: Server) -> Iterator[Server]:
    """nginx with static files; a Unix-domain socket speaks clear HTTP/1.1; ``backend`` answers what it cannot."""
    binary = find_binary("nginx", "nginx")
    config, pid_file, log_file = directory / "nginx.conf", directory / "nginx.pid", directory / "nginx.log"

    def command(ports: list[int]) -> list[str]:
        pid_file.unlink(missing_ok=True)
        values = _common(directory, docroot, ca, backend, ports)
        # As root the workers would change to a user who may not enter a temporary directory.
        values |= {"user": "user root;" if os.geteuid() == 0 else "", "proxied": NGINX_PROXIED}
        _write_config(config, NGINX_CONF, values)
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
    modules = ("mpm_event", "authz_core", "ssl", "http2", "proxy", "proxy_http")

    def command(ports: list[int]) -> list[str]:
        pid_file.unlink(missing_ok=True)
        values = _common(directory, docroot, ca, backend, ports)
        values["modules"] = "\n".join(f"LoadModule {name}_module {APACHE_MODULES}/mod_{name}.so" for name in modules)
        # httpd refuses to serve as root.
        values["user"] = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
        values |= {"log": log_file, "proxied": APACHE_PROXIED}
        _write_config(config, APACHE_CONF, values)
        return [binary, "-D", "FOREGROUND", "-f", str(config)]

    with ExitStack() as stack:
        process, ports = start(stack, 3, command, log_file, pid_file.exists)
        yield Server("apache", _urls(*ports), ca.ca_file, log_file, (process.pid,))


@contextmanager
def nghttpd(directory: Path, docroot: Path, ca: PrivateCa) -> Iterator[Server]:
    """nghttpd, once in the clear and once with TLS: HTTP/2 only; a POST to any path is echoed."""
    binary = find_binary("nghttpd", "nghttp2-server")
    options = [f"--address={HOST}", f"--htdocs={docroot}", f"--max-concurrent-streams={MAX_STREAMS}", "--echo-upload"]

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
