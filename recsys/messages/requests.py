"""English texts of rejected requests to the service."""

from __future__ import annotations

from collections.abc import Mapping

TEXTS: Mapping[str, str] = {
    "request_invalid": "the request is not valid",
    "body_not_json": "the body is not JSON",
    "findings_more": "there are more problems; the first {listed} are listed",
    "findings_too_many": "has {problems:count} problems, too many to list; see the schema of this request at /docs",
    "body_not_read": "the body was not read: its content type is none of {accepted}",
    "body_needs_content_type": "send content-type: {accepted} in UTF-8 (this request has {sent})",
    "body_not_decoded": "the body was not read: its content coding is unknown",
    "body_coding_unknown": "send content-encoding: gzip, or none (this request has {coding})",
    "body_not_gzip": "the body is not valid gzip data",
    "body_gzip_cut": "the gzip data ends too early",
    "body_gzip_members": "the gzip data has more than {maximum} members",
    "body_not_utf8": "the body is not UTF-8 text",
    "body_too_large": "the body is larger than {maximum}, decompressed; send less at once",
    "host_not_allowed": "requests to the host {host:quoted} are refused; if clients reach this service by that name, "
    "start it with MAINSTAY_ALLOWED_HOSTS",
    "origin_not_allowed": "requests of pages of {origin:quoted} are refused; if it is a site of yours, start the "
    "service with MAINSTAY_ALLOWED_ORIGINS",
    "header_not_utf8": "is not UTF-8 text",
    "fields_too_many": "has {fields:count} fields; at most {maximum} are accepted",
    "regions_too_many": "the windows list {regions:count} regions; at most {maximum:count} are accepted",
    "entry_name_too_long": "contains a name of {length:count} characters; at most {maximum} are accepted",
    "catalog_axes_full": "the axis {name:quoted} is new, and the catalog already has {maximum:count} axes, the maximum",
    "catalog_labels_full": "the label {name:quoted} is new, and the catalog already has {maximum:count} labels, the "
    "maximum",
    "body_text_or_policy": "expected either `text` (YAML or JSON) or `policy` (an object)",
    "body_version_or_policy": "expected either `version` or a policy",
    "query_unknown": "there is no query parameter '{name}'; this request takes {options}{suggestion}",
    "query_beside_json": "{name} belongs in the JSON body; it is read from the query only for a policy sent as YAML",
    "nothing": "none",
    "token_required": "this needs the editors' token: Authorization: Bearer ...",
    "token_wrong": "the Authorization header has not the editors' token; omit it if the request needs none",
    "token_not_set": "this needs the editors' token, and none is set: start the service with MAINSTAY_ADMIN_TOKEN",
    "audit_key_differs": "another key signed the audit trail: set MAINSTAY_AUDIT_KEY to the same key on every host",
    "service_failed": "internal error of the service; see its log for the cause",
    "value_not_storable": "a value cannot be stored: {cause}",
    "item_not_found": "no item '{item}'",
    "outlet_not_found": "no outlet '{outlet}': it has no items, no policy and no name",
    "outlet_without_policy": "outlet '{outlet}' has no policy of its own in force",
    "version_not_found": "policy of {outlet}: no version {version}",
    "version_outdated": "policy of {outlet}: version {newest} is newer than {base}, on which this change is based",
    "version_not_active": "policy of {outlet}: version {active} is in force, not {expected}",
    "version_already_active": "policy of {outlet}: version {version} is already in force",
    "version_never_active": "policy of {outlet}: version {version} was never in force; publish it instead",
    "policy_version_unusable": "version {version} cannot be used: {problem}",
    "policy_not_in_service": "the newest policy is not in service: {problem}",
    "finding_at": "{where}: {finding}",
    "preview_nothing_to_replay": "there is nothing to replay: no items, or no outlet to request pages of",
    "preview_running": "a preview is already running in this process; one runs at a time, because pages have priority",
    "preview_failed": "the preview failed: {problem}",
}
