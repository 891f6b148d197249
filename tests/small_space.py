"""A space of small networks, as people write it; a stage or several are to follow."""

from __future__ import annotations

FRAME = """
schema = "luthier.space/1"
name = "tiny"
resolutions = [8]
channel_divisor = 4
stem = [{ kind = "conv", out_channels = 8, stride = 2 }]
head = { num_classes = 10 }
"""
BODY = (
    FRAME
    + """
[[stages]]
name = "body"
out_channels = [8, 12]
depth = [1, 2]
kernel_size = [3, 5]
attention = ["none", "se/4", "spatial"]
"""
)
