"""Uplinks: aggregation factories whose clients send encoded updates and whose server decodes them."""

from tff_compress.aggregators.accounting import communication
from tff_compress.aggregators.codec_sum import CodecSumFactory
from tff_compress.aggregators.codec_sum import uplink

__all__ = ['CodecSumFactory', 'communication', 'uplink']
