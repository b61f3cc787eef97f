"""What an operator may set, read once: ``secrethub.toml``, the environment over it.

Every field can be given as ``SECRETHUB_…`` with ``__`` between levels (``SECRETHUB_TLS__PORT``); see
``cluster.settings_environment``. Unknown settings and combinations that cannot work are refused with the
name of the setting; no message holds a value, for a value may be a secret.

Settings say what is wanted; ``cluster.resolve`` turns them into what a node's processes read.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from cluster.kms.settings import KeyServiceSection
from cluster.settings_environment import (
    PREFIX,
    Environment,
    SecretSource,
    explain_variables,
    look_at_variables,
    with_secrets,
)
from secrethub.auth.networks import parse_networks
from secrethub.errors import InvalidRequest, Misconfigured

_log = logging.getLogger(__name__)

_RAY_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def _absolute(path: Path) -> Path:
    # Relative paths are the operator's; the node leaves his working directory before it starts Ray.
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolves no links: they may be rotated


def _network(text: str) -> str:
    try:
        return parse_networks([text])[0]
    except InvalidRequest as exc:
        raise ValueError(exc.message) from exc


File = Annotated[Path, AfterValidator(_absolute)]
Network = Annotated[str, AfterValidator(_network)]
Port = Annotated[int, Field(ge=0, le=65535)]
"""0 picks a free port."""


class _Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class HttpSettings(_Section):
    """Plain HTTP."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 4000
    allowed_hosts: tuple[str, ...] = ()
    """``Host`` values accepted beside loopback names, here and on Ray Serve's ingress."""


class TlsSettings(_Section):
    """HTTPS for clients, and the names of this node's certificates."""

    enabled: bool = True
    host: str = "0.0.0.0"  # noqa: S104 - TLS is the door for the network
    port: Port = 4443
    names: tuple[str, ...] = ("localhost",)
    addresses: tuple[str, ...] = ("127.0.0.1", "::1")
    certificate_file: File | None = None
    """PEM chain to use instead of the built-in CA's certificate; needs ``key_file``."""
    key_file: File | None = None


class AgentSettings(_Section):
    """Agents over mTLS."""

    enabled: bool = True
    host: str = "0.0.0.0"  # noqa: S104 - mTLS is the door for agents
    port: Port = 4665
    urls: tuple[str, ...] = ()
    """What agents are told to connect to; by default this node's first TLS name."""


class ServeSettings(_Section):
    """Ray Serve's ingress, plain HTTP."""

    host: str = "127.0.0.1"
    port: Port = 8000


class MetricsSettings(_Section):
    """Prometheus metrics, plain HTTP."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: Port = 9090


class RayTlsSettings(_Section):
    """Certificates with which Ray's processes speak to each other on several machines."""

    certificate_file: File
    key_file: File
    ca_file: File


class RaySettings(_Section):
    """The Ray node below this node."""

    host: str = "127.0.0.1"
    """Address by which the cluster's other nodes reach this one."""
    port: Port = 6379
    """Port of the head's control service."""
    address: str | None = None
    """``host:port`` of the head's control service; workers need it."""
    token_file: File | None = None
    """0600 file with the Ray token, the same on every node; a lone head makes its own."""
    dashboard_port: Port = 8265
    """Ray's dashboard, always on loopback."""
    temp_dir: File | None = None
    """Where Ray keeps sockets and logs; short, for it becomes part of socket addresses."""
    tls: RayTlsSettings | None = None
    autoscaling_config: File | None = None
    """What Ray's cluster launcher put on the head; with it the head starts the workers over SSH."""
    redis_address: str | None = None
    """``rediss://host:port`` that keeps the head's state, so that a new head takes over."""
    redis_username: str | None = None
    redis_password: SecretStr | None = None
    redis_password_file: File | None = None
    reconnect_timeout: Annotated[int, Field(ge=60)] = 600
    """Seconds the other nodes live without a head before Ray ends them."""


class PkiSettings(_Section):
    """The built-in certificate authority."""

    root_key_type: Literal["ecdsa-p384", "rsa-4096"] = "ecdsa-p384"
    """Key of the root CA, chosen when the cluster is initialised; RSA takes some seconds to make."""


class LimitSettings(_Section):
    """Bounds on what one process uses."""

    database_pool: Annotated[int, Field(ge=2, le=1000)] = 12
    """Connections to PostgreSQL at most."""
    max_body: Annotated[int, Field(ge=1024, le=32 * 1024 * 1024)] = 1_048_576
    """Bytes of a request body."""


class AuditSettings(_Section):
    """Where the ledger may be written to beside the database."""

    dirs: tuple[File, ...] = ()
    """Directories below which file sinks and the archive may write; by default ``audit`` in ``state_dir``."""
    syslog_socket: File = Path("/dev/log")
    """Unix datagram socket of the local syslog daemon."""


class OutboundSettings(_Section):
    """What SecretHub may connect to when somebody configures it through the API."""

    allowed_networks: tuple[Network, ...] = ()
    """Networks (CIDR) that are allowed although they are loopback or link-local, without TLS too."""


class Settings(BaseSettings):
    """One node's settings."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    role: Literal["head", "worker"] = "head"
    node: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    """Name of this node; by default one made at the first start and kept in ``state_dir``."""
    state_dir: File = Path("/var/lib/secrethub/node")
    """Private directory for what outlives a restart."""
    run_dir: File | None = None
    """Private directory for what lives as long as the node; by default below ``state_dir``."""
    database_url: SecretStr | None = None
    database_url_file: File | None = None
    cluster_key_file: File | None = None
    """0600 file with 64 hexadecimal digits, the same on every node."""
    init_token_file: File | None = None
    """0600 file with the one-time token that ``init`` from beyond loopback must show."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of proxies whose ``X-Forwarded-For`` is believed; loopback stands for Serve's ingress too."""
    http: HttpSettings = HttpSettings()
    tls: TlsSettings = TlsSettings()
    agents: AgentSettings = AgentSettings()
    serve: ServeSettings = ServeSettings()
    metrics: MetricsSettings = MetricsSettings()
    ray: RaySettings = RaySettings()
    pki: PkiSettings = PkiSettings()
    key_services: dict[str, KeyServiceSection] = {}
    """Keys of clouds that unseal slots may use, by name; the same on every node."""
    limits: LimitSettings = LimitSettings()
    audit: AuditSettings = AuditSettings()
    outbound: OutboundSettings = OutboundSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first, then secrets by their own variables, then the file."""
        del env_settings, dotenv_settings, file_secret_settings
        return Environment(settings_cls), SecretSource(settings_cls), init_settings


def load(path: Path | None) -> Settings:
    """Read the settings file and the environment, and check them.

    Args:
        path: ``secrethub.toml``; None reads the environment alone.

    Raises:
        Misconfigured: a setting is unknown, of the wrong kind, or does not go with another.
    """
    document: dict[str, Any] = {}
    if path is not None:
        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except OSError as exc:
            raise Misconfigured(f"{path}: {exc.strerror or exc}") from exc
        except ValueError as exc:
            raise Misconfigured(f"{path}: {exc}") from exc
    look_at_variables(Settings.model_fields)
    try:
        settings = Settings(**with_secrets(document))
    except ValidationError as exc:
        raise Misconfigured(_explain(exc)) from None
    except SettingsError as exc:
        raise Misconfigured(explain_variables(exc)) from None
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Refuse combinations that cannot work or would not be safe.

    Raises:
        Misconfigured: naming the setting.
    """
    ray = settings.ray
    if settings.database_url is None:
        raise Misconfigured("database_url: set it, or DATABASE_URL, to the cluster's PostgreSQL")
    if settings.cluster_key_file is None:
        raise Misconfigured("cluster_key_file: every node needs the cluster's key (openssl rand -hex 32)")
    if (settings.tls.certificate_file is None) != (settings.tls.key_file is None):
        raise Misconfigured("tls.certificate_file and tls.key_file go together")
    if not (settings.http.enabled or settings.tls.enabled):
        raise Misconfigured("http.enabled, tls.enabled: a node needs one of these doors")
    if settings.role == "worker" and ray.address is None:
        raise Misconfigured("ray.address: a worker needs host:port of the head")
    if settings.role == "worker" and ray.token_file is None:
        raise Misconfigured("ray.token_file: a worker needs the head's Ray token")
    if settings.role == "head" and ray.address is not None:
        raise Misconfigured("ray.address is for workers; a head is reached at ray.host and ray.port")
    if settings.role == "worker" and ray.redis_address is not None:
        raise Misconfigured("ray.redis_address is for the head; workers reach it through the head")
    # At any other address, 127.0.0.2 included, Ray listens on every interface of the machine.
    at_home = ray.host in _RAY_LOOPBACK and (ray.address is None or _host(ray.address) in _RAY_LOOPBACK)
    if ray.tls is None and not at_home:
        raise Misconfigured(
            "ray.tls: Ray beyond loopback needs certificates (certificate_file, key_file, ca_file)"
        )
    if settings.role == "worker" and ray.autoscaling_config is not None:
        raise Misconfigured("ray.autoscaling_config is for the head")
    if ray.redis_address is not None:
        _check_redis(ray)


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is this machine's own, without asking any name server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_redis(ray: RaySettings) -> None:
    address = ray.redis_address or ""
    scheme, _, rest = address.rpartition("://")
    if ray.redis_password is None:
        raise Misconfigured(
            "ray.redis_password: who can write to this Redis controls the cluster; set a password"
        )
    if scheme != "rediss" and not is_loopback(_host(rest)):
        raise Misconfigured("ray.redis_address: beyond loopback it must be rediss://host:port")


def _host(address: str) -> str:
    return address.rpartition(":")[0] or address


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        name = ".".join(str(part) for part in problem["loc"])
        said = "there is no such setting" if problem["type"] == "extra_forbidden" else problem["msg"]
        lines.append(f"{name}: {said[:1].lower()}{said[1:]}")
    return "; ".join(lines)
