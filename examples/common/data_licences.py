"""What may be done with public try-on data, said where the data is converted and written beside what comes of it.

A summary for orientation: the terms that came with the data are what binds.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import curriculum_sampler as cs

NOTICE_FILE = "LICENSE-NOTICE"
"""Name of the notice beside the shards."""


@dataclass(frozen=True, slots=True)
class DataLicence:
    """The terms of a data set.

    Attributes:
        data_set: Its name.
        terms: The short name that every sample carries.
        notice: What a user has to know.
        must_accept: Whether nothing may be read before the user has said that they hold the licence.
    """

    data_set: str
    terms: str
    notice: str
    must_accept: bool = False

    def check(self, accepted: bool) -> None:
        """Let nothing pass without the acceptance that the terms ask for.

        Raises:
            ArgumentError: The terms must be accepted and were not.
        """
        if self.must_accept and not accepted:
            raise cs.ArgumentError(
                f"{self.data_set}: its terms were not accepted, so nothing was read.\n{self.notice}"
                "If you hold this licence, say so: accept_license=True, ',accept-license' behind the path, or "
                "--accept-license."
            )

    def tell(self) -> None:
        """Print the notice where it does not mix with results."""
        print(self.notice, end="", file=sys.stderr)


VITON_HD = DataLicence(
    "VITON-HD",
    "CC BY-NC 4.0",
    """\
VITON-HD (Choi et al., CVPR 2021) is licensed under CC BY-NC 4.0: research and other non-commercial use only,
with attribution. Shards made from it are adapted material under the same terms, and so may be the weights of a
model trained on them. Keep this notice with them. See https://creativecommons.org/licenses/by-nc/4.0/.
""",
)

DRESS_CODE = DataLicence(
    "Dress Code",
    "Dress Code (YNAP), academic use only",
    """\
Dress Code (Morelli et al., ECCV 2022) is given by YOOX NET-A-PORTER GROUP to academic institutions that have signed
its licence: non-commercial research only, with attribution, and no redistribution of the data or of adaptations of
it. Shards made from it are such adaptations: do not publish or pass them on, and keep this notice with them.
""",
    must_accept=True,
)
