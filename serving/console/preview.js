// The preview of a draft: figures as they arrive, and example pages before and after.

import { $, changeClass, equivalents, h, i18n, number, outlet, percent, request, signed, table, tile } from "./core.js";
import { titleText } from "./titles.js";

let running = null;
let lastUpdate = null;

/** Start a preview of the text in the editor, or stop the running preview. */
export async function preview(outlet) {
  if (running) return running.abort();
  running = new AbortController();
  setButton("stop");
  $("preview-card").hidden = false;
  $("preview-state").textContent = i18n.label("preview_starts");
  $("preview-body").hidden = true;
  try {
    for await (const update of updates(outlet, $("text").value, running.signal)) show(update);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    $("preview-state").textContent = i18n.label("preview_stopped");
  } finally {
    running = null;
    setButton("preview");
  }
}

/** Set the label of the button; it is updated when the language changes. */
function setButton(label) {
  $("preview").dataset.label = label;
  $("preview").textContent = i18n.label(label);
}

async function* updates(outlet, text, signal) {
  const response = await request(`/v1/policies/${outlet}/preview`, { text }, "POST", { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (buffer + value).split("\n");
    buffer = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

/** Show the figures of one line of a preview. */
export function show(update) {
  const { phase, elapsed_s, sources, report, detail } = update;
  if (phase === "failed") throw Object.assign(new Error(detail.message), { refusal: detail });
  lastUpdate = update;
  const origins = Object.entries(sources).filter(([, n]) => n).map(([name, n]) => `${n} ${i18n.label(`from_${name}`)}`).join(", ");
  $("preview-state").textContent = `${report.requests} / ${report.of} · ${number(elapsed_s, 1)} s · ${origins}`;
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
  $("preview-caveat").textContent = `${i18n.label("caveat")} ${offPolicy(report.off_policy)}`;
}

const interval = (figure) => `${signed(figure.low)} … ${signed(figure.high)}`;

function tiles(report) {
  const { utility, expected_plays: plays, worst_hit } = report;
  const figures = [
    [signed(utility.relative.mean), i18n.label("utility_change"), interval(utility.relative), i18n.label("definition_utility")],
    [signed(plays.relative.mean), i18n.label("expected_plays"), interval(plays.relative), i18n.label("definition_plays")],
    [`${percent(report.guidance_cost_before.mean)} → ${percent(report.guidance_cost_after.mean)}`, i18n.label("cost"), i18n.label("against_unguided"), i18n.label("definition_cost")],
    [percent(report.replaced_slots, 0), i18n.label("replaced_share"), `${percent(report.moved_slots, 0)} ${i18n.label("moved_share")}`, i18n.label("definition_replaced")],
    [percent(report.changed_pages, 0), i18n.label("changed_pages"), "", i18n.label("definition_changed")],
    [`${percent(report.relaxed_before, 0)} → ${percent(report.relaxed_after, 0)}`, i18n.label("relaxed_pages"), i18n.label("of_pages"), i18n.label("definition_relaxed")],
    ...(worst_hit
      ? [[signed(worst_hit.mean_change), i18n.label("worst_hit"), `${worst_hit.viewers} ${i18n.label("viewers")}`, i18n.label("definition_worst_hit")]]
      : []), // null for fewer than ten viewers
  ];
  return figures.map(tile);
}

function controls(lines) {
  if (!lines.length) return h("p", { class: "empty" }, i18n.label("no_controls"));
  const rows = lines.map((line) => h(
    "tr", {},
    h("td", {}, h("b", {}, line.id), h("small", {}, [line.action ? i18n.term("action", line.action) : "", line.origin ? i18n.outletName(line.origin) : ""].filter(Boolean).join(" · "))),
    h("td", { class: "number" }, metShare(line.met_before)),
    h("td", { class: `number ${line.met_after !== null && line.met_before !== null ? changeClass(shown(line.met_after) - shown(line.met_before), 0) : ""}` }, metShare(line.met_after)),
    h("td", { class: "number" }, line.price ? equivalents(line.price) : "–"),
    h("td", { class: "number" }, line.value ? signed(line.value.mean) : "–", line.value ? h("small", {}, interval(line.value)) : null,
      line.cost_at_limit ? h("small", {}, i18n.label("cost_range", { cost: percent(line.cost_at_limit.mean) })) : null),
    h("td", {}, line.note ? h("div", {}, i18n.message(line.note)) : null, line.causes.slice(0, 2).map((cause) => h("div", {}, i18n.message(cause.reason), h("small", {}, `${cause.pages} × ${i18n.message(cause.where)}`)))),
  ));
  return h("div", {}, table(["control", "met_before", "met_after", "price", "gain_if_dropped", "reason"].map((head) => i18n.label(head)), rows),
    h("p", { class: "muted" }, i18n.label("definition_controls")));
}

/** A share as displayed by metShare. */
const shown = (share) => Number(share.toFixed(2));
const metShare = (share) => (share === null ? "–" : percent(share, 0));

function exposure(lines) {
  const rows = lines.slice(0, 12).map((line) => h(
    "tr", {},
    h("td", {}, outlet(line.outlet)),
    h("td", { class: "number" }, number(line.before, 0)),
    h("td", { class: "number" }, number(line.after, 0)),
    h("td", { class: `number ${changeClass(line.difference.mean / 100, 0)}` }, `${line.difference.mean > 0 ? "+" : ""}${number(line.difference.mean, 0)}`),
    h("td", { class: "number muted" }, `+${number(line.gained, 0)} −${number(line.lost, 0)}`),
  ));
  return table(["outlet", "before", "after", "difference", "gained_lost"].map((head) => i18n.label(head)), rows);
}

function shares(lines) {
  const rows = lines.map((line) => h(
    "tr", {},
    h("td", {}, line.name),
    h("td", { class: "number" }, percent(line.before)),
    h("td", { class: "number" }, percent(line.after)),
    h("td", { class: `number ${changeClass(line.difference.mean, 1)}` }, signed(line.difference.mean, 1, ` ${i18n.label("points")}`)),
  ));
  return table(["label", "before", "after", "difference"].map((head) => i18n.label(head)), rows);
}

function slices(lines) {
  const rows = lines.map((line) => h(
    "tr", {},
    h("td", {}, i18n.term("screen", line.name), h("small", {}, `${line.requests} ${i18n.label("requests")}`)),
    h("td", { class: `number ${changeClass(line.utility.mean)}` }, signed(line.utility.mean)),
    h("td", { class: `number ${changeClass(line.expected_plays.mean)}` }, signed(line.expected_plays.mean)),
    h("td", { class: "number" }, `${percent(line.guidance_cost_before)} → ${percent(line.guidance_cost_after)}`),
    h("td", { class: "number" }, `${percent(line.relaxed_before, 0)} → ${percent(line.relaxed_after, 0)}`),
  ));
  return table(["group", "utility_change", "expected_plays", "cost", "relaxed_pages"].map((head) => i18n.label(head)), rows);
}

/** The cost of guidance by strength, with the shares that minimums and weights achieve. */
function frontier(points) {
  if (!points.length) return h("p", { class: "empty" }, i18n.label("preview_later"));
  const rows = points.map((point) => h(
    "tr", {},
    h("td", { class: "number" }, `× ${point.strength}`),
    h("td", { class: "number" }, percent(point.guidance_cost.mean)),
    h("td", { class: "bar" }, h("progress", { max: Math.max(0.01, ...points.map(({ guidance_cost: { mean } }) => mean)), value: Math.max(0, point.guidance_cost.mean) })),
    h("td", { class: "number" }, percent(point.relaxed, 0)),
    h("td", {}, Object.entries({ ...point.values, ...point.quotas }).map(([name, share]) => h("span", { class: "chip" }, `${name} ${percent(share, 0)}`))),
  ));
  return h("div", {}, table(["strength", "cost", "", "relaxed_pages", "achieves"].map((head) => (head ? i18n.label(head) : "")), rows),
    h("p", { class: "muted" }, i18n.label("definition_frontier")));
}

function example(sample) {
  if (!sample) return [];
  const column = (label, page, comparison) => {
    const comparedIds = new Set(comparison.map((slot) => slot.item_id));
    const rows = page.map((slot, k) => h(
      "li", { class: comparedIds.has(slot.item_id) ? (comparison[k]?.item_id === slot.item_id ? null : "moved") : label === "before" ? "out" : "in" },
      h("span", { class: "n" }, String(k + 1)),
      h("span", { class: "title" }, titleText(slot.title)),
    ));
    return h("div", {}, h("h3", {}, i18n.label(label)), h("ol", { class: "page" }, rows));
  };
  const description = `${placement(sample.placement)} · ${sample.region} · ${i18n.label("replaced_and_moved", { replaced: sample.replaced, moved: sample.moved })}`;
  return [h("p", { class: "muted" }, description), h("div", { class: "pair" }, column("before", sample.before, sample.after), column("after", sample.after, sample.before))];
}

/** Format a placement such as "cn.zj-mobile-home": outlet, screen and surface. */
function placement(id) {
  const [outlet, screen, surface] = id.split("-");
  return `${i18n.outletWithCode(outlet)} · ${i18n.term("screen", screen)} ${i18n.term("surface", surface)}`;
}

/** Redraw the preview, after a change of language. */
export function redraw() {
  if (lastUpdate && !$("preview-body").hidden) show(lastUpdate);
}

const offPolicy = (estimate) => (estimate ? `${i18n.label("off_policy")} ${i18n.message(estimate.reason)}${i18n.label("full_stop")}` : "");
