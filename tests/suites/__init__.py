"""The test suites of other libraries, run over our transports: `python -m tests.suites`."""
