"""calamint's engine under other clients' API: `transports.httpx`, `transports.httpx2`, `transports.requests`."""
