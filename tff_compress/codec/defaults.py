"""The codecs where nothing is named, and each direction stands alone.

Where one process settles both directions, `tff_compress.processes.methods.auto` does, and this is what it falls back on
where the shared subspace cannot be.
"""

UPLINK = 'shared-mask:least=512'
"""Of updates: unbiased, a twentieth of a per cent of float32's bytes, and fewer values than this make training diverge
(docs/methods/subspace.md)."""

DOWNLINK = 'int8'
"""Of whole models, which nothing makes good: 8 bits are harmless, 4 destroy a model in the long run."""

UNNAMED = 'default'
"""Word for an uplink that is not named: `BOTH_WAYS`, or float32 where the downlink is named."""

BOTH_WAYS = 'auto'
"""The method of both directions where none is named."""
