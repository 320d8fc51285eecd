// The receipt of a page: each control, what it asked, what it got, why, and what it cost.

import { $, equivalents, h, outlet, pill, say, table } from "./core.js";

export function showReceipt(said) {
  if (!said.controls.length) {
    $("receipt").replaceChildren(h("p", { class: "empty" }, say.word("no_controls")));
    return;
  }
  const price = new Map(said.price.map((one) => [one.control_id, one]));
  const rows = said.controls.map((line) => h(
    "tr", {},
    h("td", {}, h("b", {}, line.id), h("small", {}, say.one("action", line.action))),
    h("td", {}, outlet(line.origin)),
    h("td", { class: "whole" }, say.word(`enforcement_${line.enforcement}`)),
    h("td", { class: "number" }, required(line.required)),
    h("td", { class: "number" }, achieved(line)),
    h("td", { class: "whole" }, pill(line.status), line.slack ? ` −${line.slack}` : ""),
    h("td", { class: "number" }, cost(price.get(line.id), line.action)),
    h("td", { class: "why" }, say.told(line.reason), line.legal_ref ? h("small", {}, line.legal_ref) : null),
  ));
  const heads = ["control", "origin", "enforcement", "required", "achieved", "status", "price", "why"];
  $("receipt").replaceChildren(table(heads.map((head) => say.word(head)), rows));
}

function required(asked) {
  const said = [];
  if (asked.at_least !== null) said.push(`≥ ${asked.at_least}${asked.first_slots ? ` ${say.word("in_first")} ${asked.first_slots}` : ""}`);
  if (asked.at_most !== null) said.push(`≤ ${asked.at_most}${asked.within ? ` ${say.word("in_any")} ${asked.within}` : ""}`);
  if (asked.slot !== null) said.push(`${say.word("slot")} ${asked.slot}`);
  return said.join(", ");
}

/** Of a floor on the first slots what stands there, and then what stands on the whole page. */
const achieved = (line) => (line.achieved_first === null
  ? String(line.achieved) : [String(line.achieved_first), h("small", {}, `${line.achieved} ${say.word("in_all")}`)]);

/** The dual's estimates err on the high side; of a pin, either way. What is nothing costs nothing, be it an estimate or not. */
function cost(one, action) {
  if (!one) return "–";
  const said = equivalents(one.play_equivalents);
  if (one.how === "resolved" || said === "0" || said.startsWith("≈")) return said;
  return `${action === "pin" ? "≈" : "≤"} ${said}`;
}
