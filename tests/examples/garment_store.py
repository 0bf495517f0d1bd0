"""An S3 store for the tests of try-on data."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest

from ..s3_server import moto_server


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The endpoint of a store with an empty bucket ``garments``, and credentials for it."""
    with pytest.MonkeyPatch.context() as patch, moto_server() as endpoint:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="garments")
        yield endpoint
