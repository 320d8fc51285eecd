// The receipt of a page: what each control requires, what the page has, the reason, and the price.

import { $, equivalents, h, i18n, number, outlet, pill, table } from "./core.js";

export function showReceipt(receipt) {
  if (!receipt.controls.length && !receipt.targets.length) {
    $("receipt").replaceChildren(h("p", { class: "empty" }, i18n.label("no_controls")));
    return;
  }
  const prices = new Map(receipt.price.map((price) => [price.control_id, price]));
  const rows = receipt.controls.map((line) => h(
    "tr", {},
    h("td", {}, h("b", {}, line.id), h("small", {}, i18n.term("action", line.action))),
    h("td", {}, outlet(line.origin)),
    h("td", { class: "whole" }, i18n.label(`enforcement_${line.enforcement}`)),
    h("td", { class: "number" }, requirement(line.required)),
    h("td", { class: "number" }, achieved(line)),
    h("td", { class: "whole" }, pill(line.status), line.slack ? ` −${line.slack}` : ""),
    h("td", { class: "number" }, cost(prices.get(line.id), line.action)),
    h("td", { class: "why" }, i18n.message(line.reason), line.legal_ref ? h("small", {}, line.legal_ref) : null),
  ));
  const heads = ["control", "origin", "enforcement", "required", "achieved", "status", "price", "reason"];
  $("receipt").replaceChildren(
    rows.length ? table(heads.map((head) => i18n.label(head)), rows) : h("p", { class: "empty" }, i18n.label("no_controls")),
    ...(receipt.targets.length ? targetLines(receipt.targets) : []),
  );
}

/** The exposure targets whose prices act on the page, with what they get and cost. */
function targetLines(targets) {
  const rows = targets.map((line) => h(
    "tr", {},
    h("td", {}, h("b", {}, line.id)),
    h("td", {}, outlet(line.origin)),
    h("td", { class: "number" }, equivalents(line.price)),
    h("td", { class: "number" }, number(line.delivered, 2)),
    h("td", { class: "number" }, equivalents(line.cost)),
  ));
  const heads = ["target", "origin", "price", "delivered_attention", "target_cost"];
  return [h("h3", {}, i18n.label("target_effects")), table(heads.map((head) => i18n.label(head)), rows), h("p", { class: "muted" }, i18n.label("definition_target_cost"))];
}

function requirement(required) {
  const parts = [];
  if (required.at_least !== null) parts.push(`≥ ${required.at_least}${required.first_slots ? ` ${i18n.label("in_first")} ${required.first_slots}` : ""}`);
  if (required.at_most !== null) parts.push(`≤ ${required.at_most}${required.within ? ` ${i18n.label("in_any")} ${required.within}` : ""}`);
  if (required.slot !== null) parts.push(`${i18n.label("slot")} ${required.slot}`);
  return parts.join(", ");
}

/** For a minimum on the first slots: the count in these slots, then the count on the whole page. */
const achieved = (line) => (line.achieved_first === null
  ? String(line.achieved) : [String(line.achieved_first), h("small", {}, `${line.achieved} ${i18n.label("in_all")}`)]);

/** Dual prices are upper estimates; the price of a pin may err either way. An amount near 0 needs no sign before it. */
function cost(price, action) {
  if (!price) return "–";
  const text = equivalents(price.play_equivalents);
  if (price.how === "resolved" || text === "0" || text.startsWith("≈")) return text;
  return `${action === "pin" ? "≈" : "≤"} ${text}`;
}
