"""The tests of calamint.client. Its properties have no deadline: a shared machine may be slow."""

from hypothesis import settings

settings.register_profile("calamint", deadline=None)
settings.load_profile("calamint")
