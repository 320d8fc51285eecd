"""The health report of a process. It uses the results of the background pollers and calls no server."""

from __future__ import annotations

from typing import Literal

from features.redaction import redact
from serving.schemas.resources import Health, PartHealth
from serving.services import Services


def health_report(services: Services) -> Health:
    """Return `ready`, `degraded` or `not ready`, with the health of each part."""
    parts = _stores(services) | {
        "worker": _part(services.watchdog.stall_message, "healthy"),
        "model": _model(services),
        "registry": _part(None if services.model_poller.refused else services.pollers["model"].error, "healthy"),
        "catalog": _catalog(services),
        "targets": _targets(services),
        "policies": _policies(services),
        "event_log": _part(services.pollers["event_log"].error, "no damaged files"),
    }
    if services.embedding_poller is not None:
        parts["content"] = _embeddings(services)
    status: Literal["ready", "degraded", "not ready"]
    if services.holders.current.revision < 0 or not parts["engine"].ok:
        status = "not ready"
    else:
        status = "ready" if all(part.ok for part in parts.values()) else "degraded"
    return Health(status=status, parts=parts)


def _part(fault: str | None, healthy: str) -> PartHealth:
    return PartHealth(ok=not fault, detail=redact(fault) if fault else healthy)


def _stores(services: Services) -> dict[str, PartHealth]:
    pollers = services.pollers
    parts = {name: _part(pollers[name].error, "healthy") for name in ("control", "online", "stream", "engine", "disk")}
    spool = services.spool.state()
    fault = f": {spool.fault}" if spool.fault else ""
    parts["spool"] = PartHealth(ok=not fault, detail=f"{spool.records:,} events waiting for delivery{fault}")
    if (outage := services.viewers.fault) is not None:
        parts["online"] = PartHealth(ok=False, detail=f"pages are served without viewer state: {outage}")
    return parts


def _model(services: Services) -> PartHealth:
    model, refused = services.holders.current.model, services.model_poller.refused
    version = model.bundle.version if model else None
    return PartHealth(
        ok=version is not None and refused is None,
        detail=refused
        or services.pollers["model"].error
        or (f"version {version} in service" if version else "no model in service"),
        version=version,
    )


def _catalog(services: Services) -> PartHealth:
    snapshot = services.holders.current
    items = len(snapshot.catalog)
    return PartHealth(ok=items > 0, detail=f"{items:,} items at revision {snapshot.revision}")


def _targets(services: Services) -> PartHealth:
    fault = "; ".join(services.targets.stale_targets()) or services.pollers["targets"].error
    return _part(fault, f"{len(services.targets.running):,} targets in pacing")


def _policies(services: Services) -> PartHealth:
    faults = services.holders.current.faults
    return _part("; ".join(f"{outlet}: {fault}" for outlet, fault in sorted(faults.items())), "all policies in force")


def _embeddings(services: Services) -> PartHealth:
    assert services.embedding_poller is not None
    refresher = services.embedding_poller.refresher
    counts = f"{refresher.n_pending:,} items waiting for a text vector, {len(refresher.refused):,} items refused"
    return _part(services.pollers["content"].error, counts)
