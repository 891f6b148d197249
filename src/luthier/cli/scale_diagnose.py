"""`luthier scale MODEL --diagnose`: fields and widths against the input."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from luthier import __version__
from luthier.cli import output
from luthier.files import write_text
from luthier.units import parse


def diagnose(
    model: str, resolution: int | None, images: str | None, object_size: str | None, pretrained: str | None,
    html: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """Examine, show, and return the JSON document."""
    from luthier.job.balance import diagnose as run
    from luthier.report import balance as page

    object_px = None if object_size is None else int(parse(object_size, "pixels", "--object-size"))
    found = run(model, resolution=resolution, images=images, object_px=object_px, pretrained=pretrained)
    output.console().print(page.lines(found))
    if html is not None:
        write_text(html, page.render(found, __version__))
        output.say(f"{html}: written")
    return {
        **asdict(found),
        "layers_kind": "modelled",
        "uses_kind": "measured",
        "layers": [
            {
                **asdict(layer),
                "beyond": layer.beyond(found.image_hw),
                "beyond_on_widest_path": layer.beyond(found.image_hw, on_widest=True),
            }
            for layer in found.layers
        ],
    }
