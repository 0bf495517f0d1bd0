"""From ``module:function`` to the function; the current folder is importable."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from .errors import ArgumentError

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_function_name(text: str) -> bool:
    """Say whether a text has the form ``module:function``.

    >>> is_function_name("my_data:samples"), is_function_name("s3://bucket"), is_function_name("data/v1")
    (True, False, False)
    """
    return _NAME.fullmatch(text) is not None


def named_function(name: str) -> Callable[..., Any]:
    """Import a function.

    Raises:
        ArgumentError: There is no such module or function, or it cannot be called.

    >>> named_function("math:sqrt")(9)
    3.0
    >>> named_function("math:nothing")
    Traceback (most recent call last):
    curriculum_sampler.errors.ArgumentError: 'math:nothing': the module 'math' has no 'nothing'. ...
    """
    if not is_function_name(name):
        raise ArgumentError(f"{name!r} is no 'module:function'. Write it like 'my_data:samples'.")
    module_name, _, path = name.partition(":")
    found: Any = _imported(name, module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise ArgumentError(
                f"{name!r}: the module {module_name!r} has no {path!r}. Check the spelling, or define it there."
            )
        found = getattr(found, part)
    if not callable(found):
        raise ArgumentError(f"{name!r} is a {type(found).__name__}, which cannot be called. Name a function.")
    function: Callable[..., Any] = found
    return function


def _imported(name: str, module_name: str) -> Any:
    here = os.getcwd()
    if not {here, ""} & set(sys.path):
        # For good, since processes that are started later import the module, too.
        sys.path.append(here)
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        raise ArgumentError(
            f"{name!r}: the module {module_name!r} cannot be imported ({error}). Check its name; it is looked for "
            f"among what is installed and in {here}."
        ) from error
