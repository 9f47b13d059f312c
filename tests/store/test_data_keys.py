"""Data keys: made once, sealed under the master key, changed while processes run."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, update
from tests.support.profile import open_connection, open_new_database

from chartwire.errors import ConfigurationError, StoreError
from chartwire.model.member import Role
from chartwire.model.webhook import EventDraft, EventType, PayloadVersion
from chartwire.services.key_watch import KeyWatch
from chartwire.settings import Settings
from chartwire.store import data_keys, endpoints, members, outbox, registry, resealing, schema
from chartwire.store.data_keys import Keyring, UnknownMasterKeyError
from chartwire.store.master_key import MasterKey, as_text
from chartwire.store.vault import Purpose, Vault

NOW = datetime(2025, 3, 1, tzinfo=UTC)
BEFORE = NOW - timedelta(days=1)
OLD, NEW = MasterKey(b"o" * 32), MasterKey(b"n" * 32)
HEADERS = {"x-one": "1", "x-two": "2"}
SECOND_FACTOR, ANSWER, TLS = b"totp", b"an answer", b"a profile"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with open_connection(tmp_path) as connection:
        yield connection


def vault_of(connection: Connection, *masters: MasterKey, now: datetime = NOW) -> Vault:
    """What a process with these master keys has."""
    return Vault.of(Keyring(masters).keys(data_keys.list_keys(connection), now))


def seal_one_of_each(connection: Connection, vault: Vault, events: int = 1) -> None:
    """Everything that is sealed in a database."""
    account = registry.create_account(connection, "Clinic", NOW)
    endpoint = endpoints.settings_endpoint(connection, account.id)
    endpoints.add_key(connection, vault, endpoint.seq, NOW)
    tls = {"sealed": base64.b64encode(vault.seal(Purpose.TLS, TLS)).decode(), "shown": {"names": []}}
    headers = endpoints.seal_headers(vault, HEADERS)
    endpoint = endpoints.update_endpoint(connection, endpoint, {"headers": headers, "tls": tls, "url": "https://a.org"})
    for number in range(events):
        draft = EventDraft(f"e{number}", account.id, EventType.DOCUMENT_DOWNLOAD, PayloadVersion.V2023_04, b"body")
        outbox.append_for(connection, vault, draft, [endpoint], NOW, timedelta(days=1))
    delivery = connection.execute(select(schema.delivery.c.seq).limit(1)).scalar_one()
    attempt = {"delivery_seq": delivery, "number": 1, "started_at": NOW, "duration_ms": 1, "outcome": "delivered"}
    answer = vault.seal(Purpose.ANSWER, ANSWER)
    connection.execute(insert(schema.attempt).values(**attempt, url="https://a.org", answer=answer))
    owner = members.insert_member(connection, account.id, "owner@clinic.example", Role.OWNER, "", NOW)
    secret = vault.seal(Purpose.SECOND_FACTOR, SECOND_FACTOR)
    connection.execute(update(schema.member).where(schema.member.c.id == owner.id).values(totp_secret=secret))


def opened(connection: Connection, vault: Vault) -> list[Any]:
    """All of it, opened."""
    found: list[Any] = []
    for place in resealing.PLACES:
        query = select(place.column).where(place.column.is_not(None)).order_by(place.key)
        for value in connection.execute(query).scalars():
            place.change(partial(_note, found, vault, place.purpose), value)
    return found


def _note(found: list[Any], vault: Vault, purpose: Purpose, sealed: bytes) -> bytes:
    found.append(vault.open(purpose, sealed))
    return sealed


def reseal_all(connection: Connection, vault: Vault, limit: int = 2) -> tuple[int, int]:
    """A round; returns how many were sealed anew, and how many do not open."""
    resealed = broken = 0
    for place in resealing.PLACES:
        batch = resealing.reseal(connection, vault, place, None, limit)
        while batch.last is not None:
            resealed, broken = resealed + batch.resealed, broken + batch.broken
            batch = resealing.reseal(connection, vault, place, batch.last, limit)
    return resealed, broken


def test_the_first_key_is_made_once_and_opens_under_its_master_key_alone(connection: Connection) -> None:
    (made,) = data_keys.ensure_keys(connection, [OLD], BEFORE)
    assert data_keys.ensure_keys(connection, [OLD], BEFORE) == [made]
    assert made.master_key_id == OLD.id
    sealed = vault_of(connection, OLD).seal(Purpose.PAYLOAD, b"content")
    assert sealed.startswith(bytes.fromhex(made.id))
    assert vault_of(connection, NEW, OLD).open(Purpose.PAYLOAD, sealed) == b"content"
    with pytest.raises(UnknownMasterKeyError, match=OLD.id):
        vault_of(connection, NEW)


def test_a_key_that_was_altered_or_renamed_does_not_open(connection: Connection) -> None:
    data_keys.ensure_keys(connection, [OLD], BEFORE)
    connection.execute(update(schema.data_key).values(id="00" * 8))
    with pytest.raises(StoreError, match="altered"):
        vault_of(connection, OLD)


def test_data_of_before_goes_on_under_the_master_key_it_is_sealed_with(connection: Connection) -> None:
    before = Vault(OLD.secret)
    seal_one_of_each(connection, before)
    with pytest.raises(ConfigurationError, match="not the key"):
        data_keys.ensure_keys(connection, [NEW], NOW)
    data_keys.ensure_keys(connection, [NEW, OLD], NOW)
    now = vault_of(connection, NEW)  # the old master key is not needed any longer
    assert opened(connection, now) == opened(connection, before)
    assert before.open(Purpose.PAYLOAD, now.seal(Purpose.PAYLOAD, b"x")) == b"x"  # the release before still reads it


def test_a_message_alone_is_data_of_before_too(connection: Connection) -> None:
    before, account = Vault(OLD.secret), registry.create_account(connection, "Clinic", NOW)
    draft = EventDraft("e1", account.id, EventType.DOCUMENT_DOWNLOAD, PayloadVersion.V2023_04, b"body")
    outbox.append_for(connection, before, draft, [], NOW, timedelta(days=1))
    data_keys.ensure_keys(connection, [OLD], NOW)
    sealed = connection.execute(select(schema.event.c.body)).scalar_one()
    assert vault_of(connection, OLD).open(Purpose.PAYLOAD, sealed) == b"body"


def test_another_master_key_seals_the_data_keys_and_changes_nothing_else(connection: Connection) -> None:
    data_keys.ensure_keys(connection, [OLD], BEFORE)
    running = vault_of(connection, OLD)
    seal_one_of_each(connection, running)
    assert data_keys.seal_anew(connection, [NEW, OLD]) == 1
    assert data_keys.seal_anew(connection, [NEW, OLD]) == 0
    assert opened(connection, vault_of(connection, NEW)) == opened(connection, running)
    with pytest.raises(UnknownMasterKeyError):
        vault_of(connection, OLD)
    with pytest.raises(UnknownMasterKeyError):
        data_keys.seal_anew(connection, [OLD])


def test_a_new_data_key_seals_when_its_notice_is_over(connection: Connection) -> None:
    (first,) = data_keys.ensure_keys(connection, [OLD], BEFORE)
    added = data_keys.add_key(connection, [OLD], NOW, timedelta(seconds=30))
    early, late = (vault_of(connection, OLD, now=NOW + timedelta(seconds=after)) for after in (29, 30))
    assert (early.name.hex(), late.name.hex()) == (first.id, added)
    assert early.open(Purpose.PAYLOAD, late.seal(Purpose.PAYLOAD, b"x")) == b"x"


@pytest.mark.parametrize("of_old", [False, True])
def test_everything_moves_to_the_new_key_in_any_number_of_goes(connection: Connection, of_old: bool) -> None:
    before = Vault(OLD.secret)
    if not of_old:
        data_keys.ensure_keys(connection, [OLD], BEFORE)
        before = vault_of(connection, OLD)
    seal_one_of_each(connection, before, events=5)
    data_keys.ensure_keys(connection, [OLD], BEFORE)
    added = bytes.fromhex(data_keys.add_key(connection, [OLD], NOW, timedelta()))
    vault = vault_of(connection, OLD)
    plain = opened(connection, before)
    resealing.reseal(connection, vault, resealing.PLACES[4], None, 2)  # and then it was stopped
    assert reseal_all(connection, vault) == (5 - 2 + 5, 0)  # an endpoint's headers are one thing here
    assert reseal_all(connection, vault) == (0, 0)
    assert opened(connection, vault) == plain
    assert resealing.count_by_key(connection) == {added: len(plain)}


def test_what_does_not_open_is_counted_and_left(connection: Connection) -> None:
    data_keys.ensure_keys(connection, [OLD], BEFORE)
    seal_one_of_each(connection, vault_of(connection, OLD))
    connection.execute(update(schema.event).values(body=b"an altered payload, or one of another installation"))
    data_keys.add_key(connection, [OLD], NOW, timedelta())
    assert reseal_all(connection, vault_of(connection, OLD)) == (5, 1)
    assert connection.execute(select(schema.event.c.body)).scalar_one().startswith(b"an altered")


async def test_a_running_process_takes_up_new_keys_and_asks_for_a_master_key_that_it_lacks(tmp_path: Path) -> None:
    database = open_new_database(tmp_path, lambda _: None)
    await database.write(lambda connection: data_keys.ensure_keys(connection, [OLD], BEFORE))
    keyring = Keyring([OLD])
    vault = await database.read(lambda connection: Vault.of(keyring.keys(data_keys.list_keys(connection), NOW)))
    times = [NOW]
    settings = Settings(master_key=f"{as_text(NEW)} {as_text(OLD)}")  # type: ignore[arg-type]
    watch = KeyWatch(database, keyring, vault, lambda: times[-1], settings)
    first = vault.name

    await database.write(lambda connection: data_keys.seal_anew(connection, [NEW, OLD]))
    await watch.look()
    assert [each.id for each in keyring.masters] == [OLD.id]  # what is open needs no master key

    added = await database.write(lambda it: data_keys.add_key(it, [NEW], NOW, timedelta(seconds=30)))
    assert await watch.look() == 30.0
    assert (vault.name, set(vault.names)) == (first, {first, bytes.fromhex(added)})
    times.append(NOW + timedelta(seconds=30))
    await watch.look()
    assert vault.name.hex() == added
    await database.close()
