// The language of the console, and how it shows the messages of the service.

import { WORDS } from "./words.js";

const catalogues = new Map(); // language -> code -> text
let outlets = new Map();

export const say = {
  language: localStorage.getItem("language") || (navigator.language.startsWith("zh") ? "zh" : "en"),

  /** A word of the console's own. */
  word(key) {
    const both = WORDS[key];
    return both ? both[this.language === "zh" ? 1 : 0] : key;
  },

  /** One of many of a kind, such as a screen: its word, or what the API calls it. */
  one(kind, key) {
    return WORDS[`${kind}_${key}`] ? this.word(`${kind}_${key}`) : key;
  },

  /** A message of the service in the console's language; its English text where the catalogue has no such code. */
  told(said) {
    const text = catalogues.get(this.language)?.[said?.code];
    return text ? text.replace(PLACEHOLDER, (_, name, form = "") => filled(said.params[name], form)) : said?.message || "";
  },

  /** An outlet by its name and code, a profile by its name. */
  outlet(code) {
    const name = outlets.get(code)?.[this.language];
    return name ? `${name} ${code}` : code;
  },

  /** An outlet by its name alone, where nobody has to type its code. */
  called(code) {
    return outlets.get(code)?.[this.language] || code;
  },

  /** The versions in force, such as "cn@1+cn.zj@3", by the outlets' names. */
  versions(text) {
    if (text === "none") return this.word("none_yet");
    return text.split("+").map((one) => one.split("@")).map(([code, number]) => `${this.called(code)}\u00a0${number}`).join(" · ");
  },

  know(list) {
    outlets = new Map(list.map((outlet) => [outlet.code, outlet.name]));
  },
};

/** Reads the catalogue of messages in the console's language. */
export async function learn() {
  const { language } = say;
  if (!catalogues.has(language)) catalogues.set(language, await (await fetch(`/console/static/messages.${language}.json`)).json());
}

const PLACEHOLDER = /\{(\w+)(?::([^}]*))?\}/g; // {name} or {name:form}, as `recsys/messages` explains them

/** The value of a placeholder: a nested message, a list, a text, or a number in some form. */
function filled(value, form) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.map((part) => filled(part, form)).join(catalogues.get(say.language).list_separator);
  if (value.code) return say.told(value);
  if (typeof value === "number") return figure(value, form);
  return form === "quoted" ? `'${value}'` : form ? say.one(form, value) : String(value);
}

function figure(value, form) {
  if (form.startsWith("percent")) return `${(100 * value).toFixed(Number(form.slice("percent".length)))}%`;
  if (form === "count") return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  const text = Number.isInteger(value) && form !== "brief" ? String(value) : String(Number(value.toPrecision(form === "brief" ? 2 : 6)));
  if (!form.includes("|")) return text;
  const [singular, plural] = form.split("|");
  return `${text} ${value === 1 ? singular : plural}`;
}
