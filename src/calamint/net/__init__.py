"""The drivers: dial, read, write, close and wait. No decisions about HTTP are made here."""
