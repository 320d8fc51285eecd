// Shared parts of the console: elements, requests, notices, dialogs and number formats.

import { i18n } from "./i18n.js";

export { i18n };

export const $ = (id) => document.getElementById(id);

/** Create an HTML element with attributes and children. Text is inserted as text, never as markup. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** Create an SVG element. */
export const svg = (tag, attributes, ...children) => fill(document.createElementNS($("mark").namespaceURI, tag), attributes, children);

function fill(element, attributes = {}, children = []) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** A status or fallback level as a pill; the CSS class of the status sets its color. */
export const pill = (status) => h("span", { class: `pill ${status.replaceAll(" ", "-")}` }, i18n.label(status));

/** The name of an outlet, with its code as a tooltip. */
export const outlet = (code) => h("span", { class: "outlet", title: code }, i18n.outletName(code));

/** A table. On a narrow screen each row becomes a card, in which every cell shows its column heading. */
export function table(heads, rows) {
  for (const row of rows) [...row.children].forEach((cell, n) => { cell.dataset.head = heads[n]; });
  return h(
    "table", {},
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows),
  );
}

/** A figure with its label and, optionally, a detail. */
export const tile = ([figure, label, detail, definition]) => h(
  "div", { class: "figure" }, h("b", {}, figure), h("span", {}, label), detail ? h("small", { class: "muted" }, detail) : null,
  definition ? h("small", { class: "muted" }, definition) : null,
);

/** Call the API. Throws an Error with the status and findings when the API answers with a problem document. */
export async function api(path, body, method = body === undefined ? "GET" : "POST") {
  const response = await request(path, body, method);
  return response.status === 204 ? null : response.json();
}

/** Fetch all entries of a list, page by page. */
export async function fetchAll(path, noun) {
  const entries = [];
  let token = "";
  do {
    const page = await api(listUrl(path, { page_size: 1000, page_token: token }));
    entries.push(...page[noun]);
    token = page.next_page_token;
  } while (token);
  return entries;
}

/** Return the URL of a page of a list. Empty parameters are left out. */
export const listUrl = (path, query) => `${path}?${new URLSearchParams(Object.entries(query).filter(([, value]) => value))}`;

export async function request(path, body, method = "POST", options = {}) {
  const headers = { Accept: "application/json" };
  const token = $("token").value;
  if (/[^\x21-\x7e]/.test(token)) throw Object.assign(new Error(i18n.label("wrong_token")), { status: 401, findings: [] }); // no header can carry it
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), ...options });
  if (!response.ok) throw await problem(response, token);
  return response;
}

async function problem(response, token) {
  const body = await response.json().catch(() => ({}));
  const missing = response.status === 401 ? i18n.label(token ? "wrong_token" : "need_token") : "";
  const refusal = missing || !body.code ? null : { code: body.code, params: body.params, message: body.detail };
  return Object.assign(new Error(missing || body.detail || response.statusText), { status: response.status, findings: body.findings || [], refusal });
}

export function notice(text, good = false) {
  $("notice").hidden = !text;
  $("notice").className = good ? "notice good" : "notice";
  $("notice").textContent = text || "";
}

/** Wrap the handler of a button or form: mark the button as busy, and show errors on the page. */
export const guarded = (step) => async (event) => {
  event?.preventDefault?.();
  const button = event?.currentTarget?.tagName === "BUTTON" ? event.currentTarget : null;
  if (button?.getAttribute("aria-busy") && button.id !== "preview") return; // a second click on the preview button stops the preview
  try {
    notice("");
    button?.setAttribute("aria-busy", "true");
    await step(event);
  } catch (error) {
    showError(error);
  } finally {
    button?.removeAttribute("aria-busy");
  }
};

export function showError(error) {
  const findings = (error.findings || []).map((f) => (f.where ? `${f.where}: ${i18n.message(f)}` : i18n.message(f)));
  notice([error.refusal ? i18n.message(error.refusal) : error.message, ...findings].join(" · "));
  $("token").classList.toggle("required", error.status === 401);
  if (error.status !== 401) return;
  document.body.classList.toggle("tokenless", false);
  $("token").focus();
}

/** Open a dialog. Resolves to the values of the `fields` by name, or to null when the editor cancels. */
export function ask({ title, text = "", fields = [], submit, danger = false }) {
  const form = h(
    "form", { method: "dialog" },
    h("h2", {}, title), text ? h("p", {}, text) : null, fields,
    h(
      "div", { class: "actions" },
      h("button", { value: "yes", class: danger ? "danger" : "primary" }, submit),
      h("button", { value: "", formnovalidate: "" }, i18n.label("cancel")),
    ),
  );
  const dialog = h("dialog", { "aria-label": title }, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes" ? Object.fromEntries(new FormData(form)) : null);
    });
  });
}

/** A labelled field for `ask`. */
export const field = (label, attributes) => h("label", {}, i18n.label(label), h("input", { autocomplete: "off", ...attributes }));

const locale = () => (i18n.language === "zh" ? "zh-CN" : "en-GB");

/** Format a time in the editor's time zone. */
export const time = (text) => new Date(text).toLocaleString(locale(), { hour12: false });

/** Format a time with its offset from UTC, for deadlines: 01/10/2026, 08:00:00 UTC+08:00. */
export function timeWithOffset(text) {
  const offset = -new Date(text).getTimezoneOffset(), minutes = Math.abs(offset);
  const twoDigits = (part) => String(part).padStart(2, "0");
  return `${time(text)} UTC${offset < 0 ? "−" : "+"}${twoDigits(Math.floor(minutes / 60))}:${twoDigits(minutes % 60)}`;
}

/** Format a number with `digits` decimals. Smaller numbers get more decimals, down to a millionth. */
export function number(value, digits = 2) {
  const figure = Number(value) || 0, size = Math.abs(figure);
  const small = size >= 5e-7 && size < 10 ** -digits / 2;
  const text = figure.toFixed(small ? Math.min(6, Math.ceil(-Math.log10(size))) : digits);
  return (Number(text) === 0 ? (0).toFixed(digits) : text).replace("-", "−"); // there is no minus zero
}

/** Format an amount of play equivalents: exactly 0 as "0", and an amount that would round to 0 as "≈ 0". */
export function equivalents(value, digits = 3) {
  const figure = Number(value) || 0;
  if (figure === 0) return "0";
  return Math.abs(figure) < 10 ** -digits / 2 ? "≈ 0" : number(figure, digits);
}

/** Format a price of a target with its unit: in play equivalents, or as a part of the utility of an item. */
export const targetPrice = (target, value, digits = 3) => (target.price_unit === "item utility"
  ? `${percent(value)} ${i18n.label("of_item_utility")}` : `${equivalents(value, digits)} ${i18n.label("play_equivalents")}`);

/** Format an amount of play equivalents with its sign. */
export const signedEquivalents = (value) => `${equivalents(value).startsWith("≈") || value <= 0 ? "" : "+"}${equivalents(value)}`;

/** Format a number with three significant digits. */
export const compact = (value) => String(Number(Number(value).toPrecision(3))).replace("-", "−");

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

/** Format a difference in per cent with its sign; no sign when it rounds to 0. */
export function signed(share, digits = 2, unit = " %") {
  const figure = Number((100 * share).toFixed(digits));
  return `${figure > 0 ? "+" : ""}${number(figure, digits)}${unit}`;
}

/** The class of a change: none if it rounds to 0 as displayed, so that only a visible loss is red. */
export function changeClass(change, digits = 2) {
  const figure = Number((100 * change).toFixed(digits));
  return !figure ? "muted" : figure > 0 ? "up" : "out-text";
}

/** Format a large amount with thousands separators. */
export const amount = (value) => Number(value).toLocaleString(locale(), { maximumFractionDigits: value < 100 ? 1 : 0 });
