// A control as a sentence: its requirement, its items, its scope and its active period.

import { amount, compact, i18n, percent, timeWithOffset } from "./core.js";
import { itemTitle } from "./titles.js";

export function describe(control) {
  return [requirement(control), control.where ? condition(control.where) : "", scope(control.on), period(control.active)].filter(Boolean).join(i18n.label("semicolon"));
}

function requirement(c) {
  const label = (key, params) => i18n.label(key, params);
  switch (c.action) {
    case "weight": case "boost": return `${c.bonus > 0 ? "+" : ""}${compact(c.bonus)} ${label("play_equivalents")}`;
    case "block": return label("never_shown");
    case "pin": return `${itemTitle(c.item)} → ${label("slot")} ${c.slot}`;
    case "cap": return label("cap_text", { count: shareOrCount(c.at_most), attribute: i18n.term("of", c.attribute) });
    case "spacing": return label("spacing_text", { count: c.at_most, attribute: i18n.term("of", c.attribute), within: c.within });
    case "exposure_target": return target(c);
    default: return quota(c);
  }
}

function quota(c) {
  const limits = ["at_least", "at_most"].filter((name) => c[name] !== undefined && c[name] !== null)
    .map((name) => i18n.label(name, { amount: shareOrCount(c[name]) })).join(i18n.label("comma"));
  if (c.prefixes === "every") return i18n.label("quota_every", { limits });
  return c.prefixes?.length ? i18n.label("quota_first", { limits, slots: c.prefixes.join(i18n.label("comma")) }) : i18n.label("quota_page", { limits });
}

function target(c) {
  const required = c.share ? i18n.label("of_attention", { share: shareOrCount(c.share) }) : i18n.label("impressions", { count: amount(c.impressions) });
  const limit = i18n.label(c.bound === "at_most" ? "at_most" : "at_least", { amount: required });
  return i18n.label("target_text", { limit, until: timeWithOffset(c.until) });
}

/** Format an amount: a fraction is a share, a whole number is a number of items. */
const shareOrCount = (value) => (Number.isInteger(value) ? String(value) : percent(value, 1).replace(".0 %", " %"));

function condition(where) {
  const parts = Object.entries(where).map(([name, value]) => {
    if (name === "all" || name === "any") return `(${value.map(condition).join(i18n.label(name === "all" ? "and" : "or"))})`;
    if (name === "not") return `${i18n.label("not")} (${condition(value)})`;
    if (name === "locality") return i18n.label("near_viewer");
    if (name === "axis") return Object.entries(value).map(([axis, minimum]) => `${axis} ≥ ${compact(minimum)}`).join(i18n.label("and"));
    if (name === "age_rating") return `${i18n.label("of_age_rating")} ${[value.at_least ?? "", value.at_most ?? ""].join("–")}`;
    const values = [value].flat().map((v) => (name === "outlet" ? i18n.outletWithCode(v) : name === "kind" ? i18n.term("kind", v) : v));
    return `${i18n.term("of", name)} ${values.join(i18n.label("or"))}`;
  });
  return parts.join(i18n.label("and"));
}

function scope(on) {
  if (!on) return "";
  const parts = [
    ...(on.screens || []).map((screen) => i18n.term("screen", screen)), ...(on.surfaces || []).map((surface) => i18n.term("surface", surface)),
    ...(on.regions || []), ...(on.outlets || []).map((code) => i18n.outletWithCode(code)),
  ];
  return `${i18n.label("on")} ${parts.join(i18n.label("comma"))}`;
}

function period(active) {
  if (!active) return "";
  const parts = [
    active.from ? `${i18n.label("from")} ${timeWithOffset(active.from)}` : "", active.until ? `${i18n.label("until")} ${timeWithOffset(active.until)}` : "",
    ...(active.daily || []), ...(active.days || []).map((day) => i18n.term("day", day)), active.offset || "",
  ];
  return parts.filter(Boolean).join(" ");
}
