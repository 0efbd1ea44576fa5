"""The hardware world: integer graphs become streaming designs. Knows no vendor, and no HDL but in its renderers."""

from bitfab.hw.design import Design, Folding, Target, write_files
from bitfab.hw.generate import generate

__all__ = ["Design", "Folding", "Target", "generate", "write_files"]
