"""The health report: each part of a process, as its background poller last saw it. Nothing here calls a server."""

from __future__ import annotations

from typing import Literal

from serving.schemas.common import Health, PartHealth
from serving.services import Services


def health_report(services: Services) -> Health:
    """Return `ready`, `degraded` or `not ready`, with the health of each part."""
    parts = _stores(services) | {
        "worker": _part(services.watch.stall_message, "healthy"),
        "model": _model(services),
        "catalogue": _catalog(services),
        "targets": _targets(services),
        "policies": _policies(services),
    }
    if services.content is not None:
        parts["content"] = _content(services)
    status: Literal["ready", "degraded", "not ready"]
    if services.holders.current.revision < 0 or not parts["engine"].ok:
        status = "not ready"
    else:
        status = "ready" if all(part.ok for part in parts.values()) else "degraded"
    return Health(status=status, parts=parts)


def _part(fault: str | None, healthy: str) -> PartHealth:
    return PartHealth(ok=not fault, detail=fault or healthy)


def _stores(services: Services) -> dict[str, PartHealth]:
    followers = services.pollers
    parts = {name: _part(followers[name].error, "healthy") for name in ("control", "online", "stream", "engine")}
    spool = services.spool.state()
    why = f": {spool.fault}" if spool.fault else ""
    parts["spool"] = PartHealth(ok=not why, detail=f"{spool.records:,} events wait{why}")
    if (fault := services.viewers.fault) is not None:
        parts["online"] = PartHealth(ok=False, detail=f"pages go on without it: {fault}")
    return parts


def _model(services: Services) -> PartHealth:
    model, refused = services.holders.current.model, services.model_poller.refused
    version = model.bundle.version if model else None
    return PartHealth(
        ok=version is not None and refused is None,
        detail=refused or services.pollers["model"].error or (f"serves {version}" if version else "none yet"),
        version=version,
    )


def _catalog(services: Services) -> PartHealth:
    snapshot = services.holders.current
    items = len(snapshot.catalog)
    return PartHealth(ok=items > 0, detail=f"{items:,} items at revision {snapshot.revision}")


def _targets(services: Services) -> PartHealth:
    fault = "; ".join(services.targets.stale_targets()) or services.pollers["targets"].error
    return _part(fault, f"{len(services.targets.running)} pursued")


def _policies(services: Services) -> PartHealth:
    faults = services.holders.current.faults
    return _part("; ".join(f"{outlet}: {why}" for outlet, why in sorted(faults.items())), "all in force")


def _content(services: Services) -> PartHealth:
    assert services.content is not None
    vectors = services.content.vectors
    counts = f"{vectors.n_pending:,} items wait for a text vector, {len(vectors.refused):,} refused"
    return _part(services.pollers["content"].error, counts)
