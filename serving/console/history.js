// The versions of an outlet's policy, and the audit trail, newest first.

import { $, api, guarded, h, i18n, listUrl, outlet, pill, table, time } from "./core.js";

const PAGE_SIZE = 50;
let rows = [];
let nextToken = null;

export async function showHistory(versions, actions) {
  showVersions(versions, actions);
  await loadNewest();
}

function showVersions(versions, { open, activate }) {
  const lines = versions.map((version) => h(
    "tr", {},
    h("td", { class: "number" }, h("b", {}, String(version.version))),
    h("td", { class: "whole" }, pill(version.active ? "in_force" : version.state)),
    h("td", { class: "note" }, version.author, version.note ? h("small", {}, version.note) : null),
    h("td", { class: "number" }, time(version.at)),
    h(
      "td", {},
      h(
        "div", { class: "actions" },
        h("button", { type: "button", onclick: guarded(() => open(version)) }, i18n.label("open")), version.active ? null : activateButton(version, activate),
      ),
    ),
  ));
  const heads = ["version", "state", "by", "when"].map((head) => i18n.label(head));
  $("versions").replaceChildren(lines.length ? table([...heads, ""], lines) : h("p", { class: "empty" }, i18n.label("nothing_saved")));
}

function activateButton(version, activate) {
  const [method, label] = version.state === "published" ? ["rollback", "roll_back"] : ["publish", "publish"];
  return h("button", { type: "button", onclick: guarded(() => activate(method, version.version)) }, i18n.label(label));
}

async function loadNewest() {
  [rows, nextToken] = [[], null];
  await loadMore();
}

/** Load the next page of older entries. */
async function loadMore() {
  const page = await api(listUrl("/v1/audit", { order: "newest", page_size: PAGE_SIZE, page_token: nextToken }));
  rows.push(...page.entries);
  nextToken = page.next_page_token;
  const lines = rows.map((row) => h(
    "tr", {},
    h("td", { class: "number" }, String(row.seq)),
    h("td", { class: "number" }, time(row.at)),
    h("td", {}, row.actor),
    h("td", { class: "whole" }, i18n.term("audit", row.action)),
    h("td", { class: "why" }, row.subject ? outlet(row.subject) : null, h("small", {}, details(row.detail))),
    h("td", {}, h("code", { class: "muted", title: row.hash }, row.hash.slice(0, 8))),
  ));
  const heads = ["#", i18n.label("when"), i18n.label("by"), i18n.label("audit_action"), i18n.label("subject"), "SHA-256"];
  const older = nextToken === null ? null : h("button", { type: "button", onclick: guarded(loadMore) }, i18n.label("older"));
  $("audit").replaceChildren(table(heads, lines), ...(older ? [h("div", { class: "actions" }, older)] : []));
}

/** Format the detail of an audit entry. For a target override, only the values that it changed. */
function details(detail) {
  const { order, first, ...rest } = detail; // `first` holds the first few ids of many items
  const parts = Object.entries({ ...rest, ...(order || {}), ...(first ? { first: firstIds(first) } : {}) })
    .filter(([name, value]) => value !== null && value !== "" && value !== false && (value !== 0 || name === "amount"))
    .map(([name, value]) => (value === true ? i18n.term("detail", name) : `${i18n.term("detail", name)}: ${plainText(value)}`));
  return truncate(parts.join(" · "));
}

const firstIds = (ids) => ids.slice(0, 3).join(", ") + (ids.length > 3 ? ", …" : "");

/** Cut a text to at most 140 characters, between two words. */
const truncate = (text) => (text.length <= 140 ? text : `${text.slice(0, 140).replace(/[\s,·]+\S*$/, "")} …`);

const plainText = (value) => (typeof value === "object" && value !== null
  ? JSON.stringify(value).replace(/["{}]/g, "").replaceAll(",", ", ").replaceAll(":", ": ") : String(value));
