"""Where to cut a network between devices, and the files that run the cut.

`partition` finds the best plan, `split` writes one ONNX file per part, `picture` draws it.
"""

from costmodel.partition.links import LINKS, Link, parse_link
from costmodel.partition.plan import Part, Plan, Transfer, partition
from costmodel.partition.problem import FileCuts

__all__ = ["LINKS", "FileCuts", "Link", "Part", "Plan", "Transfer", "parse_link", "partition"]
