// The page of a viewer without and with guidance, and its receipt.

import { $, api, compact, equivalents, h, i18n, number, outlet, percent, pill, signed, signedEquivalents, tile, time } from "./core.js";
import { showReceipt } from "./receipt.js";
import { addTitles, itemTitle, loadTitles, titleText } from "./titles.js";

export async function showPage(selection) {
  const path = `/v1/placements/${selection.outlet}-${selection.screen}-${selection.surface}:recommend`;
  const body = { viewer_id: selection.viewer, preview: true, trace: true, seed: 1 };
  if (selection.region) body.region = selection.region;
  if (selection.slots) body.slots = Number(selection.slots);
  const [without, guided, model] = await Promise.all([
    api(path, { ...body, guided: false }), api(path, body), api("/v1/model"),
  ]);
  addTitles([...without.items, ...guided.items].map((slot) => slot.item));
  await loadReasonTitles([...without.items, ...guided.items]);
  summary(without, guided, model);
  const before = slotsByItem(without), after = slotsByItem(guided);
  list("without", without, (slot) => moveFrom(slot, after));
  list("with", guided, (slot) => moveTo(slot, before));
  for (const [id, page] of [["fallback-level-without", without], ["fallback-level-with", guided]]) $(id).replaceWith(withId(pill(page.fallback_level), id));
  showReceipt(guided.receipt);
}

/** Load the titles of items that the reasons refer to. */
const loadReasonTitles = (slots) => loadTitles(
  slots.flatMap((slot) => slot.reasons).filter((code) => code.includes(":")).map((code) => code.split(/:(.*)/s)[1]),
);

const slotsByItem = (page) => new Map(page.items.map((slot) => [slot.item.id, slot.slot]));
const withId = (element, id) => Object.assign(element, { id });

/** Where guidance moves an item of the unguided page; null when the item stays. */
function moveFrom(slot, after) {
  const to = after.get(slot.item.id);
  if (to === undefined) return { kind: "out", text: i18n.label("removed") };
  return to === slot.slot ? null : { kind: "moved", text: `${i18n.label("to_slot")} ${to}` };
}

/** Where an item of the guided page comes from; null when it has not moved. */
function moveTo(slot, before) {
  const from = before.get(slot.item.id);
  if (from === undefined) return { kind: "in", text: i18n.label("added") };
  if (from === slot.slot) return null;
  const direction = from > slot.slot ? "up" : "down";
  return { kind: "moved", direction, text: `${direction === "up" ? "▲" : "▼"} ${Math.abs(from - slot.slot)}`, detail: `${i18n.label("from_slot")} ${from}` };
}

function list(id, page, moveOf) {
  const rows = page.items.map((slot) => row(slot, moveOf(slot)));
  $(id).replaceChildren(...(rows.length ? rows : [h("li", { class: "empty" }, i18n.label("no_items"))]));
}

function row(slot, move) {
  const { item } = slot;
  const [main, translation] = titleAndTranslation(item.title);
  return h(
    "li", { class: move?.kind },
    h("span", { class: "n" }, String(slot.slot)),
    h(
      "div", {},
      h("div", { class: "title" }, main, translation ? h("span", { class: "translation" }, translation) : null),
      h(
        "div", { class: "facts" },
        h("span", {}, i18n.term("kind", item.kind)), outlet(item.outlet), item.region ? h("span", {}, `◎ ${item.region}`) : null,
        item.labels.slice(0, 4).map((label) => h("span", { class: "chip" }, label)),
        slot.control_ids.map((control) => h("span", { class: "chip control" }, control)),
      ),
      h("div", { class: "facts" }, h("span", {}, slot.reasons.map(reason).join(" · ")),
        slot.detail ? h("span", {}, figures(slot.detail)) : null),
    ),
    h("span", { class: "move" }, move ? h("b", { class: move.direction }, move.text) : null, move?.detail ? h("span", { class: "muted" }, move.detail) : null),
  );
}

const figures = (detail) => `${i18n.label("utility")} ${equivalents(detail.utility)} · p(${i18n.label("viewer_play")}) ${equivalents(detail.p.play)}`
  + (detail.bonus ? ` · ${i18n.label("bonus")} ${signedEquivalents(detail.bonus)}` : "");

function titleAndTranslation(title) {
  const main = titleText(title);
  const translation = title[i18n.language === "zh" ? "en" : "zh"];
  return [main, translation && translation !== main ? translation : null];
}

function reason(code) {
  const [name, itemId] = code.split(/:(.*)/s);
  return itemId ? `${i18n.term("reason", name)} ${itemTitle(itemId)}` : i18n.term("reason", name);
}

function summary(without, guided, model) {
  const before = slotsByItem(without);
  const replaced = guided.items.filter((slot) => !before.has(slot.item.id)).length;
  const moved = guided.items.filter((slot) => before.has(slot.item.id) && before.get(slot.item.id) !== slot.slot).length;
  const { receipt } = guided;
  const change = (field) => (receipt[`${field}_without`] > 0 ? receipt[field] / receipt[`${field}_without`] - 1 : 0);
  const fromTo = (field) => `${number(receipt[`${field}_without`])} → ${number(receipt[field])}`;
  const tiles = [
    [`${replaced} / ${guided.items.length}`, i18n.label("items_replaced"), i18n.label("and_moved", { moved })],
    [percent(-change("utility")), i18n.label("cost"), fromTo("utility"), i18n.label("definition_page_cost")],
    [signed(change("expected_plays"), 1), i18n.label("expected_plays"), fromTo("expected_plays")],
    [number(receipt.value), i18n.label("value")],
    receipt.proven ? [i18n.label("proven"), i18n.label("proven_under")] : [`≤ ${percent(receipt.gap, 2)}`, i18n.label("proof")],
    ...(receipt.cut_short?.length
      ? [[receipt.cut_short.map((part) => i18n.label(`cut_${part}`)).join(" · "), i18n.label("cut_short")]] : []),
    [h("span", { class: "name", title: guided.policy_version }, i18n.policyVersions(guided.policy_version)), i18n.label("versions_used")],
    [
      h("span", { class: "name", title: guided.model_version }, modelName(guided.model_version)), i18n.label("model"),
      actionWeights(model.action_weights),
    ],
  ];
  $("summary").replaceChildren(...tiles.map(tile));
}

/** Format the weight of each action in utility; a play has weight 1. */
const actionWeights = (weights) => Object.entries(weights).map(([action, weight]) => `${i18n.label(`viewer_${action}`)} ${compact(weight)}`).join(" · ");

/** Format a model version: the time of the training, unless the version has a name of its own. */
function modelName(version) {
  const at = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(version);
  if (at) return time(`${at[1]}-${at[2]}-${at[3]}T${at[4]}:${at[5]}:${at[6]}Z`);
  return version === "none" ? i18n.label("none_yet") : version;
}
