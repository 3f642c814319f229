"""A run whose model is a number and whose records have any length: what a timeline does is seen without a codec."""

import collections
import zlib

import numpy as np

from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.timeline import history

FINGERPRINT = b'toys'


class ToyRules:
  """`timeline.copy.Rules`. A change mixes its bytes into the number; a base says round and number, and is filled up."""
  fingerprint = FINGERPRINT

  def from_base(self, xp, record):
    xp.require(record.size >= 8, 'a base is cut short.')
    xp.require(record[8:] == 0, 'a base is filled up with something.')
    number, value = xp.integers_from_bytes(record[:8], 4)
    return collections.OrderedDict(round=number, value=value)

  def move(self, xp, copy, record):
    del xp
    mixed = zlib.crc32(bytes(record), int(copy['value']) & 0xFFFFFFFF)
    return collections.OrderedDict(round=copy['round'] + np.int32(1), value=np.uint32(mixed).view(np.int32))

  def place(self, xp, copy, record):
    del xp
    return self.move(None, copy, b'placed' + bytes(record)) if record.size else copy

  def content(self, xp, copy):
    return xp.integers_to_bytes(np.asarray([copy['round'], copy['value']], np.int32), 4)

  def from_content(self, xp, content):
    xp.require(content.size == 8, 'a content has another length.')
    return self.from_base(xp, content)

  def digest(self, xp, copy):
    return history.digest_of(xp, np.frombuffer(self.fingerprint, np.uint8), self.content(xp, copy))


RULES = ToyRules()


def base_of(copy, filling):
  """A base that gives a copy, of 8 bytes and those that it is filled up with."""
  return bytes(RULES.content(xp, copy)) + bytes(filling)


def digest_of(copy):
  return bytes(RULES.digest(xp, copy))


def change(length, number):
  """A record of a length, unlike others."""
  return np.random.default_rng([length, number]).bytes(length)
