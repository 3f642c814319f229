"""Shapes in colour, made up: what colour says is learned beside what shape says."""

import numpy as np

from tff_compress.simulation import splits
from tff_compress.simulation.data import Dataset
from tff_compress.simulation.datasets import reading
from tff_compress.simulation.datasets.base import Bundled

SHAPES = ('disc', 'square', 'triangle', 'cross', 'ring')
COLOURS = ('warm', 'cold')


class ColourShapes(Bundled):
  name = 'colour-shapes'
  summary = ('synthetic, 32x32 in colour: five shapes in warm or cold colours make ten labels; 5,000 examples for '
             'training, 1,000 for testing, always the same. Without colour the shape is seen, and at times the colour '
             'guessed from the brightness')
  origin = 'is made up'

  def make(self):
    *train, (x_test, y_test) = (_shapes_in_colour(1000, part) for part in range(6))
    x_train, y_train = map(np.concatenate, zip(*train))
    return Dataset(self.name, x_train, y_train, x_test, y_test, num_classes=len(SHAPES) * len(COLOURS))


def _shapes_in_colour(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """(images, labels): label 2 i + j is shape i in colour j; place, size, angle, shade and background vary, with
  noise."""
  rng = splits.generator('data/colour-shapes', seed)
  between = lambda low, high: rng.uniform(low, high, (count, 1, 1))
  y = np.arange(count) % (len(SHAPES) * len(COLOURS))
  rng.shuffle(y)
  place = np.arange(32) / 16 - 31 / 32  # of the pixels' centres, from -1 to 1
  angle, size = between(0, 2 * np.pi), between(0.35, 0.7)
  down, right = place[:, np.newaxis] - between(-0.3, 0.3), place - between(-0.3, 0.3)
  u = (np.cos(angle) * right + np.sin(angle) * down) / size
  v = (np.cos(angle) * down - np.sin(angle) * right) / size
  radius, longer, shorter = np.hypot(u, v), np.maximum(abs(u), abs(v)), np.minimum(abs(u), abs(v))
  inside = np.choose((y // 2)[:, np.newaxis, np.newaxis], [
      radius < 0.9, longer < 0.8, (v > -0.5) & (np.sqrt(3) * abs(u) + v < 1), (shorter < 0.3) & (longer < 1),
      (0.55 < radius) & (radius < 1)])
  # Hues in degrees: purple to yellow, and green to blue.
  warm = (y % 2 == 0)[:, np.newaxis, np.newaxis]
  shape = _rgb(np.where(warm, between(-45, 60), between(140, 245)), between(0.4, 1), between(0.5, 1))
  background = _rgb(between(0, 360), between(0, 0.6), between(0, 0.7))
  image = np.where(inside[..., np.newaxis], shape, background) + rng.normal(0, 0.08, (count, 32, 32, 3))
  return reading.from_bytes(np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)), y.astype(np.int32)


def _rgb(hue, saturation, value):
  """Red, green and blue [..., 3] of colours by hue (degrees), saturation and value."""
  sector = (np.array([5, 3, 1]) + hue[..., np.newaxis] / 60) % 6
  missing = saturation[..., np.newaxis] * np.clip(np.minimum(sector, 4 - sector), 0, 1)
  return value[..., np.newaxis] * (1 - missing)
