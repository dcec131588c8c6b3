"""A deterministic world: a client connection, a model server and the link between them, on virtual time, from one seed."""
