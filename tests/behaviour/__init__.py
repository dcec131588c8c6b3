"""How clients behave on the wire, measured: `python -m tests.behaviour` prints a row for each behaviour and a column for each
client, ours and httpx2's, as shipped and over our transports, and ends with 1 where one of ours does not do what it should.
`python -m tests.behaviour NAME …` measures others, too.

`peer` speaks HTTP/2 in raw frames and HTTP/1.1 in raw bytes, without calamint. `subjects` has the clients under test; whatever
has the methods of a `Subject` can be a column. `rows` has the behaviours, and what is right.
"""
