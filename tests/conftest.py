"""Fixtures for all tests."""

from tests.servers.fixtures import apache, large_file, nghttpd, nginx, node, private_ca

__all__ = ["apache", "large_file", "nghttpd", "nginx", "node", "private_ca"]
