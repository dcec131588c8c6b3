"""What the RFCs ask of a client, and the tests that hold it: `python -m tests.rfc` prints both."""
