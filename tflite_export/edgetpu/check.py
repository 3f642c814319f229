"""Goes through a .tflite file: which of its operators the Edge TPU's documented operator list covers."""

import dataclasses
import os
from typing import Any

from tflite_export import flatbuffer
from tflite_export.edgetpu import limits
from tflite_export.edgetpu.operators import OPERATORS

# What the list asks of every operator.
_GENERAL = (limits.static_shapes, limits.eight_bits, limits.dense_constants, limits.three_dimensions)


@dataclasses.dataclass(frozen=True)
class OperatorReport:
  """What the list says of one operator of a file.

  Attributes:
    index: its position in its subgraph, from 0.
    subgraph: the position of its subgraph in the file.
    name: such as 'CONV_2D'.
    maps: whether it would be mapped to the Edge TPU; otherwise it falls back to the CPU.
    reason: why it falls back; '' for one that maps.
    listed: whether it meets the list by itself. One that does still falls back when another stands before it that does
      not.
    note: what the list warns of and no file shows, or that this entry of the list is unverified; '' for most.
  """
  index: int
  subgraph: int
  name: str
  maps: bool
  reason: str
  listed: bool
  note: str


@dataclasses.dataclass(frozen=True)
class Report:
  """The result of `check_edgetpu`.

  Attributes:
    operators: tuple of `OperatorReport`, in the order of the file.
  """
  operators: tuple

  @property
  def compatible(self) -> bool:
    """Whether everything maps, and there is something to map."""
    return bool(self.operators) and all(operator.maps for operator in self.operators)

  @property
  def summary(self) -> str:
    """One sentence. It speaks of the list: what the vendor's compiler does with a file, only the compiler can say."""
    if not self.operators:
      return 'Not statically compatible with the documented operator list: there are no operators in it.'
    count, fallen = len(self.operators), [operator for operator in self.operators if not operator.maps]
    if fallen:
      first = fallen[0]
      return (f'Not statically compatible with the documented operator list: {len(fallen)} of {count} operators fall '
              f'back to the CPU, the first is {first.name} ({first.index}): {first.reason}.')
    text = f'Statically compatible with the documented operator list: all {count} operators are on it'
    noted = sum(bool(operator.note) for operator in self.operators)
    return text + (f', {noted} with a note.' if noted else '.')

  def as_dict(self) -> dict[str, Any]:
    """The report as dicts, lists, texts and numbers."""
    return {'compatible': self.compatible, 'summary': self.summary,
            'operators': [dataclasses.asdict(operator) for operator in self.operators]}


def check_edgetpu(source: bytes | str | os.PathLike[str]) -> Report:
  """Checks a .tflite file against the documented operator list of the Edge TPU and the list's limits.

  The Edge TPU runs one part of a file: from its first operator to the first that does not map. An operator that
  quantizes float inputs in front of that part runs on the CPU and does not end it.

  Args:
    source: path or bytes of a .tflite file as the converter writes it (not one that the vendor's compiler has been at).

  Returns:
    Report

  Raises:
    FileError: it is missing, too large, or no whole .tflite file.
  """
  model = flatbuffer.load(source)
  reports, stopped = [], None
  for number, graph in enumerate(model.subgraphs):
    inputs = set(map(int, _given(graph.inputs)))
    for index, operator in enumerate(graph.operators or ()):
      name = flatbuffer.operator_name(model, operator)
      why, note = _by_itself(limits.Node(name, model, graph, operator))
      reason = why
      if not why and number:
        reason = 'it is not in the first subgraph, the only one that is mapped'
      elif not why and stopped:
        reason = f'it comes after {stopped}, and only one part of a file is mapped'
      # What quantizes float inputs is left to the CPU, in front of the part that maps.
      in_front = name == 'QUANTIZE' and not stopped and set(map(int, _given(operator.inputs))) <= inputs
      if why and not number and not stopped and not in_front:
        stopped = f'{name} ({index}), which falls back'
      if why and in_front:
        note = 'does not keep the next ones from mapping (unverified)'
      reports.append(OperatorReport(index=index, subgraph=number, name=name, maps=not reason, reason=reason,
                                    listed=not why, note=note))
  return Report(tuple(reports))


def _given(vector):
  return () if vector is None else vector


def _by_itself(node):
  """(why an operator is not covered or '', note), whatever stands around it."""
  entry = OPERATORS.get(node.name)
  if entry is None:
    return 'it is not on the list', ''
  notes = [entry.note] if entry.note else []
  if not entry.verified:
    notes.append('unverified: only newer versions of the list are said to have it')
  for check in _GENERAL:
    reason = check(node)
    if reason:
      return reason, '; '.join(notes)
  for limit in entry.limits:
    reason = limit.check(node)
    if reason:
      return reason if limit.verified else f'{reason} (an unverified limit)', '; '.join(notes)
  return '', '; '.join(notes)
