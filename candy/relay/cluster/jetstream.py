"""The ledger in NATS JetStream, and messages between relays over NATS: the only file that imports its library.

    connect() ─▶ version ─▶ streams: made, or found as they have to be ─▶ get, put, follow, forget      publish, request
                                                                              └─ after every reconnection: what is new

    bucket       stream KV_candy_BUCKET, subjects $KV.candy_BUCKET.KEY: tools for NATS' key-value stores read them
    revision     a message's sequence in its stream

Rules:
 1. Nothing is published while disconnected: the library would keep it, and send what is stale by then.
 2. Reads are asked of a stream's leader, never of a replica (no direct get). A leader that has just lost its office may
    give an older value all the same. So nothing follows from what is not there; rule 2 of
    candy.relay.cluster.agreement has the ledger itself refuse.
 3. A consumer is NATS' to lose: after a reconnection, a gap or a silence another one begins behind what was had.

Measured with nats-server 2.15: a leader that is killed costs 4 to 7 s without an answer; without a majority a put is
refused at once, as without a stream. The library's own ordered consumer ends when all servers restart.
"""

import asyncio
import json
import logging
import ssl
from base64 import b64decode
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import (
    AuthorizationError,
    ConnectionClosedError,
    NoRespondersError,
    NoServersError,
    OutboundBufferLimitError,
)
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError

from candy.errors import OperationalError
from candy.relay.cluster.ledger import AwayError, Bucket, Entry, Follow, LostError, StaleError
from candy.relay.cluster.records import SCHEMA
from candy.relay.clustersettings import ClusterSettings

OLDEST: Final = (2, 11)
"""Version of nats-server: those before accept two writers over one revision."""
ANSWER_S: Final = 3.0
"""How long an answer may take: longer than a disk, shorter than who logs in waits."""
CONNECT_S: Final = 5.0
START_S: Final = 30.0
"""How long a start waits for a server that answers: those that have just begun elect a leader first."""
AGAIN_S: Final = 0.5
"""Between two attempts to reach a server, and to follow a stream."""
PING_S: Final = 2.0
"""Between the library's pings: two of them without an answer are the connection's end."""
REREAD_S: Final = 0.02
"""Between two reads of what is about to be there."""
HEARTBEAT_S: Final = 2.0
SILENCE_S: Final = 3 * HEARTBEAT_S
"""Of a consumer that is gone."""

DIGESTS_MOST: Final = 1 << 22
"""Of all networks. They go with time (candy.relay.cluster.digests); beyond it log-ins by hashes have to wait."""

_WRONG_SEQUENCE: Final = (10071, 10164)
"""The second: another write is under way."""
_NOT_FOUND: Final = (10037, 10059)
_TOO_FEW_PEERS: Final = 10005
_ALONE: Final = 10074
"""The server is none of several."""
_OTHER_CONFIGURATION: Final = 10058

log = logging.getLogger("candy.relay")

_Result = TypeVar("_Result")


@dataclass(slots=True)
class _Following:
    """One bucket that is followed."""

    bucket: Bucket
    follow: Follow
    prefix: str = ""
    """Whole words that keys begin with; empty: all keys, and for ever, not once."""
    had: int = 0
    """The last revision."""
    task: "asyncio.Task[None] | None" = None


class JetStream:
    """See the rules above.

    Args:
        on_connected: called when a connection stands, with False when it is lost.
    """

    def __init__(self, settings: ClusterSettings, on_connected: Callable[[bool], None] = lambda is_up: None) -> None:
        self._settings = settings
        self._client = Client()
        self._on_connected = on_connected
        self._following: list[_Following] = []
        self._reconnected = asyncio.Event()
        """Set, and replaced by another one, each time."""
        self._refused = asyncio.Event()
        """A server does not know this relay."""
        self._has_begun = False
        self._is_closing = False
        self._serving: set[asyncio.Task[None]] = set()
        self.error = ""
        """The last one that the library has told of."""

    @property
    def is_up(self) -> bool:
        """There is a connection."""
        return bool(self._client.is_connected)

    @property
    def server(self) -> str:
        """The one that it is connected to, or was last."""
        url = self._client.connected_url
        return "" if url is None else str(url.netloc)

    async def connect(self) -> None:
        """Connect, and make what is missing.

        Raises:
            OperationalError: no server answers, or one is too old, refuses the credentials, or has other streams.
        """
        try:
            await self._connect()
            self._check_version()
            for bucket in Bucket:
                await patiently(partial(self._make, bucket))
        except (NatsError, OSError, TimeoutError, AwayError) as error:
            await self.close()
            raise OperationalError(f"cluster: {self._why(error)}") from None
        except OperationalError:
            await self.close()
            raise

    async def close(self) -> None:
        """Idempotent."""
        self._is_closing = True
        await ended([*(each.task for each in self._following if each.task is not None), *self._serving])
        if self._has_begun:
            # A task: the library waits for a transport, which may be cancelled, and that is no cancellation of ours.
            closing = asyncio.get_running_loop().create_task(self._client.close())
            await asyncio.wait([closing])
            if not closing.cancelled() and not isinstance(closing.exception(), NatsError | OSError | None):
                closing.result()

    # The ledger.

    async def get(self, bucket: Bucket, key: str, after: int = -1) -> Entry | None:
        ends = asyncio.get_running_loop().time() + ANSWER_S
        while True:
            entry = await self._get(bucket, key)
            if after < 0 or (entry is not None and entry.revision > after):
                return entry
            if asyncio.get_running_loop().time() > ends:
                if entry is None:
                    return None
                raise AwayError(f"NATS refuses to write {key} and shows no other writer")
            await asyncio.sleep(REREAD_S)

    async def put(self, bucket: Bucket, key: str, value: bytes, revision: int) -> int:
        headers = {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        self._check_up()
        try:
            answer = await self._client.request(_subject(bucket, key), value, timeout=ANSWER_S, headers=headers)
        except (NatsTimeoutError, TimeoutError, ConnectionClosedError) as error:
            raise LostError(f"NATS has not answered in {ANSWER_S:g} s") from error
        except NoRespondersError:
            # Not one of the stream's servers is its leader.
            raise AwayError(f"NATS has no leader for the bucket {bucket}") from None
        except (OutboundBufferLimitError, NatsError) as error:
            raise AwayError(str(error)) from error
        read = json.loads(answer.data)
        if (fault := read.get("error")) is None:
            return int(read["seq"])
        if fault.get("err_code") in _WRONG_SEQUENCE:
            raise StaleError(fault["description"])
        raise AwayError(f"NATS refuses to write: {fault.get('description')}")

    async def follow(self, bucket: Bucket, follow: Follow) -> None:
        following = _Following(bucket, follow)
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        following.task = asyncio.create_task(self._keep_following(following, ready))
        self._following.append(following)
        await ready

    async def gather(self, bucket: Bucket, prefix: str, take: Follow) -> None:
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            await self._follow_once(_Following(bucket, take, prefix), ready)
        except (_ApiError, NatsError, TimeoutError) as error:
            raise AwayError(f"the bucket {bucket} can't be read: {error}") from error
        if not ready.done():
            raise AwayError(f"the bucket {bucket} can't be read: the connection was lost")

    async def first(self, bucket: Bucket, prefix: str, revision: int) -> Entry | None:
        return await self._found(bucket, {"seq": max(revision, 1), "next_by_subj": f"{_subject(bucket, prefix)}.>"})

    async def written(self, bucket: Bucket) -> int:
        try:
            state = (await self._api(f"STREAM.INFO.{_stream(bucket)}", {}))["state"]
        except _ApiError as error:
            raise AwayError(str(error)) from None
        # To the second, behind which stand fractions that datetime does not read. Of an empty stream it is of year 1.
        written = datetime.strptime(state["last_ts"][:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        return max(0, int(written.timestamp()))

    async def forget(self, bucket: Bucket, prefix: str) -> None:
        body = {"filter": f"{_subject(bucket, prefix)}.>"}
        try:
            await self._api(f"STREAM.PURGE.{_stream(bucket)}", body)
        except _ApiError as error:
            raise AwayError(str(error)) from None

    # Messages.

    async def publish(self, subject: str, message: bytes) -> bool:
        """Tell those who listen; False: there is no connection, and nothing was kept."""
        if not self.is_up:
            return False
        try:
            await self._client.publish(subject, message)
        except NatsError:
            return False
        return True

    async def request(self, subject: str, message: bytes, timeout_s: float = ANSWER_S) -> bytes:
        """The answer of one who listens.

        Raises:
            AwayError: there is no connection, nobody listens, or no answer came.
        """
        self._check_up()
        try:
            return bytes((await self._client.request(subject, message, timeout=timeout_s)).data)
        except (NatsError, TimeoutError) as error:
            raise AwayError(f"no answer from {subject}: {error}") from error

    async def listen(self, subject: str, take: Callable[[str, bytes], bytes | None]) -> None:
        """Have this called with subject and content of each message. What it returns is the answer."""

        async def on_message(message: Msg) -> None:
            answer = take(message.subject, message.data)
            if answer is not None and message.reply:
                await self.publish(message.reply, answer)

        await self._client.subscribe(subject, cb=on_message)

    async def serve(
        self, subject: str, answer: Callable[[str, bytes], Coroutine[Any, Any, bytes | None]], most: int
    ) -> None:
        """Have this answer each message, by its subject and content, so many at once; None, and beyond that: nothing
        is."""

        async def reply(message: Msg) -> None:
            answered = await answer(message.subject, message.data)
            if answered is not None:
                await self.publish(message.reply, answered)

        async def on_message(message: Msg) -> None:
            if message.reply and len(self._serving) < most:
                task = asyncio.create_task(reply(message))
                self._serving.add(task)
                task.add_done_callback(self._serving.discard)

        await self._client.subscribe(subject, cb=on_message)

    async def is_answering(self) -> bool:
        """Whether NATS demonstrably works: a server has answered just now."""
        try:
            await self._client.flush(int(ANSWER_S))
        except (NatsError, TimeoutError, OSError):
            return False
        return self.is_up

    async def _connect(self) -> None:
        settings = self._settings
        options: dict[str, Any] = {}
        if settings.credentials is not None:
            options |= _credentials(settings.credentials)
        if settings.ca_file is not None:
            options["tls"] = _tls(settings.ca_file)
        self._has_begun = True
        connecting = self._client.connect(
            servers=list(settings.nats),
            name=f"candy relay {settings.name}",
            connect_timeout=int(CONNECT_S),
            reconnect_time_wait=AGAIN_S,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            # Rule 1.
            pending_size=-1,
            ping_interval=int(PING_S),
            max_outstanding_pings=2,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            **options,
        )
        # By itself the library tries for ever.
        tasks = {asyncio.ensure_future(connecting), asyncio.ensure_future(self._refused.wait())}
        done, others = await asyncio.wait(tasks, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if not self._client.is_connected:
            for task in done:
                task.result()
            raise TimeoutError
        self._on_connected(True)

    def _check_version(self) -> None:
        version = self._client.connected_server_version
        if (version.major, version.minor) < OLDEST:
            found = f"{version.major}.{version.minor}.{version.patch}"
            raise OperationalError(
                f"cluster: {self.server} is nats-server {found}, which may give an address to two members: "
                f"update it to {OLDEST[0]}.{OLDEST[1]} or later"
            )

    async def _make(self, bucket: Bucket) -> None:
        """Make a bucket, or look whether it is as it has to be."""
        own = self._settings.replicas
        config = {
            "name": _stream(bucket),
            "subjects": [f"$KV.candy_{bucket}.>"],
            "storage": "file",
            "retention": "limits",
            "num_replicas": own,
            "max_msgs_per_subject": 1,
            "discard": "new",
            "allow_direct": False,
            "deny_delete": True,
            "metadata": {"candy.schema": str(SCHEMA)},
        }
        if bucket is Bucket.DIGESTS:
            config["max_msgs"] = DIGESTS_MOST
        try:
            found = (await self._api(f"STREAM.INFO.{_stream(bucket)}", {}))["config"]
        except _ApiError as error:
            if error.code != 10059:
                raise AwayError(str(error)) from None
            found = await self._create(bucket, config)
        replicas, schema = found["num_replicas"], found.get("metadata", {}).get("candy.schema")
        if replicas != own:
            raise OperationalError(
                f"cluster: replicas = {own} here, and candy's bucket {bucket} has {replicas}: write the same at all "
                f"relays, or change it with: nats stream edit {_stream(bucket)} --replicas {own}"
            )
        if schema != str(SCHEMA):
            raise OperationalError(
                f"cluster: candy's bucket {bucket} is of version {schema or 'none'}, this relay's is {SCHEMA}: "
                "have all relays run one version of candy"
            )

    async def _create(self, bucket: Bucket, config: dict[str, Any]) -> dict[str, Any]:
        try:
            created: dict[str, Any] = (await self._api(f"STREAM.CREATE.{_stream(bucket)}", config))["config"]
            return created
        except _ApiError as error:
            if error.code in (_TOO_FEW_PEERS, _ALONE):
                kind = _NoPeersError if error.code == _TOO_FEW_PEERS else OperationalError
                raise kind(
                    f"cluster: replicas = {config['num_replicas']} needs as many servers of NATS with JetStream, and "
                    f"{self.server} knows of fewer ({error}): start them, or write replicas = 1"
                ) from None
            if error.code == _OTHER_CONFIGURATION:
                # Another relay was first, just now.
                found: dict[str, Any] = (await self._api(f"STREAM.INFO.{_stream(bucket)}", {}))["config"]
                return found
            raise AwayError(str(error)) from None

    async def _get(self, bucket: Bucket, key: str) -> Entry | None:
        return await self._found(bucket, {"last_by_subj": _subject(bucket, key)})

    async def _found(self, bucket: Bucket, which: dict[str, Any]) -> Entry | None:
        try:
            found = await self._api(f"STREAM.MSG.GET.{_stream(bucket)}", which)
        except _ApiError as error:
            if error.code in _NOT_FOUND:
                return None
            raise AwayError(str(error)) from None
        message = found["message"]
        key = message["subject"].split(".", 2)[2]
        return Entry(key, b64decode(message.get("data", "")), int(message["seq"]))

    async def _api(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        """One of JetStream's calls. Raises AwayError, _ApiError."""
        self._check_up()
        try:
            answer = await self._client.request(f"$JS.API.{call}", json.dumps(body).encode(), timeout=ANSWER_S)
        except NoRespondersError:
            raise AwayError(f"{self.server} has no JetStream: write jetstream {{ … }} into its configuration") from None
        except (NatsError, TimeoutError) as error:
            raise AwayError(f"NATS has not answered: {error}") from error
        read: dict[str, Any] = json.loads(answer.data)
        if (fault := read.get("error")) is not None:
            raise _ApiError(int(fault.get("err_code", 0)), str(fault.get("description", "")))
        return read

    def _check_up(self) -> None:
        if not self.is_up:
            raise AwayError("there is no connection to NATS")

    async def _keep_following(self, following: _Following, ready: "asyncio.Future[None]") -> None:
        while True:
            again = self._reconnected
            try:
                await self._follow_once(following, ready)
            except (AwayError, _ApiError, NatsError, TimeoutError) as error:
                if not ready.done():
                    ready.set_exception(AwayError(f"the bucket {following.bucket} can't be read: {error}"))
                    return
                log.debug("cluster: the bucket %s is followed anew: %s", following.bucket, error)
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S):
                    await again.wait()

    async def _follow_once(self, following: _Following, ready: "asyncio.Future[None]") -> None:
        """Follow a stream until something is missing, or has been given once."""
        self._check_up()
        again, stream = self._reconnected, _stream(following.bucket)
        inbox = self._client.new_inbox()
        messages: asyncio.Queue[Msg] = asyncio.Queue()

        async def on_message(message: Msg) -> None:
            messages.put_nowait(message)

        subscription: Subscription = await self._client.subscribe(inbox, cb=on_message)
        try:
            config: dict[str, Any] = {
                "deliver_subject": inbox,
                "ack_policy": "none",
                "replay_policy": "instant",
                "idle_heartbeat": int(HEARTBEAT_S * 1e9),
                "flow_control": True,
                "inactive_threshold": int(60e9),
                "num_replicas": 1,
                "mem_storage": True,
                "deliver_policy": "by_start_sequence" if following.had else "all",
            }
            if following.had:
                config["opt_start_seq"] = following.had + 1
            if following.prefix:
                config["filter_subject"] = f"{_subject(following.bucket, following.prefix)}.>"
            made = await self._api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
            pending, last = int(made["num_pending"]), 0
            if not pending:
                _done(ready)
            while self._reconnected is again and not (following.prefix and ready.done()):
                async with asyncio.timeout(SILENCE_S):
                    message = await messages.get()
                if message.headers and message.headers.get("Status") == "100":
                    if message.reply:
                        await self._client.publish(message.reply)
                    stalled = message.headers.get("Nats-Consumer-Stalled")
                    if stalled:
                        await self._client.publish(stalled)
                    if int(message.headers.get("Nats-Last-Consumer", last)) != last:
                        raise AwayError("something was lost on the way")
                    continue
                # $JS.ACK.STREAM.CONSUMER.DELIVERED.SEQUENCE.NUMBER.TIME.PENDING, perhaps with domain and account.
                sequence, number, _, left = (int(part) for part in message.reply.split(".")[-4:])
                if number != last + 1:
                    raise AwayError("something was lost on the way")
                last, following.had = number, sequence
                following.follow(Entry(message.subject.split(".", 2)[2], message.data, sequence))
                if not left:
                    _done(ready)
        finally:
            with suppress(NatsError):
                await subscription.unsubscribe()

    async def _on_error(self, error: Exception) -> None:
        self.error = str(error) or type(error).__name__
        if isinstance(error, AuthorizationError) or "Authorization" in self.error:
            self._refused.set()
        log.debug("cluster: NATS: %s", self.error)

    async def _on_disconnected(self) -> None:
        if not self._is_closing:
            self._on_connected(False)

    async def _on_reconnected(self) -> None:
        self._reconnected, before = asyncio.Event(), self._reconnected
        before.set()
        self._on_connected(True)

    def _why(self, error: Exception) -> str:
        """That nothing answers, in one line."""
        servers = " or ".join(self._settings.nats)
        if self._refused.is_set():
            return f"{servers} refuses the credentials: write the file that credentials names anew"
        if isinstance(error, TimeoutError | NoServersError):
            return f"no server of NATS answers at {servers} ({self.error or 'no answer'}): start it, or mend nats"
        return f"{servers}: {error or self.error}"


class _NoPeersError(OperationalError):
    """There are too few servers, perhaps not for long."""


class _ApiError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


async def connected(settings: ClusterSettings, on_connected: Callable[[bool], None] = lambda is_up: None) -> JetStream:
    """One that is connected. Raises OperationalError, see JetStream.connect()."""
    made = JetStream(settings, on_connected)
    await made.connect()
    return made


async def patiently(ask: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
    """Ask until there is an answer, for START_S: servers that have just begun may not have found each other, or their
    leaders.

    Raises:
        AwayError, OperationalError: from `ask`, at last.
    """
    ends = asyncio.get_running_loop().time() + START_S
    while True:
        try:
            return await ask()
        except (AwayError, _NoPeersError):
            if asyncio.get_running_loop().time() > ends:
                raise
            await asyncio.sleep(AGAIN_S)


async def ended(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel them, and wait until they have ended. A cancellation that comes with an answer is lost in the library
    (asyncio.wait_for before Python 3.12)."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=AGAIN_S)


def _stream(bucket: Bucket) -> str:
    return f"KV_candy_{bucket}"


def _subject(bucket: Bucket, key: str) -> str:
    return f"$KV.candy_{bucket}.{key}"


def _done(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _credentials(file: Path) -> dict[str, Any]:
    """As the library takes them: a file of nsc, or a line user:password. Raises OperationalError."""
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise OperationalError(f"cluster: cannot read credentials {file}: {error}") from None
    if "BEGIN NATS USER JWT" in text:
        return {"user_credentials": str(file)}
    user, colon, password = text.strip().partition(":")
    if not user or not colon or not password or "\n" in password:
        raise OperationalError(
            f"cluster: credentials {file} is neither a line user:password nor a file that nsc has made: write one"
        )
    return {"user": user, "password": password}


def _tls(file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=str(file))
    except (OSError, ssl.SSLError) as error:
        raise OperationalError(f"cluster: ca_file {file} is no certificate authority (PEM): {error}") from None
