"""Both pools under random faults for minutes: is everything given back, and do memory, descriptors and threads stay flat?

`python -m tests.soak --minutes 30` starts a server that misbehaves (`server`), and for each driver a client (`client`), each
in a process of its own, so that what is measured belongs to one of them. See CONTRIBUTING.md, "The soak".
"""
