// Exposure targets: how they stand, the course of one of them, and orders to it.

import { $, amount, api, ask, equivalents, every, field, h, notice, number, outlet, percent, pill, say, svg, table, tile, time, trying, zoned } from "./core.js";
import { courseChart, priceChart } from "./charts.js";

let all = [];
let one = null; // the report of the target that is open
let key = "";

const named = (target) => `${target.outlet}/${target.id}`;

/** Reads all targets, and the open one with its course. */
export async function showTargets() {
  all = await every("/v1/targets", "targets");
  if (!all.some((target) => named(target) === key)) key = all.length ? named(all[0]) : "";
  one = key ? await api(`/v1/targets/${key}`) : null;
  draw();
}

/** Draws what was read last, for another width or language. */
export function draw() {
  list();
  $("target-card").hidden = !one;
  if (one) report();
}

function list() {
  if (!all.length) {
    $("targets").replaceChildren(h("p", { class: "empty" }, say.word("no_targets")));
    return;
  }
  const rows = all.map((target) => h(
    "tr", { class: named(target) === key ? "chosen" : null },
    h("td", {}, h("button", { type: "button", class: "link", onclick: trying(() => choose(target)) }, target.id), h("small", {}, outlet(target.outlet))),
    h("td", { class: "why" }, pill(target.status), h("small", {}, say.told(target.description))),
    h("td", { class: "bar" }, progress(target), h("small", { class: "number" }, `${percent(part(target.delivered, target))} / ${percent(part(target.planned, target))}`)),
    h("td", { class: "number" }, asked(target)),
    h("td", { class: "number" }, foreseen(target), h("small", {}, interval(target))),
    h("td", { class: "number" }, equivalents(target.price), h("small", {}, `${say.word("at_most")} ${number(target.max_price, 2)}`)),
    h("td", { class: "number" }, zoned(target.until)),
  ));
  const heads = ["target", "status", "delivered_planned", "amount", "forecast", "price", "deadline"].map((word) => say.word(word));
  $("targets").replaceChildren(table(heads, rows));
}

async function choose(target) {
  key = named(target);
  await showTargets();
  $("target-card").scrollIntoView({ block: "nearest" });
}

const part = (value, target) => value / Math.max(target.amount, 1e-9);
const known = (target) => target.forecast !== null;
const ended = (target) => target.status === "stopped" || target.status === "over"; // nothing is foreseen any more
const foreseen = (target) => (ended(target) ? "–" : known(target) ? percent(target.forecast.expected) : say.word("unknown_yet"));
const interval = (target) => (known(target) ? `${percent(target.forecast.low)} – ${percent(target.forecast.high)}` : "");

const asked = (target) => [
  `${target.bound === "at_most" ? "≤" : "≥"} ${target.share === null ? amount(target.amount) : percent(target.share)}`,
  target.share === null ? null : h("small", {}, `≈ ${amount(target.amount)}`),
];

/** Delivered as a bar, with a mark at what is planned by now. */
function progress(target) {
  const x = (value) => 100 * Math.min(1, Math.max(0, part(value, target)));
  return svg(
    "svg", { class: "progress", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": say.told(target.description) },
    svg("rect", { class: "track", width: 100, height: 10 }), svg("rect", { class: "done", width: x(target.delivered), height: 10 }),
    svg("line", { class: "plan", x1: x(target.planned), x2: x(target.planned), y1: 0, y2: 10 }),
  );
}

function report() {
  $("target-name").replaceChildren(one.id, " ", h("span", { class: "muted" }, outlet(one.outlet)), " ", pill(one.status));
  $("target-says").textContent = say.told(one.description);
  $("target-figures").replaceChildren(...figures().map(tile));
  $("target-actions").replaceChildren(...buttons());
  const width = Math.max(300, $("target-course").clientWidth);
  $("target-course").replaceChildren(courseChart(one, width));
  $("target-price").replaceChildren(priceChart(one, width));
}

function figures() {
  const away = percent(one.pacing_error);
  return [
    [`${amount(one.delivered)} / ${amount(one.amount)}`, say.word("delivered_of"), `${amount(one.planned)} ${say.word("planned_by_now")}`],
    [foreseen(one), say.word("forecast_at_deadline"), interval(one) ? `${interval(one)} ${say.word("nine_of_ten")}` : ""],
    [interval(one) ? amount(one.forecast.at_risk) : "–", say.word("at_risk")],
    [equivalents(one.price), say.word("price_now"), `${say.word("at_most")} ${number(one.max_price, 2)}`],
    [away, say.word("pacing_error")],
    [percent(one.progress), say.word("traffic_served"), `${time(one.since)} → ${zoned(one.until)}`],
    ...(one.last_resort ? [[say.word("in_force"), say.word("last_resort")]] : []),
    ...(one.capped_impressions ? [[amount(one.capped_impressions), say.word("capped_impressions")]] : []),
    ...(one.late_s > 60 ? [[`${amount(one.late_s / 60)} min`, say.word("counters_late")]] : []),
  ];
}

function buttons() {
  if (one.stopped) return [h("span", { class: "muted" }, say.word("was_stopped"))];
  if (one.status === "over") return [h("span", { class: "muted" }, say.word("is_over"))];
  const button = (word, kind = "") => h("button", { type: "button", class: kind, onclick: trying(() => order(word)) }, say.word(`order_${word}`));
  return [button(one.paused ? "resume" : "pause"), button("amount"), button("stop", "danger")];
}

/** Asks who says it and whether it is meant, sends it, and waits until this process acts on it. */
async function order(word) {
  const ofShare = one.share !== null;
  const fields = [
    ...(word === "amount" ? [field(ofShare ? "new_share" : "new_amount", {
      name: "amount", type: "number", required: "", step: "any", min: "0", value: ofShare ? +(100 * one.share).toFixed(4) : Math.round(one.amount),
    })] : []),
    field("author", { name: "author", required: "", value: localStorage.getItem("author") || "", autocomplete: "name" }),
    field("note", { name: "note" }),
  ];
  const said = await ask({
    title: `${say.word(`order_${word}`)}: ${one.id} · ${say.outlet(one.outlet)}`, text: say.word(`order_${word}_text`), fields,
    go: say.word(`order_${word}`), danger: word === "stop",
  });
  if (!said) return;
  localStorage.setItem("author", said.author);
  $("author").value = said.author;
  const body = { author: said.author, note: said.note };
  if (word === "amount") body.amount = ofShare ? Number(said.amount) / 100 : Number(said.amount);
  const before = one;
  await api(`/v1/targets/${key}/${word}`, body);
  const done = await acted(word, body, before);
  notice(`${before.id}: ${say.word(done ? `order_${word}_done` : "order_under_way")}`, done);
}

async function acted(word, body, before) {
  for (let tries = 0; tries < 20; tries += 1) {
    await new Promise((resume) => { setTimeout(resume, 250); });
    await showTargets();
    if (!one || named(one) !== named(before)) return true;
    if ({ pause: one.paused, resume: !one.paused, stop: one.stopped, amount: same(one.share ?? one.amount, body.amount) }[word]) return true;
  }
  return false;
}

const same = (a, b) => Math.abs(a - b) <= 1e-6 * Math.abs(b);
