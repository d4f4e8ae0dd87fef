"""Build the fused kernels when the package is built or installed; where they cannot be, go on without them.

A wheel also takes the configuration of HAProxy along, for `engram serve --servers`.
"""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HAPROXY = "deploy/haproxy/haproxy.cfg"


class KernelsHook(BuildHookInterface[Any]):
    """Puts the libraries into kernels, and into the wheel."""

    def dependencies(self) -> list[str]:
        """Return the compiler's package, 90 MB, unless the libraries are there, built from the sources as they are."""
        return [] if self.target_name != "wheel" or self._build().are_current() else ["ziglang"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        if version != "editable":  # in a checkout it is found where it is
            build_data["force_include"][str(Path(self.root, HAPROXY))] = "app/haproxy.cfg"
        build = self._build()
        built = build.library_paths() if build.are_current() else []
        try:
            paths = built or build.build_all()
        except build.BuildFailed as error:
            self.app.display_warning(f"engram: built without its fused kernels: {error}")
            return
        build_data["artifacts"] += [str(path.relative_to(self.root)) for path in paths]
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def _build(self) -> Any:
        """Return the module kernels.build of the sources that are built."""
        if self.root not in sys.path:
            sys.path.insert(0, self.root)
        from kernels import build

        return build
