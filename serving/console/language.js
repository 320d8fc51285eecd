// Which of two languages the console speaks, and how it says what the service wrote in English.

import { WORDS } from "./words.js";

let templates = [];
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

  /** What the service wrote: a finding, a reason, a problem. What no template knows stays English. */
  told(text) {
    return this.language === "zh" ? inChinese(text) : text;
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

/** Reads the templates: pairs of an English and a Chinese text with the same {places}. */
export async function learn() {
  if (templates.length || say.language !== "zh") return;
  const pairs = await (await fetch("/console/static/wording.zh.json")).json();
  const literal = ([english]) => (english.startsWith("{rest}") ? Infinity : english.replace(/\{\w+[*!=]?\}/g, "").length);
  const most = pairs.toSorted((a, b) => literal(b) - literal(a)); // of several that fit, the one that says most is meant
  templates = most.map(([english, chinese]) => ({ pattern: pattern(english), chinese }));
}

/** {name} is any text, {name*} a list of texts parted by commas, {name!} one word, {name=} words of the policy,
 * which are typed as they are; what follows {rest} is taken off first. */
function pattern(english) {
  const parts = english.split(/\{(\w+[*!=]?)\}/);
  const names = parts.filter((_, n) => n % 2);
  const source = parts.map((part, n) => (n % 2 ? (part.endsWith("!") ? "(\\S+)" : "(.+?)") : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))).join("");
  return { names, expression: new RegExp(`^${source}$`, "s") };
}

function inChinese(text) {
  for (const { pattern: { names, expression }, chinese } of templates) {
    const found = expression.exec(text);
    if (found) {
      const of = new Map(names.map((name, n) => [name, part(name, found[n + 1])]));
      return chinese.replace(/\{(\w+[*!=]?)\}/g, (_, name) => of.get(name));
    }
  }
  return text;
}

function part(name, text) {
  if (name.endsWith("=")) return text;
  return name.endsWith("*") ? text.split(", ").map(inChinese).join("、") : inChinese(text);
}
