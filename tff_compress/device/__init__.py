"""A device in Python: what an app on a phone does, with the files of a plan in LiteRT, and NumPy. No TensorFlow.

    client.py    the device: check in, fetch, train, encode, send; goes on where it was killed
    http.py      requests, tries again with jitter
    keeping.py   what a device keeps between rounds and over restarts
    runtime.py   a plan's files in LiteRT: decode the model, train, encode
    data.py      a client's examples by a short text

docs/devices.md is the guide, docs/protocol.md what is said to the server.
"""
