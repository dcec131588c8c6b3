"""Fixtures for all tests."""

from tests.servers.fixtures import apache, h2o, haproxy, hypercorn, large_file, nghttpd, nginx, node, private_ca

__all__ = ["apache", "h2o", "haproxy", "hypercorn", "large_file", "nghttpd", "nginx", "node", "private_ca"]
