// A stand-in for the browser and the service, in which the console's own modules are asked to do what an editor does.
// `node console_page.mjs DIRECTORY`: the directory of the modules; texts on the standard input; answers in JSON.

import { readFileSync } from "node:fs";

class Element {
  constructor() { Object.assign(this, { kids: [], attributes: {}, dataset: {}, on: {}, value: "", text: "", classList: { toggle() {} } }); }
  get textContent() { return this.text + this.kids.map((kid) => (typeof kid === "string" ? kid : kid.textContent)).join(""); }
  set textContent(text) { [this.text, this.kids] = [text, []]; }
  get children() { return this.kids.filter((kid) => typeof kid !== "string"); }
  append(...kids) { this.kids.push(...kids); }
  replaceChildren(...kids) { [this.text, this.kids] = ["", kids]; }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, step) { this.on[name] = step; }
  showModal() { question = this.textContent; this.returnValue = answer; setTimeout(() => this.on.close(), 0); }
  scrollIntoView() {} focus() {} remove() {} replaceWith() {}
}

const directory = process.argv[2];
const elements = new Map();
const $ = (id) => elements.get(id) || elements.set(id, new Element()).get(id);
let answer = "", question = "", sent = null;
globalThis.document = { getElementById: $, createElement: () => new Element(), createElementNS: () => new Element(), body: new Element() };
globalThis.localStorage = { getItem: () => "en", setItem() {} };
globalThis.FormData = class { * [Symbol.iterator]() {} };

const version = (number, author, more = {}) => ({ version: number, author, text: `text ${number}`, state: "draft", active: false, at: "2026-01-01T00:00:00Z", ...more });
const outlets = [{ code: "cn", name: { en: "Central Desk", zh: "中央融媒" } }, { code: "cn.zj", name: {} }];
const slot = (id, title, utility, more = {}) => ({
  slot: 1, control_ids: [], reasons: ["similar_to:gone"], detail: { utility, bonus: 0.004, p: { play: 0.05 } },
  item: { id, title: { en: title }, kind: "film", outlet: "cn", labels: [] }, ...more,
});
const line = (id, price, how = "estimate") => ({ id, play_equivalents: price, how, control_id: id });
const receipt = {
  proven: true, utility: 0.3, utility_without: 0.4, expected_plays: 0.21, expected_plays_without: 0.25, value: 0.5, gap: 0, price: [line("floor", 0.0071), line("cap", 0), line("lead", 4e-6, "resolved")],
  controls: ["floor", "cap", "lead"].map((id) => ({
    id, action: "quota", origin: id === "lead" ? "cn.zj" : "cn", enforcement: "legal", status: "met", reason: { code: "text", params: { text: "held" }, message: "held" }, achieved: 1, achieved_first: null,
    required: { at_least: id === "lead" ? null : 2, at_most: null, slot: id === "lead" ? 1 : null },
  })),
};
const page = (item) => ({ items: [item], fallback_level: "personal", receipt, policy_version: "cn@1+cn.zj@3", model_version: "20261125T020141Z" });
const pins = ["film-1", "gone"].map((item, n) => ({ origin: "cn", control: { id: `pin ${n}`, action: "pin", item, slot: n + 1 } }));
const trail = [
  { action: "items.upsert", subject: "", detail: { first: ["film-1", "film-2", "film-3", "film-4"], items: 500, updated: 0 } },
  { action: "policy.publish", subject: "cn", detail: { instead_of: 0, version: 1 } },
].map((row, n) => ({ seq: n, at: "2026-01-01T00:00:00Z", actor: "demo", hash: "0123456789", ...row }));
let versions = [version(3, "li"), version(2, "wang", { state: "published", active: true })];
const findings = () => [{ level: "warning", where: "controls[0]", code: "floor_zero", params: {}, message: "a minimum of 0 has no effect" }];
const reply = (body, status = 200) => ({ ok: status < 400, status, json: async () => body });

globalThis.fetch = async (path, asked = {}) => {
  if (path.endsWith("messages.en.json")) return reply(english);
  if (path.endsWith("messages.zh.json")) return reply(JSON.parse(readFileSync(`${directory}/messages.zh.json`, "utf8")));
  if (path.endsWith("/effective")) return reply({ effective: { version: "cn@2", weights: {}, controls: pins } });
  if (path.includes("/history?")) return reply({ versions, next_page_token: null });
  if (path.endsWith("/lint")) return reply({ findings: findings() });
  if (path.includes(":recommend")) return reply(page(JSON.parse(asked.body).guided === false ? slot("film-1", "Juno", 0.08) : slot("desk-1", "Newsroom", -7e-6)));
  if (path === "/v1/model") return reply({ version: "20261125T020141Z", action_weights: { play: 1, complete: 0.5, like: 2, dislike: -3 } });
  if (path.endsWith("/items/film-1")) return reply({ item: { id: "film-1", title: { en: "Juno", zh: "朱诺" } } });
  if (path.includes("/items/")) return reply({ detail: "no such item" }, 404);
  if (!path.endsWith("/draft")) return reply({ entries: trail, next_page_token: null });
  sent = JSON.parse(asked.body);
  if (sent.base_version < versions[0].version) return reply({ detail: "newer" }, 409);
  versions = [version(versions[0].version + 1, sent.author, { text: sent.text }), ...versions];
  return reply({ findings: findings(), version: versions[0] });
};

const { figures, messages, english } = JSON.parse(readFileSync(0, "utf8"));
const unknown = { code: "new_code", params: {}, message: "unknown to the catalogue" };
$("author").value = "me";
const { check, retell, save, showPolicy } = await import(`${directory}/policy.js`);
const { say, learn } = await import(`${directory}/language.js`);
const { courseChart } = await import(`${directory}/charts.js`);
const { showPage } = await import(`${directory}/page.js`);
const { equivalents, zoned } = await import(`${directory}/core.js`);
const said = {};
const stands = () => [$("base").textContent, $("newer").textContent, sent && sent.base_version];

await learn();
say.know(outlets);

await showPolicy("cn");
said.pins = $("controls").textContent;
said.trail = $("audit").textContent;
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
said.messages_in_english = [...messages, unknown].map((one) => say.told(one));
say.language = "zh";
await learn();
retell();
said.chinese = $("findings").textContent;
said.messages_in_chinese = [...messages, unknown].map((one) => say.told(one));

const course = (until) => courseChart({ course: [], since: "2026-01-01T00:00:00Z", until, amount: 1, delivered: 0, planned: 0, progress: 0, description: null }, 900).textContent;
said.time = zoned("2026-10-01T00:00:00Z");
said.charts = [course("2026-06-01T00:00:00Z"), course("2030-01-01T00:00:00Z")];

say.language = "en";
await showPage({ outlet: "cn", screen: "tv", surface: "home", viewer: "v" });
const [heads, rows] = $("receipt").kids[0].kids.map((part) => part.kids);
said.page = { summary: $("summary").textContent, with: $("with").textContent };
said.receipt = rows.map((row) => row.kids.map((cell) => cell.textContent));
said.heads = [heads[0].kids.map((head) => head.textContent), ...rows.map((row) => row.kids.map((cell) => cell.dataset.head))];
said.equivalents = figures.map((figure) => equivalents(figure));
console.log(JSON.stringify(said));
