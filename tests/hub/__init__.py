"""A server that speaks the Hugging Face Hub's HTTP API, for tests.

`LocalHub` (server.py) is all that a test needs. Beneath it:

    objects.py       file contents, addressed by what is in them
    repositories.py  commits, refs, and who may do what
    discussions.py   discussions, pull requests, and their events
    errors.py        what the Hub refuses, as the Hub tells it
    wire.py          requests in, answers out, over real sockets
    ranges.py        which bytes an answer sends, faults included
    reading.py, writing.py, talking.py   the routes
    cdn.py           signed URLs, on a host of their own
    faults.py, log.py, webhooks.py       what a test sets, reads, and awaits
"""
