"""save_pretrained, from_pretrained and push_to_hub for palm's fitted objects.

huggingface_hub's own mixin sets attributes in `__new__`, which frozen dataclasses refuse; this one only calls its
public functions.
"""

from pathlib import Path
from typing import Self

from palm.artifacts import ArtifactError


class HubObject:
    """Base of objects that are a folder of JSON and safetensors files; subclasses give `_write` and `_read`."""

    def _write(self, folder: Path) -> None:
        raise TypeError(f"{type(self).__name__} cannot be saved")

    @classmethod
    def _read(cls, folder: Path) -> Self:
        raise TypeError(f"{cls.__name__} cannot be loaded")

    def save_pretrained(self, folder: str | Path) -> None:
        """Write this object's files into `folder`, each atomically; other files there are left alone."""
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ArtifactError(f"{folder}: expected a folder, this is a file")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtifactError(f"{folder}: expected a folder that can be made: {error.strerror}") from error
        self._write(folder)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Self:
        """Load from a folder, or from the Hub by repository id.

        Raises:
            ArtifactError: there is no such folder and no such repository, or a file in it is damaged.
        """
        return cls._read(locate(source, revision=revision))

    def push_to_hub(self, repository: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload this object's files to a model repository, which is made if need be; returns the commit's URL."""
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return str(api.upload_folder(repo_id=repository, folder_path=folder).commit_url)


def locate(source: str | Path, *, revision: str | None = None) -> Path:
    """A local folder as it is; a Hub repository's snapshot, downloaded if need be.

    Raises:
        ArtifactError: neither could be found.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if isinstance(source, Path) or str(source).startswith((".", "/", "~")) or str(source).count("/") != 1:
        raise ArtifactError(f"{source}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(source), revision=revision))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(f"{source}: neither a folder here nor a repository that the Hub gave: {error}") from error
