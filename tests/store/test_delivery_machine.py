"""The life of deliveries, driven by anything that may happen, beside a model that a page describes.

The model keeps, for each delivery, its state and how often it was attempted. After every step the database must say
the same; what the model says is due and free to go must be what a claim brings, and nothing else.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Connection, insert, text
from tests.support.outbox_store import NOW, RETENTION, VAULT

from chartwire.ids import new_message_id
from chartwire.model.webhook import (
    DeliveryFilter,
    DeliveryState,
    Endpoint,
    EventDraft,
    EventType,
    Outcome,
    PayloadVersion,
)
from chartwire.store import claims, deliveries, endpoints, outbox, replays, schema
from chartwire.store.claims import ClaimedDelivery, Room
from chartwire.store.deliveries import AttemptResult
from chartwire.store.replays import SETTLED
from chartwire.store.sqlite import connect_sqlite
from chartwire.store.targets import Targets

pytestmark = pytest.mark.embedded


LEASE = timedelta(seconds=60)
PER_ENDPOINT = 3
TOTAL = 8
OPENS_AFTER = 5
URLS = ("https://one.example/", "https://two.example/")
FAILURES = (Outcome.HTTP_ERROR, Outcome.TIMEOUT, Outcome.SLOW_DOWN, Outcome.REDIRECT, Outcome.GONE)
BATCH = 2


@dataclass
class ModelDelivery:
    """What is known of one delivery; `is_kept`: there are bytes to send."""

    endpoint: int
    event_id: str
    state: str = "waiting"
    attempts: int = 0
    due_at: datetime = NOW
    held_by: str | None = None
    is_kept: bool = True


@dataclass
class ModelReplay:
    """A replay that runs: what was there when it began and settled in one of `states`, from `after` on."""

    id: str
    account_id: str
    states: tuple[DeliveryState, ...]
    until: int
    after: int = 0


@dataclass
class ModelEndpoint:
    """What is known of one endpoint; `open_until` is None while its breaker is closed."""

    record: Endpoint
    url: str | None
    enabled: bool = True
    deleted: bool = False
    failures: int = 0
    strains: int = 0
    waits: int = 0
    paused_until: datetime | None = None
    in_flight: list[tuple[ClaimedDelivery, datetime]] = field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether anything may be posted at all."""
        return self.enabled and not self.deleted and self.url is not None


class DeliveryMachine(RuleBasedStateMachine):
    """Two accounts, three endpoints, one process that claims, and may die."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.engine = connect_sqlite(Path(self.folder.name) / "machine.db")
        self.now = NOW
        self.leases = 0
        self.targets = Targets(VAULT)
        self.finished: set[int] = set()
        self.full: frozenset[int] = frozenset()
        self.endpoints: dict[int, ModelEndpoint] = {}
        self.deliveries: dict[int, ModelDelivery] = {}
        self.zombies: list[ClaimedDelivery] = []
        self.looked_at = NOW
        self.replays: list[ModelReplay] = []
        self.connection = self.engine.connect()
        driver: Any = self.connection.connection.dbapi_connection
        driver.execute("PRAGMA synchronous=OFF")  # nobody pulls the plug here
        self.write(schema.metadata.create_all)

    def teardown(self) -> None:
        self.connection.close()
        self.engine.dispose()
        self.folder.cleanup()

    def write(self, unit: Any) -> Any:
        with self.connection.begin():
            return unit(self.connection)

    @initialize()
    def make_accounts(self) -> None:
        def unit(connection: Connection) -> list[Endpoint]:
            made = []
            for account_id, count in (("a1", 2), ("a2", 1)):
                connection.execute(insert(schema.account).values(id=account_id, name="n", created_at=NOW))
                for number in range(count):
                    create = endpoints.create_endpoint if number else endpoints.create_settings_endpoint
                    endpoint = create(connection, account_id, NOW)
                    endpoints.add_key(connection, VAULT, endpoint.seq, NOW)
                    made.append(endpoints.set_url(connection, endpoint, URLS[0], NOW))
            return made

        self.endpoints = {each.seq: ModelEndpoint(each, URLS[0]) for each in self.write(unit)}

    @rule(seconds=st.sampled_from([0, 1, 5, 30, 61, 700]))
    def time_goes_on(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(account_id=st.sampled_from(["a1", "a2"]))
    def a_message_is_committed(self, account_id: str) -> None:
        draft = EventDraft(
            new_message_id(), account_id, EventType.DOCUMENT_DOWNLOAD, PayloadVersion.V2023_04, b"{}", ("p1",)
        )

        def unit(connection: Connection) -> Sequence[Any]:
            everyone = endpoints.endpoints_of(connection, account_id)
            outbox.append(connection, VAULT, draft, everyone, self.now, RETENTION)
            return connection.execute(text("SELECT seq, endpoint_seq FROM delivery ORDER BY seq")).all()

        for seq, endpoint in self.write(unit):
            if seq not in self.deliveries:
                state = "waiting" if self.endpoints[endpoint].url else "failed"
                self.deliveries[seq] = ModelDelivery(endpoint, draft.id, state, due_at=self.now)

    @rule()
    def what_is_due_is_claimed(self) -> None:
        """A claim brings only what may go, within all limits; and something, if anything may.

        Each has a millisecond of its own: who was served stands behind all that is ready in the same one.
        """
        self.now += timedelta(milliseconds=1)
        self._let_leases_run_out()
        self.leases += 1
        lease = f"lease-{self.leases}"
        busy = {seq: len(each.in_flight) for seq, each in self.endpoints.items()}
        room = Room(TOTAL - sum(busy.values()), PER_ENDPOINT, busy, self.full & self.finished, limit=TOTAL)
        if room.total <= 0:
            return
        self.finished.clear()
        free = self._free(busy)
        ready = {seq for seq in free if self._is_looked_at(self.deliveries[seq].endpoint, room.freed)}
        self.looked_at = self.now
        claim = self.write(lambda it: claims.claim(it, self.targets, room, lease, self.now, self.now + LEASE))
        self.targets.keep(claimed.target for claimed in claim.deliveries)
        self.full = (self.full - room.freed) | claim.full
        for claimed in claim.deliveries:
            model = self.deliveries[claimed.seq]
            endpoint = self.endpoints[model.endpoint]
            assert claimed.seq in free
            assert claimed.target.endpoint.url == endpoint.url
            assert claimed.attempt == model.attempts + 1
            model.held_by, model.due_at = lease, self.now + LEASE
            endpoint.in_flight.append((claimed, self.now))
        for endpoint in self.endpoints.values():
            assert len(endpoint.in_flight) <= (1 if endpoint.waits and claim.deliveries else TOTAL)
        given_up = self._forgotten_were_given_up(free)
        assert claim.deliveries or given_up or not ready

    @precondition(lambda self: self.in_flight())
    @rule(data=st.data())
    def an_attempt_succeeds(self, data: st.DataObject) -> None:
        endpoint, claimed, _ = self._take(data)
        if self._settle(claimed, self._result(claimed, Outcome.DELIVERED)):
            self._ended(claimed, "delivered")
            if claimed.target.endpoint.url == endpoint.url:
                endpoint.failures = endpoint.strains = endpoint.waits = 0
                endpoint.paused_until = None

    @precondition(lambda self: self.in_flight())
    @rule(
        data=st.data(),
        outcome=st.sampled_from(FAILURES),
        retry=st.sampled_from([None, 5, 300]),
        asked=st.sampled_from([None, 40]),
    )
    def an_attempt_fails(self, data: st.DataObject, outcome: Outcome, retry: int | None, asked: int | None) -> None:
        endpoint, claimed, started = self._take(data)
        retry_at = None if retry is None else self.now + timedelta(seconds=retry)
        pause = self.now + timedelta(seconds=asked) if asked and outcome is Outcome.SLOW_DOWN else None
        if not self._settle(claimed, self._result(claimed, outcome, started, retry_at, pause)):
            return
        dropped = endpoint.deleted and retry_at is not None
        self._ended(claimed, "dropped" if dropped else "failed" if retry_at is None else "waiting")
        self.deliveries[claimed.seq].due_at = retry_at or self.now
        if claimed.target.endpoint.url == endpoint.url:
            self._strain(endpoint, outcome, started)
            if pause is not None:
                endpoint.paused_until = max(pause, endpoint.paused_until or pause)
            endpoint.enabled = endpoint.enabled and outcome is not Outcome.GONE

    @rule()
    def the_process_dies_and_another_takes_over(self) -> None:
        for endpoint in self.endpoints.values():
            self.zombies += [claimed for claimed, _ in endpoint.in_flight]
            endpoint.in_flight.clear()
        self.finished.clear()
        self.full = frozenset()
        self.write(lambda connection: deliveries.release_leases(connection, self.now))
        for each in self.deliveries.values():
            if each.held_by is not None:
                each.held_by, each.due_at = None, self.now

    @precondition(lambda self: self.zombies)
    @rule()
    def a_former_holder_comes_back(self) -> None:
        zombie = self.zombies.pop()
        assert not self._settle(zombie, self._result(zombie, Outcome.DELIVERED))

    @rule(account_id=st.sampled_from(["a1", "a2"]))
    def everything_that_failed_is_retried(self, account_id: str) -> None:
        self.write(lambda connection: outbox.retry_failed(connection, account_id, self.now))
        for each in self.deliveries.values():
            endpoint = self.endpoints[each.endpoint]
            if each.state == "failed" and each.is_kept and endpoint.record.account_id == account_id and endpoint.url:
                each.state, each.attempts, each.due_at = "waiting", 0, self.now

    @rule(account_id=st.sampled_from(["a1", "a2"]), states=st.sampled_from([SETTLED, SETTLED[1:]]))
    def a_replay_is_begun(self, account_id: str, states: tuple[DeliveryState, ...]) -> None:
        """What it says that it will send again is what it would send again now."""
        chosen = DeliveryFilter(states=states)
        begun = self.write(lambda connection: replays.start(connection, account_id, chosen, self.now))
        of_account = [seq for seq, each in self.deliveries.items() if self._account_of(each) == account_id]
        replay = ModelReplay(begun.id, account_id, states, max(of_account, default=0))
        assert begun.total == len(self._replayable(replay))
        self.replays.append(replay)

    @precondition(lambda self: self.replays)
    @rule(data=st.data())
    def a_replay_goes_on(self, data: st.DataObject) -> None:
        replay = data.draw(st.sampled_from(self.replays))
        again = self._replayable(replay)[:BATCH]
        going = self.write(lambda it: replays.advance(it, VAULT, replay.id, lambda body: body, self.now, BATCH))
        for seq in again:
            each = self.deliveries[seq]
            each.state, each.attempts, each.due_at, replay.after = "waiting", 0, self.now, seq
        assert (going is None) == (len(again) < BATCH)
        if going is None:
            self.replays.remove(replay)

    @precondition(lambda self: self.replays)
    @rule(data=st.data())
    def a_replay_is_cancelled(self, data: st.DataObject) -> None:
        replay = self.replays.pop(data.draw(st.integers(0, len(self.replays) - 1)))
        found = self.write(lambda connection: replays.find(connection, replay.account_id, replay.id))
        self.write(lambda connection: replays.cancel(connection, found, self.now))
        unit = self.write(lambda it: replays.advance(it, VAULT, replay.id, lambda body: body, self.now, BATCH))
        assert unit is None

    @precondition(lambda self: self.deliveries)
    @rule(data=st.data())
    def a_message_is_expunged(self, data: st.DataObject) -> None:
        """What waits for it has failed; what is in flight ends as it ends, and is not sent again."""
        chosen = self.deliveries[data.draw(st.sampled_from(sorted(self.deliveries)))]
        account_id = self._account_of(chosen)
        assert self.write(lambda it: outbox.expunge_event(it, account_id, chosen.event_id, self.now))
        for each in self.deliveries.values():
            if each.event_id == chosen.event_id:
                each.is_kept = False
                if each.state == "waiting" and each.held_by is None:
                    each.state = "failed"

    @rule(data=st.data(), url=st.sampled_from(URLS))
    def a_url_is_saved(self, data: st.DataObject, url: str) -> None:
        endpoint = self._one_of_the_endpoints(data)
        if not endpoint.deleted:
            self.write(lambda connection: endpoints.set_url(connection, endpoint.record, url, self.now))
            endpoint.url, endpoint.enabled = url, True
            endpoint.failures = endpoint.strains = endpoint.waits = 0
            endpoint.paused_until = None

    @rule(data=st.data())
    def a_url_is_cleared(self, data: st.DataObject) -> None:
        endpoint = self._one_of_the_endpoints(data)
        if endpoint.deleted:
            return

        def unit(connection: Connection) -> None:
            endpoints.set_url(connection, endpoint.record, None, self.now)
            outbox.fail_waiting(connection, endpoint.record, Outcome.NO_URL, self.now)

        self.write(unit)
        endpoint.url, endpoint.enabled = None, True
        endpoint.failures = endpoint.strains = endpoint.waits = 0
        endpoint.paused_until = None
        for each in self.deliveries.values():
            if each.endpoint == endpoint.record.seq and each.state == "waiting" and each.held_by is None:
                each.state = "failed"

    @rule(data=st.data())
    def an_endpoint_is_enabled(self, data: st.DataObject) -> None:
        endpoint = self._one_of_the_endpoints(data)
        if not endpoint.deleted and endpoint.url is not None:
            self.write(lambda connection: endpoints.enable(connection, endpoint.record, self.now))
            endpoint.enabled = True
            endpoint.failures = endpoint.strains = endpoint.waits = 0
            endpoint.paused_until = None

    @rule(data=st.data())
    def an_endpoint_is_disabled(self, data: st.DataObject) -> None:
        endpoint = self._one_of_the_endpoints(data)
        if not endpoint.deleted:
            self.write(lambda connection: endpoints.disable(connection, endpoint.record))
            endpoint.enabled = False

    @rule()
    def an_endpoint_is_deleted(self) -> None:
        endpoint = next(each for each in self.endpoints.values() if not each.record.is_settings)
        if endpoint.deleted:
            return

        def unit(connection: Connection) -> None:
            outbox.drop_waiting(connection, endpoint.record, self.now)
            endpoints.delete_endpoint(connection, endpoint.record, self.now)

        self.write(unit)
        endpoint.deleted, endpoint.url = True, None
        for each in self.deliveries.values():
            if each.endpoint == endpoint.record.seq and each.state == "waiting" and each.held_by is None:
                each.state = "dropped"

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        query = text("SELECT seq, state, attempts, lease FROM delivery")
        found = {seq: rest for seq, *rest in self.write(lambda connection: connection.execute(query).all())}
        expected = {seq: [each.state, each.attempts, each.held_by] for seq, each in self.deliveries.items()}
        assert found == expected

    @invariant()
    def every_attempt_left_one_record_and_one_audit_entry(self) -> None:
        query = text("SELECT (SELECT count(*) FROM attempt), (SELECT count(*) FROM audit)")
        attempts, entries = self.write(lambda connection: connection.execute(query).one())
        assert attempts == entries

    def in_flight(self) -> list[int]:
        return [seq for seq, each in self.endpoints.items() if each.in_flight]

    def _one_of_the_endpoints(self, data: st.DataObject) -> ModelEndpoint:
        return self.endpoints[data.draw(st.sampled_from(sorted(self.endpoints)))]

    def _take(self, data: st.DataObject) -> tuple[ModelEndpoint, ClaimedDelivery, datetime]:
        """Any attempt that is in flight; its endpoint has room again."""
        endpoint = self.endpoints[data.draw(st.sampled_from(self.in_flight()))]
        claimed, started = endpoint.in_flight.pop(data.draw(st.integers(0, len(endpoint.in_flight) - 1)))
        self.finished.add(endpoint.record.seq)
        return endpoint, claimed, started

    def _account_of(self, delivery: ModelDelivery) -> str:
        return self.endpoints[delivery.endpoint].record.account_id

    def _replayable(self, replay: ModelReplay) -> list[int]:
        """What a replay sends again next: settled as it was asked for, with bytes, and with somewhere to go."""
        return sorted(
            seq
            for seq, each in self.deliveries.items()
            if replay.after < seq <= replay.until
            and each.state in replay.states
            and each.is_kept
            and self._account_of(each) == replay.account_id
            and self.endpoints[each.endpoint].url is not None
        )

    def _forgotten_were_given_up(self, free: set[int]) -> bool:
        """What was expunged while it was in flight takes up the room of a claim once, and has failed with it."""
        forgotten = {seq for seq in free if not self.deliveries[seq].is_kept}
        query = text("SELECT seq FROM delivery WHERE state = 'failed'")
        failed = set(self.write(lambda connection: connection.execute(query).scalars().all()))
        for seq in forgotten & failed:
            self.deliveries[seq].state = "failed"
        return bool(forgotten & failed)

    def _result(
        self,
        claimed: ClaimedDelivery,
        outcome: Outcome,
        started: datetime | None = None,
        retry: datetime | None = None,
        pause: datetime | None = None,
    ) -> AttemptResult:
        url = claimed.target.endpoint.url or ""
        return AttemptResult(url, started or self.now, 1, outcome, "as told", retry_at=retry, pause_until=pause)

    def _settle(self, claimed: ClaimedDelivery, result: AttemptResult) -> bool:
        """Whether it was taken must be what the model says of the lease."""
        model = self.deliveries[claimed.seq]
        holds = model.held_by == claimed.lease and claimed.lease_until > self.now
        (settled,) = self.write(lambda it: deliveries.settle(it, VAULT, [(claimed, result)], self.now, RETENTION))
        assert settled == holds
        return holds

    def _ended(self, claimed: ClaimedDelivery, state: str) -> None:
        model = self.deliveries[claimed.seq]
        model.state, model.attempts, model.held_by = state, claimed.attempt, None

    def _strain(self, endpoint: ModelEndpoint, outcome: Outcome, started: datetime) -> None:
        """The page's words on failures and on the breaker, once more."""
        endpoint.failures += 1
        answered = outcome in {Outcome.HTTP_ERROR, Outcome.REDIRECT, Outcome.GONE}
        endpoint.strains = 0 if answered else endpoint.strains + 1
        if endpoint.waits and endpoint.paused_until is not None:
            longer = started >= endpoint.paused_until
        else:
            longer = endpoint.strains >= OPENS_AFTER
        if longer:
            endpoint.waits += 1
            wait = timedelta(seconds=min(30 * 2 ** (endpoint.waits - 1), 600))
            endpoint.paused_until = max(self.now + wait, endpoint.paused_until or self.now)

    def _let_leases_run_out(self) -> None:
        """What was in flight too long is lost to its holder, as when a process stood still."""
        for endpoint in self.endpoints.values():
            late = [claimed for claimed, _ in endpoint.in_flight if claimed.lease_until <= self.now]
            if late:
                endpoint.in_flight = [each for each in endpoint.in_flight if each[0] not in late]
                self.zombies += late
                self.finished.add(endpoint.record.seq)

    def _is_looked_at(self, endpoint_seq: int, freed: frozenset[int]) -> bool:
        """For at most a second none is, if it fails, or if it held all that it might have and none of it has ended."""
        is_failing = self.endpoints[endpoint_seq].failures > 0
        if endpoint_seq in freed:
            return not is_failing
        is_held = is_failing or endpoint_seq in self.full
        return not is_held or self.now - self.looked_at >= timedelta(seconds=1)

    def _free(self, busy: dict[int, int]) -> set[int]:
        """What may go: due, not held by anybody, its endpoint open, not paused, and with room."""
        left = TOTAL - sum(busy.values())
        free = set()
        for seq, each in self.deliveries.items():
            endpoint = self.endpoints[each.endpoint]
            limit = 1 if endpoint.waits else 2 if endpoint.failures else PER_ENDPOINT
            mine = busy[each.endpoint]
            has_room = left > 0 and mine < limit and (mine < 2 or left - TOTAL // 4 - mine >= 2)
            paused = endpoint.paused_until is not None and endpoint.paused_until > self.now
            if each.state == "waiting" and each.due_at <= self.now and endpoint.is_open and has_room and not paused:
                free.add(seq)
        return free


TestDelivery = DeliveryMachine.TestCase
TestDelivery.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
