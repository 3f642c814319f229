"""Frames: payloads with a header that says whose they are, and a checksum. The format is docs/wire-format.md.

    offset  bytes  field
         0      3  magic "TFC"
         3      1  version, 2
         4      4  fingerprint of codec and spec
         8      4  round, little endian
        12      4  client, little endian; 0xffffffff for a message from the server to all clients
        16      n  payload
      16+n      4  CRC-32 of everything before, little endian
"""

from tff_compress.wire.frame import Frame
from tff_compress.wire.frame import FRAME_OVERHEAD
from tff_compress.wire.frame import framed
from tff_compress.wire.frame import FrameError
from tff_compress.wire.frame import pack
from tff_compress.wire.frame import read_header
from tff_compress.wire.frame import unpack

__all__ = ['FRAME_OVERHEAD', 'Frame', 'FrameError', 'framed', 'pack', 'read_header', 'unpack']
