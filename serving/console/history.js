// The versions of an outlet's policy, and the audit trail, newest first.

import { $, api, h, listed, outlet, pill, say, table, time, trying } from "./core.js";

const PAGE = 50;
let rows = [];
let next = null;

export async function showHistory(versions, steps) {
  showVersions(versions, steps);
  await newest();
}

function showVersions(versions, { open, putInForce }) {
  const lines = versions.map((one) => h(
    "tr", {},
    h("td", { class: "number" }, h("b", {}, String(one.version))),
    h("td", { class: "whole" }, pill(one.active ? "active" : one.state)),
    h("td", { class: "note" }, one.author, one.note ? h("small", {}, one.note) : null),
    h("td", { class: "number" }, time(one.at)),
    h(
      "td", {},
      h(
        "div", { class: "actions" },
        h("button", { type: "button", onclick: trying(() => open(one)) }, say.word("open")), one.active ? null : again(one, putInForce),
      ),
    ),
  ));
  const heads = ["version", "state", "by", "when"].map((head) => say.word(head));
  $("versions").replaceChildren(lines.length ? table([...heads, ""], lines) : h("p", { class: "empty" }, say.word("nothing_saved")));
}

function again(one, putInForce) {
  const [way, word] = one.state === "published" ? ["rollback", "roll_back"] : ["publish", "publish"];
  return h("button", { type: "button", onclick: trying(() => putInForce(way, one.version)) }, say.word(word));
}

async function newest() {
  [rows, next] = [[], null];
  await more();
}

/** The next page of older rows. */
async function more() {
  const page = await api(listed("/v1/audit", { order: "newest", page_size: PAGE, page_token: next }));
  rows.push(...page.entries);
  next = page.next_page_token;
  const lines = rows.map((row) => h(
    "tr", {},
    h("td", { class: "number" }, String(row.seq)),
    h("td", { class: "number" }, time(row.at)),
    h("td", {}, row.actor),
    h("td", { class: "whole" }, say.one("did", row.action)),
    h("td", { class: "why" }, row.subject ? outlet(row.subject) : null, h("small", {}, details(row.detail))),
    h("td", {}, h("code", { class: "muted", title: row.hash }, row.hash.slice(0, 8))),
  ));
  const heads = ["#", say.word("when"), say.word("by"), say.word("did"), say.word("subject"), "SHA-256"];
  const older = next === null ? null : h("button", { type: "button", onclick: trying(more) }, say.word("older"));
  $("audit").replaceChildren(table(heads, lines), ...(older ? [h("div", { class: "actions" }, older)] : []));
}

/** What was said with an act, in words; of an order only what it changed. */
function details(detail) {
  const { order, first, ...rest } = detail; // of many items the first few are named, behind how many they are
  const said = Object.entries({ ...rest, ...(order || {}), ...(first ? { first: some(first) } : {}) })
    .filter(([name, value]) => value !== null && value !== "" && value !== false && (value !== 0 || name === "amount"))
    .map(([name, value]) => (value === true ? say.one("detail", name) : `${say.one("detail", name)}: ${plain(value)}`));
  return short(said.join(" · "));
}

const some = (ids) => ids.slice(0, 3).join(", ") + (ids.length > 3 ? ", …" : "");

/** At most 140 characters, cut between two words. */
const short = (text) => (text.length <= 140 ? text : `${text.slice(0, 140).replace(/[\s,·]+\S*$/, "")} …`);

const plain = (value) => (typeof value === "object" && value !== null
  ? JSON.stringify(value).replace(/["{}]/g, "").replaceAll(",", ", ").replaceAll(":", ": ") : String(value));
