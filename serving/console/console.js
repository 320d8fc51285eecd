// The console's frame: what is chosen, which view is open, keys.

import { $, api, every, h, say, tellFault, trying } from "./core.js";
import { learn } from "./language.js";
import { showPage } from "./page.js";
import { check, forget, mayReplace, publish, retell, save, showPolicy, shown, unsaved } from "./policy.js";
import { preview, retell as retellPreview } from "./preview.js";
import { draw, showTargets } from "./targets.js";

const VIEWS = ["page", "policy", "targets", "history"];
const TARGETS_EVERY_MS = 5000;
const FIELDS = ["outlet", "screen", "surface", "viewer", "region", "slots"];
let outlets = [];

const chosen = () => Object.fromEntries(FIELDS.map((field) => [field, $(field).value.trim()]));

async function refresh() {
  if (shown() && chosen().outlet !== shown() && !(await mayReplace())) $("outlet").value = shown();
  const now = chosen();
  remember(now);
  await Promise.all([now.viewer ? showPage(now) : null, showPolicy(now.outlet), showTargets()]);
}

/** The choice is in the address, so a page can be sent to a colleague. */
function remember(now) {
  const said = new URLSearchParams(Object.entries(now).filter(([, value]) => value));
  said.set("view", open());
  history.replaceState(null, "", `?${said}`);
}

const open = () => VIEWS.find((view) => !$(`view-${view}`).hidden) || VIEWS[0];

function show(view) {
  for (const one of VIEWS) {
    $(`view-${one}`).hidden = one !== view;
    $(`tab-${one}`).setAttribute("aria-selected", String(one === view));
    $(`tab-${one}`).tabIndex = one === view ? 0 : -1;
  }
  document.body.dataset.view = view;
  if (view === "targets") draw(); // drawings need to know how wide they may be
  remember(chosen());
}

function words() {
  document.documentElement.lang = say.language;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = say.word(element.dataset.word);
  $("language").textContent = say.language === "zh" ? "English" : "中文";
  const kept = $("outlet").value;
  $("outlet").replaceChildren(...outlets.map((outlet) => h(
    "option", { value: outlet.code },
    `${"\u2003".repeat(outlet.code.split(".").length - 1)}${outlet.name[say.language] || ""} ${outlet.code}`.trimEnd(),
  )));
  if (kept) $("outlet").value = kept;
  for (const field of ["screen", "surface"]) for (const option of $(field).options) option.textContent = say.one(field, option.value);
}

async function health() {
  const answer = await fetch("/health/ready");
  const said = await answer.json();
  $("health").className = `pill ${said.status.replace(" ", "-")}`;
  $("health").textContent = say.word(said.status);
  $("health").title = Object.entries(said.parts).map(([name, part]) => `${name}: ${part.detail}`).join("\n");
}

async function load() {
  let choices;
  try {
    await learn();
    outlets = await every("/v1/outlets", "outlets");
    choices = await api("/console/choices");
    document.body.classList.remove("locked");
    document.body.classList.toggle("tokenless", !$("token").value); // this service asks for none
    $("token").classList.remove("wanted");
  } catch (error) {
    document.body.classList.toggle("locked", error.status === 401); // nothing here can be read without the token
    throw error;
  }
  say.know(outlets);
  const before = chosen();
  for (const field of ["screen", "surface"]) {
    $(field).replaceChildren(...choices[`${field}s`].map((one) => h("option", { value: one }, one)));
  }
  $("viewers").replaceChildren(...choices.viewers.map((one) => h("option", { value: one.id }, `${one.actions}`)));
  words();
  const said = new URLSearchParams(location.search);
  const first = { screen: "mobile", surface: "home", viewer: choices.viewers[0]?.id || "guest", outlet: deepest()?.code };
  for (const field of FIELDS) $(field).value = (shown() ? before[field] : said.get(field)) ?? first[field] ?? "";
  show(VIEWS.includes(said.get("view")) ? said.get("view") : VIEWS[0]);
  await refresh();
}

/** The outlet with the most policies above it: the most interesting page to begin with. */
const deepest = () => outlets.toSorted((a, b) => b.policy_version.split("+").length - a.policy_version.split("+").length)[0];

function keys(event) {
  if (event.ctrlKey && event.key === "Enter") return $("lint").click();
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, textarea, select")) return undefined;
  if (event.key === "/") {
    event.preventDefault();
    return $("viewer").focus();
  }
  return VIEWS[Number(event.key) - 1] ? show(VIEWS[Number(event.key) - 1]) : undefined;
}

function steer(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const view = VIEWS[(VIEWS.indexOf(open()) + step + VIEWS.length) % VIEWS.length];
  show(view);
  $(`tab-${view}`).focus();
}

for (const view of VIEWS) $(`tab-${view}`).addEventListener("click", () => show(view));
document.querySelector("[role=tablist]").addEventListener("keydown", steer);
document.addEventListener("keydown", keys);
$("chooser").addEventListener("submit", trying(refresh));
for (const field of ["outlet", "screen", "surface"]) $(field).addEventListener("change", trying(refresh));
$("lint").addEventListener("click", trying(check));
$("preview").addEventListener("click", trying(() => preview(chosen().outlet)));
$("draft").addEventListener("click", trying(save));
$("publish").addEventListener("click", trying(async () => { await publish(); await showPage(chosen()); }));
$("text").addEventListener("input", forget);
window.addEventListener("beforeunload", (event) => { if (shown() && unsaved()) event.preventDefault(); });
window.addEventListener("resize", () => { if (open() === "targets") draw(); });
$("language").addEventListener("click", trying(async () => {
  say.language = say.language === "zh" ? "en" : "zh";
  localStorage.setItem("language", say.language);
  await learn();
  words();
  retell();
  retellPreview();
  draw();
  await Promise.all([shown() ? refresh() : null, health()]);
}));
$("token").value = sessionStorage.getItem("token") || "";
$("token").addEventListener("change", trying(async () => {
  sessionStorage.setItem("token", $("token").value);
  await load();
}));
$("author").value = localStorage.getItem("author") || "";

words();
trying(load)();
health();
setInterval(health, 5000);
setInterval(() => { if (open() === "targets" && shown() && !document.hidden) showTargets().catch(tellFault); }, TARGETS_EVERY_MS);
