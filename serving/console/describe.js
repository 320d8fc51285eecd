// A control in words: what it asks, of which items, where and when.

import { amount, brief, percent, say, zoned } from "./core.js";
import { called } from "./titles.js";

export function described(control) {
  return [asks(control), control.where ? condition(control.where) : "", scope(control.on), span(control.active)].filter(Boolean).join(say.word("semicolon"));
}

function asks(c) {
  const word = (key) => say.word(key);
  switch (c.action) {
    case "weight": case "boost": return `${c.bonus > 0 ? "+" : ""}${brief(c.bonus)} ${word("play_equivalents")}`;
    case "block": return word("never_shown");
    case "pin": return `${called(c.item)} → ${word("slot")} ${c.slot}`;
    case "cap": return `${word("at_most")} ${much(c.at_most)} ${word("of_one")} ${say.one("of", c.attribute)}`;
    case "spacing": return `${word("at_most")} ${c.at_most} ${word("of_one")} ${say.one("of", c.attribute)} ${word("in_any")} ${c.within} ${word("neighbours")}`;
    case "exposure_target": return target(c);
    default: return share(c);
  }
}

function share(c) {
  const limits = ["at_least", "at_most"].filter((name) => c[name] !== undefined && c[name] !== null)
    .map((name) => `${say.word(name)} ${much(c[name])}`).join(", ");
  const of = c.prefixes === "every" ? say.word("every_beginning") : c.prefixes?.length
    ? `${say.word("in_first")} ${c.prefixes.join(", ")} ${say.word("slots_too")}` : say.word("of_the_page");
  return `${limits} ${of}`;
}

function target(c) {
  const asked = c.share ? `${much(c.share)} ${say.word("of_attention")}` : `${amount(c.impressions)} ${say.word("impressions")}`;
  return `${say.word(c.bound === "at_most" ? "at_most" : "at_least")} ${asked} ${say.word("until")} ${zoned(c.until)}`;
}

/** A number with a point is a share, a whole one a number of items. */
const much = (value) => (Number.isInteger(value) ? String(value) : percent(value, 1).replace(".0 %", " %"));

function condition(where) {
  const parts = Object.entries(where).map(([name, said]) => {
    if (name === "all" || name === "any") return `(${said.map(condition).join(say.word(name === "all" ? "and" : "or"))})`;
    if (name === "not") return `${say.word("not")} (${condition(said)})`;
    if (name === "locality") return say.word("near_viewer");
    if (name === "axis") return Object.entries(said).map(([axis, least]) => `${axis} ≥ ${brief(least)}`).join(say.word("and"));
    if (name === "age_rating") return `${say.word("of_age_rating")} ${[said.at_least ?? "", said.at_most ?? ""].join("–")}`;
    const named = [said].flat().map((one) => (name === "outlet" ? say.outlet(one) : name === "kind" ? say.one("kind", one) : one));
    return `${say.one("of", name)} ${named.join(say.word("or"))}`;
  });
  return parts.join(say.word("and"));
}

function scope(on) {
  if (!on) return "";
  const all = [
    ...(on.screens || []).map((one) => say.one("screen", one)), ...(on.surfaces || []).map((one) => say.one("surface", one)),
    ...(on.regions || []), ...(on.outlets || []).map((one) => say.outlet(one)),
  ];
  return `${say.word("on")} ${all.join(say.word("comma"))}`;
}

function span(active) {
  if (!active) return "";
  const said = [
    active.from ? `${say.word("from")} ${zoned(active.from)}` : "", active.until ? `${say.word("until")} ${zoned(active.until)}` : "",
    ...(active.daily || []), ...(active.days || []).map((day) => say.one("day", day)), active.offset || "",
  ];
  return said.filter(Boolean).join(" ");
}
