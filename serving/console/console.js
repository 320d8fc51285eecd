// The frame of the console: the selection, the open view and the keyboard shortcuts.

import { $, api, fetchAll, guarded, h, i18n, showError } from "./core.js";
import { loadMessages } from "./i18n.js";
import { showPage } from "./page.js";
import { check, clearFindings, isUnsaved, mayReplace, publish, redraw, save, showPolicy, shownOutlet } from "./policy.js";
import { preview, redraw as redrawPreview } from "./preview.js";
import { draw, showTargets } from "./targets.js";

const VIEWS = ["page", "policy", "targets", "history"];
const TARGETS_INTERVAL_MS = 5000;
const FIELDS = ["outlet", "screen", "surface", "viewer", "region", "slots"];
let outlets = [];

const selection = () => Object.fromEntries(FIELDS.map((field) => [field, $(field).value.trim()]));

async function refresh() {
  if (shownOutlet() && selection().outlet !== shownOutlet() && !(await mayReplace())) $("outlet").value = shownOutlet();
  const selected = selection();
  updateAddress(selected);
  await Promise.all([selected.viewer ? showPage(selected) : null, showPolicy(selected.outlet), showTargets()]);
}

/** Put the selection into the address, so that a link to a page can be sent to a colleague. */
function updateAddress(selected) {
  const query = new URLSearchParams(Object.entries(selected).filter(([, value]) => value));
  query.set("view", openView());
  history.replaceState(null, "", `?${query}`);
}

const openView = () => VIEWS.find((view) => !$(`view-${view}`).hidden) || VIEWS[0];

function show(view) {
  for (const name of VIEWS) {
    $(`view-${name}`).hidden = name !== view;
    $(`tab-${name}`).setAttribute("aria-selected", String(name === view));
    $(`tab-${name}`).tabIndex = name === view ? 0 : -1;
  }
  document.body.dataset.view = view;
  if (view === "targets") draw(); // charts need the width of the visible view
  updateAddress(selection());
}

function showLabels() {
  document.documentElement.lang = i18n.language;
  for (const element of document.querySelectorAll("[data-label]")) element.textContent = i18n.label(element.dataset.label);
  $("language").textContent = i18n.language === "zh" ? "English" : "中文";
  const selected = $("outlet").value;
  $("outlet").replaceChildren(...outlets.map((outlet) => h(
    "option", { value: outlet.code },
    `${"\u2003".repeat(outlet.code.split(".").length - 1)}${outlet.name[i18n.language] || ""} ${outlet.code}`.trimEnd(),
  )));
  if (selected) $("outlet").value = selected;
  for (const field of ["screen", "surface"]) for (const option of $(field).options) option.textContent = i18n.term(field, option.value);
}

async function health() {
  const response = await fetch("/health/ready");
  const report = await response.json();
  $("health").className = `pill ${report.status.replace(" ", "-")}`;
  $("health").textContent = i18n.label(report.status);
  $("health").title = Object.entries(report.parts).map(([name, part]) => `${name}: ${part.detail}`).join("\n");
}

async function load() {
  let choices;
  try {
    await loadMessages();
    outlets = await fetchAll("/v1/outlets", "outlets");
    choices = await api("/console/choices");
    document.body.classList.remove("locked");
    document.body.classList.toggle("tokenless", !$("token").value); // this service requires no token
    $("token").classList.remove("required");
  } catch (error) {
    document.body.classList.toggle("locked", error.status === 401); // nothing can be read without the token
    throw error;
  }
  i18n.setOutlets(outlets);
  const before = selection();
  for (const field of ["screen", "surface"]) {
    $(field).replaceChildren(...choices[`${field}s`].map((value) => h("option", { value }, value)));
  }
  $("viewers").replaceChildren(...choices.viewers.map((viewer) => h("option", { value: viewer.id }, `${viewer.actions}`)));
  showLabels();
  const query = new URLSearchParams(location.search);
  const defaults = { screen: "mobile", surface: "home", viewer: choices.viewers[0]?.id || "guest", outlet: deepest()?.code };
  for (const field of FIELDS) $(field).value = (shownOutlet() ? before[field] : query.get(field)) ?? defaults[field] ?? "";
  show(VIEWS.includes(query.get("view")) ? query.get("view") : VIEWS[0]);
  await refresh();
}

/** Return the outlet that inherits the most policies: its page is the most interesting to show first. */
const deepest = () => outlets.toSorted((a, b) => b.policy_version.split("+").length - a.policy_version.split("+").length)[0];

function onShortcut(event) {
  if (event.ctrlKey && event.key === "Enter") return $("lint").click();
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, textarea, select")) return undefined;
  if (event.key === "/") {
    event.preventDefault();
    return $("viewer").focus();
  }
  return VIEWS[Number(event.key) - 1] ? show(VIEWS[Number(event.key) - 1]) : undefined;
}

function onArrowKey(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const view = VIEWS[(VIEWS.indexOf(openView()) + step + VIEWS.length) % VIEWS.length];
  show(view);
  $(`tab-${view}`).focus();
}

for (const view of VIEWS) $(`tab-${view}`).addEventListener("click", () => show(view));
document.querySelector("[role=tablist]").addEventListener("keydown", onArrowKey);
document.addEventListener("keydown", onShortcut);
$("chooser").addEventListener("submit", guarded(refresh));
for (const field of ["outlet", "screen", "surface"]) $(field).addEventListener("change", guarded(refresh));
$("lint").addEventListener("click", guarded(check));
$("preview").addEventListener("click", guarded(() => preview(selection().outlet)));
$("draft").addEventListener("click", guarded(save));
$("publish").addEventListener("click", guarded(async () => { await publish(); await showPage(selection()); }));
$("text").addEventListener("input", clearFindings);
window.addEventListener("beforeunload", (event) => { if (shownOutlet() && isUnsaved()) event.preventDefault(); });
window.addEventListener("resize", () => { if (openView() === "targets") draw(); });
$("language").addEventListener("click", guarded(async () => {
  i18n.language = i18n.language === "zh" ? "en" : "zh";
  localStorage.setItem("language", i18n.language);
  await loadMessages();
  showLabels();
  redraw();
  redrawPreview();
  draw();
  await Promise.all([shownOutlet() ? refresh() : null, health()]);
}));
$("token").value = sessionStorage.getItem("token") || "";
$("token").addEventListener("change", guarded(async () => {
  sessionStorage.setItem("token", $("token").value);
  await load();
}));
$("author").value = localStorage.getItem("author") || "";

showLabels();
guarded(load)();
health();
setInterval(health, 5000);
setInterval(() => { if (openView() === "targets" && shownOutlet() && !document.hidden) showTargets().catch(showError); }, TARGETS_INTERVAL_MS);
