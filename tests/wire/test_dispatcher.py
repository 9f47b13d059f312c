"""The whole engine on a real database and real sockets: commit, bell, claim, post, settle."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from sqlalchemy import text
from tests.support.dispatching import OF_DOCUMENTS, RETENTION, SETTINGS, Engine, open_engine
from tests.support.patience import PATIENCE_SECONDS
from tests.support.receiver import Answer, Receiver

from chartwire.clock import system_clock
from chartwire.delivery import dispatcher as dispatcher_module
from chartwire.delivery.dispatcher import back_off
from chartwire.delivery.retention import Retention
from chartwire.model.webhook import EventType


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with open_engine(tmp_path / "data") as engine:
        yield engine


# --- the good way -----------------------------------------------------------------------------------------------------


async def test_a_message_goes_out_when_it_is_committed_signed_and_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "_POLL_SECONDS", 3600.0)  # nothing is looked for that no bell tells of
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        receiver.webhook_key = (await engine.service.get_settings(account)).key
        await receiver.wait_for(lambda them: len(them.pings) == 1)
        (message_id,) = await engine.append(account)
        await engine.until_delivered(1)
    assert receiver.messages[0].message_id == message_id
    assert receiver.refused == 0


async def test_every_message_of_many_arrives_exactly_once(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        accounts = [await engine.new_account(receiver.url) for _ in range(3)]
        sent = [message_id for account in accounts for message_id in await engine.append(account, 40)]
        await engine.until("SELECT count(*) FROM attempt WHERE outcome = 'delivered'", 123)  # with the pings
    assert sorted(message.message_id for message in receiver.messages) == sorted(sent)
    assert await engine.rows("SELECT count(*) FROM attempt") == [(123,)]


async def test_what_another_process_wrote_is_found_without_a_bell(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        await receiver.wait_for(lambda them: len(them.pings) == 1)
        engine.database.dispatcher = None
        await engine.append(account)
        await receiver.wait_for(lambda them: len(them.messages) == 1)


# --- failures and retries ---------------------------------------------------------------------------------------------


async def test_a_failure_is_tried_again_with_the_same_id(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.extend([Answer(500), Answer(404)])
        await engine.append(account)
        await engine.until_delivered(1)
    assert len({message.message_id for message in receiver.messages}) == 1
    outcomes = await engine.rows("SELECT number, outcome, http_status FROM attempt WHERE delivery_seq = 2 ORDER BY id")
    assert outcomes == [(1, "http_error", 500), (2, "http_error", 404), (3, "delivered", 200)]


async def test_what_failed_for_good_is_counted_and_can_be_retried(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.extend([Answer(500)] * 3)
        await engine.append(account)
        await engine.until(f"SELECT state {OF_DOCUMENTS}", "failed")
        status = await engine.service.webhook_status(account)
        assert (status.enabled, status.waiting, status.failed) == (False, 0, 1)
        assert status.detail == "Request failed with status code 500"
        assert await engine.service.retry_failed(account) == 1
        await engine.until_delivered(1)
        status = await engine.service.webhook_status(account)
        assert (status.enabled, status.detail, status.failed) == (True, "OK", 0)


async def test_410_disables_holds_what_waits_and_a_saved_url_sends_it(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.append(Answer(410))
        await engine.append(account)
        await engine.until("SELECT state FROM endpoint", "disabled")
        await engine.append(account)
        await engine.service.save_url(account, receiver.url)
        await engine.until_delivered(2)
    notices = await engine.rows("SELECT count(*) FROM event WHERE type = 'webhook.endpoint-disabled'")
    assert notices == [(1,)]


async def test_an_endpoint_that_asks_for_a_pause_gets_it(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.append(Answer(503, headers={"Retry-After": "1"}))
        await engine.append(account)
        await engine.until("SELECT count(*) > 1 FROM attempt", 1)  # the pause itself may be over before it is seen
        await engine.append(account, 3)
        await engine.until_delivered(4)
    first, *others = receiver.messages
    assert len(others) == 4
    assert min(other.at for other in others) - first.at > 0.9


# --- pings ------------------------------------------------------------------------------------------------------------


async def test_each_save_of_a_url_pings_and_the_answer_is_told(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT verified FROM endpoint", 1)
        receiver.answers.append(Answer(200, b'{"pong":"wrong"}'))
        await engine.service.save_url(account, receiver.url)
        await engine.until("SELECT status_detail FROM endpoint", "Bad response from webhook call")
        assert not (await engine.service.webhook_status(account)).enabled
        await engine.service.save_url(account, receiver.url)
        await engine.until("SELECT status_detail FROM endpoint", "OK")
    pings = [ping.json["ping"] for ping in receiver.pings]
    assert len(set(pings)) == 3
    assert {len(ping) for ping in pings} == {21}


# --- isolation --------------------------------------------------------------------------------------------------------


async def test_an_endpoint_that_hangs_does_not_hold_up_another(engine: Engine) -> None:
    gate = asyncio.Event()
    async with Receiver() as hanging, Receiver() as healthy, engine.dispatch():
        stuck, well = await engine.new_account(hanging.url), await engine.new_account(healthy.url)
        await engine.until("SELECT count(*) FROM attempt", 2)
        hanging.answers.extend([Answer(gate=gate)] * 100)
        await engine.append(stuck, 50)
        await hanging.wait_for(lambda them: len(them.messages) == 4)
        await engine.append(well, 20)
        await healthy.wait_for(lambda them: len(them.messages) == 20)
        assert len(hanging.messages) == 4  # its own limit of attempts in flight: none has ended and made room
        gate.set()
        await engine.until_delivered(70)


async def test_what_waits_behind_an_open_breaker_uses_up_no_attempts_and_a_saved_url_sends_it(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT count(*) FROM attempt", 1)
        await engine.database.write(
            lambda connection: connection.execute(text("UPDATE endpoint SET max_in_flight = 5"))
        )
        receiver.answers.extend([Answer(502)] * 5)
        await engine.append(account, 5)
        await engine.until("SELECT breaker_waits FROM endpoint", 1)
        waiting = await engine.append(account, 10)
        await engine.service.save_url(account, receiver.url)
        await engine.until_delivered(15)
    attempts = await engine.rows("SELECT event.id, attempts FROM delivery JOIN event ON event.seq = event_seq")
    assert {dict(attempts)[message_id] for message_id in waiting} == {1}
    assert len(receiver.messages) == 20


async def test_others_have_the_event_loop_while_a_large_claim_is_begun(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, turn, begun_in = asyncio.get_running_loop(), 0, Counter[int]()

    def count_turns() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count_turns)

    def start(*arguments: Any) -> None:
        begun_in[turn] += 1
        begin(*arguments)

    async with Receiver() as receiver:
        for account in [await engine.new_account(receiver.url) for _ in range(5)]:
            await engine.append(account, 10)
        async with engine.dispatch() as dispatcher:
            begin = dispatcher._poster.start
            monkeypatch.setattr(dispatcher._poster, "start", start)
            count_turns()
            await engine.until_delivered(50)
    assert begun_in.total() == 55
    assert max(begun_in.values()) == 16  # of a claim of all of them


async def test_others_have_a_moment_while_what_waited_is_begun_beside_what_is_new(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "_BREATH_SECONDS", 2 * PATIENCE_SECONDS)
    async with Receiver() as receiver:
        for account in [await engine.new_account(receiver.url) for _ in range(5)]:
            await engine.append(account, 10)
        async with engine.dispatch() as dispatcher:
            dispatcher._has_news = True
            await receiver.wait_for(lambda them: len(them.pings) + len(them.messages) == 16)
            await engine.until("SELECT count(*) FROM delivery WHERE lease IS NOT NULL", 20)
    assert len(receiver.pings) + len(receiver.messages) == 16


async def test_a_loop_that_is_late_is_given_no_more_such_moments(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "_BREATH_SECONDS", 2 * PATIENCE_SECONDS)
    monkeypatch.setattr(dispatcher_module, "_BREATHING_SECONDS", 0.0)
    async with Receiver() as receiver:
        for account in [await engine.new_account(receiver.url) for _ in range(5)]:
            await engine.append(account, 10)
        async with engine.dispatch() as dispatcher:
            dispatcher._has_news = True
            await engine.until_delivered(50)


async def test_what_ends_at_a_full_endpoint_is_not_gathered_for_long(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    async with Receiver() as slow, Receiver() as quick, engine.dispatch() as dispatcher:
        first, second = await engine.new_account(slow.url), await engine.new_account(quick.url)
        await engine.until("SELECT count(*) FROM attempt", 2)
        for name in ("_GATHER_SECONDS", "_POLL_SECONDS"):
            monkeypatch.setattr(dispatcher_module, name, 2 * PATIENCE_SECONDS)
        slow.answers.extend([Answer(gate=gate)] * 4)
        await engine.append(first, 5)
        await slow.wait_for(lambda them: len(them.messages) == 4)
        await engine.append(second)
        await quick.wait_for(lambda them: len(them.messages) == 1)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while dispatcher._gathering is None:  # noqa: ASYNC110  until its answer was read
                await asyncio.sleep(0)
        gate.set()
        await slow.wait_for(lambda them: len(them.messages) == 5)


# --- stops, kills, outages --------------------------------------------------------------------------------------------


async def test_after_a_kill_what_was_in_flight_is_repeated_and_what_was_settled_is_not(engine: Engine) -> None:
    async with Receiver() as receiver:
        async with engine.dispatch():
            account = await engine.new_account(receiver.url)
            settled = await engine.append(account, 5)
            await engine.until("SELECT count(*) FROM attempt", 6)  # with the ping, which is to have no gate
            receiver.answers.extend([Answer(gate=asyncio.Event())] * 4)
            cut_off = await engine.append(account, 6)
            await receiver.wait_for(lambda them: len(them.messages) == 9)
        await engine.release_leases()
        async with engine.dispatch():
            await engine.until_delivered(11)
    seen = [message.message_id for message in receiver.messages]
    assert [seen.count(message_id) for message_id in settled] == [1] * 5
    assert sorted(seen.count(message_id) for message_id in cut_off) == [1, 1, 2, 2, 2, 2]


async def test_a_drain_lets_what_is_in_flight_end_and_starts_nothing_more(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher_module, "_POLL_SECONDS", 2 * PATIENCE_SECONDS)  # it does not wait for nothing
    gate = asyncio.Event()
    async with Receiver() as receiver, engine.dispatch() as dispatcher:
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.append(Answer(gate=gate))
        await engine.append(account)
        await receiver.wait_for(lambda them: len(them.messages) == 1)
        draining = asyncio.create_task(dispatcher.drain(2 * PATIENCE_SECONDS))
        await asyncio.sleep(0)
        await engine.append(account)
        gate.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await draining
        states = await engine.rows(f"SELECT state {OF_DOCUMENTS} ORDER BY delivery.seq")
        assert states == [("delivered",), ("waiting",)]


async def test_a_database_that_fails_for_a_while_loses_and_repeats_nothing(engine: Engine) -> None:
    gate = asyncio.Event()
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.append(Answer(gate=gate))
        await engine.append(account)
        await receiver.wait_for(lambda them: len(them.messages) == 1)
        engine.database.fail_next = 4  # some of them are claims, some the settling of the attempt
        gate.set()
        await engine.until_delivered(1)
        await engine.append(account)
        await engine.until_delivered(2)
    assert engine.database.fail_next == 0
    assert len(receiver.messages) == 2


def test_backing_off_has_an_end() -> None:
    assert [back_off(failures) for failures in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert back_off(10_000) == 5


# --- what a customer changes meanwhile --------------------------------------------------------------------------------


async def test_clearing_the_url_fails_what_waits_and_a_new_one_gets_a_new_key_and_what_failed(engine: Engine) -> None:
    account = await engine.new_account("https://receiver.invalid/hook")
    before = await engine.service.get_settings(account)
    await engine.append(account)
    cleared = await engine.service.save_url(account, "")
    assert (cleared.url, cleared.key) == (None, None)
    await engine.append(account)
    status = await engine.service.webhook_status(account)
    assert (status.enabled, status.waiting, status.failed) == (False, 0, 2)
    async with Receiver() as receiver, engine.dispatch():
        after = await engine.service.save_url(account, receiver.url)
        assert after.key not in {None, before.key}
        receiver.webhook_key = after.key
        await engine.service.retry_failed(account)
        await engine.until_delivered(2)
        assert receiver.refused == 0


async def test_a_changed_url_keeps_its_key_and_gets_what_waits(engine: Engine) -> None:
    account = await engine.new_account("https://receiver.invalid/hook")
    await engine.append(account)
    before = await engine.service.get_settings(account)
    async with Receiver() as receiver, engine.dispatch():
        after = await engine.service.save_url(account, receiver.url)
        assert after.key == before.key
        await engine.until_delivered(1)


async def test_after_a_rotation_both_keys_verify(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        old = (await engine.service.get_settings(account)).key
        (endpoint,) = await engine.service.list_endpoints(account)
        await engine.service.rotate_key(account, endpoint.id, "key:test")
        new = (await engine.service.get_settings(account)).key
        await engine.append(account)
        await engine.until_delivered(1)
    message = receiver.messages[0]
    assert new != old
    for key in (new, old):
        assert key is not None
        assert message.verifies_standard_webhooks(key)


async def test_an_endpoint_has_its_own_headers_and_its_own_schedule(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account()
        endpoint = await engine.service.create_endpoint(
            account, "key:test", {"url": receiver.url, "headers": {"Authorization": "Bearer hush"}, "retry_seconds": []}
        )
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.append(Answer(500))
        await engine.service.send_sample(account, endpoint.id, EventType.DOCUMENT_DOWNLOAD)
        await engine.until(f"SELECT count(*) {OF_DOCUMENTS} AND state = 'failed'", 1)
    assert await engine.rows(f"SELECT attempts {OF_DOCUMENTS}") == [(1,)]
    assert receiver.messages[0].headers["authorization"] == "Bearer hush"


async def test_an_endpoint_may_trust_its_own_authority_and_be_told_who_is_calling(engine: Engine) -> None:
    authority = trustme.CA()
    client = authority.issue_cert("chartwire.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    tls = {
        "authority": authority.cert_pem.bytes().decode(),
        "certificate": "".join(part.bytes().decode() for part in client.cert_chain_pems),
        "private_key": client.private_key_pem.bytes().decode(),
    }
    async with Receiver(ssl_context=context) as receiver, engine.dispatch():
        account = await engine.new_account()
        endpoint = await engine.service.create_endpoint(
            account, "key:test", {"url": receiver.url, "tls": tls, "retry_seconds": [86_400]}
        )
        await engine.until("SELECT count(*) FROM endpoint WHERE verified", 1)
        await engine.service.change_endpoint(account, endpoint.id, {"tls": None})
        await engine.append(account)
        await engine.until("SELECT count(*) FROM attempt WHERE outcome = 'tls'", 1)
        await engine.service.change_endpoint(account, endpoint.id, {"tls": tls})
        assert await engine.service.hasten(account, endpoint.id, "operator") == 1
        await engine.until_delivered(1)
    assert len(receiver.messages) == 1


async def test_what_waits_for_a_disabled_endpoint_is_held_and_for_a_deleted_one_dropped(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account()
        endpoint = await engine.service.create_endpoint(account, "key:test", {"url": receiver.url})
        await engine.until("SELECT count(*) FROM attempt", 1)
        await engine.service.disable_endpoint(account, endpoint.id, "key:test")
        await engine.append(account)
        await engine.service.enable_endpoint(account, endpoint.id, "key:test")
        await receiver.wait_for(lambda them: len(them.messages) == 1)
        await engine.until_delivered(1)
        await engine.service.disable_endpoint(account, endpoint.id, "key:test")
        await engine.append(account)
        await engine.service.delete_endpoint(account, endpoint.id, "key:test")
    states = await engine.rows(f"SELECT delivery.state {OF_DOCUMENTS} AND endpoint_seq = {endpoint.seq} ORDER BY 1")
    assert states == [("delivered",), ("dropped",)]
    assert len(receiver.messages) == 1


async def test_what_waits_for_days_goes_out_when_somebody_says_that_the_receiver_is_mended(engine: Engine) -> None:
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account(receiver.url)
        await receiver.wait_for(lambda them: len(them.pings) == 1)
        (endpoint,) = await engine.service.list_endpoints(account)
        await engine.service.change_endpoint(account, endpoint.id, {"retry_seconds": [86_400, 86_400]})
        receiver.answers.extend([Answer(500)] * 3)
        await engine.append(account, 3)
        await engine.until("SELECT count(*) FROM attempt WHERE outcome = 'http_error'", 3)
        assert await engine.service.hasten(account, endpoint.id, "operator") == 3
        await engine.until_delivered(3)
        again = await engine.rows(f"SELECT max(delivery.attempts) {OF_DOCUMENTS}")
    assert again == [(2,)]  # the attempts before count on


async def test_an_endpoint_that_is_deleted_during_an_attempt_gets_no_other(engine: Engine) -> None:
    gate = asyncio.Event()
    async with Receiver() as receiver, engine.dispatch():
        account = await engine.new_account()
        endpoint = await engine.service.create_endpoint(account, "key:test", {"url": receiver.url})
        await engine.until("SELECT count(*) FROM attempt", 1)
        receiver.answers.append(Answer(500, gate=gate))
        await engine.append(account)
        await receiver.wait_for(lambda them: len(them.messages) == 1)
        await engine.service.delete_endpoint(account, endpoint.id, "key:test")
        gate.set()
        await engine.until("SELECT count(*) FROM attempt", 2)
    states = await engine.rows(f"SELECT state, attempts {OF_DOCUMENTS} AND endpoint_seq = {endpoint.seq}")
    assert states == [("dropped", 1)]


# --- upkeep -----------------------------------------------------------------------------------------------------------


async def test_upkeep_tells_how_late_is_what_could_go_out(engine: Engine) -> None:
    account = await engine.new_account("https://receiver.invalid/hook")
    await engine.append(account, 1)
    late = Retention(engine.database, lambda: system_clock() + timedelta(seconds=90), engine.metrics, SETTINGS)
    await late.count_backlog()
    assert 90 <= (engine.metrics.registry.get_sample_value("chartwire_webhook_late_seconds") or 0) < 120
    early = Retention(engine.database, lambda: system_clock() - timedelta(seconds=90), engine.metrics, SETTINGS)
    await early.count_backlog()
    assert engine.metrics.registry.get_sample_value("chartwire_webhook_late_seconds") == 0


async def test_upkeep_forgets_expired_payloads_and_counts_the_backlog(engine: Engine) -> None:
    account = await engine.new_account("https://receiver.invalid/hook")
    await engine.append(account, 3)
    await Retention(engine.database, system_clock, engine.metrics, SETTINGS).count_backlog()
    assert engine.metrics.registry.get_sample_value("chartwire_webhook_backlog", {"age": "under_1m"}) == 4
    assert engine.metrics.registry.get_sample_value("chartwire_webhook_endpoints", {"state": "closed"}) == 1
    later = Retention(engine.database, lambda: system_clock() + RETENTION, engine.metrics, SETTINGS)
    await later.forget_expired()
    await later.count_backlog()
    assert engine.metrics.registry.get_sample_value("chartwire_webhook_backlog", {"age": "under_1m"}) == 0
    assert await engine.rows("SELECT count(*) FROM event WHERE body IS NOT NULL") == [(0,)]


async def test_upkeep_counts_the_backlog_although_history_cannot_be_forgotten(engine: Engine) -> None:
    counted = asyncio.Event()

    class Watched(Retention):
        async def count_backlog(self) -> None:
            await super().count_backlog()
            counted.set()

    endless = SETTINGS.model_copy(update={"history_retention_days": 1_000_000})  # before the year 1
    await engine.append(await engine.new_account("https://receiver.invalid/hook"), 3)
    running = asyncio.create_task(Watched(engine.database, system_clock, engine.metrics, endless).run())
    async with asyncio.timeout(PATIENCE_SECONDS):
        await counted.wait()
    running.cancel()
    assert engine.metrics.registry.get_sample_value("chartwire_webhook_backlog", {"age": "under_1m"}) == 4


async def test_upkeep_forgets_history_only_if_it_is_told_to(engine: Engine) -> None:
    account = await engine.new_account("https://receiver.invalid/hook")
    await engine.append(account, 3)
    ((written,),) = await engine.rows("SELECT count(*) FROM event")
    kept = SETTINGS.model_copy(update={"history_retention_days": SETTINGS.payload_retention_days})
    for settings, left in ((SETTINGS, written + 1), (kept, 1)):
        upkeep = Retention(engine.database, lambda: system_clock() + 2 * RETENTION, engine.metrics, settings)
        await upkeep.forget_expired()
        await upkeep.forget_history()
        await engine.append(account, 1)
        await upkeep.forget_history()
        assert await engine.rows("SELECT count(*) FROM event") == [(left,)]
