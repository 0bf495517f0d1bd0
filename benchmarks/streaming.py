"""How fast are samples read from shards? Ours beside its peers and beside what the system calls alone cost, in one run.

    python benchmarks/streaming.py --data /tmp/streaming                        # everything; see benchmarks/README.md
    python benchmarks/streaming.py --data /tmp/streaming --small --peers none   # a minute, to see that it works

The data, 1.6 GB in three buckets of shards, is made in the folder at the first run. Every case runs in a process of its
own, so that imports, caches and memory do not mix; numbers are medians over such processes. CPU time is that of the
process with its threads and workers, from after the imports on; the server's is not in it. GB are 10^9 bytes of
samples delivered.

A whole run writes ``benchmarks/results/streaming.json`` and puts the tables between the markers of ``docs/benchmarks.md``.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

if __name__ == "__main__":
    from streaming_run import main

    main(__doc__)
else:
    # A peer's package has this file's name, and the scripts here look beside themselves first: give them the package.
    _elsewhere = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
    _found = PathFinder.find_spec(__name__, _elsewhere)
    if _found is None or _found.loader is None:
        raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
    sys.modules[__name__] = module_from_spec(_found)
    _found.loader.exec_module(sys.modules[__name__])
