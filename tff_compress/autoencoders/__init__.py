"""Autoencoders for updates: how they are learned from snapshots, and when they pay.

`fit` learns one from snapshots of a model's weights or of their changes; `savings.py` says after how many messages it
has saved what its decoder cost. How it encodes and decodes is in `tff_compress.codec.network`. TensorFlow is imported
when something is learned.
"""

from tff_compress.autoencoders.architectures import Architecture
from tff_compress.autoencoders.architectures import convolutional
from tff_compress.autoencoders.architectures import dense
from tff_compress.autoencoders.architectures import linear
from tff_compress.autoencoders.errors import SnapshotError
from tff_compress.autoencoders.fitting import fit

__all__ = ['Architecture', 'SnapshotError', 'convolutional', 'dense', 'fit', 'linear']
