"""All peers of a gateway: offer answers to them, place new requests there, and find answers there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial, wraps
from typing import Any, ParamSpec

from mlx_server.gateway.answer_log import Accepted, AnswerLog, Record
from mlx_server.gateway.in_flight.entries import PassedOn
from mlx_server.gateway.installed_models import InstalledModels
from mlx_server.gateway.kept_answers.rendering import CopyElsewhere
from mlx_server.gateway.peers.answers_elsewhere import AnswersElsewhere
from mlx_server.gateway.peers.conversation import Asked, PrefixMemory, asked_in
from mlx_server.gateway.peers.machine_choice import (
    HERE,
    Machine,
    Refusals,
    machine_for,
    may_be_mended_elsewhere,
    order_of_offers,
)
from mlx_server.gateway.peers.mirroring import copy_records
from mlx_server.gateway.peers.passed_on import has_begun, is_passed_on, model_of, packed
from mlx_server.gateway.peers.peer import Peer
from mlx_server.gateway.peers.polling import PeerState, ask, poll
from vestal.config import Config
from vestal.supervision import Clock
from vestal.web.http_error import HttpError

log = logging.getLogger(__name__)

AFTER_REFUSAL_S = 60.0
"""If a peer refuses a new request for a model, no new request for that model is placed there for this long.
Requests that fail here are offered to the peer nevertheless."""
THREAD_BYTES = 256 * 1024
Emit = Callable[..., None]
Given = ParamSpec("Given")
Asking = Callable[Given, Coroutine[Any, Any, CopyElsewhere | None]]


def peers_of(
    config: Config,
    models: InstalledModels,
    here: Callable[[], Machine],
    answer_log: AnswerLog,
    clock: Clock,
    emit: Emit,
    own_instance: str,
) -> Peers | None:
    """Return the peers that the settings name; None if the settings name no peers or have no peer key. In the
    latter case an event is written.

    `here` returns the state of this machine. `own_instance` is the `instance` that this gateway's /health
    shows.
    """
    urls, key = list(dict.fromkeys(config.mlx.peers)), config.mlx.peer_key
    if not urls:
        return None
    if not key:
        emit("peers_not_used", "mlx.peers names other machines, but they share no key; set mlx.peer_key")
        return None
    return Peers([Peer(url, key) for url in urls], models, here, answer_log, clock, emit, own_instance)


def _none_on_error(ask: Asking[Given]) -> Asking[Given]:
    """Decorate `ask`, a method that asks peers: if it raises an unforeseen exception, log the exception and
    return None, as if no peer had the answer. The request then runs on this machine.
    """

    @wraps(ask)
    async def asking(*args: Given.args, **kwargs: Given.kwargs) -> CopyElsewhere | None:
        try:
            return await ask(*args, **kwargs)
        except Exception:
            log.exception("The peers could not be asked; the request stays on this machine")
            return None

    return asking


class Peers:
    """Passes unfinished answers and new requests on to the gateways of other machines (the peers), and sends
    the peers' answers to the clients of this gateway.

    `here` returns the state of this machine. `answer_log` is this gateway's log, into which the peers'
    records are copied. `own_instance` is the `instance` that this gateway's /health shows, by which this
    gateway is recognized among its own peers; an empty text is not compared.
    """

    def __init__(
        self,
        peers: Sequence[Peer],
        models: InstalledModels,
        here: Callable[[], Machine],
        answer_log: AnswerLog,
        clock: Clock,
        emit: Emit,
        own_instance: str = "",
    ) -> None:
        self._peers = {peer.url: peer for peer in peers}
        self._states = {peer.url: PeerState(clock.now(), own_instance) for peer in peers}
        self._models = models
        self._here = here
        self._log = answer_log
        self._clock = clock
        self._emit = emit
        self._elsewhere = AnswersElsewhere(clock, emit)
        self._memory = PrefixMemory()
        self._refusals = Refusals(AFTER_REFUSAL_S)
        self._polls: list[asyncio.Task[None]] = []
        self._copies: dict[str, asyncio.Task[None]] = {}  # by the ids of answers whose records are copied

    async def start(self) -> None:
        """Ask all peers for their health once, and start to poll them."""
        each = [(self._peers[url], self._states[url], partial(self._heard, url)) for url in self._peers]
        await asyncio.gather(*(ask(peer, state, heard, self._clock) for peer, state, heard in each))
        self._polls = [asyncio.ensure_future(poll(*one, self._clock)) for one in each]

    def _heard(self, url: str, health: Mapping[str, Any] | None) -> None:
        state = self._states[url]
        was_living = state.is_living
        state.heard(health, self._clock.now())
        if state.is_living and not was_living:
            self._emit("peer_found", "it answers", peer=url)
        elif was_living and not state.is_living:
            self._emit("peer_gone", "it does not answer any more", peer=url)

    def stop_writing(self) -> None:
        """Stop copying the records of the peers' answers into this gateway's answer log, which is about to be
        closed. A peer writes such records while it continues an answer that this gateway has passed on to it.
        """
        for task in self._copies.values():
            task.cancel()

    async def close(self) -> None:
        """Stop polling the peers, and close the connections to them."""
        tasks = [*self._polls, *self._copies.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in self._peers.values():
            await peer.close()

    @property
    def readers(self) -> int:
        """Return how many clients are reading answers of the peers through this gateway."""
        return sum(peer.readers for peer in self._peers.values())

    @property
    def read_here(self) -> Sequence[PassedOn]:
        """Return the requests whose answers clients are reading from peers through this gateway."""
        return self._elsewhere.read_here

    async def cancel(self, answer_id: str) -> bool:
        """Cancel an answer on the peer to which it was passed on. Return False if there is no such peer, or
        if the peer does not confirm.
        """
        peer = self.where(answer_id)
        return peer is not None and await peer.cancel(answer_id)

    def first_living(self) -> Peer | None:
        """Return the first peer that answers, in the order of the settings; None if no peer answers."""
        return next(iter(self._living()), None)

    def where(self, answer_id: str) -> Peer | None:
        """Return the peer to which the answer was passed on; None if it was not passed on."""
        return self._elsewhere.where(answer_id)

    # --- for the keeper of the answers ---

    def may_serve(self, head: Accepted, error: HttpError) -> bool:
        """Return whether a peer might serve a request that fails here with `error`."""
        return may_be_mended_elsewhere(error.code) and not is_passed_on(head)

    @_none_on_error
    async def offer(self, records: Sequence[Record]) -> CopyElsewhere | None:
        """Ask the peers, one after the other, to continue the answer whose log records are `records`: the
        request, and what its client has received so far. Return a function that reads the rest of the answer
        from the peer that accepts it; None if no peer does, or if the records cannot be encoded.
        """
        head = records[0]
        assert isinstance(head, Accepted)
        try:
            data = await asyncio.to_thread(packed, records)
        except ValueError:
            return None
        digest = await self._digest(head.body) if has_begun(records) else ""
        asked = await _asked_in(head.body)
        refusals: dict[str, str] = {}
        for url in order_of_offers(self._machines(asked)):
            refusals[url] = await self._peers[url].offer(head.id, data, digest)
            if not refusals[url]:
                return self._passed_to(url, head, asked, "request_passed_on", len(data))
        self._emit("request_not_passed_on", "no peer takes it", id=head.id, refusals=refusals)
        return None

    @_none_on_error
    async def place(self, head: Accepted) -> CopyElsewhere | None:
        """Choose by `machine_for` the machine that serves the new request `head`, from the machines' loads
        and from how much of the conversation each has computed. If it is a peer, ask the peer to serve the
        request.

        Return a function that sends the peer's answer to a client. Return None if the request runs here:
        because this machine was chosen, because the peer refused or did not reply, or because another machine
        has passed the request on to this one.
        """
        if is_passed_on(head):
            return None
        asked = await _asked_in(head.body)
        url = await self._best_for(asked)
        if url != HERE:
            data = await asyncio.to_thread(packed, [head])
            refusal = await self._peers[url].offer(head.id, data, "")
            if not refusal:
                return self._passed_to(url, head, asked, "request_placed", len(data))
            self._refusals.note(url, asked.model, self._clock.now())
            self._emit("request_not_placed", refusal, id=head.id, peer=url)
        self._memory.note(asked, HERE)
        return None

    @_none_on_error
    async def holding(self, head: Accepted, *, only_looks: bool = False) -> CopyElsewhere | None:
        """Ask all living peers whether they have the answer to the request `head`, which is the first record
        of this answer in the answer log. Return a function that reads the answer from the peer that has it.
        Return None if no peer has it, or if another machine has passed the request on to this one.

        If no peer has the answer, the caller continues it on this machine. The records of a peer that cannot
        be reached at present are then no longer copied to this machine's log. With `only_looks`, the caller
        only wants to know whether a peer has the answer, and the copying goes on.
        """
        if is_passed_on(head):
            return None
        living = self._living()
        found = await asyncio.gather(*(peer.has(head.id) for peer in living))
        peer = next((peer for peer, has in zip(living, found, strict=True) if has), None)
        if peer is None and not only_looks and (task := self._copies.get(head.id)):
            task.cancel()
        return None if peer is None else self._elsewhere.note(head, peer, self._states[peer.url])

    # --- inside ---

    def _living(self) -> list[Peer]:
        return [peer for url, peer in self._peers.items() if self._states[url].is_living]

    def _machines(self, asked: Asked) -> list[Machine]:
        prefix_bytes = self._memory.prefix_bytes(asked, self._states)
        return [state.machine(url, prefix_bytes[url]) for url, state in self._states.items()]

    async def _best_for(self, asked: Asked) -> str:
        """Return the URL of the machine that should serve the request, or HERE for this machine."""
        if asked.previous_response_id:  # only the machine that generated that response has it
            answer_id = asked.previous_response_id.removeprefix("resp_")
            peer = self.where(answer_id)
            return peer.url if peer is not None and await peer.has(answer_id) else HERE
        refusing = self._refusals.urls(asked.model, self._clock.now())
        here = replace(self._here(), prefix_bytes=self._memory.prefix_bytes(asked, [HERE])[HERE])
        return machine_for(here, [peer for peer in self._machines(asked) if peer.url not in refusing])

    def _passed_to(
        self, url: str, head: Accepted, asked: Asked, event: str, size_bytes: int
    ) -> CopyElsewhere:
        """Record that the peer at `url` continues the answer to the request `head`, write an event with the
        name `event`, and start to copy the peer's records of the answer into this gateway's log. Return a
        function that sends the answer from the peer to a client.

        `head` is the first record of the answer in the log. The peer is remembered as a machine that has
        computed the conversation `asked`. `size_bytes` is the size of the records that the peer was sent; the
        copy begins after them.
        """
        self._emit(event, "a peer serves it", id=head.id, peer=url)
        self._states[url].sent += 1
        self._memory.note(asked, url)
        self._refusals.drop(url, asked.model)
        copying = copy_records(self._log, self._peers[url], head.id, size_bytes, self._clock)
        self._copies[head.id] = task = asyncio.ensure_future(copying)
        task.add_done_callback(lambda _: self._copies.pop(head.id, None))
        return self._elsewhere.note(head, self._peers[url], self._states[url])

    async def _digest(self, body: bytes) -> str:
        try:
            return (await self._models.get(model_of(body))).digest
        except HttpError:
            return ""


async def _asked_in(body: bytes) -> Asked:
    """Return what a request's body says about its model and its conversation. A large body is parsed in a
    thread.
    """
    return asked_in(body) if len(body) < THREAD_BYTES else await asyncio.to_thread(asked_in, body)
