"""What goes wrong between HTTP clients and servers, and which tests keep the promise that it does not here."""
