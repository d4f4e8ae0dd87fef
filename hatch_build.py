"""Build the fused kernels when the package is built or installed; where they cannot be, go on without them."""

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface[Any]):
    """Puts the libraries into kernels, and into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        if self.target_name != "wheel":
            return
        sys.path.insert(0, self.root)
        from kernels.build import BuildFailed, build_all

        try:
            paths = build_all()
        except BuildFailed as error:
            self.app.display_warning(f"engram: built without its fused kernels: {error}")
            return
        build_data["artifacts"] += [str(path.relative_to(self.root)) for path in paths]
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
