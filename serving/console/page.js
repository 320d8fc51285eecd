// One viewer's page, without and with guidance, and the receipt.

import { $, added, api, brief, equivalents, h, number, outlet, percent, pill, say, signed, tile, time } from "./core.js";
import { showReceipt } from "./receipt.js";
import { called, know, learnTitles, titled } from "./titles.js";

export async function showPage(chosen) {
  const path = `/v1/placements/${chosen.outlet}-${chosen.screen}-${chosen.surface}:recommend`;
  const asked = { viewer_id: chosen.viewer, preview: true, trace: true, seed: 1 };
  if (chosen.region) asked.region = chosen.region;
  if (chosen.slots) asked.slots = Number(chosen.slots);
  const [without, guided, inService] = await Promise.all([
    api(path, { ...asked, guided: false }), api(path, asked), api("/v1/model"),
  ]);
  know([...without.items, ...guided.items].map((slot) => slot.item));
  await nameCauses([...without.items, ...guided.items]);
  summary(without, guided, inService);
  const before = places(without), after = places(guided);
  list("without", without, (slot) => leaving(slot, after));
  list("with", guided, (slot) => arriving(slot, before));
  for (const [id, page] of [["fallback-level-without", without], ["fallback-level-with", guided]]) $(id).replaceWith(named(pill(page.fallback_level), id));
  showReceipt(guided.receipt);
}

/** Titles of the items that "because of" speaks of, where they are not on the page themselves. */
const nameCauses = (slots) => learnTitles(
  slots.flatMap((slot) => slot.reasons).filter((code) => code.includes(":")).map((code) => code.split(/:(.*)/s)[1]),
);

const places = (page) => new Map(page.items.map((slot) => [slot.item.id, slot.slot]));
const named = (element, id) => Object.assign(element, { id });

function leaving(slot, after) {
  const to = after.get(slot.item.id);
  if (to === undefined) return { kind: "out", text: say.word("gone") };
  return to === slot.slot ? null : { kind: "moved", text: `${say.word("to_slot")} ${to}` };
}

function arriving(slot, before) {
  const from = before.get(slot.item.id);
  if (from === undefined) return { kind: "in", text: say.word("new_here") };
  if (from === slot.slot) return null;
  const way = from > slot.slot ? "up" : "down";
  return { kind: "moved", way, text: `${way === "up" ? "▲" : "▼"} ${Math.abs(from - slot.slot)}`, more: `${say.word("from_slot")} ${from}` };
}

function list(id, page, moveOf) {
  const rows = page.items.map((slot) => row(slot, moveOf(slot)));
  $(id).replaceChildren(...(rows.length ? rows : [h("li", { class: "empty" }, say.word("no_items"))]));
}

function row(slot, move) {
  const { item } = slot;
  const [main, other] = bothTitles(item.title);
  return h(
    "li", { class: move?.kind },
    h("span", { class: "n" }, String(slot.slot)),
    h(
      "div", {},
      h("div", { class: "title" }, main, other ? h("span", { class: "other" }, other) : null),
      h(
        "div", { class: "facts" },
        h("span", {}, say.one("kind", item.kind)), outlet(item.outlet), item.region ? h("span", {}, `◎ ${item.region}`) : null,
        item.labels.slice(0, 4).map((label) => h("span", { class: "chip" }, label)),
        slot.control_ids.map((control) => h("span", { class: "chip control" }, control)),
      ),
      h("div", { class: "facts" }, h("span", {}, slot.reasons.map(reason).join(" · ")),
        slot.detail ? h("span", {}, figures(slot.detail)) : null),
    ),
    h("span", { class: "move" }, move ? h("b", { class: move.way }, move.text) : null, move?.more ? h("span", { class: "muted" }, move.more) : null),
  );
}

const figures = (detail) => `${say.word("utility")} ${equivalents(detail.utility)} · p(${say.word("viewer_play")}) ${equivalents(detail.p.play)}`
  + (detail.bonus ? ` · ${say.word("bonus")} ${added(detail.bonus)}` : "");

function bothTitles(title) {
  const first = titled(title);
  const other = title[say.language === "zh" ? "en" : "zh"];
  return [first, other && other !== first ? other : null];
}

function reason(code) {
  const [name, about] = code.split(/:(.*)/s);
  return about ? `${say.one("reason", name)} ${called(about)}` : say.one("reason", name);
}

function summary(without, guided, inService) {
  const before = places(without);
  const changed = guided.items.filter((slot) => before.get(slot.item.id) !== slot.slot).length;
  const { receipt: said } = guided;
  const change = (field) => (said[`${field}_without`] > 0 ? said[field] / said[`${field}_without`] - 1 : 0);
  const both = (field) => `${number(said[`${field}_without`])} → ${number(said[field])}`;
  const tiles = [
    [`${changed} / ${guided.items.length}`, say.word("changed")],
    [percent(-change("utility")), say.word("cost"), both("utility")],
    [signed(change("expected_plays"), 1), say.word("expected_plays"), both("expected_plays")],
    [number(said.value), say.word("value")],
    said.proven ? [say.word("proven"), say.word("proven_under")] : [`≤ ${percent(said.gap, 2)}`, say.word("proof")],
    [h("span", { class: "name", title: guided.policy_version }, say.versions(guided.policy_version)), say.word("versions_used")],
    [
      h("span", { class: "name", title: guided.model_version }, model(guided.model_version)), say.word("model"),
      weightsOf(inService.action_weights),
    ],
  ];
  $("summary").replaceChildren(...tiles.map(tile));
}

/** The weight of each action in utility: a play is 1. */
const weightsOf = (weights) => Object.entries(weights).map(([action, weight]) => `${say.word(`viewer_${action}`)} ${brief(weight)}`).join(" · ");

/** A model is called after the moment it was made, where nobody called it otherwise. */
function model(version) {
  const at = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(version);
  if (at) return time(`${at[1]}-${at[2]}-${at[3]}T${at[4]}:${at[5]}:${at[6]}Z`);
  return version === "none" ? say.word("none_yet") : version;
}
