"""Translate the errors of the hub's library to ModelStoreError, with a sentence on the cause and one on the
remedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlx_server.model_store.errors import ModelStoreError

LOG_IN = "set HF_TOKEN to a token of your account, or log in with `hf auth login`"


@contextmanager
def explained(name: str, repo: str, revision: str | None = None) -> Iterator[None]:
    """Raise ModelStoreError in place of the errors that the hub's library and its HTTP client raise in the
    `with` block.

    `name` is the model for which the `with` block asks the hub, `repo` its repository; both are empty for a
    search. A ModelStoreError, and an OSError of this machine's own disk, are not changed.
    """
    from huggingface_hub import constants, errors

    host = constants.ENDPOINT.split("//", 1)[-1].split("/", 1)[0]
    try:
        yield
    except ModelStoreError:
        raise
    except errors.GatedRepoError as error:
        raise _gated(name, repo, constants.ENDPOINT) from error
    except errors.RevisionNotFoundError as error:
        raise _no_revision(name, repo, revision) from error
    except errors.RepositoryNotFoundError as error:
        raise _absent(name, repo) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise unreachable(name, repo, host) from error
    except (errors.HfHubHTTPError, ValueError) as error:
        raise _refused(name, repo, error) from error
    except OSError:
        raise
    except Exception as error:  # from the HTTP client, or if the answer is not a hub's
        if is_transport_error(error):
            raise unreachable(name, repo, host) from error
        said = f"{host} does not answer as a hub does ({type(error).__name__})"
        raise failed(name, repo, said) from error


def is_transport_error(error: Exception) -> bool:
    """Return True if `error` is a network error of any HTTP client.

    Classes are compared by name, because the library's HTTP client (httpx, httpx2, requests) differs between
    its releases.
    """
    return any(kind.__name__ in ("TransportError", "ConnectionError") for kind in type(error).__mro__)


def unreachable(name: str, repo: str, host: str) -> ModelStoreError:
    """Return the error that says that the hub at `host` does not answer. `name` is the model that was to be
    fetched, `repo` its repository; both are empty for a search.
    """
    return ModelStoreError(
        "network_unavailable",
        f"The hub ({host}) cannot be reached, or breaks off{_for(name, repo)}.",
        "Check the network, or HF_ENDPOINT and HF_HUB_OFFLINE; what was fetched so far is kept.",
    )


def failed(name: str, repo: str, why: str) -> ModelStoreError:
    """Return the error for a failure of the hub's library that no other function of this module explains.
    `why` is the cause in words, of which the error shows the first line. `name` is the model that was to be
    fetched, `repo` its repository; both are empty for a search.
    """
    first = why.strip().partition("\n")[0] or "it does not say why"
    again = f"run `vestal models pull {name}` again" if name else "search again"
    return ModelStoreError(
        "fetch_failed",
        f"The hub's library has failed{_for(name, repo)}: {first[:300]}",
        f"Put that right, then {again}.",
    )


def _for(name: str, repo: str) -> str:
    """Return the end of a clause, " for `repo`, the source of model `name`"; "" for a search, which has no
    `name`.
    """
    return f" for {repo}, the source of model {name}" if name else ""


def _gated(name: str, repo: str, endpoint: str) -> ModelStoreError:
    return ModelStoreError(
        "gated_repository",
        f"{repo}, the source of model {name}, is gated: its authors want their terms accepted first.",
        f"Accept them in a browser at {endpoint}/{repo}; then {LOG_IN}, and pull {name} again.",
    )


def _no_revision(name: str, repo: str, revision: str | None) -> ModelStoreError:
    return ModelStoreError(
        "revision_not_found",
        f"{repo}, the source of model {name}, has no revision {revision or 'main'}.",
        "Name a branch, a tag or a commit of the repository after @, or leave @ out for its main branch.",
    )


def _absent(name: str, repo: str) -> ModelStoreError:
    return ModelStoreError(
        "model_not_found",
        f"The hub shows no repository {repo}, the source of model {name}.",
        f"Correct its name, or find one with `vestal models search`; if it is private, {LOG_IN}.",
    )


def _refused(name: str, repo: str, error: Exception) -> ModelStoreError:
    """Return the error that explains `error`, which the hub's library raised for an HTTP answer with an error
    status or for an invalid value. Status 401 means that the token is not valid. `name` is the model, `repo`
    its repository; both are empty for a search.
    """
    if getattr(getattr(error, "response", None), "status_code", 0) == 401:
        return ModelStoreError(
            "unauthorized",
            f"The hub refuses the token that was sent{_for(name, repo)}.",
            "Correct or unset HF_TOKEN, or log in again with `hf auth login`.",
        )
    return failed(name, repo, str(error))
