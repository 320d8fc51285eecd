// A stand-in for the browser and the service, in which the console's own modules are asked to do what an editor does.
// `node console_page.mjs DIRECTORY`: the directory of the modules; texts on the standard input; answers in JSON.

import { readFileSync } from "node:fs";

class Element {
  constructor() { Object.assign(this, { kids: [], attributes: {}, dataset: {}, on: {}, value: "", text: "", classList: { toggle() {} } }); }
  get textContent() { return this.text + this.kids.map((kid) => (typeof kid === "string" ? kid : kid.textContent)).join(""); }
  set textContent(text) { [this.text, this.kids] = [text, []]; }
  append(...kids) { this.kids.push(...kids); }
  replaceChildren(...kids) { [this.text, this.kids] = ["", kids]; }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, step) { this.on[name] = step; }
  showModal() { question = this.textContent; this.returnValue = answer; setTimeout(() => this.on.close(), 0); }
  scrollIntoView() {} focus() {} remove() {}
}

const directory = process.argv[2];
const elements = new Map();
const $ = (id) => elements.get(id) || elements.set(id, new Element()).get(id);
let answer = "", question = "", sent = null;
globalThis.document = { getElementById: $, createElement: () => new Element(), createElementNS: () => new Element(), body: new Element() };
globalThis.localStorage = { getItem: () => "en", setItem() {} };
globalThis.FormData = class { * [Symbol.iterator]() {} };

const version = (number, author, more = {}) => ({ version: number, author, text: `text ${number}`, state: "draft", active: false, at: "2026-01-01T00:00:00Z", ...more });
let versions = [version(3, "li"), version(2, "wang", { state: "published", active: true })];
const findings = () => [{ level: "warning", where: "controls[0]", message: "a floor of 0 asks for nothing" }];
const reply = (body, status = 200) => ({ ok: status < 400, status, json: async () => body });

globalThis.fetch = async (path, asked = {}) => {
  if (path.endsWith("wording.zh.json")) return reply(JSON.parse(readFileSync(`${directory}/wording.zh.json`, "utf8")));
  if (path.endsWith("/effective")) return reply({ effective: { version: "cn@2", weights: {}, controls: [] } });
  if (path.endsWith("/history")) return reply({ versions });
  if (path.endsWith("/lint")) return reply({ findings: findings() });
  if (!path.endsWith("/draft")) return reply({ rows: [], next: null });
  sent = JSON.parse(asked.body);
  if (sent.base_version < versions[0].version) return reply({ detail: "newer" }, 409);
  versions = [version(versions[0].version + 1, sent.author, { text: sent.text }), ...versions];
  return reply({ findings: findings(), version: versions[0] });
};

$("author").value = "me";
const { check, retell, save, showPolicy } = await import(`${directory}/policy.js`);
const { say, learn } = await import(`${directory}/language.js`);
const { courseChart } = await import(`${directory}/charts.js`);
const { zoned } = await import(`${directory}/core.js`);
const said = {};
const stands = () => [$("base").textContent, $("newer").textContent, sent && sent.base_version];

await showPolicy("cn");
said.opened = stands();
$("text").value = "mine";
await save(); // and rather not
said.refused = [...stands(), question];
versions = [version(4, "zhao"), ...versions]; // while the editor writes
answer = "yes";
said.conflict = await save().then(() => 0, (error) => error.status);
said.told = stands();
await save();
said.saved = stands();
versions = [version(6, "li"), ...versions];
await showPolicy("cn");
said.later = stands();

await check();
said.english = $("findings").textContent;
say.language = "zh";
await learn();
retell();
said.chinese = $("findings").textContent;
said.texts = JSON.parse(readFileSync(0, "utf8")).map((text) => say.told(text));

const course = (by) => courseChart({ course: [], since: "2026-01-01T00:00:00Z", by, amount: 1, delivered: 0, planned: 0, progress: 0, says: "" }, 900).textContent;
said.time = zoned("2026-10-01T00:00:00Z");
said.charts = [course("2026-06-01T00:00:00Z"), course("2030-01-01T00:00:00Z")];
console.log(JSON.stringify(said));
