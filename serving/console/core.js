// What every part of the console uses: words, elements, requests, notices.

import { WORDS } from "./words.js";

export const $ = (id) => document.getElementById(id);

export const say = {
  language: localStorage.getItem("language") || (navigator.language.startsWith("zh") ? "zh" : "en"),
  word(key) {
    const both = WORDS[key];
    return both ? both[this.language === "zh" ? 1 : 0] : key;
  },
};

/** An element with attributes and children; text is always text, never markup. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** A status or rung as a pill, its colour by its own name. */
export const pill = (status) => h("span", { class: `pill ${status.replace(" ", "-")}` }, say.word(status));

export function table(heads, rows) {
  return h(
    "table", {},
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows),
  );
}

/** Asks the API; a problem answer becomes an Error that carries its findings. */
export async function api(path, body, method = body === undefined ? "GET" : "POST") {
  const headers = { Accept: "application/json" };
  const token = $("token").value;
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const said = await answer.json();
  if (!answer.ok) {
    const error = new Error(said.detail || answer.statusText);
    error.status = answer.status;
    error.findings = said.findings || [];
    throw error;
  }
  return said;
}

export function notice(text, good = false) {
  $("notice").hidden = !text;
  $("notice").className = good ? "notice good" : "notice";
  $("notice").textContent = text || "";
}

/** Runs a step for a button or form; whatever goes wrong is said on the page. */
export const trying = (step) => async (event) => {
  event?.preventDefault?.();
  try {
    notice("");
    await step(event);
  } catch (error) {
    const places = (error.findings || []).map((f) => (f.where ? `${f.where}: ${f.message}` : f.message));
    notice([error.message, ...places].join(" · "));
  }
};

export const time = (text) => new Date(text).toLocaleString(say.language === "zh" ? "zh-CN" : "en-GB", { hour12: false });

/** A figure; what is smaller than its last digit shows that digit's size, and there is no minus zero. */
export function number(value, digits = 2) {
  const figure = Number(value), least = 10 ** -digits;
  if (figure !== 0 && Math.abs(figure) < least / 2) return figure > 0 ? `< ${least.toFixed(digits)}` : `> −${least.toFixed(digits)}`;
  return (figure || 0).toFixed(digits);
}
