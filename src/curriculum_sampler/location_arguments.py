"""The arguments that say where data lie, the same for every command."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from .locations import StorageOptions


def add_data(parser: ArgumentParser, *, what: str = "a data set", split: str | None = "train") -> None:
    """Add the data set and its split."""
    parser.add_argument("data", metavar="DATA", help=f"{what}: a folder or s3://bucket/prefix")
    add_split(parser, default=split)
    add_storage(parser)


def add_split(parser: ArgumentParser, *, default: str | None = "train") -> None:
    """Add ``--split``."""
    told = "all" if default is None else default
    parser.add_argument("--split", default=default, metavar="NAME", help=f"which split (default: {told})")


def add_storage(parser: ArgumentParser) -> None:
    """Add the options of ``s3://`` urls."""
    group = parser.add_argument_group("s3:// urls")
    group.add_argument(
        "--endpoint-url", metavar="URL", help="server to ask instead of AWS (default: AWS_ENDPOINT_URL)"
    )
    group.add_argument("--profile", metavar="NAME", help="profile in the AWS configuration files")
    group.add_argument("--region", metavar="NAME", help="AWS region")
    group.add_argument("--anonymous", action="store_true", help="do not sign requests; for public data")
    group.add_argument(
        "--requester-pays", action="store_true", help="accept that you are charged for the transfer"
    )


def storage_options(arguments: Namespace) -> StorageOptions:
    """Return the options that were given, as the library's functions take them."""
    options: StorageOptions = {}
    if arguments.endpoint_url:
        options["endpoint_url"] = arguments.endpoint_url
    if arguments.profile:
        options["profile"] = arguments.profile
    if arguments.region:
        options["region"] = arguments.region
    if arguments.anonymous:
        options["anonymous"] = True
    if arguments.requester_pays:
        options["requester_pays"] = True
    return options
