"""The accuracy of trained members against their work: the law recovered, its interval kept, a further member judged."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from luthier.device.registry import get
from luthier.intervals import wilson
from luthier.job.results import TrainedFamily, TrainedMember
from luthier.job.scaling import ScaleRequest, scale_family
from luthier.job.trained import fit_law, trained_members
from luthier.report import scaling as page


def member(macs: int, accuracy: float, images: int = 1000) -> TrainedMember:
    return TrainedMember(
        run_dir="r", name=f"n{macs}", macs=macs, accuracy=accuracy, interval=wilson(accuracy, images),
        test_images=images, epochs=5,
    )  # fmt: skip


def share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def test_an_exact_law_is_recovered() -> None:
    images = 10**9  # so many that half an image more changes nothing
    macs = [10**6, 2 * 10**6, 8 * 10**6, 32 * 10**6]
    law = fit_law([member(m, share(0.4 + 0.3 * math.log(m / 1e6)), images) for m in macs])
    assert law.slope == pytest.approx(0.3, abs=1e-6)
    assert law.centre == pytest.approx(math.prod(macs) ** 0.25)
    for m in (5 * 10**5, 4 * 10**6):
        assert law.at(m)[1] == pytest.approx(share(0.4 + 0.3 * math.log(m / 1e6)), abs=1e-7)
    assert law.dispersion == 1


def test_the_interval_of_a_further_member_keeps_its_word() -> None:
    rng = np.random.default_rng(4)
    macs, new, images = [10**6, 2 * 10**6, 4 * 10**6, 8 * 10**6, 16 * 10**6], 3 * 10**6, 2000
    inside = 0
    for _ in range(400):
        # members scatter by more than the counting of their images, as trainings do
        truth = {m: share(0.5 + 0.25 * math.log(m / 1e6) + rng.normal(0, 0.08)) for m in (*macs, new)}
        counted = {m: rng.binomial(images, p) / images for m, p in truth.items()}
        low, _, high = fit_law([member(m, counted[m], images) for m in macs]).at(new, images)
        inside += low <= counted[new] <= high
    assert inside >= 0.95 * 400 - 3 * math.sqrt(400 * 0.95 * 0.05)


def test_perfect_scores_have_a_finite_law() -> None:
    law = fit_law([member(10**6, 0.9, 50), member(2 * 10**6, 1.0, 50), member(4 * 10**6, 1.0, 50)])
    assert all(0 <= value <= 1 for value in law.at(3 * 10**6, 50))


def test_a_checked_member_inside_and_outside() -> None:
    members = tuple(member(m, p) for m, p in ((10**6, 0.6), (2 * 10**6, 0.65), (4 * 10**6, 0.7), (8 * 10**6, 0.745)))
    family = TrainedFamily(data="d", members=members, law=fit_law(members))
    assert family.holds is None
    assert "doubling the work multiplies the odds" in page.trained_verdict(family)
    inside = dataclasses.replace(family, checked=member(3 * 10**6, 0.68))
    outside = dataclasses.replace(family, checked=member(3 * 10**6, 0.3))
    assert (inside.holds, outside.holds) == (True, False)
    assert ", inside the" in page.trained_verdict(inside)
    assert ", outside the" in page.trained_verdict(outside)
    assert len(page.accuracy(outside).figure.data) == 5
    assert page.trained_table(outside).marked == frozenset({4})


def test_runs_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no finished run here"):
        trained_members([tmp_path])


def test_the_page_shows_the_family_its_growth_and_its_trained_members() -> None:
    request = ScaleRequest(phis=(-1.0, 0.0, 1.0))
    found = scale_family("mbconv_thumbnail", get("raspberry_pi_4"), request)
    members = tuple(member(m, p) for m, p in ((10**6, 0.6), (2 * 10**6, 0.65), (4 * 10**6, 0.7)))
    family = TrainedFamily(
        data="d", members=members, law=fit_law(members), checked=member(3 * 10**6, 0.68), remarks=("unequal epochs",)
    )
    growth = page.doubling(found)
    assert growth is not None
    low, middle, high = (m.cost.macs for m in found.members)
    assert list(growth.figure.data[0].y) == pytest.approx([middle / low, high / middle])
    assert page.doubling(scale_family("mbconv_thumbnail", get("raspberry_pi_4"), ScaleRequest(phis=(1.0,)))) is None
    html = page.render(found, "0", family)
    assert html.count('data-figure="') == 3
    assert "Trained members" in html
    assert "unequal epochs" in html
    assert "Trained members" not in page.render(found, "0")
