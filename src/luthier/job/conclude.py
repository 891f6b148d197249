"""How every run ends: the final training, export, latency, the only look at the test images, `result.json`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from luthier import __version__
from luthier.errors import BudgetError
from luthier.job import finish
from luthier.job.candidates import Member
from luthier.job.classify import preprocess_document
from luthier.job.final import train_to_the_end
from luthier.job.folder import RunFolder, environment
from luthier.job.result import SCHEMA, Result, write
from luthier.job.session import Session
from luthier.job.study import Study
from luthier.nn.build import Classifier
from luthier.train.loader import loader
from luthier.train.metrics import evaluate, write_epochs
from luthier.train.results import Trained
from luthier.units import show


def conclude(
    session: Session,
    study: Study,
    folder: RunFolder,
    final: Member,
    remarks: list[str],
    last: Callable[[], None] = lambda: None,
) -> Result:
    """Train the chosen candidate to the end; export, check, measure and test it; write `result.json`.

    Args:
        last: done with the exported run before `result.json`, which says that nothing is left to do.
    Raises:
        BudgetError: its training diverged.
    """
    module, trained = train_to_the_end(session, study, folder, final)
    if trained.best is None:
        study.close(final, "failed", "the final training diverged", None)
        raise BudgetError(f"fit: the final training of {final.network.name} diverged; {trained.diverged}")
    module.load_state_dict(trained.state)
    module = module.cpu().eval()
    result = _finished(session, study, folder, final, module, trained, remarks)
    last()
    write(result, folder.result)
    return result


def _finished(
    session: Session,
    study: Study,
    folder: RunFolder,
    final: Member,
    module: Classifier,
    trained: Trained,
    remarks: list[str],
) -> Result:
    """Export, measure, and look at the test images for the first and only time."""
    request, splits, network = session.request, session.splits, final.network
    transform = session.transform(network)
    some = next(iter(loader(splits.val, transform, 16, shuffle=False, seed=0, epoch=0)))[0]
    asked = preprocess_document(session.preprocess(network), splits.class_names)
    write_epochs(folder.metrics, trained.history)
    check = finish.export(folder, network, module, asked, some)
    latency = finish.measure(folder, request.threads)
    tested = evaluate(module, splits.test, transform=transform, num_classes=splits.num_classes)
    winner = finish.winner(folder, network, check, latency, trained.history, np.array(tested.confusion))
    study.close(final, "winner", "trained to the end", winner.val_accuracy)
    limits = finish.limits(request.budget, final, latency)
    remarks += [
        f"{limit.name} does not hold: it came to {show(limit.value, limit.dimension)}, {limit.kind}"
        for limit in limits
        if not limit.holds
    ]
    if study.has("round_is_final") and study.note("round_is_final", bool):
        remarks.append("the time limit left no final training longer than the round that chose the network")
    if trained.stopped == "deadline":
        remarks.append(
            f"the machine became slower than planned: {len(trained.history)} epochs were run, and the learning rate "
            "followed the time"
        )
    return Result(
        schema=SCHEMA,
        version=__version__,
        command=request.command,
        title=f"{Path(splits.origin).name}: {winner.name}",
        device=request.device,
        seed=request.seed,
        time_limit_s=request.time_limit_s,
        wall_s=session.clock.elapsed_s,
        pretrained=request.pretrained,
        data=finish.describe(splits),
        limits=limits,
        candidates=study.candidates(),
        winner=winner,
        remarks=tuple(remarks),
        environment=tuple(environment().items()),
    )
