// The language of the console: its own labels, and the messages of the service.

import { LABELS } from "./labels.js";

const catalogs = new Map(); // language -> code -> text
let outletNames = new Map(); // outlet code -> language -> name

export const i18n = {
  language: localStorage.getItem("language") || (navigator.language.startsWith("zh") ? "zh" : "en"),

  /** Return a label of the console with its placeholders filled in; the key itself when there is no such label. */
  label(key, params = {}) {
    const text = LABELS[key]?.[this.language === "zh" ? 1 : 0] ?? key;
    return text.replace(PLACEHOLDER, (_, name) => params[name]);
  },

  /** Return the label of a value of the API, such as the screen "tv"; the value itself when it has no label. */
  term(kind, value) {
    return LABELS[`${kind}_${value}`] ? this.label(`${kind}_${value}`) : value;
  },

  /** Translate a message of the service; the English text when the catalog does not have its code. */
  message(message) {
    const text = catalogs.get(this.language)?.[message?.code];
    return text ? text.replace(PLACEHOLDER, (_, name, form = "") => format(message.params[name], form)) : message?.message || "";
  },

  /** Return the name and code of an outlet. */
  outletWithCode(code) {
    const name = outletNames.get(code)?.[this.language];
    return name ? `${name} ${code}` : code;
  },

  /** Return the name of an outlet alone, where nobody has to type its code. */
  outletName(code) {
    return outletNames.get(code)?.[this.language] || code;
  },

  /** Format a policy version, such as "cn@1+cn.zj@3", with the names of the outlets. */
  policyVersions(text) {
    if (text === "none") return this.label("none_yet");
    return text.split("+").map((version) => version.split("@")).map(([code, number]) => `${this.outletName(code)}\u00a0${number}`).join(" · ");
  },

  setOutlets(outlets) {
    outletNames = new Map(outlets.map((outlet) => [outlet.code, outlet.name]));
  },
};

/** Load the message catalog of the console's language. */
export async function loadMessages() {
  const { language } = i18n;
  if (!catalogs.has(language)) catalogs.set(language, await (await fetch(`/console/static/messages.${language}.json`)).json());
}

const PLACEHOLDER = /\{(\w+)(?::([^}]*))?\}/g; // {name} or {name:form}, as documented in `recsys/messages`

/** Format the value of a placeholder: a nested message, a list, a text, or a number. */
function format(value, form) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.map((part) => format(part, form)).join(catalogs.get(i18n.language).list_separator);
  if (value.code) return i18n.message(value);
  if (typeof value === "number") return formatNumber(value, form);
  return form === "quoted" ? `'${value}'` : form ? i18n.term(form, value) : String(value);
}

function formatNumber(value, form) {
  if (form.startsWith("percent")) return `${(100 * value).toFixed(Number(form.slice("percent".length)))}%`;
  if (form === "count") return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  const text = Number.isInteger(value) && form !== "brief" ? String(value) : String(Number(value.toPrecision(form === "brief" ? 2 : 6)));
  if (!form.includes("|")) return text;
  const [singular, plural] = form.split("|");
  return `${text} ${value === 1 ? singular : plural}`;
}
