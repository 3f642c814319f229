"""Downlinks: distribution processes whose server sends an encoded model."""

from tff_compress.distributors.codec_broadcast import downlink

__all__ = ['downlink']
