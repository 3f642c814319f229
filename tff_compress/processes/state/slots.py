"""What a client remembers, as graphs see it: in the values that TFF moves, or in files that its workers open
themselves.

The small fields of a client's state (its number, rounds, versions) are always values. A slot of it, such as a residual,
is as
large as the model: moved through TFF as a value it is copied several times in each direction, which takes longer than
training does. Files cost a read and a write.
"""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff


class Vectors:
  """The variables of a spec as one vector per dtype: TFF moves a few large tensors in half the time of many."""

  def __init__(self, spec):
    self._spec = spec
    self._dtypes = list(dict.fromkeys(tensor.dtype for tensor in spec.tensors))

  def _of(self, dtype):
    return [tensor for tensor in self._spec.tensors if tensor.dtype == dtype]

  @property
  def types(self):
    """List of TFF types."""
    return [tff.TensorType(tf.as_dtype(dtype).as_numpy_dtype, [sum(t.size for t in self._of(dtype))])
            for dtype in self._dtypes]

  def join(self, tensors):
    """List of tensors in the order of the spec -> list of vectors."""
    return [tf.concat([tf.reshape(x, [-1]) for x, t in zip(tensors, self._spec.tensors) if t.dtype == dtype], 0)
            for dtype in self._dtypes]

  def split(self, vectors):
    """Inverse of `join`."""
    pieces = {dtype: iter(tf.split(vector, [t.size for t in self._of(dtype)]))
              for dtype, vector in zip(self._dtypes, vectors)}
    return [tf.reshape(next(pieces[t.dtype]), t.shape) for t in self._spec.tensors]


class Values:
  """Slots that are part of the state.

  Args:
    fields: OrderedDict of name to TFF type of the small fields.
    slots: OrderedDict of name to list of TFF types of vectors.

  Attributes:
    type: TFF type of a client's state.
  """

  def __init__(self, fields, slots):
    self.type = tff.to_type(collections.OrderedDict([*fields.items(), *slots.items()]))

  def load(self, memory, slot):
    """List of vectors."""
    return memory[slot]

  def save(self, memory, slots):
    """The state with these slots, a dict of name to list of vectors, in place of the same slots."""
    return collections.OrderedDict(memory, **slots)


class Files:
  """Slots in a file that the state names: `source` is read, '' where there is none yet, and `target` is written.

  The file holds the vectors of all slots in order, each as `tf.io.serialize_tensor` writes it.

  Args:
    fields, slots: as for `Values`.

  Attributes:
    type: TFF type of a client's state.
    bytes: size of a file.
  """

  def __init__(self, fields, slots):
    paths = collections.OrderedDict(source=tff.TensorType(np.str_), target=tff.TensorType(np.str_))
    self.type = tff.to_type(collections.OrderedDict([*fields.items(), *paths.items()]))
    self._places: dict[str, list[tuple[int, int, tf.DType]]] = {}
    self.bytes = 0
    for slot, types in slots.items():
      self._places[slot] = []
      for kind in types:
        size, dtype = kind.shape[0], tf.as_dtype(kind.dtype)
        head = _head_bytes(size, dtype)
        self._places[slot].append((self.bytes + head, size, dtype))
        self.bytes += head + size * dtype.size

  def load(self, memory, slot):
    """List of vectors."""
    places = self._places[slot]

    def read():
      data = tf.io.read_file(memory['source'])
      return [tf.ensure_shape(tf.io.decode_raw(tf.strings.substr(data, start, size * dtype.size), dtype), [size])
              for start, size, dtype in places]

    return tf.cond(tf.strings.length(memory['source']) > 0, read,
                   lambda: [tf.zeros([size], d) for _, size, d in places])

  def save(self, memory, slots):
    """The state after these slots, a dict of name to list of vectors, and the others as they are were written."""
    if not self._places:
      return collections.OrderedDict(memory)
    vectors = [x for slot in self._places for x in (slots[slot] if slot in slots else self.load(memory, slot))]
    written = tf.io.write_file(memory['target'], tf.strings.join([tf.io.serialize_tensor(x) for x in vectors]))
    with tf.control_dependencies([written]):
      return collections.OrderedDict((name, tf.identity(value)) for name, value in memory.items())

  def read(self, data):
    """{slot: list of arrays} of a file's bytes."""
    return {slot: [np.frombuffer(data, dtype.as_numpy_dtype, size, start) for start, size, dtype in places]
            for slot, places in self._places.items()}


def _head_bytes(size, dtype):
  """How many bytes `tf.io.serialize_tensor` writes in front of the values of a vector."""
  return len(tf.io.serialize_tensor(tf.zeros([size], dtype)).numpy()) - size * dtype.size
