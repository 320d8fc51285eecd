// The policy in force, and the editor of the outlet's own policy: check, save, publish.

import { $, api, ask, compact, fetchAll, h, i18n, notice, outlet as outletName, table } from "./core.js";
import { describe } from "./describe.js";
import { showHistory } from "./history.js";
import { loadTitles } from "./titles.js";

const LEVELS = ["error", "warning", "hint"];
let outlet = "";
let versions = [];
let savedText = "";
let base = 0; // the version that the text was opened from or last saved as
let findings = null; // of the last check of the current text
let effective = null; // the policy in force, as last loaded

/** Whether the text differs from the version it was opened from. */
export const isUnsaved = () => $("text").value !== savedText;
export const shownOutlet = () => outlet;

/** Show the policies of an outlet. The text in the editor is replaced only when the outlet changes. */
export async function showPolicy(code) {
  const [loaded, history] = await Promise.all([
    api(`/v1/policies/${code}/effective`), fetchAll(`/v1/policies/${code}/history`, "versions"),
  ]);
  await loadTitles(loaded.effective.controls.map(({ control }) => control.item).filter(Boolean));
  const changed = code !== outlet;
  outlet = code;
  versions = history;
  effective = loaded;
  showEffective();
  if (changed) edit(versions.find((version) => version.active) || versions[0]);
  showBase();
  await showHistory(versions, { open, activate: confirmActivation });
}

function showEffective() {
  const { effective: policy, fault } = effective;
  $("version").textContent = i18n.policyVersions(policy.version);
  $("version").title = policy.version;
  const largest = Math.max(...Object.values(policy.weights), 1e-9);
  const weights = Object.entries(policy.weights).map(([axis, weight]) => h(
    "label", { class: "weight" }, h("span", {}, axis), h("progress", { max: largest, value: weight }), h("span", {}, compact(weight)),
  ));
  const heading = [h("h3", {}, i18n.label("weights")), h("p", { class: "muted" }, i18n.label("weights_hint"))];
  $("weights").replaceChildren(...(weights.length ? [...heading, ...weights] : []));
  const rows = policy.controls.map(({ origin, control }) => h(
    "tr", {},
    h("td", {}, h("b", {}, control.id), h("small", {}, i18n.term("action", control.action))),
    h("td", {}, outletName(origin)),
    h("td", { class: "whole" }, i18n.label(`enforcement_${control.enforcement || "editorial"}`)),
    h("td", { class: "why" }, describe(control), control.note ? h("small", {}, control.note) : null),
  ));
  const heads = ["control", "origin", "enforcement", "required"].map((head) => i18n.label(head));
  $("controls").replaceChildren(rows.length ? table(heads, rows) : h("p", { class: "empty" }, i18n.label("no_controls")));
  if (fault) notice(i18n.message(fault));
}

/** Show the version that the text is based on, and the newer versions. */
function showBase() {
  const newer = newerVersions();
  $("base").textContent = base ? `${i18n.label("base")} ${base}` : i18n.label("nothing_saved");
  $("newer").textContent = newer.length ? `${i18n.label("newer")} ${versionList(newer)}` : "";
}

const newerVersions = () => versions.filter((version) => version.version > base);

/** Format the newest three of some versions with their authors. */
const versionList = (list) => list.slice(0, 3).map((version) => `${version.version} (${version.author})`).join(", ") + (list.length > 3 ? ", …" : "");

function edit(version) {
  $("text").value = savedText = version ? version.text : `outlet: ${outlet}\nweights: {}\ncontrols: []\n`;
  base = version ? version.version : 0;
  $("note").value = "";
  showBase();
  clearFindings();
}

/** Remove the findings, which belong to an earlier text. */
export function clearFindings() {
  findings = null;
  $("findings").replaceChildren();
  enableActions(true);
}

/** Enable saving, previewing and publishing; a text with errors allows none of them. */
function enableActions(enabled) {
  for (const id of ["draft", "publish", "preview"]) {
    $(id).disabled = !enabled;
    $(id).title = enabled ? "" : i18n.label("correct_errors");
  }
}

/** Ask before unsaved text is lost. Returns true when the text may be replaced. */
export async function mayReplace() {
  if (!isUnsaved()) return true;
  return Boolean(await ask({ title: i18n.label("unsaved"), text: i18n.label("unsaved_text"), submit: i18n.label("discard"), danger: true }));
}

async function open(version) {
  if (!(await mayReplace())) return;
  edit(version);
  $("tab-policy").click();
}

export async function check() {
  const response = await api(`/v1/policies/${outlet}/lint`, { text: $("text").value });
  showFindings(response.findings);
  return response.findings;
}

function showFindings(list) {
  findings = list.sort((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level));
  drawFindings();
  $("findings").scrollIntoView({ block: "nearest" });
}

function drawFindings() {
  const groups = LEVELS.flatMap((level) => {
    const group = findings.filter((finding) => finding.level === level);
    return group.length ? [h("li", { class: "heading" }, `${i18n.label(`level_${level}`)} · ${group.length}`), ...group.map(line)] : [];
  });
  $("findings").replaceChildren(...(groups.length ? groups : [h("li", { class: "good" }, i18n.label("no_findings"))]));
  enableActions(!findings.some((finding) => finding.level === "error"));
}

/** A finding: the id of the control, the field, and the message. */
function line(finding) {
  const field = [finding.control, finding.where].filter(Boolean).join(" · ");
  return h("li", { class: finding.level }, field ? h("code", {}, field, " ") : null, i18n.message(finding));
}

/** Return the editor's name for the audit trail. Throws when the field is empty. */
function author() {
  const name = $("author").value.trim();
  if (!name) {
    $("author").focus();
    throw new Error(i18n.label("need_author"));
  }
  localStorage.setItem("author", name);
  return name;
}

/** Save the text and return the number of the new version; null when the editor decides against it because of newer versions. */
async function saveVersion() {
  const body = { text: $("text").value, author: author(), note: $("note").value, base_version: base };
  const newer = newerVersions();
  if (newer.length) {
    const text = `${i18n.label("newer")} ${versionList(newer)}. ${i18n.label("save_anyway_text")}`;
    if (!(await ask({ title: i18n.label("save_anyway"), text, submit: i18n.label("save_anyway") }))) return null;
    body.base_version = newer[0].version; // the newest version that the dialog named
  }
  try {
    const response = await api(`/v1/policies/${outlet}/draft`, body);
    showFindings(response.findings);
    savedText = body.text;
    base = response.version.version;
    return base;
  } catch (error) {
    if (error.status === 422 && error.findings?.length) showFindings(error.findings);
    if (error.status === 409) await showPolicy(outlet); // shows the versions saved meanwhile
    throw error;
  }
}

export async function save() {
  const version = await saveVersion();
  if (version === null) return;
  await showPolicy(outlet);
  notice(`${i18n.label("saved")} ${version}`, true);
}

/** Check the text, ask for confirmation, save it if it changed, and publish it. The findings stay visible. */
export async function publish() {
  author();
  const current = await check();
  if (current.some((finding) => finding.level === "error")) throw new Error(i18n.label("correct_errors"));
  const title = `${i18n.label("publish")}: ${i18n.outletWithCode(outlet)}`;
  const fields = current.length ? [h("ul", { class: "findings" }, current.map(line))] : [];
  const text = i18n.label(current.length ? "publish_anyway" : "publish_text");
  if (!(await ask({ title, text, fields, submit: i18n.label("publish") }))) return;
  const newest = versions[0];
  const version = newest && newest.text === $("text").value && !newest.active ? newest.version : await saveVersion();
  if (version !== null) await activate("publish", version);
}

/** Ask for confirmation, then publish a draft or roll back to an earlier version. */
async function confirmActivation(method, version) {
  const active = versions.find((entry) => entry.active)?.version ?? 0;
  const title = `${i18n.label(method === "rollback" ? "roll_back" : "publish")}: ${outlet}@${version}`;
  const text = `${i18n.label("replaces")} ${active ? `${outlet}@${active}` : "–"}. ${i18n.label("publish_text")}`;
  author();
  if (await ask({ title, text, submit: i18n.label(method === "rollback" ? "roll_back" : "publish") })) await activate(method, version);
}

async function activate(method, version) {
  const active = versions.find((entry) => entry.active)?.version ?? 0;
  await api(`/v1/policies/${outlet}/${method}`, { version, author: author(), base_version: active });
  const isServed = async () => (await api(`/v1/policies/${outlet}/effective`)).effective.version.split("+").includes(`${outlet}@${version}`);
  const served = await poll(isServed);
  const unchanged = !isUnsaved();
  await showPolicy(outlet);
  const entry = versions.find((item) => item.version === version);
  if (unchanged && entry && entry.text !== savedText) edit(entry);
  else if (unchanged && entry) base = version; // the same text: its findings stay
  showBase();
  notice(`${outlet}@${version} ${i18n.label(served ? "live" : "live_soon")}`, served);
}

async function poll(isDone) {
  for (let tries = 0; tries < 30; tries += 1) {
    if (await isDone()) return true;
    await new Promise((resume) => { setTimeout(resume, 100); });
  }
  return false;
}

/** Redraw the view, after a change of language. */
export function redraw() {
  if (effective) showEffective();
  if (findings) drawFindings();
}
