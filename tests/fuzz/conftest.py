"""Makes the fuzzer beside this file importable, for the tests as for scripts/bench/fuzz."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
