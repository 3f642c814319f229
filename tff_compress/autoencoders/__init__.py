"""Autoencoders for updates: how they are learned from snapshots, and when they pay.

`LearnedRule` reads a codec whose autoencoder is to be learned; `snapshots` takes snapshots of a training, for a server
that has data of its own; `fit` learns from snapshots of a model's weights or of their changes; `savings.py` says after
how many messages it has saved what its decoder cost. How it encodes and decodes is in `tff_compress.codec.network`.
TensorFlow is imported when something is learned.
"""

from tff_compress.autoencoders import savings
from tff_compress.autoencoders.architectures import Architecture
from tff_compress.autoencoders.architectures import ARCHITECTURES
from tff_compress.autoencoders.architectures import convolutional
from tff_compress.autoencoders.architectures import dense
from tff_compress.autoencoders.architectures import linear
from tff_compress.autoencoders.errors import SnapshotError
from tff_compress.autoencoders.fitting import fit
from tff_compress.autoencoders.rule import LearnedRule
from tff_compress.codec import discovery

_LAZY = {'snapshots': 'tff_compress.autoencoders.training'}

__all__ = ['ARCHITECTURES', 'Architecture', 'LearnedRule', 'SnapshotError', 'convolutional', 'dense', 'fit', 'linear',
           'savings', *_LAZY]

__getattr__, __dir__ = discovery.lazily(__name__, _LAZY)
