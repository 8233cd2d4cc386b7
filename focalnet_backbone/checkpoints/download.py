"""Fetching weights, once: from web addresses into torch.hub's cache, from the Hugging Face hub through its client."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import string
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from urllib.parse import parse_qs, quote, urldefrag, urlparse

import torch
from filelock import FileLock
from tqdm import tqdm

from focalnet_backbone.checkpoints.errors import CheckpointError
from focalnet_backbone.checkpoints.files import pick_weight_file, shard_names

logger = logging.getLogger(__name__)

_ATTEMPTS = 5
_CHUNK = 1 << 20
_TIMEOUT = 30.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def download(address: str) -> Path:
    """Fetch a web address into torch.hub's cache, unless it is there already, and return the file's path.

    An interrupted download goes on where it stopped. The file is verified if its SHA-256 is published: in the
    address as `#sha256=...`, or in the file name as torch.hub has it (`name-0123abcd.pth`).

    Raises:
        CheckpointError: the address cannot be reached or has no such file, the download was cut off, or the hash is
            wrong. Nothing is then left in the cache but what a later call goes on from.
    """
    url, fragment = urldefrag(address)
    parts = urlparse(url)
    folder, _, name = parts.path.rpartition("/")
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise CheckpointError(f"{address} is not an https:// address, so anyone on the way could change the weights")
    if name in ("", ".", ".."):
        raise CheckpointError(f"{address} names no file")
    # A folder for each address, as many different weights are called `model.safetensors`.
    query = f"-{hashlib.sha256(parts.query.encode()).hexdigest()[:8]}" if parts.query else ""
    path = _cache() / f"{parts.hostname}{folder}{query}".replace("/", "--") / name
    sha256 = _published_hash(name, fragment)
    if path.is_file():
        if sha256 and not _hash(path).startswith(sha256):
            raise CheckpointError(f"{path} does not have the published SHA-256 {sha256}; delete it to fetch it again")
        return path
    if _is_offline():
        raise CheckpointError(f"{url} is not in the cache, and HF_HUB_OFFLINE is set. {_placing(url, path)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The processes of a distributed run ask for the same file at once; the first fetches it, the others wait.
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            _fetch(url, path, sha256)
    return path


def hub_file(repository: str, file: str = "") -> Path:
    """Fetch the weights (shards and `config.json` too) of a hub repository, and return the weight file's path.

    Args:
        repository: `organisation/name`.
        file: the file to take; by default the one that transformers and timm would, or the only weight file.

    Raises:
        CheckpointError: there is no such repository or file, it cannot be reached, or the download is damaged.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    hub = f"{constants.ENDPOINT}/{repository}"
    try:
        names = _repository_files(repository)
        file = file or pick_weight_file(names, repository)
        path = Path(hf_hub_download(repository, file))
        _verify_blob(path)
        beside = shard_names(path) if file.endswith(".index.json") else []
        for name in [*beside, *({"config.json"} & set(names))]:
            # The cache has a folder for each revision, so its name pins the other files to the same one.
            _verify_blob(Path(hf_hub_download(repository, name, revision=path.parent.name)))
    except CheckpointError:
        raise
    except RepositoryNotFoundError:
        raise CheckpointError(f"the Hugging Face hub has no repository {repository}, or it is private") from None
    except LocalEntryNotFoundError as error:
        placing = _placing(
            f"{file or 'model.safetensors'} of {hub}", placed_folder(repository) / (file or "model.safetensors")
        )
        reason = "HF_HUB_OFFLINE is set" if _is_offline() else "the Hugging Face hub cannot be reached"
        raise CheckpointError(f"{repository} is not in the cache, and {reason}. {placing}") from error
    except EntryNotFoundError:
        raise CheckpointError(f"{hub} has no file {file}") from None
    except Exception as error:  # the hub's client passes on whatever its own HTTP library raises
        raise CheckpointError(f"{file or 'the weights'} of {hub} could not be fetched: {error}") from error
    return path


def placed_folder(repository: str) -> Path:
    """Where to put a hub repository's files by hand, on a machine without network."""
    return _cache() / repository.replace("/", "--")


def _repository_files(repository: str) -> list[str]:
    """Names of a repository's files: of the hub if it can be reached, else of the cache."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if not _is_offline():
        try:
            # Unlike the client's listing of files, this does not try for half a minute where there is no network.
            return [file.rfilename for file in HfApi().model_info(repository, timeout=_TIMEOUT).siblings]
        except HfHubHTTPError:
            raise
        except Exception as error:  # no network, in the words of the client's HTTP library
            logger.info("the Hugging Face hub cannot be reached, looking in its cache: %s", error)
    folder = Path(snapshot_download(repository, local_files_only=True))
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _verify_blob(path: Path) -> None:
    """Check a file of the hub's cache against its SHA-256, which the hub publishes for large files."""
    blob = path.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name) and _hash(blob) != blob.name:
        raise CheckpointError(f"{blob} does not have the SHA-256 that the hub gives; delete it to fetch it again")


def _fetch(url: str, path: Path, sha256: str) -> None:
    """Download to a partial file beside `path`, going on where an earlier one stopped, and move it there when whole."""
    logger.info("downloading %s to %s", url, path)
    reason = ""
    for _ in range(_ATTEMPTS):
        try:
            partial, total = _fetch_some(url, path)
        except urllib.error.HTTPError as error:
            raise CheckpointError(f"{url}: the server answers {error.code} {error.reason}") from error
        except InvalidURL as error:
            raise CheckpointError(f"{url} is not a valid address: {error}") from error
        except urllib.error.URLError as error:
            raise CheckpointError(f"{url} cannot be reached ({error.reason}). {_placing(url, path)}") from error
        except (OSError, HTTPException) as error:
            reason = f" ({error!r})"
            continue
        size = partial.stat().st_size
        if total is None or size == total:
            break
        reason = f": {size} of {total} bytes came"
    else:
        raise CheckpointError(f"the download of {url} was cut off{reason}. Run again to go on from there")
    if sha256 and not (found := _hash(partial)).startswith(sha256):
        partial.unlink()
        raise CheckpointError(f"{url} has SHA-256 {found}, not the published {sha256}; it was not kept")
    os.replace(partial, path)


def _fetch_some(url: str, path: Path) -> tuple[Path, int | None]:
    """Download until the end or the cut. Returns the partial file, and the whole size in bytes if it is known."""
    response = _request(url, {})
    if response.headers.get_content_type() == "text/html":
        raise CheckpointError(f"{url} is a web page (HTML), not weights")
    total = int(response.headers["Content-Length"]) if "Content-Length" in response.headers else None
    # Named after the version that the server has, so that two versions are never joined.
    tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
    version = hashlib.sha256(f"{tag} {total}".encode()).hexdigest()[:12]
    partial = path.with_name(f"{path.name}.{version}.part")
    done = partial.stat().st_size if tag and partial.exists() else 0
    if done and done == total:
        response.close()
        return partial, total
    if done:
        response.close()
        response = _request(url, {"Range": f"bytes={done}-", "If-Range": tag})
        if response.status != 206:
            done = 0
    with (
        response,
        partial.open("ab" if done else "wb") as file,
        tqdm(desc=path.name, initial=done, total=total, unit="B", unit_scale=True, disable=None) as bar,
    ):
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    return partial, total


def _request(url: str, headers: dict[str, str]) -> HTTPResponse:
    # What an address may not have, such as spaces, is escaped; escapes that it has stay.
    url = quote(url, safe=string.punctuation)
    request = urllib.request.Request(url, headers={"User-Agent": "focalnet-backbone", **headers})
    return urllib.request.urlopen(request, timeout=_TIMEOUT)


def _published_hash(name: str, fragment: str) -> str:
    """SHA-256, or the start of it, that an address publishes; an empty string if none."""
    given = parse_qs(fragment).get("sha256", [""])[0].lower()
    match = re.search(r"-([a-f0-9]{8,64})\.", name)
    return given or (match[1] if match else "")


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _placing(what: str, where: Path) -> str:
    return f"Fetch {what} on a machine with network and place it at {where}"
