"""Everything of this project that touches a private or moving part of TensorFlow Federated. Nothing else may.

Written for TFF 0.87. After it, TFF's core (types, placements, computations) moves to the package `federated_language`,
`tff.types.type_to_tf_tensor_specs` and `to_type` to `tff.tensorflow`, and the remote executor to C++ bindings.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import os
import random
from typing import Any

import grpc
import tensorflow_federated as tff
from tensorflow_federated.proto.v0 import executor_pb2
from tensorflow_federated.proto.v0 import executor_pb2_grpc
from tensorflow_federated.python.common_libs import structure
from tensorflow_federated.python.common_libs import tracing
from tensorflow_federated.python.core.backends.native import compiler
from tensorflow_federated.python.core.backends.native import mergeable_comp_compiler
from tensorflow_federated.python.core.environments.tensorflow_frontend import tensorflow_computation
from tensorflow_federated.python.core.impl.compiler import building_block_factory
from tensorflow_federated.python.core.impl.context_stack import set_default_context as set_default_context_lib
from tensorflow_federated.python.core.impl.execution_contexts import async_execution_context
from tensorflow_federated.python.core.impl.execution_contexts import compiler_pipeline
from tensorflow_federated.python.core.impl.execution_contexts import mergeable_comp_execution_context as mergeable
from tensorflow_federated.python.core.impl.executor_stacks import python_executor_stacks
from tensorflow_federated.python.core.impl.executors import cardinalities_utils
from tensorflow_federated.python.core.impl.executors import remote_executor
from tensorflow_federated.python.core.impl.executors import remote_executor_stub
from tensorflow_federated.python.core.impl.types import type_analysis
from tensorflow_federated.python.core.impl.types import type_conversions
from tensorflow_federated.python.learning.templates import model_delta_client_work

from tff_compress.runtime.errors import NotMergeableError

# TFF makes up names with Python's generator, which is the user's.
building_block_factory.random = tracing.random = random.Random()

SyncContext = tff.framework.SyncContext

_MESSAGE_BYTES = 2 * 1000 * 1000 * 1000
CHANNEL_OPTIONS = (
    ('grpc.max_receive_message_length', _MESSAGE_BYTES),
    ('grpc.max_send_message_length', _MESSAGE_BYTES),
    # A channel made after a failure starts afresh, without the back-off of the one before.
    ('grpc.use_local_subchannel_pool', 1),
    # A machine that vanished answers no pings. A server takes more than one in five minutes for an attack.
    ('grpc.keepalive_time_ms', 330_000),
    ('grpc.keepalive_timeout_ms', 20_000),
)
"""Without message limits of TFF's size a model of more than 4 MB does not pass."""


def tensor_specs(value_type: tff.Type) -> Any:
  """Returns the nested structure of `tf.TensorSpec` of a TFF tensor or structure type."""
  return tff.types.type_to_tf_tensor_specs(value_type)


def client_update(model_fn: Callable[[], tff.learning.models.VariableModel], weighting: tff.learning.ClientWeighting,
                  loop_implementation: tff.learning.LoopImplementation) -> Callable[..., Any]:
  """The local training of TFF's federated averaging: a `tf.function` of (optimizer, weights, data set).

  It returns a `tff.learning.templates.ClientResult` and the metrics that are not finalized yet.
  """
  return model_delta_client_work.build_model_delta_update_with_tff_optimizer(
      model_fn, weighting=weighting, loop_implementation=loop_implementation)


# -- contexts

def set_default_context(context: tff.framework.SyncContext) -> None:
  """Makes `context` the one that this thread's computations run in."""
  tff.framework.set_default_context(context)


def set_no_default_context() -> None:
  """Drops this thread's default context: computations then raise."""
  set_default_context_lib.set_no_default_context()


def installed(context: tff.framework.SyncContext) -> contextlib.AbstractContextManager[Any]:
  """Returns a `with` block in which this thread's computations run in `context`."""
  return tff.framework.get_context_stack().install(context)


# -- one worker

def worker_binary() -> str:
  """Returns the path of the worker that comes with TFF."""
  return os.path.join(os.path.dirname(tff.__file__), 'data', 'worker_binary')


class LostConnection(Exception):
  """The worker did not answer a call. The text is gRPC's."""


class LostState(Exception):
  """The worker answers and knows nothing of what it was sent: it was started again."""


def ping(channel: grpc.Channel, timeout: float) -> None:
  """Asks a worker for nothing.

  Raises:
    grpc.RpcError: no worker answered within `timeout` seconds.
  """
  # Disposing of nothing is the one request that changes nothing.
  executor_pb2_grpc.ExecutorGroupStub(channel).Dispose(executor_pb2.DisposeRequest(), timeout=timeout)


class _Stub(remote_executor_stub.RemoteExecutorStub):
  """TFF's gRPC stub without its errors that mean "try again": TFF does so for ever."""

  def __init__(self, channel: grpc.Channel) -> None:
    self._stub = executor_pb2_grpc.ExecutorGroupStub(channel)

  def _call(self, rpc: Callable[[Any], Any], request: Any) -> Any:
    try:
      return rpc(request)
    except grpc.RpcError as error:
      if error.code() == grpc.StatusCode.UNAVAILABLE:
        raise LostConnection(error.details()) from error
      if error.code() == grpc.StatusCode.FAILED_PRECONDITION and 'No executor found' in error.details():
        raise LostState(error.details()) from error
      raise

  def _forget(self, rpc: Callable[[Any], Any], request: Any) -> Any:
    try:
      return rpc(request)
    except (grpc.RpcError,
            ValueError):  # ValueError: the channel is closed. Either way there is nothing left to forget.
      return None

  def get_executor(self, request: Any) -> Any:
    return self._call(self._stub.GetExecutor, request)

  def create_value(self, request: Any) -> Any:
    return self._call(self._stub.CreateValue, request)

  def create_struct(self, request: Any) -> Any:
    return self._call(self._stub.CreateStruct, request)

  def create_call(self, request: Any) -> Any:
    return self._call(self._stub.CreateCall, request)

  def create_selection(self, request: Any) -> Any:
    return self._call(self._stub.CreateSelection, request)

  def compute(self, request: Any) -> Any:
    return self._call(self._stub.Compute, request)

  def dispose(self, request: Any) -> Any:
    return self._forget(self._stub.Dispose, request)

  def dispose_executor(self, request: Any) -> Any:
    return self._forget(self._stub.DisposeExecutor, request)

  @property
  def is_ready(self) -> bool:
    return True


def remote_context(channel: grpc.Channel, default_num_clients: int) -> Any:
  """Returns an `AsyncContext` that runs computations on the worker at the other end of a gRPC channel.

  Its calls raise `LostConnection` and `LostState`. `default_num_clients` holds where arguments do not tell.
  """
  stub = _Stub(channel)

  def stack(cardinalities: Mapping[Any, int]) -> Any:
    executor = remote_executor.RemoteExecutor(stub)
    executor.set_cardinalities({tff.CLIENTS: default_num_clients, **cardinalities})
    return executor

  return async_execution_context.AsyncExecutionContext(
      executor_fn=python_executor_stacks.ResourceManagingExecutorFactory(stack),
      compiler_fn=compiler.desugar_and_transform_to_native,
      transform_args=tensorflow_computation.transform_args,
      transform_result=tensorflow_computation.transform_result)


# -- several workers

def mergeable_compiler() -> Callable[[tff.Computation], Any]:
  """Returns a function that gives a computation's mergeable form, and remembers it.

  The form is TFF's: `up_to_merge` runs on each shard of the clients, `merge` on two of its results, and `after_merge`
  on a shard and the merged result. It is None for a computation that has no federated values.

  Raises (the function returned):
    NotMergeableError: an aggregation depends on the result of another.
  """
  return compiler_pipeline.CompilerPipeline(_compile_mergeable).compile


def _compile_mergeable(computation: tff.Computation) -> Any:
  if not type_analysis.contains(computation.type_signature, lambda t: isinstance(t, tff.FederatedType)):
    return None
  try:
    return mergeable_comp_compiler.compile_to_mergeable_comp_form(computation)
  except ValueError as error:
    if 'aggregate dependent on another' not in str(error):
      raise
    raise NotMergeableError(
        'this computation aggregates what depends on another aggregation, which several workers cannot '
        'do in one pass: use workers=1.') from error


def split(value: Any, value_type: tff.Type, shards: int) -> list[Any]:
  """Splits the clients of an argument, in order and as evenly as possible, and repeats everything else.

  TFF's own function for this repeats the first shard where the last element of a structure is not placed at clients.

  Args:
    value: the argument of a computation, or None.
    value_type: its TFF type.
    shards: number of parts wanted.

  Returns:
    A list of arguments, of length `shards` at most: no shard of clients is empty, except where there are none at all.

  Raises:
    ValueError: not all values placed at clients are of one length.
  """
  if value is None:
    return [None] * shards
  clients = cardinalities_utils.infer_cardinalities(value, value_type).get(tff.CLIENTS)
  if clients is None:
    return [value] * shards
  bounds = [clients * shard // shards for shard in range(shards + 1)]
  parts = [_clients_between(value, value_type, start, stop) for start, stop in zip(bounds, bounds[1:]) if start < stop]
  return parts or [value]


def _clients_between(value: Any, value_type: tff.Type, start: int, stop: int) -> Any:
  if _is_client_value(value_type):
    return value[start:stop]
  if isinstance(value_type, tff.StructType):
    names_and_types = structure.to_elements(value_type)
    return structure.Struct([(name, _clients_between(element, element_type, start, stop))
                             for element,
                             (name, element_type) in zip(structure.from_container(value), names_and_types)])
  return value


def _is_client_value(value_type: tff.Type) -> bool:
  return isinstance(value_type, tff.FederatedType) and value_type.placement is tff.CLIENTS and not value_type.all_equal


def pair(first: Any, second: Any) -> Any:
  """Returns the argument of a computation with two parameters."""
  return structure.Struct.unnamed(first, second)


def returns_client_values(form: Any) -> bool:
  """Whether a result is placed at clients and differs between them, so that every shard has its own part of it."""
  return type_analysis.contains(form.after_merge.type_signature.result, _is_client_value)


def join(form: Any, results: Sequence[Any]) -> Any:
  """Returns one result from those of the shards, with the clients in the order of the shards."""
  result_type = form.after_merge.type_signature.result
  return type_conversions.type_to_py_container(mergeable._repackage_partitioned_values(results, result_type),
                                               result_type)
