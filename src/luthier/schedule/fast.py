"""How much fast memory a tile may fill on a device."""

from __future__ import annotations

from typing import Final

from luthier.device import Device

#: where nothing better is known: the private L2 cache of a server core
FAST_BYTES: Final = 1 << 20
#: of a microcontroller's RAM, beside the tensors between groups
_RAM_SHARE: Final = 4


def fast_bytes(device: Device) -> int:
    """The cache behind the nearest one, since the nearest holds little more than a kernel's own blocks.

    device                                     fast memory
    several caches before the last memory      the second (L2)
    one                                        that one
    a microcontroller, or none                 a quarter of its RAM; 1 MiB if that is not known

    Example:
        >>> from luthier.device.registry import get
        >>> [fast_bytes(get(name)) // 1024 for name in ("stm32f746", "raspberry_pi_4")]
        [80, 1024]
    """
    levels = [level for level in device.memory if level.holds != "weights"][:-1]
    caches = [int(level.size_bytes.value) for level in levels if level.size_bytes is not None]
    if device.kind == "microcontroller" or not caches:
        return FAST_BYTES if device.ram_bytes is None else int(device.ram_bytes.value) // _RAM_SHARE
    return caches[min(1, len(caches) - 1)]
