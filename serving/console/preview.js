// What a draft would change: the figures of a preview as they come in, and pages before and after.

import { $, equivalents, h, number, outlet, percent, request, say, signed, table, tile } from "./core.js";
import { titled } from "./titles.js";

let running = null;
let last = null; // what the preview said last

/** Starts a preview of the text being edited, or stops the one under way. */
export async function preview(outlet) {
  if (running) return running.abort();
  running = new AbortController();
  button("stop");
  $("preview-card").hidden = false;
  $("preview-state").textContent = say.word("preview_starts");
  $("preview-body").hidden = true;
  try {
    for await (const line of lines(outlet, $("text").value, running.signal)) tell(line);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    $("preview-state").textContent = say.word("preview_stopped");
  } finally {
    running = null;
    button("preview");
  }
}

/** What the button does now, kept when the language changes. */
function button(word) {
  $("preview").dataset.word = word;
  $("preview").textContent = say.word(word);
}

async function* lines(outlet, text, signal) {
  const answer = await request(`/v1/policies/${outlet}/preview`, { text }, "POST", { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

function tell(line) {
  const { phase, elapsed_s, sources, report, detail } = line;
  if (phase === "failed") throw Object.assign(new Error(detail.message), { refusal: detail });
  last = line;
  const from = Object.entries(sources).filter(([, n]) => n).map(([name, n]) => `${n} ${say.word(`from_${name}`)}`).join(", ");
  $("preview-state").textContent = `${report.requests} / ${report.of} · ${number(elapsed_s, 1)} s · ${from}`;
  $("preview-body").hidden = false;
  $("preview-bar").max = report.of;
  $("preview-bar").value = report.requests;
  $("preview-bar").hidden = phase === "complete";
  $("preview-figures").replaceChildren(...tiles(report));
  $("preview-controls").replaceChildren(controls(report.controls));
  $("preview-exposure").replaceChildren(exposure(report.exposure));
  $("preview-labels").replaceChildren(shares(report.labels.slice(0, 12)));
  $("preview-frontier").replaceChildren(frontier(report.frontier));
  $("preview-slices").replaceChildren(slices([...report.by_screen, ...report.by_region]));
  $("preview-example").replaceChildren(...example(report.examples[0]));
  $("preview-caveat").textContent = `${say.word("caveat")} ${offPolicy(report.off_policy)}`;
}

const between = (figure) => `${signed(figure.low)} … ${signed(figure.high)}`;
const way = (change) => (Math.abs(change) < 5e-5 ? "muted" : change > 0 ? "up" : "out-text");

function tiles(report) {
  const { utility, expected_plays: plays, worst_hit } = report;
  const all = [
    [signed(utility.relative.mean), say.word("utility_change"), between(utility.relative)],
    [signed(plays.relative.mean), say.word("expected_plays"), between(plays.relative)],
    [`${percent(report.guidance_cost_before.mean)} → ${percent(report.guidance_cost_after.mean)}`, say.word("cost"), say.word("against_unguided")],
    [percent(report.changed_slots, 0), say.word("changed_share"), `${percent(report.changed_pages, 0)} ${say.word("of_pages")}`],
    [`${percent(report.relaxed_before, 0)} → ${percent(report.relaxed_after, 0)}`, say.word("gave_way"), say.word("of_pages")],
    ...(worst_hit
      ? [[signed(worst_hit.mean_change), say.word("worst_hit"), `${worst_hit.viewers} ${say.word("viewers")}`]]
      : []), // of few viewers nothing is told
  ];
  return all.map(tile);
}

function controls(lines) {
  if (!lines.length) return h("p", { class: "empty" }, say.word("no_controls"));
  const rows = lines.map((line) => h(
    "tr", {},
    h("td", {}, h("b", {}, line.id), h("small", {}, [line.action ? say.one("action", line.action) : "", line.origin ? say.called(line.origin) : ""].filter(Boolean).join(" · "))),
    h("td", { class: "number" }, kept(line.met_before)),
    h("td", { class: `number ${line.met_after !== null && line.met_after < 1 ? "out-text" : ""}` }, kept(line.met_after)),
    h("td", { class: "number" }, line.price ? equivalents(line.price) : "–"),
    h("td", { class: "number" }, line.value ? signed(line.value.mean) : "–", line.value ? h("small", {}, between(line.value)) : null),
    h("td", {}, line.note ? h("div", {}, say.told(line.note)) : null, line.causes.slice(0, 2).map((cause) => h("div", {}, say.told(cause.reason), h("small", {}, `${cause.pages} × ${say.told(cause.where)}`)))),
  ));
  return table(["control", "kept_before", "kept_after", "price", "worth", "why"].map((head) => say.word(head)), rows);
}

const kept = (share) => (share === null ? "–" : percent(share, 0));

function exposure(lines) {
  const rows = lines.slice(0, 12).map((line) => h(
    "tr", {},
    h("td", {}, outlet(line.outlet)),
    h("td", { class: "number" }, number(line.before, 0)),
    h("td", { class: "number" }, number(line.after, 0)),
    h("td", { class: `number ${way(line.difference.mean / Math.max(line.before, 1))}` }, `${line.difference.mean > 0 ? "+" : ""}${number(line.difference.mean, 0)}`),
    h("td", { class: "number muted" }, `+${number(line.gained, 0)} −${number(line.lost, 0)}`),
  ));
  return table(["outlet", "before", "after", "difference", "won_lost"].map((head) => say.word(head)), rows);
}

function shares(lines) {
  const rows = lines.map((line) => h(
    "tr", {},
    h("td", {}, line.name),
    h("td", { class: "number" }, percent(line.before)),
    h("td", { class: "number" }, percent(line.after)),
    h("td", { class: `number ${way(line.difference.mean)}` }, signed(line.difference.mean, 1, ` ${say.word("points")}`)),
  ));
  return table(["label", "before", "after", "difference"].map((head) => say.word(head)), rows);
}

function slices(lines) {
  const rows = lines.map((line) => h(
    "tr", {},
    h("td", {}, say.one("screen", line.name), h("small", {}, `${line.requests} ${say.word("requests")}`)),
    h("td", { class: `number ${way(line.utility.mean)}` }, signed(line.utility.mean)),
    h("td", { class: `number ${way(line.expected_plays.mean)}` }, signed(line.expected_plays.mean)),
    h("td", { class: "number" }, `${percent(line.guidance_cost_before)} → ${percent(line.guidance_cost_after)}`),
    h("td", { class: "number" }, `${percent(line.relaxed_before, 0)} → ${percent(line.relaxed_after, 0)}`),
  ));
  return table(["where", "utility_change", "expected_plays", "cost", "gave_way"].map((head) => say.word(head)), rows);
}

/** Cost of guidance over its strength, with what the quotas and weights achieve. */
function frontier(points) {
  if (!points.length) return h("p", { class: "empty" }, say.word("preview_later"));
  const rows = points.map((point) => h(
    "tr", {},
    h("td", { class: "number" }, `× ${point.strength}`),
    h("td", { class: "number" }, percent(point.guidance_cost.mean)),
    h("td", { class: "bar" }, h("progress", { max: Math.max(0.01, ...points.map((one) => one.guidance_cost.mean)), value: Math.max(0, point.guidance_cost.mean) })),
    h("td", { class: "number" }, percent(point.relaxed, 0)),
    h("td", {}, Object.entries({ ...point.values, ...point.quotas }).map(([name, share]) => h("span", { class: "chip" }, `${name} ${percent(share, 0)}`))),
  ));
  return table(["strength", "cost", "", "gave_way", "brings"].map((head) => (head ? say.word(head) : "")), rows);
}

function example(one) {
  if (!one) return [];
  const column = (word, page, other) => {
    const there = new Set(other.map((slot) => slot.item_id));
    const rows = page.map((slot, k) => h(
      "li", { class: there.has(slot.item_id) ? (other[k]?.item_id === slot.item_id ? null : "moved") : word === "before" ? "out" : "in" },
      h("span", { class: "n" }, String(k + 1)),
      h("span", { class: "title" }, titled(slot.title)),
    ));
    return h("div", {}, h("h3", {}, say.word(word)), h("ol", { class: "page" }, rows));
  };
  const about = `${placement(one.placement)} · ${one.region} · ${one.changed} ${say.word("changed")}`;
  return [h("p", { class: "muted" }, about), h("div", { class: "pair" }, column("before", one.before, one.after), column("after", one.after, one.before))];
}

/** Outlet, screen and surface of "cn.zj-mobile-home". */
function placement(id) {
  const [outlet, screen, surface] = id.split("-");
  return `${say.outlet(outlet)} · ${say.one("screen", screen)} ${say.one("surface", surface)}`;
}

/** Says in the other language what is shown already. */
export function retell() {
  if (last && !$("preview-body").hidden) tell(last);
}

const offPolicy = (said) => (said ? `${say.word("log_says")} ${say.told(said.reason)}${say.word("full_stop")}` : "");
