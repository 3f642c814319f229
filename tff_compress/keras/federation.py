"""Keras in, Keras out."""

from collections.abc import Callable
import dataclasses
from typing import Any
import warnings

import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.aggregators.codec_sum import checked_seed
from tff_compress.codec import checks
from tff_compress.codec import defaults
from tff_compress.codec.codec import Codec
from tff_compress.keras import optimizers
from tff_compress.keras import training
from tff_compress.keras.blueprint import Blueprint
from tff_compress.keras.clients import Clients
from tff_compress.keras.errors import FederateError
from tff_compress.keras.links import Links
from tff_compress.keras.model_checks import check_model
from tff_compress.keras.progress import Progress
from tff_compress.processes import needs
from tff_compress.processes.down.changes import Changes
from tff_compress.processes.moving_average import MovingAverage
from tff_compress.processes.subspace import sgd


def federate(model: tf.keras.Model, client_data: Any, *, rounds: int,
             uplink: Codec | str | tff.aggregators.WeightedAggregationFactory | None = defaults.UNNAMED,
             downlink: Changes | Codec | str | None = None, clients_per_round: int | None = None, local_epochs: int = 1,
             local_steps: int | None = None, batch_size: int = 20, learning_rate: float | None = None,
             client_optimizer: tff.learning.optimizers.Optimizer | None = None,
             server_optimizer: tff.learning.optimizers.Optimizer | str = 'sgd', server_learning_rate: float = 1.0,
             server_momentum: float = 0.0, proximal_strength: float = 0.0, weighting: str = 'examples',
             ema: float | None = None, shuffle: bool = True, validation_data: Any = None, validation_freq: int = 1,
             seed: int | None = None, progress: bool = True, on_round: Callable[[dict[str, Any]], None] | None = None,
             ema_momentum: float | None = None) -> tuple[tf.keras.Model, tf.keras.callbacks.History]:
  """Trains a compiled Keras model on the data of many clients, with encoded updates and models.

      model, history = tff_compress.keras.federate(
          model, [(x0, y0), (x1, y1), …], uplink='hadamard | uniform:bits=2 | pack', rounds=20, validation_data=(x, y))

  Federated averaging in TFF, simulated on this machine: every round the server sends the model to some clients, each
  trains it on its own examples, and the server adds the mean of their updates. Loss, metrics and the clients' optimizer
  are those the model was compiled with, and a client's step is that of `fit`. Moving statistics (batch normalization,
  and whatever else a step changes) are averaged over clients too, in float32 or as the nearest whole number; frozen
  layers stay as they are and do not travel. Several threads may train at the same time, each its own model.

  Args:
    model: compiled `tf.keras.Model` with its standard train_step. Its weights are the starting point and, at the end or
      when training is interrupted, the result.
    client_data: list or dict with the data of each client: a `tf.data.Dataset` of (x, y) or (x, y, sample_weight), in
      batches or of single examples, or such a tuple of arrays. Or a `tff.simulation.datasets.ClientData` of such.
    rounds: how many rounds.
    uplink: 'auto' for the shared subspace, which is the downlink as well (docs/methods/subspace.md), or, where a model
      has moving statistics or the server another optimizer than SGD, what `tff_compress.uplink()` and `downlink()` are
      by themselves; 'default' for 'auto', or float32 where a downlink is named; or a codec (text or `Codec`) of the
      clients' updates, None for float32; or a published method by name, such as 'dgc:p=1/100', which brings with it
      whatever else it needs (`tff-compress codecs` lists both); or a weighted aggregation factory of TFF. With a codec
      that is meant for error feedback, such as stc, clients remember what it loses.
    downlink: codec of the model that clients receive, or a `tff_compress.processes.Changes`. A codec that is meant for
      changes, such as stc, sends what changed. None: the uplink method's own, otherwise float32.
    clients_per_round: how many clients are drawn for a round, without replacement; None: all.
    local_epochs: how many times a client goes through its examples in a round.
    local_steps: batches that a client trains on in a round, instead of whole epochs; None: the uplink method's own, if
      any.
    batch_size: examples per local step, for arrays and for data sets of single examples.
    learning_rate: the clients'; None: the compiled optimizer's.
    client_optimizer: a `tff.learning.optimizers.Optimizer` to use instead of the compiled one.
    server_optimizer: 'sgd', 'adam', 'yogi' or 'adagrad', or a `tff.learning.optimizers.Optimizer`.
    server_learning_rate, server_momentum: of the named server optimizer; momentum is for 'sgd'.
    proximal_strength: mu of FedProx (Li et al. 2020), which keeps clients near the server's model; 0: FedAvg.
    weighting: 'examples' weights clients by their number of examples, 'uniform' does not.
    ema: momentum of a moving average of the server's weights, such as 0.9, with which the model is validated and
      returned (`tff_compress.processes.MovingAverage`), for float32 as for codecs: it removes most of the noise that
      strong compression adds, at no cost in bytes. Clients train from the weights themselves. None: no average.
    shuffle: whether arrays are shuffled before each pass; a data set keeps its own order.
    validation_data: (x, y), (x, y, sample_weight) or a `tf.data.Dataset`, as for Keras.
    validation_freq: rounds between validations; the last round is always validated.
    seed: whole number that makes a run repeatable: which clients are drawn, the order of examples, dropout, and the
      codecs' randomness, for the same model with the same layer names. None: different every time.
    progress: whether to show a line per round, or a bar on a terminal.
    on_round: called after each round with the dict that describes it. Setting `model.stop_training = True` in it ends
      the training.
    ema_momentum: deprecated name of `ema`.

  Returns:
    (model, history): the model given, trained; and a `tf.keras.callbacks.History`. Its `history` has a list with one
    number per round for `loss` and each metric (of the local training), `clients`, `failed_clients`, `examples`,
    `seconds`, `uplink_bytes` and `downlink_bytes` (all clients, as sent), `uplink_bits_per_parameter`,
    `downlink_bits_per_parameter`, `uplink_ratio`, `downlink_ratio` (float32's bytes over those sent), where clients
    remember something `client_states_bytes`, and, with validation data, `val_loss` and so on. Some methods measure more
    (the table in docs/command-line.md): of the bytes of a pre-pass, what was sent in all is `uplink_bytes` and
    `prepass_uplink_bytes` together.

  Raises:
    FederateError: the model, the data or an argument cannot be used, or training diverged; a ValueError of one
      sentence.
    CodecError, ProcessError: a codec or method is not valid, or not for this model.
  """
  check_model(model)
  rounds = checks.whole_number('rounds', rounds, FederateError, least=1)
  local_epochs = checks.whole_number('local_epochs', local_epochs, FederateError, least=1)
  local_steps = checks.whole_number('local_steps', local_steps, FederateError, least=1, optional=True)
  batch_size = checks.whole_number('batch_size', batch_size, FederateError, least=1)
  clients_per_round = checks.whole_number('clients_per_round', clients_per_round, FederateError, least=1, optional=True)
  validation_freq = checks.whole_number('validation_freq', validation_freq, FederateError, least=1)
  if ema_momentum is not None:
    warnings.warn('ema_momentum has another name: write ema.', DeprecationWarning, stacklevel=2)
    if ema is not None:
      raise FederateError('ema_momentum is the old name of ema: leave it out.')
    ema = ema_momentum
  ema = checks.number('ema', ema, FederateError, least=0, below=1, optional=True)
  proximal_strength = checks.number('proximal_strength', proximal_strength, FederateError, least=0)
  checks.one_of('weighting', weighting, ('examples', 'uniform'), FederateError)
  if client_optimizer is None:
    optimizers.from_keras(model.optimizer, learning_rate)  # Says what is wrong before the data are read.
  elif learning_rate is not None:
    raise FederateError('client_optimizer has a learning rate of its own: leave learning_rate out.')
  elif not isinstance(client_optimizer, tff.learning.optimizers.Optimizer):
    raise FederateError('client_optimizer must be a tff.learning.optimizers.Optimizer, not '
                        f'{type(client_optimizer).__name__}.')
  if not isinstance(server_optimizer, tff.learning.optimizers.Optimizer):
    server_optimizer = optimizers.of_server(server_optimizer, server_learning_rate, server_momentum)
  links, uniform = Links(uplink, downlink), weighting == 'uniform'
  facts = needs.Facts(clients_per_round=clients_per_round, rounds=rounds,
                      server_sgd=sgd.constants(server_optimizer) is not None)
  links.settle(facts, uniform)
  if local_steps is None and links.method is not None:
    local_steps = links.method.local_steps
  if validation_data is not None and not isinstance(validation_data, tf.data.Dataset) and not (
      isinstance(validation_data, (tuple, list)) and 2 <= len(validation_data) <= 3):
    raise FederateError('validation_data must be (x, y), (x, y, sample_weight) or a tf.data.Dataset, not '
                        f'{type(validation_data).__name__}.')
  run_seed = checked_seed(seed)

  clients = Clients(client_data, model, batch_size=batch_size, local_epochs=local_epochs, shuffle=shuffle,
                    seed=run_seed, local_steps=local_steps)
  if clients_per_round is not None and clients_per_round > len(clients):
    raise FederateError(f'clients_per_round is {clients_per_round}, more than the number of clients, {len(clients)}: '
                        'use at most that many.')
  if not model.built and isinstance(model, tf.keras.Sequential):
    model.build(clients.element_spec[0].shape)  # Its weights start now, as in fit.
  if client_optimizer is None:
    client_optimizer = optimizers.from_keras(model.optimizer, learning_rate, model)
  blueprint = Blueprint(model, clients.element_spec)
  links.settle(dataclasses.replace(facts, clients=len(clients), clients_per_round=clients_per_round or len(clients),
                                   moving_statistics=bool(blueprint.statistics)), uniform)
  links.check_rules(blueprint)
  history = tf.keras.callbacks.History()
  history.set_model(model)
  history.on_train_begin()
  model.stop_training = False
  average = MovingAverage(ema or 0.0)
  display = Progress(rounds, progress)
  with training.running():
    if links.method is not None and links.method.remark:
      display.tell(links.method.remark)
    display.say('building')
    process = links.process(
        blueprint, model, uniform, seed, client_optimizer=client_optimizer,
        server_optimizer=server_optimizer, proximal_strength=proximal_strength)
    trainer = training.Trainer(blueprint, clients, clients_per_round, process, links.method)
    try:
      for number in range(1, rounds + 1):
        trainer.learn(display.learn)
        record = trainer.next()
        average.update(trainer.state)
        if validation_data is not None and (number % validation_freq == 0 or number == rounds):
          blueprint.assign(average.weights)
          record.update(_validate(model, validation_data, batch_size))
        logs = {name: value for name, value in record.items() if name != 'round'}
        history.on_epoch_end(number - 1, logs)
        display.show(record)
        if on_round is not None:
          on_round(dict(record))
        if model.stop_training:
          break
    finally:
      if average.weights is not None:
        blueprint.assign(average.weights)
      model.history = history  # Validation has put one of its own there.
      display.close()
  return model, history


def _validate(model, data, batch_size):
  """{'val_loss': …} of the model on validation data."""
  if isinstance(data, tf.data.Dataset):
    result = model.evaluate(data, verbose=0, return_dict=True)
  else:
    result = model.evaluate(*data[:2], sample_weight=data[2] if len(data) == 3 else None, verbose=0, return_dict=True,
                            batch_size=max(batch_size, 256))
  return {f'val_{name}': value for name, value in result.items()}
