"""Data sets, splits and models for simulations.

`load` gives a data set, `split` deals it out to clients, `batches` makes a client's `tf.data.Dataset`, and
`models.build` makes a Keras model. TensorFlow and TFF are imported by the functions that need them, not by this
package.
"""

from tff_compress.simulation import data
from tff_compress.simulation import datasets
from tff_compress.simulation import kinds
from tff_compress.simulation import models
from tff_compress.simulation import splits
from tff_compress.simulation.data import batches
from tff_compress.simulation.data import DataError
from tff_compress.simulation.data import Dataset
from tff_compress.simulation.datasets import load
from tff_compress.simulation.splits import split
from tff_compress.simulation.splits import SplitError

__all__ = ['DataError', 'Dataset', 'SplitError', 'batches', 'data', 'datasets', 'kinds', 'load', 'models', 'split',
           'splits']
