"""Look whether all is well here: versions, extras, S3, the cache, a data set.

Nothing is changed, and no credentials are shown. S3 is asked one harmless
request, if DATA lies there or the environment or an option names a server or
credentials. With DATA the manifest is loaded, and one sample read and verified.
Exit code 1 means that something is broken; each fault says what to do.

Examples:
  curriculum-sampler doctor
  curriculum-sampler doctor s3://my-bucket/pictures/v1 --profile trainer
  curriculum-sampler doctor data/v1 --cache-dir /scratch/cache --json
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..cache_folder import default_folder
from ..errors import MissingExtraError
from ..health import Finding
from ..health.cache import look_at_cache
from ..health.data import look_at_data
from ..health.installed import look_at_extras, look_at_versions
from ..location_arguments import add_split, add_storage, storage_options
from ..terminal import Answer, Terminal, counted

# Somebody means S3 to be used.
_SIGNS_OF_S3 = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", nargs="?", help="a data set: a folder or s3://bucket/prefix")
    add_split(parser)
    cache = parser.add_argument_group("cache")
    cache.add_argument(
        "--cache-dir", type=Path, metavar="DIR", help="as given to the loader (default: its default)"
    )
    cache.add_argument("--cache-bytes", type=int, metavar="N", help="as given to the loader")
    add_storage(parser)


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    s3 = _look_at_s3(arguments)
    findings = [
        look_at_versions(),
        look_at_extras(),
        s3,
        look_at_cache(arguments.cache_dir or default_folder(), arguments.cache_bytes),
    ]
    if arguments.data and not s3.faults:
        findings.append(look_at_data(arguments.data, arguments.split, storage_options(arguments)))
    faults = [fault for finding in findings for fault in finding.faults]
    ending = (
        terminal.bad(f"{counted(len(faults), 'fault')}.") if faults else terminal.good("Nothing is broken.")
    )
    return Answer(
        {finding.title: {**finding.told, "faults": [*finding.faults]} for finding in findings},
        "\n\n".join([*(_shown(finding, terminal) for finding in findings), ending]),
        exit_code=1 if faults else 0,
    )


def _look_at_s3(arguments: Namespace) -> Finding:
    options = storage_options(arguments)
    is_s3 = (arguments.data or "").startswith("s3://")
    if not is_s3 and not options and not any(map(os.environ.get, _SIGNS_OF_S3)):
        return Finding("s3", [("", "not asked: nothing here names a server, a profile or credentials")], {})
    try:
        # Optional extra: boto3 is loaded only by those who read from S3.
        from ..health.s3 import look_at_s3  # noqa: PLC0415
    except MissingExtraError as error:
        # Without DATA on S3 nobody needs it: the environment may be another program's.
        return Finding("s3", [("", f"not asked. {error}")], {}, [str(error)] if is_s3 or options else [])
    return look_at_s3(arguments.data if is_s3 else None, options)


def _shown(finding: Finding, terminal: Terminal) -> str:
    width = max((len(name) for name, _ in finding.rows), default=0)
    rows = [f"  {name:{width}}  {found}" if width else f"  {found}" for name, found in finding.rows]
    return "\n".join(
        [terminal.strong(finding.title), *rows, *(terminal.bad(f"  ! {fault}") for fault in finding.faults)]
    )
