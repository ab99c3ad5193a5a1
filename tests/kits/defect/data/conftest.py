import sys
from pathlib import Path

# own_sets.py lies beside the tests that use it.
sys.path.insert(0, str(Path(__file__).parent))
