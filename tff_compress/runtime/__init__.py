"""Running TFF computations: workers that end with this process, several workers, deadlines, errors that say what to do.

    from tff_compress import runtime

    runtime.install()                        # one local worker, in place of TFF's own
    runtime.install(workers=2, deadline=60)  # the clients of every call split over two
    runtime.connect(['hosta:8000', 'hostb:8000'])
    with runtime.local_context(workers=2) as context:
      ...

TFF's own local runtime leaves its worker behind when Python is killed, and calls to a worker that died never return.
`runtime.compat` is the one module of this project that touches private or moving parts of TFF. TensorFlow and TFF are
imported when a name that needs them is used.
"""

from tff_compress.codec import discovery
from tff_compress.runtime.errors import NotMergeableError
from tff_compress.runtime.errors import RuntimeConnectionError
from tff_compress.runtime.errors import RuntimeDeadlineError
from tff_compress.runtime.errors import RuntimeStartError
from tff_compress.runtime.errors import TffRuntimeError

_LAZY = ('Runtime', 'connect', 'install', 'local_context')
_MODULES = ('compat', 'context')

__all__ = ['NotMergeableError', 'RuntimeConnectionError', 'RuntimeDeadlineError', 'RuntimeStartError',
           'TffRuntimeError',
           *_LAZY]

__getattr__, __dir__ = discovery.lazily(__name__, {
    **{name: 'tff_compress.runtime.context' for name in _LAZY},
    **{name: f'tff_compress.runtime.{name}' for name in _MODULES}})
