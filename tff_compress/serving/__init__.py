"""The server for real devices. docs/protocol.md is what devices and servers say to each other.

    protocol.py    messages, state machines and reasons: pure Python without I/O, of device and server
    messages.py    how a message is checked, read and written
    settings.py    how a task goes
    blobs.py       bytes by their SHA-256, in a folder or a bucket
    tables.py      the tables of the database
    store.py       what the server knows: every change is one transaction
    frames.py      what an upload must be before it is counted
    fold.py        the aggregate of a round: a pure function of its accepted frames, in order
    optimizers.py  the server's step, by TFF's optimizers
    aggregator.py  closes rounds, steps, writes the next model
    front.py       HTTP
    openapi.py     its description
    server.py      one process with all of it
    evaluation.py  the Keras model: first weights, and how good weights are

What a server needs beyond NumPy is the extra `serve`; protocol.py, messages.py and settings.py need nothing.
"""
