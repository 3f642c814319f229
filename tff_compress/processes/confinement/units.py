"""Which units of a Keras model's hidden layers its variables belong to, so that units can be left out of all of them.

A unit is a filter of a convolution or a neuron of a dense layer. What a unit is in: the last axis of its layer's
kernel, its bias, and, in the layers that follow, the places along an axis that read it. A walk along the model's graph
finds these: it carries, for each tensor, the unit in every place of the tensor's last axis.
"""

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from tff_compress.processes.errors import ProcessError

ALWAYS = -1
"""In place of a unit where something is not left out: inputs, outputs, and what layers keep whole."""

_L = tf.keras.layers
_CONVOLUTIONS = (_L.Conv1D, _L.Conv2D, _L.Conv3D)
_TRANSPOSED = (_L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose)
_SPATIAL = (_L.MaxPooling1D, _L.MaxPooling2D, _L.MaxPooling3D,
            _L.AveragePooling1D, _L.AveragePooling2D, _L.AveragePooling3D,
            _L.GlobalMaxPooling1D, _L.GlobalMaxPooling2D, _L.GlobalMaxPooling3D,
            _L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalAveragePooling3D,
            _L.UpSampling1D, _L.UpSampling2D, _L.UpSampling3D, _L.ZeroPadding1D, _L.ZeroPadding2D, _L.ZeroPadding3D,
            _L.Cropping1D, _L.Cropping2D, _L.Cropping3D)
_ELEMENTWISE = (_L.Dropout, _L.SpatialDropout1D, _L.SpatialDropout2D, _L.SpatialDropout3D, _L.GaussianNoise, _L.ReLU,
                _L.LeakyReLU, _L.ELU, _L.ThresholdedReLU, _L.ActivityRegularization)
_JOINING = (_L.Add, _L.Subtract, _L.Multiply, _L.Average, _L.Maximum, _L.Minimum)
_RECURRENT = (_L.LSTM, _L.GRU, _L.SimpleRNN)
_ACTIVATIONS = ('linear', 'relu', 'relu6', 'leaky_relu', 'elu', 'selu', 'gelu', 'sigmoid', 'hard_sigmoid', 'tanh',
                'softplus', 'softsign', 'swish', 'silu', 'mish', 'exponential')


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Units:
  """The units of a model that may be left out, in groups: those of one layer, or of layers whose outputs are added.

  Attributes:
    sizes: number of units of each group. Units are numbered through, group after group.
    axes: for each variable, the trainable ones first, and each of its axes, an int32 array: the unit in every place, or
      `ALWAYS`.
  """
  sizes: tuple
  axes: tuple

  @classmethod
  def of(cls, model, whole=()):
    """Analyses a Keras model: functional or sequential, and built.

    Args:
      model: `tf.keras.Model`.
      whole: names of layers of which no unit is left out.

    Raises:
      ProcessError: what becomes of a layer's units cannot be followed, or a name is that of no layer.
    """
    return _Walk(model, whole).units()

  @property
  def shapes(self):
    """Shapes of the variables."""
    return tuple(tuple(len(axis) for axis in axes) for axes in self.axes)

  def __repr__(self):
    digest = hashlib.sha256()
    for axes in self.axes:
      for axis in axes:
        digest.update(np.asarray(axis, '<i4').tobytes() + b';')
    return f'Units(sizes={self.sizes}, axes={digest.hexdigest()[:16]})'


class _Walk:
  """The walk along a model's graph. Groups are numbered as they are found; `_same` says which turn out to be one."""

  def __init__(self, model, whole):
    if not isinstance(model, tf.keras.Model):
      raise ProcessError(f'units are found in a Keras model, not in {type(model).__name__}: give the model that the '
                         'clients train.')
    if not model.built or not hasattr(model, 'get_config') or not getattr(model, '_is_graph_network', False):
      raise ProcessError(f'the layers of model {model.name!r} cannot be followed: build it with the functional or '
                         'sequential API and a known input shape.')
    self._model, self._whole, self._unused = model, frozenset(whole), set(whole)
    self._starts, self._sizes, self._same = [], [], []
    self._axes, self._mixed, self._seen = {}, [], set()

  def units(self):
    inputs = [_always(tensor) for tensor in tf.nest.flatten(self._model.inputs)]
    outputs = self._run(self._model, inputs)
    if self._unused:
      raise ProcessError(f'no layer is named {min(self._unused)!r}: whole takes names of layers of the model.')
    full = {self._root(group) for units in outputs for group in self._groups(units)}
    for layer, units in self._mixed:
      if any(self._root(group) not in full for group in self._groups(units)):
        self._refuse(layer, 'mixes units that may be left out')
    return self._numbered(full)

  def _numbered(self, full):
    """`Units` with the groups that are one joined, and those that are always kept left out."""
    roots = [g for g in range(len(self._sizes)) if self._root(g) == g and g not in full]
    first = dict(zip(roots, np.cumsum([0] + [self._sizes[g] for g in roots])))
    table = np.full(sum(self._sizes) + 1, ALWAYS, np.int32)  # The last entry is for `ALWAYS`.
    for group, (start, size) in enumerate(zip(self._starts, self._sizes)):
      if self._root(group) in first:
        table[start:start + size] = first[self._root(group)] + np.arange(size)
    axes = []
    for variable in self._model.trainable_variables + self._model.non_trainable_variables:
      found = self._axes.get(id(variable)) or [np.full(size, ALWAYS, np.int32) for size in variable.shape]
      axes.append(tuple(table[axis] for axis in found))
    return Units(tuple(self._sizes[g] for g in roots), tuple(axes))

  # -- groups

  def _group(self, layer, size):
    """The numbers of new units."""
    if layer.name in self._whole:
      return np.full(size, ALWAYS, np.int32)
    start = sum(self._sizes)
    self._same.append(len(self._sizes))
    self._starts.append(start)
    self._sizes.append(size)
    return np.arange(start, start + size, dtype=np.int32)

  def _root(self, group):
    while self._same[group] != group:
      group = self._same[group]
    return group

  def _groups(self, units):
    """Set of the groups of these units."""
    units = units[units != ALWAYS]
    return set((np.searchsorted(self._starts, units, side='right') - 1).tolist())

  def _join(self, layer, a, b):
    """The units of a sum of two tensors: units in one place are left out together."""
    if np.array_equal(a, b):
      return a
    ours, theirs = self._groups(a), self._groups(b)
    if len(ours) != 1 or len(theirs) != 1 or any(
        not np.array_equal(units, self._starts[group] + np.arange(self._sizes[group]))
        for units, (group,) in ((a, ours), (b, theirs))):
      self._refuse(layer, 'adds up units of several layers in different places')
    self._same[self._root(theirs.pop())] = self._root(ours.pop())
    return a

  def _refuse(self, layer, what):
    raise ProcessError(f'layer {layer.name!r} ({type(layer).__name__}) {what}: name it and the layers before it in '
                       'whole=(…), so that none of their units is left out.')

  # -- the graph

  def _run(self, model, inputs):
    """The units of a model's outputs, from those of its inputs: lists in the order of the tensors."""
    known = {id(tensor): units for tensor, units in zip(tf.nest.flatten(model.inputs), inputs)}
    for depth in sorted(model._nodes_by_depth, reverse=True):
      for node in model._nodes_by_depth[depth]:
        if isinstance(node.layer, _L.InputLayer):
          continue
        tensors = tf.nest.flatten(node.keras_inputs)
        outputs = tf.nest.flatten(node.outputs)
        found = self._apply(node.layer, [known[id(tensor)] for tensor in tensors], tensors, outputs)
        known.update((id(tensor), units) for tensor, units in zip(outputs, found))
    return [known[id(tensor)] for tensor in tf.nest.flatten(model.outputs)]

  def _apply(self, layer, inputs, tensors, outputs):
    """The units of a layer's outputs; notes those of its variables."""
    self._unused.discard(layer.name)
    noted = [axis for variable in layer.weights for axis in self._axes.get(id(variable), ())]
    if id(layer) in self._seen and any(self._groups(units) for units in inputs * bool(layer.weights) + noted):
      self._refuse(layer, 'is used more than once')
    self._seen.add(id(layer))
    if isinstance(layer, tf.keras.Model) and getattr(layer, '_is_graph_network', False):
      return self._run(layer, inputs)
    kind, units = type(layer), inputs[0]
    shape = tensors[0].shape
    if getattr(layer, 'data_format', 'channels_last') != 'channels_last':
      self._refuse(layer, "has data_format 'channels_first'")
    if kind is _L.Dense or kind in _CONVOLUTIONS + _TRANSPOSED and layer.groups == 1:
      return [self._trained(layer, units, kind in _TRANSPOSED)]
    if kind is _L.DepthwiseConv2D or kind is _L.DepthwiseConv1D:
      following = np.repeat(units, layer.depth_multiplier)
      self._note(layer.depthwise_kernel, {-2: units})
      self._bias(layer, following)
      return [self._activated(layer, following)]
    if kind in (_L.SeparableConv1D, _L.SeparableConv2D):
      self._note(layer.depthwise_kernel, {-2: units})
      following = self._group(layer, layer.filters)
      self._note(layer.pointwise_kernel, {-2: np.repeat(units, layer.depth_multiplier), -1: following})
      self._bias(layer, following)
      return [self._activated(layer, following)]
    if kind is _L.BatchNormalization and tuple(layer.axis) == (shape.rank - 1,):
      for variable in layer.weights:
        self._note(variable, {-1: units})
      return [units]
    if kind is _L.PReLU:
      if layer.alpha.shape[-1] == len(units):
        self._note(layer.alpha, {-1: units})
      return [units]
    if kind in _SPATIAL + _ELEMENTWISE:
      return [units]
    if kind is _L.Activation:
      return [self._activated(layer, units)]
    if kind is _L.Flatten and shape[1:].is_fully_defined():
      return [np.tile(units, int(np.prod(shape[1:-1], dtype=np.int64)))]
    if kind in _JOINING:
      for other in inputs[1:]:
        if len(other) != len(units):
          self._refuse(layer, 'adds up tensors of different sizes')
        units = self._join(layer, units, other)
      return [units]
    if kind is _L.Concatenate and layer.axis in (-1, shape.rank - 1):
      return [np.concatenate(inputs)]
    if kind in _RECURRENT:
      # Only what the cell reads from the layer before is left out; its own units all stay.
      self._note(layer.cell.kernel, {0: units})
      return [_always(tensor) for tensor in outputs]
    # Anything else is itself kept whole, and wants its inputs whole.
    self._mixed += [(layer, units) for units in inputs]
    return [_always(tensor) for tensor in outputs]

  def _trained(self, layer, units, transposed=False):
    """A layer with a kernel whose last two axes are inputs and outputs, or the other way round."""
    following = self._group(layer, layer.kernel.shape[-2 if transposed else -1])
    self._note(layer.kernel, {-1: units, -2: following} if transposed else {-2: units, -1: following})
    self._bias(layer, following)
    return self._activated(layer, following)

  def _bias(self, layer, units):
    if layer.use_bias:
      self._note(layer.bias, {-1: units})

  def _activated(self, layer, units):
    """The same units, behind a function of each alone."""
    if getattr(layer.activation, '__name__', '') not in _ACTIVATIONS and not isinstance(layer.activation, _ELEMENTWISE):
      self._mixed.append((layer, units))
    return units

  def _note(self, variable, axes):
    """Notes the units along axes of a variable."""
    found = [np.full(size, ALWAYS, np.int32) for size in variable.shape]
    for axis, units in axes.items():
      found[axis] = units
    self._axes[id(variable)] = found


def _always(tensor):
  return np.full(tensor.shape[-1] or 0, ALWAYS, np.int32) if tensor.shape.rank > 1 else np.full(1, ALWAYS, np.int32)
