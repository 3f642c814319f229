"""tff-compress: encoded uplinks and downlinks for TensorFlow Federated, the same bytes in a simulation and on a phone.

`tff_compress.codec(text)` makes a codec; `tff_compress.uplink(codec)` and `tff_compress.downlink(codec, model_fn)` plug
it into TFF's learning algorithms; `tff_compress.build_fed_avg` makes one whose clients remember,
`tff_compress.build_autoencoder_fed_avg` one whose clients learn an encoder first;
`tff_compress.keras.federate` trains a Keras model with them. TensorFlow and TFF are imported when a name that needs
them is used, not before.
"""

from typing import TYPE_CHECKING

from tff_compress import wire
from tff_compress.codec import discovery

if TYPE_CHECKING:
  from tff_compress.codec import CallableModule
  codec: CallableModule
else:
  from tff_compress import codec

__version__ = '0.1.0'

_LAZY = {
    'uplink': 'tff_compress.aggregators',
    'downlink': 'tff_compress.distributors',
    'build_fed_avg': 'tff_compress.processes',
    'build_autoencoder_fed_avg': 'tff_compress.processes',
    'build_subspace_fed_avg': 'tff_compress.processes',
}
_MODULES = ('aggregators', 'autoencoders', 'distributors', 'keras', 'processes', 'runtime', 'simulation', 'subspace',
            'tensorflow', 'timeline')

__all__ = ['codec', 'wire', *_LAZY, *_MODULES]

__getattr__, __dir__ = discovery.lazily(__name__, {**_LAZY, **{name: f'tff_compress.{name}' for name in _MODULES}})
