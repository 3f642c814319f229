"""The codec: its maths, its text form and its payloads. NumPy only.

The module is callable: `tff_compress.codec('hadamard | uniform:bits=2 | pack')` makes a `Codec`.

The architecture from the folders: `transforms/` (R→R), `quantizers/` (R→Z or R→bytes) and `coders/` (Z→bytes) hold one
stage per file; `presets/` one named codec per file. `stage.py` says what a stage is, `pipeline.py` chains them,
`codec.py` gives each variable its pipeline, `grammar.py` reads the text. All maths is written over the table of
`ops.py`.
"""

import sys
import types

from tff_compress.codec.codec import Codec
from tff_compress.codec.codec import Plan
from tff_compress.codec.errors import CodecError
from tff_compress.codec.errors import CompressionError
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.errors import SpecError
from tff_compress.codec.errors import UnmatchedRuleWarning
from tff_compress.codec.errors import UpdateError
from tff_compress.codec.grammar import as_codec
from tff_compress.codec.grammar import MAX_TEXT
from tff_compress.codec.grammar import parse
from tff_compress.codec.grammar import preset
from tff_compress.codec.random import SHARED_CLIENT
from tff_compress.codec.spec import Spec
from tff_compress.codec.spec import TensorSpec

__all__ = ['Codec', 'CodecError', 'CompressionError', 'MAX_TEXT', 'PayloadError', 'Plan', 'SHARED_CLIENT', 'Spec',
           'SpecError',
           'TensorSpec', 'UnmatchedRuleWarning', 'UpdateError', 'parse', 'preset']


class CallableModule(types.ModuleType):
  """What this module is, as type checkers know no module that is called."""

  def __call__(self, text: str | Codec) -> Codec:
    """Parses and validates a codec's text; a `Codec` is returned as it is. Raises CodecError."""
    return as_codec(text)


sys.modules[__name__].__class__ = CallableModule
