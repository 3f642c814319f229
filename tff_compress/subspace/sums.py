"""How clients' coordinates are added, by name."""

from collections.abc import Mapping
import types

from tff_compress.subspace.integer_sums import IntegerSums
from tff_compress.subspace.private_sums import PrivateSums

SUMS: Mapping[str, PrivateSums | IntegerSums] = types.MappingProxyType(
    {'private': PrivateSums(), 'integers': IntegerSums()})
