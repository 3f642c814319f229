"""`python -m tff_compress.cli`: the same as the command `tff-compress`."""

import sys

from tff_compress.cli import main

sys.exit(main())
