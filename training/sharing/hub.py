"""Checkpoints in repositories of the Hugging Face Hub, or of another that answers as it does; by huggingface_hub.

It finds the user's token itself: HF_TOKEN, or that of `hf auth login`.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from models.manifest import MANIFEST_FILE, ManifestError
from training.files import CheckpointError
from training.sharing.parts import FIGURE, MAX_BYTES, MAX_FILES, PARTS, check_size, copy, is_part, parts_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SCHEME = "hf://"

PATTERN = re.compile(r"hf://([\w.-]+)/([\w.-]+)(?:@([\w./-]+))?")


class Repository(NamedTuple):
    """A repository OWNER/NAME of a hub. revision: a branch, tag or commit; None: the main branch."""

    owner: str
    name: str
    revision: str | None

    @property
    def id(self) -> str:
        return f"{self.owner}/{self.name}"


def repository(place: str) -> Repository:
    """Return the repository that hf://OWNER/NAME[@REVISION] names. Raises CheckpointError."""
    found = PATTERN.fullmatch(place)
    if found is None:
        raise CheckpointError(f"{place}: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
    return Repository(*found.groups())


def upload(checkpoint: Path, to: Repository, hub: str | None, private: bool, staging: Path) -> str:
    """Upload a checkpoint in one commit, and return its URL; the repository is made if there is none.

    hub: the URL of the hub; None: that of HF_ENDPOINT, or huggingface.co. staging: an empty directory to use.
    Raises CheckpointError, ManifestError.
    """
    copy(parts_of(checkpoint), staging)
    with _naming(to, hub):
        api = _api(hub)
        api.create_repo(to.id, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=to.id,
            folder_path=staging,
            revision=to.revision,
            commit_message=f"Upload {to.name} by Engram",
            delete_patterns=[*PARTS, f"*{FIGURE}"],  # those of the last upload that this one has not
        )
    return str(commit.commit_url)


def download(source: Repository, hub: str | None, into: Path) -> str:
    """Download the parts of a checkpoint into an empty directory, and return the commit that they are of.

    Raises CheckpointError.
    """
    with _naming(source, hub):
        api = _api(hub)
        found = api.model_info(source.id, revision=source.revision, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in found.siblings or []}
        wanted = _wanted(sizes, _where(source, hub))
        for name in wanted:
            api.hf_hub_download(source.id, name, revision=found.sha, local_dir=into)
    return str(found.sha)


def _wanted(sizes: Mapping[str, int], where: str) -> list[str]:
    """Return the files of a repository that are parts; sizes: of all its files. Raises CheckpointError."""
    wanted = [name for name in sizes if is_part(name)]
    if MANIFEST_FILE not in wanted:
        raise CheckpointError(
            f"{where}: no checkpoint of Engram: there is no {MANIFEST_FILE} among its {len(sizes)} files"
        )
    for name in wanted:
        check_size(name, sizes[name], where)
    total = sum(sizes[name] for name in wanted)
    if len(wanted) > MAX_FILES or total > MAX_BYTES:
        raise CheckpointError(
            f"{where}: {len(wanted)} files of {total:,} bytes, but a checkpoint has at most {MAX_FILES} of "
            f"{MAX_BYTES:,}"
        )
    return wanted


@contextmanager
def _naming(place: Repository, hub: str | None) -> Iterator[None]:
    """Turn every error of the library, and of the network, into one that names the repository and what may help."""
    try:
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{_where(place, hub)}: a hub needs more packages: in the checkout of Engram, pip install "
            "-c constraints.txt -e '.[hub]'"
        ) from error
    try:
        yield
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{_where(place, hub)}: no such repository, or it is private: check the name, and set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{_where(place, hub)}: it has no revision {place.revision!r}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        remedy = "; set HF_TOKEN to a token that may do this" if status in (401, 403) else ""
        raise CheckpointError(f"{_where(place, hub)}: {str(error).splitlines()[0]}{remedy}") from error
    except (CheckpointError, ManifestError):
        raise
    except Exception as error:  # of the library's transport, which is another one in each of its versions
        raise CheckpointError(
            f"{_where(place, hub)}: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error


def _api(hub: str | None) -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub, library_name="engram")


def _where(place: Repository, hub: str | None) -> str:
    return f"{SCHEME}{place.id}{f' of {hub}' if hub else ''}"
