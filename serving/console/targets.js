// Exposure targets: their status, the charts of the selected target, and its actions (pause, resume, amount, stop).

import {
  $, amount, api, ask, fetchAll, field, guarded, h, i18n, notice, number, outlet, percent, pill, svg, table, targetPrice, tile, time, timeWithOffset,
} from "./core.js";
import { courseChart, priceChart } from "./charts.js";

let targets = [];
let selected = null; // the report of the selected target
let selectedKey = "";

const keyOf = (target) => `${target.outlet}/${target.id}`;

/** Return the path of a target in the API; its id may contain any character. */
const pathOf = (target) => `/v1/targets/${target.outlet}/${encodeURIComponent(target.id)}`;

/** Load all targets, and the report of the selected target. */
export async function showTargets() {
  targets = await fetchAll("/v1/targets", "targets");
  const listed = targets.find((target) => keyOf(target) === selectedKey) || targets[0];
  selectedKey = listed ? keyOf(listed) : "";
  selected = listed ? await api(pathOf(listed)) : null;
  draw();
}

/** Draw the loaded targets; called again after a change of width or language. */
export function draw() {
  list();
  $("target-card").hidden = !selected;
  if (selected) report();
}

function list() {
  if (!targets.length) {
    $("targets").replaceChildren(h("p", { class: "empty" }, i18n.label("no_targets")));
    return;
  }
  const rows = targets.map((target) => h(
    "tr", { class: keyOf(target) === selectedKey ? "selected" : null },
    h("td", {}, h("button", { type: "button", class: "link", onclick: guarded(() => select(target)) }, target.id), h("small", {}, outlet(target.outlet))),
    h("td", { class: "why" }, pill(target.status), h("small", {}, i18n.message(target.description))),
    h("td", { class: "bar" }, progress(target), h("small", { class: "number" }, `${percent(part(target.delivered, target))} / ${percent(part(target.planned, target))}`)),
    h("td", { class: "number" }, required(target)),
    h("td", { class: "number" }, forecast(target), h("small", {}, interval(target))),
    h("td", { class: "number" }, targetPrice(target, target.price), h("small", {}, i18n.label("at_most", { amount: targetPrice(target, target.max_price, 2) }))),
    h("td", { class: "number" }, timeWithOffset(target.until)),
  ));
  const heads = ["target", "status", "delivered_planned", "amount", "forecast", "target_price", "deadline"].map((head) => i18n.label(head));
  $("targets").replaceChildren(table(heads, rows));
}

async function select(target) {
  selectedKey = keyOf(target);
  await showTargets();
  $("target-card").scrollIntoView({ block: "nearest" });
}

const part = (value, target) => value / Math.max(target.amount, 1e-9);
const hasForecast = (target) => target.forecast !== null;
const isOver = (target) => target.status === "stopped" || target.status === "over"; // no forecast any more
const forecast = (target) => (isOver(target) ? "–" : hasForecast(target) ? percent(target.forecast.expected) : i18n.label("unknown_yet"));
const interval = (target) => (hasForecast(target) ? `${percent(target.forecast.low)} – ${percent(target.forecast.high)}` : "");

const required = (target) => [
  `${target.bound === "at_most" ? "≤" : "≥"} ${target.share === null ? amount(target.amount) : percent(target.share)}`,
  target.share === null ? null : h("small", {}, `≈ ${amount(target.amount)}`),
];

/** A bar of delivered attention, with a mark at the amount planned by now. */
function progress(target) {
  const x = (value) => 100 * Math.min(1, Math.max(0, part(value, target)));
  return svg(
    "svg", { class: "progress", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": i18n.message(target.description) },
    svg("rect", { class: "track", width: 100, height: 10 }), svg("rect", { class: "done", width: x(target.delivered), height: 10 }),
    svg("line", { class: "plan", x1: x(target.planned), x2: x(target.planned), y1: 0, y2: 10 }),
  );
}

function report() {
  $("target-name").replaceChildren(selected.id, " ", h("span", { class: "muted" }, outlet(selected.outlet)), " ", pill(selected.status));
  $("target-description").textContent = i18n.message(selected.description);
  $("target-figures").replaceChildren(...figures().map(tile));
  $("target-actions").replaceChildren(...buttons());
  const width = Math.max(300, $("target-course").clientWidth);
  $("target-course").replaceChildren(courseChart(selected, width));
  $("target-price").replaceChildren(priceChart(selected, width));
}

function figures() {
    return [
    [`${amount(selected.delivered)} / ${amount(selected.amount)}`, i18n.label("delivered_of"), `${amount(selected.planned)} ${i18n.label("planned_by_now")}`],
    [forecast(selected), i18n.label("forecast_at_deadline"), interval(selected) ? `${interval(selected)} ${i18n.label("nine_of_ten")}` : ""],
    [interval(selected) ? amount(selected.forecast.at_risk) : "–", i18n.label("at_risk")],
    [targetPrice(selected, selected.price), i18n.label("price_now"), i18n.label("at_most", { amount: targetPrice(selected, selected.max_price, 2) })],
    [percent(selected.pacing_error), i18n.label("pacing_error")],
    [percent(selected.progress), i18n.label("traffic_served"), `${time(selected.since)} → ${timeWithOffset(selected.until)}`],
    ...(selected.last_resort ? [[i18n.label("in_force"), i18n.label("last_resort")]] : []),
    ...(selected.capped_impressions ? [[amount(selected.capped_impressions), i18n.label("capped_impressions")]] : []),
    ...(selected.counter_lag_s > 60 ? [[`${amount(selected.counter_lag_s / 60)} min`, i18n.label("counter_lag")]] : []),
  ];
}

function buttons() {
  if (selected.stopped) return [h("span", { class: "muted" }, i18n.label("was_stopped"))];
  if (selected.status === "over") return [h("span", { class: "muted" }, i18n.label("is_over"))];
  const button = (action, kind = "") => h("button", { type: "button", class: kind, onclick: guarded(() => override(action)) }, i18n.label(`order_${action}`));
  return [button(selected.paused ? "resume" : "pause"), button("amount"), button("stop", "danger")];
}

/** Ask for the editor's name and confirmation, send the action, and wait until this process applies it. */
async function override(action) {
  const ofShare = selected.share !== null;
  const fields = [
    ...(action === "amount" ? [field(ofShare ? "new_share" : "new_amount", {
      name: "amount", type: "number", required: "", step: "any", min: "0", value: ofShare ? +(100 * selected.share).toFixed(4) : Math.round(selected.amount),
    })] : []),
    field("author", { name: "author", required: "", value: localStorage.getItem("author") || "", autocomplete: "name" }),
    field("note", { name: "note" }),
  ];
  const values = await ask({
    title: `${i18n.label(`order_${action}`)}: ${selected.id} · ${i18n.outletWithCode(selected.outlet)}`, text: i18n.label(`order_${action}_text`), fields,
    submit: i18n.label(`order_${action}`), danger: action === "stop",
  });
  if (!values) return;
  localStorage.setItem("author", values.author);
  $("author").value = values.author;
  const body = { author: values.author, note: values.note };
  if (action === "amount") body.amount = ofShare ? Number(values.amount) / 100 : Number(values.amount);
  const target = selected;
  await api(`${pathOf(target)}/${action}`, body);
  const done = await isApplied(action, body, target);
  notice(`${target.id}: ${i18n.label(done ? `order_${action}_done` : "order_pending")}`, done);
}

/** Poll until this process has applied an action; false when it has not after five seconds. */
async function isApplied(action, body, target) {
  for (let tries = 0; tries < 20; tries += 1) {
    await new Promise((resume) => { setTimeout(resume, 250); });
    await showTargets();
    if (!selected || keyOf(selected) !== keyOf(target)) return true;
    if ({ pause: selected.paused, resume: !selected.paused, stop: selected.stopped, amount: same(selected.share ?? selected.amount, body.amount) }[action]) return true;
  }
  return false;
}

const same = (a, b) => Math.abs(a - b) <= 1e-6 * Math.abs(b);
