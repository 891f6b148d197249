"""`luthier run`: a finished run folder and images in, classes and probabilities out.  Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from luthier.deploy.latency import open_session
from luthier.errors import DataError, InputError, RunFolderError, SpecError
from luthier.train.pixels import IMAGE_SUFFIXES, read_rgb
from luthier.train.preprocess import Preprocess

SCHEMA: Final = "luthier.preprocess/1"


@dataclass(frozen=True)
class Answer:
    """What the network says of one image.

    Attributes:
        probability: of the class, softmax of the scores; as confident as the network is, not calibrated.
        top: the five most probable classes with their probabilities.
    """

    image: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


def preprocess_document(preprocess: Preprocess, class_names: Sequence[str]) -> str:
    """Text of `preprocess.json`: all that a user of `model.onnx` must know."""
    fields = {"schema": SCHEMA, "preprocess": preprocess.to_json(), "class_names": list(class_names)}
    return json.dumps(fields, indent=1, ensure_ascii=False) + "\n"


def read_preprocess(path: Path) -> tuple[Preprocess, tuple[str, ...]]:
    """Read `preprocess.json`.

    Raises:
        RunFolderError: missing, torn, or of another version.
    """
    try:
        document: Any = json.loads(path.read_text("utf-8"))
        if document["schema"] != SCHEMA:
            raise RunFolderError(f"{path}: expected {SCHEMA}, got {document['schema']!r}; written by another version?")
        return Preprocess.from_json(document["preprocess"]), tuple(document["class_names"])
    except RunFolderError:  # is an OSError too
        raise
    except OSError:
        raise RunFolderError(
            f"{path}: not there; RUN must be the folder of a finished `luthier fit` or `train`"
        ) from None
    except (ValueError, KeyError, TypeError, SpecError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}); run `luthier fit` again") from None


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Files as given, folders searched for images by their suffix, in order of name.

    Raises:
        DataError: a path is missing, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
            if not inside:
                raise DataError(f"{path}: no images here (looked for {' '.join(sorted(IMAGE_SUFFIXES))})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise DataError(f"{path}: no such file or folder")
    if not found:
        raise InputError("IMAGES: name at least one image or folder")
    return found


def classify(run_dir: Path, paths: Sequence[Path], threads: int = 1) -> Iterator[Answer]:
    """Answer for each image in turn.

    Args:
        run_dir: a finished run folder.
        paths: images and folders of images.
    Raises:
        RunFolderError: not a finished run.
        DataError: an image cannot be read.
    """
    preprocess, class_names = read_preprocess(run_dir / "preprocess.json")
    images = find_images(paths)
    session = open_session(run_dir / "model.onnx", threads)
    (spec,) = session.get_inputs()
    for path in images:
        scores = session.run(None, {spec.name: preprocess.apply(read_rgb(path)[0])})[0][0].astype(np.float64)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        order = np.argsort(-shares, kind="stable")[:5]
        top = tuple((class_names[i], round(float(shares[i]), 6)) for i in order)
        yield Answer(str(path), top[0][0], top[0][1], top)
