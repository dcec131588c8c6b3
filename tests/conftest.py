"""Fixtures for all tests."""

import os

from hypothesis import settings

from tests.servers.fixtures import (
    apache,
    h2o,
    haproxy,
    hypercorn,
    large_file,
    microsocks,
    nghttpd,
    nginx,
    node,
    private_ca,
    squid,
    tinyproxy,
)

__all__ = ["apache", "h2o", "haproxy", "hypercorn", "large_file", "nghttpd", "nginx", "node", "private_ca"]
__all__ += ["microsocks", "squid", "tinyproxy"]

if os.environ.get("CI"):  # the same examples every time: what is new is looked for at home, and by the fuzzers
    settings.register_profile("ci", derandomize=True)
    settings.load_profile("ci")
