// What is in force, the outlet's own policy to edit, its versions and the audit trail.

import { $, api, h, notice, number, pill, say, table, time } from "./core.js";

let outlet = "";
let versions = [];

/** Shows everything about one outlet; the text being edited is kept unless the outlet changed or `fresh` is asked. */
export async function showPolicy(code, fresh = false) {
  const [inForce, history] = await Promise.all([
    api(`/v1/policies/${code}/effective`), api(`/v1/policies/${code}/history`),
  ]);
  const changed = code !== outlet || fresh;
  outlet = code;
  versions = history.versions;
  effective(inForce);
  if (changed) edit(versions.find((one) => one.active) || versions[0]);
  $("base").textContent = versions.length ? `${say.word("base")} ${versions[0].version}` : say.word("nothing_saved");
  showVersions();
  await showAudit();
}

function effective(said) {
  $("version").textContent = said.effective.version;
  const weights = Object.entries(said.effective.weights).map(([axis, weight]) => h(
    "label", { class: "weight" }, h("span", {}, axis), h("progress", { max: 1, value: weight }), h("span", {}, number(weight)),
  ));
  $("weights").replaceChildren(weights.length ? h("h3", {}, say.word("weights")) : "", ...weights);
  const rows = said.effective.controls.map(({ origin, control }) => h(
    "tr", {},
    h("td", {}, h("b", {}, control.id), h("small", {}, control.action)),
    h("td", {}, origin),
    h("td", {}, say.word(`hardness_${control.hardness || "editorial"}`)),
    h("td", {}, told(control)),
  ));
  const heads = ["control", "origin", "hardness", "required"].map((head) => say.word(head));
  $("controls").replaceChildren(rows.length ? table(heads, rows) : h("p", { class: "empty" }, say.word("no_controls")));
  if (said.fault) notice(said.fault);
}

/** A control's own fields, as an editor would read them. */
function told(control) {
  const { id, action, hardness, priority, legal_ref, note, ...rest } = control;
  return Object.entries(rest).map(([name, value]) => `${name}: ${plain(value)}`).join("; ");
}

const details = (detail) => short(Object.entries(detail).map(([name, value]) => `${name}: ${plain(value)}`).join("; "));

/** At most 140 characters, cut between two words. */
const short = (text) => (text.length <= 140 ? text : `${text.slice(0, 140).replace(/[\s,;]+\S*$/, "")} …`);

const plain = (value) => (typeof value === "object" && value !== null
  ? JSON.stringify(value).replaceAll('"', "").replaceAll(",", ", ").replaceAll(":", ": ") : String(value));

function edit(version) {
  $("text").value = version ? version.text : `outlet: ${outlet}\nweights: {}\ncontrols: []\n`;
  $("findings").replaceChildren();
}

export async function check() {
  const { findings } = await api(`/v1/policies/${outlet}/lint`, { text: $("text").value });
  show(findings);
  return findings;
}

function show(findings) {
  const lines = findings.map((f) => h("li", {}, f.where ? h("code", {}, f.where, " ") : null, f.message));
  $("findings").replaceChildren(...(lines.length ? lines : [h("li", { class: "good" }, say.word("all_well"))]));
}

function author() {
  const name = $("author").value.trim();
  if (!name) {
    $("author").focus();
    throw new Error(say.word("need_author"));
  }
  localStorage.setItem("author", name);
  return name;
}

async function saveVersion() {
  const said = { text: $("text").value, author: author(), note: $("note").value, base_version: versions[0]?.version ?? 0 };
  try {
    const saved = await api(`/v1/policies/${outlet}/draft`, said);
    show(saved.findings);
    return saved.version.version;
  } catch (error) {
    if (error.findings?.length) show(error.findings);
    throw error;
  }
}

export async function save() {
  const version = await saveVersion();
  await showPolicy(outlet);
  notice(`${say.word("saved")} ${version}`, true);
}

/** Saves what was changed and puts it in force. */
export async function publish() {
  author();
  const findings = await check();
  if (findings.length && !confirm(say.word("publish_anyway"))) return;
  const newest = versions[0];
  const version = newest && newest.text === $("text").value && !newest.active ? newest.version : await saveVersion();
  await putInForce("publish", version);
}

async function putInForce(way, version) {
  const active = versions.find((one) => one.active)?.version ?? 0;
  await api(`/v1/policies/${outlet}/${way}`, { version, author: author(), base_version: active });
  await until(async () => (await api(`/v1/policies/${outlet}/effective`)).effective.version.split("+").includes(`${outlet}@${version}`));
  await showPolicy(outlet, true);
  notice(`${outlet}@${version} ${say.word("live")}`, true);
}

async function until(done) {
  for (let tries = 0; tries < 30; tries += 1) {
    if (await done()) return;
    await new Promise((resume) => { setTimeout(resume, 100); });
  }
}

function showVersions() {
  const rows = versions.map((one) => h(
    "tr", {},
    h("td", { class: "number" }, h("b", {}, String(one.version))),
    h("td", {}, pill(one.active ? "active" : one.state)),
    h("td", {}, one.author, one.note ? h("small", {}, one.note) : null),
    h("td", { class: "number" }, time(one.at)),
    h(
      "td", {},
      h("button", { type: "button", onclick: () => { edit(one); $("tab-policy").click(); } }, say.word("open")), " ",
      one.active ? null : again(one),
    ),
  ));
  const heads = ["version", "state", "by", "when"].map((head) => say.word(head));
  $("versions").replaceChildren(rows.length ? table([...heads, ""], rows) : h("p", { class: "empty" }, say.word("nothing_saved")));
}

function again(one) {
  const [way, word] = one.state === "published" ? ["rollback", "roll_back"] : ["publish", "put_in_force"];
  const step = () => putInForce(way, one.version).catch((error) => notice(error.message));
  return h("button", { type: "button", onclick: step }, say.word(word));
}

async function showAudit() {
  const rows = [];
  for (let after = 0; after !== null && rows.length < 5000;) {
    const page = await api(`/v1/audit?limit=1000&after=${after}`);
    rows.push(...page.rows);
    after = page.next;
  }
  const lines = rows.reverse().slice(0, 40).map((row) => h(
    "tr", {},
    h("td", { class: "number" }, String(row.seq)),
    h("td", { class: "number" }, time(row.at)),
    h("td", {}, row.actor),
    h("td", {}, row.action),
    h("td", {}, row.subject, h("small", {}, details(row.detail))),
    h("td", {}, h("code", { class: "muted", title: row.hash }, row.hash.slice(0, 8))),
  ));
  const heads = ["#", say.word("when"), say.word("by"), say.word("action"), say.word("subject"), "SHA-256"];
  $("audit").replaceChildren(table(heads, lines));
}
