"""Metrics for Prometheus: GET /metrics."""

from __future__ import annotations

from fastapi import APIRouter, Response

from serving.api.dependencies import Meters
from serving.edge.route import EdgeRoute

router = APIRouter(tags=["operations"], route_class=EdgeRoute)


@router.get(
    "/metrics",
    summary="Get the metrics of all serving processes in the Prometheus text format",
    response_class=Response,
)
def metrics(meters: Meters) -> Response:
    return Response(meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
