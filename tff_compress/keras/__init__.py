"""Keras in, Keras out: federated training of a compiled Keras model with encoded updates.

    model, history = tff_compress.keras.federate(model, client_data, uplink='hadamard | uniform:bits=2 | pack',
    rounds=20)

    federation.py    the one function, `federate`, from its arguments to the trained model
    model_checks.py  which models can be trained
    links.py         how updates and models travel, as `federate` is told
    blueprint.py     a compiled model, read once and traced: what clients need of it
    client_model.py  its training step in the form that TFF trains
    isolation.py     keeps users' code out of TFF's graphs
    randomness.py    dropout and the like as a function of a batch's key
    layers.py        the layers of a model and what is in them
    clients.py       the clients' data, laid out for a round
    optimizers.py    Keras's optimizers as TFF's
    learning.py      builds the learning process
    training.py      runs its rounds
    progress.py      shows that it goes on
    errors.py        errors of one sentence

TensorFlow and TFF are imported when `federate` is first used.
"""

from tff_compress.codec import discovery
from tff_compress.keras.errors import FederateError

_LAZY = {'federate': 'tff_compress.keras.federation'}

__all__ = ['FederateError', *_LAZY]

__getattr__, __dir__ = discovery.lazily(__name__, _LAZY)
