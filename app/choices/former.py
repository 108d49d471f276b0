"""Links of earlier versions: what they call otherwise than this one."""

from collections.abc import Mapping

from app.choices.ranges import numbers

_TASKS = range(1, 11)
_ORIGINS = {"simulated": "simulated", "held out": "babi"}


def renamed(link: Mapping[str, str]) -> dict[str, str]:
    """A link under the names of this version. What cannot be read stays as it is.

    Before there were question sets, a link named the task of bAbI's questions and, of a probe's documents, tasks,
    origin and seed.
    """
    values = dict(link)
    task = values.get("exam_task", "")
    if "set" not in values and task.isascii() and task.isdecimal() and int(task[:9]) in _TASKS:
        values["set"] = f"babi:qa{int(values.pop('exam_task'))}"
    former = {"probe_tasks", "probe_origin", "probe_seed"} & set(values)
    if former and "probe_sets" not in values and (sets := _sets(values)) is not None:
        seed = values.get("probe_seed")
        values = {name: value for name, value in values.items() if name not in former}
        values |= {"probe_sets": sets} | ({} if seed is None else {"probe_draws": seed})
    return values


def _sets(link: Mapping[str, str]) -> str | None:
    """The sets of a probe's documents; None if their tasks, origin or seed cannot be read."""
    kind, seed = _ORIGINS.get(link.get("probe_origin", "simulated")), link.get("probe_seed", "0")
    try:
        tasks = numbers(link.get("probe_tasks", "1"))
    except ValueError:
        return None
    if kind is None or not set(tasks) <= set(_TASKS) or not (seed.isascii() and seed.isdecimal() and len(seed) <= 10):
        return None
    options = f"?seed={int(seed)}" if kind == "simulated" and int(seed) else ""
    return "\n".join(f"{kind}:qa{task}{options}" for task in tasks)
