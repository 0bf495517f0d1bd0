"""One file a command; its name is the command's, with ``_`` for ``-``.

A command is a module with a docstring, ``add_arguments(parser)`` and ``run(arguments, terminal)``, which returns an
``Answer`` (or None when it has said all itself). The docstring is its help: a first line that sums it up, a
description, and ``Examples:``. ``ON_INTERRUPT``, if there is one, tells who pressed Ctrl-C what is kept. A file put
here is a command; nothing else needs to know.

Commands take what they do from the shelf (``import curriculum_sampler as cs``), so that their help costs no import.
"""
