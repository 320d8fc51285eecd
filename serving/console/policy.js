// What is in force, and the outlet's own policy to edit, check and publish.

import { $, api, ask, brief, every, h, notice, outlet as outletNamed, pill, say, table } from "./core.js";
import { described } from "./describe.js";
import { showHistory } from "./history.js";
import { learnTitles } from "./titles.js";

const LEVELS = ["error", "warning", "hint"];
let outlet = "";
let versions = [];
let saved = "";
let base = 0; // the version that the text was opened as, or last saved as
let found = null; // what the last check of the present text found
let asked = null; // what is in force, as last answered

/** Whether the text differs from the version it was opened as. */
export const unsaved = () => $("text").value !== saved;
export const shown = () => outlet;

/** Shows everything about one outlet. The text being edited is only replaced when the outlet changed. */
export async function showPolicy(code) {
  const [inForce, history] = await Promise.all([
    api(`/v1/policies/${code}/effective`), every(`/v1/policies/${code}/history`, "versions"),
  ]);
  await learnTitles(inForce.effective.controls.map(({ control }) => control.item).filter(Boolean));
  const changed = code !== outlet;
  outlet = code;
  versions = history;
  asked = inForce;
  effective(inForce);
  if (changed) edit(versions.find((one) => one.active) || versions[0]);
  basis();
  await showHistory(versions, { open, putInForce });
}

function effective(said) {
  $("version").textContent = say.versions(said.effective.version);
  $("version").title = said.effective.version;
  const most = Math.max(...Object.values(said.effective.weights), 1e-9);
  const weights = Object.entries(said.effective.weights).map(([axis, weight]) => h(
    "label", { class: "weight" }, h("span", {}, axis), h("progress", { max: most, value: weight }), h("span", {}, brief(weight)),
  ));
  const heading = [h("h3", {}, say.word("weights")), h("p", { class: "muted" }, say.word("weights_hint"))];
  $("weights").replaceChildren(...(weights.length ? [...heading, ...weights] : []));
  const rows = said.effective.controls.map(({ origin, control }) => h(
    "tr", {},
    h("td", {}, h("b", {}, control.id), h("small", {}, say.one("action", control.action))),
    h("td", {}, outletNamed(origin)),
    h("td", { class: "whole" }, say.word(`enforcement_${control.enforcement || "editorial"}`)),
    h("td", { class: "why" }, described(control), control.note ? h("small", {}, control.note) : null),
  ));
  const heads = ["control", "origin", "enforcement", "required"].map((head) => say.word(head));
  $("controls").replaceChildren(rows.length ? table(heads, rows) : h("p", { class: "empty" }, say.word("no_controls")));
  if (said.fault) notice(say.told(said.fault));
}

/** What the text is based on, and what others saved since then. */
function basis() {
  const since = newer();
  $("base").textContent = base ? `${say.word("base")} ${base}` : say.word("nothing_saved");
  $("newer").textContent = since.length ? `${say.word("newer")} ${named(since)}` : "";
}

const newer = () => versions.filter((one) => one.version > base);

/** The newest of some versions, with who saved them. */
const named = (some) => some.slice(0, 3).map((one) => `${one.version} (${one.author})`).join(", ") + (some.length > 3 ? ", …" : "");

function edit(version) {
  $("text").value = saved = version ? version.text : `outlet: ${outlet}\nweights: {}\ncontrols: []\n`;
  base = version ? version.version : 0;
  $("note").value = "";
  basis();
  forget();
}

/** What was found belongs to a text that is no longer there. */
export function forget() {
  found = null;
  $("findings").replaceChildren();
  offer(true);
}

/** What cannot be saved is not offered to be saved or published. */
function offer(can) {
  for (const id of ["draft", "publish", "preview"]) {
    $(id).disabled = !can;
    $(id).title = can ? "" : say.word("mend_errors");
  }
}

/** Asks before a text that nobody saved is lost; true when it may be replaced. */
export async function mayReplace() {
  if (!unsaved()) return true;
  return Boolean(await ask({ title: say.word("unsaved"), text: say.word("unsaved_text"), go: say.word("discard"), danger: true }));
}

async function open(version) {
  if (!(await mayReplace())) return;
  edit(version);
  $("tab-policy").click();
}

export async function check() {
  const { findings } = await api(`/v1/policies/${outlet}/lint`, { text: $("text").value });
  show(findings);
  return findings;
}

function show(findings) {
  found = findings.sort((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level));
  list();
  $("findings").scrollIntoView({ block: "nearest" });
}

function list() {
  const groups = LEVELS.flatMap((level) => {
    const own = found.filter((one) => one.level === level);
    return own.length ? [h("li", { class: "heading" }, `${say.word(`level_${level}`)} · ${own.length}`), ...own.map(line)] : [];
  });
  $("findings").replaceChildren(...(groups.length ? groups : [h("li", { class: "good" }, say.word("all_well"))]));
  offer(!found.some((one) => one.level === "error"));
}

/** Where (the control by its id, when the API names it) and what. */
function line(one) {
  const where = [one.control, one.where].filter(Boolean).join(" · ");
  return h("li", { class: one.level }, where ? h("code", {}, where, " ") : null, say.told(one));
}

/** Who acts, for the record. */
function author() {
  const name = $("author").value.trim();
  if (!name) {
    $("author").focus();
    throw new Error(say.word("need_author"));
  }
  localStorage.setItem("author", name);
  return name;
}

/** The number of the new version, or null when the editor would rather not save beside newer ones. */
async function saveVersion() {
  const said = { text: $("text").value, author: author(), note: $("note").value, base_version: base };
  const since = newer();
  if (since.length) {
    const text = `${say.word("newer")} ${named(since)}. ${say.word("save_beside_text")}`;
    if (!(await ask({ title: say.word("save_beside"), text, go: say.word("save_beside") }))) return null;
    said.base_version = since[0].version; // the newest that the editor was told of
  }
  try {
    const answer = await api(`/v1/policies/${outlet}/draft`, said);
    show(answer.findings);
    saved = said.text;
    base = answer.version.version;
    return answer.version.version;
  } catch (error) {
    if (error.status === 422 && error.findings?.length) show(error.findings);
    if (error.status === 409) await showPolicy(outlet); // what was saved meanwhile is named beside the text
    throw error;
  }
}

export async function save() {
  const version = await saveVersion();
  if (version === null) return;
  await showPolicy(outlet);
  notice(`${say.word("saved")} ${version}`, true);
}

/** Checks, asks, saves what was changed and puts it in force; what was found stays on the page. */
export async function publish() {
  author();
  const findings = await check();
  if (findings.some((one) => one.level === "error")) throw new Error(say.word("mend_errors"));
  const title = `${say.word("publish")}: ${say.outlet(outlet)}`;
  const fields = findings.length ? [h("ul", { class: "findings" }, findings.map(line))] : [];
  const text = say.word(findings.length ? "publish_anyway" : "publish_text");
  if (!(await ask({ title, text, fields, go: say.word("publish") }))) return;
  const newest = versions[0];
  const version = newest && newest.text === $("text").value && !newest.active ? newest.version : await saveVersion();
  if (version !== null) await inForce("publish", version);
}

/** From the list of versions: an earlier one again, or a draft. Asks first. */
async function putInForce(way, version) {
  const active = versions.find((one) => one.active)?.version ?? 0;
  const title = `${say.word(way === "rollback" ? "roll_back" : "publish")}: ${outlet}@${version}`;
  const text = `${say.word("instead_of")} ${active ? `${outlet}@${active}` : "–"}. ${say.word("publish_text")}`;
  author();
  if (await ask({ title, text, go: say.word(way === "rollback" ? "roll_back" : "publish") })) await inForce(way, version);
}

async function inForce(way, version) {
  const active = versions.find((one) => one.active)?.version ?? 0;
  await api(`/v1/policies/${outlet}/${way}`, { version, author: author(), base_version: active });
  const serves = async () => (await api(`/v1/policies/${outlet}/effective`)).effective.version.split("+").includes(`${outlet}@${version}`);
  const there = await until(serves);
  const untouched = !unsaved();
  await showPolicy(outlet);
  const now = versions.find((one) => one.version === version);
  if (untouched && now && now.text !== saved) edit(now);
  else if (untouched && now) base = version; // the same text: what was found stays
  basis();
  notice(`${outlet}@${version} ${say.word(there ? "live" : "live_soon")}`, there);
}

async function until(done) {
  for (let tries = 0; tries < 30; tries += 1) {
    if (await done()) return true;
    await new Promise((resume) => { setTimeout(resume, 100); });
  }
  return false;
}

/** Says in the other language what is shown already. */
export function retell() {
  if (asked) effective(asked);
  if (found) list();
}
