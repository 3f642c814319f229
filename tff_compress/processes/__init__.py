"""Learning processes whose clients keep state between rounds.

`build_fed_avg` makes one; a `Runner` runs it, and keeps the clients' states in a store of its own, by client id.

    methods/       published methods by name: which of the parts below belong together
    protocols.py   what such parts must be able to do; needs.py: what a method asks of a run
    memories/      what clients and the server remember of updates
    confinement/   training of a part of the model
    up/            codecs that change with the round, their messages, and who uploads
    down/          the model as a whole, or what changed in it
    fed_avg/, autoencoder/, subspace/   the kinds of processes, each with its options; assembly.py is what they share
    state/         what is stored of clients, and where
    process.py     what a process is; runner.py runs its rounds
    moving_average.py   an average of the weights, for evaluation and export: of any learning process

TensorFlow and TFF are imported when a name that needs them is used.
"""

from tff_compress.codec import discovery
from tff_compress.processes.errors import ClientError
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.errors import StateError
from tff_compress.processes.memories.error_feedback import ErrorFeedback
from tff_compress.processes.methods import method
from tff_compress.processes.moving_average import MovingAverage
from tff_compress.processes.state.store import ClientStore
from tff_compress.processes.up.relevance import Relevance

_LAZY = {
    'AutoencoderProcess': 'tff_compress.processes.autoencoder.process',
    'Changes': 'tff_compress.processes.down.changes',
    'ClientStateProcess': 'tff_compress.processes.process',
    'FederatedDropout': 'tff_compress.processes.confinement.federated_dropout',
    'FetchSgd': 'tff_compress.processes.memories.fetchsgd',
    'PowerSgd': 'tff_compress.processes.memories.powersgd',
    'Runner': 'tff_compress.processes.runner',
    'Structured': 'tff_compress.processes.confinement.structured',
    'build_autoencoder_fed_avg': 'tff_compress.processes.autoencoder.build',
    'build_fed_avg': 'tff_compress.processes.fed_avg.build',
    'build_subspace_fed_avg': 'tff_compress.processes.subspace.build',
}

__all__ = ['ClientError', 'ClientStore', 'ErrorFeedback', 'MovingAverage', 'ProcessError', 'Relevance', 'StateError',
           'method', *_LAZY]

__getattr__, __dir__ = discovery.lazily(__name__, _LAZY)
