// What every part of the console uses: elements, requests, notices, questions, figures.

import { say } from "./language.js";

export { say };

export const $ = (id) => document.getElementById(id);

/** An element with attributes and children; text is always text, never markup. */
export const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);

/** The same for drawings. */
export const svg = (tag, attributes, ...children) => filled(document.createElementNS($("mark").namespaceURI, tag), attributes, children);

function filled(element, attributes = {}, children = []) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** A status or fallback level as a pill, its colour by its own name. */
export const pill = (status) => h("span", { class: `pill ${status.replaceAll(" ", "-")}` }, say.word(status));

/** An outlet by its name; its code where the pointer rests. */
export const outlet = (code) => h("span", { class: "outlet", title: code }, say.called(code));

/** On a narrow screen each row stands as a card, in which every cell says its own head. */
export function table(heads, rows) {
  for (const row of rows) [...row.children].forEach((cell, n) => { cell.dataset.head = heads[n]; });
  return h(
    "table", {},
    h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", {}, rows),
  );
}

export const tile = ([figure, of, more]) => h(
  "div", { class: "figure" }, h("b", {}, figure), h("span", {}, of), more ? h("small", { class: "muted" }, more) : null,
);

/** Asks the API; a problem answer becomes an Error that carries its status and findings. */
export async function api(path, body, method = body === undefined ? "GET" : "POST") {
  const answer = await request(path, body, method);
  return answer.status === 204 ? null : answer.json();
}

/** All entries of a list, read page by page. */
export async function every(path, noun) {
  const entries = [];
  let token = "";
  do {
    const page = await api(listed(path, { page_size: 1000, page_token: token }));
    entries.push(...page[noun]);
    token = page.next_page_token;
  } while (token);
  return entries;
}

/** The address of one page of a list. */
export const listed = (path, query) => `${path}?${new URLSearchParams(Object.entries(query).filter(([, value]) => value))}`;

export async function request(path, body, method = "POST", more = {}) {
  const headers = { Accept: "application/json" };
  const token = $("token").value;
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), ...more });
  if (!answer.ok) throw await problem(answer, token);
  return answer;
}

async function problem(answer, token) {
  const said = await answer.json().catch(() => ({}));
  const missing = answer.status === 401 ? say.word(token ? "wrong_token" : "need_token") : "";
  const refusal = missing || !said.code ? null : { code: said.code, params: said.params, message: said.detail };
  return Object.assign(new Error(missing || said.detail || answer.statusText), { status: answer.status, findings: said.findings || [], refusal });
}

export function notice(text, good = false) {
  $("notice").hidden = !text;
  $("notice").className = good ? "notice good" : "notice";
  $("notice").textContent = text || "";
}

/** Runs a step for a button or form; whatever goes wrong is said on the page. */
export const trying = (step) => async (event) => {
  event?.preventDefault?.();
  const button = event?.currentTarget?.tagName === "BUTTON" ? event.currentTarget : null;
  if (button?.getAttribute("aria-busy") && button.id !== "preview") return; // a second click on the preview stops it
  try {
    notice("");
    button?.setAttribute("aria-busy", "true");
    await step(event);
  } catch (error) {
    tellFault(error);
  } finally {
    button?.removeAttribute("aria-busy");
  }
};

export function tellFault(error) {
  const places = (error.findings || []).map((f) => (f.where ? `${f.where}: ${say.told(f)}` : say.told(f)));
  notice([error.refusal ? say.told(error.refusal) : error.message, ...places].join(" · "));
  $("token").classList.toggle("wanted", error.status === 401);
  if (error.status !== 401) return;
  document.body.classList.toggle("tokenless", false);
  $("token").focus();
}

/** Asks before something is done. Resolves to null, or to what the `fields` (elements with a name) then say. */
export function ask({ title, text = "", fields = [], go, danger = false }) {
  const form = h(
    "form", { method: "dialog" },
    h("h2", {}, title), text ? h("p", {}, text) : null, fields,
    h(
      "div", { class: "actions" },
      h("button", { value: "yes", class: danger ? "danger" : "primary" }, go),
      h("button", { value: "", formnovalidate: "" }, say.word("cancel")),
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
export const field = (word, attributes) => h("label", {}, say.word(word), h("input", { autocomplete: "off", ...attributes }));

const locale = () => (say.language === "zh" ? "zh-CN" : "en-GB");

/** A moment as the editor's clock shows it. */
export const time = (text) => new Date(text).toLocaleString(locale(), { hour12: false });

/** The same with the clock's offset from UTC, for a date that others must keep: 01/10/2026, 08:00:00 UTC+08:00. */
export function zoned(text) {
  const at = new Date(text), ahead = -at.getTimezoneOffset(), size = Math.abs(ahead);
  const two = (part) => String(part).padStart(2, "0");
  return `${time(text)} UTC${ahead < 0 ? "−" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}

/** A figure with so many digits after the point; what is smaller gets more of them, down to a millionth. */
export function number(value, digits = 2) {
  const figure = Number(value) || 0, size = Math.abs(figure);
  const small = size >= 5e-7 && size < 10 ** -digits / 2;
  const text = figure.toFixed(small ? Math.min(6, Math.ceil(-Math.log10(size))) : digits);
  return (Number(text) === 0 ? (0).toFixed(digits) : text).replace("-", "−"); // there is no minus zero
}

/** An amount of play equivalents: 0 in short, and what is too small to be read as about 0. */
export function equivalents(value, digits = 3) {
  const figure = Number(value) || 0;
  if (figure === 0) return "0";
  return Math.abs(figure) < 10 ** -digits / 2 ? "≈ 0" : number(figure, digits);
}

/** The same with its sign. */
export const added = (value) => `${equivalents(value).startsWith("≈") || value <= 0 ? "" : "+"}${equivalents(value)}`;

/** A figure that is as long as it has to be: three digits that count. */
export const brief = (value) => String(Number(Number(value).toPrecision(3))).replace("-", "−");

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

/** A difference with its sign, unless it rounds to nothing. */
export function signed(share, digits = 2, unit = " %") {
  const figure = Number((100 * share).toFixed(digits));
  return `${figure > 0 ? "+" : ""}${number(figure, digits)}${unit}`;
}

/** A large amount, its thousands apart. */
export const amount = (value) => Number(value).toLocaleString(say.language === "zh" ? "zh-CN" : "en-GB", { maximumFractionDigits: value < 100 ? 1 : 0 });
