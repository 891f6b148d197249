"""The page as a whole: golden text, no network, no foreign code, and any result a run can end with."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luthier.errors import RunFolderError
from luthier.job.result import Candidate, Limit, Result
from luthier.report import render, write
from luthier.report.page import verdict

GOLDEN = Path(__file__).parents[1] / "golden" / "report.html"
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\" onclick='alert(3)' {{ 7 * 7 }} %{x} <b>b</b>"
VOID = {"meta", "br", "img", "link", "input", "hr", "base"}


class Page(HTMLParser):
    """Tags with attributes, the text of scripts, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = attrs, text + data
        elif not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def figures(self) -> dict[str, dict[str, object]]:
        return {str(a["id"]): json.loads(t) for a, t in self.scripts if a.get("type") == "application/json"}


def scrub(html: str) -> str:
    """Without what another version of plotly or of luthier would change."""
    html = re.sub(r"<script>.*?</script>", "<script>…</script>", html, flags=re.DOTALL)
    html = re.sub(r"<style>.*?</style>", "<style>…</style>", html, flags=re.DOTALL)
    html = re.sub(r"'sha256-[^']+'", "'sha256-…'", html)
    return re.sub(
        r'(<script type="application/json" id="[^"]+">)(.*?)(</script>)',
        lambda m: m[1] + json.dumps(rounded(json.loads(m[2])), indent=1, ensure_ascii=False, sort_keys=True) + m[3],
        html,
        flags=re.DOTALL,
    )


def rounded(value: object) -> object:
    """Last digits may differ between mathematical libraries."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def test_page_is_the_stored_one(result: Result, update_golden: bool) -> None:
    got = scrub(render(result))
    if update_golden:
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(got, encoding="utf-8")
    assert got == GOLDEN.read_text(encoding="utf-8"), "pytest tests/report --update-golden, then read the diff"


def test_page_loads_nothing(result: Result) -> None:
    html = render(result)
    page = Page(html)
    assert not page.open
    for tag, attributes in page.tags:
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "audio", "video", "source", "form"}
        for name in ("src", "srcset", "poster", "action", "background", "data"):
            assert name not in attributes, (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#"), (tag, attributes)
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    assert not re.search(r"@import|url\(|https?:", style[1])
    assert "https://cdn" not in page.text


def test_links_lead_somewhere(result: Result) -> None:
    page = Page(render(result))
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for _, a in page.tags if "href" in a} <= set(ids)
    assert {a["data-figure"] for _, a in page.tags if "data-figure" in a} == set(page.figures)


def test_policy_admits_the_two_scripts_and_nothing_else(result: Result) -> None:
    html = render(result)
    page = Page(html)
    policy = next(str(a["content"]) for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    code = [text for attributes, text in page.scripts if "type" not in attributes]
    assert len(code) == 2
    for script in code:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert policy.count("unsafe") == policy.count("style-src 'unsafe-inline'") == 1
    # plotly.js once, and the whole well below 6 MB
    assert html.count("plotly.js v") == 1
    assert len(html.encode()) < 6e6


def test_a_hundred_classes_fit(hundred: Result) -> None:
    html = render(hundred)
    assert len(html.encode()) < 6e6
    heat = Page(html).figures["confusion-data"]["data"][0]  # type: ignore[index]
    assert len(heat["z"]) == len(heat["z"][99]) == 100


def evil(result: Result) -> Result:
    best, data = result.winner, result.data
    names = (EVIL, *data.class_names[1:])
    candidates = tuple(dataclasses.replace(c, name=EVIL, reason=EVIL) for c in result.candidates)
    layers = tuple(dataclasses.replace(x, name=EVIL, kind=EVIL, text=EVIL) for x in best.layers)
    return dataclasses.replace(
        result,
        title=EVIL,
        command=EVIL,
        device=EVIL,
        pretrained=EVIL,
        remarks=(EVIL,),
        environment=((EVIL, EVIL),) * len(result.environment),
        data=dataclasses.replace(
            data, origin=EVIL, class_names=names, notes=(EVIL,) * len(data.notes), fingerprint=EVIL
        ),
        limits=tuple(dataclasses.replace(x, name=EVIL) for x in result.limits),
        candidates=candidates,
        winner=dataclasses.replace(best, name=EVIL, network_json=EVIL, latency_runtime=EVIL, layers=layers),
    )


def test_names_are_text_never_markup(result: Result) -> None:
    plain, page = Page(render(result)), Page(render(evil(result)))
    # the same elements with the same attributes, but for what the page says about them
    shape = [(tag, sorted(attributes)) for tag, attributes in plain.tags]
    assert [(tag, sorted(attributes)) for tag, attributes in page.tags] == shape
    assert page.text.count(" ".join(EVIL.split())) > 15
    assert "49" not in page.text.split("{{ 7 *")[0]


def test_labels_of_charts_hold_no_markup(result: Result) -> None:
    def strings(value: object) -> list[str]:
        if isinstance(value, dict):
            return [s for item in value.values() for s in strings(item)]
        if isinstance(value, list):
            return [s for item in value for s in strings(item)]
        return [value] if isinstance(value, str) else []

    found = [s for figure in Page(render(evil(result))).figures.values() for s in strings(figure)]
    # plotly reads a little HTML: only what we wrote ourselves may look like it
    ours = re.compile(r"</?b>|<br>|<extra></extra>")
    for text in found:
        assert "<" not in ours.sub("", text), text
    assert any("&lt;/script" in text for text in found)


def test_an_unlucky_surrogate_is_replaced(result: Result, tmp_path: Path) -> None:
    odd = dataclasses.replace(result, title="caf\udce9.npz")
    write(odd, tmp_path / "report.html")
    assert "caf?.npz" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_write_is_render(result: Result, tmp_path: Path) -> None:
    write(result, tmp_path / "deep" / "report.html")
    assert (tmp_path / "deep" / "report.html").read_text(encoding="utf-8") == render(result)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_write_says_where_it_could_not(result: Result, tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(RunFolderError, match=r"report\.html: "):
        write(result, tmp_path / "report.html")


def test_verdict_names_what_is_exceeded(result: Result) -> None:
    broken = Limit("--max-latency", "latency", 0.002, 0.0021, "measured")
    holding = Limit("--max-macs", "count", 20e6, 20e6, "modelled")
    say = {n: verdict(dataclasses.replace(result, limits=x)) for n, x in enumerate([(), (holding,), (broken, holding)])}
    assert say == {
        0: "No hard limit was set.", 1: "The limit holds.", 2: "1 of 2 limits is exceeded: --max-latency.",
    }  # fmt: skip
    page = Page(render(dataclasses.replace(result, limits=(broken, holding))))
    assert "✗ 1 of 2 limits is exceeded" in page.text
    assert "✗ no" in page.text


def test_findings_stand_in_the_text(result: Result) -> None:
    text = Page(render(result)).text
    for finding in ("78.7 %", "77.9 to 79.5 %", "All 3 limits hold.", "548 µs", "dog/empty.png has 0 bytes",
                    "above --max-macs 20 M", "the loss was not a number in epoch 3", "57.3 → diverged"):  # fmt: skip
        assert finding in text
    # every cost in the tables says what it is
    assert text.count("modelled") > 10
    assert text.count("measured") > 10


def test_import_is_light() -> None:
    heavy = "{'torch', 'plotly', 'numpy', 'jinja2', 'rich'}"
    code = f"import sys, luthier.report; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


NAMES = st.text(min_size=1, max_size=60)
SHARES = st.floats(0, 1)


@st.composite
def results(draw: st.DrawFn, base: Result) -> Result:
    """`base` with odd names, missing measurements, few candidates and a class that was never tested."""
    names = tuple(draw(st.lists(NAMES, min_size=2, max_size=5)))
    count = len(names)
    cells = draw(st.lists(st.integers(0, 9), min_size=count * count, max_size=count * count))
    rows = [tuple(cells[i * count : (i + 1) * count]) for i in range(count)]
    rows[draw(st.integers(0, count - 1))] = (0,) * count
    template = base.candidates[4]
    kept: list[Candidate] = []
    for number in range(draw(st.integers(1, 5))):
        status = draw(st.sampled_from(["left_out", "halted", "failed"])) if number else "winner"
        rungs = tuple(
            dataclasses.replace(rung, val_accuracy=draw(st.none() | SHARES))
            for rung in template.rungs[: draw(st.integers(0, 3))]
        )
        kept.append(
            dataclasses.replace(
                template, number=number, name=draw(NAMES), status=status, reason=draw(st.text(max_size=80)),  # type: ignore[arg-type]
                phi=draw(st.none() | st.floats(-5, 5)), latency_s=draw(st.none() | st.floats(1e-9, 10)),
                macs=draw(st.integers(0, 10**12)), rungs=() if status == "left_out" else rungs,
            )
        )  # fmt: skip
    best = dataclasses.replace(
        base.winner, name=draw(NAMES), confusion=tuple(rows), history=base.winner.history[: draw(st.integers(0, 3))],
        layers=base.winner.layers[: draw(st.integers(0, 3))], val_accuracy=draw(SHARES),
        macs=draw(st.integers(0, 10**12)),
    )  # fmt: skip
    data = dataclasses.replace(
        base.data, class_names=names, num_val=draw(st.integers(0, 50)), num_test=sum(map(sum, rows)), notes=()
    )
    return dataclasses.replace(
        base, title=draw(NAMES), data=data, candidates=tuple(kept), winner=best, remarks=(),
        limits=base.limits[: draw(st.integers(0, 3))], pretrained=draw(st.none() | NAMES),
    )  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_any_result_makes_a_whole_page(result: Result, drawn: st.DataObject) -> None:
    odd = drawn.draw(results(result))
    html = re.sub(r"<script>.*?</script>", "", render(odd), flags=re.DOTALL)
    page = Page(html)
    assert not page.open
    assert {"trade-off-data", "confusion-data"} <= set(page.figures)
    untested = [i for i, row in enumerate(odd.winner.confusion) if not sum(row)]
    heat = page.figures["confusion-data"]["data"][0]  # type: ignore[index]
    for index, shares in enumerate(heat["z"]):
        assert shares == [None] * len(shares) if index in untested else abs(sum(shares) - 1) < 1e-3
