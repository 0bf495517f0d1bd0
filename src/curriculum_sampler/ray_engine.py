"""The tasks of a build on a Ray cluster. What a task does is the same as anywhere else, and so are its bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable
from typing import Any, TypeVar

from .errors import CurriculumError
from .extras import missing

try:
    import ray
    import ray.exceptions
except ImportError as error:
    raise missing("ray", "ray") from error

Task = TypeVar("Task")
Result = TypeVar("Result")

# Tasks on their way for each core of the cluster: one at work and one waiting.
_AHEAD = 2
# How often a task is begun again when the process or machine that has it dies.
_MOST_DEATHS = 5


class RayEngine:
    """Tasks on the cores of a Ray cluster; those of a worker that dies are given to another.

    Source and destination must be reachable from every machine of the cluster: urls, or a shared folder. Modules that
    scores and sources are defined in must be importable there. The journal stays on the machine that builds.

    Args:
        address: ``ray://host:10001``, or None for the cluster that ``RAY_ADDRESS`` or an earlier ``ray.init()`` names;
            where there is none, one is started on this machine.
    """

    is_elsewhere = True

    def __init__(self, address: str | None = None) -> None:
        if ray.is_initialized():
            return
        try:
            if address is None:
                ray.init(include_dashboard=False, log_to_driver=False)
            else:
                ray.init(address)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise CurriculumError(
                f"No Ray cluster at {address or 'RAY_ADDRESS'} ({error}). Check the address."
            ) from error

    def run(
        self, work: Callable[[Any, Task], Result], shared: Any, tasks: Iterable[Task]
    ) -> Generator[tuple[Task, Result], None, None]:
        """See ``Engine``."""
        remote = ray.remote(max_retries=_MOST_DEATHS)(_worked)
        given = ray.put((work, shared))
        coming = iter(tasks)
        running: dict[Any, Task] = {}
        try:
            while True:
                # Asked anew each time: a cluster grows and shrinks.
                ahead = _AHEAD * max(1, _cores())
                for task in itertools.islice(coming, max(0, ahead - len(running))):
                    running[remote.remote(given, task)] = task
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1)
                for reference in done:
                    yield running.pop(reference), _result(reference)
        finally:
            for reference in running:
                ray.cancel(reference, force=False)


def _cores() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return int(resources.get("CPU", 1))


def _worked(given: tuple[Callable[[Any, Any], Any], Any], task: Any) -> Any:
    work, shared = given
    return work(shared, task)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:
        raise CurriculumError(
            f"The Ray cluster lost a task more than {_MOST_DEATHS} times ({error}). If memory ran out, use smaller shards; "
            "then run the build again: it goes on from here."
        ) from error
