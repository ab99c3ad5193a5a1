"""Versions of models: which there are, which is the newest, and where each runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from core.serve.config import ModelFile
from core.serve.engine import ModelState, Served
from core.serve.errors import NotFound, NotReady
from core.serve.metrics import Metrics
from core.serve.model import Description
from edge.pipeline import Pipeline


@dataclass(eq=False)
class Version:
    """One version of a model, and where it runs."""

    name: str
    version: str
    file: ModelFile
    sha256: str
    description: Description
    state: ModelState = "loading"
    reason: str = ""
    pipeline: Pipeline | None = None  # in this process; None: in the workers
    block_rows: int = 0  # more than these take too long for the event loop
    told: Served = field(init=False)

    def __post_init__(self) -> None:
        self.key = f"{self.name}@{self.version}"
        self.set_state(self.state)

    def set_state(self, state: ModelState, reason: str = "") -> None:
        """Change what the catalogue says of it."""
        self.state, self.reason = state, reason
        self.told = self.description.served(self.name, self.version, state, reason)


class Catalogue:
    """All versions of all models; a switch of the newest is one assignment."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._versions: dict[str, dict[str, Version]] = {}
        self._newest: dict[str, Version] = {}

    def versions(self, name: str) -> set[str]:
        """Names of the versions of a model, also of those on their way in or out."""
        return set(self._versions.get(name, ()))

    def add(self, version: Version) -> None:
        """A version that is not ready yet."""
        self._versions.setdefault(version.name, {})[version.version] = version
        self._tell(version)

    def switch(self, version: Version) -> None:
        """From here on it is the newest."""
        version.set_state("ready")
        of_name = self._versions[version.name]
        # The newest is listed last.
        of_name[version.version] = of_name.pop(version.version)
        self._newest[version.name] = version
        self._tell(version)

    def set_state(self, version: Version, state: ModelState, reason: str = "") -> None:
        """It goes out, or it failed."""
        version.set_state(state, reason)
        self._tell(version)

    def remove(self, version: Version) -> None:
        """It is gone."""
        of_name = self._versions[version.name]
        if of_name.get(version.version) is version:
            del of_name[version.version]
            self._metrics.model(version.name, version.version, "gone")

    def remove_failed(self, file: ModelFile) -> None:
        """Forget what an earlier content of a file failed with."""
        for version in list(self._versions.get(file.name, {}).values()):
            if version.state == "failed" and version.file is file:
                self.remove(version)

    def listed(self) -> list[Served]:
        """All versions, the newest of a model last."""
        return [
            version.told
            for of_name in self._versions.values()
            for version in sorted(of_name.values(), key=lambda version: version.state == "ready")
        ]

    def find(self, name: str, version: str = "") -> Version:
        """A version that is ready; "" takes the newest.

        Raises:
            NotFound: no such model or version; the message lists those there are.
            NotReady: it is loading, going or failed.
        """
        if not version:
            newest = self._newest.get(name)
            if newest is not None:
                return newest
        of_name = self._versions.get(name)
        if of_name is None:
            names = ", ".join(sorted(self._versions)) or "none yet"
            raise NotFound(f"model={name[:100]!r} is not served; there are: {names}")
        found = of_name.get(version) if version else next(reversed(of_name.values()))
        if found is None:
            raise NotFound(
                f"version={version[:100]!r} of model {name!r} is not served; there are: "
                f"{', '.join(of_name)}"
            )
        if found.state != "ready":
            because = f": {found.reason}" if found.reason else ""
            raise NotReady(f"version {found.version} of model {name!r} is {found.state}{because}")
        return found

    def _tell(self, version: Version) -> None:
        self._metrics.model(version.name, version.version, version.state)
