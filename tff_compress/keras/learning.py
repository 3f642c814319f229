"""TFF learning processes for Keras models whose updates and models travel encoded."""

import collections
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress.aggregators import CodecSumFactory
from tff_compress.codec import meaning
from tff_compress.codec.codec import Codec
from tff_compress.codec.codec import Condition
from tff_compress.codec.codec import Rule
from tff_compress.distributors import downlink as downlink_lib
from tff_compress.keras import optimizers
from tff_compress.keras.blueprint import Blueprint
from tff_compress.keras.client_model import STATISTICS
from tff_compress.keras.errors import FederateError
from tff_compress.processes.methods import Method

_EXACT = 'float32'


def build(blueprint: Blueprint, *, client_optimizer: tff.learning.optimizers.Optimizer,
          server_optimizer: tff.learning.optimizers.Optimizer,
          aggregator: tff.aggregators.WeightedAggregationFactory, downlink: Codec | str, residual: bool = False,
          proximal_strength: float = 0.0, uniform: bool = False,
          seed: int | None = None) -> tff.learning.templates.LearningProcess:
  """Builds the learning process that trains a model.

  It is TFF's weighted federated averaging with two differences. The moving statistics of the model, which TFF never
  changes, move: each client sends by how much its own moved, and the server adds the mean, weighted by examples, of
  whole numbers the nearest whole one. They travel as float32 in both directions, whole numbers down as they are: a
  variance that lost precision may be negative. And the weights of clients' optimizers obey the constraints of the Keras
  model.

  Args:
    blueprint: `Blueprint` of the model.
    client_optimizer, server_optimizer: `tff.learning.optimizers.Optimizer`.
    aggregator: weighted aggregation factory for the updates, such as `tff_compress.uplink(…)`.
    downlink: `Codec` or its text.
    residual: whether the server adds to each message what the last one lost; see `tff_compress.downlink`.
    proximal_strength: mu of FedProx (Li et al. 2020); 0 for none.
    uniform: whether all clients weigh the same, whatever their number of examples.
    seed: of the codecs; None draws one.

  Returns:
    `tff.learning.templates.LearningProcess`. `metrics['client_work']['train']` holds loss and metrics (for
    `Blueprint.named`), `num_examples` and `num_clients` (of clients whose update was finite); where statistics move,
    `metrics['moving_statistics']['bytes']` are the bytes that all clients sent for them.
  """
  arguments = dict(
      client_weighting=weighting(uniform),
      model_distributor=downlink_lib(_with_exact_statistics(downlink, blueprint), blueprint.client_model,
                                     residual=residual, seed=seed, spec=blueprint.weights_spec),
      model_aggregator=aggregator,
      metrics_aggregator=_MetricsAndStatistics(blueprint, seed) if blueprint.statistics else None,
      # Bit for bit what DATASET_REDUCE gives, in two thirds of the time.
      loop_implementation=tff.learning.LoopImplementation.DATASET_ITERATOR)
  optimizer = _client_optimizer(client_optimizer, proximal_strength, blueprint)
  process = tff.learning.algorithms.build_weighted_fed_avg(blueprint.client_model, optimizer, server_optimizer,
                                                           **arguments)
  return _with_moving_statistics(process, blueprint) if blueprint.statistics else process


def build_with_memory(blueprint: Blueprint, method: Method, arguments: Mapping[str, Any], *,
                      client_optimizer: tff.learning.optimizers.Optimizer,
                      server_optimizer: tff.learning.optimizers.Optimizer, proximal_strength: float = 0.0,
                      seed: int | None = None) -> processes.ClientStateProcess:
  """Builds the process that trains a model on clients that remember: a `tff_compress.processes.ClientStateProcess`.

  Args:
    blueprint, client_optimizer, server_optimizer, proximal_strength, seed: as for `build`.
    method: the uplink's `tff_compress.processes.methods.Method`.
    arguments: dict of others of `method.build`, such as `method_arguments` gives.

  Raises:
    FederateError: the model has moving statistics, which such a process does not move.
  """
  if blueprint.statistics:
    raise FederateError(
        'the model has moving statistics, such as those of batch normalization, which clients that remember do not '
        'send: use a codec without memory, or layers without moving statistics, such as GroupNormalization.')
  return method.build(
      blueprint.client_model, client_optimizer_fn=_client_optimizer(client_optimizer, proximal_strength, blueprint),
      server_optimizer_fn=server_optimizer, seed=seed, spec=blueprint.weights_spec, **arguments)


def method_arguments(method: Method, model: Any, downlink: Any, uniform: bool) -> dict[str, Any]:
  """What `build_with_memory` is given for a method: a dict. What the method settles comes first.

  Args:
    method: the uplink's `tff_compress.processes.methods.Method`.
    model: the Keras model that clients train; None where the method need not know it.
    downlink: `Codec` or `Changes`, unless the method has its own; None where it settles both ways.
    uniform: whether all clients weigh the same, unless the method says so.

  Raises:
    ProcessError: the method cannot use this model.
  """
  downlinks = {} if method.both_ways else {'downlink': downlink}
  return {**downlinks, 'client_weighting': weighting(uniform), **method.arguments(model)}


def weighting(uniform: bool) -> tff.learning.ClientWeighting:
  """`tff.learning.ClientWeighting` of clients that weigh all the same, or as many as they have examples."""
  return tff.learning.ClientWeighting.UNIFORM if uniform else tff.learning.ClientWeighting.NUM_EXAMPLES


def _client_optimizer(optimizer, proximal_strength, blueprint):
  return optimizers.constrained(optimizers.proximal(optimizer, proximal_strength), blueprint.trainable)


def _with_exact_statistics(codec, blueprint):
  """The codec with a rule in front that sends moving statistics as they are."""
  codec = meaning.of_whole_models(codec, 'use build_with_memory, whose clients keep a model')
  [rule] = codec_lib.parse(_EXACT).rules
  names = [t.name for t in blueprint.weights_spec.tensors[len(blueprint.trainable):]]
  return Codec(tuple(Rule((Condition(name),), rule.pipeline) for name in names) + codec.rules)


class _MetricsAndStatistics:
  """A `metrics_aggregator` of TFF that also adds up the changes of moving statistics, as an uplink of its own."""

  def __init__(self, blueprint, seed):
    self._blueprint, self._seed = blueprint, seed

  def __call__(self, finalizers, local_type=None):
    del local_type
    metric_finalizers = collections.OrderedDict((name, f) for name, f in finalizers.items() if name != STATISTICS)
    aggregate_metrics = tff.learning.metrics.sum_then_finalize(metric_finalizers)
    factory = CodecSumFactory(_EXACT, seed=self._seed, spec=self._blueprint.changes_spec)

    @tff.federated_computation
    def aggregate(values):
      member = values.type_signature.member

      @tff.tensorflow.computation(member)
      def metrics_of(report):
        return collections.OrderedDict((name, report[name]) for name in metric_finalizers)

      @tff.tensorflow.computation(member)
      def statistics_of(report):
        return list(report[STATISTICS])

      changes = tff.federated_map(statistics_of, values)
      process = factory.create(changes.type_signature.member)
      # float32 needs no state: every round may be the first.
      total = process.next(process.initialize(), changes)
      metrics = aggregate_metrics(tff.federated_map(metrics_of, values))
      return tff.federated_zip(collections.OrderedDict(
          metrics=metrics, changes=total.result, measured=total.measurements))

    return aggregate


def _with_moving_statistics(process, blueprint):
  """The process, with the server's moving statistics moved by what clients report."""
  state_type = process.initialize.type_signature.result
  variances = set(blueprint.variances())
  train_type = process.next.type_signature.result.metrics.member['client_work']['train']

  weights_type = state_type.member.global_model_weights

  @tff.tensorflow.computation(weights_type, train_type)
  def move(weights, train):
    examples = tf.cast(train['metrics']['num_examples'], tf.float32)
    moved = []
    for position, (statistic, change) in enumerate(zip(weights.non_trainable, train['changes'])):
      mean = tf.math.divide_no_nan(change, tf.cast(examples, change.dtype))
      statistic += mean if statistic.dtype.is_floating else tf.cast(tf.round(mean), statistic.dtype)
      moved.append(tf.maximum(statistic, 0) if position in variances else statistic)
    return tff.learning.models.ModelWeights(list(weights.trainable), moved)

  @tff.federated_computation(state_type, process.next.type_signature.parameter[1])
  def next_fn(state, data):
    output = process.next(state, data)
    train = output.metrics['client_work']['train']
    parts = output.state
    moved = tff.federated_zip(tff.learning.templates.LearningAlgorithmState(
        tff.federated_map(move, (parts.global_model_weights, train)), parts.distributor, parts.client_work,
        parts.aggregator, parts.finalizer))
    metrics = tff.federated_zip(collections.OrderedDict(
        distributor=output.metrics['distributor'],
        client_work=collections.OrderedDict(train=train['metrics']),
        aggregator=output.metrics['aggregator'],
        finalizer=output.metrics['finalizer'],
        moving_statistics=collections.OrderedDict(bytes=train['measured']['uplink_bytes'])))
    return tff.learning.templates.LearningProcessOutput(moved, metrics)

  return tff.learning.templates.LearningProcess(
      process.initialize, next_fn, process.get_model_weights, process.set_model_weights,
      get_hparams_fn=process.get_hparams, set_hparams_fn=process.set_hparams)
