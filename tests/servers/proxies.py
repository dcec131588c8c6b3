"""Real proxies on loopback: squid, tinyproxy with HAProxy's TLS before it, and microsocks for SOCKS.

Each function is a context manager like those of `servers`; the keys of ``urls`` are the proxy's schemes: "http", "https",
"socks5". All of them want the credentials ``USER`` and ``PASSWORD``, which stand in no URL, and reach any host and port;
squid has one more way in, "open", over clear HTTP, which wants none.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.servers.process import HOST, Server, find_binary, start
from tests.servers.real import write_config
from tests.servers.site import PrivateCa

USER = "me"
PASSWORD = "secret"
PASSWORDS = f"{USER}:$apr1$calamint$lwZmPtv/AH2LVdQoVT5r21\n"  # as `openssl passwd -apr1` writes it
NCSA_HELPER = "/usr/lib/squid/basic_ncsa_auth"

SQUID_CONF = """
http_port @host@:@http@ name=http
http_port @host@:@open@ name=open
https_port @host@:@https@ name=https tls-cert=@cert@ tls-key=@key@
auth_param basic program @helper@ @passwords@
auth_param basic realm calamint
auth_param basic children 1
acl open myportname open
acl known proxy_auth REQUIRED
http_access allow open
http_access allow known
http_access deny all
cache deny all
access_log none
cache_log /dev/null
netdb_filename none
pid_filename none
coredump_dir none
pinger_enable off
visible_hostname localhost
max_filedescriptors 1024
read_timeout 1 hour
request_timeout 1 hour
client_idle_pconn_timeout 1 hour
pconn_timeout 1 hour
shutdown_lifetime 0 seconds
"""

TINYPROXY_CONF = """
Listen @host@
Port @http@
BasicAuth @user@ @password@
Timeout 3600
MaxClients 100
LogLevel Info
"""

FRONT_CONF = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen tls
    bind @host@:@https@ ssl crt @pem@ alpn http/1.1
    server tinyproxy @host@:@http@
"""


@contextmanager
def squid(directory: Path, ca: PrivateCa) -> Iterator[Server]:
    """squid, without a cache. Its directory must let others in: started as root, it runs as another user."""
    binary = find_binary("squid", "squid")
    config, passwords, log_file = directory / "squid.conf", directory / "passwords", directory / "squid.log"
    passwords.write_text(PASSWORDS)

    def command(ports: list[int]) -> list[str]:
        values: dict[str, object] = {"host": HOST, "helper": NCSA_HELPER, "passwords": passwords}
        values |= {"cert": ca.cert_file, "key": ca.key_file}
        write_config(config, SQUID_CONF, values | dict(zip(("http", "https", "open"), ports, strict=True)))
        return [binary, "-N", "-d", "1", "-f", str(config)]

    with ExitStack() as stack:
        process, ports = start(stack, 3, command, log_file, lambda: log_file.read_text().count("Accepting HTTP") == 3)
        http, https, free = ports
        urls = {"http": f"http://{HOST}:{http}", "https": f"https://{HOST}:{https}", "open": f"http://{HOST}:{free}"}
        yield Server("squid", urls, ca.ca_file, log_file, (process.pid,), alpn=())


@contextmanager
def tinyproxy(directory: Path, ca: PrivateCa) -> Iterator[Server]:
    """tinyproxy, which answers in HTTP/1.0; HAProxy takes TLS off for it."""
    binary, front = find_binary("tinyproxy", "tinyproxy"), find_binary("haproxy", "haproxy")
    config, log_file = directory / "tinyproxy.conf", directory / "tinyproxy.log"
    front_config, front_log, pid_file = directory / "front.cfg", directory / "front.log", directory / "front.pid"
    pem = directory / "front.pem"
    pem.write_bytes(ca.cert_file.read_bytes() + ca.key_file.read_bytes())

    def command(ports: list[int]) -> list[str]:
        write_config(config, TINYPROXY_CONF, {"host": HOST, "http": ports[0], "user": USER, "password": PASSWORD})
        return [binary, "-d", "-c", str(config)]

    with ExitStack() as stack:
        process, (http,) = start(stack, 1, command, log_file, lambda: "Accepting connections" in log_file.read_text())

        def front_command(ports: list[int]) -> list[str]:
            pid_file.unlink(missing_ok=True)
            write_config(front_config, FRONT_CONF, {"host": HOST, "http": http, "https": ports[0], "pem": pem})
            return [front, "-W", "-p", str(pid_file), "-f", str(front_config)]

        front_process, (https,) = start(stack, 1, front_command, front_log, pid_file.exists)
        urls = {"http": f"http://{HOST}:{http}", "https": f"https://{HOST}:{https}"}
        yield Server("tinyproxy", urls, ca.ca_file, log_file, (process.pid, front_process.pid), alpn=("http/1.1",))


@contextmanager
def microsocks(directory: Path, ca: PrivateCa) -> Iterator[Server]:
    """microsocks: SOCKS version 5, with names and addresses."""
    binary = find_binary("microsocks", "microsocks")
    log_file = directory / "microsocks.log"

    def command(ports: list[int]) -> list[str]:
        return [binary, "-i", HOST, "-p", str(ports[0]), "-u", USER, "-P", PASSWORD]

    with ExitStack() as stack:
        # It says nothing when it is ready; without its port it exits at once.
        process, (port,) = start(stack, 1, command, log_file, lambda: True)
        yield Server("microsocks", {"socks5": f"socks5://{HOST}:{port}"}, ca.ca_file, log_file, (process.pid,), alpn=())
