"""Geometry of sliding windows: which inputs a window position reads, and the way back.

A *tap* (i, j) is one place in the window. The value that tap reads at output position (p, q) is padded input
(p * stride + i * dilation, q * stride + j * dilation).
"""

import dataclasses

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Windows:
  """A window moving over the two middle axes of [batch, height, width, channels]; every field is a pair.

  Attributes:
    size: height and width of what it moves over.
    kernel: height and width of the window.
    strides, dilations: step of the window, and between its taps.
    before: rows and columns of padding before the first.
    output: number of positions.
  """
  size: tuple
  kernel: tuple
  strides: tuple
  dilations: tuple
  before: tuple
  output: tuple

  @classmethod
  def of(cls, op, size, kernel, output):
    """Windows of a convolution or pooling operator in a graph."""
    strides = tuple(op.get_attr('strides')[1:3])
    dilations = tuple(op.get_attr('dilations')[1:3]) if 'dilations' in op.node_def.attr else (1, 1)
    size, kernel, output = tuple(size), tuple(kernel), tuple(output)
    padding = op.get_attr('padding').decode()
    if padding == 'SAME':
      extent = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(output, strides, kernel, dilations)]
      before = tuple(max(e - n, 0) // 2 for e, n in zip(extent, size))
    elif padding == 'EXPLICIT':
      pads = op.get_attr('explicit_paddings')
      before = (pads[2], pads[4])
    else:
      before = (0, 0)
    return cls(size, kernel, strides, dilations, before, output)

  @property
  def extent(self):
    """Height and width of the padded input that windows reach, exactly."""
    return tuple((n - 1) * s + (k - 1) * d + 1
                 for n, s, k, d in zip(self.output, self.strides, self.kernel, self.dilations))

  @property
  def taps(self):
    return [(i, j) for i in range(self.kernel[0]) for j in range(self.kernel[1])]

  @property
  def tiles(self):
    """Whether every input is in at most one window, and windows touch."""
    return self.kernel == self.strides and self.dilations == (1, 1) and self.before == (0, 0)

  def pad(self, x, value=0.):
    """The padded input, cut to what windows reach."""
    after = [e - b - n for e, b, n in zip(self.extent, self.before, self.size)]
    if min(after) < 0:
      x = x[:, :x.shape[1] + min(after[0], 0), :x.shape[2] + min(after[1], 0), :]
    pads = [[b, max(a, 0)] for b, a in zip(self.before, after)]
    return tf.pad(x, [[0, 0], *pads, [0, 0]], constant_values=value) if any(map(any, pads)) else x

  def unpad(self, x):
    """The transpose of `pad`: from [batch, *extent, channels] to the input's size."""
    after = [n + b - e for e, b, n in zip(self.extent, self.before, self.size)]
    if any(self.before) or max(after) < 0 or min(after) < 0:
      x = x[:, self.before[0]:self.before[0] + self.size[0], self.before[1]:self.before[1] + self.size[1], :]
    pads = [[0, max(a, 0)] for a in after]
    return tf.pad(x, [[0, 0], *pads, [0, 0]]) if any(map(any, pads)) else x

  def slices(self, padded):
    """What each tap reads: a list of [batch, *output, channels] in the order of `taps`."""
    if self.tiles and self.kernel[0] == self.kernel[1] > 1:
      return tf.split(tf.nn.space_to_depth(padded, self.kernel[0]), len(self.taps), axis=-1)
    (sh, sw), (dh, dw), (oh, ow) = self.strides, self.dilations, self.output
    return [padded[:, i * dh:i * dh + (oh - 1) * sh + 1:sh, j * dw:j * dw + (ow - 1) * sw + 1:sw, :]
            for i, j in self.taps]

  def gather(self, values):
    """The transpose of `slices`: adds up what each tap sends back to the padded input."""
    if self.tiles and self.kernel[0] == self.kernel[1] > 1:
      return tf.nn.depth_to_space(tf.concat(values, -1), self.kernel[0])
    (sh, sw), (dh, dw), (oh, ow) = self.strides, self.dilations, self.output
    phases_h, phases_w = ([-(-e // s) for e, s in zip(self.extent, self.strides)])
    # Positions with the same remainder by the stride form an image of their own; within it, taps only shift.
    phases = {}
    for (i, j), value in zip(self.taps, values):
      (qh, rh), (qw, rw) = divmod(i * dh, sh), divmod(j * dw, sw)
      pads = [[0, 0], [qh, phases_h - oh - qh], [qw, phases_w - ow - qw], [0, 0]]
      value = tf.pad(value, pads) if any(map(any, pads)) else value
      phases[rh, rw] = phases[rh, rw] + value if (rh, rw) in phases else value
    shape = values[0].shape
    if len(phases) < sh * sw:
      nothing = tf.zeros([shape[0], phases_h, phases_w, shape[3]])
      phases = {(r, c): phases.get((r, c), nothing) for r in range(sh) for c in range(sw)}
    image = _interleave([_interleave([phases[r, c] for c in range(sw)], 2) for r in range(sh)], 1)
    return image if image.shape[1:3] == self.extent else image[:, :self.extent[0], :self.extent[1], :]

  def columns(self, padded):
    """What the taps of each row of the window read, side by side: [batch, extent, output, taps in a row * channels]."""
    (_, sw), (_, dw), (_, ow) = self.strides, self.dilations, self.output
    taps = [padded[:, :, j * dw:j * dw + (ow - 1) * sw + 1:sw, :] for j in range(self.kernel[1])]
    return tf.concat(taps, -1) if len(taps) > 1 else taps[0]

  def rows(self, columns):
    """For each row of the window, what its taps read: a list of [batch, positions, taps in a row * channels]."""
    (sh, _), (dh, _), (oh, ow) = self.strides, self.dilations, self.output
    batch, height, _, width = columns.shape
    if sh > 1:
      return [tf.reshape(columns[:, i * dh:i * dh + (oh - 1) * sh + 1:sh], [batch, oh * ow, width])
              for i in range(self.kernel[0])]
    flat = tf.reshape(columns, [batch, height * ow, width])
    return [flat[:, i * dh * ow:(i * dh + oh) * ow] for i in range(self.kernel[0])] if self.kernel[0] > 1 else [flat]


def _interleave(parts, axis):
  """Takes positions along an axis from each part in turn."""
  if len(parts) == 1:
    return parts[0]
  shape = parts[0].shape.as_list()
  shape[axis] *= len(parts)
  return tf.reshape(tf.stack(parts, axis + 1), shape)


def flip(kernel):
  """Turns a kernel [height, width, ...] by 180 degrees.

  On one axis: REVERSE_V2 on two axes is silently wrong in the interpreter that TensorFlow 2.14 ships.
  """
  shape = kernel.shape
  if shape[0] * shape[1] == 1:
    return kernel
  return tf.reshape(tf.reverse(tf.reshape(kernel, [shape[0] * shape[1], *shape[2:]]), [0]), shape)
