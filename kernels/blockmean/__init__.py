"""Block means: a volume of integers, averaged over blocks of whole voxels, read once.

`reference.py` is the definition; the native code gives the same bits.
"""

from kernels.blockmean.native import block_mean

__all__ = ["block_mean"]
